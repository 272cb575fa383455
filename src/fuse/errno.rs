//! errno, in this file alone.

use crate::error::Error;
use rustix::io::Errno;

/// The errno that tells a program of an error.
pub(super) fn errno(error: &Error) -> i32 {
    let e = match error {
        Error::Io(_) | Error::Corrupt(_) | Error::Withdrawn => Errno::IO,
        Error::NoSpace => Errno::NOSPC,
        Error::QuotaExceeded => Errno::DQUOT,
        Error::NotFound => Errno::NOENT,
        Error::Exists => Errno::EXIST,
        Error::NotADirectory => Errno::NOTDIR,
        Error::IsADirectory => Errno::ISDIR,
        Error::NotEmpty => Errno::NOTEMPTY,
        Error::Access => Errno::ACCESS,
        Error::NotPermitted => Errno::PERM,
        Error::NameTooLong => Errno::NAMETOOLONG,
        Error::TooManyLinks => Errno::MLINK,
        Error::TooBig => Errno::FBIG,
        Error::ReadOnly => Errno::ROFS,
        Error::Invalid => Errno::INVAL,
        Error::NoAttribute => Errno::NODATA,
        Error::OutOfRange => Errno::RANGE,
        Error::NotSupported => Errno::OPNOTSUPP,
        Error::Stale => Errno::STALE,
        Error::NoSuchRegion => Errno::NXIO,
        Error::Busy => Errno::BUSY,
        Error::BadHandle => Errno::BADF,
        Error::Interrupted => Errno::INTR,
        Error::WouldBlock => Errno::AGAIN,
        Error::NoLocks => Errno::NOLCK,
        // Never leaves the dispatcher; if it did, the program may try again.
        Error::MustWait => Errno::AGAIN,
    };
    e.raw_os_error()
}
