//! Walking trees as du, rm and grep do, without their processes.

use crate::measure::open_dir;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;

/// An entry's name and kind.
pub(super) type Entry = (CString, FileType);

/// All entries of a directory, read as glibc reads them: 32 KiB at a time.
pub(super) fn entries(dir: &OwnedFd) -> io::Result<Vec<Entry>> {
    let mut buf = [MaybeUninit::uninit(); 32 << 10];
    let mut found = Vec::new();
    let mut listing = RawDir::new(dir, &mut buf);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let kind = match entry.file_type() {
                // Not every filesystem says it.
                FileType::Unknown => {
                    FileType::from_raw_mode(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
                }
                kind => kind,
            };
            found.push((name.to_owned(), kind));
        }
    }
    Ok(found)
}

fn open_below(dir: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// du: lists and stats everything; the number of entries.
pub(super) fn du(root: &Path) -> io::Result<u64> {
    fn walk(dir: &OwnedFd) -> io::Result<u64> {
        let mut count = 0;
        for (name, kind) in entries(dir)? {
            count += 1;
            rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if kind == FileType::Directory {
                count += walk(&open_below(dir, &name)?)?;
            }
        }
        Ok(count)
    }
    walk(&open_dir(root)?)
}

/// grep -r: reads everything; the number of bytes.
pub(super) fn read_all(root: &Path) -> io::Result<u64> {
    fn walk(dir: &OwnedFd, buf: &mut [u8]) -> io::Result<u64> {
        let mut bytes = 0;
        for (name, kind) in entries(dir)? {
            if kind == FileType::Directory {
                bytes += walk(&open_below(dir, &name)?, buf)?;
            } else if kind == FileType::RegularFile {
                let file = rustix::fs::openat(dir, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                loop {
                    let n = rustix::io::read(&file, &mut *buf)?;
                    bytes += n as u64;
                    if n == 0 {
                        break;
                    }
                }
            }
        }
        Ok(bytes)
    }
    walk(&open_dir(root)?, &mut vec![0; 96 << 10])
}

/// rm -rf of what is in a directory; the number of entries.
pub(super) fn remove_all(root: &Path) -> io::Result<u64> {
    fn walk(dir: &OwnedFd) -> io::Result<u64> {
        let mut count = 0;
        for (name, kind) in entries(dir)? {
            count += 1;
            if kind == FileType::Directory {
                count += walk(&open_below(dir, &name)?)?;
                rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR)?;
            } else {
                rustix::fs::unlinkat(dir, &name, AtFlags::empty())?;
            }
        }
        Ok(count)
    }
    walk(&open_dir(root)?)
}
