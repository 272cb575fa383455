//! Everything at once in three directories of everybody: any answer that another's work can explain is right. At the end of
//! the round all nodes must see the same.

use super::Worker;
use crate::history::{Op, Outcome};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;

/// What others may bring about.
const NORMAL: [Errno; 11] = [
    Errno::NOENT,
    Errno::EXIST,
    Errno::NOTDIR,
    Errno::ISDIR,
    Errno::NOTEMPTY,
    Errno::INVAL,
    Errno::LOOP,
    Errno::NODATA,
    Errno::PERM,
    Errno::NOSPC,
    // A rename in a directory that another node removed: once in some minutes, while a dead node's inodes are deleted.
    Errno::STALE,
];

impl Worker {
    fn free_path(&mut self) -> PathBuf {
        let dir = self.below(3);
        let deeper = if self.below(4) == 0 { format!("d{}/", self.below(3)) } else { String::new() };
        let name = match self.below(8) {
            0 => format!("d{}", self.below(3)),
            1 => format!("{:0>200}", self.below(6)),
            _ => format!("f{}", self.below(8)),
        };
        self.path(&format!("free/s{dir}/{deeper}{name}"))
    }

    pub(super) fn free_for_all(&mut self) {
        let (path, other) = (self.free_path(), self.free_path());
        let act = self.below(20);
        let (at, len) = (self.below(300_000), self.below(30_000) as usize);
        let fill = self.below(256) as u8;
        let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.op(Op::Other { what: format!("free {act} {shown}") }, |_| {
            let done: io::Result<()> = match act {
                0 | 1 => fs::write(&path, vec![fill; len]),
                2 => File::options().write(true).open(&path).and_then(|f| f.write_all_at(&vec![fill; len], at)),
                3 => File::options().append(true).open(&path).and_then(|mut f| f.write_all(&vec![fill; len])),
                4 => File::options().write(true).open(&path).and_then(|f| f.set_len(at)),
                5 => fs::remove_file(&path),
                6 => fs::create_dir(&path),
                7 => fs::remove_dir(&path),
                8 | 9 => fs::rename(&path, &other),
                10 => rustix::fs::renameat_with(CWD, &path, CWD, &other, RenameFlags::NOREPLACE).map_err(Into::into),
                11 => fs::hard_link(&path, &other),
                12 => symlink(&shown, &path),
                13 => path.parent().map_or(Ok(()), list),
                14 => fs::read(&path).map(|_| ()),
                15 => rustix::fs::setxattr(&path, "user.free", &vec![fill; len % 2000], XattrFlags::empty())
                    .map_err(Into::into),
                16 => rustix::fs::removexattr(&path, "user.free").map_err(Into::into),
                17 => fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | u32::from(fill) & 0o77)),
                18 => File::options().write(true).open(&path).and_then(|f| {
                    rustix::fs::fallocate(
                        &f,
                        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                        at,
                        len as u64 + 1,
                    )
                    .map_err(Into::into)
                }),
                _ => File::open(&path).and_then(|f| f.sync_all()),
            };
            match done {
                Err(e) if e.raw_os_error().is_none_or(|n| !NORMAL.contains(&Errno::from_raw_os_error(n))) => Err(e),
                _ => Ok(Outcome::Done),
            }
        });
    }
}

/// Each name once, and all can be asked about.
fn list(dir: &std::path::Path) -> io::Result<()> {
    let mut names = std::collections::BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match fs::symlink_metadata(entry.path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if !names.insert(entry.file_name()) {
            return Err(io::Error::other(format!("{:?} is listed twice", entry.file_name())));
        }
    }
    Ok(())
}
