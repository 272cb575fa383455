//! Why no filesystem was made.

use gfs2r::admin::geometry::GeometryError;
use std::fmt;

/// Why no filesystem was made.
#[derive(Debug)]
pub enum Error {
    /// There is no layout for what was asked.
    Geometry(GeometryError),
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
    pub(crate) fn device(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |e| Self::Device(what, e)
    }
}

impl From<GeometryError> for Error {
    fn from(e: GeometryError) -> Self {
        Self::Geometry(e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Geometry(e) => e.fmt(f),
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
