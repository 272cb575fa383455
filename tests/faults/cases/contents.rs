//! Contents: reading, writing, truncating, allocating, punching.

use super::{Case, Silent, digest, parts, several, whole};
use crate::stage::{ANN, Ctx, pattern};
use gfs2r::error::Result;
use gfs2r::file::Seek;
use gfs2r::fs::{OpenHow, SetAttr};

fn truncate(c: &Ctx<'_>, path: &str, size: u64) -> Result<String> {
    let set = SetAttr { size: Some(size), ..SetAttr::default() };
    c.on(path, |node| c.fs.setattr(&c.caller, node, &set)).quiet()
}

fn allocate(c: &Ctx<'_>, path: &str, offset: u64, len: u64, mode: i32) -> Result<String> {
    c.on(path, |node| c.fs.fallocate(&c.caller, node, offset, len, mode)).quiet()
}

fn write(c: &Ctx<'_>, path: &str, offset: u64, len: u64) -> Result<String> {
    c.write(path, offset, &pattern(77, len as usize)).map(|n| format!("{n} bytes"))
}

fn writing() -> Vec<Case> {
    vec![
        parts("write, stuffed", &["/small"], |c| write(c, "/small", 40, 100)),
        parts("write, unstuffs", &["/small"], |c| write(c, "/small", 90, 2 * c.bs)),
        parts("write, the first blocks", &["/empty"], |c| write(c, "/empty", 0, 3 * c.bs)),
        parts("write over old bytes", &["/mid"], |c| write(c, "/mid", c.bs / 2, 2 * c.bs)),
        parts("write at the end", &["/mid"], |c| write(c, "/mid", 5 * c.bs + 17, 2 * c.bs)),
        parts("write, the tree gets taller", &["/mid"], |c| write(c, "/mid", c.beyond(1) + 5, c.bs)),
        parts("write, much taller", &["/mid"], |c| write(c, "/mid", c.beyond(3) + 5, 2 * c.bs)),
        parts("write into holes", &["/frag"], |c| write(c, "/frag", c.bs, 12 * c.bs)),
        parts("write a lot", &["/empty"], |c| write(c, "/empty", 0, 300 * c.bs)),
        parts("write, journaled", &["/jd"], |c| write(c, "/jd", c.bs / 2, 3 * c.bs)),
        parts("write, journaled, at the end", &["/jd"], |c| write(c, "/jd", 6 * c.bs, 3 * c.bs)),
        parts("write, setuid goes", &["/priv"], |c| {
            c.on("/priv", |node| c.fs.write(&ANN, node, 0, b"abc", true)).quiet()
        }),
        Case { durable: true, ..parts("write, synchronous", &["/synced"], |c| write(c, "/synced", c.bs, 4 * c.bs)) },
        several(parts("append", &["/mid"], |c| {
            c.on("/mid", |node| c.fs.append(&c.caller, node, &pattern(5, c.bs as usize), false)).map(|n| n.to_string())
        })),
    ]
}

fn sizing() -> Vec<Case> {
    vec![
        parts("truncate, stuffed", &["/small"], |c| truncate(c, "/small", 30)),
        parts("truncate to nothing", &["/mid"], |c| truncate(c, "/mid", 0)),
        parts("truncate within a block", &["/mid"], |c| truncate(c, "/mid", c.bs + 100)),
        parts("truncate, long", &["/long"], |c| truncate(c, "/long", 10)),
        parts("truncate, tall", &["/deep"], |c| truncate(c, "/deep", c.bs)),
        parts("truncate, tall, to nothing", &["/deep"], |c| truncate(c, "/deep", 0)),
        parts("truncate, fragments", &["/frag"], |c| truncate(c, "/frag", 9 * c.bs)),
        parts("truncate, journaled", &["/jd"], |c| truncate(c, "/jd", c.bs + 5)),
        parts("truncate up, stuffed", &["/small"], |c| truncate(c, "/small", 200)),
        parts("truncate up, unstuffs", &["/small"], |c| truncate(c, "/small", 5 * c.bs)),
        parts("truncate up", &["/mid"], |c| truncate(c, "/mid", c.beyond(2) + 1)),
        parts("open with O_TRUNC", &["/frag2"], |c| {
            let how = OpenHow { write: true, append: false, truncate: true };
            c.on("/frag2", |node| c.fs.open(&c.caller, node, how)).quiet()
        }),
        parts("fallocate, stuffed", &["/small"], |c| allocate(c, "/small", 50, 150, 0)),
        parts("fallocate", &["/mid"], |c| allocate(c, "/mid", 4 * c.bs, 20 * c.bs, 0)),
        parts("fallocate, size kept", &["/mid"], |c| allocate(c, "/mid", 4 * c.bs, 20 * c.bs, 1)),
        parts("fallocate, unstuffs", &["/small"], |c| allocate(c, "/small", 50, 6 * c.bs, 0)),
        parts("fallocate, tall", &["/small"], |c| allocate(c, "/small", c.beyond(1) - c.bs, 3 * c.bs, 0)),
        parts("fallocate, holes", &["/frag"], |c| allocate(c, "/frag", 0, 31 * c.bs, 0)),
        parts("punch, stuffed", &["/small"], |c| allocate(c, "/small", 10, 50, 3)),
        parts("punch", &["/mid"], |c| allocate(c, "/mid", c.bs / 2, 3 * c.bs, 3)),
        parts("punch, fragments", &["/frag"], |c| allocate(c, "/frag", 5, 30 * c.bs, 3)),
        parts("punch, all of a tall one", &["/deep"], |c| allocate(c, "/deep", 0, c.beyond(2) + 9 * c.bs, 3)),
        parts("punch, journaled", &["/jd"], |c| allocate(c, "/jd", 9, 3 * c.bs, 3)),
        parts("zero, stuffed", &["/small"], |c| allocate(c, "/small", 10, 50, 16)),
        parts("zero", &["/mid"], |c| allocate(c, "/mid", c.bs / 2, 8 * c.bs, 16)),
        parts("zero, fragments", &["/frag"], |c| allocate(c, "/frag", c.bs / 2, 9 * c.bs, 17)),
    ]
}

fn reading() -> Vec<Case> {
    fn read(c: &Ctx<'_>, path: &str, offset: u64, len: u64) -> Result<String> {
        let mut buf = vec![0xaa; len as usize];
        let n = c.on(path, |node| c.fs.read(node, offset, &mut buf))?;
        Ok(digest(&buf[..n]))
    }
    vec![
        whole("read, stuffed", |c| read(c, "/small", 0, 4096)),
        whole("read", |c| read(c, "/mid", 0, 8 * c.bs)),
        whole("read, long", |c| read(c, "/long", 0, 150 * c.bs)),
        whole("read, tall", |c| read(c, "/deep", c.beyond(2) - c.bs, 4 * c.bs)),
        whole("read, fragments", |c| read(c, "/frag", 0, 60 * c.bs)),
        whole("read, journaled", |c| read(c, "/jd", 0, 60 * c.bs)),
        whole("seek", |c| {
            let at = |what| c.on("/deep", |node| c.fs.seek(node, 5 * c.bs, what));
            Ok(format!("{} {}", at(Seek::Data)?, at(Seek::Hole)?))
        }),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    [writing(), sizing(), reading()].concat()
}
