//! fsck.gfs2r beside fsck.gfs2 on a healthy volume, cold cache, in turn: `cargo bench -p gfs2r-fsck --bench check -- [FILES ...]
//! [--block-size=N] [--keep=DIR] [--json]`.
//!
//! The volume is made in `TMPDIR` by our own engine: empty files, one hundred directories. Emptying the page cache needs root;
//! without it both tools run warm. The best time of each and its greatest peak memory (`ru_maxrss`, by /usr/bin/time) count.
//! With --keep the images stay in DIR and serve again.

use gfs2r::clock::SimClock;
use gfs2r::device::{FileDevice, OpenMode};
use gfs2r::fs::{Caller, NewInode};
use gfs2r::volume::{OpenOptions, open};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const DIRECTORIES: u64 = 100;
const ROUNDS: usize = 3;

/// One run: seconds and KiB.
type Cost = (f64, u64);

fn make(path: &Path, files: u64, block_size: u32) {
    let file = std::fs::File::create(path).expect("an image file");
    // A block each, some for the leaves, and room to spare.
    file.set_len((1 << 30) + files * u64::from(block_size) * 3 / 2).expect("a sparse file");
    let device = Arc::new(FileDevice::open(path, OpenMode::ReadWrite).expect("the image opens"));
    let small = gfs2r_mkfs::Options::default();
    let block_size = gfs2r::ids::BlockSize::new(block_size).expect("a legal block size");
    let options = gfs2r_mkfs::Options { block_size, lock_proto: "lock_nolock".into(), ..small };
    gfs2r_mkfs::format_device(&*device, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
    let opened = open(device, &OpenOptions::default(), Arc::new(SimClock::new(1_700_000_000))).expect("it mounts");
    let fs = &opened.fs;
    for dir in 0..DIRECTORIES.min(files) {
        let name = format!("directory{dir}");
        let parent = fs.make(&ROOT, fs.root(), name.as_bytes(), &NewInode::Dir(0o755)).expect("mkdir").inum.addr;
        for file in 0..files / DIRECTORIES.min(files) {
            let made =
                fs.make(&ROOT, parent, format!("file{file}").as_bytes(), &NewInode::File(0o644)).expect("create");
            fs.forget(made.inum.addr, 1).expect("forget");
        }
        fs.forget(parent, 1).expect("forget");
    }
    opened.close().expect("close");
}

fn drop_caches() -> bool {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn run(program: &str, options: &[&str], image: &Path) -> Cost {
    let start = Instant::now();
    let mut child = Command::new("/usr/bin/time");
    child.args(["-f", "%M", program]).args(options).arg(image);
    let done = child.stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("it runs (needs /usr/bin/time)");
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {options:?}: {said}");
    (seconds, said.lines().last().and_then(|line| line.trim().parse().ok()).expect("KiB"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = arguments.iter().find_map(|a| a.strip_prefix("--keep=")).map(PathBuf::from);
    let block_sizes: Vec<u32> = match arguments.iter().find_map(|a| a.strip_prefix("--block-size=")) {
        Some(size) => vec![size.parse().expect("a block size")],
        None => vec![4096, 1024],
    };
    let numbers: Vec<u64> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    let sizes = if numbers.is_empty() { vec![0, 1_000, 100_000, 1_000_000] } else { numbers };
    let json = arguments.iter().any(|a| a == "--json");
    let ours = Path::new(env!("CARGO_BIN_EXE_fsck-gfs2r"));
    if !json {
        println!(
            "{:>9} {:>5}  {:>8} {:>8} {:>6}  {:>8} {:>8} {:>6}",
            "files", "block", "ours", "stock", "times", "ours", "stock", "memory"
        );
    }
    for files in sizes {
        for &block_size in &block_sizes {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let image = keep.as_deref().unwrap_or(dir.path()).join(format!("volume-{files}-{block_size}"));
            if !image.exists() {
                make(&image, files, block_size);
            }
            let (mut our, mut stock) = ((f64::MAX, 0), (f64::MAX, 0));
            let mut cold = true;
            for _ in 0..ROUNDS {
                let better = |best: Cost, new: Cost| (best.0.min(new.0), best.1.max(new.1));
                cold &= drop_caches();
                our = better(our, run(&ours.to_string_lossy(), &["-n"], &image));
                cold &= drop_caches();
                stock = better(stock, run("fsck.gfs2", &["-n", "-f"], &image));
            }
            let (times, memory) = (stock.0 / our.0, our.1 as f64 / stock.1 as f64);
            if json {
                println!(
                    "{{\"files\":{files},\"block_size\":{block_size},\"cold\":{cold},\"seconds\":{:.3},\"stock_seconds\":{:.3},\"kib\":{},\"stock_kib\":{}}}",
                    our.0, stock.0, our.1, stock.1
                );
            } else {
                let note = if cold { "" } else { "  (warm)" };
                println!(
                    "{files:>9} {block_size:>5}  {:>6.2} s {:>6.2} s {times:>5.1}x  {:>5} MiB {:>4} MiB {memory:>5.2}x{note}",
                    our.0,
                    stock.0,
                    our.1 >> 10,
                    stock.1 >> 10
                );
            }
        }
    }
}
