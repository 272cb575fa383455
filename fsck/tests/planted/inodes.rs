//! Faults in dinodes, their trees and their attributes.

use super::{Case, F4, F5, first_pointer, to_type};
use gfs2r::format::{EaHeader, OnDisk, get_u64, put_u64};

pub(crate) const DINODES: &[Case] = &[
    ("block-type", F4, |p| p.edit(first_pointer(p, "/a/sparse"), |b| to_type(b, 6))),
    ("block-type", F4, |p| p.edit(first_pointer(p, "/a/sparse"), |b| b[..4].fill(0))),
    ("block-format", F4, |p| p.dinode("/a/hello", |di| di.header.format.set(0))),
    ("pointer-range", F4, |p| p.edit(p.addr("/a/data"), |b| put_u64(b, 232, 3))),
    ("pointer-range", F4, |p| p.edit(p.addr("/a/data"), |b| put_u64(b, 240, u64::MAX))),
    ("pointer-range", F4, |p| {
        let bitmap = p.rindex()[1].addr.get();
        p.edit(p.addr("/a/data"), |b| put_u64(b, 232, bitmap));
    }),
    ("block-double-owned", F4, |p| p.edit(p.addr("/a/data"), |b| put_u64(b, 240, p.blocks("/a/cut")[0]))),
    ("block-double-owned", F4, |p| p.edit(p.addr("/a/data"), |b| put_u64(b, 240, get_u64(b, 248)))),
    ("block-double-owned", F4, |p| p.edit(p.addr("/a/data"), |b| put_u64(b, 240, p.addr("/a/fifo")))),
    ("block-double-owned", F4, |p| p.edit(p.addr("/a/sparse"), |b| put_u64(b, 232, p.leaves("/big")[0]))),
    ("block-leaked", F4, |p| p.set_state(p.free_block(), 1)),
    ("block-not-allocated", F4, |p| p.set_state(p.blocks("/a/data")[7], 0)),
    ("block-not-allocated", F4, |p| p.set_state(p.addr("/a/data"), 0)),
    ("block-not-allocated", F4, |p| p.set_state(p.addr("/a"), 0)),
    ("block-state", F4, |p| p.set_state(p.blocks("/a/data")[7], 3)),
    ("block-state", F4, |p| p.set_state(p.blocks("/a/data")[7], 2)),
    ("block-state", F4, |p| p.set_state(p.addr("/a/data"), 1)),
    ("dinode-header", F4, |p| p.edit(p.addr("/a/fifo"), |b| to_type(b, 5))),
    ("dinode-header", F4, |p| p.set_state(p.free_block(), 3)),
    ("dinode-address", F4, |p| p.dinode("/a/fifo", |di| di.num.addr.set(1))),
    ("dinode-formal", F4, |p| p.dinode("/a/fifo", |di| di.num.formal.set(0))),
    ("dinode-mode", F4, |p| p.dinode("/a/fifo", |di| di.mode.set(0o644))),
    ("dinode-height", F4, |p| p.dinode("/a/data", |di| di.height.set(7))),
    ("dinode-depth", F4, |p| p.dinode("/big", |di| di.depth.set(7))),
    ("dinode-depth", F4, |p| p.dinode("/big", |di| di.depth.set(18))),
    ("dinode-stuffed-size", F4, |p| p.dinode("/a/hello", |di| di.size.set(3865))),
    ("dinode-size", F4, |p| p.dinode("/a/sparse", |di| di.size.set(1 << 63))),
    ("dinode-flags", F4, |p| p.dinode("/a/hello", |di| di.flags.set(0x400))),
    ("dinode-flags", F4, |p| p.dinode("/a/hello", |di| di.flags.set(0x1000))),
    ("dinode-flags", F4, |p| p.dinode("/a", |di| di.flags.set(0))),
    ("dinode-goal", F4, |p| p.dinode("/a/hello", |di| di.goal_meta.set(5))),
    ("dinode-goal", F4, |p| p.dinode("/a/hello", |di| di.goal_meta.set(0))),
    ("dinode-time", F4, |p| p.dinode("/a/hello", |di| di.mtime_nsec.set(1_000_000_000))),
    ("dinode-payload-format", F4, |p| p.dinode("/a/hello", |di| di.payload_format.set(1200))),
    ("dinode-blocks", F4, |p| p.dinode("/a/data", |di| di.blocks.set(di.blocks.get() + 1))),
    ("special-contents", F4, |p| p.dinode("/a/fifo", |di| di.size.set(5))),
    ("symlink-target", F4, |p| p.dinode("/a/b/link", |di| di.size.set(0))),
    ("symlink-target", F4, |p| p.dinode("/a/b/link", |di| di.size.set(9))),
    ("symlink-target", F4, |p| p.dinode("/a/b/link", |di| di.size.set(4000))),
    ("blocks-beyond-eof", F4, |p| p.dinode("/a/data", |di| di.size.set(5000))),
    ("truncate-in-progress", F4, |p| {
        p.dinode("/a/data", |di| di.size.set(5000));
        p.dinode("/a/data", |di| di.flags.set(0x2000_0000));
    }),
    ("inode-unlinked", F4, |p| {
        p.orphan("/a", "fifo");
    }),
    ("unlinked-links", F4, |p| {
        let addr = p.orphan("/a", "fifo");
        p.edit(addr, |b| gfs2r::format::Dinode::edit(b).nlink.set(1));
    }),
];

pub(crate) const XATTRS: &[Case] = &[
    ("xattr-record", F4, |p| p.edit_xattr("/a/data", "small", |ea| ea.rec_len.set(0))),
    ("xattr-record", F4, |p| p.edit_xattr("/a/data", "small", |ea| ea.flags = 1)),
    ("xattr-record", F4, |p| p.edit_xattr("/a/data", "small", |ea| ea.data_len.set(60_000))),
    ("xattr-record", F4, |p| p.edit_xattr("/a/data", "small", |ea| ea.name_len = 0)),
    ("xattr-type", F4, |p| p.edit_xattr("/a/data", "small", |ea| ea.kind = 5)),
    ("xattr-type", F4, |p| p.superblock(|sb| sb.fs_format.set(1801))),
    ("xattr-pointers", F4, |p| p.edit_xattr("/a/data", "big", |ea| ea.num_ptrs = 2)),
    ("xattr-hole", F4, |p| {
        let (block, at) = p.xattr("/a/data", "big");
        let value = get_u64(&p.read(block), at + 24);
        p.edit(block, |b| put_u64(b, at + 24, 0));
        p.set_state(value, 0);
        p.dinode("/a/data", |di| di.blocks.set(di.blocks.get() - 1));
    }),
    ("xattr-rgrp", F4, |p| {
        let (block, at) = p.xattr("/a/data", "big");
        let old = get_u64(&p.read(block), at + 24);
        // The groups of the journals are full: the value block changes places with a block of a journal.
        let path = "<master>/jindex/journal1";
        let (head, blocks) = p.head(1);
        let new = blocks[usize::from(head == 0)];
        p.write(new, &p.read(old));
        p.write(old, &vec![0; p.bs]);
        p.edit(block, |b| put_u64(b, at + 24, new));
        p.edit(first_pointer(p, path), |b| {
            let place = (24..b.len()).step_by(8).find(|&i| get_u64(b, i) == new).expect("the pointer");
            put_u64(b, place, old);
        });
    }),
    ("block-type", F4, |p| {
        let (block, at) = p.xattr("/a/data", "big");
        let value = get_u64(&p.read(block), at + 24);
        p.edit(value, |b| to_type(b, 10));
    }),
    ("xattr-duplicate", F4, |p| {
        let (block, at) = p.xattr("/a/cut", "attr-number-1");
        p.edit(block, |b| b[at + 16 + 12] = b'2');
    }),
    ("xattr-indirect", F5, |p| {
        let index = p.read_dinode("/a/cut").eattr.get();
        p.edit(index, |b| {
            let end = (24..b.len()).step_by(8).find(|&i| get_u64(b, i) == 0).expect("a free slot");
            put_u64(b, end + 8, 5);
        });
    }),
    ("acl-syntax", F4, |p| {
        let (block, at) = p.xattr("/a/hello", "posix_acl_access");
        let value = at + 16 + usize::from(EaHeader::view(&p.read(block)[at..]).name_len);
        p.edit(block, |b| b[value] = 3);
    }),
];
