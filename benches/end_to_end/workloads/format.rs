//! A volume of 1 TiB: made, mounted, unmounted.

use super::Suite;
use crate::measure::{Bench, Unit};
use crate::targets::{Kind, detach};
use std::fs::File;
use std::io;

pub(super) const FORMAT: Suite = Suite {
    name: "1 TiB, a sparse image",
    rows: &["mkfs", "mount", "unmount"],
    fits: |kind| !matches!(kind, Kind::Floor | Kind::Raw),
    needs_mount: false,
    run: format,
};

fn format(bench: &mut Bench<'_>) -> io::Result<()> {
    let name = bench.target.kind.name();
    let image = bench.target.dir.join(format!("{name}-1T.img"));
    let root = bench.target.dir.join(format!("{name}-1T"));
    std::fs::create_dir_all(&root)?;
    File::create(&image)?.set_len(1 << 40)?;
    bench.time("mkfs", Unit::Ms, 1.0, |t| {
        let Some(mut mkfs) = t.mkfs(&image, true) else { return Ok(()) };
        let out = mkfs.output()?;
        if out.status.success() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&out.stderr))) }
    })?;
    if bench.target.kind != Kind::Gfs2 {
        let disk = File::open(&image)?;
        disk.sync_all()?;
        rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::DontNeed)?;
        drop(disk);
        let daemon = bench.time("mount", Unit::Ms, 1.0, |t| t.mount_disk(&image, &root))?;
        bench.time("unmount", Unit::Ms, 1.0, |t| t.unmount_disk(&root, daemon))?;
        loose(&image)?;
    }
    std::fs::remove_file(&image)
}

/// Lets go of the loop devices of an image.
fn loose(image: &std::path::Path) -> io::Result<()> {
    for entry in std::fs::read_dir("/sys/block")?.flatten() {
        let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if std::path::Path::new(backing.trim_end()) == image {
            detach(&std::path::Path::new("/dev").join(entry.file_name()))?;
        }
    }
    Ok(())
}
