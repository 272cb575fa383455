//! Objects with one value: registers, replaced files, attributes.

use super::{OWNERS, REGISTER_FILES, REGISTERS, REPLACED, Worker, XATTRS, read_at, registers_of, write_durably};
use crate::history::{How, Object, Op, Outcome};
use gfs2r::device::AlignedBuf;
use rustix::fs::{OFlags, XattrFlags};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

/// A read that meets a write on its way is tried again: one node's reads and writes need not exclude each other.
const TORN_MAX: u32 = 50;

/// The body of a replaced file: its value, its length, and a pattern of both.
pub(super) fn body(value: u64) -> Vec<u8> {
    let len = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 40_000 + 16;
    let mut bytes = Vec::with_capacity(len as usize);
    bytes.extend(value.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend((16..len).map(|i| (i.wrapping_mul(31).wrapping_add(value) >> 3) as u8));
    bytes
}

/// The value of a body that is whole.
pub(super) fn value_of(bytes: &[u8]) -> Result<u64, String> {
    let head = bytes.first_chunk::<8>().ok_or_else(|| format!("only {} bytes", bytes.len()))?;
    let value = u64::from_le_bytes(*head);
    let wanted = body(value);
    if wanted == bytes {
        return Ok(value);
    }
    let at = wanted.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(wanted.len().min(bytes.len()));
    Err(format!("{value:#x}: {} bytes, not {}, different from byte {at}", bytes.len(), wanted.len()))
}

/// The value of a register: eight times the same.
pub(super) fn register(bytes: &[u8]) -> Option<u64> {
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c)).collect();
    let first = *words.first()?;
    (bytes.len() == 64 && words.iter().all(|w| *w == first)).then_some(first)
}

impl Worker {
    fn register_file(&self, file: u8) -> std::path::PathBuf {
        self.path(&format!("register{file}"))
    }

    pub(super) fn write_register(&mut self) {
        let k = self.small(8);
        let (file, at) = REGISTERS[usize::from(k)];
        let value = self.value();
        let sync = self.below(4) == 0;
        let mut opened = None;
        self.op(Op::Write { on: Object::Register(k), value }, |w| {
            let file = File::options().read(true).write(true).open(w.register_file(file))?;
            let bytes = [value.to_le_bytes(); 8].concat();
            file.write_all_at(&bytes, at)?;
            opened = Some(file);
            Ok(Outcome::Done)
        });
        if let Some(opened) = opened.filter(|_| sync) {
            self.op(Op::Sync { on: registers_of(file) }, |_| opened.sync_data().map(|()| Outcome::Done));
        }
    }

    pub(super) fn sync_registers(&mut self) {
        let file = self.small(REGISTER_FILES);
        self.op(Op::Sync { on: registers_of(file) }, |w| {
            File::open(w.register_file(file))?.sync_all()?;
            Ok(Outcome::Done)
        });
    }

    pub(super) fn read_register(&mut self) {
        let k = self.small(8);
        let how = [How::Kept, How::Opened, How::Writable, How::Mapped, How::Direct][self.below(5) as usize];
        self.read_register_by(k, how);
    }

    pub(super) fn read_register_by(&mut self, k: u8, how: How) {
        self.op(Op::Read { on: Object::Register(k), how }, |w| {
            for _ in 0..TORN_MAX {
                let bytes = w.register_bytes(k, how)?;
                if let Some(value) = register(&bytes) {
                    return Ok(Outcome::Value(value));
                }
            }
            let bytes = w.register_bytes(k, how)?;
            Ok(Outcome::Wrong(format!("torn: {bytes:02x?}")))
        });
    }

    fn register_bytes(&mut self, k: u8, how: How) -> io::Result<Vec<u8>> {
        let (file, at) = REGISTERS[usize::from(k)];
        let path = self.register_file(file);
        match how {
            How::Kept => {
                let kept = &mut self.open[usize::from(file)];
                if kept.is_none() {
                    *kept = Some(File::open(path)?);
                }
                kept.as_ref().map_or_else(|| Ok(Vec::new()), |f| read_at(f, at, 64))
            }
            How::Opened => read_at(&File::open(path)?, at, 64),
            How::Writable => read_at(&File::options().read(true).write(true).open(path)?, at, 64),
            How::Mapped => self.mapped.read(&path, at),
            How::Direct => {
                let direct = OFlags::DIRECT.bits() as i32;
                let file = File::options().read(true).custom_flags(direct).open(path)?;
                let mut buffer = AlignedBuf::zeroed(4096);
                let n = file.read_at(&mut buffer, at & !4095)?;
                let from = (at & 4095) as usize;
                Ok(buffer[..n].get(from..(from + 64).min(n)).unwrap_or(&[]).to_vec())
            }
        }
    }

    pub(super) fn change_owner(&mut self) {
        let k = self.small(OWNERS);
        let value = self.value();
        let path = self.path(&format!("owner{k}"));
        self.op(Op::Write { on: Object::Owner(k), value }, |_| {
            std::os::unix::fs::chown(&path, u32::try_from(value).ok(), None)?;
            Ok(Outcome::Done)
        });
        if self.below(3) == 0 {
            self.op(Op::Sync { on: vec![Object::Owner(k)] }, |_| {
                File::open(&path)?.sync_all()?;
                Ok(Outcome::Done)
            });
        }
    }

    pub(super) fn read_owner(&mut self) {
        let k = self.small(OWNERS);
        self.read_owner_of(k);
    }

    pub(super) fn read_owner_of(&mut self, k: u8) {
        self.op(Op::Read { on: Object::Owner(k), how: How::Opened }, |w| {
            Ok(Outcome::Value(fs::metadata(w.path(&format!("owner{k}")))?.uid().into()))
        });
    }

    pub(super) fn change_xattr(&mut self) {
        let k = self.small(XATTRS);
        let value = self.value();
        let path = self.path(&format!("xattr{k}"));
        self.op(Op::Write { on: Object::Xattr(k), value }, |_| {
            rustix::fs::setxattr(&path, "user.v", &value.to_le_bytes(), XattrFlags::empty())?;
            Ok(Outcome::Done)
        });
        if self.below(3) == 0 {
            self.op(Op::Sync { on: vec![Object::Xattr(k)] }, |_| {
                File::open(&path)?.sync_all()?;
                Ok(Outcome::Done)
            });
        }
    }

    pub(super) fn read_xattr(&mut self) {
        let k = self.small(XATTRS);
        self.read_xattr_of(k);
    }

    pub(super) fn read_xattr_of(&mut self, k: u8) {
        self.op(Op::Read { on: Object::Xattr(k), how: How::Opened }, |w| {
            let mut value = [0u8; 8];
            let n = rustix::fs::getxattr(w.path(&format!("xattr{k}")), "user.v", &mut value[..])?;
            Ok(if n == 8 { Outcome::Value(u64::from_le_bytes(value)) } else { Outcome::Wrong(format!("{n} bytes")) })
        });
    }

    pub(super) fn replace(&mut self) {
        let k = self.small(REPLACED);
        let value = self.value();
        let new = self.path(&format!("replaced/new{}", self.writer));
        let path = self.path(&format!("replaced/r{k}"));
        self.op(Op::Write { on: Object::Replaced(k), value }, |_| {
            write_durably(&new, &body(value))?;
            fs::rename(&new, &path)?;
            Ok(Outcome::Done)
        });
    }

    pub(super) fn sync_replaced(&mut self) {
        self.op(Op::Sync { on: (0..REPLACED).map(Object::Replaced).collect() }, |w| {
            File::open(w.path("replaced"))?.sync_all()?;
            Ok(Outcome::Done)
        });
    }

    pub(super) fn read_replaced(&mut self) {
        let k = self.small(REPLACED);
        self.read_replaced_of(k);
    }

    pub(super) fn read_replaced_of(&mut self, k: u8) {
        self.op(Op::Read { on: Object::Replaced(k), how: How::Opened }, |w| {
            let bytes = fs::read(w.path(&format!("replaced/r{k}")))?;
            Ok(value_of(&bytes).map_or_else(Outcome::Wrong, Outcome::Value))
        });
    }
}
