//! A disk in memory.
//!
//! Pages exist where something other than zero was written, so a disk may have any size. Two levels of shared pages make a
//! [`snapshot`](MemoryDevice::snapshot) cost a few pointers: whoever writes next copies the page it writes.

use super::{BlockDevice, check_read, check_write};
use crate::sync::RwLock;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const PAGE: usize = 4096;
const PAGES: usize = 256;
/// Bytes of an extent.
const EXTENT: u64 = (PAGE * PAGES) as u64;

type Extent = [Option<Arc<[u8; PAGE]>>; PAGES];

/// A sparse disk in memory.
#[derive(Debug)]
pub struct MemoryDevice {
    size: u64,
    extents: RwLock<BTreeMap<u64, Arc<Extent>>>,
}

impl MemoryDevice {
    /// A disk of `size` zero bytes.
    pub fn new(size: u64) -> Self {
        Self { size, extents: RwLock::new(BTreeMap::new()) }
    }
    /// A disk with the contents of an image file; holes in the file cost nothing.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let device = Self::new(file.metadata()?.len());
        let mut buf = vec![0; EXTENT as usize];
        let mut at = 0;
        while at < device.size {
            // Holes are skipped where the filesystem can tell them.
            match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) => at = data - data % EXTENT,
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => {
                    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(at))?;
                }
            }
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(at))?;
            let len = EXTENT.min(device.size - at) as usize;
            file.read_exact(&mut buf[..len])?;
            device.put(at, &buf[..len]);
            at += len as u64;
        }
        Ok(device)
    }
    /// Writes the contents as a sparse image file, for tools that want a file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.size)?;
        self.extents.read().iter().try_for_each(|(number, extent)| {
            let pages = extent.iter().enumerate().filter_map(|(i, page)| Some((i, page.as_ref()?)));
            pages
                .map(|(i, page)| (number * EXTENT + (i * PAGE) as u64, page))
                .try_for_each(|(at, page)| file.write_all_at(&page[..PAGE.min((self.size - at) as usize)], at))
        })
    }
    /// A disk with the same contents that goes its own way from here.
    pub fn snapshot(&self) -> Self {
        Self { size: self.size, extents: RwLock::new(self.extents.read().clone()) }
    }
    /// Bytes of memory in use for contents.
    pub fn allocated(&self) -> u64 {
        self.extents.read().values().map(|e| (e.iter().flatten().count() * PAGE) as u64).sum()
    }
    /// The parts that may hold something other than zero: (offset, length), in order and apart from each other.
    pub fn allocated_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (number, extent) in self.extents.read().iter() {
            for i in extent.iter().enumerate().filter_map(|(i, page)| page.as_ref().map(|_| i)) {
                let at = number * EXTENT + (i * PAGE) as u64;
                let len = (PAGE as u64).min(self.size - at);
                match ranges.last_mut() {
                    Some((start, before)) if *start + *before == at => *before += len,
                    _ => ranges.push((at, len)),
                }
            }
        }
        ranges
    }
    /// Changes the size; what lies beyond a smaller one is gone.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            let zeros = vec![0; PAGE];
            let end = self.size.min(size.next_multiple_of(PAGE as u64));
            self.put(size, &zeros[..(end - size) as usize]);
            let first_gone = size.div_ceil(PAGE as u64);
            let extents = self.extents.get_mut();
            extents.retain(|number, _| number * PAGES as u64 <= first_gone);
            if let Some(last) = extents.get_mut(&(first_gone / PAGES as u64)) {
                Arc::make_mut(last)[(first_gone % PAGES as u64) as usize..].fill(None);
            }
        }
        self.size = size;
    }
    /// Fills the pages of a range that exist with `byte`.
    pub(super) fn scribble(&self, offset: u64, len: u64, byte: u8) {
        let first = offset.div_ceil(PAGE as u64);
        let last = (offset + len) / PAGE as u64;
        let mut extents = self.extents.write();
        for (number, extent) in extents.range_mut(first / PAGES as u64..=last / PAGES as u64) {
            let start = number * PAGES as u64;
            for (i, page) in Arc::make_mut(extent).iter_mut().enumerate() {
                if (first..last).contains(&(start + i as u64)) && page.is_some() {
                    *page = Some(Arc::new([byte; PAGE]));
                }
            }
        }
    }

    fn put(&self, offset: u64, buf: &[u8]) {
        let mut extents = self.extents.write();
        for (at, piece) in pages_of(offset, buf.len()) {
            let bytes = &buf[piece];
            let within = (at % PAGE as u64) as usize;
            let (number, index) = (at / EXTENT, (at % EXTENT) as usize / PAGE);
            let zero = bytes.iter().all(|&b| b == 0);
            let exists = extents.get(&number).is_some_and(|e| e[index].is_some());
            if zero && (!exists || bytes.len() == PAGE) {
                // Zeros where nothing is stay nothing; a page of zeros becomes nothing.
                if exists && let Some(extent) = extents.get_mut(&number) {
                    Arc::make_mut(extent)[index] = None;
                }
                continue;
            }
            let extent = extents.entry(number).or_insert_with(|| Arc::new([const { None }; PAGES]));
            let page = Arc::make_mut(extent)[index].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }
    fn get(&self, offset: u64, buf: &mut [u8]) {
        let extents = self.extents.read();
        for (at, piece) in pages_of(offset, buf.len()) {
            let within = (at % PAGE as u64) as usize;
            let page = extents.get(&(at / EXTENT)).and_then(|e| e[(at % EXTENT) as usize / PAGE].as_ref());
            let to = &mut buf[piece];
            match page {
                Some(page) => to.copy_from_slice(&page[within..within + to.len()]),
                None => to.fill(0),
            }
        }
    }
}

/// Cuts a range at page borders: (offset on the disk, range within the buffer) of each piece.
fn pages_of(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let piece = (PAGE - (at % PAGE as u64) as usize).min(len - done);
        done += piece;
        Some((at, done - piece..done))
    })
}

impl BlockDevice for MemoryDevice {
    fn size(&self) -> u64 {
        self.size
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_read(self.size, offset, buf.len())?;
        self.get(offset, buf);
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_write(self.size, self.alignment(), offset, buf.len() as u64)?;
        self.put(offset, buf);
        Ok(())
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_write(self.size, self.alignment(), offset, len)?;
        // Whole pages go; the edges keep their bytes, as a discard may.
        let (first, last) = (offset.div_ceil(PAGE as u64), (offset + len) / PAGE as u64);
        if first >= last {
            return Ok(());
        }
        let mut extents = self.extents.write();
        for (number, extent) in extents.range_mut(first / PAGES as u64..=last / PAGES as u64) {
            let start = number * PAGES as u64;
            for (i, page) in Arc::make_mut(extent).iter_mut().enumerate() {
                if (first..last).contains(&(start + i as u64)) {
                    *page = None;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sparse_and_snapshots_go_their_own_way() {
        let disk = MemoryDevice::new(16 << 40);
        disk.write(0, &[0; 65536]).expect("zeros");
        assert_eq!(disk.allocated(), 0);
        disk.write((16 << 40) - 1024, &[7; 1024]).expect("the end");
        disk.write(512, &[1; 1024]).expect("within a page");
        assert_eq!(disk.allocated(), 8192);
        let then = disk.snapshot();
        disk.write(512, &[2; 512]).expect("later");
        let (mut a, mut b) = ([9; 2048], [9; 2048]);
        then.read(0, &mut a).expect("read");
        disk.read(0, &mut b).expect("read");
        assert_eq!([a[511], a[512], a[1024], a[1535], a[1536]], [0, 1, 1, 1, 0]);
        assert_eq!([b[511], b[512], b[1024], b[1535], b[1536]], [0, 2, 1, 1, 0]);
        disk.discard(0, 4096).expect("discard");
        disk.read(0, &mut b).expect("read");
        assert!(b.iter().all(|&x| x == 0) && disk.allocated() == 4096);
    }

    #[test]
    fn it_becomes_a_file_and_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image");
        let disk = MemoryDevice::new((3 << 20) + 1536);
        disk.write(1 << 20, &[3; 4096]).expect("write");
        disk.write((3 << 20) + 1024, &[4; 512]).expect("write");
        disk.save(&path).expect("saved");
        let back = MemoryDevice::load(&path).expect("loaded");
        assert_eq!((back.size(), back.allocated()), (disk.size(), 8192));
        assert_eq!(back.allocated_ranges(), [(1 << 20, 4096), (3 << 20, 1536)]);
        let mut block = [0; 512];
        back.read((3 << 20) + 1024, &mut block).expect("read");
        assert_eq!(block, [4; 512]);
    }

    #[test]
    fn shrinking_forgets() {
        let mut disk = MemoryDevice::new(4 << 20);
        disk.write(0, &vec![5; 4 << 20]).expect("fill");
        disk.resize((1 << 20) + 512);
        disk.resize(4 << 20);
        let mut all = vec![1; 4 << 20];
        disk.read(0, &mut all).expect("read");
        assert!(all[..(1 << 20) + 512].iter().all(|&b| b == 5) && all[(1 << 20) + 512..].iter().all(|&b| b == 0));
    }

    #[test]
    fn borders_hold() {
        let disk = MemoryDevice::new(4096);
        assert!(disk.write(3584, &[0; 1024]).is_err() && disk.write(u64::MAX - 511, &[0; 512]).is_err());
        assert!(disk.write(100, &[0; 512]).is_err() && disk.read(4095, &mut [0; 2]).is_err());
        assert!(disk.read(4095, &mut [0; 1]).is_ok());
    }
}
