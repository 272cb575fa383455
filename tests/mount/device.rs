//! Real block devices.

use crate::sandbox::Sandbox;

#[test]
fn a_block_device() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 128 << 20, "-p lock_nolock -t mycluster:data");
    let Some(device) = s.attach(&image) else { return };
    let d = device.as_path();
    s.sh("mount -t gfs2r \"$1\" mnt", &[d]).good();
    // In a mount namespace of its own, as here, it is not fuseblk: the daemon claims the device itself.
    assert_eq!(s.sh("findmnt -n -o SOURCE,FSTYPE mnt", &[]).good().trim(), format!("{} fuse.gfs2r", d.display()));
    // Who mounts it or makes a filesystem on it is refused.
    s.sh("mount.gfs2r \"$1\" mnt", &[d]).fails(32, "in use");
    s.sh("mount -t gfs2r \"$1\" mnt", &[d]).fails(32, "in use");
    assert_ne!(s.sh("mkfs.gfs2r -O -p lock_nolock \"$1\"", &[d]).code, 0);
    basics(&s);
    s.sh("sync; sync -f mnt", &[]).good();
    s.sh("mount -o remount,ro mnt && ! touch mnt/x 2>/dev/null", &[]).good();
    s.is_clean(d);
    s.sh("mount -o remount,rw mnt && touch mnt/x", &[]).good();
    s.sh("cd mnt && umount \"$1\"", &[d]).fails(32, "in use");
    s.sh("umount mnt", &[]).good();
    // At once: clean, and free for others.
    s.is_clean(d);
    s.sh("mount -t gfs2r -o loop disk.img mnt && findmnt -n -o SOURCE mnt | grep /dev/loop && umount mnt", &[])
        .code_is(0);
    s.sh("mount -t gfs2r \"$1\" mnt && cmp mnt/big mnt/copy && umount \"$1\"", &[d]).good();
    s.is_clean(d);
    // Killed, and recovered.
    s.sh(
        "mount -t gfs2r \"$1\" mnt && echo kept > mnt/kept && sync mnt/kept && kill -KILL $(cat /run/gfs2r/*/pid)",
        &[d],
    )
    .good();
    s.eventually("gfs2r status | grep -q dead");
    s.sh("umount -l mnt", &[]).good();
    s.sh("mount -t gfs2r \"$1\" mnt && grep kept mnt/kept && umount mnt", &[d]).good();
    s.is_clean(d);
}

/// The basics of POSIX.
fn basics(s: &Sandbox) {
    s.sh(
        "set -e; cd mnt
        head -c 5000000 /dev/urandom > big; cp big copy; cmp big copy
        mkdir -p a/b/c; echo text > a/b/c/f; mv a/b/c/f a/g; ln a/g a/h; ln -s g a/s; [ \"$(cat a/s)\" = text ]
        [ $(stat -c %h a/g) = 2 ]; rm a/g; [ $(stat -c %h a/h) = 1 ]
        ! rmdir a 2>/dev/null; ! ls nothing 2>/dev/null
        chmod 640 a/h; chown 1000:1001 a/h; [ \"$(stat -c '%a %u %g' a/h)\" = '640 1000 1001' ]
        truncate -s 100000 a/h; [ $(stat -c %s a/h) = 100000 ]; fallocate -l 1M a/full
        dd if=/dev/zero of=holes bs=4096 seek=1000 count=1 2>/dev/null; [ $(stat -c %b holes) -lt 100 ]
        dd if=big of=direct bs=4096 count=100 oflag=direct 2>/dev/null; cmp -n 409600 big direct
        mkfifo fifo; for i in $(seq 300); do : > a/file-with-a-longer-name-$i; done; [ $(ls a | wc -l) = 304 ]
        flock a/h true; cd ..",
        &[],
    )
    .good();
}

#[test]
fn a_write_protected_device() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 96 << 20, "-p lock_nolock");
    let Some(device) = s.attach(&image) else { return };
    let d = device.as_path();
    s.sh("mount -t gfs2r \"$1\" mnt && echo x > mnt/f && umount mnt && blockdev --setro \"$1\"", &[d]).good();
    s.sh("mount -t gfs2r \"$1\" mnt", &[d]).fails(32, "-o ro");
    s.sh("mount -t gfs2r -o ro \"$1\" mnt && cat mnt/f && umount mnt", &[d]).good();
    s.sh("blockdev --setrw \"$1\" && mount -t gfs2r \"$1\" mnt && umount mnt", &[d]).good();
    s.is_clean(d);
}
