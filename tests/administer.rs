//! The administrator's commands: grow, jadd and tune on mounted volumes under load, on loop devices, on images, and under the names
//! of the stock tools. Needs root, and says so loudly where it cannot run.

#![allow(unreachable_pub, dead_code, reason = "shared with another test")]

#[path = "mount/sandbox.rs"]
mod sandbox;

use sandbox::Sandbox;
use serde_json::Value;

fn json(s: &Sandbox, command: &str) -> Value {
    let said = s.sh(command, &[]).good();
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{command}: {e}: {said}"))
}

/// Writers that come and go until `stop` is there; `failed` when something went wrong but for a full disk.
const LOAD: &str = r#"
for n in 1 2 3; do
  (i=0; mkdir mnt/w$n
   while ! test -e stop; do
     i=$((i+1)); d=mnt/w$n/d$((i%7)); mkdir -p $d
     head -c $((i*7919%3000000)) /dev/urandom > src$n
     if cp src$n $d/f$((i%11)) 2> err$n; then cmp src$n $d/f$((i%11)) || echo "differs: $n $i" >> failed
     elif ! grep -q 'No space' err$n; then cat err$n >> failed; fi
     test $((i%5)) = 0 && rm -rf mnt/w$n/d$(((i+3)%7))
   done; true) > /dev/null 2>&1 &
done
"#;

fn under_load(s: &Sandbox, grow_device: &str, volume: &str) {
    s.sh(LOAD, &[]).good();
    s.sh("sleep 1", &[]).good();
    for size in ["300M", "700M"] {
        s.sh(&grow_device.replace("SIZE", size), &[]).good();
        let said = s.sh("gfs2r grow mnt", &[]).good();
        assert!(said.contains("The file system will grow by") && said.contains("Mount point: "), "{said}");
        s.sh("sleep 0.5", &[]).good();
    }
    let said = s.sh(&format!("gfs2r jadd -j 2 -J 32 {volume}"), &[]).good();
    assert!(said.contains("Old journals: 1\nNew journals: 3\n"), "{said}");
    s.sh("sleep 1; touch stop; sleep 1; test ! -s failed || { cat failed; false; }", &[]).good();
    let status = json(s, "gfs2r status --json mnt");
    assert_eq!(status["mounts"][0]["journals"], 3);
    assert_eq!(status["mounts"][0]["state"], "live");
    // All of it is there to be used.
    s.sh("rm -rf mnt/w*; sync; head -c 400000000 /dev/zero > mnt/large && sync mnt/large", &[]).good();
    s.sh("gfs2r grow mnt", &[]).fails(1, "has not grown");
    s.eventually("umount mnt");
}

#[test]
fn a_mounted_image_grows_under_load() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 100 << 20, "-p lock_nolock");
    s.sh("mount -t gfs2r disk.img mnt", &[]).good();
    under_load(&s, "truncate -s SIZE disk.img", "disk.img");
    s.is_clean(&image);
    s.sh(
        "mount -t gfs2r disk.img mnt -o hostdata=jid=2 && test $(stat -c %s mnt/large) = 400000000 && umount mnt",
        &[],
    )
    .good();
}

#[test]
fn a_mounted_loop_device_grows_under_load() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 100 << 20, "-p lock_nolock");
    let Some(device) = s.attach(&image) else { return };
    let name = device.display().to_string();
    s.sh(&format!("mount -t gfs2r {name} mnt"), &[]).good();
    under_load(&s, &format!("truncate -s SIZE disk.img && losetup -c {name}"), "mnt");
    s.is_clean(&device);
}

#[test]
fn what_is_not_mounted() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 100 << 20, "-p lock_nolock");
    s.sh("gfs2r grow disk.img", &[]).fails(1, "disk.img: has not grown");
    s.sh("truncate -s 1G disk.img && cp --sparse=always disk.img before", &[]).good();
    let dry = json(&s, "gfs2r grow -T --json disk.img");
    s.sh("cmp disk.img before", &[]).good();
    let grown = json(&s, "gfs2r grow --json disk.img");
    assert_eq!(grown, dry);
    assert_eq!(grown["grown"][0]["device_blocks"], 262_144);
    let said = s.sh("gfs2r jadd -j 2 -J 8 disk.img", &[]).good();
    assert_eq!(said, "Filesystem: disk.img\nOld journals: 1\nNew journals: 3\n");
    s.is_clean(&image);
    s.sh("gfs2r jadd -J 1024 -j 4 disk.img", &[]).fails(1, "Insufficient space on the device to add 4 1024MB journals");
    s.sh("gfs2r jadd -J 5 disk.img", &[]).code_is(2);
    s.sh("gfs2r grow nothing.img", &[]).fails(1, "nothing.img: No such file");
    s.sh("gfs2r grow /proc", &[]).fails(1, "/proc: not on a mounted gfs2r filesystem");
    s.sh("head -c 1000000 /dev/zero > zeros && gfs2r grow zeros", &[]).fails(1, "zeros: not a gfs2 filesystem");
    // Read-only, frozen, in use.
    s.sh("mount -t gfs2r -o ro disk.img mnt && gfs2r jadd -J 8 mnt", &[]).fails(1, "mnt: mounted read-only");
    s.sh("umount mnt && mount -t gfs2r disk.img mnt && gfs2r freeze mnt && gfs2r grow mnt", &[]).fails(1, "frozen");
    s.sh("gfs2r tune -L new disk.img", &[]).fails(74, "in use");
    s.sh("gfs2r tune -l disk.img", &[]).good();
    s.sh("gfs2r thaw mnt && umount mnt", &[]).good();
    // A cluster's, of which nobody here knows whether it is in use.
    let shared = s.image("shared.img", 100 << 20, "-p lock_dlm -t c:fs");
    s.sh("truncate -s 300M shared.img && gfs2r grow shared.img", &[]).fails(1, "say --unmounted");
    s.sh("gfs2r grow -q --unmounted shared.img && gfs2r jadd -q --unmounted -J 8 shared.img", &[]).good();
    s.is_clean(&shared);
    s.is_clean(&image);
}

#[test]
fn the_superblock() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 100 << 20, "-p lock_dlm -t c:fs -o format=1801");
    s.sh("gfs2r tune -L lab disk.img", &[]).fails(65, "Invalid lock table: missing colon");
    s.sh("gfs2r tune -o lockproto=x disk.img", &[]).fails(65, "Invalid lock protocol: x");
    s.sh("gfs2r tune -U zz disk.img", &[]).fails(65, "Invalid UUID: zz");
    s.sh("gfs2r tune -o foo=1 disk.img", &[]).fails(64, "unknown option 'foo'");
    s.sh("gfs2r tune disk.img", &[]).fails(64, "nothing to do");
    s.sh("gfs2r tune -l nothing.img", &[]).fails(74, "Unable to open device nothing.img: No such file");
    s.sh("head -c 1000000 /dev/zero > zeros && gfs2r tune -l zeros", &[]).fails(74, "zeros: not a GFS2 filesystem");
    s.sh("gfs2r tune -L a:b -o locktable=c:d disk.img", &[]).fails(64, "cannot be used with");
    s.sh("gfs2r tune -L c:new -r 1802 -U 12345678-1234-1234-1234-123456789abc disk.img", &[]).good();
    s.sh("gfs2r tune -r 1801 disk.img", &[]).fails(65, "Regressing");
    let listed = json(&s, "gfs2r tune -l --json disk.img")["superblock"].clone();
    assert_eq!((listed["label"].as_str(), listed["format"].as_u64()), (Some("c:new"), Some(1802)));
    let text = s.sh("gfs2r tune -l disk.img", &[]).good();
    // The stock tool reads the same.
    if let Ok(out) = std::process::Command::new("tunegfs2").arg("-l").arg(&image).output() {
        assert_eq!(String::from_utf8_lossy(&out.stdout), text);
    }
    s.is_clean(&image);
    s.sh(
        "gfs2r tune -o lockproto=lock_nolock,locktable=mine disk.img && mount -t gfs2r disk.img mnt && umount mnt",
        &[],
    )
    .good();
    let before = json(&s, "gfs2r tune -l --json disk.img")["superblock"]["uuid"].clone();
    let after = json(&s, "gfs2r tune -U random --json disk.img")["superblock"]["uuid"].clone();
    assert_ne!(before, after);
}

#[test]
fn by_the_names_of_the_stock_tools() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 100 << 20, "-p lock_nolock");
    s.sh("mkdir bin && for n in gfs2_grow gfs2_jadd tunegfs2; do ln -s $(command -v gfs2r) bin/$n; done", &[]).good();
    // Wrong usage: same words, same status.
    let both = |line: &str| {
        let ours = s.sh(&format!("PATH=$PWD/bin:$PATH; {line}"), &[]);
        if s.sh(&format!("test -x /usr/sbin/{}", line.split(' ').next().unwrap_or("")), &[]).code == 0 {
            let theirs = s.sh(&format!("PATH=/usr/sbin; {line}"), &[]);
            assert_eq!((ours.code, ours.text), (theirs.code, theirs.text), "{line}");
        }
    };
    for line in [
        "gfs2_grow",
        "gfs2_grow -h",
        "gfs2_grow -x",
        "gfs2_grow -D",
        "gfs2_jadd",
        "gfs2_jadd -h",
        "gfs2_jadd -x",
        "gfs2_jadd -J 31 disk.img",
        "gfs2_jadd -J 1025 disk.img",
        "gfs2_jadd -c 0 disk.img",
        "gfs2_jadd -j 0 disk.img",
        "gfs2_jadd -j x disk.img",
        "gfs2_jadd one two",
        "tunegfs2 -l",
        "tunegfs2 -l disk.img",
        "tunegfs2 -L c:fs disk.img",
        "tunegfs2 -l disk.img",
        "tunegfs2 -o lockproto=x disk.img",
        "tunegfs2 -o foo=1 disk.img",
        "tunegfs2 -r 1900 disk.img",
        "tunegfs2 -l nothing.img",
        "tunegfs2 disk.img",
    ] {
        both(line);
    }
    s.sh("PATH=$PWD/bin:$PATH; mount -t gfs2r disk.img mnt && truncate -s 260M disk.img && gfs2_grow -T mnt", &[])
        .good();
    let said = s.sh("PATH=$PWD/bin:$PATH; gfs2_grow mnt", &[]).good();
    // As the stock tool says on the kernel's mount of the same volume.
    let want = "Size: 25597 blocks\nLength: 66560 blocks\nThe file system will grow by 160MB.\ngfs2_grow complete.\n";
    assert!(said.ends_with(want), "{said}");
    let said = s.sh("PATH=$PWD/bin:$PATH; gfs2_grow mnt", &[]);
    let want = "The calculated resource group size is too small.\nmnt has not grown.\ngfs2_grow complete.\n";
    assert_eq!((said.code, said.text.as_str()), (255, want));
    let said = s.sh("PATH=$PWD/bin:$PATH; gfs2_jadd -j1 -J32 mnt", &[]).good();
    assert_eq!(said, "Filesystem: mnt\nOld journals: 1\nNew journals: 2\n");
    s.sh("umount mnt", &[]).good();
    s.is_clean(&image);
}
