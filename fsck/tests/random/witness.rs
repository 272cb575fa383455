//! What there was before: every file, its bytes, and the blocks it consists of.

use crate::common::plant::{Plant, volume};
use gfs2r::device::MemoryDevice;
use gfs2r::format::{Dinode, EaHeader, Leaf, OnDisk, get_u64};
use gfs2r_fsck::{Journals, TreeEntry, Volume};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

/// A file as it was.
pub(crate) struct File {
    path: PathBuf,
    stat: TreeEntry,
    hash: u64,
    blocks: BTreeSet<u64>,
    /// Blocks of the directories on the way to it.
    way: BTreeSet<u64>,
}

/// Everything in the volume.
pub(crate) fn files(plant: &Plant) -> Vec<File> {
    let volume = volume(&plant.device);
    let tree = volume.tree().expect("the volume is in order");
    let own: BTreeMap<PathBuf, BTreeSet<u64>> =
        tree.iter().map(|e| (e.path.clone(), blocks(plant, e.inum.addr.get()))).collect();
    tree.iter()
        .map(|e| {
            let above = e.path.ancestors().skip(1);
            File {
                path: e.path.clone(),
                stat: e.clone(),
                hash: hash(&volume, e),
                blocks: own[&e.path].clone(),
                way: above.flat_map(|dir| own.get(dir).into_iter().flatten().copied()).collect(),
            }
        })
        .collect()
}

fn hash(volume: &Volume<'_>, e: &TreeEntry) -> u64 {
    let mut hasher = DefaultHasher::new();
    let is_file = e.mode & 0o170000 == 0o100000;
    if is_file {
        for (number, _) in volume.data_blocks(e.inum.addr.get()).unwrap_or_default() {
            number.hash(&mut hasher);
            let bs = u64::from(volume.superblock().bsize.get());
            volume.read_range(e.inum.addr.get(), number * bs, bs).ok().hash(&mut hasher);
        }
        volume.read_range(e.inum.addr.get(), 0, 4096).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// All blocks of an inode.
fn blocks(plant: &Plant, addr: u64) -> BTreeSet<u64> {
    let bytes = plant.read(addr);
    let di = Dinode::view(&bytes);
    let mut all = BTreeSet::from([addr]);
    let mut level = vec![(bytes.clone(), 232)];
    let (height, hashed) = (di.height.get(), di.flags.get() & 2 != 0);
    for depth in 1..=height {
        let mut next = Vec::new();
        for (block, start) in level {
            for p in (start..block.len()).step_by(8).map(|at| get_u64(&block, at)).filter(|&p| p != 0) {
                all.insert(p);
                if depth < height || hashed {
                    next.push((plant.read(p), 24));
                }
            }
        }
        level = next;
    }
    if hashed {
        let mut open: Vec<u64> =
            level.iter().flat_map(|(b, start)| (*start..b.len()).step_by(8).map(|at| get_u64(b, at))).collect();
        while let Some(leaf) = open.pop() {
            if leaf != 0 && all.insert(leaf) {
                open.push(Leaf::view(&plant.read(leaf)).next.get());
            }
        }
    }
    attributes(plant, di, &mut all);
    all
}

fn attributes(plant: &Plant, di: &Dinode, all: &mut BTreeSet<u64>) {
    let eattr = di.eattr.get();
    if eattr == 0 {
        return;
    }
    all.insert(eattr);
    let index = plant.read(eattr);
    let blocks = if di.flags.get() & 8 != 0 {
        (24..plant.bs).step_by(8).map(|at| get_u64(&index, at)).take_while(|&p| p != 0).collect()
    } else {
        vec![eattr]
    };
    for block in blocks {
        all.insert(block);
        let (bytes, mut at) = (plant.read(block), 24);
        while at + 16 <= bytes.len() {
            let ea = EaHeader::view(&bytes[at..]);
            let first = at + 16 + usize::from(ea.name_len).next_multiple_of(8);
            all.extend((0..usize::from(ea.num_ptrs)).map(|i| get_u64(&bytes, first + 8 * i)));
            at += ea.rec_len.get() as usize;
        }
    }
}

/// What became of the files that no fault touched: says of each what is missing.
pub(crate) fn losses(device: &MemoryDevice, files: &[File], hit: &BTreeSet<u64>) -> Vec<(PathBuf, String)> {
    let Ok(volume) = Volume::open(device, Journals::Overlay) else {
        return files.iter().map(|f| (f.path.clone(), "no volume".into())).collect();
    };
    let mut lost = Vec::new();
    for file in files.iter().filter(|f| f.blocks.is_disjoint(hit)) {
        let addr = file.stat.inum.addr.get();
        let name = file.path.display();
        let now = match volume.stat(addr) {
            Ok(now) if now.inum == file.stat.inum => now,
            Ok(now) => {
                lost.push((file.path.clone(), format!("{name} ({addr}) is now {:?}", now.inum)));
                continue;
            }
            Err(e) => {
                lost.push((file.path.clone(), format!("{name}: {e}")));
                continue;
            }
        };
        let same = (now.mode, now.uid, now.gid, &now.target, &now.xattrs)
            == (file.stat.mode, file.stat.uid, file.stat.gid, &file.stat.target, &file.stat.xattrs);
        let is_dir = now.mode & 0o170000 == 0o040000;
        if !same || (!is_dir && now.size != file.stat.size) || hash(&volume, &now) != file.hash {
            lost.push((file.path.clone(), format!("{name} ({addr}) has changed: {now:?} was {:?}", file.stat)));
        }
        if file.way.is_disjoint(hit) {
            match volume.lookup(&file.path) {
                Ok(there) if there == addr => {}
                other => lost.push((file.path.clone(), format!("{name} ({addr}) has lost its name: {other:?}"))),
            }
        }
    }
    lost
}

/// The blocks of all journals, and of the way to them.
pub(crate) fn journals(plant: &Plant) -> BTreeSet<u64> {
    let mut all = BTreeSet::from([65536 / plant.bs as u64]);
    let count = plant.check().stats.journals;
    let files = (0..count).map(|jid| format!("<master>/jindex/journal{jid}"));
    for path in files.chain(["<master>".into(), "<master>/jindex".into()]) {
        all.extend(blocks(plant, plant.addr(&path)));
    }
    all
}
