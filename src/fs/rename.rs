//! rename(2), with RENAME_NOREPLACE and RENAME_EXCHANGE.
//!
//! Locks: the rename lock when the parents differ (nobody else moves directories then, so ancestry stands still); the parents,
//! an ancestor before its descendant, otherwise by address; then the inodes concerned, by address.

use super::namei::{check_kind, check_name, may_add, may_remove, must_be_dir, settled, there};
use super::{Caller, Fs};
use crate::dir::{self, Entry};
use crate::error::{CorruptKind, Error, Result};
use crate::format::DirentType;
use crate::ids::{BlockAddr, Inum};
use crate::inode::{Inode, InodeExclusive};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::Space;

/// Flags of renameat2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameHow {
    /// Replace what is there.
    Replace,
    /// Fail when something is there.
    NoReplace,
    /// Swap the two.
    Exchange,
}

/// The two parents, held; one when they are the same directory.
struct Parents {
    old: InodeExclusive,
    new: Option<InodeExclusive>,
}

/// The ways from the two parents up to the root; empty when the parents are the same directory.
#[derive(Default)]
struct Ancestry {
    old: Vec<Inum>,
    new: Vec<Inum>,
}

/// More directories than this on one way up are a loop.
const DEEPEST: usize = 1 << 20;

impl Parents {
    fn new_dir(&mut self) -> &mut Inode {
        match &mut self.new {
            Some(new) => new,
            None => &mut self.old,
        }
    }
    fn new_ref(&self) -> &Inode {
        self.new.as_ref().unwrap_or(&self.old)
    }
}

impl Fs {
    /// Moves a name.
    pub fn rename(
        &self,
        caller: &Caller,
        (parent, name): (BlockAddr, &[u8]),
        (new_parent, new_name): (BlockAddr, &[u8]),
        how: RenameHow,
    ) -> Result<()> {
        check_name(name)?;
        check_name(new_name)?;
        for n in [name, new_name] {
            if n == b"." || n == b".." {
                return Err(Error::Busy);
            }
        }
        self.watch(settled(|| self.do_rename(caller, (parent, name), (new_parent, new_name), how)))
    }

    fn do_rename(
        &self,
        caller: &Caller,
        (parent, name): (BlockAddr, &[u8]),
        (new_parent, new_name): (BlockAddr, &[u8]),
        how: RenameHow,
    ) -> Result<()> {
        let apart = parent != new_parent;
        let _renames = if apart { Some(self.vol.rename_lock()?) } else { None };
        let above = if apart {
            Ancestry { old: self.way_up(parent)?, new: self.way_up(new_parent)? }
        } else {
            Ancestry::default()
        };
        let mut parents = self.lock_parents(parent, new_parent, &above)?;
        must_be_dir(&parents.old)?;
        must_be_dir(parents.new_ref())?;
        let moved = dir::lookup(&self.vol, &parents.old, name)?.ok_or(Error::NotFound)?;
        let target = dir::lookup(&self.vol, parents.new_ref(), new_name)?;
        match (how, target) {
            (RenameHow::NoReplace, Some(_)) => return Err(Error::Exists),
            (RenameHow::Exchange, None) => return Err(Error::NotFound),
            _ => {}
        }
        may_add(parents.new_ref())?;
        // Two names of one inode: POSIX demands that nothing happens.
        if target.is_some_and(|t| t.inum == moved.inum) {
            return Ok(());
        }
        if above.new.contains(&moved.inum) {
            return Err(Error::Invalid);
        }
        if target.is_some_and(|t| above.old.contains(&t.inum)) {
            return Err(if how == RenameHow::Exchange { Error::Invalid } else { Error::NotEmpty });
        }
        let wanted: Vec<Inum> = [Some(moved.inum), target.map(|t| t.inum)].into_iter().flatten().collect();
        let mut held = self.vol.exclusive_many(&wanted)?.into_iter().flatten();
        let mut inode = held.next().ok_or(Error::Stale)?;
        let victim = held.next();
        may_remove(&parents.old, &inode)?;
        check_kind(&inode, moved)?;
        if let (Some(victim), Some(entry)) = (&victim, target) {
            may_remove(parents.new_ref(), victim)?;
            check_kind(victim, entry)?;
        }
        match (victim, target) {
            (Some(mut other), Some(entry)) if how == RenameHow::Exchange => {
                self.exchange(&mut parents, (&mut inode, moved, name), (&mut other, entry, new_name))
            }
            (victim, _) => self.move_name(caller, parents, (inode, moved, name), victim, new_name),
        }
    }

    /// Takes the parents' glocks in order: an ancestor first, otherwise by address.
    fn lock_parents(&self, old: BlockAddr, new: BlockAddr, above: &Ancestry) -> Result<Parents> {
        if old == new {
            return Ok(Parents { old: there(self.exclusive(old))?, new: None });
        }
        let contains = |chain: &[Inum], node: BlockAddr| chain.iter().any(|i| i.addr == node);
        let new_first = contains(&above.old, new) || (!contains(&above.new, old) && new < old);
        if new_first {
            let new = there(self.exclusive(new))?;
            Ok(Parents { old: there(self.exclusive(old))?, new: Some(new) })
        } else {
            let old = there(self.exclusive(old))?;
            Ok(Parents { old, new: Some(there(self.exclusive(new))?) })
        }
    }

    /// The directories from `node` up to the root, both included. The rename lock is held, so the way stands still.
    fn way_up(&self, node: BlockAddr) -> Result<Vec<Inum>> {
        let mut at = self.nodes.inum(node)?;
        let mut way = vec![at];
        while at.addr != self.vol.root.addr {
            let dir = there(self.vol.shared(at))?;
            must_be_dir(&dir)?;
            // A directory that was removed has no names, and what its `..` leads to may be gone.
            if dir.dinode.nlink.get() == 0 {
                return Err(Error::NotFound);
            }
            match dir::lookup(&self.vol, &dir, b"..")? {
                Some(up) if way.len() < DEEPEST => at = up.inum,
                Some(_) => return Err(Error::corrupt(at.addr, CorruptKind::Directory("parents without end"))),
                None => return Err(Error::corrupt(at.addr, CorruptKind::Directory("directory without `..`"))),
            }
            way.push(at);
        }
        Ok(way)
    }

    fn move_name(
        &self,
        caller: &Caller,
        mut parents: Parents,
        (mut inode, moved, name): (InodeExclusive, Entry, &[u8]),
        mut victim: Option<InodeExclusive>,
        new_name: &[u8],
    ) -> Result<()> {
        let apart = parents.new.is_some();
        let moves_dir = inode.is_dir();
        if let Some(victim) = &victim {
            match (moves_dir, victim.is_dir()) {
                (true, false) => return Err(Error::NotADirectory),
                (false, true) => return Err(Error::IsADirectory),
                _ => {}
            }
            self.may_vanish(victim)?;
        } else if moves_dir && apart && parents.new_ref().dinode.nlink.get() == u32::MAX {
            return Err(Error::TooManyLinks);
        }
        let plan = match victim {
            Some(_) => {
                dir::prepare_change(&self.vol, parents.new_ref(), new_name)?;
                dir::AddPlan { alloc: 0, log: dir::CHANGE_LOG_BLOCKS }
            }
            None => dir::plan_add(&self.vol, parents.new_ref(), new_name)?,
        };
        dir::prepare_change(&self.vol, &parents.old, name)?;
        inode.buffer(&self.vol)?;
        if moves_dir && apart {
            dir::prepare_change(&self.vol, &inode, b"..")?;
        }
        let mut space = self.space_for_name(caller, parents.new_dir(), plan.alloc)?;
        let mut free = match &victim {
            Some(victim) => {
                victim.buffer(&self.vol)?;
                self.last_name_goes(victim)?
            }
            None => None,
        };
        let log = plan.log
            + dir::CHANGE_LOG_BLOCKS * 2
            + 2
            + space.as_ref().map_or(0, |s| s.log_blocks())
            + free.as_ref().map_or(0, |f| f.log_blocks(1));
        let mut tx = self.vol.journal.begin(Reserve::blocks(log))?;
        let mut none = Space::empty();
        match &mut victim {
            Some(victim) => {
                dir::replace(&self.vol, &mut tx, parents.new_dir(), new_name, moved)?;
                // `replace` keeps the parent's link count (a directory for a directory); the removal below takes one off the
                // old parent's: the victim's `..` is gone and the moved one's has come.
                self.drop_name(&mut tx, victim, free.as_mut())?;
            }
            None => {
                let rahead = inode.dinode.eattr.get() == inode.inum.addr.get().wrapping_add(1);
                let space = space.as_mut().unwrap_or(&mut none);
                dir::add(&self.vol, &mut tx, space, parents.new_dir(), new_name, moved, rahead)?;
            }
        }
        dir::remove(&self.vol, &mut tx, &mut parents.old, name)?;
        if moves_dir && apart {
            let up = Entry { inum: parents.new_ref().inum, kind: DirentType::Dir };
            dir::replace(&self.vol, &mut tx, &mut inode, b"..", up)?;
        }
        self.changed(&mut tx, &mut inode)?;
        tx.commit();
        drop((free, space, inode));
        drop(parents);
        match victim {
            Some(victim) => self.after_unlink(victim),
            None => Ok(()),
        }
    }

    fn exchange(
        &self,
        parents: &mut Parents,
        (inode, moved, name): (&mut Inode, Entry, &[u8]),
        (other, entry, new_name): (&mut Inode, Entry, &[u8]),
    ) -> Result<()> {
        let apart = parents.new.is_some();
        dir::prepare_change(&self.vol, &parents.old, name)?;
        dir::prepare_change(&self.vol, parents.new_ref(), new_name)?;
        for i in [&*inode, &*other] {
            i.buffer(&self.vol)?;
            if i.is_dir() && apart {
                dir::prepare_change(&self.vol, i, b"..")?;
            }
        }
        let mut tx = self.vol.journal.begin(Reserve::blocks(4 * dir::CHANGE_LOG_BLOCKS + 2))?;
        dir::replace(&self.vol, &mut tx, &mut parents.old, name, entry)?;
        dir::replace(&self.vol, &mut tx, parents.new_dir(), new_name, moved)?;
        if apart {
            let (old, new) = (parents.old.inum, parents.new_ref().inum);
            for (i, up) in [(&mut *inode, new), (&mut *other, old)] {
                if i.is_dir() {
                    dir::replace(&self.vol, &mut tx, i, b"..", Entry { inum: up, kind: DirentType::Dir })?;
                }
            }
        }
        self.changed(&mut tx, inode)?;
        self.changed(&mut tx, other)?;
        tx.commit();
        Ok(())
    }

    fn changed(&self, tx: &mut Transaction<'_>, inode: &mut Inode) -> Result<()> {
        inode.dinode.set_ctime(self.vol.clock.now());
        inode.write_back(&self.vol, tx)
    }
}
