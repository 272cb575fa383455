//! Faults in directories and in whom they name.

use super::{Case, F4, F5, to_type};
use crate::common::plant::Plant;
use gfs2r::format::{Dirent, Leaf, OnDisk, get_u64, put_u64};

pub(crate) const DIRECTORIES: &[Case] = &[
    ("unlinked-not-empty", F4, |p| {
        p.orphan("/a/b", "c");
        p.dinode("/a/b", |di| di.nlink.set(di.nlink.get() - 1));
    }),
    ("dirent-unlinked", F4, |p| p.set_state(p.addr("/a/b/moved"), 2)),
    ("directory-form", F5, |p| p.dinode("/big", |di| di.flags.set(1))),
    ("directory-size", F4, |p| p.dinode("/a", |di| di.size.set(di.size.get() - 8))),
    ("directory-size", F4, |p| p.dinode("/big", |di| di.size.set(di.size.get() * 2))),
    ("directory-hole", F5, |p| {
        let path = "/big";
        let first = get_u64(&p.read(p.addr(path)), 232);
        p.punch(path, p.addr(path), first);
    }),
    ("block-type", F5, |p| {
        let table = get_u64(&p.read(p.addr("/big")), 232);
        p.edit(table, |b| to_type(b, 5));
    }),
    ("directory-slot", F5, |p| {
        let leaf = leaf_where(p, |d| d == depth(p));
        for table in p.blocks("/big") {
            p.edit(table, |b| {
                for slot in (24..b.len()).step_by(8).filter(|&i| get_u64(b, i) == leaf).collect::<Vec<_>>() {
                    put_u64(b, slot, 0);
                }
            });
        }
    }),
    ("leaf-run", F4, |p| {
        let leaf = leaf_where(p, |d| d < depth(p));
        p.leaf(leaf, |l| l.depth.set(l.depth.get() + 1));
    }),
    ("leaf-depth", F4, |p| p.leaf(p.leaves("/big")[1], |l| l.depth.set(depth(p) + 1))),
    ("leaf-chain", F4, |p| {
        let (leaf, next) = (p.leaves("/big")[1], p.free_block());
        p.leaf(leaf, |l| l.next.set(next));
        p.set_state(next, 1);
        p.write(next, &p.read(leaf));
        p.edit(next, |b| {
            b[104..].fill(0);
            Dirent::edit(&mut b[104..]).rec_len.set(4096 - 104);
            let l = Leaf::edit(b);
            l.entries.set(0);
            l.next.set(0);
            l.dist.set(2);
        });
        p.dinode("/big", |di| di.blocks.set(di.blocks.get() + 1));
    }),
    ("leaf-distance", F4, |p| p.leaf(p.leaves("/big")[1], |l| l.dist.set(2))),
    ("leaf-distance", F5, |p| {
        let with_next = |&leaf: &u64| Leaf::view(&p.read(leaf)).next.get() != 0;
        let first = p.leaves("/same").into_iter().find(with_next).expect("a chain");
        p.leaf(Leaf::view(&p.read(first)).next.get(), |l| l.dist.set(1));
    }),
    ("leaf-inode", F4, |p| p.leaf(p.leaves("/big")[1], |l| l.inode.set(7))),
    ("leaf-format", F4, |p| p.leaf(p.leaves("/big")[1], |l| l.dirent_format.set(0))),
    ("leaf-entries", F4, |p| p.leaf(p.leaves("/big")[1], |l| l.entries.set(l.entries.get() + 1))),
    ("directory-entries", F4, |p| p.dinode("/big", |di| di.entries.set(di.entries.get() + 1))),
    ("directory-entries", F4, |p| p.dinode("/a", |di| di.entries.set(di.entries.get() + 1))),
    ("dirent-record", F4, |p| {
        let (leaf, at) = second_entry(p);
        p.edit(leaf, |b| Dirent::edit(&mut b[at..]).rec_len.set(44));
    }),
    ("dirent-record", F4, |p| {
        let (leaf, at) = second_entry(p);
        p.edit(leaf, |b| Dirent::edit(&mut b[at..]).rec_len.set(0));
    }),
    ("dirent-record", F4, |p| p.dirent("/a", "fifo", |d| d.name_len.set(60))),
    ("dirent-sentinel", F4, |p| {
        let (leaf, at) = second_entry(p);
        p.edit(leaf, |b| Dirent::edit(&mut b[at..]).inum.addr.set(0));
    }),
    ("dirent-name", F4, |p| p.rename("/a", "fifo", "fi/o")),
    ("dirent-hash", F4, |p| p.dirent("/a", "fifo", |d| d.hash.set(1))),
    ("dirent-misplaced", F4, |p| {
        let name = name_in(p, p.leaves("/big")[1]);
        let top = |name: &str| gfs2r::format::checksum::dir_hash(name.as_bytes()).0 >> 31;
        let other = ('a'..='z').map(|c| format!("{c}{}", &name[1..])).find(|n| top(n) != top(&name));
        p.rename("/big", &name, &other.expect("half of all hashes are in the other half"));
    }),
    ("dirent-duplicate", F4, |p| p.rename("/a", "fifo", "data")),
    ("dirent-duplicate", F4, |p| p.insert("/a", "..", p.inum("/"), 4)),
    ("dirent-dangling", F4, |p| p.insert("/a", "gone", (1, p.free_block()), 8)),
    ("dirent-dangling", F4, |p| p.insert("/a", "gone", (1, 3), 8)),
    ("dirent-dangling", F4, |p| p.insert("/a", "gone", (1, p.blocks("/a/data")[0]), 8)),
    ("dirent-unlinked", F4, |p| {
        let inum = p.inum("/a/fifo");
        p.orphan("/a", "fifo");
        p.insert("/a", "again", inum, 1);
    }),
    ("dirent-stale", F4, |p| p.dirent("/a", "fifo", |d| d.inum.formal.set(99_999))),
    ("dirent-stale", F4, |p| p.insert("/a", "again", (99_999, p.addr("/a/fifo")), 1)),
    ("dirent-stale", F4, |p| p.dirent("/a/b", "..", |d| d.inum.formal.set(99_999))),
    ("dirent-type", F4, |p| p.dirent("/a", "fifo", |d| d.kind.set(8))),
    ("dirent-type", F4, |p| p.dirent("/a", "..", |d| d.kind.set(8))),
    ("dot-missing", F4, |p| p.remove("/a", "..")),
    ("dot-wrong", F4, |p| p.dirent("/a", ".", |d| d.inum.addr.set(p.addr("/a/b")))),
    ("dotdot-wrong", F4, |p| p.dirent("/a/b", "..", |d| d.inum.addr.set(p.addr("/")))),
    ("directory-linked-twice", F4, |p| {
        p.insert("/a", "again", p.inum("/a/b"), 4);
        p.dinode("/a", |di| di.nlink.set(di.nlink.get() + 1));
    }),
    ("directory-unreachable", F4, |p| {
        p.remove("/a/b", "moved");
        p.dinode("/a/b", |di| di.nlink.set(di.nlink.get() - 1));
    }),
    // A circle: only its own grandchild names it.
    ("directory-unreachable", F4, |p| {
        let c = p.inum("/a/b/c");
        p.insert("/a/b/c/d", "c", c, 4);
        p.dinode("/a/b/c/d", |di| di.nlink.set(di.nlink.get() + 1));
        p.dirent("/a/b/c", "..", |d| d.inum.addr.set(p.addr("/a/b/c/d")));
        p.dirent("/a/b/c", "..", |d| d.inum.formal.set(p.inum("/a/b/c/d").0));
        p.remove("/a/b", "c");
        p.dinode("/a/b", |di| di.nlink.set(di.nlink.get() - 1));
    }),
    ("inode-unreferenced", F4, |p| p.remove("/a", "fifo")),
    ("inode-links", F4, |p| p.dinode("/a/fifo", |di| di.nlink.set(2))),
    ("inode-links", F4, |p| p.dinode("/a", |di| di.nlink.set(2))),
];

/// A leaf of /big and its number of slots.
fn leaf_where(p: &Plant, wanted: impl Fn(u16) -> bool) -> u64 {
    let deep = |&leaf: &u64| wanted(Leaf::view(&p.read(leaf)).depth.get());
    p.leaves("/big").into_iter().find(deep).expect("a leaf of this depth")
}

fn depth(p: &Plant) -> u16 {
    p.read_dinode("/big").depth.get()
}

/// Block and offset of the second entry of the first leaf of /big.
fn second_entry(p: &Plant) -> (u64, usize) {
    let leaf = p.leaves("/big")[0];
    (leaf, 104 + usize::from(Dirent::view(&p.read(leaf)[104..]).rec_len.get()))
}

/// Some name in /big with its block.
fn name_in(p: &Plant, leaf: u64) -> String {
    let bytes = p.read(leaf);
    let mut at = 104;
    while Dirent::view(&bytes[at..]).inum.addr.get() == 0 {
        at += usize::from(Dirent::view(&bytes[at..]).rec_len.get());
    }
    let len = usize::from(Dirent::view(&bytes[at..]).name_len.get());
    String::from_utf8(bytes[at + 40..at + 40 + len].to_vec()).expect("ASCII")
}
