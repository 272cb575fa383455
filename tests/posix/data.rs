//! Contents: holes, fallocate, direct and mapped I/O, copying, syncing.

use crate::harness::*;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

pub fn run(t: &T) {
    holes(t);
    allocation(t);
    direct(t);
    mapped(t);
    copying(t);
    syncing(t);
    sizes(t);
}

fn holes(t: &T) {
    let f = create(&t.dir().join("f"), 0o644).expect("create");
    f.write_all_at(&[1; 4096], 1 << 20).expect("write");
    f.set_len(4 << 20).expect("ftruncate");
    t.eq("data from the start", seek(&f, SeekFrom::Data(0)), Ok(1 << 20));
    t.eq("data inside", seek(&f, SeekFrom::Data((1 << 20) + 5)), Ok((1 << 20) + 5));
    t.eq("hole from the start", seek(&f, SeekFrom::Hole(0)), Ok(0));
    t.eq("hole from data", seek(&f, SeekFrom::Hole(1 << 20)), Ok((1 << 20) + 4096));
    t.err("data behind the last", seek(&f, SeekFrom::Data(2 << 20)), Errno::NXIO);
    t.eq("hole behind the last", seek(&f, SeekFrom::Hole(2 << 20)), Ok(2 << 20));
    t.err("data at the end", seek(&f, SeekFrom::Data(4 << 20)), Errno::NXIO);
    t.err("hole behind the end", seek(&f, SeekFrom::Hole(5 << 20)), Errno::NXIO);
    t.eq("the end", seek(&f, SeekFrom::End(0)), Ok(4 << 20));
    t.err("before the start", seek(&f, SeekFrom::Current(-(5 << 20))), Errno::INVAL);
    let mut buf = vec![9; 8192];
    t.ok("read across", f.read_exact_at(&mut buf, (1 << 20) - 4096));
    t.yes("zeroes, then data", buf[..4096] == [0; 4096] && buf[4096..] == [1; 4096]);
    t.yes("few blocks", rustix::fs::fstat(&f).expect("fstat").st_blocks < 100);
    let small = create(&t.dir().join("small"), 0o644).expect("create");
    small.write_all_at(b"abc", 0).expect("write");
    t.eq("data in a small file", seek(&small, SeekFrom::Data(1)), Ok(1));
    t.eq("hole at the end of a small file", seek(&small, SeekFrom::Hole(1)), Ok(3));
}

fn allocation(t: &T) {
    let d = t.dir();
    let f = create(&d.join("f"), 0o644).expect("create");
    let size = || rustix::fs::fstat(&f).expect("fstat").st_size;
    let blocks = || rustix::fs::fstat(&f).expect("fstat").st_blocks;
    t.ok("KEEP_SIZE", fallocate(&f, FallocateFlags::KEEP_SIZE, 0, 1 << 20));
    t.eq("size", size(), 0);
    t.yes("blocks", blocks() >= 2048);
    t.ok("plain", fallocate(&f, FallocateFlags::empty(), 0, 2 << 20));
    t.eq("size", size(), 2 << 20);
    f.write_all_at(&[7; 1 << 16], 0).expect("write");
    let before = blocks();
    t.ok("punch", fallocate(&f, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 8192));
    t.yes("blocks are freed", blocks() <= before - 16);
    let mut buf = vec![0; 16384];
    f.read_exact_at(&mut buf, 0).expect("read");
    t.yes("zeroes in the hole", buf[..4096] == [7; 4096] && buf[4096..12288] == [0; 8192] && buf[12288..] == [7; 4096]);
    t.ok("punch inside blocks", fallocate(&f, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 20_000, 100));
    f.read_exact_at(&mut buf, 16384).expect("read");
    t.yes("only that", buf[3615] == 7 && buf[3616..3716] == [0; 100] && buf[3716] == 7);
    t.err("punch without KEEP_SIZE", fallocate(&f, FallocateFlags::PUNCH_HOLE, 0, 10), Errno::OPNOTSUPP);
    match fallocate(&f, FallocateFlags::ZERO_RANGE, 30_000, 100) {
        Ok(()) => {
            f.read_exact_at(&mut buf[..100], 30_000).expect("read");
            t.yes("zeroed", buf[..100] == [0; 100]);
        }
        Err(e) => t.eq("ZERO_RANGE", e, Errno::OPNOTSUPP),
    }
    t.err("COLLAPSE_RANGE", fallocate(&f, FallocateFlags::COLLAPSE_RANGE, 0, 4096), Errno::OPNOTSUPP);
    t.err("INSERT_RANGE", fallocate(&f, FallocateFlags::INSERT_RANGE, 0, 4096), Errno::OPNOTSUPP);
    t.err("nothing", fallocate(&f, FallocateFlags::empty(), 0, 0), Errno::INVAL);
    let ro = fs::File::open(d.join("f")).expect("open");
    t.err("read-only handle", fallocate(&ro, FallocateFlags::empty(), 0, 10), Errno::BADF);
    let all = rustix::fs::statfs(&d).expect("statfs");
    let more = (all.f_bfree + 1) * 4096;
    t.err("more than there is", fallocate(&f, FallocateFlags::empty(), 2 << 20, more), Errno::NOSPC);
    t.ok("after no space", f.write_all_at(b"still", 0));
    t.ok("give it back", f.set_len(0));
    let small = create(&d.join("small"), 0o644).expect("create");
    small.write_all_at(b"0123456789", 0).expect("write");
    t.ok("punch a stuffed file", fallocate(&small, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 2, 3));
    let mut ten = [0; 10];
    small.read_exact_at(&mut ten, 0).expect("read");
    t.eq("its bytes", &ten, b"01\0\0\x0056789");
}

fn direct(t: &T) {
    let d = t.dir();
    let path = d.join("f");
    let f = match open(&path, OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT, 0o644) {
        Ok(f) => f,
        Err(e) => return t.eq("O_DIRECT", e, Errno::INVAL),
    };
    let mut aligned = gfs2r::device::AlignedBuf::zeroed(64 << 10);
    aligned.fill(5);
    t.ok("direct write", f.write_all_at(&aligned, 0));
    t.ok("direct write of the end", f.write_all_at(&aligned[..4096], 64 << 10));
    let mut buf = vec![0; 68 << 10];
    t.ok("buffered read", fs::File::open(&path).expect("open").read_exact(&mut buf));
    t.yes("sees it", buf.iter().all(|&b| b == 5));
    let b = fs::File::options().write(true).open(&path).expect("open");
    b.write_all_at(&[6; 4096], 8192).expect("write");
    t.ok("direct read", f.read_exact_at(&mut aligned[..12288], 0));
    t.yes("sees a buffered write", aligned[8191] == 5 && aligned[8192] == 6 && aligned[12287] == 6);
    t.eq("at the end", f.read_at(&mut aligned[..4096], 68 << 10).ok(), Some(0));
}

/// A mapping, by a program that may make one.
fn mapped(t: &T) {
    let path = t.dir().join("f");
    fs::write(&path, vec![b'a'; 20_000]).expect("write");
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),20000)\n\
                  assert m[0:3]==b'aaa'\nm[4090:4100]=b'0123456789'\nf.seek(4090)\nassert f.read(10)==b'0123456789'\n\
                  f.seek(10000)\nf.write(b'XYZ')\nf.flush()\nassert m[10000:10003]==b'XYZ'\nm.flush()\nm.close()\n";
    let mut python = std::process::Command::new("timeout");
    python.args(["-s", "KILL", "20", "python3", "-c", script]).arg(&path);
    match python.output() {
        Ok(out) if out.status.code() == Some(127) => println!("SKIPPED: mapped files (no python3)"),
        Ok(out) => t.yes(&format!("a mapping: {}", String::from_utf8_lossy(&out.stderr)), out.status.success()),
        Err(e) => t.yes(&format!("python3: {e}"), false),
    }
    let bytes = fs::read(&path).expect("read");
    t.eq("what was written through it", &bytes[4090..4100], b"0123456789".as_slice());
}

fn copying(t: &T) {
    let d = t.dir();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(d.join("a"), &bytes).expect("write");
    let (a, b) = (fs::File::open(d.join("a")).expect("open"), create(&d.join("b"), 0o644).expect("create"));
    let mut done = 0;
    while done < bytes.len() {
        match copy_file_range(&a, None, &b, None, bytes.len() - done) {
            Ok(0) | Err(_) => break,
            Ok(n) => done += n,
        }
    }
    t.eq("copy_file_range", done, bytes.len());
    t.yes("the copy is equal", fs::read(d.join("b")).expect("read") == bytes);
    t.eq("at the end", copy_file_range(&a, None, &b, None, 10), Ok(0));
    t.ok("fs::copy", fs::copy(d.join("a"), d.join("c")));
    t.yes("equal too", fs::read(d.join("c")).expect("read") == bytes);
    t.err("FICLONE", rustix::fs::ioctl_ficlone(&b, &a), Errno::OPNOTSUPP);
}

fn syncing(t: &T) {
    let d = t.dir();
    let mut f = create(&d.join("f"), 0o644).expect("create");
    f.write_all(b"x").expect("write");
    t.ok("fsync", f.sync_all());
    t.ok("fdatasync", f.sync_data());
    let dir = fs::File::open(&d).expect("open");
    t.ok("fsync of a directory", dir.sync_all());
    t.ok("fdatasync of a directory", dir.sync_data());
    t.ok("syncfs", rustix::fs::syncfs(&dir));
    let ro = fs::File::open(d.join("f")).expect("open");
    t.ok("fsync of a read-only handle", ro.sync_all());
}

fn sizes(t: &T) {
    let d = t.dir();
    let f = create(&d.join("f"), 0o644).expect("create");
    // Through every way a file grows: stuffed, one level, two, three.
    for at in [0u64, 3863, 3864, 4096, 500 << 12, 509 << 12, 600 << 12, (509 * 512) << 12, 1 << 40, 1 << 42] {
        t.ok(&format!("write at {at}"), f.write_all_at(b"0123456789", at));
        let mut buf = [0; 10];
        t.ok("read", f.read_exact_at(&mut buf, at));
        t.eq("the bytes", &buf, b"0123456789");
        t.eq("size", rustix::fs::fstat(&f).expect("fstat").st_size as u64, at + 10);
    }
    t.eq("behind the end", f.read_at(&mut [0; 10], 1 << 43).ok(), Some(0));
    t.err(
        "a directory is not read",
        std_result(fs::File::open(&d).expect("open").read(&mut [0; 10]).map(|_| ())),
        Errno::ISDIR,
    );
}
