//! Why no filesystem was made.

use std::fmt;

/// Why no filesystem was made.
#[derive(Debug)]
pub enum Error {
    /// The device is too small for what was asked.
    WillNotFit {
        /// Journals asked for.
        journals: u64,
        /// Largest journal that so many journals could have, when that was the reason.
        max_journal_mib: Option<u64>,
    },
    /// The size asked for passes the end of the device.
    BiggerThanDevice {
        /// Bytes of the device.
        bytes: u64,
        /// Blocks of the device.
        blocks: u64,
    },
    /// An option that makes no sense.
    Invalid(&'static str),
    /// The system files do not fit.
    NoSpace,
    /// The device failed.
    Device(&'static str, std::io::Error),
}

impl Error {
    pub(crate) fn will_not_fit() -> Self {
        Self::WillNotFit { journals: 0, max_journal_mib: None }
    }
    pub(crate) fn device(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |e| Self::Device(what, e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WillNotFit { journals, max_journal_mib } => {
                f.write_str("gfs2 will not fit on this device.")?;
                match max_journal_mib {
                    Some(max) if *max >= 8 => {
                        write!(f, "\nMaximum size for {journals} journals on this device is {max}MB.")
                    }
                    _ => Ok(()),
                }
            }
            Self::BiggerThanDevice { bytes, blocks } => {
                let gib = crate::report::gib(*bytes);
                write!(f, "Specified size is bigger than the device.\nDevice size: {gib:.2} GB ({blocks} blocks)")
            }
            Self::Invalid(what) => f.write_str(what),
            Self::NoSpace => f.write_str("the system files do not fit on this device (smaller -c or -J?)"),
            Self::Device(what, e) => write!(f, "{what}: {e}"),
        }
    }
}

impl std::error::Error for Error {}
