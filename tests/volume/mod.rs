//! Volumes for tests: made by the stock mkfs, opened in memory, judged by the stock fsck.
#![allow(dead_code, reason = "each test binary uses a part")]

use gfs2r::clock::SimClock;
use gfs2r::device::MemoryDevice;
use gfs2r::fs::{Caller, Fs};
use gfs2r::volume::{OpenOptions, Opened, open};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

pub const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// A volume on a disk in memory.
pub struct Volume {
    pub dev: Arc<MemoryDevice>,
    pub opened: Opened,
}

impl Volume {
    /// A fresh one with 8 MiB of journal; `None`, loudly, where there is no mkfs.gfs2.
    pub fn make(block_size: u32, megabytes: u64, mkfs: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("image");
        std::fs::File::create(&path).and_then(|f| f.set_len(megabytes << 20)).expect("image");
        let size = block_size.to_string();
        let args = ["-O", "-q", "-p", "lock_nolock", "-J", "8", "-b", &size];
        let output = match Command::new("mkfs.gfs2").args(args).args(mkfs).arg(&path).output() {
            Ok(output) => output,
            Err(e) => {
                eprintln!("SKIPPED: mkfs.gfs2 cannot be run: {e}");
                return None;
            }
        };
        assert!(output.status.success(), "mkfs.gfs2: {}", String::from_utf8_lossy(&output.stderr));
        Some(Self::mount(Arc::new(MemoryDevice::load(&path).expect("image"))))
    }

    pub fn mount(dev: Arc<MemoryDevice>) -> Self {
        let opened = open(dev.clone(), &OpenOptions::default(), Arc::new(SimClock::new(1_700_000_000)));
        Self { dev, opened: opened.unwrap_or_else(|e| panic!("open: {e}")) }
    }

    pub fn fs(&self) -> &Arc<Fs> {
        &self.opened.fs
    }

    /// Closes the volume and opens it again.
    pub fn remount(self) -> Self {
        self.opened.close().expect("close");
        Self::mount(self.dev)
    }

    /// Closes the volume; the stock fsck must find nothing.
    pub fn finish(self) {
        self.opened.close().expect("close");
        fsck(&self.dev);
    }
}

/// Runs `fsck.gfs2 -n`, which must find nothing.
pub fn fsck(dev: &MemoryDevice) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("image");
    dev.save(&path).expect("image");
    fsck_file(&path);
}

fn fsck_file(path: &Path) {
    let output = match Command::new("fsck.gfs2").arg("-n").arg(path).output() {
        Ok(output) => output,
        Err(e) => return eprintln!("SKIPPED: fsck.gfs2 cannot be run: {e}"),
    };
    if !output.status.success() {
        if let Ok(keep) = std::env::var("KEEP_IMAGE") {
            std::fs::copy(path, keep).expect("copy of the image");
        }
        let text = String::from_utf8_lossy(&output.stdout);
        panic!(
            "fsck.gfs2 -n: {}\n{}\n{}",
            output.status,
            &text[..text.len().min(4000)],
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
