//! Reading and changing attributes.

use super::{Caller, Fs};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::file;
use crate::format::dinode::mode::{S_ISGID, S_ISUID};
use crate::format::ea::EaType;
use crate::format::{DiFlags, DirentType};
use crate::glock::{Entry, LockState};
use crate::ids::{BlockAddr, Inum};
use crate::inode::Inode;
use crate::journal::Reserve;
use crate::rgrp::Owner;
use crate::xattr;
use crate::xattr::acl::Acl;

/// What stat(2) shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Which inode.
    pub inum: Inum,
    /// Its type.
    pub kind: DirentType,
    /// Permission bits, with setuid, setgid, sticky.
    pub perm: u32,
    /// Link count.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device numbers (major, minor).
    pub rdev: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of data.
    pub mtime: Timestamp,
    /// Last change of inode.
    pub ctime: Timestamp,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// This one.
    At(Timestamp),
}

/// Which attributes to change.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of data.
    pub mtime: Option<SetTime>,
    /// Last change of inode: only the kernel's write-back cache sets it.
    pub ctime: Option<Timestamp>,
}

impl Attr {
    /// The attributes of a held inode.
    pub(super) fn of(fs: &Fs, inode: &Inode) -> Result<Self> {
        let d = &inode.dinode;
        let mode = d.mode.get();
        Ok(Self {
            inum: inode.inum,
            kind: DirentType::from_mode(mode).ok_or(Error::Invalid)?,
            perm: mode & 0o7777,
            nlink: d.nlink.get(),
            uid: d.uid.get(),
            gid: d.gid.get(),
            rdev: (d.major.get(), d.minor.get()),
            size: d.size.get(),
            blocks: d.blocks.get().saturating_mul(1 << (fs.vol.bs.shift() - 9)),
            atime: d.atime(),
            mtime: d.mtime(),
            ctime: d.ctime(),
        })
    }
}

impl Fs {
    /// What stat(2) shows.
    pub fn getattr(&self, node: BlockAddr) -> Result<Attr> {
        self.getattr_as(node, Entry::Ordinary)
    }

    /// The same as part of a request that the kernel may wait for before it gives back what it caches.
    pub fn getattr_as(&self, node: BlockAddr, entry: Entry) -> Result<Attr> {
        let inode = self.watch(self.shared_as(node, entry))?;
        Attr::of(self, &inode)
    }

    /// Changes attributes. The kernel writes nothing back while a change of size is under way, so that one must not wait for a
    /// drain of the lock (fuse.md D4).
    pub fn setattr(&self, caller: &Caller, node: BlockAddr, set: &SetAttr) -> Result<Attr> {
        self.setattr_as(caller, node, set, if set.size.is_some() { Entry::Fill } else { Entry::Ordinary })
    }

    /// The same as part of a request that the kernel may wait for before it gives back what it caches.
    pub fn setattr_as(&self, caller: &Caller, node: BlockAddr, set: &SetAttr, entry: Entry) -> Result<Attr> {
        let mut inode = self.watch(self.exclusive_as(node, entry))?;
        may_set(inode.flags(), set)?;
        if let Some(size) = set.size {
            self.resize(caller, &mut inode, size)?;
        }
        if let Some(mode) = set.mode {
            self.chmod(&mut inode, mode)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            self.chown(caller, &mut inode, set.uid, set.gid)?;
        }
        if set.atime.is_some() || set.mtime.is_some() || set.ctime.is_some() {
            self.set_times(&mut inode, set)?;
        }
        Attr::of(self, &inode)
    }

    fn resize(&self, caller: &Caller, inode: &mut Inode, size: u64) -> Result<()> {
        if inode.is_dir() {
            return Err(Error::IsADirectory);
        }
        if !inode.is_regular() {
            return Err(Error::Invalid);
        }
        if size > i64::MAX as u64 {
            return Err(Error::TooBig);
        }
        self.check_inode_quota(caller, inode, |vol| file::resize_cost(vol, inode, size))?;
        self.watch(file::truncate(&self.vol, inode, size))?;
        if caller.uid != 0 {
            self.kill_privileges(inode)?;
        }
        Ok(())
    }

    /// Clears setuid, and setgid where the group may execute: after a write, truncate or chown by somebody unprivileged.
    pub(super) fn kill_privileges(&self, inode: &mut Inode) -> Result<()> {
        let mode = inode.dinode.mode.get();
        let kept = without_privileges(mode);
        if kept == mode {
            return Ok(());
        }
        self.change_dinode(inode, |d| d.mode.set(kept))
    }

    fn chmod(&self, inode: &mut Inode, mode: u32) -> Result<()> {
        let now = self.vol.clock.now();
        let new = inode.dinode.mode.get() & !0o7777 | mode & 0o7777;
        let acl = if self.vol.options.acl { self.stored_acl(inode)? } else { None };
        let Some(acl) = acl else {
            return self.change_dinode(inode, |d| {
                d.mode.set(new);
                d.set_ctime(now);
            });
        };
        let value = acl.with_mode(new).to_bytes();
        let how = xattr::SetMode::Replace;
        self.watch(xattr::set(&self.vol, inode, EaType::System, b"posix_acl_access", &value, how, &mut |i| {
            i.dinode.mode.set(new);
        }))
    }

    /// The access ACL, if one is stored.
    pub(super) fn stored_acl(&self, inode: &Inode) -> Result<Option<Acl>> {
        if inode.dinode.eattr.get() == 0 {
            return Ok(None);
        }
        match self.watch(xattr::get(&self.vol, inode, EaType::System, b"posix_acl_access")) {
            Ok(value) => Acl::parse(&value),
            Err(Error::NoAttribute) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn chown(&self, caller: &Caller, inode: &mut Inode, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (old_uid, old_gid) = (inode.dinode.uid.get(), inode.dinode.gid.get());
        let (uid, gid) = (uid.unwrap_or(old_uid), gid.unwrap_or(old_gid));
        let blocks = i64::try_from(inode.dinode.blocks.get()).unwrap_or(i64::MAX);
        let moves = (uid, gid) != (old_uid, old_gid);
        if moves {
            self.check_quota(caller, Owner { uid, gid }, inode.dinode.blocks.get())?;
        }
        let now = self.vol.clock.now();
        let quota = self.quota.as_ref().filter(|_| moves && inode.owner().is_some());
        let log = 1 + quota.map_or(0, |q| 2 * q.log_blocks());
        inode.buffer(&self.vol)?;
        let mut tx = self.vol.journal.begin(Reserve::blocks(log))?;
        let mode = inode.dinode.mode.get();
        inode.dinode.uid.set(uid);
        inode.dinode.gid.set(gid);
        if !inode.is_dir() {
            inode.dinode.mode.set(without_privileges(mode));
        }
        inode.dinode.set_ctime(now);
        if let Some(quota) = quota {
            quota.charge(&mut tx, Owner { uid: old_uid, gid: old_gid }, -blocks)?;
            quota.charge(&mut tx, Owner { uid, gid }, blocks)?;
        }
        inode.write_back(&self.vol, &mut tx)?;
        tx.commit();
        Ok(())
    }

    fn set_times(&self, inode: &mut Inode, set: &SetAttr) -> Result<()> {
        let now = self.vol.clock.now();
        let pick = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(at) => at,
        };
        self.change_dinode(inode, |d| {
            if let Some(t) = set.atime {
                d.set_atime(pick(t));
            }
            if let Some(t) = set.mtime {
                d.set_mtime(pick(t));
            }
            d.set_ctime(set.ctime.map_or(now, |at| later_change(at, d.ctime(), now)));
        })
    }

    /// The inode was read: its access time follows, always (`strict`) or when it is not later than the last change or older
    /// than a day (relatime). Nothing happens on read-only and frozen mounts and where the `A` flag forbids it. True when it changed.
    pub fn touch(&self, node: BlockAddr, strict: bool) -> Result<bool> {
        const DAY: i64 = 24 * 60 * 60;
        if self.is_read_only() || self.is_frozen() {
            return Ok(false);
        }
        let due = |inode: &Inode, now: Timestamp| {
            let d = &inode.dinode;
            let stale =
                d.atime() <= d.mtime() || d.atime() <= d.ctime() || now.sec.saturating_sub(d.atime().sec) >= DAY;
            !inode.flags().has(DiFlags::NOATIME) && (strict || stale)
        };
        let now = self.vol.clock.now();
        if !due(&*self.shared(node)?, now) {
            return Ok(false);
        }
        // Where others may hold the lock too, reading must not take it away from them.
        let lock = self.vol.inode(node);
        if self.vol.inodes.is_shared() && lock.state() != LockState::Exclusive {
            return Ok(false);
        }
        let mut inode = self.exclusive(node)?;
        if !due(&inode, now) {
            return Ok(false);
        }
        self.change_dinode(&mut inode, |d| d.set_atime(now))?;
        Ok(true)
    }

    /// A transaction that changes nothing but the dinode.
    pub(super) fn change_dinode(&self, inode: &mut Inode, f: impl FnOnce(&mut crate::format::Dinode)) -> Result<()> {
        inode.buffer(&self.vol)?;
        let mut tx = self.vol.journal.begin(Reserve::blocks(1))?;
        f(&mut inode.dinode);
        inode.write_back(&self.vol, &mut tx)?;
        tx.commit();
        Ok(())
    }
}

/// The ctime when the kernel's cache says `at`. It says so now and then, and another change may overtake that: `stored` stays
/// when it is the later one, unless it lies in the future.
fn later_change(at: Timestamp, stored: Timestamp, now: Timestamp) -> Timestamp {
    let order = |t: Timestamp| (t.sec, t.nsec);
    if order(at) < order(stored) && order(stored) <= order(now) { stored } else { at }
}

/// Immutable and append-only inodes keep their attributes; an append-only one may be touched.
fn may_set(flags: DiFlags, set: &SetAttr) -> Result<()> {
    let of_user = set.mode.is_some() || set.uid.is_some() || set.gid.is_some() || set.size.is_some();
    // The kernel's write-back cache brings the times of writes that were allowed: mtime and ctime, never atime.
    if !of_user && set.ctime.is_some() && set.atime.is_none() {
        return Ok(());
    }
    let touch = !of_user && set.atime == Some(SetTime::Now);
    if flags.has(DiFlags::IMMUTABLE) || flags.has(DiFlags::APPENDONLY) && !touch {
        return Err(Error::NotPermitted);
    }
    Ok(())
}

/// A mode without setuid, and without setgid where the group may execute (there setgid without execution meant mandatory
/// locking).
pub(super) fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !S_ISUID;
    if mode & 0o010 != 0 { mode & !S_ISGID } else { mode }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_attributes() {
        let (fixed, log) = (DiFlags(0).with(DiFlags::IMMUTABLE), DiFlags(0).with(DiFlags::APPENDONLY));
        let now = Timestamp { sec: 1, nsec: 2 };
        let written = SetAttr { mtime: Some(SetTime::At(now)), ctime: Some(now), ..SetAttr::default() };
        let touch = SetAttr { atime: Some(SetTime::Now), ..written };
        let set = SetAttr { atime: Some(SetTime::At(now)), ..written };
        let group = SetAttr { gid: Some(1), ..written };
        for (set, on_fixed, on_log) in
            [(written, true, true), (touch, false, true), (set, false, false), (group, false, false)]
        {
            assert_eq!((may_set(fixed, &set).is_ok(), may_set(log, &set).is_ok()), (on_fixed, on_log));
            assert!(may_set(DiFlags(0), &set).is_ok());
        }
    }

    #[test]
    fn an_older_ctime_does_not_win() {
        let at = |sec| Timestamp { sec, nsec: 5 };
        assert_eq!(later_change(at(3), at(2), at(9)), at(3));
        assert_eq!(later_change(at(3), at(4), at(9)), at(4));
        assert_eq!(later_change(at(3), at(10), at(9)), at(3), "stored in the future");
    }

    #[test]
    fn privileges() {
        assert_eq!(without_privileges(0o106755), 0o100755);
        assert_eq!(without_privileges(0o102745), 0o102745);
    }
}
