//! Making structures anew: dinodes, trees of pointers, directories (ondisk.md 4, 5).

use crate::blockmap::BlockKind;
use crate::repair::work::Work;
use crate::report::CheckError;
use crate::state::State;
use gfs2r::format::checksum::dir_hash;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::directory::{DEPTH_MAX, LEAF_SIZE, dirent_len};
use gfs2r::format::header::FORMAT_DIRENT;
use gfs2r::format::{DiFlags, Dinode, Dirent, Leaf, MetaHeader, MetaType, OnDisk, put_u64};
use gfs2r::ids::BlkState;
use std::time::{SystemTime, UNIX_EPOCH};

/// An entry to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) formal: u64,
    pub(crate) addr: u64,
    pub(crate) kind: u16,
}

/// A dinode without contents.
pub(crate) fn dinode(bs: usize, addr: u64, formal: u64, mode: u32, flags: u32) -> Vec<u8> {
    let mut block = vec![0; bs];
    MetaHeader::init(&mut block, MetaType::Dinode);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64);
    let di = Dinode::edit(&mut block);
    di.num.formal.set(formal);
    di.num.addr.set(addr);
    di.mode.set(mode);
    di.nlink.set(1);
    di.blocks.set(1);
    di.atime.set(now);
    di.mtime.set(now);
    di.ctime.set(now);
    di.goal_meta.set(addr);
    di.goal_data.set(addr);
    di.flags.set(flags);
    block
}

/// Blocks for a structure: first those it had, then free ones.
pub(crate) struct Pool(pub(crate) Vec<u64>);

impl Pool {
    fn take(&mut self, work: &mut Work<'_>, st: &mut State, kind: BlockKind) -> Option<u64> {
        if let Some(addr) = self.0.pop() {
            work.set_state(st, addr, BlkState::Used);
            return Some(addr);
        }
        work.allocate(st, kind)
    }
}

/// Hangs `data` below a dinode: pointers and as many levels of indirect blocks as they need. How many of these; `None`
/// when there is no space.
pub(crate) fn tree(
    work: &mut Work<'_>,
    st: &mut State,
    pool: &mut Pool,
    dinode: &mut [u8],
    data: &[u64],
) -> Option<u64> {
    let bs = work.disk.bs;
    let (mut level, mut height, mut made) = (data.to_vec(), 1, 0);
    while level.len() > bs.dinode_pointers() {
        let mut above = Vec::new();
        for pointers in level.chunks(bs.indirect_pointers()) {
            let addr = pool.take(work, st, BlockKind::Indirect)?;
            let mut block = vec![0; bs.bytes()];
            MetaHeader::init(&mut block, MetaType::Indirect);
            pointers.iter().enumerate().for_each(|(i, &p)| put_u64(&mut block, 24 + 8 * i, p));
            work.put(addr, &block);
            above.push(addr);
            made += 1;
        }
        level = above;
        height += 1;
    }
    dinode[DINODE_SIZE..].fill(0);
    level.iter().enumerate().for_each(|(i, &p)| put_u64(dinode, DINODE_SIZE + 8 * i, p));
    Dinode::edit(dinode).height.set(height);
    Some(made)
}

/// One leaf: its depth, its slot at that depth, its entries by chain block.
struct NewLeaf {
    depth: u16,
    slot: u32,
    chain: Vec<Vec<NewEntry>>,
}

/// Writes a directory with these entries, `.` and `..` among them, below the dinode at `addr`, whose other fields stay.
/// False when there is no space; nothing of the old directory was changed then.
pub(crate) fn directory(
    work: &mut Work<'_>,
    st: &mut State,
    addr: u64,
    entries: &[NewEntry],
    mut pool: Pool,
) -> Result<bool, CheckError> {
    let bs = work.disk.bs;
    let mut block = work.disk.read(addr)?.to_vec();
    let di = Dinode::edit(&mut block);
    di.entries.set(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    let flags = di.flags().with(DiFlags::JDATA).without(DiFlags::EXHASH);
    let len: usize = entries.iter().map(|e| dirent_len(e.name.len())).sum();
    if len <= bs.stuffed_max() {
        di.flags.set(flags.0);
        di.height.set(0);
        di.depth.set(0);
        di.size.set(bs.stuffed_max() as u64);
        di.payload_format.set(FORMAT_DIRENT);
        records(&mut block, DINODE_SIZE, entries);
        work.put(addr, &block);
        return Ok(true);
    }
    let mut sorted: Vec<(u32, &NewEntry)> = entries.iter().map(|e| (dir_hash(&e.name).0, e)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
    let mut leaves = Vec::new();
    split(&sorted, 0, 0, bs.bytes() - LEAF_SIZE, &mut leaves);
    let least = (bs.bytes() / 16).trailing_zeros() as u16;
    let depth = leaves.iter().map(|l| l.depth).max().unwrap_or(0).max(least);
    let Some((table, made)) = put_leaves(work, st, &mut pool, addr, &leaves, depth) else { return Ok(false) };
    let di = Dinode::edit(&mut block);
    di.flags.set(flags.with(DiFlags::EXHASH).0);
    di.depth.set(depth);
    di.size.set(8u64 << depth);
    di.payload_format.set(0);
    di.height.set(0);
    let mut count = 1 + made;
    block[DINODE_SIZE..].fill(0);
    if table.len() * 8 <= bs.stuffed_max() {
        table.iter().enumerate().for_each(|(i, &p)| put_u64(&mut block, DINODE_SIZE + 8 * i, p));
    } else {
        let mut pieces = Vec::new();
        for slots in table.chunks(bs.payload() / 8) {
            let Some(at) = pool.take(work, st, BlockKind::Table) else { return Ok(false) };
            let mut piece = vec![0; bs.bytes()];
            MetaHeader::init(&mut piece, MetaType::JournaledData);
            slots.iter().enumerate().for_each(|(i, &p)| put_u64(&mut piece, 24 + 8 * i, p));
            work.put(at, &piece);
            pieces.push(at);
        }
        let Some(made) = tree(work, st, &mut pool, &mut block, &pieces) else { return Ok(false) };
        count += made + pieces.len() as u64;
    }
    Dinode::edit(&mut block).blocks.set(count);
    work.put(addr, &block);
    Ok(true)
}

/// Divides entries, sorted by hash, among leaves.
fn split(entries: &[(u32, &NewEntry)], depth: u16, slot: u32, room: usize, leaves: &mut Vec<NewLeaf>) {
    let len: usize = entries.iter().map(|(_, e)| dirent_len(e.name.len())).sum();
    if len <= room || depth == DEPTH_MAX {
        let mut chain: Vec<Vec<NewEntry>> = vec![Vec::new()];
        let mut left = room;
        for (_, entry) in entries {
            let need = dirent_len(entry.name.len());
            if need > left {
                chain.push(Vec::new());
                left = room;
            }
            left -= need;
            if let Some(last) = chain.last_mut() {
                last.push((*entry).clone());
            }
        }
        leaves.push(NewLeaf { depth, slot, chain });
        return;
    }
    let upper = entries.partition_point(|(hash, _)| hash >> (31 - depth) & 1 == 0);
    split(&entries[..upper], depth + 1, slot << 1, room, leaves);
    split(&entries[upper..], depth + 1, slot << 1 | 1, room, leaves);
}

/// Writes the leaves; the table and the number of blocks. `None` without space.
fn put_leaves(
    work: &mut Work<'_>,
    st: &mut State,
    pool: &mut Pool,
    owner: u64,
    leaves: &[NewLeaf],
    depth: u16,
) -> Option<(Vec<u64>, u64)> {
    let bs = work.disk.bs.bytes();
    let (mut table, mut made) = (vec![0; 1 << depth], 0);
    for leaf in leaves {
        let mut places = Vec::new();
        for _ in &leaf.chain {
            places.push(pool.take(work, st, BlockKind::Leaf)?);
        }
        made += places.len() as u64;
        let run = 1usize << (depth - leaf.depth);
        table[leaf.slot as usize * run..][..run].fill(places[0]);
        for (n, entries) in leaf.chain.iter().enumerate() {
            let mut block = vec![0; bs];
            MetaHeader::init(&mut block, MetaType::Leaf);
            let header = Leaf::edit(&mut block);
            header.depth.set(leaf.depth);
            header.entries.set(entries.len() as u16);
            header.dirent_format.set(FORMAT_DIRENT);
            header.next.set(places.get(n + 1).copied().unwrap_or(0));
            header.inode.set(owner);
            header.dist.set(n as u32 + 1);
            records(&mut block, LEAF_SIZE, entries);
            work.put(places[n], &block);
        }
    }
    Some((table, made))
}

/// Fills a block with records from `start` to its end. The caller has seen to it that they fit.
fn records(block: &mut [u8], start: usize, entries: &[NewEntry]) {
    let end = block.len();
    block[start..].fill(0);
    if entries.is_empty() {
        Dirent::edit(&mut block[start..]).rec_len.set((end - start) as u16);
    }
    let mut at = start;
    for (i, entry) in entries.iter().enumerate() {
        let need = dirent_len(entry.name.len());
        let len = if i + 1 == entries.len() { end - at } else { need };
        let dirent = Dirent::edit(&mut block[at..]);
        dirent.inum.formal.set(entry.formal);
        dirent.inum.addr.set(entry.addr);
        dirent.hash.set(dir_hash(&entry.name).0);
        dirent.rec_len.set(len as u16);
        dirent.name_len.set(entry.name.len() as u16);
        dirent.kind.set(entry.kind);
        block[at + 40..at + 40 + entry.name.len()].copy_from_slice(&entry.name);
        at += len;
    }
}

/// Gives a regular file these contents, in blocks of its own when they do not fit the dinode. False without space.
pub(crate) fn contents(work: &mut Work<'_>, st: &mut State, dinode: &mut [u8], bytes: &[u8]) -> bool {
    let bs = work.disk.bs;
    Dinode::edit(dinode).size.set(bytes.len() as u64);
    if bytes.len() <= bs.stuffed_max() {
        dinode[DINODE_SIZE..].fill(0);
        dinode[DINODE_SIZE..DINODE_SIZE + bytes.len()].copy_from_slice(bytes);
        Dinode::edit(dinode).height.set(0);
        return true;
    }
    let mut data = Vec::new();
    for piece in bytes.chunks(bs.bytes()) {
        let Some(at) = work.allocate(st, BlockKind::Data) else { return false };
        let mut block = vec![0; bs.bytes()];
        block[..piece.len()].copy_from_slice(piece);
        work.put(at, &block);
        data.push(at);
    }
    let Some(made) = tree(work, st, &mut Pool(Vec::new()), dinode, &data) else { return false };
    Dinode::edit(dinode).blocks.set(1 + made + data.len() as u64);
    true
}
