//! What is done under a lock, and the log.

use super::{COUNTERS, REWRITTEN, Worker, read_at};
use crate::history::{Lock, Op, Outcome, now};
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Bytes of a line of the log.
pub const LINE: usize = 32;

/// A line of the log.
pub fn log_line(writer: u32, number: u32) -> Vec<u8> {
    format!("writer {writer:>6} number {number:>10}\n").into_bytes()
}

/// A checksum: FNV-1a.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

fn parse_line(line: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split_whitespace();
    let (writer, number) = (words.nth(1)?.parse().ok()?, words.nth(1)?.parse().ok()?);
    (log_line(writer, number) == line).then_some((writer, number))
}

/// Waits for the lock of the whole file; closing the file gives it up.
fn lock(file: &File, how: Lock) -> io::Result<()> {
    // To see what else is wrong where byte-range locks are not to be had.
    let how = if std::env::var_os("ONLY_FLOCK").is_some() { Lock::Flock } else { how };
    match how {
        Lock::Flock => Ok(rustix::fs::flock(file, FlockOperation::LockExclusive)?),
        Lock::Fcntl => Ok(rustix::fs::fcntl_lock(file, FlockOperation::LockExclusive)?),
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9).wrapping_add(seed.wrapping_mul(77)) >> 11) as u8).collect()
}

impl Worker {
    pub(super) fn count(&mut self) {
        let counter = self.small(COUNTERS);
        let how = if counter % 2 == 0 { Lock::Flock } else { Lock::Fcntl };
        let path = self.path(&format!("counter{counter}"));
        self.op(Op::Count { counter, lock: how }, |_| {
            let file = File::options().read(true).write(true).open(&path)?;
            lock(&file, how)?;
            let from = now();
            let bytes = read_at(&file, 0, 9)?;
            let Ok(old) = <[u8; 8]>::try_from(bytes.as_slice()) else {
                return Ok(Outcome::Wrong(format!("{bytes:?}")));
            };
            let value = u64::from_le_bytes(old) + 1;
            file.write_all_at(&value.to_le_bytes(), 0)?;
            file.sync_data()?;
            let to = now();
            drop(file);
            Ok(Outcome::Counted { value, from, to })
        });
    }

    pub(super) fn peek(&mut self, counter: u8) {
        self.op(Op::Peek { counter }, |w| {
            let bytes = fs::read(w.path(&format!("counter{counter}")))?;
            Ok(<[u8; 8]>::try_from(bytes.as_slice())
                .map_or_else(|_| Outcome::Wrong(format!("{bytes:?}")), |b| Outcome::Value(u64::from_le_bytes(b))))
        });
    }

    /// Header: seed, length, old length; then the pattern. All under the lock.
    pub(super) fn rewrite(&mut self) {
        let file = self.small(REWRITTEN);
        let seed = self.value();
        let shorter = self.below(100);
        let len = 24 + self.below(200_000) as usize;
        let path = self.path(&format!("rewritten{file}"));
        self.op(Op::Rewrite { file }, |_| {
            let file = File::options().read(true).write(true).open(&path)?;
            lock(&file, Lock::Fcntl)?;
            let bytes = read_at(&file, 0, 400_000)?;
            let found = whole(&bytes);
            // Cut, then grow: what was cut off must read as zeros.
            let cut = bytes.len() * shorter as usize / 100;
            file.set_len(cut as u64)?;
            file.set_len(len as u64)?;
            let now_there = read_at(&file, 0, 400_000)?;
            let kept = cut.min(len);
            if now_there.len() != len || now_there[..kept] != bytes[..kept] || now_there[kept..].iter().any(|b| *b != 0)
            {
                let at = now_there
                    .iter()
                    .zip(bytes.iter().take(kept).chain(std::iter::repeat(&0)))
                    .position(|(a, b)| a != b);
                return Ok(Outcome::Wrong(format!(
                    "{} bytes cut to {cut}, grown to {len}: read {} bytes, different from byte {at:?}",
                    bytes.len(),
                    now_there.len()
                )));
            }
            let mut new = [seed.to_le_bytes(), (len as u64).to_le_bytes(), [0; 8]].concat();
            new.extend(pattern(seed, len - 24));
            file.write_all_at(&new, 0)?;
            file.sync_all()?;
            drop(file);
            Ok(found.map_or_else(Outcome::Mismatch, |()| Outcome::Done))
        });
    }

    pub(super) fn append(&mut self) {
        self.line += 1;
        let (writer, number) = (self.writer, self.line);
        self.op(Op::Append { writer, number }, |w| {
            let mut file = File::options().append(true).open(w.path("log"))?;
            file.write_all(&log_line(writer, number))?;
            file.sync_all()?;
            Ok(Outcome::Done)
        });
    }

    pub(super) fn log_length(&mut self) {
        let opened = self.below(2) == 0;
        self.op(Op::LogLength, |w| {
            let path = w.path("log");
            let meta = if opened { File::open(path)?.metadata()? } else { fs::metadata(path)? };
            Ok(Outcome::Length(meta.len()))
        });
    }

    pub(super) fn log_content(&mut self) {
        self.op(Op::LogContent, |w| {
            let bytes = fs::read(w.path("log"))?;
            Ok(Outcome::Content(bytes.len() as u64, sum(&bytes)))
        });
    }

    pub(super) fn log_lines(&mut self) {
        self.op(Op::LogLines, |w| {
            let bytes = fs::read(w.path("log"))?;
            let mut lines = Vec::new();
            for (i, line) in bytes.chunks(LINE).enumerate() {
                match parse_line(line) {
                    Some(line) => lines.push(line),
                    None => return Ok(Outcome::Wrong(format!("line {i}: {:?}", String::from_utf8_lossy(line)))),
                }
            }
            Ok(Outcome::Lines(lines))
        });
    }
}

/// Is it what somebody left who came to his end?
fn whole(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Ok(());
    }
    let head = bytes.get(..24).ok_or_else(|| format!("{} bytes", bytes.len()))?;
    let word = |i: usize| head.as_chunks::<8>().0.get(i).map_or(0, |c| u64::from_le_bytes(*c));
    let (seed, len) = (word(0), word(1));
    if len != bytes.len() as u64 {
        return Err(format!("{} bytes, its header says {len} (by {seed:#x})", bytes.len()));
    }
    let wanted = pattern(seed, bytes.len() - 24);
    match bytes[24..].iter().zip(&wanted).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(format!("of {len} bytes (by {seed:#x}) byte {} is wrong", at + 24)),
    }
}
