//! A device that keeps what it overwrites, and the way back.
//!
//! The file begins with a line that names its form; then follows, for every write, its offset and length in bytes, each as 8
//! bytes, big-endian, and what was there before. It is durable before the write is done.

use gfs2r::device::BlockDevice;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Mutex;

const HEAD: &[u8] = b"gfs2r undo 1\n";

/// In front of a device.
#[derive(Debug)]
pub struct UndoDevice<D> {
    below: D,
    file: Mutex<File>,
}

impl<D: BlockDevice> UndoDevice<D> {
    /// Keeps what is overwritten in a new file.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn new(below: D, path: &Path) -> io::Result<Self> {
        let mut file = File::create_new(path)?;
        file.write_all(HEAD)?;
        file.write_all(&below.size().to_be_bytes())?;
        Ok(Self { below, file: Mutex::new(file) })
    }
    fn keep(&self, offset: u64, len: usize) -> io::Result<()> {
        let mut old = vec![0; len];
        self.below.read(offset, &mut old)?;
        let mut file = self.file.lock().map_err(|_| io::Error::other("an earlier write of the undo file failed"))?;
        let mut record = Vec::with_capacity(16 + len);
        record.extend_from_slice(&offset.to_be_bytes());
        record.extend_from_slice(&(len as u64).to_be_bytes());
        record.extend_from_slice(&old);
        file.write_all(&record)?;
        file.sync_data()
    }
}

impl<D: BlockDevice> BlockDevice for UndoDevice<D> {
    fn size(&self) -> u64 {
        self.below.size()
    }
    fn alignment(&self) -> usize {
        self.below.alignment()
    }
    fn read_only(&self) -> bool {
        self.below.read_only()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.below.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.keep(offset, buf.len())?;
        self.below.write(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.below.flush()
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Puts back what an undo file holds, newest first. How many writes were undone.
///
/// # Errors
/// When the file is not an undo file for a device of this size, or the device fails. A last record that is cut short belongs
/// to a write that was never done.
pub fn put_back(device: &dyn BlockDevice, path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
    let body = bytes.strip_prefix(HEAD).ok_or_else(|| wrong("not an undo file"))?;
    let number = |at: usize| body.get(at..at + 8).map(|b| b.iter().fold(0, |n, &b| n << 8 | u64::from(b)));
    if number(0) != Some(device.size()) {
        return Err(wrong("made for a device of another size"));
    }
    let mut records = Vec::new();
    let mut at = 8;
    while let (Some(offset), Some(len)) = (number(at), number(at + 8)) {
        let len = usize::try_from(len).map_err(|_| wrong("a record of impossible length"))?;
        let Some(old) = at.checked_add(16).and_then(|from| body.get(from..from.checked_add(len)?)) else { break };
        records.push((offset, old));
        at += 16 + len;
    }
    for (offset, old) in records.iter().rev() {
        device.write(*offset, old)?;
    }
    device.flush()?;
    Ok(records.len() as u64)
}
