//! What the lock of an inode demands: reading it, making it clean before it is given up, forgetting it (ondisk.md 10.3).

use super::{Inode, Volume, check_dinode};
use crate::error::{CorruptKind, Error, Result};
use crate::format::MetaType;
use crate::glock::{LockState, Protected};
use crate::ids::{BlockAddr, LockName};

impl Protected for Inode {
    type Context = Volume;
    const DRAINS: bool = true;
    const HAS_LVB: bool = true;

    /// Reads and checks the dinode. That the bitmap agrees is not checked: for an address from a directory entry it does, and
    /// a look at it would cost another lock.
    fn instantiate(name: LockName, cx: &Volume) -> Result<Self> {
        let addr = BlockAddr::new(name.number).ok_or(Error::Invalid)?;
        if !cx.rgrps.owns(addr) {
            return Err(Error::corrupt(addr, CorruptKind::Pointer(addr.get())));
        }
        let buffer = cx.cache.meta(addr, name, MetaType::Dinode)?;
        let dinode = check_dinode(&buffer.bytes(), addr, cx.bs)?;
        let inum =
            dinode.num.get().ok_or_else(|| Error::corrupt(addr, CorruptKind::Dinode("its formal number is 0")))?;
        // What happened to it before it was forgotten here lies in the open batch at the latest.
        Ok(Self::new(inum, dinode, cx.journal.running()))
    }

    fn must_drain(name: LockName, to: LockState, cx: &Volume) -> bool {
        let kernel = cx.kernel_cache.get().zip(BlockAddr::new(name.number));
        kernel.is_some_and(|(kernel, addr)| kernel.holds(addr, to))
    }

    fn drain(name: LockName, to: LockState, cx: &Volume) -> Result<()> {
        match cx.kernel_cache.get().zip(BlockAddr::new(name.number)) {
            Some((kernel, addr)) => kernel.drain(addr, to),
            None => Ok(()),
        }
    }

    fn sync(name: LockName, object: &mut Self, cx: &Volume) -> Result<()> {
        cx.rgrps.release(&mut object.resv);
        Self::sync_without(name, cx)
    }

    /// The object is not needed, and may not be there to be read: the inode may be gone.
    fn sync_without(name: LockName, cx: &Volume) -> Result<()> {
        if cx.options.read_only {
            return Ok(());
        }
        cx.journal.sync_owner(name)
    }

    fn cannot_give_up(_: LockName, cause: &Error, cx: &Volume) {
        cx.journal.withdraw(cause);
    }

    fn invalidate(name: LockName, cx: &Volume) {
        cx.cache.invalidate(name);
        if let Some(lost) = cx.lost.get() {
            lost(name);
        }
    }

    fn describe(&self) -> Option<String> {
        let d = &self.dinode;
        // The type as in a directory entry: the high bits of the mode.
        let (number, kind) = (self.inum.formal.0, d.mode.get() >> 12 & 0xf);
        let (addr, flags, size) = (self.inum.addr, d.flags.get(), d.size.get());
        Some(format!("I: n:{number}/{addr} t:{kind} f:0x00 d:0x{flags:08x} s:{size}"))
    }
}
