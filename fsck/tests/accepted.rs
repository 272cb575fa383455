//! What looks odd and is legal (ondisk.md, Appendix B): no issue that matters.

mod common;

use common::plant::Plant;
use gfs2r::format::{Dirent, EaHeader, LogHeader, OnDisk, RgrpHeader, RindexEntry};

fn accepts(what: &str, change: impl FnOnce(&Plant)) {
    let plant = Plant::new(&common::image("full.4096"));
    change(&plant);
    let report = plant.check();
    assert!(report.is_clean(), "{what}:\n{report}");
}

#[test]
fn resource_groups() {
    accepts("no checksum", |p| p.edit(p.rindex()[1].addr.get(), |b| RgrpHeader::edit(b).crc.set(0)));
    accepts("rindex entries with garbage in reserved bytes, as the stock mkfs leaves it", |p| {
        p.rindex_entry(1, |e| {
            e.pad.set(77);
            e.reserved.fill(0xa5);
        });
    });
    accepts("rindex entries in any order", |p| {
        p.edit(p.addr("<master>/rindex"), |b| {
            let (a, c) = (*RindexEntry::view(&b[232..]), *RindexEntry::view(&b[232 + 192..]));
            *RindexEntry::edit(&mut b[232..]) = c;
            *RindexEntry::edit(&mut b[232 + 192..]) = a;
        });
    });
}

#[test]
fn journals() {
    accepts("a header of the first version", |p| {
        let (head, blocks) = p.head(1);
        p.edit(blocks[head], |b| {
            b[52..].fill(0);
            LogHeader::edit(b).crc.set(0);
        });
        assert!(LogHeader::is_valid(&p.read(blocks[head])));
    });
    accepts("a torn header after the newest", |p| {
        let (head, blocks) = p.head(1);
        let next = blocks[(head + 1) % blocks.len()];
        p.write(next, &p.read(blocks[head]));
        p.edit(next, |b| LogHeader::edit(b).sequence.set(999_999));
    });
}

#[test]
fn directories() {
    accepts("a removed first entry keeps its name", |p| {
        let first = |leaf: u64| *Dirent::view(&p.read(leaf)[104..]);
        let is_file = |&leaf: &u64| first(leaf).kind.get() == 8 && first(leaf).inum.get().is_some();
        let leaf = p.leaves("/big").into_iter().find(is_file).expect("a leaf that begins with a file");
        let target = first(leaf).inum.addr.get();
        p.edit(leaf, |b| Dirent::edit(&mut b[104..]).inum = Default::default());
        p.leaf(leaf, |l| l.entries.set(l.entries.get() - 1));
        p.dinode("/big", |di| di.entries.set(di.entries.get() - 1));
        p.edit(target, |b| gfs2r::format::Dinode::edit(b).nlink.set(0));
        p.set_state(target, 2);
    });
    accepts("leaves that do not know their place", |p| p.leaf(p.leaves("/big")[1], |l| l.dist.set(0)));
    accepts("a wrong read-ahead hint and a cookie", |p| {
        p.dirent("/a", "fifo", |d| {
            d.rahead.set(1);
            d.pad.fill(3);
        });
    });
}

#[test]
fn files() {
    accepts("a size beyond what the tree reaches", |p| p.dinode("/a/data", |di| di.size.set(1 << 60)));
    accepts("more height than needed", |p| {
        // One more indirect block above the only pointer of the first.
        let (addr, new) = (p.addr("/a/jdata"), p.free_block());
        let old = p.read(addr);
        p.set_state(new, 1);
        p.edit(new, |b| {
            b.fill(0);
            gfs2r::format::MetaHeader::init(b, gfs2r::format::MetaType::Indirect);
            let len = b.len() - 232;
            b[24..24 + len].copy_from_slice(&old[232..]);
        });
        p.edit(addr, |b| {
            b[232..].fill(0);
            gfs2r::format::put_u64(b, 232, new);
        });
        p.dinode("/a/jdata", |di| {
            di.height.set(2);
            di.blocks.set(di.blocks.get() + 1);
        });
    });
    accepts("a hole", |p| {
        let block = p.blocks("/a/data")[4];
        p.edit(p.addr("/a/data"), |b| gfs2r::format::put_u64(b, 232 + 32, 0));
        p.set_state(block, 0);
        p.dinode("/a/data", |di| di.blocks.set(di.blocks.get() - 1));
    });
    accepts("quota values that do not add up", |p| {
        let quota = p.blocks("<master>/quota")[0];
        p.edit(quota, |b| gfs2r::format::put_u64(b, 16, 12345));
    });
}

#[test]
fn attributes() {
    accepts("a removed first record, of whatever name and length", |p| {
        let eattr = p.read_dinode("/a/hello").eattr.get();
        p.edit(eattr, |b| {
            let ea = EaHeader::edit(&mut b[24..]);
            assert_eq!(ea.num_ptrs, 0);
            ea.kind = 0;
            ea.data_len.set(u32::MAX);
            ea.name_len = 255;
        });
    });
    accepts("an unused record that still owns its value blocks", |p| p.edit_xattr("/a/data", "big", |ea| ea.kind = 0));
}
