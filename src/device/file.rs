//! A block device or image file.
/// A block device or image file, with direct I/O where it can be had.
#[derive(Debug)]
pub struct FileDevice;
