//! A disk that becomes full under a kernel that collects writes: write(2) says so, what it accepted is there, and what a deletion
//! gives back can be used at once.

use crate::harness::*;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub fn run(t: &T) {
    for options in ["acl", "acl,transport=fuser"] {
        let m = Mounted::new("192M", options);
        let d = m.dir();
        let mut sizes = Vec::new();
        for piece in [1 << 20, 4096, 100_000] {
            sizes.push(fill(t, &d.join("fill"), piece));
            t.ok("unlink on a full disk", rustix::fs::unlink(d.join("fill")));
        }
        t.yes(&format!("each time the disk takes as much, but for a piece: {sizes:?}"), {
            let (least, most) = (sizes.iter().min().copied(), sizes.iter().max().copied());
            most.zip(least).is_some_and(|(most, least)| most - least < 1 << 20)
        });
        readers(t, &d);
        m.finish(t);
    }
}

/// Writes pieces until there is no room; the bytes that were accepted.
fn fill(t: &T, path: &Path, piece: usize) -> u64 {
    let f = create(path, 0o644).expect("create on a disk with room");
    let bytes: Vec<u8> = (0..piece).map(|i| (i % 251) as u8 + 1).collect();
    let mut at = 0;
    let said = loop {
        match f.write_at(&bytes, at) {
            Ok(n) => at += n as u64,
            Err(e) => break e.raw_os_error(),
        }
    };
    t.eq(&format!("pieces of {piece}: write says"), said, Some(Errno::NOSPC.raw_os_error()));
    t.ok("fsync: nothing accepted was lost", f.sync_all());
    t.eq("the size is what was accepted", f.metadata().map(|a| a.len()).ok(), Some(at));
    let mut wrong = 0;
    let mut buf = vec![0; piece];
    for start in (0..at).step_by(piece) {
        let len = (at - start).min(piece as u64) as usize;
        let read = f.read_exact_at(&mut buf[..len], start);
        wrong += u32::from(read.is_err() || buf[..len] != bytes[..len]);
    }
    t.eq("pieces that read back wrong", wrong, 0);
    t.ok("writing over what is there", f.write_all_at(&bytes, 0).and_then(|()| f.sync_all()));
    at
}

/// On a full disk reading goes on, also at the end of a file that is being written.
fn readers(t: &T, d: &Path) {
    let path = d.join("fill");
    let at = fill(t, &path, 65536);
    let f = open(&path, OFlags::WRONLY, 0).expect("open for writing");
    let reader = fs::File::open(&path).expect("open for reading");
    let mut buf = [0; 10];
    t.eq("a read at the end", reader.read_at(&mut buf, at).ok(), Some(0));
    t.eq("a read before it", reader.read_at(&mut buf, at - 5).ok(), Some(5));
    drop((f, reader));
    t.ok("unlink", rustix::fs::unlink(&path));
    t.ok("a small file at once", fs::write(d.join("small"), vec![5; 100_000]));
}
