//! What reading and writing files costs besides the device: `cargo bench --bench file`. The disk is in memory.
//! Needs mkfs.gfs2.

#[path = "../tests/volume/mod.rs"]
mod volume;

use gfs2r::device::AlignedBuf;
use gfs2r::file;
use gfs2r::fs::NewInode;
use gfs2r::ids::Inum;
use std::time::Instant;
use volume::{ROOT, Volume};

fn new_file(v: &Volume, name: &str) -> Inum {
    let root = v.fs().volume().root.addr;
    v.fs().make(&ROOT, root, name.as_bytes(), &NewInode::File(0o644)).expect("create").inum
}

fn measure(what: &str, n: u64, mut f: impl FnMut(u64)) {
    let start = Instant::now();
    (0..n).for_each(&mut f);
    println!("{what:45} {:8} ns", start.elapsed().as_nanos() / u128::from(n));
}

fn main() {
    let Some(v) = Volume::make(4096, 2048, 1802) else { return };
    let vol = v.fs().volume().clone();
    let broken = "a healthy volume in memory";
    let inum = new_file(&v, "data");
    let mib = vec![5u8; 1 << 20];
    let mut inode = vol.exclusive(inum).expect(broken);
    let mut write = |offset: u64, bytes: &[u8]| {
        file::write(&vol, &mut inode, offset, bytes).expect(broken);
    };
    measure("write 1 MiB, growing", 256, |i| write(i << 20, &mib));
    measure("write 1 MiB, in place", 256, |i| write(i << 20, &mib));
    measure("write 4 KiB, in place, random", 50_000, |i| write((i * 7919 % 65536) << 12, &mib[..4096]));
    measure("write 4 KiB, growing", 20_000, |i| write((256 << 20) + (i << 12), &mib[..4096]));
    let end = (256 << 20) + (20_000 << 12);
    measure("write 100 bytes, growing", 50_000, |i| write(end + i * 100, &mib[..100]));
    drop(inode);
    vol.cache.data().write_all().expect(broken);
    let inode = vol.shared(inum).expect(broken);
    let mut buf = AlignedBuf::zeroed(1 << 20);
    measure("read 1 MiB", 256, |i| {
        file::read(&vol, &inode, i << 20, &mut buf).expect(broken);
    });
    measure("read 4 KiB, random", 50_000, |i| {
        file::read(&vol, &inode, (i * 7919 % 65536) << 12, &mut buf[..4096]).expect(broken);
    });
    drop(inode);
    let mut inode = vol.exclusive(inum).expect(broken);
    measure("truncate 340 MiB to nothing", 1, |_| file::truncate(&vol, &mut inode, 0).expect(broken));
    measure("allocate 1 GiB", 1, |_| file::allocate(&vol, &mut inode, 0, 1 << 30, false).expect(broken));
    measure("truncate 1 GiB to nothing", 1, |_| file::truncate(&vol, &mut inode, 0).expect(broken));
    drop(inode);
    let root = vol.root.addr;
    let mut made = Vec::new();
    measure("create, write 10 KiB", 10_000, |i| {
        let inum = new_file(&v, &format!("small{i}"));
        let mut inode = vol.exclusive(inum).expect(broken);
        file::write(&vol, &mut inode, 0, &mib[..10_240]).expect(broken);
        made.push(inum);
    });
    measure("delete it", 10_000, |i| {
        v.fs().unlink(root, format!("small{i}").as_bytes()).expect(broken);
        v.fs().forget(made[i as usize].addr, 1).expect(broken);
    });
    v.finish();
}
