//! What a dinode must fulfil before it is believed (ondisk.md 4.1).

use crate::error::{CorruptKind, Error, Result};
use crate::file::metapath::Shape;
use crate::format::dinode::mode::S_IFMT;
use crate::format::directory::DEPTH_MAX;
use crate::format::{DiFlags, Dinode, DirentType, MetaHeader, MetaType, OnDisk};
use crate::ids::{BlockAddr, BlockSize};

/// Checks a dinode block as the kernel does when it reads one (ondisk.md 4.1), and that its type is one there is.
pub fn check_dinode(block: &[u8], at: BlockAddr, bs: BlockSize) -> Result<Dinode> {
    MetaHeader::check(block, at, MetaType::Dinode)?;
    let dinode = *Dinode::view(block);
    match rule_broken(&dinode, at, bs) {
        Some(what) => Err(Error::corrupt(at, CorruptKind::Dinode(what))),
        None => Ok(dinode),
    }
}

fn rule_broken(d: &Dinode, at: BlockAddr, bs: BlockSize) -> Option<&'static str> {
    let (height, depth, flags) = (d.height.get(), d.depth.get(), d.flags());
    let shape = Shape::new(bs);
    // A hash table fills at least the dinode's own data area: bs/2 bytes of 8-byte slots.
    let least_depth = (bs.bytes() / 16).ilog2();
    if d.num.addr.get() != at.get() {
        return Some("it says it lies elsewhere");
    }
    if d.num.formal.get() == 0 {
        return Some("its formal number is 0");
    }
    if DirentType::from_mode(d.mode.get() & S_IFMT).is_none() {
        return Some("a file type that does not exist");
    }
    if height > shape.max_height() {
        return Some("its tree is higher than the format allows");
    }
    if depth > DEPTH_MAX {
        return Some("its hash table is deeper than the format allows");
    }
    if flags.has(DiFlags::EXHASH) && u32::from(depth) < least_depth {
        return Some("its hash table is too small");
    }
    if height == 0 && d.size.get() > bs.stuffed_max() as u64 {
        return Some("stuffed, but larger than its block");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::dinode::mode::{S_IFDIR, S_IFREG};

    const AT: u64 = 77;

    fn verdict(edit: impl FnOnce(&mut Dinode)) -> Option<CorruptKind> {
        let bs = BlockSize::new(4096).expect("legal");
        let mut block = vec![0u8; 4096];
        MetaHeader::init(&mut block, MetaType::Dinode);
        let d = Dinode::edit(&mut block);
        d.num.addr.set(AT);
        d.num.formal.set(1);
        d.mode.set(S_IFREG | 0o644);
        edit(d);
        match check_dinode(&block, BlockAddr::new(AT).expect("not 0"), bs) {
            Ok(_) => None,
            Err(Error::Corrupt(c)) => Some(c.what),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn each_rule_is_enforced() {
        assert_eq!(verdict(|_| {}), None);
        assert_eq!(verdict(|d| d.size.set(3864)), None);
        assert!(verdict(|d| d.size.set(3865)).is_some());
        assert!(verdict(|d| d.num.addr.set(AT + 1)).is_some());
        assert!(verdict(|d| d.num.formal.set(0)).is_some());
        assert!(verdict(|d| d.mode.set(0o030644)).is_some());
        assert_eq!(verdict(|d| d.height.set(6)), None);
        assert!(verdict(|d| d.height.set(7)).is_some());
        let hashed = |d: &mut Dinode, depth| {
            d.mode.set(S_IFDIR | 0o755);
            d.flags.set(DiFlags::EXHASH.0 | DiFlags::JDATA.0);
            d.depth.set(depth);
        };
        assert_eq!(verdict(|d| hashed(d, 8)), None);
        assert!(verdict(|d| hashed(d, 7)).is_some());
        assert!(verdict(|d| hashed(d, 18)).is_some());
        assert!(matches!(verdict(|d| d.header.kind.set(5)), Some(CorruptKind::MetaType { found: 5, .. })));
    }
}
