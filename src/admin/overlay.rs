//! A device whose changes stay in memory: what a journal holds can be replayed on it, and the disk stays as it is.

use crate::device::BlockDevice;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

const PAGE: u64 = 4096;

/// In front of a device that is only read. Its memory grows with what is written: a replay writes no more than the journals hold.
pub struct Overlay {
    below: Arc<dyn BlockDevice>,
    changed: Mutex<HashMap<u64, Box<[u8]>>>,
}

impl Overlay {
    /// Nothing is changed yet.
    pub fn new(below: Arc<dyn BlockDevice>) -> Self {
        Self { below, changed: Mutex::default() }
    }
}

impl BlockDevice for Overlay {
    fn size(&self) -> u64 {
        self.below.size()
    }
    fn alignment(&self) -> usize {
        self.below.alignment()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.below.read(offset, buf)?;
        let changed = self.changed.lock();
        if changed.is_empty() || buf.is_empty() {
            return Ok(());
        }
        let end = offset + buf.len() as u64;
        for page in offset / PAGE..=(end - 1) / PAGE {
            let Some(bytes) = changed.get(&page) else { continue };
            let (from, to) =
                (offset.max(page * PAGE), end.min((page + 1) * PAGE).min(page * PAGE + bytes.len() as u64));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - page * PAGE) as usize..(to - page * PAGE) as usize]);
        }
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.size());
        let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a write past the end"))?;
        if buf.is_empty() {
            return Ok(());
        }
        for page in offset / PAGE..=(end - 1) / PAGE {
            let start = page * PAGE;
            let mut bytes = vec![0; PAGE.min(self.size() - start) as usize];
            self.read(start, &mut bytes)?;
            let (from, to) = (offset.max(start), end.min(start + PAGE));
            bytes[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&buf[(from - offset) as usize..(to - offset) as usize]);
            self.changed.lock().insert(page, bytes.into_boxed_slice());
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::MemoryDevice;

    #[test]
    fn the_device_below_stays_as_it_is() {
        let below = Arc::new(MemoryDevice::new(10_240));
        below.write(0, &[1; 10_240]).expect("in range");
        let over = Overlay::new(below.clone());
        over.write(3584, &[2; 1024]).expect("in range");
        over.write(9728, &[3; 512]).expect("in range");
        assert!(over.write(9728, &[3; 1024]).is_err());
        let mut all = vec![0; 10_240];
        over.read(0, &mut all).expect("in range");
        let expected = |at: usize| {
            if (3584..4608).contains(&at) {
                2
            } else if at >= 9728 {
                3
            } else {
                1
            }
        };
        assert!(all.iter().enumerate().all(|(at, &b)| b == expected(at)));
        below.read(0, &mut all).expect("in range");
        assert!(all.iter().all(|&b| b == 1));
    }
}
