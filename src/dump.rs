//! Structures on the disk as text or JSON, good enough to debug with. Reads a volume that nobody has mounted.
//!
//! Each view is a tree of names and values ([`serde_json::Value`]); text is the same tree, one line a value.

use crate::device::BlockDevice;
use crate::error::{CorruptKind, Error, Result};
use crate::format::dinode::DINODE_SIZE;
use crate::format::directory::{DIRENT_SIZE, LEAF_SIZE};
use crate::format::log::{LD_ITEMS, LD_JDATA, LD_METADATA, LD_REVOKE};
use crate::format::{
    DiFlags, Dinode, Dirent, Leaf, LogDescriptor, LogHeader, MetaHeader, MetaType, OnDisk, RgrpHeader, get_pointer,
    get_u64,
};
use crate::ids::{BlkState, BlockAddr};
use crate::volume::{Identity, Layout, uuid_text};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// The superblock.
    Superblock,
    /// Any metadata block, by its type: a dinode with its pointers or entries, a leaf, an indirect block.
    Block(u64),
    /// A resource group by its number, or all (without their bitmaps).
    Rgrp(Option<u32>),
    /// The log of a journal: every header and descriptor in it.
    Journal(u32),
    /// The entries of a directory, by its path from the root.
    Dir(String),
}

/// The view as a tree of names and values.
pub fn dump(dev: &dyn BlockDevice, layout: &Layout, view: &View) -> Result<Value> {
    match view {
        View::Superblock => Ok(superblock(layout.identity())),
        View::Block(addr) => block(dev, layout, *addr),
        View::Rgrp(None) => (0..layout.rgrps().len())
            .map(|n| rgrp(dev, layout, n))
            .collect::<Result<Vec<_>>>()
            .map(|all| json!({ "rgrps": all })),
        View::Rgrp(Some(n)) => rgrp(dev, layout, *n as usize),
        View::Journal(n) => journal(dev, layout, *n),
        View::Dir(path) => {
            let mut at = layout.identity().superblock.root_dir.addr.get();
            for name in path.split('/').filter(|n| !n.is_empty()) {
                let entries = entries_of(dev, layout, at)?;
                at = entries
                    .iter()
                    .find(|e| e["name"] == name)
                    .and_then(|e| e["addr"].as_u64())
                    .ok_or(Error::NotFound)?;
            }
            Ok(json!({ "dir": path, "addr": at, "entries": entries_of(dev, layout, at)? }))
        }
    }
}

fn superblock(id: &Identity) -> Value {
    let sb = &id.superblock;
    json!({
        "fs_format": sb.fs_format.get(),
        "multihost_format": sb.multihost_format.get(),
        "bsize": sb.bsize.get(),
        "bsize_shift": sb.bsize_shift.get(),
        "master_dir": { "formal": sb.master_dir.formal.get(), "addr": sb.master_dir.addr.get() },
        "root_dir": { "formal": sb.root_dir.formal.get(), "addr": sb.root_dir.addr.get() },
        "lockproto": String::from_utf8_lossy(sb.lockproto()),
        "locktable": String::from_utf8_lossy(sb.locktable()),
        "uuid": uuid_text(&sb.uuid),
    })
}

fn read(dev: &dyn BlockDevice, layout: &Layout, addr: u64) -> Result<Vec<u8>> {
    let bs = layout.identity().bs;
    let mut buf = crate::device::AlignedBuf::zeroed(bs.bytes());
    let offset = addr.checked_mul(bs.bytes() as u64).ok_or(Error::NoSuchRegion)?;
    dev.read(offset, &mut buf)?;
    Ok(buf.to_vec())
}

fn block(dev: &dyn BlockDevice, layout: &Layout, addr: u64) -> Result<Value> {
    let bytes = read(dev, layout, addr)?;
    let header = MetaHeader::view(&bytes);
    if !MetaHeader::has_magic(&bytes) {
        return Ok(json!({ "addr": addr, "type": "data", "first_bytes": hex(&bytes[..64]) }));
    }
    let kind = MetaType::from_raw(header.kind.get());
    let mut out = Map::new();
    out.insert("addr".into(), json!(addr));
    out.insert(
        "type".into(),
        json!(kind.map_or_else(|| header.kind.get().to_string(), |k| format!("{k:?}").to_lowercase())),
    );
    out.insert("format".into(), json!(header.format.get()));
    out.insert("jid".into(), json!(header.jid.get()));
    match kind {
        Some(MetaType::Dinode) => dinode(dev, layout, &bytes, &mut out)?,
        Some(MetaType::Leaf) => {
            let leaf = Leaf::view(&bytes);
            out.insert("depth".into(), json!(leaf.depth.get()));
            out.insert("next".into(), json!(leaf.next.get()));
            out.insert("inode".into(), json!(leaf.inode.get()));
            out.insert("dist".into(), json!(leaf.dist.get()));
            out.insert("entries".into(), json!(entries(&bytes, LEAF_SIZE)));
        }
        Some(MetaType::Indirect) => {
            out.insert("pointers".into(), pointers(&bytes, 24));
        }
        Some(MetaType::LogHeader) => {
            out.insert("log_header".into(), log_header(&bytes));
        }
        _ => {
            out.insert("first_bytes".into(), json!(hex(&bytes[24..88])));
        }
    }
    Ok(Value::Object(out))
}

fn dinode(dev: &dyn BlockDevice, layout: &Layout, bytes: &[u8], out: &mut Map<String, Value>) -> Result<()> {
    let d = Dinode::view(bytes);
    let time = |t: crate::clock::Timestamp| format!("{}.{:09}", t.sec, t.nsec);
    let fields = json!({
        "formal": d.num.formal.get(), "mode": format!("{:o}", d.mode.get()), "uid": d.uid.get(), "gid": d.gid.get(),
        "nlink": d.nlink.get(), "size": d.size.get(), "blocks": d.blocks.get(), "atime": time(d.atime()),
        "mtime": time(d.mtime()), "ctime": time(d.ctime()), "major": d.major.get(), "minor": d.minor.get(),
        "goal_meta": d.goal_meta.get(), "goal_data": d.goal_data.get(), "generation": d.generation.get(),
        "flags": format!("{:#x}", d.flags.get()), "payload_format": d.payload_format.get(), "height": d.height.get(),
        "depth": d.depth.get(), "entries_count": d.entries.get(), "eattr": d.eattr.get(),
        "bitmap_state": layout.state(dev, BlockAddr::new(d.num.addr.get()))?.map(|s| format!("{s:?}").to_lowercase()),
    });
    if let Value::Object(fields) = fields {
        out.extend(fields);
    }
    let is_dir = d.mode.get() & 0o170000 == 0o040000;
    if d.height.get() > 0 {
        out.insert("pointers".into(), pointers(bytes, DINODE_SIZE));
    } else if d.flags().has(DiFlags::EXHASH) {
        out.insert(
            "hash_table".into(),
            pointers(&bytes[..DINODE_SIZE + (d.size.get() as usize).min(bytes.len() - DINODE_SIZE)], DINODE_SIZE),
        );
    } else if is_dir {
        out.insert("entries".into(), json!(entries(bytes, DINODE_SIZE)));
    }
    Ok(())
}

/// Pointers that are not 0, as runs: [first slot, address, how many].
fn pointers(bytes: &[u8], start: usize) -> Value {
    let mut runs: Vec<[u64; 3]> = Vec::new();
    for slot in 0..(bytes.len() - start) / 8 {
        let Some(addr) = get_pointer(bytes, start, slot) else { continue };
        match runs.last_mut() {
            Some([first, from, n]) if *first + *n == slot as u64 && *from + *n == addr.get() => *n += 1,
            _ => runs.push([slot as u64, addr.get(), 1]),
        }
    }
    json!(runs)
}

/// The entries of one block, as far as its chain holds together.
fn entries(bytes: &[u8], start: usize) -> Vec<Value> {
    let mut out = Vec::new();
    let mut at = start;
    while at + DIRENT_SIZE <= bytes.len() {
        let e = Dirent::view(&bytes[at..]);
        let (len, name_len) = (usize::from(e.rec_len.get()), usize::from(e.name_len.get()));
        if len < DIRENT_SIZE || at + len > bytes.len() {
            out.push(json!({ "broken_at": at, "rec_len": len }));
            break;
        }
        if e.inum.get().is_some() && DIRENT_SIZE + name_len <= len {
            let name = &bytes[at + DIRENT_SIZE..at + DIRENT_SIZE + name_len];
            out.push(json!({
                "name": String::from_utf8_lossy(name), "addr": e.inum.addr.get(), "formal": e.inum.formal.get(),
                "hash": format!("{:08x}", e.hash.get()), "type": e.kind.get(), "offset": at, "rec_len": len,
            }));
        }
        at += len;
    }
    out
}

/// All entries of a directory.
fn entries_of(dev: &dyn BlockDevice, layout: &Layout, addr: u64) -> Result<Vec<Value>> {
    let bytes = read(dev, layout, addr)?;
    let at = BlockAddr::new(addr).ok_or(Error::NotFound)?;
    MetaHeader::check(&bytes, at, MetaType::Dinode)?;
    let d = Dinode::view(&bytes);
    if d.mode.get() & 0o170000 != 0o040000 {
        return Err(Error::NotADirectory);
    }
    if !d.flags().has(DiFlags::EXHASH) {
        return Ok(entries(&bytes, DINODE_SIZE));
    }
    let table = layout.contents(dev, at)?;
    let mut all = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for slot in table.chunks_exact(8) {
        let mut leaf = get_u64(slot, 0);
        while leaf != 0 && seen.insert(leaf) {
            let bytes = read(dev, layout, leaf)?;
            all.extend(entries(&bytes, LEAF_SIZE));
            leaf = Leaf::view(&bytes).next.get();
        }
    }
    Ok(all)
}

fn rgrp(dev: &dyn BlockDevice, layout: &Layout, n: usize) -> Result<Value> {
    let extent = layout.rgrps().get(n).ok_or(Error::NotFound)?;
    let bytes = read(dev, layout, extent.addr.get())?;
    let h = RgrpHeader::view(&bytes);
    let counts =
        [BlkState::Free, BlkState::Used, BlkState::Unlinked, BlkState::Dinode].map(|state| layout.count(dev, n, state));
    let [free, used, unlinked, dinodes] = counts;
    Ok(json!({
        "rgrp": n, "addr": extent.addr.get(), "length": extent.length, "data0": extent.data0.get(), "data": extent.data,
        "header": { "flags": h.flags.get(), "free": h.free.get(), "dinodes": h.dinodes.get(), "skip": h.skip.get(),
            "igeneration": h.igeneration.get(), "crc": format!("{:08x}", h.crc.get()), "crc_right": h.crc.get() == h.checksum() },
        "bitmap": { "free": free?, "used": used?, "unlinked": unlinked?, "dinodes": dinodes? },
    }))
}

fn log_header(bytes: &[u8]) -> Value {
    let h = LogHeader::view(bytes);
    json!({
        "sequence": h.sequence.get(), "flags": format!("{:#x}", h.flags.get()), "tail": h.tail.get(), "blkno": h.blkno.get(),
        "valid": LogHeader::is_valid(bytes), "local_total": h.local_total.get(), "local_free": h.local_free.get(),
        "local_dinodes": h.local_dinodes.get(), "jinode": h.jinode.get(), "seconds": h.sec.get(),
    })
}

fn journal(dev: &dyn BlockDevice, layout: &Layout, n: u32) -> Result<Value> {
    let extents = layout.journal(n).ok_or(Error::NotFound)?;
    let mut records = Vec::new();
    let (mut position, mut newest) = (0u32, None);
    for extent in extents {
        for i in 0..extent.blocks {
            let bytes = read(dev, layout, extent.addr.get() + u64::from(i))?;
            let kind =
                MetaType::from_raw(MetaHeader::view(&bytes).kind.get()).filter(|_| MetaHeader::has_magic(&bytes));
            match kind {
                Some(MetaType::LogHeader) => {
                    let sequence = LogHeader::view(&bytes).sequence.get();
                    if LogHeader::is_valid(&bytes) && newest.as_ref().is_none_or(|(s, _, _)| sequence >= *s) {
                        newest = Some((sequence, position, log_header(&bytes)));
                    }
                    // Headers that mkfs wrote are all alike.
                    if LogHeader::view(&bytes).sec.get() != 0 {
                        records.push(json!({ "block": position, "header": log_header(&bytes) }));
                    }
                }
                Some(MetaType::LogDescriptor) => {
                    let d = LogDescriptor::view(&bytes);
                    let (kind, width) = match d.kind.get() {
                        LD_METADATA => ("metadata", 8),
                        LD_JDATA => ("jdata", 16),
                        LD_REVOKE => ("revoke", 8),
                        _ => ("unknown", 8),
                    };
                    let here = (d.data1.get() as usize).min((bytes.len() - LD_ITEMS) / width);
                    let items: Vec<u64> = (0..here).map(|i| get_u64(&bytes, LD_ITEMS + width * i)).collect();
                    records.push(json!({ "block": position, "descriptor": kind, "length": d.length.get(), "items": d.data1.get(), "blocks": items }));
                }
                _ => {}
            }
            position = position.checked_add(1).ok_or_else(|| {
                Error::corrupt(extent.addr, CorruptKind::Journal("more blocks than a journal can have"))
            })?;
        }
    }
    Ok(
        json!({ "journal": n, "blocks": position, "head": newest.map(|(_, at, h)| json!({ "block": at, "header": h })), "records": records }),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The tree as text: one line a value, deeper levels indented; lists of numbers on one line.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    lines(value, 0, &mut out);
    out
}

fn lines(value: &Value, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Object(_) => {
                        out.push_str(&format!("{pad}{name}:\n"));
                        lines(value, depth + 1, out);
                    }
                    Value::Array(items) if items.iter().any(Value::is_object) => {
                        out.push_str(&format!("{pad}{name}: {}\n", items.len()));
                        lines(value, depth + 1, out);
                    }
                    _ => out.push_str(&format!("{pad}{name:<16} {}\n", plain(value))),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(map) if map.values().all(|v| !v.is_object()) => {
                        let line: Vec<String> = map.iter().map(|(n, v)| format!("{n}={}", plain(v))).collect();
                        out.push_str(&format!("{pad}{}\n", line.join(" ")));
                    }
                    _ => {
                        out.push_str(&format!("{pad}-\n"));
                        lines(item, depth + 1, out);
                    }
                }
            }
        }
        _ => out.push_str(&format!("{pad}{}\n", plain(value))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}
