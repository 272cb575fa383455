//! What several tests need.
#![allow(dead_code, reason = "each test uses its own part")]

use gfs2r::device::{BlockDevice, MemoryDevice};
use std::path::Path;
use std::process::Command;

/// Makes a volume with 8 MiB journals.
pub(crate) fn format(dev: &dyn BlockDevice, block_size: u32, journals: u32, format_number: u32, seed: u64) {
    let small = gfs2r_mkfs::Options::small(block_size).expect("a legal block size");
    let options =
        gfs2r_mkfs::Options { journals, format: format_number, seed, lock_proto: "lock_nolock".into(), ..small };
    gfs2r_mkfs::format_device(dev, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
}

/// Our own checks, read-only; a dirty journal is replayed in memory. Panics with all findings.
pub(crate) fn check(dev: &dyn BlockDevice, when: &str) {
    let options = gfs2r_fsck::Options { ignore_unlinked: true, ..Default::default() };
    let report = gfs2r_fsck::check(dev, &options).unwrap_or_else(|e| panic!("{when}: the checker cannot check: {e}"));
    let found: Vec<String> = report.errors().take(20).map(|i| format!("{i}")).collect();
    assert!(found.is_empty(), "{when}: the checker found:\n{}", found.join("\n"));
}

/// True when the stock tools are there; says so loudly when not.
pub(crate) fn have_stock_tools() -> bool {
    let have = Path::new("/usr/sbin/fsck.gfs2").exists() || Path::new("/sbin/fsck.gfs2").exists();
    if !have {
        println!("SKIPPED: the stock fsck.gfs2 is not installed (apt-get install gfs2-utils)");
    }
    have
}

/// `fsck.gfs2 -n` on a copy of the disk must find nothing.
pub(crate) fn stock_fsck(dev: &MemoryDevice, when: &str) {
    if !have_stock_tools() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let image = dir.path().join("image");
    dev.save(&image).expect("the image is written");
    stock_fsck_file(&image, when);
}

/// The same on an image file.
pub(crate) fn stock_fsck_file(image: &Path, when: &str) {
    let out = Command::new("fsck.gfs2").arg("-n").arg(image).output().expect("fsck.gfs2 runs");
    assert!(
        out.status.success(),
        "{when}: fsck.gfs2 -n: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
