//! Opens a volume that may hold anything, looks at all of it, changes it, closes it. Any answer is right; a panic, an endless
//! loop, a wild allocation are not.

use crate::base::ME;
use crate::tape::Tape;
use gfs2r::clock::{SimClock, Timestamp};
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::dump::{self, View};
use gfs2r::error::Error;
use gfs2r::file::Seek;
use gfs2r::format::DirentType;
use gfs2r::fs::{Fs, NewInode, RenameHow, SetAttr, SetMode, SetTime};
use gfs2r::ids::{BlockAddr, Jid};
use gfs2r::quota::{QuotaMode, Who};
use gfs2r::volume::{self, Layout, OpenError, OpenOptions};
use std::sync::Arc;

/// Inodes visited per input.
const NODES: usize = 60;
/// Entries listed per directory, which is a multiple of what the volumes hold.
const ENTRIES: usize = 3000;

/// What the kernel knows after a walk.
struct Seen {
    addr: BlockAddr,
    kind: DirentType,
    lookups: u64,
    /// Where it was found.
    parent: BlockAddr,
    name: Vec<u8>,
}

/// All that can be done with a volume.
pub(crate) fn exercise(device: &Arc<MemoryDevice>, tape: &mut Tape<'_>) {
    let how = tape.u8();
    if how & 0x07 == 0x07 {
        look_unmounted(device, tape);
    }
    let options = OpenOptions {
        read_only: how & 0x18 == 0x18,
        norecovery: how & 0x38 == 0x38,
        quota: if how & 0x40 != 0 { QuotaMode::On } else { QuotaMode::Off },
        jid: Jid(u32::from(how & 0x80 != 0)),
        cache_bytes: 1 << 20,
        cached_inodes: 64,
        ..OpenOptions::default()
    };
    let opened = match volume::open(device.clone(), &options, Arc::new(SimClock::new(1_700_000_001))) {
        Ok(opened) => opened,
        Err(e) => return must_say_what(&e),
    };
    let fs = &opened.fs;
    tell(fs.reclaim_orphans(&Default::default()));
    let mut seen = walk(fs, tape);
    if !options.read_only {
        change(fs, &mut seen, tape);
    }
    // The kernel forgets everything, and asks whether it is still there.
    for s in &seen {
        tell(fs.forget(s.addr, s.lookups));
    }
    fs.space();
    tell(opened.close());
}

fn must_say_what(e: &OpenError) {
    assert!(e.to_string().len() > 8, "an error that says nothing: {e:?}");
}

fn tell<T>(result: Result<T, Error>) -> Option<T> {
    result.inspect_err(|e| assert!(!e.to_string().is_empty())).ok()
}

/// `gfs2r dump`.
fn look_unmounted(device: &Arc<MemoryDevice>, tape: &mut Tape<'_>) {
    let layout = match Layout::read(device.clone()) {
        Ok(layout) => layout,
        Err(e) => return must_say_what(&e),
    };
    let views = [
        View::Superblock,
        View::Rgrp(None),
        View::Journal(0),
        View::Dir("/".into()),
        View::Dir("/hashed".into()),
        View::Block(layout.identity().superblock.root_dir.addr.get()),
        View::Block(u64::from(tape.u16())),
    ];
    let view = tape.pick(&views);
    if let Ok(value) = dump::dump(&**device, &layout, view) {
        assert!(!dump::text(&value).is_empty());
    }
    tell(layout.state(&**device, BlockAddr::new(tape.u64())));
}

/// Everything below the root, breadth first.
fn walk(fs: &Fs, tape: &mut Tape<'_>) -> Vec<Seen> {
    let root = fs.root();
    let mut seen = vec![Seen { addr: root, kind: DirentType::Dir, lookups: 0, parent: root, name: b".".to_vec() }];
    let mut next = 0;
    while next < seen.len() {
        let (addr, kind) = (seen[next].addr, seen[next].kind);
        next += 1;
        look_at(fs, addr, kind);
        if kind != DirentType::Dir {
            continue;
        }
        for name in names(fs, addr, tape) {
            if seen.len() >= NODES {
                break;
            }
            let Some(attr) = tell(fs.lookup(addr, &name)) else { continue };
            match seen.iter_mut().find(|s| s.addr == attr.inum.addr) {
                Some(known) => known.lookups += 1,
                None => seen.push(Seen { addr: attr.inum.addr, kind: attr.kind, lookups: 1, parent: addr, name }),
            }
        }
    }
    seen
}

/// The names in a directory, listed in pieces.
fn names(fs: &Fs, dir: BlockAddr, tape: &mut Tape<'_>) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let (mut from, mut pieces) = (0, 0);
    let piece = 1 + usize::from(tape.u8());
    loop {
        let (mut left, mut last) = (piece, None);
        let result = fs.list(dir, from, &mut |item| {
            assert!(item.next > from, "a listing that goes back");
            last = Some(item.next);
            names.push(item.name.to_vec());
            left -= 1;
            left > 0 && names.len() < ENTRIES
        });
        pieces += 1;
        match last {
            Some(next) if result.is_ok() && left == 0 && names.len() < ENTRIES && pieces < 100 => from = next,
            _ => break,
        }
    }
    let mut taken = Vec::new();
    tell(fs.list_plus(dir, 0, &mut |item| {
        if item.attr.is_some() {
            taken.push(item.entry.inum.addr);
        }
        taken.len() < 8
    }));
    for addr in taken {
        tell(fs.forget(addr, 1));
    }
    names
}

/// All that can be read of one inode.
fn look_at(fs: &Fs, addr: BlockAddr, kind: DirentType) {
    let size = tell(fs.getattr(addr)).map_or(0, |a| a.size);
    tell(fs.get_flags(addr));
    for name in tell(fs.listxattr(addr)).into_iter().flatten().take(40) {
        if let Some(value) = tell(fs.getxattr(addr, &name)) {
            assert!(value.len() <= 65536, "an attribute of {} bytes", value.len());
        }
    }
    match kind {
        DirentType::Lnk => {
            tell(fs.readlink(addr));
        }
        DirentType::Reg => {
            let mut buf = vec![0; 20_000];
            for at in [0, size / 2, size.saturating_sub(10_000), 1 << 34] {
                let read = tell(fs.read(addr, at, &mut buf)).unwrap_or(0);
                assert!(read as u64 <= size.saturating_sub(at), "{read} bytes at {at} of {size}");
            }
            let mut at = 0;
            for what in [Seek::Data, Seek::Hole, Seek::Data, Seek::Hole] {
                let Some(found) = tell(fs.seek(addr, at, what)) else { break };
                assert!(found >= at && found <= size, "{what:?} at {at} of {size} is {found}");
                at = found;
            }
        }
        _ => {}
    }
}

/// As many changes as the tape asks for, at least some.
fn change(fs: &Fs, seen: &mut Vec<Seen>, tape: &mut Tape<'_>) {
    for n in 0..60 {
        if n >= 8 && tape.is_empty() {
            break;
        }
        // Without a tape: one of each, on the first inodes.
        let (op, a, b) = if tape.is_empty() { (n, n, n + 1) } else { (tape.u8(), tape.u8(), tape.u8()) };
        let count = seen.len();
        let (a, b) = (&seen[usize::from(a) % count], &seen[usize::from(b) % count]);
        if let Some(new) = one_change(fs, op, a, b, tape) {
            seen.push(new);
        }
    }
    // What is left: everything goes.
    for s in seen.iter().rev().take(if tape.once_in(4) { NODES } else { 0 }) {
        tell(if s.kind == DirentType::Dir { fs.rmdir(s.parent, &s.name) } else { fs.unlink(s.parent, &s.name) });
    }
    tell(fs.sync());
    tell(fs.sync_counters());
}

fn one_change(fs: &Fs, op: u8, a: &Seen, b: &Seen, tape: &mut Tape<'_>) -> Option<Seen> {
    let name = format!("new {}", tape.u8()).into_bytes();
    let far = [0, 100, 4096, 30_000, 1 << 20, 1 << 34, 1 << 44, i64::MAX as u64];
    let made = match op % 20 {
        0 => tell(fs.make(&ME, a.addr, &name, &NewInode::File(0o644))),
        1 => tell(fs.make(&ME, a.addr, &name, &NewInode::Dir(0o755))),
        2 => tell(fs.make(&ME, a.addr, &name, &NewInode::Symlink(b"there"))),
        3 => tell(fs.link(&ME, b.addr, a.addr, &name)),
        4 => {
            tell(fs.unlink(b.parent, &b.name));
            None
        }
        5 => {
            tell(fs.rmdir(b.parent, &b.name));
            None
        }
        6 => {
            let how = *tape.pick(&[RenameHow::Replace, RenameHow::NoReplace, RenameHow::Exchange]);
            let to = if tape.once_in(3) { b.name.clone() } else { name.clone() };
            tell(fs.rename(&ME, (a.parent, &a.name), (b.addr, &to), how));
            None
        }
        7..=9 => {
            let bytes = vec![op; 1 + usize::from(tape.u16()) % 20_000];
            tell(fs.write(&ME, a.addr, *tape.pick(&far[..7]), &bytes, op == 8));
            None
        }
        10 | 11 => {
            tell(fs.setattr(&ME, a.addr, &SetAttr { size: Some(*tape.pick(&far)), ..SetAttr::default() }));
            None
        }
        12 => {
            let mode = *tape.pick(&[0, 1, 3, 16, 17]);
            let len = if mode == 3 { *tape.pick(&far) } else { 1 + u64::from(tape.u16()) };
            tell(fs.fallocate(&ME, a.addr, *tape.pick(&far[..6]), len, mode));
            None
        }
        13 | 14 => {
            let name = *tape.pick(&[&b"user.short"[..], b"user.long", b"user.1", b"trusted.other", b"user.new"]);
            tell(fs.setxattr(&ME, a.addr, name, &vec![7; usize::from(tape.u16()) % 6000], SetMode::Any));
            None
        }
        15 => {
            let name = *tape.pick(&[&b"user.short"[..], b"user.long", b"user.1", b"trusted.other"]);
            tell(fs.removexattr(a.addr, name));
            None
        }
        16 => {
            tell(fs.set_flags(&ME, a.addr, if tape.once_in(2) { 0x4000 } else { 0 }));
            None
        }
        17 => {
            let at = SetTime::At(Timestamp { sec: i64::from(tape.u32()), nsec: 5 });
            let uid = Some(u32::from(tape.u8()));
            let set = SetAttr { uid, gid: uid, mode: Some(0o6755), mtime: Some(at), ..SetAttr::default() };
            tell(fs.setattr(&ME, a.addr, &set));
            None
        }
        18 => {
            tell(fs.fsync(a.addr));
            if let Some(quota) = fs.quota() {
                tell(quota.report(fs.volume()));
                tell(quota.set(fs.volume(), Who::User(u32::from(tape.u8())), Some(100), None));
            }
            None
        }
        _ => {
            tell(fs.trim(0, u64::MAX, 0));
            tell(fs.sync());
            None
        }
    };
    let attr = made?;
    Some(Seen { addr: attr.inum.addr, kind: attr.kind, lookups: 1, parent: a.addr, name })
}

/// The checker's view, which must end as well.
pub(crate) fn inspect(device: &dyn BlockDevice) {
    if let Ok(report) = gfs2r_fsck::check(device, &gfs2r_fsck::Options::default()) {
        assert!(!report.to_string().is_empty() || report.issues.is_empty());
    }
}
