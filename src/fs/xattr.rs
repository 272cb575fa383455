//! Extended attributes by their full names.

use super::namei::cannot_change;
use super::{Caller, Fs};
use crate::error::{Error, Result};
use crate::format::ea::EaType;
use crate::ids::BlockAddr;
use crate::inode::Inode;
use crate::xattr::{self, acl::Acl};

pub use crate::xattr::SetMode;

const ACCESS: &[u8] = b"posix_acl_access";
const DEFAULT: &[u8] = b"posix_acl_default";

impl Fs {
    /// The value of an attribute.
    pub fn getxattr(&self, node: BlockAddr, name: &[u8]) -> Result<Vec<u8>> {
        let (kind, short) = self.known_name(name)?;
        let inode = self.watch(self.shared(node))?;
        self.watch(xattr::get(&self.vol, &inode, kind, short))
    }

    /// All attribute names.
    pub fn listxattr(&self, node: BlockAddr) -> Result<Vec<Vec<u8>>> {
        let inode = self.watch(self.shared(node))?;
        let mut names = self.watch(xattr::list(&self.vol, &inode))?;
        if !self.vol.options.acl {
            names.retain(|n| !n.starts_with(b"system."));
        }
        Ok(names)
    }

    /// Sets an attribute.
    pub fn setxattr(&self, caller: &Caller, node: BlockAddr, name: &[u8], value: &[u8], how: SetMode) -> Result<()> {
        let (kind, short) = self.known_name(name)?;
        let mut inode = self.watch(self.exclusive(node))?;
        if cannot_change(inode.flags()) {
            return Err(Error::NotPermitted);
        }
        if kind == EaType::System {
            return self.set_acl(caller, &mut inode, short, value);
        }
        self.check_inode_quota(caller, &inode, |vol| xattr::set_cost(vol, &inode, kind, short, value))?;
        self.watch(xattr::set(&self.vol, &mut inode, kind, short, value, how, &mut |_| {}))
    }

    /// Removes an attribute.
    pub fn removexattr(&self, node: BlockAddr, name: &[u8]) -> Result<()> {
        let (kind, short) = self.known_name(name)?;
        let mut inode = self.watch(self.exclusive(node))?;
        if cannot_change(inode.flags()) {
            return Err(Error::NotPermitted);
        }
        self.watch(xattr::remove(&self.vol, &mut inode, kind, short, &mut |_| {}))
    }

    fn known_name<'n>(&self, name: &'n [u8]) -> Result<(EaType, &'n [u8])> {
        let (kind, short) = xattr::split_name(name).ok_or(Error::NotSupported)?;
        if short.len() > 255 {
            return Err(Error::OutOfRange);
        }
        if kind == EaType::System && !(self.vol.options.acl && (short == ACCESS || short == DEFAULT)) {
            return Err(Error::NotSupported);
        }
        Ok((kind, short))
    }

    /// An access ACL sets the permission bits; one that says no more than they do is not stored.
    fn set_acl(&self, caller: &Caller, inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<()> {
        let acl = Acl::parse(value)?;
        if name == DEFAULT {
            if !inode.is_dir() {
                return if acl.is_none() { Ok(()) } else { Err(Error::Access) };
            }
            return match acl {
                Some(acl) => self.store_acl(caller, inode, name, &acl, None),
                None => self.drop_acl(inode, name, None),
            };
        }
        let Some(acl) = acl else { return self.drop_acl(inode, name, None) };
        let mode = inode.dinode.mode.get() & !0o777 | acl.mode_bits();
        match acl.equivalent_mode() {
            Some(_) => self.drop_acl(inode, name, Some(mode)),
            None => self.store_acl(caller, inode, name, &acl, Some(mode)),
        }
    }

    fn store_acl(&self, caller: &Caller, inode: &mut Inode, name: &[u8], acl: &Acl, mode: Option<u32>) -> Result<()> {
        let value = acl.to_bytes();
        self.check_inode_quota(caller, inode, |vol| xattr::set_cost(vol, inode, EaType::System, name, &value))?;
        let also = &mut |i: &mut Inode| {
            if let Some(mode) = mode {
                i.dinode.mode.set(mode);
            }
        };
        self.watch(xattr::set(&self.vol, inode, EaType::System, name, &value, SetMode::Any, also))
    }

    fn drop_acl(&self, inode: &mut Inode, name: &[u8], mode: Option<u32>) -> Result<()> {
        let also = &mut |i: &mut Inode| {
            if let Some(mode) = mode {
                i.dinode.mode.set(mode);
            }
        };
        match self.watch(xattr::remove(&self.vol, inode, EaType::System, name, also)) {
            Err(Error::NoAttribute) => match mode {
                Some(mode) => {
                    let now = self.vol.clock.now();
                    self.change_dinode(inode, |d| {
                        d.mode.set(mode);
                        d.set_ctime(now);
                    })
                }
                None => Ok(()),
            },
            other => other,
        }
    }
}
