//! Faults in superblock, system files, resource groups and journals.

use super::{Case, D4, F4, F5, first_pointer, to_type};
use gfs2r::format::system::StatfsChange;
use gfs2r::format::{LogDescriptor, LogHeader, MetaType, OnDisk, QuotaChange, RgrpHeader};

pub(crate) const SUPERBLOCK_AND_SYSTEM: &[Case] = &[
    ("superblock-multihost", F4, |p| p.superblock(|sb| sb.multihost_format.set(1901))),
    ("superblock-shift", F4, |p| p.superblock(|sb| sb.bsize_shift.set(11))),
    ("superblock-lockproto", F4, |p| p.superblock(|sb| sb.lockproto[..11].copy_from_slice(b"fsck_dlm\0\0\0"))),
    ("superblock-directory", F4, |p| {
        let file = p.inum("/a/hello");
        p.superblock(|sb| sb.root_dir.addr.set(file.1));
        p.superblock(|sb| sb.root_dir.formal.set(file.0));
    }),
    ("superblock-formal", F4, |p| p.superblock(|sb| sb.root_dir.formal.set(99))),
    ("block-format", F4, |p| p.superblock(|sb| sb.header.format.set(101))),
    ("system-file-missing", F4, |p| {
        let addr = p.addr("<master>/inum");
        p.remove("<master>", "inum");
        p.set_state(addr, 0);
    }),
    ("system-file-type", F4, |p| {
        p.edit(p.addr("<master>/inum"), |b| b[232..240].copy_from_slice(b"somename"));
        p.dinode("<master>/inum", |di| di.mode.set(0o120_600));
        p.dirent("<master>", "inum", |d| d.kind.set(10));
    }),
    ("system-file-size", F4, |p| p.dinode("<master>/inum", |di| di.size.set(16))),
    ("system-file-size", F4, |p| p.dinode("<master>/per_node/statfs_change1", |di| di.size.set(25))),
    ("system-file-size", F4, |p| p.dinode("<master>/per_node/quota_change1", |di| di.size.set((1 << 20) + 1))),
    ("system-file-unknown", F4, |p| {
        p.insert("<master>", "extra", p.inum("<master>/inum"), 8);
        p.dinode("<master>/inum", |di| di.nlink.set(2));
    }),
    ("system-flag", F4, |p| p.dinode("/a/hello", |di| di.flags.set(0x200))),
    ("system-flag", F4, |p| p.dinode("<master>/inum", |di| di.flags.set(1))),
    ("statfs-totals", F4, |p| {
        p.edit(p.addr("<master>/statfs"), |b| StatfsChange::edit(&mut b[232..]).free.set(7));
    }),
    ("statfs-totals", F4, |p| {
        p.edit(p.addr("<master>/per_node/statfs_change1"), |b| StatfsChange::edit(&mut b[232..]).free.set(7));
    }),
    ("quota-size", F4, |p| p.dinode("<master>/quota", |di| di.size.set(di.size.get() - 1))),
    ("quota-change-hole", F4, |p| {
        let path = "<master>/per_node/quota_change1";
        p.punch(path, p.addr(path), p.blocks(path)[5]);
    }),
    ("quota-change-slot", F4, |p| {
        p.edit(p.blocks("<master>/per_node/quota_change1")[3], |b| {
            QuotaChange::edit(&mut b[24..]).change.set(1);
            QuotaChange::edit(&mut b[24..]).flags.set(7);
        });
    }),
    ("quota-change-slot", F4, |p| {
        for block in [3, 9] {
            p.edit(p.blocks("<master>/per_node/quota_change1")[block], |b| {
                QuotaChange::edit(&mut b[40..]).change.set(-1)
            });
        }
    }),
    ("block-type", F4, |p| p.edit(p.blocks("<master>/per_node/quota_change1")[3], |b| b[..24].fill(0))),
];

pub(crate) const RGRPS: &[Case] = &[
    ("rindex-size", F4, |p| p.dinode("<master>/rindex", |di| di.size.set(di.size.get() + 1))),
    ("rindex-entry", F4, |p| p.rindex_entry(1, |e| e.bitbytes.set(e.bitbytes.get() + 1))),
    ("rindex-entry", F4, |p| p.rindex_entry(0, |e| e.data0.set(e.data0.get() + 1))),
    ("rindex-overlap", F4, |p| {
        let first = p.rindex()[0].addr.get() + 1;
        p.rindex_entry(1, |e| e.addr.set(first));
        p.rindex_entry(1, |e| e.data0.set(first + u64::from(e.length.get())));
    }),
    ("rindex-beyond-device", F4, |p| {
        p.rindex_entry(2, |e| e.addr.set(e.addr.get() + 1000));
        p.rindex_entry(2, |e| e.data0.set(e.data0.get() + 1000));
    }),
    ("rgrp-block", F4, |p| p.edit(p.rindex()[1].addr.get(), |b| to_type(b, MetaType::Bitmap as u32))),
    ("rgrp-block", F5, |p| p.edit(p.rindex()[1].addr.get() + 1, |b| to_type(b, MetaType::Rgrp as u32))),
    ("rgrp-free", F4, |p| p.rgrp(1, |h| h.free.set(h.free.get() + 1))),
    ("rgrp-dinodes", F4, |p| p.rgrp(1, |h| h.dinodes.set(h.dinodes.get() + 1))),
    ("rgrp-crc", F4, |p| p.edit(p.rindex()[1].addr.get(), |b| RgrpHeader::edit(b).crc.set(1))),
    ("rgrp-skip", F4, |p| p.rgrp(1, |h| h.skip.set(h.skip.get() + 1))),
    ("rgrp-skip", F4, |p| p.rgrp(2, |h| h.skip.set(1))),
    ("rgrp-skip-unset", F4, |p| p.rgrp(1, |h| h.skip.set(0))),
    ("rgrp-copy", F4, |p| p.rgrp(1, |h| h.data0.set(3))),
    ("rgrp-flags", F4, |p| p.rgrp(1, |h| h.flags.set(0x8000_0000))),
    ("rgrp-generation", F4, |p| p.rgrp(2, |h| h.igeneration.set(1))),
];

pub(crate) const JOURNALS: &[Case] = &[
    ("journal-size", F4, |p| p.dinode("<master>/jindex/journal1", |di| di.size.set((8 << 20) - 1))),
    ("journal-size", F4, |p| p.dinode("<master>/jindex/journal1", |di| di.size.set(4 << 20))),
    ("journal-hole", F4, |p| {
        let path = "<master>/jindex/journal1";
        let (head, blocks) = p.head(1);
        p.punch(path, first_pointer(p, path), blocks[usize::from(head == 0)]);
    }),
    ("journal-sequence", F4, |p| {
        let (head, blocks) = p.head(1);
        let newest = p.read(blocks[head]);
        for (n, sequence) in [(1, 5), (2, 4)] {
            let at = (head + n) % blocks.len();
            p.write(blocks[at], &newest);
            p.log_header(blocks[at], |lh| {
                lh.sequence.set(sequence);
                lh.blkno.set(at as u32);
                lh.addr.set(blocks[at]);
            });
        }
    }),
    ("journal-no-header", F4, |p| {
        let (head, blocks) = p.head(1);
        p.write(blocks[head], &vec![0; p.bs]);
    }),
    ("journal-header-damaged", F4, |p| {
        let (head, blocks) = p.head(1);
        p.write(blocks[head + 1], &p.read(blocks[head]));
        p.edit(blocks[head + 1], |b| *b.last_mut().expect("not empty") = 1);
    }),
    ("journal-header-place", F4, |p| {
        // One that was written for another journal, in a block that no header needs.
        let (head, blocks) = p.head(1);
        p.edit(blocks[head + 3], |b| b.copy_from_slice(&p.read(blocks[head])));
        p.log_header(blocks[head + 3], |lh| {
            lh.blkno.set(head as u32 + 3);
            lh.addr.set(blocks[head + 3]);
            lh.sequence.set(lh.sequence.get() + 100);
            lh.jinode.set(1);
        });
    }),
    ("journal-replayed", F4, |p| p.log(1, &[(p.addr("/a/hello"), p.read(p.addr("/a/hello")))])),
    ("journal-tail", D4, |p| {
        let (head, blocks) = p.head(0);
        p.log_header(blocks[head], |lh| lh.tail.set(blocks.len() as u32));
    }),
    ("journal-walk", D4, |p| {
        let (head, blocks) = p.head(0);
        let tail = LogHeader::view(&p.read(blocks[head])).tail.get() as usize;
        p.edit(blocks[tail], |b| b[..4].fill(0));
    }),
    ("journal-walk", F4, |p| {
        let (head, blocks) = p.head(1);
        p.log(1, &[(p.addr("/a/hello"), p.read(p.addr("/a/hello")))]);
        p.edit(blocks[(head + 1) % blocks.len()], |b| LogDescriptor::edit(b).length.set(0));
    }),
    ("journal-payload", F4, |p| p.log(1, &[(p.addr("/a/hello"), vec![0; p.bs])])),
    ("journal-target", F4, |p| p.log(1, &[(1 << 40, p.read(p.addr("/a/hello")))])),
    ("journal-target", F4, |p| p.log(1, &[(1, p.read(p.addr("/a/hello")))])),
    ("journal-conflict", F4, |p| {
        let image = (p.addr("/a/hello"), p.read(p.addr("/a/hello")));
        p.log(0, std::slice::from_ref(&image));
        p.log(1, &[image]);
    }),
    ("journal-overwrites-data", F4, |p| p.log(1, &[(p.blocks("/a/data")[2], p.read(p.addr("/a/hello")))])),
];
