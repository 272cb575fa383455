//! A disk that can be told to be slow or to fail, in front of a node's way to the shared one: the daemon runs in this test's
//! program then (see `Job::Mount`), and does what a file beside its mount says.

use gfs2r::device::BlockDevice;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a node's way to its disk is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Every request takes longer by so many microseconds.
    Slow(u32),
    /// Every write and flush fails.
    NoWrites,
    /// Every read fails.
    NoReads,
    /// Everything fails.
    Dead,
}

const READS: u64 = 1 << 32;
const WRITES: u64 = 1 << 33;

impl Mood {
    /// In one word: microseconds, and what fails.
    fn word(self) -> u64 {
        match self {
            Self::Well => 0,
            Self::Slow(micros) => micros.into(),
            Self::NoWrites => WRITES,
            Self::NoReads => READS,
            Self::Dead => READS | WRITES,
        }
    }
}

/// Tells the node whose folder this is; it obeys when this returns.
pub fn tell(folder: &Path, mood: Mood) -> io::Result<()> {
    let (new, orders) = (folder.join("mood.new"), orders(folder));
    fs::write(&new, serde_json::to_vec(&mood)?)?;
    fs::rename(new, orders)?;
    std::thread::sleep(LOOK * 4);
    Ok(())
}

const LOOK: Duration = Duration::from_millis(5);

fn orders(folder: &Path) -> PathBuf {
    folder.join("mood")
}

/// Mounts and serves, as `mount.gfs2r` with these arguments, on such a disk.
pub fn mount(arguments: Vec<OsString>, folder: &Path) -> io::Result<()> {
    let word = Arc::new(AtomicU64::new(0));
    let (file, obey) = (orders(folder), Arc::clone(&word));
    // Ends with the process.
    std::thread::spawn(move || {
        loop {
            let mood = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Mood>(&text).ok());
            obey.store(mood.unwrap_or(Mood::Well).word(), Ordering::Release);
            std::thread::sleep(LOOK);
        }
    });
    let front =
        |disk: Arc<dyn BlockDevice>| -> Arc<dyn BlockDevice> { Arc::new(Moody { disk, word: Arc::clone(&word) }) };
    gfs2r::mount::mount_on(arguments, &front).map_err(io::Error::other)
}

struct Moody {
    disk: Arc<dyn BlockDevice>,
    word: Arc<AtomicU64>,
}

impl Moody {
    /// Waits, or fails.
    fn suffer(&self, fails: u64) -> io::Result<()> {
        let word = self.word.load(Ordering::Acquire);
        if word & fails != 0 {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        let micros = word & (READS - 1);
        if micros > 0 {
            std::thread::sleep(Duration::from_micros(micros));
        }
        Ok(())
    }
}

impl BlockDevice for Moody {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn refresh_size(&self) -> io::Result<u64> {
        self.disk.refresh_size()
    }
    fn alignment(&self) -> usize {
        self.disk.alignment()
    }
    fn read_only(&self) -> bool {
        self.disk.read_only()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.suffer(READS)?;
        self.disk.read(offset, buf)
    }
    fn read_many(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        self.suffer(READS)?;
        self.disk.read_many(ranges)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.suffer(WRITES)?;
        self.disk.write(offset, buf)
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.suffer(WRITES)?;
        self.disk.write_durable(offset, buf)
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        self.suffer(WRITES)?;
        // It breaks in the middle as well.
        let (first, rest) = ranges.split_at(ranges.len() / 2);
        self.disk.write_many(first)?;
        self.suffer(WRITES)?;
        self.disk.write_many(rest)
    }
    fn flush(&self) -> io::Result<()> {
        self.suffer(WRITES)?;
        self.disk.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.suffer(WRITES)?;
        self.disk.discard(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gfs2r::device::MemoryDevice;

    #[test]
    fn a_moody_disk_fails_what_it_is_told_to() {
        let word = Arc::new(AtomicU64::new(0));
        let disk = Moody { disk: Arc::new(MemoryDevice::new(8192)), word: Arc::clone(&word) };
        let works = |mood: Mood| {
            word.store(mood.word(), Ordering::Release);
            (disk.read(0, &mut [0; 512]).is_ok(), disk.write(0, &[1; 512]).is_ok(), disk.flush().is_ok())
        };
        assert_eq!(works(Mood::Well), (true, true, true));
        assert_eq!(works(Mood::Slow(1)), (true, true, true));
        assert_eq!(works(Mood::NoWrites), (true, false, false));
        assert_eq!(works(Mood::NoReads), (false, true, true));
        assert_eq!(works(Mood::Dead), (false, false, false));
    }
}
