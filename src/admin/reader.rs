//! Reading files of a volume that nobody has mounted: without root, without FUSE, without a cluster, and without writing a byte.
//!
//! The volume's own engine does it, read-only, on an [`Overlay`]: journals are replayed in memory. What is damaged is an error
//! of the file or directory in question, and of nothing else.

pub mod copy;
pub mod pax;

use super::overlay::Overlay;
use crate::clock::SystemClock;
use crate::device::BlockDevice;
use crate::dir::{self, Entry};
use crate::error::{Error, Result};
use crate::file::{self, Seek};
use crate::format::dinode::mode::{S_IFDIR, S_IFLNK, S_IFMT};
use crate::format::{Dinode, DirentType};
use crate::ids::Inum;
use crate::volume::{OpenError, OpenOptions, Opened, open};
use crate::xattr;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest symbolic link that is believed.
const LINK_MAX: u64 = 65536;

/// A volume opened for reading.
pub struct Reader {
    opened: Opened,
}

/// A file met on a walk.
#[derive(Clone, Debug)]
pub struct Met {
    /// Where it is, from the start of the walk.
    pub path: PathBuf,
    /// Which inode.
    pub inum: Inum,
    /// Its dinode.
    pub dinode: Dinode,
}

impl Met {
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.dinode.mode.get() & S_IFMT == S_IFDIR
    }
}

/// What a walk tells.
pub enum Step<'m> {
    /// A file, or a directory before what is in it.
    Enter(&'m Met),
    /// A directory, after what is in it.
    Leave(&'m Met),
    /// Something that cannot be read: it was passed over.
    Damaged(&'m Path, &'m Error),
}

impl Reader {
    /// Opens the volume on `dev`. Without `replay` journals are left alone, and what was committed last may be missing.
    pub fn open(dev: Arc<dyn BlockDevice>, replay: bool) -> Result<Self, OpenError> {
        let options = OpenOptions {
            read_only: true,
            norecovery: !replay,
            cache_bytes: 64 << 20,
            cached_inodes: 4096,
            ..OpenOptions::default()
        };
        Ok(Self { opened: open(Arc::new(Overlay::new(dev)), &options, Arc::new(SystemClock))? })
    }

    /// The file at `path`, from the root; symbolic links on the way are not followed.
    pub fn find(&self, path: &Path) -> Result<Met> {
        let vol = self.opened.fs.volume();
        let mut at = vol.root;
        for part in path.components() {
            let std::path::Component::Normal(name) = part else { continue };
            let inode = vol.shared(at)?;
            if !inode.is_dir() {
                return Err(Error::NotADirectory);
            }
            at = dir::lookup(vol, &inode, name.as_bytes())?.ok_or(Error::NotFound)?.inum;
        }
        Ok(Met { path: path.to_path_buf(), inum: at, dinode: self.dinode(at)? })
    }

    /// The dinode of an inode.
    pub fn dinode(&self, inum: Inum) -> Result<Dinode> {
        Ok(self.opened.fs.volume().shared(inum)?.dinode)
    }

    /// The names in a directory, without `.` and `..`, by name; and what ended the listing before its time. A name that no path
    /// can have counts as damage.
    pub fn list(&self, inum: Inum) -> (Vec<(Vec<u8>, Entry)>, Option<Error>) {
        let vol = self.opened.fs.volume();
        let (mut names, mut wrong) = (Vec::new(), None);
        let listed = vol.shared(inum).and_then(|inode| {
            dir::list(vol, &inode, 0, &mut |l| {
                match l.name {
                    b"." | b".." => {}
                    name if name.contains(&b'/') || name.contains(&0) => wrong = Some(Error::Invalid),
                    name => names.push((name.to_vec(), l.entry)),
                }
                true
            })
        });
        names.sort_by(|a, b| a.0.cmp(&b.0));
        (names, listed.err().or(wrong))
    }

    /// Reads up to `buf.len()` bytes at `offset`; 0 at the end.
    pub fn read(&self, inum: Inum, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let vol = self.opened.fs.volume();
        file::read(vol, &*vol.shared(inum)?, offset, buf)
    }

    /// The next piece of data at or after `offset`: where it starts and ends. `None` when only a hole follows.
    pub fn data_after(&self, inum: Inum, offset: u64) -> Result<Option<(u64, u64)>> {
        let vol = self.opened.fs.volume();
        let inode = vol.shared(inum)?;
        let start = match file::seek(vol, &inode, offset, Seek::Data) {
            Err(Error::NoSuchRegion) => return Ok(None),
            start => start?,
        };
        Ok(Some((start, file::seek(vol, &inode, start, Seek::Hole)?)))
    }

    /// Where a symbolic link points.
    pub fn link_target(&self, met: &Met) -> Result<Vec<u8>> {
        let size = met.dinode.size.get();
        if met.dinode.mode.get() & S_IFMT != S_IFLNK || size > LINK_MAX {
            return Err(Error::Invalid);
        }
        let mut target = vec![0; size as usize];
        let n = self.read(met.inum, 0, &mut target)?;
        target.truncate(n);
        Ok(target)
    }

    /// Extended attributes, ACLs among them: names and values.
    pub fn xattrs(&self, inum: Inum) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let vol = self.opened.fs.volume();
        let inode = vol.shared(inum)?;
        let mut all = Vec::new();
        for name in xattr::list(vol, &inode)? {
            if let Some((kind, short)) = xattr::split_name(&name) {
                let value = xattr::get(vol, &inode, kind, short)?;
                all.push((name, value));
            }
        }
        Ok(all)
    }

    /// Goes through `from` and all that is below it. A directory that is met twice - it cannot be, on a sound volume - is damage.
    pub fn walk(&self, from: Met, each: &mut dyn FnMut(Step<'_>) -> std::io::Result<()>) -> std::io::Result<()> {
        struct Level {
            dir: Met,
            left: std::vec::IntoIter<(Vec<u8>, Entry)>,
        }
        let mut levels: Vec<Level> = Vec::new();
        let mut dirs = HashSet::new();
        let mut next = Some(from);
        loop {
            if let Some(met) = next.take() {
                if met.is_dir() && !dirs.insert(met.inum.addr) {
                    each(Step::Damaged(&met.path, &Error::Invalid))?;
                } else {
                    each(Step::Enter(&met))?;
                    if met.is_dir() {
                        let (names, wrong) = self.list(met.inum);
                        if let Some(wrong) = wrong {
                            each(Step::Damaged(&met.path, &wrong))?;
                        }
                        levels.push(Level { dir: met, left: names.into_iter() });
                    }
                }
            }
            let Some(level) = levels.last_mut() else { return Ok(()) };
            let Some((name, entry)) = level.left.next() else {
                if let Some(level) = levels.pop() {
                    each(Step::Leave(&level.dir))?;
                }
                continue;
            };
            let path = level.dir.path.join(OsStr::from_bytes(&name));
            match self.dinode(entry.inum) {
                Ok(d) if DirentType::from_mode(d.mode.get()) == Some(entry.kind) => {
                    next = Some(Met { path, inum: entry.inum, dinode: d });
                }
                Ok(_) => each(Step::Damaged(&path, &Error::Invalid))?,
                Err(e) => each(Step::Damaged(&path, &e))?,
            }
        }
    }
}
