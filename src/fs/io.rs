//! Reading and writing file contents.

use super::{Caller, Fs};
use crate::error::{Error, Result};
use crate::file::{self, Seek};
use crate::format::DiFlags;
use crate::glock::Entry;
use crate::ids::BlockAddr;
use crate::inode::Inode;
use crate::journal::FlushReason;

/// What an open file may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHow {
    /// Opened for writing.
    pub write: bool,
    /// O_APPEND.
    pub append: bool,
    /// O_TRUNC.
    pub truncate: bool,
}

/// What goes with a write.
#[derive(Clone, Copy)]
struct WriteHow {
    /// setuid and setgid go.
    kill: bool,
    /// It happened now.
    dated: bool,
}

impl Fs {
    /// Opens a file: checks the immutable and append-only flags, truncates. Says whether writes must be durable when they
    /// return (the `S` attribute), so that they must not linger in a cache.
    pub fn open(&self, caller: &Caller, node: BlockAddr, how: OpenHow) -> Result<bool> {
        if !how.write && !how.truncate {
            let inode = self.watch(self.shared(node))?;
            return Ok(inode.flags().has(DiFlags::SYNC));
        }
        if how.truncate {
            let mut inode = self.watch(self.exclusive_as(node, Entry::Fill))?;
            may_write(&inode, how.append && !how.truncate)?;
            if inode.is_regular() && inode.dinode.size.get() > 0 {
                self.watch(file::truncate(&self.vol, &mut inode, 0))?;
            } else if inode.is_regular() {
                // Truncating is a change also where there is nothing to cut off.
                let now = self.vol.clock.now();
                self.change_dinode(&mut inode, |d| {
                    d.set_mtime(now);
                    d.set_ctime(now);
                })?;
            }
            if inode.is_regular() && caller.uid != 0 {
                self.kill_privileges(&mut inode)?;
            }
            return Ok(inode.flags().has(DiFlags::SYNC));
        }
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let inode = self.watch(self.shared(node))?;
        may_write(&inode, how.append)?;
        Ok(inode.flags().has(DiFlags::SYNC))
    }

    /// Reads up to `buf.len()` bytes; short at the end of the file.
    pub fn read(&self, node: BlockAddr, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.watch(self.shared(node))?;
        if inode.is_dir() {
            return Err(Error::IsADirectory);
        }
        self.watch(file::read(&self.vol, &inode, offset, buf))
    }

    /// Reads for the kernel's page cache; `exclusive` where a page may be changed through a mapping without a word. `held` is called
    /// when the lock is. Never waits for a drain of the lock (fuse.md D3).
    pub fn fill(
        &self,
        node: BlockAddr,
        offset: u64,
        buf: &mut [u8],
        exclusive: bool,
        held: impl FnOnce(),
    ) -> Result<usize> {
        let inum = self.nodes.inum(node)?;
        let read = |inode: &Inode, buf: &mut [u8]| {
            held();
            if inode.is_dir() {
                return Err(Error::IsADirectory);
            }
            file::read(&self.vol, inode, offset, buf)
        };
        self.watch(if exclusive {
            self.vol.exclusive_as(inum, Entry::Fill).and_then(|inode| read(&inode, buf))
        } else {
            self.vol.shared_as(inum, Entry::Fill).and_then(|inode| read(&inode, buf))
        })
    }

    /// Writes `bytes` that were changed through a mapping on a shared mount: they are dated now. Never waits for a drain of the
    /// lock (fuse.md D5).
    pub fn write_mapped(&self, caller: &Caller, node: BlockAddr, offset: u64, bytes: &[u8]) -> Result<usize> {
        let mut inode = self.watch(self.exclusive_as(node, Entry::WriteBack))?;
        self.write_held(caller, &mut inode, offset, bytes, WriteHow { kill: false, dated: true })
    }

    /// Writes `bytes` at `offset`; fewer are written when the disk fills up on the way. `kill_privileges`: setuid and setgid go.
    pub fn write(
        &self,
        caller: &Caller,
        node: BlockAddr,
        offset: u64,
        bytes: &[u8],
        kill_privileges: bool,
    ) -> Result<usize> {
        let mut inode = self.watch(self.exclusive(node))?;
        self.write_held(caller, &mut inode, offset, bytes, WriteHow { kill: kill_privileges, dated: true })
    }

    /// Writes `bytes` that a program wrote earlier into the kernel's cache: the kernel says itself when that was.
    pub fn write_back(&self, caller: &Caller, node: BlockAddr, offset: u64, bytes: &[u8]) -> Result<usize> {
        let mut inode = self.watch(self.exclusive(node))?;
        self.write_held(caller, &mut inode, offset, bytes, WriteHow { kill: false, dated: false })
    }

    /// Writes `bytes` at the end of the file, wherever that is by now: O_APPEND on a shared mount.
    pub fn append(&self, caller: &Caller, node: BlockAddr, bytes: &[u8], kill_privileges: bool) -> Result<usize> {
        let mut inode = self.watch(self.exclusive(node))?;
        let end = inode.dinode.size.get();
        self.write_held(caller, &mut inode, end, bytes, WriteHow { kill: kill_privileges, dated: true })
    }

    fn write_held(
        &self,
        caller: &Caller,
        inode: &mut Inode,
        offset: u64,
        bytes: &[u8],
        how: WriteHow,
    ) -> Result<usize> {
        if !inode.is_regular() {
            return Err(if inode.is_dir() { Error::IsADirectory } else { Error::Invalid });
        }
        self.check_inode_quota(caller, inode, |vol| file::write_cost(vol, inode, offset, bytes.len() as u64))?;
        let (written, batch) = self.watch(if how.dated {
            file::write(&self.vol, inode, offset, bytes)
        } else {
            file::write_undated(&self.vol, inode, offset, bytes)
        })?;
        if how.kill {
            self.kill_privileges(inode)?;
        }
        if inode.flags().has(DiFlags::SYNC) {
            self.watch(file::fsync(&self.vol, inode))?;
            self.vol.journal.flush_to(batch, FlushReason::Sync)?;
        }
        Ok(written)
    }

    /// fsync(2) of a file or directory.
    pub fn fsync(&self, node: BlockAddr) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        let inode = self.watch(self.shared(node))?;
        self.watch(file::fsync(&self.vol, &inode))
    }

    /// fallocate(2); `mode` as there. Modes we do not know are `NotSupported`.
    pub fn fallocate(&self, caller: &Caller, node: BlockAddr, offset: u64, len: u64, mode: i32) -> Result<()> {
        const KEEP_SIZE: i32 = 1;
        const PUNCH_HOLE: i32 = 2;
        const ZERO_RANGE: i32 = 16;
        let mut inode = self.watch(self.exclusive(node))?;
        if !inode.is_regular() {
            return Err(if inode.is_dir() { Error::IsADirectory } else { Error::NoSuchRegion });
        }
        may_write(&inode, mode & (PUNCH_HOLE | ZERO_RANGE) == 0)?;
        if len == 0 {
            return Err(Error::Invalid);
        }
        let end = offset.checked_add(len).filter(|&e| e <= i64::MAX as u64).ok_or(Error::TooBig)?;
        let keep = mode & KEEP_SIZE != 0;
        if mode & !KEEP_SIZE == 0 && inode.is_jdata() {
            return Err(Error::NotSupported);
        }
        if mode & PUNCH_HOLE == 0 {
            // What cannot fit is refused before it has filled the disk.
            let blocks = u64::from(self.watch(file::allocate_cost(&self.vol, &inode, offset, end))?);
            // Of what other nodes have freed lately the counters do not know yet.
            if !self.vol.inodes.is_shared() && blocks > self.space().free {
                return Err(Error::NoSpace);
            }
            self.check_inode_quota(caller, &inode, |_| Ok(blocks))?;
        }
        let result = match mode & !KEEP_SIZE {
            0 => file::allocate(&self.vol, &mut inode, offset, len, keep),
            PUNCH_HOLE if keep => file::punch(&self.vol, &mut inode, offset, len),
            ZERO_RANGE => file::zero_range(&self.vol, &mut inode, offset, len, keep),
            _ => Err(Error::NotSupported),
        };
        self.watch(result)?;
        self.kill_after_fallocate(caller, &mut inode)
    }

    fn kill_after_fallocate(&self, caller: &Caller, inode: &mut Inode) -> Result<()> {
        if caller.uid == 0 { Ok(()) } else { self.kill_privileges(inode) }
    }

    /// SEEK_DATA and SEEK_HOLE of lseek(2).
    pub fn seek(&self, node: BlockAddr, offset: u64, what: Seek) -> Result<u64> {
        let inode = self.watch(self.shared(node))?;
        if inode.is_dir() {
            return Err(Error::NoSuchRegion);
        }
        self.watch(file::seek(&self.vol, &inode, offset, what))
    }
}

/// Immutable files are not written, append-only ones only at their end.
fn may_write(inode: &Inode, append: bool) -> Result<()> {
    if inode.flags().has(DiFlags::IMMUTABLE) || inode.flags().has(DiFlags::APPENDONLY) && !append {
        return Err(Error::NotPermitted);
    }
    Ok(())
}
