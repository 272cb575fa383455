//! Chapter 10: extended attributes and ACLs. (API skeleton)

use crate::error::Result;
use crate::format::ea::EaType;
use crate::ids::BlockAddr;
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use crate::rgrp::Space;

pub mod acl {
    //! POSIX ACLs (ondisk.md 6.2). (API skeleton)
    use crate::error::Result;

    /// A parsed ACL.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Acl {
        /// Entries in canonical order: (tag, perm, id).
        pub entries: Vec<(u16, u16, u32)>,
    }

    impl Acl {
        /// Parses and validates the xattr value (little-endian, version 2); `Invalid` otherwise. An empty value is `None`.
        pub fn parse(_value: &[u8]) -> Result<Option<Self>> {
            unimplemented!()
        }
        /// The xattr value.
        pub fn to_bytes(&self) -> Vec<u8> {
            unimplemented!()
        }
        /// The permission bits it implies, if it says nothing beyond them (then it is not stored); else `None`.
        pub fn equivalent_mode(&self) -> Option<u32> {
            unimplemented!()
        }
        /// The nine permission bits this access ACL shows in st_mode.
        pub fn mode_bits(&self) -> u32 {
            unimplemented!()
        }
        /// This access ACL after chmod to `mode`.
        pub fn with_mode(&self, _mode: u32) -> Self {
            unimplemented!()
        }
        /// This default ACL applied to a new object created with `mode` (umask not applied): its mode, its access ACL if one
        /// must be stored.
        pub fn inherit(&self, _mode: u32) -> (u32, Option<Self>) {
            unimplemented!()
        }
    }
}

/// Splits `user.x` into type and stored name; `None` for a prefix GFS2 does not know.
pub fn split_name(_full: &[u8]) -> Option<(EaType, &[u8])> {
    unimplemented!()
}

/// How `set` treats an attribute that is (not) there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Either way.
    Any,
    /// XATTR_CREATE.
    Create,
    /// XATTR_REPLACE.
    Replace,
}

/// The value; `NoAttribute` when it is not there.
pub fn get(_vol: &Volume, _inode: &Inode, _kind: EaType, _name: &[u8]) -> Result<Vec<u8>> {
    unimplemented!()
}

/// Full names (with prefix), each once.
pub fn list(_vol: &Volume, _inode: &Inode) -> Result<Vec<Vec<u8>>> {
    unimplemented!()
}

/// Sets an attribute in its own transaction(s) (ondisk.md 6.3, 6.4); ctime. `OutOfRange` for too large, `NoSpace`.
/// `also` is applied to the dinode in the same transaction (mode change of an ACL).
pub fn set(_vol: &Volume, _inode: &mut Inode, _kind: EaType, _name: &[u8], _value: &[u8], _how: SetMode, _also: &mut dyn FnMut(&mut Inode)) -> Result<()> {
    unimplemented!()
}

/// Removes an attribute; `NoAttribute` when it is not there. `also` as in `set`.
pub fn remove(_vol: &Volume, _inode: &mut Inode, _kind: EaType, _name: &[u8], _also: &mut dyn FnMut(&mut Inode)) -> Result<()> {
    unimplemented!()
}

/// What a new inode's first attributes cost: blocks to allocate besides the dinode (the EA block, data blocks), blocks logged.
pub fn initial_cost(_vol: &Volume, _attrs: &[(EaType, &[u8], &[u8])]) -> Result<(u32, u32)> {
    unimplemented!()
}

/// Gives a new inode its first attributes inside the transaction that creates it. `ea_block`: the block allocated together with
/// the dinode, if that succeeded.
pub fn initial(_vol: &Volume, _tx: &mut Transaction<'_>, _space: &mut Space<'_>, _inode: &mut Inode, _ea_block: Option<BlockAddr>, _attrs: &[(EaType, &[u8], &[u8])]) -> Result<()> {
    unimplemented!()
}

/// Frees all attribute blocks of an UNLINKED inode (ondisk.md 6.6); restartable.
pub fn free_all(_vol: &Volume, _inode: &mut Inode) -> Result<()> {
    unimplemented!()
}
