//! Listing directories.

use super::Fs;
use super::attr::Attr;
use super::namei::must_be_dir;
use crate::dir::{self, Cookie, Entry};
use crate::error::{Error, Result};
use crate::ids::{BlockAddr, Inum};
use crate::inode::{InUse, Inode};

/// One entry of a listing.
#[derive(Clone, Debug)]
pub struct DirItem<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Where it leads.
    pub entry: Entry,
    /// Cookie to resume after it.
    pub next: Cookie,
    /// Its attributes, when they were asked for and could be read.
    pub attr: Option<Attr>,
}

impl Fs {
    /// Lists names from `from` on until `each` says false.
    pub fn list(&self, node: BlockAddr, from: Cookie, each: &mut dyn FnMut(DirItem<'_>) -> bool) -> Result<()> {
        let dir = self.watch(self.shared(node))?;
        must_be_dir(&dir)?;
        if is_gone(&dir) {
            return Ok(());
        }
        self.watch(dir::list(&self.vol, &dir, from, &mut |l| {
            each(DirItem { name: l.name, entry: l.entry, next: l.next, attr: None })
        }))
    }

    /// Lists names with attributes. For each entry but `.` and `..` that `each` took (said true), the kernel holds a reference
    /// afterwards.
    pub fn list_plus(&self, node: BlockAddr, from: Cookie, each: &mut dyn FnMut(DirItem<'_>) -> bool) -> Result<()> {
        let dir = self.watch(self.shared(node))?;
        must_be_dir(&dir)?;
        if is_gone(&dir) {
            return Ok(());
        }
        let mut failed = None;
        self.watch(dir::list(&self.vol, &dir, from, &mut |l| {
            let mut in_use = InUse::default();
            let dots = l.name == b"." || l.name == b"..";
            let attr = if dots {
                None
            } else {
                match self.known_attr(l.entry.inum) {
                    Ok((attr, held)) => {
                        in_use = held;
                        Some(attr)
                    }
                    Err(e @ Error::MustWait) => {
                        failed = Some(e);
                        return false;
                    }
                    // One unreadable inode does not hide the others: it is listed without attributes.
                    Err(_) => None,
                }
            };
            let taken = each(DirItem { name: l.name, entry: l.entry, next: l.next, attr });
            if taken && attr.is_some() {
                self.nodes.remember(l.entry.inum, in_use);
            }
            taken
        }))?;
        failed.map_or(Ok(()), Err)
    }

    fn known_attr(&self, inum: Inum) -> Result<(Attr, InUse)> {
        let inode = self.vol.shared(inum)?;
        Ok((Attr::of(self, &inode)?, self.vol.use_inode(inum.addr)?))
    }
}

/// A removed directory that somebody has open, here or on another node: it lists nothing. Its count says so already, its
/// block still holds `.` and `..`.
fn is_gone(dir: &Inode) -> bool {
    dir.dinode.nlink.get() == 0
}
