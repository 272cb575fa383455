//! The system files (ondisk.md 2.6), built in memory, and the account of every block.

use crate::directory::Directory;
use crate::geometry::Layout;
use crate::journals::Journal;
use crate::tree::{self, Block, Tree};
use crate::{Error, Options};
use gfs2r::admin::fresh::rindex_entry;
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFREG};
use gfs2r::format::header::{FORMAT_QUOTA, FORMAT_RINDEX, MetaType};
use gfs2r::format::rgrp::RgrpExtent;
use gfs2r::format::superblock::{DiskInum, MULTIHOST_FORMAT};
use gfs2r::format::system::InumRange;
use gfs2r::format::{
    DiFlags, Dinode, DirentType, MetaHeader, OnDisk, QuotaEntry, RindexEntry, StatfsChange, Superblock, put_u64,
};
use gfs2r::ids::{BlockAddr, BlockSize, FormalIno, Inum};

/// A dinode under construction.
#[derive(Clone, Debug)]
pub(crate) struct Inode(Vec<u8>);

impl Inode {
    /// A file of one block.
    pub(crate) fn new(bs: BlockSize, inum: Inum, mode: u32, flags: DiFlags, time: i64) -> Self {
        let mut inode = Self(vec![0; bs.bytes()]);
        MetaHeader::init(&mut inode.0, MetaType::Dinode);
        let dinode = inode.edit();
        dinode.num = DiskInum::new(inum);
        dinode.mode.set(mode);
        dinode.nlink.set(1);
        dinode.blocks.set(1);
        dinode.atime.set(time);
        dinode.mtime.set(time);
        dinode.ctime.set(time);
        dinode.goal_meta.set(inum.addr.get());
        dinode.goal_data.set(inum.addr.get());
        dinode.flags.set(flags.0);
        inode
    }
    /// Its header.
    pub(crate) fn dinode(&self) -> &Dinode {
        Dinode::view(&self.0)
    }
    /// Its header, to be changed.
    pub(crate) fn edit(&mut self) -> &mut Dinode {
        Dinode::edit(&mut self.0)
    }
    /// Its block, to be changed.
    pub(crate) fn block_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    /// Its finished block.
    pub(crate) fn into_block(self) -> Vec<u8> {
        self.0
    }
    /// Its identity.
    pub(crate) fn inum(&self) -> Inum {
        self.dinode().num.get().expect("set by `new` from an Inum")
    }
}

/// Free space: blocks are taken in order from the first resource group that has one, so a count per group says it all.
#[derive(Debug)]
pub(crate) struct Space {
    rgrps: Vec<RgrpExtent>,
    used: Vec<u32>,
    dinodes: Vec<BlockAddr>,
    /// No group before this one has a free block.
    first: usize,
}

impl Space {
    fn new(layout: &Layout) -> Self {
        Self { rgrps: layout.rgrps.clone(), used: vec![0; layout.rgrps.len()], dinodes: Vec::new(), first: 0 }
    }
    /// Takes a block for anything but a dinode.
    pub(crate) fn allocate(&mut self) -> Result<BlockAddr, Error> {
        while let Some(rg) = self.rgrps.get(self.first) {
            let used = &mut self.used[self.first];
            if *used < rg.data {
                *used += 1;
                return Ok(rg.block_at(*used - 1));
            }
            self.first += 1;
        }
        Err(Error::NoSpace)
    }
    fn allocate_dinode(&mut self) -> Result<BlockAddr, Error> {
        let addr = self.allocate()?;
        self.dinodes.push(addr);
        Ok(addr)
    }
    /// Resource group `i`: its extent, the number of blocks in use (its first ones) and which of them are dinodes.
    pub(crate) fn rgrp(&self, i: usize) -> (&RgrpExtent, u32, Vec<BlockAddr>) {
        let rg = &self.rgrps[i];
        // Few: at most some hundred system files, all in the first groups.
        let dinodes = if self.used[i] == 0 {
            Vec::new()
        } else {
            self.dinodes.iter().copied().filter(|&d| rg.index_of(d).is_some()).collect()
        };
        (rg, self.used[i], dinodes)
    }
    fn totals(&self) -> StatfsChange {
        let total: i64 = self.rgrps.iter().map(|rg| i64::from(rg.data)).sum();
        let used: i64 = self.used.iter().map(|&n| i64::from(n)).sum();
        StatfsChange { total: total.into(), free: (total - used).into(), dinodes: (self.dinodes.len() as i64).into() }
    }
}

/// A system file as it was created.
#[derive(Clone, Debug)]
pub struct Created {
    /// What the stock tool's debug output calls it.
    pub title: String,
    /// Its dinode at creation.
    pub dinode: Dinode,
}

/// Everything but the free space.
#[derive(Debug)]
pub(crate) struct System {
    /// The journals, one in each of the first resource groups.
    pub(crate) journals: Vec<Journal>,
    /// Blocks of the system files.
    pub(crate) blocks: Vec<Block>,
    /// Runs of empty quota_change blocks: first address, number.
    pub(crate) quota_changes: Vec<(BlockAddr, u64)>,
    /// What is used and what is free.
    pub(crate) space: Space,
    /// The superblock.
    pub(crate) superblock: Vec<u8>,
    /// The files in order of creation.
    pub(crate) created: Vec<Created>,
    /// The totals in the statfs file.
    pub(crate) totals: StatfsChange,
    /// The next formal inode number.
    pub(crate) next_formal: u64,
}

impl System {
    /// Builds the system files of a new filesystem.
    pub(crate) fn build(layout: &Layout, options: &Options) -> Result<Self, Error> {
        Builder::new(layout, options).build()
    }
}

struct Builder<'a> {
    layout: &'a Layout,
    options: &'a Options,
    space: Space,
    formal: u64,
    blocks: Vec<Block>,
    quota_changes: Vec<(BlockAddr, u64)>,
    created: Vec<Created>,
}

const METADATA: DiFlags = DiFlags::SYSTEM.with(DiFlags::JDATA);

impl<'a> Builder<'a> {
    fn new(layout: &'a Layout, options: &'a Options) -> Self {
        Self {
            layout,
            options,
            space: Space::new(layout),
            formal: 0,
            blocks: Vec::new(),
            quota_changes: Vec::new(),
            created: Vec::new(),
        }
    }
    fn build(mut self) -> Result<System, Error> {
        let journals = self.journals();
        let mut master = self.directory("Metafs inode", 0o755, METADATA, None)?;
        self.jindex(&mut master, &journals)?;
        self.per_node(&mut master)?;
        let inum = self.file("Inum Inode", METADATA)?;
        let mut inum = self.enter(&mut master, "inum", inum)?;
        let statfs = self.file("StatFS Inode", METADATA)?;
        let mut statfs = self.enter(&mut master, "statfs", statfs)?;
        let rindex = self.rindex()?;
        self.add(&mut master, "rindex", rindex)?;
        let quota = self.quota()?;
        self.add(&mut master, "quota", quota)?;
        let master_inum = master.inode.inum();
        self.blocks.extend(master.finish());
        let inherit = if self.options.root_inherit_jdata { DiFlags::INHERIT_JDATA } else { DiFlags::default() };
        let root = self.directory("Root directory", 0o755, DiFlags::JDATA.with(inherit), None)?;
        let root_inum = root.inode.inum();
        self.blocks.extend(root.finish());

        inum.edit().size.set(8);
        put_u64(inum.block_mut(), 232, self.formal + 1);
        self.blocks.push((inum.inum().addr, inum.into_block()));
        let totals = self.space.totals();
        statfs.edit().size.set(size_of::<StatfsChange>() as u64);
        *StatfsChange::edit(&mut statfs.block_mut()[232..]) = totals;
        self.blocks.push((statfs.inum().addr, statfs.into_block()));
        let superblock = superblock(self.layout.bs, self.options, master_inum, root_inum);
        Ok(System {
            journals,
            blocks: self.blocks,
            quota_changes: self.quota_changes,
            space: self.space,
            superblock,
            created: self.created,
            totals,
            next_formal: self.formal + 1,
        })
    }

    fn journals(&mut self) -> Vec<Journal> {
        let mut journals = Vec::with_capacity(self.layout.journals);
        for (j, rg) in self.layout.rgrps.iter().take(self.layout.journals).enumerate() {
            let journal = Journal::new(self.layout, rg, j, self.options);
            // The resource group was made for it, so its blocks fit in 32 bits.
            self.space.used[j] = journal.blocks() as u32;
            self.space.dinodes.push(journal.inum.addr);
            journals.push(journal);
        }
        self.formal = journals.len() as u64;
        journals
    }
    fn next_inum(&mut self) -> Result<Inum, Error> {
        self.formal += 1;
        Ok(Inum { formal: FormalIno(self.formal), addr: self.space.allocate_dinode()? })
    }
    fn note(&mut self, title: impl Into<String>, inode: &Inode) {
        self.created.push(Created { title: title.into(), dinode: *inode.dinode() });
    }
    /// An empty directory; its own parent unless one is given.
    fn directory(&mut self, title: &str, mode: u32, flags: DiFlags, parent: Option<Inum>) -> Result<Directory, Error> {
        let inum = self.next_inum()?;
        let inode = Inode::new(self.layout.bs, inum, S_IFDIR | mode, flags, self.options.time);
        let directory = Directory::new(self.layout.bs, inode, parent.unwrap_or(inum));
        self.note(title, &directory.inode);
        Ok(directory)
    }
    /// An empty file of mode 600.
    fn file(&mut self, title: &str, flags: DiFlags) -> Result<Inode, Error> {
        let inode = self.unnoted_file(flags)?;
        self.note(title, &inode);
        Ok(inode)
    }
    /// A file of so many zero bytes, which fit in its dinode.
    fn sized_file(&mut self, title: &str, bytes: usize) -> Result<Inode, Error> {
        let mut inode = self.unnoted_file(METADATA)?;
        inode.edit().size.set(bytes as u64);
        self.note(title, &inode);
        Ok(inode)
    }
    fn unnoted_file(&mut self, flags: DiFlags) -> Result<Inode, Error> {
        let inum = self.next_inum()?;
        Ok(Inode::new(self.layout.bs, inum, S_IFREG | 0o600, flags, self.options.time))
    }
    /// Gives a file its name and hands it back, to be filled in later.
    fn enter(&mut self, directory: &mut Directory, name: &str, inode: Inode) -> Result<Inode, Error> {
        directory.add(name, inode.inum(), DirentType::Reg, &mut self.space)?;
        Ok(inode)
    }
    /// Gives a finished file its name.
    fn add(&mut self, directory: &mut Directory, name: &str, inode: Inode) -> Result<(), Error> {
        let inode = self.enter(directory, name, inode)?;
        self.blocks.push((inode.inum().addr, inode.into_block()));
        Ok(())
    }
    fn jindex(&mut self, master: &mut Directory, journals: &[Journal]) -> Result<(), Error> {
        let mut jindex = self.directory("Jindex", 0o700, METADATA, Some(master.inode.inum()))?;
        master.add("jindex", jindex.inode.inum(), DirentType::Dir, &mut self.space)?;
        for (j, journal) in journals.iter().enumerate() {
            jindex.add(&format!("journal{j}"), journal.inum, DirentType::Reg, &mut self.space)?;
        }
        self.blocks.extend(jindex.finish());
        Ok(())
    }
    fn per_node(&mut self, master: &mut Directory) -> Result<(), Error> {
        let mut per_node = self.directory("per_node", 0o700, METADATA, Some(master.inode.inum()))?;
        master.add("per_node", per_node.inode.inum(), DirentType::Dir, &mut self.space)?;
        let shown = self.created.pop();
        for j in 0..self.layout.journals {
            let range = self.sized_file(&format!("Inum Range {j}"), size_of::<InumRange>())?;
            self.add(&mut per_node, &format!("inum_range{j}"), range)?;
            let change = self.sized_file(&format!("StatFS Change {j}"), size_of::<StatfsChange>())?;
            self.add(&mut per_node, &format!("statfs_change{j}"), change)?;
            let change = self.file(&format!("Quota Change {j}"), DiFlags::SYSTEM)?;
            let mut change = self.enter(&mut per_node, &format!("quota_change{j}"), change)?;
            self.quota_change(&mut change)?;
            self.blocks.push((change.inum().addr, change.into_block()));
        }
        self.created.extend(shown);
        self.blocks.extend(per_node.finish());
        Ok(())
    }
    /// Fills a quota_change file; its tree has room for one block more than the file.
    fn quota_change(&mut self, inode: &mut Inode) -> Result<(), Error> {
        let (bs, bytes) = (self.layout.bs, u64::from(self.options.quota_change_mib) << 20);
        let count = bs.blocks_for(bytes);
        let mut tree = Tree::new(bs, tree::height(bs, count + 1));
        tree.grow(inode, &mut self.space, count)?;
        let (indirect, data) = tree.finish();
        self.blocks.extend(indirect);
        for addr in data {
            match self.quota_changes.last_mut() {
                Some((start, len)) if start.checked_add(*len) == Some(addr) => *len += 1,
                _ => self.quota_changes.push((addr, 1)),
            }
        }
        inode.edit().size.set(bytes);
        Ok(())
    }
    /// The rindex file, with one empty entry beyond its end: the space for the next resource group is there already.
    fn rindex(&mut self) -> Result<Inode, Error> {
        let bs = self.layout.bs;
        let mut inode = self.file("Resource Index", METADATA)?;
        let mut bytes = Vec::with_capacity(96 * (self.layout.rgrps.len() + 1));
        for rg in &self.layout.rgrps {
            bytes.extend_from_slice(&rindex_entry(rg));
        }
        inode.edit().size.set(bytes.len() as u64);
        inode.edit().payload_format.set(FORMAT_RINDEX);
        bytes.resize(bytes.len() + size_of::<RindexEntry>(), 0);
        if bytes.len() <= bs.stuffed_max() {
            inode.block_mut()[232..232 + bytes.len()].copy_from_slice(&bytes);
            return Ok(inode);
        }
        let count = bs.blocks_for(bytes.len() as u64);
        let mut tree = Tree::new(bs, 1);
        tree.grow(&mut inode, &mut self.space, count)?;
        let (indirect, data) = tree.finish();
        self.blocks.extend(indirect);
        bytes.resize(count as usize * bs.bytes(), 0);
        self.blocks.extend(data.into_iter().zip(bytes.chunks(bs.bytes()).map(<[u8]>::to_vec)));
        Ok(inode)
    }
    /// The quota file: root and its group own one block.
    fn quota(&mut self) -> Result<Inode, Error> {
        let mut inode = self.file("Quota", METADATA)?;
        inode.edit().size.set(2 * size_of::<QuotaEntry>() as u64);
        inode.edit().payload_format.set(FORMAT_QUOTA);
        for i in 0..2 {
            QuotaEntry::edit(&mut inode.block_mut()[232 + i * size_of::<QuotaEntry>()..]).value.set(1);
        }
        Ok(inode)
    }
}

fn superblock(bs: BlockSize, options: &Options, master: Inum, root: Inum) -> Vec<u8> {
    let mut block = vec![0; bs.bytes()];
    MetaHeader::init(&mut block, MetaType::Superblock);
    let sb = Superblock::edit(&mut block);
    sb.fs_format.set(options.format);
    sb.multihost_format.set(MULTIHOST_FORMAT);
    sb.bsize.set(bs.bytes() as u32);
    sb.bsize_shift.set(bs.shift());
    sb.master_dir = DiskInum::new(master);
    sb.root_dir = DiskInum::new(root);
    // `Plan::new` has checked that both leave room for a NUL.
    sb.lockproto[..options.lock_proto.len()].copy_from_slice(options.lock_proto.as_bytes());
    sb.locktable[..options.lock_table.len()].copy_from_slice(options.lock_table.as_bytes());
    sb.uuid = options.uuid;
    block
}
