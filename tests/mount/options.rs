//! ro, norecovery and spectator on clean and dirty volumes; what happens to a volume that contradicts itself.

use crate::sandbox::Sandbox;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Leaves a volume behind whose journal must be replayed: a daemon that was killed.
fn dirty(s: &Sandbox, name: &str) -> std::path::PathBuf {
    let image = s.image(name, 96 << 20, "-p lock_nolock");
    s.sh("mount.gfs2r \"$1\" mnt && mkdir mnt/d && echo kept > mnt/d/f && sync mnt/d/f", &[&image]).good();
    s.sh("kill -KILL $(cat /run/gfs2r/*/pid); umount -l mnt", &[]).good();
    s.eventually("! gfs2r status | grep -q live");
    image
}

fn bytes(image: &Path) -> Vec<u8> {
    std::fs::read(image).expect("an image")
}

#[test]
fn read_only() {
    let Some(s) = Sandbox::new() else { return };
    let image = dirty(&s, "dirty.img");
    let before = bytes(&image);
    // Nothing is written where that was asked for.
    s.sh("mount.gfs2r dirty.img mnt -o norecovery", &[]).good();
    s.sh("touch mnt/x", &[]).fails(1, "Read-only");
    assert_eq!(s.sh("findmnt -n -o OPTIONS mnt | cut -d, -f1", &[]).good(), "ro\n");
    s.sh("mount -o remount,rw mnt", &[]).fails(32, "unmount it");
    s.sh("umount mnt", &[]).good();
    assert!(bytes(&image) == before, "norecovery wrote");
    s.sh("mount.gfs2r dirty.img mnt -o spectator", &[]).fails(32, "journal 0 is dirty");
    s.sh("mkdir ro && mount --bind . ro && mount -o remount,bind,ro ro", &[]).good();
    s.sh("mount.gfs2r ro/dirty.img mnt -o ro", &[]).fails(32, "dirty");
    s.sh("mount.gfs2r ro/dirty.img mnt", &[]).fails(32, "write-protected");
    assert!(bytes(&image) == before, "a refusal wrote");
    // ro replays the journal, as the kernel does.
    s.sh("mount.gfs2r dirty.img mnt -o ro && cat mnt/d/f && umount mnt", &[]).good();
    s.is_clean(&image);
    let before = bytes(&image);
    for options in ["ro", "ro,norecovery", "spectator"] {
        s.sh(&format!("mount.gfs2r dirty.img mnt -o {options}"), &[]).good();
        s.sh("cat mnt/d/f", &[]).good();
        s.sh("echo x >> mnt/d/f", &[]).code_is(2);
        s.sh("umount mnt", &[]).good();
        assert!(bytes(&image) == before, "{options} on a clean volume wrote");
    }
    s.sh("mount.gfs2r ro/dirty.img mnt -o ro && cat mnt/d/f && umount mnt", &[]).good();
}

/// A directory whose block is overwritten behind the filesystem's back.
fn contradict(s: &Sandbox, options: &str) -> std::path::PathBuf {
    let image = s.image("bad.img", 96 << 20, "-p lock_nolock");
    s.sh("mount.gfs2r bad.img mnt && mkdir mnt/dir && touch mnt/dir/f && ls -id mnt/dir && umount mnt", &[]).good();
    let addr = s.sh(&format!("mount.gfs2r bad.img mnt -o {options} && stat -c %i mnt/dir"), &[]).good();
    s.sh("umount mnt", &[]).good();
    let addr: u64 = addr.trim().parse().expect("an inode number is its block");
    let file = std::fs::File::options().write(true).open(&image).expect("open");
    file.write_all_at(&[0xab; 4096], addr * 4096).expect("write");
    s.sh(&format!("mount.gfs2r bad.img mnt -o {options}"), &[]).good();
    let said = s.sh("ls mnt/dir", &[]);
    // A daemon that panics may be gone before its answer is: then the kernel answers for it.
    let gone = options.contains("errors=panic") && said.text.contains("Software caused connection abort");
    said.fails(2, if gone { "Software caused connection abort" } else { "Input/output error" });
    image
}

#[test]
fn errors_withdraw() {
    let Some(s) = Sandbox::new() else { return };
    contradict(&s, "errors=withdraw");
    // The daemon lives, says what is wrong, and touches nothing.
    s.eventually("gfs2r status | grep -q 'withdrawn: block'");
    s.sh("gfs2r status", &[]).code_is(1);
    s.sh("touch mnt/new", &[]).fails(1, "Input/output error");
    s.sh("umount mnt", &[]).fails(32, "not clean");
    s.sh("findmnt mnt", &[]).fails_quietly(1);
    s.sh("fsck.gfs2r -n bad.img", &[]).code_is(4);
}

#[test]
fn errors_panic() {
    let Some(s) = Sandbox::new() else { return };
    contradict(&s, "errors=panic");
    s.eventually("gfs2r status | grep -q dead");
    s.sh("stat mnt", &[]).fails(1, "not connected");
    s.sh("umount mnt", &[]).fails(32, "not clean");
    s.sh("findmnt mnt", &[]).fails_quietly(1);
}
