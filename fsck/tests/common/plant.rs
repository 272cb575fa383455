//! Changes single things in an image.

use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::rgrp::bitmap_location;
use gfs2r::format::{
    Dinode, Dirent, EaHeader, Leaf, LogDescriptor, LogHeader, MetaHeader, MetaType, OnDisk, RgrpHeader, RindexEntry,
    StatfsChange, Superblock, get_u64, put_u64,
};
use gfs2r_fsck::{Journals, Options, Report, Volume, check};

/// A device and its block size.
pub(crate) struct Plant {
    pub(crate) device: MemoryDevice,
    pub(crate) bs: usize,
}

impl Plant {
    pub(crate) fn new(device: &MemoryDevice) -> Self {
        let device = device.snapshot();
        let bs = volume(&device).superblock().bsize.get() as usize;
        Self { device, bs }
    }
    pub(crate) fn check(&self) -> Report {
        check(&self.device, &Options::default()).expect("the check runs")
    }
    pub(crate) fn read(&self, block: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.bs];
        self.device.read(block * self.bs as u64, &mut bytes).expect("inside the device");
        bytes
    }
    pub(crate) fn write(&self, block: u64, bytes: &[u8]) {
        self.device.write(block * self.bs as u64, bytes).expect("inside the device");
    }
    pub(crate) fn edit(&self, block: u64, f: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(block);
        f(&mut bytes);
        self.write(block, &bytes);
    }
    /// Address of the dinode at this path (`<master>/...` for system files).
    pub(crate) fn addr(&self, path: &str) -> u64 {
        volume(&self.device).lookup(path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }
    pub(crate) fn dinode(&self, path: &str, f: impl FnOnce(&mut Dinode)) {
        self.edit(self.addr(path), |block| f(Dinode::edit(block)));
    }
    pub(crate) fn read_dinode(&self, path: &str) -> Dinode {
        *Dinode::view(&self.read(self.addr(path)))
    }
    pub(crate) fn superblock(&self, f: impl FnOnce(&mut Superblock)) {
        self.edit(65536 / self.bs as u64, |block| f(Superblock::edit(block)));
    }
    /// Device addresses of the blocks of a file.
    pub(crate) fn blocks(&self, path: &str) -> Vec<u64> {
        let blocks = volume(&self.device).data_blocks(self.addr(path)).expect("mapped");
        blocks.into_iter().map(|(_, addr)| addr).collect()
    }
    /// The entries of rindex.
    pub(crate) fn rindex(&self) -> Vec<RindexEntry> {
        let bytes = volume(&self.device).read_path("<master>/rindex").expect("rindex");
        bytes.chunks_exact(96).map(|entry| *RindexEntry::view(entry)).collect()
    }
    /// Changes entry `n` of rindex (which must be small enough to lie in its dinode).
    pub(crate) fn rindex_entry(&self, n: usize, f: impl FnOnce(&mut RindexEntry)) {
        self.edit(self.addr("<master>/rindex"), |block| f(RindexEntry::edit(&mut block[232 + 96 * n..])));
    }
    /// Changes the header of an rgrp and renews its checksum.
    pub(crate) fn rgrp(&self, n: usize, f: impl FnOnce(&mut RgrpHeader)) {
        self.edit(self.rindex()[n].addr.get(), |block| {
            let header = RgrpHeader::edit(block);
            f(header);
            header.crc.set(header.checksum());
        });
    }
    fn rgrp_of(&self, block: u64) -> (usize, RindexEntry) {
        let inside = |e: &RindexEntry| (e.data0.get()..e.data0.get() + u64::from(e.data.get())).contains(&block);
        self.rindex().into_iter().enumerate().find(|(_, e)| inside(e)).expect("a block of some rgrp")
    }
    /// The state of a block in the group of this entry of rindex; 0 outside of it.
    pub(crate) fn state_in(&self, entry: &RindexEntry, block: u64) -> u8 {
        let Some(index) = block.checked_sub(entry.data0.get()).filter(|&i| i < u64::from(entry.data.get())) else {
            return 0;
        };
        let bs = gfs2r::ids::BlockSize::new(self.bs as u32).expect("legal");
        let (number, offset) = bitmap_location(bs, index as u32 / 4);
        self.read(entry.addr.get() + u64::from(number))[offset] >> (2 * (index % 4)) & 3
    }
    pub(crate) fn state(&self, block: u64) -> u8 {
        let (at, offset, shift) = self.bits(block);
        self.read(at)[offset] >> shift & 3
    }
    fn bits(&self, block: u64) -> (u64, usize, u32) {
        let (_, entry) = self.rgrp_of(block);
        let index = (block - entry.data0.get()) as u32;
        let bs = gfs2r::ids::BlockSize::new(self.bs as u32).expect("legal");
        let (number, offset) = bitmap_location(bs, index / 4);
        (entry.addr.get() + u64::from(number), offset, 2 * (index % 4))
    }
    /// Sets the state of a block; counts of the rgrp and of statfs follow.
    pub(crate) fn set_state(&self, block: u64, state: u8) {
        let (at, offset, shift) = self.bits(block);
        let old = self.state(block);
        self.edit(at, |bytes| bytes[offset] = bytes[offset] & !(3 << shift) | state << shift);
        let (free, dinode) = (|s: u8| i32::from(s == 0), |s: u8| i32::from(s >= 2));
        let (free, dinodes) = (free(state) - free(old), dinode(state) - dinode(old));
        self.rgrp(self.rgrp_of(block).0, |header| {
            header.free.set(header.free.get().wrapping_add_signed(free));
            header.dinodes.set(header.dinodes.get().wrapping_add_signed(dinodes));
        });
        self.edit(self.addr("<master>/statfs"), |block| {
            let statfs = StatfsChange::edit(&mut block[232..]);
            statfs.free.set(statfs.free.get() + i64::from(free));
            statfs.dinodes.set(statfs.dinodes.get() + i64::from(dinodes));
        });
    }
    /// The last block that is free.
    pub(crate) fn free_block(&self) -> u64 {
        let entry = *self.rindex().last().expect("an rgrp");
        let first = entry.data0.get();
        (first..first + u64::from(entry.data.get())).rev().find(|&b| self.state(b) == 0).expect("a free block")
    }
    /// Leaves of a hashed directory, in table order.
    pub(crate) fn leaves(&self, path: &str) -> Vec<u64> {
        let table = volume(&self.device).read_path(path).expect("table");
        let mut leaves: Vec<u64> = (0..table.len() / 8).map(|i| get_u64(&table, 8 * i)).collect();
        leaves.dedup();
        leaves
    }
    pub(crate) fn leaf(&self, block: u64, f: impl FnOnce(&mut Leaf)) {
        self.edit(block, |bytes| f(Leaf::edit(bytes)));
    }
    /// Block and offset of an entry.
    pub(crate) fn find(&self, dir: &str, name: &str) -> (u64, usize) {
        let addr = self.addr(dir);
        let hashed = self.read_dinode(dir).flags.get() & 2 != 0;
        let mut blocks = if hashed { self.leaves(dir) } else { vec![addr] };
        while let Some(block) = blocks.pop() {
            let bytes = self.read(block);
            if hashed && Leaf::view(&bytes).next.get() != 0 {
                blocks.push(Leaf::view(&bytes).next.get());
            }
            let mut at = if hashed { 104 } else { 232 };
            while at < self.bs {
                let d = Dirent::view(&bytes[at..]);
                let end = at + 40 + usize::from(d.name_len.get());
                if d.inum.addr.get() != 0 && bytes[at + 40..end] == *name.as_bytes() {
                    return (block, at);
                }
                at += usize::from(d.rec_len.get());
            }
        }
        panic!("no {name} in {dir}");
    }
    pub(crate) fn dirent(&self, dir: &str, name: &str, f: impl FnOnce(&mut Dirent)) {
        let (block, at) = self.find(dir, name);
        self.edit(block, |bytes| f(Dirent::edit(&mut bytes[at..])));
    }
    /// Renames an entry in place, to a name of the same length; the hash follows.
    pub(crate) fn rename(&self, dir: &str, name: &str, to: &str) {
        let (block, at) = self.find(dir, name);
        self.edit(block, |bytes| {
            bytes[at + 40..at + 40 + to.len()].copy_from_slice(to.as_bytes());
            Dirent::edit(&mut bytes[at..]).hash.set(gfs2r::format::checksum::dir_hash(to.as_bytes()).0);
        });
    }
    /// Adds an entry to a linear directory. Counts follow.
    pub(crate) fn insert(&self, dir: &str, name: &str, (formal, addr): (u64, u64), kind: u16) {
        let at = self.addr(dir);
        self.edit(at, |bytes| {
            let mut last = 232;
            while last + usize::from(Dirent::view(&bytes[last..]).rec_len.get()) < bytes.len() {
                last += usize::from(Dirent::view(&bytes[last..]).rec_len.get());
            }
            let before = Dirent::edit(&mut bytes[last..]);
            let used = (40 + usize::from(before.name_len.get()) + 7) & !7;
            let left = usize::from(before.rec_len.get()) - used;
            before.rec_len.set(used as u16);
            assert!(left >= 40 + name.len(), "no room in {dir}");
            bytes[last + used + 40..last + used + 40 + name.len()].copy_from_slice(name.as_bytes());
            let dirent = Dirent::edit(&mut bytes[last + used..]);
            dirent.inum.formal.set(formal);
            dirent.inum.addr.set(addr);
            dirent.hash.set(gfs2r::format::checksum::dir_hash(name.as_bytes()).0);
            dirent.rec_len.set(left as u16);
            dirent.name_len.set(name.len() as u16);
            dirent.kind.set(kind);
            let di = Dinode::edit(bytes);
            di.entries.set(di.entries.get() + 1);
        });
    }
    /// {formal, addr} of the inode at this path.
    pub(crate) fn inum(&self, path: &str) -> (u64, u64) {
        let num = self.read_dinode(path).num;
        (num.formal.get(), num.addr.get())
    }
    /// Takes a name away and leaves the inode as an open-unlinked one. Its address.
    pub(crate) fn orphan(&self, dir: &str, name: &str) -> u64 {
        let addr = self.addr(&format!("{dir}/{name}"));
        self.remove(dir, name);
        self.edit(addr, |block| Dinode::edit(block).nlink.set(0));
        self.set_state(addr, 2);
        addr
    }
    /// Makes a hole of the pointer to `block` in `at`, which belongs to the inode at `path`.
    pub(crate) fn punch(&self, path: &str, at: u64, block: u64) {
        let free = |bytes: &mut [u8]| {
            let place = (24..bytes.len()).step_by(8).find(|&i| get_u64(bytes, i) == block).expect("the pointer");
            bytes[place..place + 8].fill(0);
        };
        self.edit(at, free);
        self.set_state(block, 0);
        self.dinode(path, |di| di.blocks.set(di.blocks.get() - 1));
    }
    /// Writes one more group into a journal and leaves it dirty: copies of `images` at their addresses, as metadata.
    pub(crate) fn log(&self, jid: u32, images: &[(u64, Vec<u8>)]) {
        let (head, blocks) = self.head(jid);
        let at = |n: usize| blocks[(head + 1 + n) % blocks.len()];
        let mut ld = vec![0; self.bs];
        let descriptor = LogDescriptor::edit(&mut ld);
        descriptor.header = MetaHeader::new(MetaType::LogDescriptor);
        descriptor.kind.set(300);
        descriptor.length.set(images.len() as u32 + 1);
        descriptor.data1.set(images.len() as u32);
        for (i, (target, image)) in images.iter().enumerate() {
            put_u64(&mut ld, 72 + 8 * i, *target);
            self.write(at(1 + i), image);
        }
        self.write(at(0), &ld);
        let header = at(1 + images.len());
        self.write(header, &self.read(blocks[head]));
        self.log_header(header, |lh| {
            lh.sequence.set(lh.sequence.get() + 1);
            lh.flags.set(2);
            lh.tail.set(((head + 1) % blocks.len()) as u32);
            lh.blkno.set(((head + 2 + images.len()) % blocks.len()) as u32);
            lh.addr.set(header);
        });
    }
    /// Takes an entry out: it joins the one before it (it must not be the first of its block). Counts follow.
    pub(crate) fn remove(&self, dir: &str, name: &str) {
        let (block, at) = self.find(dir, name);
        let addr = self.addr(dir);
        self.edit(block, |bytes| {
            let mut before = if block == addr { 232 } else { 104 };
            let mut next = before;
            while next != at {
                before = next;
                next += usize::from(Dirent::view(&bytes[before..]).rec_len.get());
            }
            let (gone, kept) = (Dirent::view(&bytes[at..]).rec_len.get(), Dirent::view(&bytes[before..]).rec_len.get());
            assert_ne!(before, at, "the first entry of its block");
            Dirent::edit(&mut bytes[before..]).rec_len.set(kept + gone);
            if block != addr {
                let leaf = Leaf::edit(bytes);
                leaf.entries.set(leaf.entries.get() - 1);
            }
        });
        self.dinode(dir, |di| di.entries.set(di.entries.get() - 1));
    }
    /// Block and offset of an attribute record, by its name without prefix.
    pub(crate) fn xattr(&self, path: &str, name: &str) -> (u64, usize) {
        let di = self.read_dinode(path);
        let eattr = di.eattr.get();
        let blocks = if di.flags.get() & 8 != 0 {
            let index = self.read(eattr);
            (24..self.bs).step_by(8).map(|at| get_u64(&index, at)).take_while(|&p| p != 0).collect()
        } else {
            vec![eattr]
        };
        for block in blocks {
            let (bytes, mut at) = (self.read(block), 24);
            while at < self.bs {
                let ea = EaHeader::view(&bytes[at..]);
                let end = at + 16 + usize::from(ea.name_len);
                if ea.kind != 0 && bytes[at + 16..end] == *name.as_bytes() {
                    return (block, at);
                }
                at += ea.rec_len.get() as usize;
            }
        }
        panic!("no attribute {name} of {path}");
    }
    pub(crate) fn edit_xattr(&self, path: &str, name: &str, f: impl FnOnce(&mut EaHeader)) {
        let (block, at) = self.xattr(path, name);
        self.edit(block, |bytes| f(EaHeader::edit(&mut bytes[at..])));
    }
    /// Where the newest log header of a journal is: its number in the journal, and the addresses of all blocks.
    pub(crate) fn head(&self, jid: u32) -> (usize, Vec<u64>) {
        let blocks = self.blocks(&format!("<master>/jindex/journal{jid}"));
        let headers = blocks.iter().enumerate().map(|(i, &block)| (i, self.read(block)));
        let newest =
            headers.filter(|(_, b)| LogHeader::is_valid(b)).max_by_key(|(_, b)| LogHeader::view(b).sequence.get());
        (newest.expect("a log header").0, blocks)
    }
    /// Fills what the image left out of clean journals with headers, as mkfs would have it: the stock fsck expects them.
    pub(crate) fn refill_journals(&self) {
        for jid in 0..self.check().stats.journals as u32 {
            let (head, blocks) = self.head(jid);
            let n = blocks.len();
            self.log_header(blocks[head], |lh| lh.sequence.set(lh.sequence.get() + n as u64));
            let newest = self.read(blocks[head]);
            let sequence = LogHeader::view(&newest).sequence.get();
            for back in 1..n {
                let at = (head + n - back) % n;
                self.write(blocks[at], &newest);
                self.log_header(blocks[at], |lh| {
                    lh.sequence.set(sequence - back as u64);
                    lh.blkno.set(at as u32);
                    lh.addr.set(blocks[at]);
                });
            }
        }
    }
    /// Changes a log header and seals it again.
    pub(crate) fn log_header(&self, block: u64, f: impl FnOnce(&mut LogHeader)) {
        self.edit(block, |bytes| {
            f(LogHeader::edit(bytes));
            LogHeader::seal(bytes);
        });
    }
}

pub(crate) fn volume(device: &MemoryDevice) -> Volume<'_> {
    Volume::open(device, Journals::Overlay).expect("a volume")
}
