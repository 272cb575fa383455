//! Making inodes: files, directories, symbolic links, device nodes. One transaction each, name and all.

use super::attr::Attr;
use super::namei::{check_name, may_add, there};
use super::{Caller, Fs};
use crate::dir::{self, Entry};
use crate::error::{Error, Result};
use crate::format::dinode::DINODE_SIZE;
use crate::format::dinode::mode::{S_IFDIR, S_IFLNK, S_IFREG, S_ISGID, S_ISUID};
use crate::format::ea::EaType;
use crate::format::{DiFlags, DirentType};
use crate::ids::BlockAddr;
use crate::inode::{Birth, Inode};
use crate::journal::Reserve;
use crate::rgrp::{Owner, Reservation, Want};
use crate::xattr::{self, acl::Acl};

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub enum NewInode<'a> {
    /// A regular file with these permission bits.
    File(u32),
    /// A directory with these permission bits.
    Dir(u32),
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// Anything mknod(2) makes: full mode, device numbers (major, minor).
    Node(u32, (u32, u32)),
}

impl NewInode<'_> {
    fn mode(&self) -> u32 {
        match *self {
            Self::File(perm) => S_IFREG | perm & 0o7777,
            Self::Dir(perm) => S_IFDIR | perm & 0o7777,
            Self::Symlink(_) => S_IFLNK | 0o777,
            Self::Node(mode, _) => mode,
        }
    }
}

/// What a new inode takes from its parent and its maker.
struct Traits {
    birth: Birth,
    /// ACLs to store: (name under `system.`, value).
    acls: Vec<(&'static [u8], Vec<u8>)>,
}

impl Fs {
    /// Makes an inode with a name; the kernel holds a reference to it afterwards.
    pub fn make(&self, caller: &Caller, parent: BlockAddr, name: &[u8], what: &NewInode<'_>) -> Result<Attr> {
        self.watch(self.do_make(caller, parent, name, what))
    }

    fn do_make(&self, caller: &Caller, parent: BlockAddr, name: &[u8], what: &NewInode<'_>) -> Result<Attr> {
        check_name(name)?;
        let kind = DirentType::from_mode(what.mode()).ok_or(Error::Invalid)?;
        let mut dir = there(self.exclusive(parent))?;
        may_add(&dir)?;
        if dir::lookup(&self.vol, &dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        if let NewInode::Symlink(target) = what {
            match target.len() {
                0 => return Err(Error::NotFound),
                n if n >= self.vol.bs.stuffed_max() => return Err(Error::NameTooLong),
                _ => {}
            }
        }
        if kind == DirentType::Dir && dir.dinode.nlink.get() == u32::MAX {
            return Err(Error::TooManyLinks);
        }
        let traits = self.traits(caller, &dir, what)?;
        let attrs: Vec<(EaType, &[u8], &[u8])> =
            traits.acls.iter().map(|(name, value)| (EaType::System, *name, value.as_slice())).collect();
        let (ea_alloc, ea_log) = if attrs.is_empty() { (0, 0) } else { xattr::initial_cost(&self.vol, &attrs)? };
        let plan = dir::plan_add(&self.vol, &dir, name)?;
        let blocks = 1 + ea_alloc + plan.alloc;
        self.check_quota(caller, Owner { uid: traits.birth.uid, gid: traits.birth.gid }, u64::from(blocks))?;
        let spread =
            kind == DirentType::Dir && (dir.inum.addr == self.vol.root.addr || dir.flags().has(DiFlags::TOPDIR));
        let want = Want { blocks, min: blocks, goal: dir.goal(&self.vol), spread };
        let mut apart = Reservation::default();
        let resv = if spread { &mut apart } else { &mut dir.resv };
        let with_ea = !attrs.is_empty();
        let (mut space, cradle) = self.vol.cradle(|| self.vol.rgrps.reserve(want, resv), with_ea)?;
        let mut tx = self.vol.journal.begin(Reserve::blocks(1 + ea_log + plan.log + space.log_blocks()))?;
        let (mut inode, in_use, ea_block) =
            self.vol.create(&mut tx, &mut space, cradle, &traits.birth, dir.inum, with_ea)?;
        if let NewInode::Symlink(target) = what {
            inode.dinode.size.set(target.len() as u64);
            let buffer = inode.buffer(&self.vol)?;
            tx.edit(&buffer, |b| b[DINODE_SIZE..DINODE_SIZE + target.len()].copy_from_slice(target));
        }
        if !attrs.is_empty() {
            xattr::initial(&self.vol, &mut tx, &mut space, &mut inode, ea_block, &attrs)?;
        }
        inode.write_back(&self.vol, &mut tx)?;
        let entry = Entry { inum: inode.inum, kind };
        dir::add(&self.vol, &mut tx, &mut space, &mut dir, name, entry, ea_block.is_some())?;
        tx.commit();
        drop(space);
        self.vol.rgrps.release(&mut apart);
        self.nodes.remember(inode.inum, in_use);
        Attr::of(self, &inode)
    }

    /// Mode, owner, flags and ACLs of an inode made in `dir`.
    fn traits(&self, caller: &Caller, dir: &Inode, what: &NewInode<'_>) -> Result<Traits> {
        let parent_mode = dir.dinode.mode.get();
        let is_dir = matches!(what, NewInode::Dir(_));
        let mut mode = what.mode();
        let (mut uid, mut gid) = (caller.uid, caller.gid);
        if parent_mode & S_ISGID != 0 {
            gid = dir.dinode.gid.get();
            if is_dir {
                mode |= S_ISGID;
            }
        }
        let parent_uid = dir.dinode.uid.get();
        if self.vol.options.suiddir && parent_mode & S_ISUID != 0 && parent_uid != 0 {
            if is_dir {
                mode |= S_ISUID;
            } else if parent_uid != caller.uid {
                mode &= !0o7111;
            }
            uid = parent_uid;
        }
        let mut acls = Vec::new();
        let default = match what {
            NewInode::Symlink(_) => None,
            _ if self.vol.options.acl => self.default_acl(dir)?,
            _ => None,
        };
        match default {
            Some(default) => {
                let (inherited, access) = default.inherit(mode);
                mode = inherited;
                if let Some(access) = access {
                    acls.push((b"posix_acl_access".as_slice(), access.to_bytes()));
                }
                if is_dir {
                    acls.push((b"posix_acl_default".as_slice(), default.to_bytes()));
                }
            }
            None if !matches!(what, NewInode::Symlink(_)) => mode &= !(caller.umask & 0o777),
            None => {}
        }
        let mut flags = DiFlags(dir.flags().0 & DiFlags::SYSTEM.0);
        if dir.flags().has(DiFlags::INHERIT_JDATA) {
            match what {
                NewInode::Dir(_) => flags = flags.with(DiFlags::INHERIT_JDATA),
                _ if mode & S_IFLNK == S_IFREG => flags = flags.with(DiFlags::JDATA),
                _ => {}
            }
        }
        let rdev = if let NewInode::Node(_, rdev) = *what { rdev } else { (0, 0) };
        let birth = Birth { mode, uid, gid, rdev, flags, now: self.vol.clock.now() };
        Ok(Traits { birth, acls })
    }

    fn default_acl(&self, dir: &Inode) -> Result<Option<Acl>> {
        if dir.dinode.eattr.get() == 0 {
            return Ok(None);
        }
        match xattr::get(&self.vol, dir, EaType::System, b"posix_acl_default") {
            Ok(value) => Acl::parse(&value),
            Err(Error::NoAttribute) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
