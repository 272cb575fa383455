//! Reads names and contents of a volume, as an independent witness: what a test compares after a crash.

use crate::disk::Disk;
use crate::initialize;
use crate::issue::Severity;
use crate::reader;
use crate::report::{CheckError, Findings, Journals, Options};
use gfs2r::clock::Timestamp;
use gfs2r::device::BlockDevice;
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFLNK, S_IFMT};
use gfs2r::format::{Dinode, OnDisk, Superblock};
use gfs2r::ids::{BlockAddr, FormalIno, Inum};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One name of a volume and the inode behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// Absolute path; the root is `/`.
    pub path: PathBuf,
    /// Identity.
    pub inum: Inum,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Link count.
    pub nlink: u32,
    /// Bytes.
    pub size: u64,
    /// Filesystem blocks.
    pub blocks: u64,
    /// di_flags.
    pub flags: u32,
    /// di_generation.
    pub generation: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of data.
    pub mtime: Timestamp,
    /// Last change of inode.
    pub ctime: Timestamp,
    /// Device number: major, minor.
    pub rdev: (u32, u32),
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Extended attributes by full name, sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A volume open for reading, dirty journals replayed in memory if asked.
pub struct Volume<'d> {
    disk: Disk<'d>,
    sb: Superblock,
}

impl<'d> Volume<'d> {
    /// Opens a volume. With [`Journals::MustBeClean`] the blocks are taken as they lie on the disk.
    pub fn open(device: &'d dyn BlockDevice, journals: Journals) -> Result<Self, CheckError> {
        let mut found = Findings::new(&Options::default());
        let (mut disk, sb) = initialize::superblock(device, &mut found)?;
        if journals == Journals::Overlay && !initialize::journals(&mut disk, &mut found, &sb, journals)?.usable {
            let why = found.issues.iter().find(|i| i.severity() == Severity::Error);
            return Err(CheckError::damaged(0, why.map_or_else(String::new, ToString::to_string)));
        }
        Ok(Self { disk, sb })
    }
    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.sb
    }
    /// Address of the root directory's dinode.
    pub fn root(&self) -> u64 {
        self.sb.root_dir.addr.get()
    }
    /// Address of the master directory's dinode.
    pub fn master(&self) -> u64 {
        self.sb.master_dir.addr.get()
    }
    /// A block as replay would leave it.
    pub fn block(&self, addr: u64) -> Result<Box<[u8]>, CheckError> {
        self.disk.read(addr)
    }
    /// Everything below the root directory, the root included, sorted by path.
    pub fn tree(&self) -> Result<Vec<TreeEntry>, CheckError> {
        self.tree_below(self.root(), Path::new("/"))
    }
    /// Everything below the master directory, as paths below `<master>`.
    pub fn system_tree(&self) -> Result<Vec<TreeEntry>, CheckError> {
        self.tree_below(self.master(), Path::new("<master>"))
    }
    /// Everything below this directory, which is called `path`.
    pub fn tree_below(&self, dir: u64, path: &Path) -> Result<Vec<TreeEntry>, CheckError> {
        let mut found = Vec::new();
        let mut seen = HashSet::from([dir]);
        let mut open = vec![(path.to_path_buf(), dir, None)];
        while let Some((path, addr, formal)) = open.pop() {
            let bytes = reader::dinode(&self.disk, addr)?;
            let di = Dinode::view(&bytes);
            if formal.is_some_and(|formal| formal != di.num.formal.get()) {
                return Err(CheckError::damaged(addr, "named by another formal number"));
            }
            if di.mode.get() & S_IFMT == S_IFDIR {
                for entry in reader::entries(&self.disk, &bytes)? {
                    if entry.name == b"." || entry.name == b".." {
                        continue;
                    }
                    let child = path.join(OsStr::from_bytes(&entry.name));
                    open.push((child, entry.addr, Some(entry.formal)));
                }
                // A directory has one name; one that has two may contain itself.
                if !seen.insert(addr) && addr != dir || found.iter().any(|e: &TreeEntry| e.path == path) {
                    return Err(CheckError::damaged(addr, "a directory with two names"));
                }
            }
            found.push(self.entry(path, &bytes)?);
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
    /// The inode at this address.
    pub fn stat(&self, addr: u64) -> Result<TreeEntry, CheckError> {
        self.entry(PathBuf::new(), &reader::dinode(&self.disk, addr)?)
    }
    /// The inode at this absolute path (symbolic links are not followed).
    pub fn stat_path(&self, path: impl AsRef<Path>) -> Result<TreeEntry, CheckError> {
        let addr = self.lookup(&path)?;
        self.entry(path.as_ref().to_path_buf(), &reader::dinode(&self.disk, addr)?)
    }
    /// Address of the dinode at this absolute path. Paths that begin with `<master>` are system files.
    pub fn lookup(&self, path: impl AsRef<Path>) -> Result<u64, CheckError> {
        let path = path.as_ref();
        let (mut at, rest) = match path.strip_prefix("<master>") {
            Ok(rest) => (self.master(), rest),
            Err(_) => (self.root(), path),
        };
        for name in rest.components().filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        }) {
            let dir = reader::dinode(&self.disk, at)?;
            let entry = reader::lookup(&self.disk, &dir, name.as_bytes())?;
            at = entry.ok_or_else(|| CheckError::NotFound(path.display().to_string()))?.addr;
        }
        Ok(at)
    }
    /// The whole contents of a file, up to 4 GiB (holes count).
    pub fn read_file(&self, addr: u64) -> Result<Vec<u8>, CheckError> {
        self.read_range(addr, 0, u64::MAX)
    }
    /// The whole contents of the file at this path.
    pub fn read_path(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, CheckError> {
        self.read_file(self.lookup(path)?)
    }
    /// A range of a file, cut at its end.
    pub fn read_range(&self, addr: u64, offset: u64, len: u64) -> Result<Vec<u8>, CheckError> {
        reader::read_range(&self.disk, &reader::dinode(&self.disk, addr)?, offset, len)
    }
    /// (number in the file, device block) of each data block of a file, holes left out, sorted.
    pub fn data_blocks(&self, addr: u64) -> Result<Vec<(u64, u64)>, CheckError> {
        reader::map(&self.disk, &reader::dinode(&self.disk, addr)?, 0..u64::MAX)
    }

    fn entry(&self, path: PathBuf, bytes: &[u8]) -> Result<TreeEntry, CheckError> {
        let di = Dinode::view(bytes);
        let at = di.num.addr.get();
        let addr = BlockAddr::new(at).ok_or_else(|| CheckError::damaged(at, "a dinode at block 0"))?;
        let is_link = di.mode.get() & S_IFMT == S_IFLNK;
        let target = is_link.then(|| reader::read_range(&self.disk, bytes, 0, di.size.get())).transpose()?;
        Ok(TreeEntry {
            path,
            inum: Inum { formal: FormalIno(di.num.formal.get()), addr },
            mode: di.mode.get(),
            uid: di.uid.get(),
            gid: di.gid.get(),
            nlink: di.nlink.get(),
            size: di.size.get(),
            blocks: di.blocks.get(),
            flags: di.flags.get(),
            generation: di.generation.get(),
            atime: di.atime(),
            mtime: di.mtime(),
            ctime: di.ctime(),
            rdev: (di.major.get(), di.minor.get()),
            target,
            xattrs: reader::xattrs(&self.disk, bytes, self.sb.fs_format.get())?,
        })
    }
}
