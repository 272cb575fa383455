//! The attributes that a new inode is born with: inherited ACLs, a security label (ondisk.md 6.2).

use super::block::{Rules, Shape};
use super::read::{check_kind, rules};
use super::set::{self, check_size, choose, new_block, put};
use crate::error::{Error, Result};
use crate::format::ea::EaType;
use crate::ids::BlockAddr;
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use crate::rgrp::Space;

/// What a new inode's first attributes cost: blocks to allocate besides the dinode (EA blocks, data blocks), blocks logged
/// besides the dinode. When it is more than one block, there may be values in blocks of their own, which must be in one rgrp:
/// reserve with `Rgrps::reserve_in_one`.
pub fn initial_cost(vol: &Volume, attrs: &[(EaType, &[u8], &[u8])]) -> Result<(u32, u32)> {
    let mut shapes = Vec::with_capacity(attrs.len());
    for (kind, name, value) in attrs {
        check_kind(vol, *kind)?;
        shapes.push(check_size(vol, name, value)?);
    }
    let blocks = cost(rules(vol), &shapes);
    if blocks as usize > vol.bs.indirect_pointers() { Err(Error::NoSpace) } else { Ok((blocks, blocks)) }
}

/// Blocks that attributes of these shapes take in a new inode.
fn cost(rules: Rules, shapes: &[Shape]) -> u32 {
    let mut room: Vec<usize> = Vec::new();
    for shape in shapes {
        match room.iter_mut().find(|room| **room >= shape.size) {
            Some(room) => *room -= shape.size,
            None => room.push(rules.payload - shape.size),
        }
    }
    let list = usize::from(room.len() > 1);
    let data: usize = shapes.iter().map(|s| s.ptrs).sum();
    (room.len() + list + data) as u32
}

/// Gives a new inode its first attributes inside the transaction that creates it, and writes its dinode back. `ea_block`: the
/// block allocated together with the dinode, if that succeeded; it is initialised also when there are no attributes.
pub fn initial(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    inode: &mut Inode,
    ea_block: Option<BlockAddr>,
    attrs: &[(EaType, &[u8], &[u8])],
) -> Result<()> {
    if let Some(addr) = ea_block {
        if inode.dinode.eattr.get() != addr.get() {
            inode.dinode.eattr.set(addr.get());
            inode.dinode.blocks.set(inode.dinode.blocks.get() + 1);
        }
        new_block(tx, inode, addr);
    }
    for (kind, name, value) in attrs {
        check_kind(vol, *kind)?;
        let shape = check_size(vol, name, value)?;
        let target: set::Target = choose(vol, inode, None, shape.size)?;
        put(vol, tx, Some(&mut *space), inode, target, shape, *kind, name, value)?;
    }
    inode.write_back(vol, tx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlockSize;

    #[test]
    fn costs() {
        let rules = Rules::new(BlockSize::new(512).expect("legal"), 1802);
        let shape = |n, v| Shape::of(rules, n, v).expect("fits");
        assert_eq!(cost(rules, &[]), 0);
        assert_eq!(cost(rules, &[shape(16, 44), shape(17, 44)]), 1);
        // Two blocks of records and their list.
        assert_eq!(cost(rules, &[shape(16, 300), shape(17, 300)]), 3);
        // One block of records, three of data.
        assert_eq!(cost(rules, &[shape(16, 1000)]), 4);
    }
}
