//! Copying out of a volume, as `cp -a` does: sparse files stay sparse, hard links stay links; times, modes and extended
//! attributes are kept, and owners where the kernel lets us.
//!
//! The volume may be hostile: nothing is written through a symbolic link, and nothing that exists is overwritten.

use super::{Met, Reader, Step};
use crate::format::dinode::mode::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use crate::ids::BlockAddr;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

/// Copies `from` (a file or a whole directory) to `to`, which must not exist. `wrong` is told of everything that could not be
/// copied; the rest is. Errors: never those of one file.
pub fn copy(reader: &Reader, from: Met, to: &Path, wrong: &mut dyn FnMut(&Path, &str)) -> io::Result<()> {
    let mut copier = Copier { reader, links: HashMap::new(), skipped: Vec::new() };
    let start = from.path.clone();
    reader.walk(from, &mut |step| {
        let place = |path: &Path| match path.strip_prefix(&start) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_path_buf(),
            Ok(rest) => to.join(rest),
            Err(_) => to.to_path_buf(),
        };
        match step {
            Step::Enter(met) => {
                let target = place(&met.path);
                if copier.skipped.iter().any(|dir| target.starts_with(dir)) {
                    return Ok(());
                }
                if let Err(e) = copier.enter(met, &target) {
                    wrong(&met.path, &e.to_string());
                    if met.is_dir() {
                        copier.skipped.push(target);
                    }
                }
            }
            Step::Leave(met) => {
                let target = place(&met.path);
                if copier.skipped.last() == Some(&target) {
                    copier.skipped.pop();
                } else if !copier.skipped.iter().any(|dir| target.starts_with(dir))
                    && let Err(e) = copier.finish(met, &target)
                {
                    wrong(&met.path, &e.to_string());
                }
            }
            Step::Damaged(path, e) => wrong(path, &e.to_string()),
        }
        Ok(())
    })
}

struct Copier<'r> {
    reader: &'r Reader,
    /// Where files with several names are.
    links: HashMap<BlockAddr, PathBuf>,
    /// Directories that could not be made, the innermost last.
    skipped: Vec<PathBuf>,
}

impl Copier<'_> {
    fn enter(&mut self, met: &Met, to: &Path) -> io::Result<()> {
        let d = &met.dinode;
        let kind = d.mode.get() & S_IFMT;
        if kind == S_IFDIR {
            return std::fs::DirBuilder::new().mode(0o700).create(to);
        }
        if d.nlink.get() > 1 {
            if let Some(first) = self.links.get(&met.inum.addr) {
                return std::fs::hard_link(first, to);
            }
            self.links.insert(met.inum.addr, to.to_path_buf());
        }
        match kind {
            S_IFREG => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
                let data = self.data(met, &file);
                self.finish(met, to)?;
                return data;
            }
            S_IFLNK => {
                let target = self.reader.link_target(met).map_err(io::Error::other)?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), to)?;
            }
            _ => {
                let dev = rustix::fs::makedev(d.major.get(), d.minor.get());
                let mode = Mode::from_raw_mode(d.mode.get() & 0o777);
                rustix::fs::mknodat(CWD, to, FileType::from_raw_mode(d.mode.get()), mode, dev)?;
            }
        }
        self.finish(met, to)
    }

    /// The contents, without the holes. What cannot be read stays a hole.
    fn data(&self, met: &Met, file: &File) -> io::Result<()> {
        let size = met.dinode.size.get();
        file.set_len(size)?;
        let mut failed = None;
        let mut buf = vec![0; CHUNK.min(size.next_multiple_of(65536)) as usize];
        let mut at = 0;
        while let Some((start, end)) = self.reader.data_after(met.inum, at).map_err(io::Error::other)? {
            at = start;
            while at < end {
                let len = (end - at).min(buf.len() as u64);
                match self.reader.read(met.inum, at, &mut buf[..len as usize]) {
                    Ok(n) => file.write_all_at(&buf[..n], at)?,
                    Err(e) => failed = Some(io::Error::other(format!("at byte {at}: {e}"))),
                }
                at += len;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Owner, attributes, mode and times, in an order in which none undoes another.
    fn finish(&self, met: &Met, to: &Path) -> io::Result<()> {
        let d = &met.dinode;
        let is_link = d.mode.get() & S_IFMT == S_IFLNK;
        match std::os::unix::fs::lchown(to, Some(d.uid.get()), Some(d.gid.get())) {
            // Only root may give files away.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
            done => done?,
        }
        if !is_link {
            let mode = Mode::from_raw_mode(d.mode.get() & 0o7777);
            rustix::fs::chmodat(CWD, to, mode, AtFlags::empty())?;
        }
        let mut lost = None;
        for (name, value) in self.reader.xattrs(met.inum).map_err(io::Error::other)? {
            if let Err(e) = rustix::fs::lsetxattr(to, OsStr::from_bytes(&name), &value, XattrFlags::empty()) {
                lost = Some(io::Error::other(format!("attribute {}: {e}", String::from_utf8_lossy(&name))));
            }
        }
        let time = |t: crate::clock::Timestamp| Timespec { tv_sec: t.sec, tv_nsec: t.nsec.into() };
        let times = Timestamps { last_access: time(d.atime()), last_modification: time(d.mtime()) };
        rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        lost.map_or(Ok(()), Err)
    }
}
