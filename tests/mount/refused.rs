//! What cannot be mounted: the status and one line that says why. The image is not changed.

use crate::sandbox::Sandbox;
use std::fs;
use std::os::unix::fs::FileExt;

/// Where the superblock is.
const SB: u64 = 65536;

#[test]
fn spoilt_volumes() {
    let Some(s) = Sandbox::new() else { return };
    let good = s.image("good.img", 96 << 20, "-p lock_nolock");
    let dump = s.sh("gfs2r dump good.img --json", &[]).good();
    let rindex = entry(&s, &dump, "rindex");
    let jindex = entry(&s, &dump, "jindex");
    let image = s.path("spoilt.img");
    let refused = |code: i32, words: &str, what: &str| {
        let before = fs::read(&image).expect("an image");
        for command in
            ["mount.gfs2r spoilt.img mnt", "mount -t gfs2r spoilt.img mnt", "mount.gfs2r spoilt.img mnt -o ro"]
        {
            eprintln!("{what}: {command}");
            s.sh(command, &[]).fails(code, words);
        }
        assert!(fs::read(&image).expect("an image") == before, "{what}: the image was changed");
        s.sh("findmnt mnt", &[]).fails_quietly(1);
        assert_eq!(
            s.sh("ls /run/gfs2r", &[]).text.replace("ls: cannot access '/run/gfs2r': No such file or directory\n", ""),
            ""
        );
    };
    let spoil = |at: u64, bytes: &[u8]| {
        fs::copy(&good, &image).expect("copy");
        fs::File::options().write(true).open(&image).and_then(|f| f.write_all_at(bytes, at)).expect("write");
    };
    spoil(SB, b"XXXX");
    refused(32, "not a GFS2 filesystem", "superblock");
    spoil(SB + 24, &1900u32.to_be_bytes());
    refused(32, "unknown on-disk format 1900/1900", "format");
    spoil(SB + 36, &1000u32.to_be_bytes());
    refused(32, "block size 1000", "block size");
    spoil(SB + 36, &65536u32.to_be_bytes());
    refused(32, "block size", "block size");
    spoil(SB + 40, &13u32.to_be_bytes());
    refused(32, "shift", "block size shift");
    spoil(SB + 96, b"lock_gulm\0");
    refused(32, "lock_gulm", "lock protocol");
    spoil(SB + 96, b"lock_dlm\0\0");
    refused(32, "lockproto=lock_nolock", "lock_dlm");
    s.sh("mount -t gfs2r -o lockproto=lock_nolock spoilt.img mnt && umount mnt", &[]).good();
    s.is_clean(&image);
    spoil(rindex * 4096, &[0; 4096]);
    refused(32, &format!("block {rindex}"), "rindex dinode");
    spoil(jindex * 4096, &[0; 4096]);
    refused(32, &format!("block {jindex}"), "jindex dinode");
    fs::copy(&good, &image).expect("copy");
    let half = fs::File::options().write(true).open(&image).expect("open");
    half.set_len(70 << 20).expect("truncate");
    refused(32, "the device ends before the filesystem does", "truncated");
    half.set_len(100_000).expect("truncate");
    refused(32, "spoilt.img", "truncated after the superblock");
    half.set_len(1000).expect("truncate");
    refused(32, "not a GFS2 filesystem", "truncated before the superblock");
    half.set_len(0).expect("truncate");
    refused(32, "spoilt.img", "empty");
}

/// Block of a system file, from the master directory.
fn entry(s: &Sandbox, superblock: &str, name: &str) -> u64 {
    let superblock: serde_json::Value = serde_json::from_str(superblock).expect("JSON");
    let master = superblock["master_dir"]["addr"].as_u64().unwrap_or_else(|| panic!("{superblock:#}"));
    let dir = s.sh(&format!("gfs2r dump good.img block {master} --json"), &[]).good();
    let dir: serde_json::Value = serde_json::from_str(&dir).expect("JSON");
    let found = dir["entries"].as_array().and_then(|all| all.iter().find(|e| e["name"] == name));
    found.and_then(|e| e["addr"].as_u64()).unwrap_or_else(|| panic!("{name} in {dir:#}"))
}

#[test]
fn wrong_places() {
    let Some(s) = Sandbox::new() else { return };
    s.image("disk.img", 96 << 20, "-p lock_nolock");
    fs::write(s.path("file"), b"text").expect("write");
    fs::write(s.path("zeros"), vec![0; 1 << 20]).expect("write");
    s.sh("mount.gfs2r none.img mnt", &[]).fails(32, "none.img: No such file or directory");
    s.sh("mount -t gfs2r none.img mnt", &[]).code_is(32);
    s.sh("mount.gfs2r disk.img nodir", &[]).fails(32, "nodir: No such file or directory");
    s.sh("mount.gfs2r disk.img file", &[]).fails(32, "file: not a directory");
    s.sh("mount.gfs2r mnt mnt", &[]).fails(32, "neither a block device nor an image file");
    s.sh("mount.gfs2r /dev/null mnt", &[]).fails(32, "neither a block device nor an image file");
    s.sh("mount.gfs2r zeros mnt", &[]).fails(32, "zeros: not a GFS2 filesystem");
    s.sh("mount.gfs2r disk.img mnt -o data=jumbled", &[]).fails(1, "ordered or writeback");
    s.sh("mount -t gfs2r disk.img mnt -o nonsense", &[]).fails(1, "nonsense");
    s.sh("mount.gfs2r disk.img mnt -s -o nonsense && umount mnt", &[]).good();
    s.sh("mount.gfs2r disk.img mnt -o hostdata=jid=7", &[]).fails(32, "there is no journal 7");
    s.sh("mount.gfs2r disk.img mnt -o remount,ro", &[]).fails(32, "not a mounted gfs2r filesystem");
    // A full /run, or none.
    s.sh("GFS2R_RUN_DIR=/proc/none mount.gfs2r disk.img mnt", &[]).fails(32, "/proc/none");
    // Held by another program of ours, also from another mount point and by another name.
    s.sh("mkdir second && cp disk.img copy.img && mount.gfs2r disk.img mnt", &[]).good();
    s.sh("mount.gfs2r disk.img second", &[]).fails(32, "already mounted");
    s.sh("GFS2R_RUN_DIR=/run/another mount.gfs2r disk.img second", &[]).fails(32, "in use by another program");
    // A busy directory is no obstacle: a mount covers what is there.
    s.sh("mkdir busy && cd busy && mount.gfs2r ../copy.img . -o locktable=a:b && umount ../busy", &[]).good();
    s.sh("umount mnt", &[]).good();
    // Not root.
    s.sh("chmod 755 . && setpriv --reuid 65534 --clear-groups mount.gfs2r disk.img mnt", &[]).fails(1, "only root");
}
