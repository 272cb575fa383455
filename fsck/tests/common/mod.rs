//! What the tests share: images, and a hand that plants faults in them.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod agree;
pub(crate) mod plant;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use gfs2r::device::{BlockDevice, MemoryDevice};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a piece of an image file.
const PIECE: usize = 4096;

/// A volume that the Linux kernel filled (`images/populate.py`), from `images/NAME.gz`: the size of the device as 8 bytes,
/// then pieces of 4096 bytes that are not all zero, each after its number as 8 bytes; big-endian; compressed with gzip.
///
/// `full.512`, `full.1024`, `full.4096` were unmounted; `dirty.1024` and `dirty.4096` were left in the middle of work. Their
/// journals hold only what is needed: the newest header, or all from tail to head.
pub(crate) fn image(name: &str) -> MemoryDevice {
    let path = images().join(format!("{name}.gz"));
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    let number = |at: usize| bytes[at..at + 8].iter().fold(0, |n, &b| n << 8 | u64::from(b));
    let device = MemoryDevice::new(number(0));
    for at in (8..bytes.len()).step_by(8 + PIECE) {
        device.write(number(at) * PIECE as u64, &bytes[at + 8..at + 8 + PIECE]).expect("inside the device");
    }
    device
}

/// Writes a device in the form that [`image`] reads.
pub(crate) fn save(device: &MemoryDevice, path: &Path) {
    let mut out = GzEncoder::new(File::create(path).expect("create"), flate2::Compression::best());
    let mut put = |bytes: &[u8]| out.write_all(bytes).expect("write");
    put(&device.size().to_be_bytes());
    for number in 0..device.size() / PIECE as u64 {
        let mut piece = [0; PIECE];
        device.read(number * PIECE as u64, &mut piece).expect("inside the device");
        if piece.iter().any(|&b| b != 0) {
            put(&number.to_be_bytes());
            put(&piece);
        }
    }
    out.finish().expect("write");
}

pub(crate) fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

/// True when the stock tool is there; says so loudly when it is not.
pub(crate) fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("-V").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {tool} is not installed");
    }
    found
}

/// A fresh volume made by mkfs.gfs2; `None` when that is not installed.
pub(crate) fn fresh(mib: u64, options: &[&str]) -> Option<MemoryDevice> {
    if !have("mkfs.gfs2") {
        return None;
    }
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    file.as_file().set_len(mib << 20).expect("set length");
    let made =
        Command::new("mkfs.gfs2").args(["-q", "-O", "-p", "lock_nolock"]).args(options).arg(file.path()).output();
    let made = made.expect("mkfs.gfs2 runs");
    assert!(made.status.success(), "mkfs.gfs2 {options:?}: {}", String::from_utf8_lossy(&made.stderr));
    Some(MemoryDevice::load(file.path()).expect("load"))
}

/// Exit status of `fsck.gfs2 -n` on a device; `None` when it is not installed.
pub(crate) fn stock_verdict(device: &MemoryDevice) -> Option<i32> {
    if !have("fsck.gfs2") {
        return None;
    }
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    device.save(file.path()).expect("save");
    Command::new("fsck.gfs2").arg("-n").arg(file.path()).output().expect("fsck.gfs2 runs").status.code()
}
