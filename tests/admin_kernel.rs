//! Growing and adding journals beside the stock tools, which need a kernel's mount: same resource groups, and the kernel takes what
//! we made. The kernel runs in User-Mode Linux; where it cannot be had, that is said.

use gfs2r::admin::{grow, jadd, offline};
use gfs2r::device::{FileDevice, OpenMode};
use gfs2r::format::rgrp::RgrpExtent;
use gfs2r::volume::{Layout, OpenOptions};
use gfs2r_uml::{Job, Uml, tools};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn groups(image: &Path) -> Vec<RgrpExtent> {
    let device = FileDevice::open(image, OpenMode::ReadOnly).expect("opens");
    Layout::read(Arc::new(device)).expect("readable").rgrps().to_vec()
}

fn ours(image: &Path, work: impl FnOnce(&gfs2r::fs::Fs)) {
    let offline = offline::open(image, false, &OpenOptions::default()).expect("opens");
    work(&offline.opened.fs);
    offline.opened.close().expect("close");
}

#[track_caller]
fn is_clean(image: &Path) {
    let fsck = tools::fsck(image, &["-n"]).expect("fsck.gfs2 runs");
    assert_eq!(fsck.status, Some(0), "{}:\n{}", image.display(), fsck.text);
}

#[test]
fn grown_as_the_stock_tool_grows() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    // Block size, MiB before, MiB after.
    for (n, (bs, before, after)) in
        [(4096, 64, 160), (4096, 64, 9000), (1024, 64, 3000), (512, 80, 700)].into_iter().enumerate()
    {
        let [theirs, mine] = ["theirs", "mine"].map(|who| dir.path().join(format!("{who}{n}")));
        tools::mkfs(&theirs, before << 20, &["-p", "lock_nolock", "-J", "8", "-b", &bs.to_string()]).expect("mkfs");
        std::fs::copy(&theirs, &mine).expect("copy");
        for image in [&theirs, &mine] {
            File::options().write(true).open(image).and_then(|f| f.set_len(after << 20)).expect("larger");
        }
        let script = "mount -t gfs2 /dev/ubda /mnt/gfs && gfs2_grow /mnt/gfs && umount /mnt/gfs";
        uml.run(&Job::new(script).disk(&theirs).limit(Duration::from_secs(90)))
            .and_then(|o| o.success())
            .expect("grows");
        ours(&mine, |fs| {
            grow::grow(fs, &grow::Request::default()).expect("grows");
        });
        assert_eq!(groups(&mine), groups(&theirs), "block size {bs}, {before} to {after}");
        is_clean(&mine);
        // The kernel fills what we made, and grows it further.
        File::options().write(true).open(&mine).and_then(|f| f.set_len((after + 100) << 20)).expect("larger");
        let script = "mount -t gfs2 /dev/ubda /mnt/gfs && head -c 90000000 /dev/zero > /mnt/gfs/f && sync && gfs2_grow /mnt/gfs \
                      && umount /mnt/gfs";
        let outcome = uml
            .run(&Job::new(script).disk(&mine).limit(Duration::from_secs(90)))
            .and_then(|o| o.success())
            .expect("used");
        assert!(outcome.trouble().is_empty(), "{}", outcome.report());
        is_clean(&mine);
    }
}

#[test]
fn the_kernel_mounts_with_a_journal_of_ours() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    for bs in [512, 4096] {
        let image = dir.path().join(format!("image{bs}"));
        tools::mkfs(&image, 400 << 20, &["-p", "lock_nolock", "-J", "8", "-b", &bs.to_string()]).expect("mkfs");
        ours(&image, |fs| {
            let request = jadd::Request { count: 2, journal_mib: 32, seed: 5, ..jadd::Request::default() };
            assert_eq!(jadd::jadd(fs, &request).expect("room"), jadd::Added { old: 1, new: 3 });
        });
        is_clean(&image);
        let script = "for jid in 2 1 0; do mount -t gfs2 -o hostdata=jid=$jid,quota=on /dev/ubda /mnt/gfs \
                      && head -c 5000000 /dev/urandom > /mnt/gfs/f$jid && sync && umount /mnt/gfs || exit 1; done; \
                      mount -t gfs2 /dev/ubda /mnt/gfs && gfs2_jadd -J 32 /mnt/gfs && umount /mnt/gfs";
        let outcome = uml
            .run(&Job::new(script).disk(&image).limit(Duration::from_secs(90)))
            .and_then(|o| o.success())
            .expect("used");
        assert!(outcome.trouble().is_empty(), "{}", outcome.report());
        is_clean(&image);
        ours(&image, |fs| assert_eq!(jadd::count(fs).expect("readable"), 4));
    }
}
