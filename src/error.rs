//! What can go wrong, in words that a test can match. errno appears in `fuse/errno.rs` alone.

use crate::ids::BlockAddr;
use std::fmt;
use std::sync::Arc;

/// Result of everything below FUSE.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The disk contradicts itself: where, and what is wrong there. Whoever meets one withdraws from the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The block that cannot be right.
    pub at: BlockAddr,
    /// What is wrong with it.
    pub what: CorruptKind,
}

/// Kinds of contradiction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorruptKind {
    /// The metadata header has another magic or type than the place demands (wanted type, found type; 0 = no magic).
    MetaType {
        /// The type demanded.
        wanted: u32,
        /// The type found; 0 when even the magic is missing.
        found: u32,
    },
    /// A dinode that breaks a rule of ondisk.md 4.1.
    Dinode(&'static str),
    /// A resource group header, bitmap or rindex entry that breaks a rule of ondisk.md 3.
    Rgrp(&'static str),
    /// A directory block or hash table that breaks a rule of ondisk.md 5.
    Directory(&'static str),
    /// An extended attribute that breaks a rule of ondisk.md 6.
    Xattr(&'static str),
    /// A journal that cannot be used or replayed (ondisk.md 8).
    Journal(&'static str),
    /// A pointer to a block that no file can own.
    Pointer(u64),
    /// The block lies past the end of the device: a wild pointer, or an image that was cut short.
    OffDevice,
    /// A system file that is missing or has the wrong shape (ondisk.md 7).
    SystemFile(&'static str),
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: ", self.at)?;
        match &self.what {
            CorruptKind::MetaType { wanted, found: 0 } => write!(f, "not a metadata block (type {wanted} expected)"),
            CorruptKind::MetaType { wanted, found } => write!(f, "metadata type {found} where type {wanted} belongs"),
            CorruptKind::Dinode(what) => write!(f, "invalid dinode: {what}"),
            CorruptKind::Rgrp(what) => write!(f, "invalid resource group: {what}"),
            CorruptKind::Directory(what) => write!(f, "invalid directory: {what}"),
            CorruptKind::Xattr(what) => write!(f, "invalid extended attribute: {what}"),
            CorruptKind::Journal(what) => write!(f, "invalid journal: {what}"),
            CorruptKind::Pointer(p) => write!(f, "pointer to block {p}, which no file can own"),
            CorruptKind::OffDevice => f.write_str("it lies past the end of the device"),
            CorruptKind::SystemFile(what) => write!(f, "invalid system file: {what}"),
        }
    }
}

/// Why an operation failed.
#[derive(Clone, Debug)]
pub enum Error {
    /// The device failed (EIO). Shared, because many waiters may learn of one failed flush.
    Io(Arc<std::io::Error>),
    /// The disk contradicts itself (EIO, and the mount withdraws).
    Corrupt(Corrupt),
    /// The mount has withdrawn earlier (EIO).
    Withdrawn,
    /// No space left (ENOSPC).
    NoSpace,
    /// A quota limit is reached (EDQUOT).
    QuotaExceeded,
    /// No such name (ENOENT).
    NotFound,
    /// The name exists (EEXIST).
    Exists,
    /// A directory was needed (ENOTDIR).
    NotADirectory,
    /// A directory is not allowed (EISDIR).
    IsADirectory,
    /// The directory has entries (ENOTEMPTY).
    NotEmpty,
    /// Permission bits or ACL forbid it (EACCES).
    Access,
    /// Ownership, immutable or append-only forbid it (EPERM).
    NotPermitted,
    /// The name is longer than 255 bytes, or the symlink target does not fit (ENAMETOOLONG).
    NameTooLong,
    /// The link count is at its limit (EMLINK).
    TooManyLinks,
    /// The file or directory is at its limit (EFBIG).
    TooBig,
    /// Mounted read-only (EROFS).
    ReadOnly,
    /// An argument makes no sense here (EINVAL).
    Invalid,
    /// No such attribute (ENODATA).
    NoAttribute,
    /// The attribute or answer does not fit (ERANGE).
    OutOfRange,
    /// Not offered on this file or volume (EOPNOTSUPP).
    NotSupported,
    /// The inode behind this handle or entry is gone (ESTALE).
    Stale,
    /// No such hole, data or device (ENXIO).
    NoSuchRegion,
    /// In use (EBUSY).
    Busy,
    /// The handle is unknown (EBADF).
    BadHandle,
    /// The wait was interrupted (EINTR).
    Interrupted,
    /// A lock is held by another (EAGAIN).
    WouldBlock,
    /// No more locks can be had (ENOLCK).
    NoLocks,
    /// This thread must not wait and the answer is not at hand. Never leaves the daemon: the request is run again on a
    /// thread that may wait (`sync::Patience`).
    MustWait,
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::Io(Arc::new(e))
    }
}
impl From<Corrupt> for Error {
    fn from(c: Corrupt) -> Self {
        Self::Corrupt(c)
    }
}

impl Error {
    /// A [`Corrupt`] error for block `at`.
    pub fn corrupt(at: BlockAddr, what: CorruptKind) -> Self {
        Self::Corrupt(Corrupt { at, what })
    }
    /// True when the disk or the device failed, so that the mount must withdraw if a change was under way.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Corrupt(_) | Self::Withdrawn)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "device error: {e}"),
            Self::Corrupt(c) => c.fmt(f),
            Self::Withdrawn => f.write_str("the filesystem has withdrawn"),
            Self::NoSpace => f.write_str("no space left"),
            Self::QuotaExceeded => f.write_str("quota exceeded"),
            Self::NotFound => f.write_str("not found"),
            Self::Exists => f.write_str("exists already"),
            Self::NotADirectory => f.write_str("not a directory"),
            Self::IsADirectory => f.write_str("is a directory"),
            Self::NotEmpty => f.write_str("directory not empty"),
            Self::Access => f.write_str("permission denied"),
            Self::NotPermitted => f.write_str("operation not permitted"),
            Self::NameTooLong => f.write_str("name too long"),
            Self::TooManyLinks => f.write_str("too many links"),
            Self::TooBig => f.write_str("too large"),
            Self::ReadOnly => f.write_str("read-only filesystem"),
            Self::Invalid => f.write_str("invalid argument"),
            Self::NoAttribute => f.write_str("no such attribute"),
            Self::OutOfRange => f.write_str("does not fit"),
            Self::NotSupported => f.write_str("not supported"),
            Self::Stale => f.write_str("stale handle"),
            Self::NoSuchRegion => f.write_str("no such region"),
            Self::Busy => f.write_str("in use"),
            Self::BadHandle => f.write_str("unknown handle"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::WouldBlock => f.write_str("held by another"),
            Self::NoLocks => f.write_str("no locks available"),
            Self::MustWait => f.write_str("must wait"),
        }
    }
}

impl std::error::Error for Error {}
