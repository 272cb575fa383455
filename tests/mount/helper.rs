//! Through mount(8) and umount(8).

use crate::sandbox::Sandbox;
use std::fs;

/// Options of a mount, as findmnt(8) shows them.
fn options(sandbox: &Sandbox) -> Vec<String> {
    sandbox.sh("findmnt -n -o OPTIONS mnt", &[]).good().trim().split(',').map(String::from).collect()
}

#[test]
fn mount_and_umount() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 96 << 20, "-p lock_nolock");
    assert_eq!(s.sh("mount -t gfs2r -o nosuid,noatime disk.img mnt", &[]).good(), "");
    assert_eq!(s.sh("findmnt -n -o SOURCE,FSTYPE mnt", &[]).good().trim(), format!("{} fuse.gfs2r", image.display()));
    let shown = options(&s);
    for wanted in ["rw", "nosuid", "noatime", "allow_other", "default_permissions"] {
        assert!(shown.iter().any(|o| o == wanted), "{wanted} in {shown:?}");
    }
    s.sh("echo hello > mnt/f && sync mnt/f && cat mnt/f", &[]).good();
    s.sh("mount -t gfs2r disk.img mnt", &[]).fails(32, "already mounted");
    s.sh("mount.gfs2r disk.img mnt", &[]).fails(32, "already mounted");

    // What a remount does not name stays.
    s.sh("mount -o remount,ro mnt", &[]).good();
    let shown = options(&s);
    assert!(["ro", "nosuid", "noatime"].iter().all(|w| shown.iter().any(|o| o == w)), "{shown:?}");
    s.sh("touch mnt/g", &[]).fails(1, "Read-only file system");
    s.is_clean(&image);
    s.sh("mount.gfs2r disk.img mnt -o remount,rw,noexec", &[]).good();
    let shown = options(&s);
    assert!(["rw", "nosuid", "noexec", "noatime"].iter().all(|w| shown.iter().any(|o| o == w)), "{shown:?}");
    s.sh("touch mnt/g", &[]).good();
    s.sh("mount -o remount,commit=7 mnt", &[]).fails(32, "commit=7");
    s.sh("exec 3>>mnt/f; mount -o remount,ro mnt", &[]).fails(32, "busy");
    s.sh("echo still writable >> mnt/f", &[]).good();

    // In use.
    s.sh("cd mnt && umount ../mnt", &[]).fails(32, "in use");
    s.sh("cd mnt && umount -f ../mnt && false", &[]).fails(32, "in use");
    s.sh("echo unharmed >> mnt/f", &[]).good();
    s.sh("cd mnt && umount -r ../mnt", &[]).fails(32, "read-only");
    assert!(options(&s).iter().any(|o| o == "ro"));
    s.sh("mount -o remount,rw mnt", &[]).good();
    assert_eq!(s.sh("umount mnt", &[]).good(), "");
    s.is_clean(&image);
    s.sh("findmnt mnt", &[]).fails_quietly(1);
    s.sh("umount mnt", &[]).fails(32, "not mounted");
    s.sh("umount.gfs2r mnt", &[]).fails(32, "not mounted");

    // Verbose, fake, by source.
    let said = s.sh("mount -v -t gfs2r disk.img mnt", &[]).good();
    assert!(said.contains("disk.img mounted on"), "{said}");
    s.sh("umount disk.img", &[]).good();
    s.sh("mount -f -t gfs2r disk.img mnt && mount.gfs2r disk.img mnt -f", &[]).good();
    s.sh("findmnt mnt", &[]).fails_quietly(1);
    s.sh("mount.gfs2r nothing.img mnt -f", &[]).fails(32, "nothing.img");
    assert_eq!(s.sh("ls /run/gfs2r", &[]).good(), "", "runtime state is left behind");
}

#[test]
fn lazily_and_after_a_crash() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 96 << 20, "-p lock_nolock");
    s.sh("mount -t gfs2r disk.img mnt && exec 3>mnt/f && umount -l mnt && echo late >&3 && ! findmnt mnt", &[]).good();
    s.eventually("! ls /run/gfs2r/*/pid 2>/dev/null");
    s.is_clean(&image);
    s.sh("mount -t gfs2r disk.img mnt && cat mnt/f && echo fresh > mnt/g && sync mnt/g", &[]).good();
    s.sh("kill -KILL $(cat /run/gfs2r/*/pid)", &[]).good();
    s.eventually("gfs2r status | grep -q dead");
    s.sh("gfs2r status", &[]).code_is(1);
    s.sh("umount mnt", &[]).fails(32, "killed");
    s.sh("findmnt mnt", &[]).fails_quietly(1);
    assert_eq!(s.sh("ls /run/gfs2r/*/* 2>/dev/null | grep -v log", &[]).text, "");
    s.sh("mount -t gfs2r disk.img mnt && cat mnt/g && umount mnt", &[]).good();
    s.is_clean(&image);
    // SIGTERM to the daemon is an unmount.
    s.sh("mount -t gfs2r disk.img mnt && echo x > mnt/h && kill $(cat /run/gfs2r/*/pid)", &[]).good();
    s.eventually("! findmnt mnt && ! ls /run/gfs2r/*/pid 2>/dev/null");
    s.is_clean(&image);
}

#[test]
fn fstab() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 96 << 20, "-p lock_nolock");
    fs::create_dir(s.path("other")).expect("mkdir");
    let (dir, other, gone) = (s.dir(), s.path("other"), s.path("gone.img"));
    let table = format!(
        "{} {} gfs2r _netdev,nofail,noatime,quota=account,x-systemd.device-timeout=5,comment=us 0 0\n{} {} gfs2r nofail 0 0\n",
        image.display(),
        dir.display(),
        gone.display(),
        other.display()
    );
    fs::write(s.path("fstab"), table).expect("write");
    s.sh("mount --bind ./fstab /etc/fstab", &[]).good();
    s.sh("mount \"$1\"", &[&dir]).good();
    s.sh("mount -o remount,ro \"$1\"", &[&dir]).good();
    s.sh("mount -o remount,rw \"$1\"", &[&dir]).good();
    s.sh("umount \"$1\"", &[&dir]).good();
    // All of it; that one is missing is no matter.
    s.sh("mount -a && findmnt mnt && ! findmnt other", &[]).good();
    s.sh("umount -a -t fuse.gfs2r", &[]).good();
    s.sh("findmnt mnt", &[]).fails_quietly(1);
    s.is_clean(&image);
}

#[test]
fn the_log() {
    let Some(s) = Sandbox::new() else { return };
    s.image("disk.img", 96 << 20, "-p lock_nolock");
    // In the foreground: stderr, and nothing else.
    s.sh("mount.gfs2r disk.img mnt -o fg 2>log & while ! findmnt mnt; do sleep 0.05; done; umount mnt; wait", &[])
        .good();
    let log = fs::read_to_string(s.path("log")).expect("a log");
    assert!(log.contains("mounted") && log.contains("disk.img") && log.contains("unmounted"), "{log}");
    s.sh("GFS2R_LOG=error mount.gfs2r disk.img mnt -o fg 2>log & while ! findmnt mnt; do sleep 0.05; done; umount mnt; wait", &[])
        .good();
    assert_eq!(fs::read_to_string(s.path("log")).expect("a log"), "");
    // In the background: nothing on the terminal; the system log, and where there is none a file.
    assert_eq!(s.sh("mount -t gfs2r disk.img mnt", &[]).good(), "");
    if s.sh("test -S /dev/log", &[]).code != 0 {
        let log = s.sh("cat /run/gfs2r/*/log", &[]).good();
        assert!(log.contains("INFO") && log.contains("mounted"), "{log}");
    }
    s.sh("umount mnt", &[]).good();
    // As journald and syslog take it: a socket of our own in place of theirs.
    s.sh("mount -t tmpfs tmpfs /mnt && cp -a /dev/fuse /dev/null /mnt && mount --move /mnt /dev", &[]).good();
    let receiver = "import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.bind('/dev/log')\nopen('bound', 'w')\n\
                    f = open('log', 'wb')\nwhile True:\n    f.write(s.recv(65536) + b'\\n')\n    f.flush()\n";
    fs::write(s.path("receiver.py"), receiver).expect("write");
    s.sh("python3 receiver.py >/dev/null 2>&1 & while ! test -e bound; do sleep 0.05; done", &[]).good();
    assert_eq!(s.sh("mount -t gfs2r disk.img mnt", &[]).good(), "");
    s.sh("umount mnt", &[]).good();
    s.eventually("grep -q unmounted log");
    let log = fs::read_to_string(s.path("log")).expect("a log");
    assert!(log.lines().all(|l| l.starts_with("<30>gfs2r[")), "{log}");
    assert!(log.contains(": mounted ") || log.contains("mounted source="), "{log}");
}
