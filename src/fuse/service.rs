//! One function for each request, in plain types.

use super::asker::Asker;
use super::policy::{Atime, AtimeSwitch, Policy};
use crate::error::{Error, Result};
use crate::format::DirentType;
use crate::format::dinode::mode::S_ISGID;
use crate::fs::{Attr, Caller, DirItem, Fs, FsxAttr, NewInode, OpenHow, RenameHow, SetAttr, SetMode};
use crate::glock::Entry;
use crate::ids::{BlockAddr, Inum};
use std::sync::Arc;

const GETFLAGS: u32 = 0x8008_6601;
const SETFLAGS: u32 = 0x4008_6602;
const GETFLAGS32: u32 = 0x8004_6601;
const SETFLAGS32: u32 = 0x4004_6602;
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;
const FITRIM: u32 = 0xc018_5879;
const GETFSLABEL: u32 = 0x8100_9431;

/// The kernel's name for the root.
const ROOT: u64 = 1;

/// How a file was opened, as flags for the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Reads and writes bypass the page cache.
    pub direct: bool,
    /// What the page cache holds of the file is still good.
    pub keep_cache: bool,
    /// The opening changed the access time.
    pub touched: bool,
}

/// What the kernel says of a write.
#[derive(Clone, Copy, Debug)]
pub struct WriteHow {
    /// setuid and setgid go.
    pub kill: bool,
    /// O_APPEND.
    pub append: bool,
    /// It comes from the kernel's cache. With the write-back cache the kernel knows when the program wrote, and tells us
    /// (SETATTR) when that changed the times; without it, only now is known.
    pub cached: bool,
}

/// Answers requests. Nodes are the kernel's numbers: 1 for the root, otherwise the dinode's address.
pub struct Service {
    /// The operations.
    pub fs: Arc<Fs>,
    /// What the kernel may cache.
    pub policy: Policy,
    /// When reading changes access times.
    pub atime: Arc<AtimeSwitch>,
    /// Listing a directory never changes its access time (`nodiratime`).
    pub nodiratime: bool,
    /// The lock table's name, which is GFS2's label.
    pub label: Vec<u8>,
}

impl Service {
    /// The inode that the kernel calls `node`.
    pub fn addr(&self, node: u64) -> Result<BlockAddr> {
        if node == ROOT { Ok(self.fs.root()) } else { BlockAddr::new(node).ok_or(Error::Stale) }
    }

    /// The kernel's number of an inode.
    pub fn node(&self, addr: BlockAddr) -> u64 {
        if addr == self.fs.root() { ROOT } else { addr.get() }
    }

    /// LOOKUP.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr> {
        // The kernel looks up `.` itself, unless it has a file handle whose inode it has forgotten.
        if name == b"." {
            return self.fs.by_handle(self.addr(parent)?);
        }
        self.fs.lookup(self.addr(parent)?, name)
    }

    /// FORGET. The identity of an inode that is now to be deleted.
    pub fn forget(&self, node: u64, count: u64) -> Option<Inum> {
        self.fs.let_go(self.addr(node).ok()?, count)
    }

    /// Deletes an inode that was forgotten.
    pub fn delete(&self, inum: Inum) -> Result<()> {
        self.fs.delete_forgotten(inum)
    }

    /// GETATTR.
    pub fn getattr(&self, node: u64) -> Result<Attr> {
        self.fs.getattr(self.addr(node)?)
    }

    /// SETATTR.
    pub fn setattr(&self, asker: &Asker, node: u64, set: &SetAttr) -> Result<Attr> {
        let addr = self.addr(node)?;
        let kills = set.size.is_some() || set.uid.is_some() || set.gid.is_some();
        let entry = if set.size.is_some() { Entry::Fill } else { Entry::Ordinary };
        let outsider = kills && !asker.is_privileged() && self.is_outsider(asker, addr, entry)?;
        let attr = self.roomy(|| self.fs.setattr_as(&asker.who, addr, set, entry))?;
        if outsider { Ok(self.without_setgid(asker, addr, entry)?.unwrap_or(attr)) } else { Ok(attr) }
    }

    /// True when an inode has the setgid bit of a group the asker is not in.
    fn is_outsider(&self, asker: &Asker, addr: BlockAddr, entry: Entry) -> Result<bool> {
        let attr = self.fs.getattr_as(addr, entry)?;
        Ok(attr.perm & S_ISGID != 0 && attr.kind != DirentType::Dir && !asker.has_group(attr.gid))
    }

    /// Takes the setgid bit away, as Linux does when an outsider changes a file, whether or not the group may execute it.
    fn without_setgid(&self, asker: &Asker, addr: BlockAddr, entry: Entry) -> Result<Option<Attr>> {
        let attr = self.fs.getattr_as(addr, entry)?;
        if attr.perm & S_ISGID == 0 {
            return Ok(None);
        }
        let set = SetAttr { mode: Some(attr.perm & !S_ISGID), ..SetAttr::default() };
        self.fs.setattr_as(&asker.who, addr, &set, entry).map(Some)
    }

    /// Runs an operation that may take space. When there is none, and inodes are being deleted, it runs again after that.
    fn roomy<T>(&self, op: impl Fn() -> Result<T>) -> Result<T> {
        let since = self.fs.deletions_ended();
        match op() {
            Err(Error::NoSpace) if self.fs.await_deletions(since)? => op(),
            result => result,
        }
    }

    /// READLINK.
    pub fn readlink(&self, node: u64) -> Result<Vec<u8>> {
        let addr = self.addr(node)?;
        let target = self.fs.readlink(addr)?;
        self.touched(addr)?;
        Ok(target)
    }

    /// MKNOD, MKDIR, SYMLINK, CREATE.
    pub fn make(&self, caller: &Caller, parent: u64, name: &[u8], what: &NewInode<'_>) -> Result<Attr> {
        self.roomy(|| self.fs.make(caller, self.addr(parent)?, name, what))
    }

    /// UNLINK.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.fs.unlink(self.addr(parent)?, name)
    }

    /// RMDIR.
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.fs.rmdir(self.addr(parent)?, name)
    }

    /// RENAME, RENAME2; `flags` as renameat2(2)'s.
    pub fn rename(&self, caller: &Caller, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<()> {
        let how = match flags {
            0 => RenameHow::Replace,
            1 => RenameHow::NoReplace,
            2 => RenameHow::Exchange,
            _ => return Err(Error::Invalid),
        };
        self.roomy(|| self.fs.rename(caller, (self.addr(from.0)?, from.1), (self.addr(to.0)?, to.1), how))
    }

    /// LINK.
    pub fn link(&self, caller: &Caller, node: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        self.roomy(|| self.fs.link(caller, self.addr(node)?, self.addr(parent)?, name))
    }

    /// OPEN; `quietly`: O_NOATIME.
    pub fn open(&self, asker: &Asker, node: u64, how: OpenHow, quietly: bool) -> Result<Opened> {
        let addr = self.addr(node)?;
        let sync = self.fs.open(&asker.who, addr, how)?;
        if how.truncate && !asker.is_privileged() && self.is_outsider(asker, addr, Entry::Fill)? {
            self.without_setgid(asker, addr, Entry::Fill)?;
        }
        // The kernel does not say when it answers a read from its cache; so the opening counts as a reading.
        let touched = !how.write && !quietly && self.touched(addr)?;
        Ok(Opened { touched, ..self.opened(how.write, sync) })
    }

    /// How a file is to be opened, by the policy.
    pub fn opened(&self, write: bool, sync: bool) -> Opened {
        Opened { direct: write && (sync || self.policy.direct_writes), keep_cache: true, touched: false }
    }

    /// READ; `quietly`: O_NOATIME.
    pub fn read(&self, node: u64, offset: u64, buf: &mut [u8], quietly: bool) -> Result<usize> {
        let addr = self.addr(node)?;
        let n = self.fs.read(addr, offset, buf)?;
        if !quietly {
            self.touched(addr)?;
        }
        Ok(n)
    }

    /// READ for the page cache of a shared mount, see [`Fs::fill`]. The opening has counted as a reading.
    pub fn fill(&self, node: u64, offset: u64, buf: &mut [u8], exclusive: bool, held: impl FnOnce()) -> Result<usize> {
        self.fs.fill(self.addr(node)?, offset, buf, exclusive, held)
    }

    /// WRITE.
    pub fn write(&self, asker: &Asker, node: u64, offset: u64, bytes: &[u8], how: WriteHow) -> Result<usize> {
        let addr = self.addr(node)?;
        let (who, alone) = (&asker.who, self.policy.writeback_cache);
        let n = match how {
            WriteHow { cached: true, .. } if alone => self.roomy(|| self.fs.write_back(who, addr, offset, bytes))?,
            // Nothing follows that could have to wait.
            WriteHow { cached: true, .. } => return self.fs.write_mapped(who, addr, offset, bytes),
            // The kernel does not know the end.
            WriteHow { append: true, cached: false, kill } if !alone => {
                self.roomy(|| self.fs.append(who, addr, bytes, kill))?
            }
            WriteHow { kill, .. } => self.roomy(|| self.fs.write(who, addr, offset, bytes, kill))?,
        };
        if how.kill && self.is_outsider(asker, addr, Entry::Ordinary)? {
            self.without_setgid(asker, addr, Entry::Ordinary)?;
        }
        Ok(n)
    }

    /// FSYNC, FSYNCDIR.
    pub fn fsync(&self, node: u64) -> Result<()> {
        self.fs.fsync(self.addr(node)?)
    }

    /// READDIR and READDIRPLUS.
    pub fn list(&self, node: u64, from: u64, plus: bool, each: &mut dyn FnMut(DirItem<'_>) -> bool) -> Result<()> {
        let addr = self.addr(node)?;
        if from == 0 && !self.nodiratime {
            self.touched(addr)?;
        }
        if plus { self.fs.list_plus(addr, from, each) } else { self.fs.list(addr, from, each) }
    }

    /// SETXATTR; `flags` as setxattr(2)'s.
    pub fn setxattr(&self, asker: &Asker, node: u64, (name, value): (&[u8], &[u8]), flags: i32) -> Result<()> {
        let addr = self.addr(node)?;
        let how = match flags & 3 {
            0 => SetMode::Any,
            1 => SetMode::Create,
            2 => SetMode::Replace,
            // Both: whichever is not fulfilled.
            _ => return self.fs.getxattr(addr, name).and(Err(Error::Exists)),
        };
        self.roomy(|| self.fs.setxattr(&asker.who, addr, name, value, how))?;
        // Like chmod: setgid goes when an owner outside the group changes the rights, also of a directory.
        if name == b"system.posix_acl_access" && !asker.is_privileged() && !asker.has_group(self.fs.getattr(addr)?.gid)
        {
            self.without_setgid(asker, addr, Entry::Ordinary)?;
        }
        Ok(())
    }

    /// GETXATTR.
    pub fn getxattr(&self, node: u64, name: &[u8]) -> Result<Vec<u8>> {
        self.fs.getxattr(self.addr(node)?, name)
    }

    /// LISTXATTR: names, each with its NUL.
    pub fn listxattr(&self, node: u64) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        for name in self.fs.listxattr(self.addr(node)?)? {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    /// REMOVEXATTR.
    pub fn removexattr(&self, node: u64, name: &[u8]) -> Result<()> {
        self.fs.removexattr(self.addr(node)?, name)
    }

    /// FALLOCATE.
    pub fn fallocate(&self, asker: &Asker, node: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        let addr = self.addr(node)?;
        self.roomy(|| self.fs.fallocate(&asker.who, addr, offset, len, mode))?;
        if !asker.is_privileged() && self.is_outsider(asker, addr, Entry::Ordinary)? {
            self.without_setgid(asker, addr, Entry::Ordinary)?;
        }
        Ok(())
    }

    /// LSEEK.
    pub fn seek(&self, node: u64, offset: i64, whence: i32) -> Result<u64> {
        let offset = u64::try_from(offset).map_err(|_| Error::NoSuchRegion)?;
        let what = match whence {
            3 => crate::file::Seek::Data,
            4 => crate::file::Seek::Hole,
            _ => return Err(Error::Invalid),
        };
        self.fs.seek(self.addr(node)?, offset, what)
    }

    /// True for the ioctls that [`Service::ioctl`] answers.
    pub fn knows_ioctl(command: u32) -> bool {
        [GETFLAGS, GETFLAGS32, SETFLAGS, SETFLAGS32, FSGETXATTR, FSSETXATTR, FITRIM, GETFSLABEL].contains(&command)
    }

    /// IOCTL: chattr flags, fsxattr, FITRIM. The output bytes.
    pub fn ioctl(&self, caller: &Caller, node: u64, command: u32, input: &[u8], out_size: usize) -> Result<Vec<u8>> {
        let addr = self.addr(node)?;
        match command {
            GETFLAGS | GETFLAGS32 => {
                let mut out = self.fs.get_flags(addr)?.to_ne_bytes().to_vec();
                out.resize(out_size.min(8), 0);
                Ok(out)
            }
            SETFLAGS | SETFLAGS32 => {
                self.fs.set_flags(caller, addr, native_u32(input, 0)?)?;
                Ok(Vec::new())
            }
            FSGETXATTR => {
                let mut out = vec![0; 28.min(out_size)];
                let xflags = FsxAttr::from_flags(self.fs.get_flags(addr)?);
                if let Some(first) = out.first_chunk_mut() {
                    *first = xflags.to_ne_bytes();
                }
                Ok(out)
            }
            FSSETXATTR => {
                let flags = FsxAttr::apply(self.fs.get_flags(addr)?, native_u32(input, 0)?);
                self.fs.set_flags(caller, addr, flags)?;
                Ok(Vec::new())
            }
            FITRIM => {
                if caller.uid != 0 {
                    return Err(Error::NotPermitted);
                }
                let trimmed = self.fs.trim(native_u64(input, 0)?, native_u64(input, 8)?, native_u64(input, 16)?)?;
                let mut out = input.to_vec();
                out[8..16].copy_from_slice(&trimmed.to_ne_bytes());
                Ok(out)
            }
            GETFSLABEL => {
                let mut out = self.label.clone();
                out.resize(out_size.min(256), 0);
                Ok(out)
            }
            _ => Err(Error::NotSupported),
        }
    }

    /// A file, directory or link was read: its access time may change. True when it did.
    fn touched(&self, addr: BlockAddr) -> Result<bool> {
        match self.atime.get() {
            Atime::Never => Ok(false),
            Atime::Relative => self.fs.touch(addr, false),
            Atime::Strict => self.fs.touch(addr, true),
        }
    }
}

/// The machine's own byte order: an ioctl argument is not on-disk data.
fn native_u32(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).and_then(|b| b.first_chunk()).ok_or(Error::Invalid)?;
    Ok(u32::from_ne_bytes(*word))
}

fn native_u64(bytes: &[u8], at: usize) -> Result<u64> {
    let word = bytes.get(at..at + 8).and_then(|b| b.first_chunk()).ok_or(Error::Invalid)?;
    Ok(u64::from_ne_bytes(*word))
}
