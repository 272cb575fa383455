//! The front command on mounted volumes: status, df, quota, glocks, freeze and thaw. Needs root, and says so loudly where it
//! cannot run.

#![allow(unreachable_pub, dead_code, reason = "shared with another test")]

#[path = "mount/sandbox.rs"]
mod sandbox;

use sandbox::Sandbox;
use serde_json::Value;

/// What a command lists, with its one name at the top.
fn json(s: &Sandbox, command: &str, name: &str) -> Vec<Value> {
    let said = s.sh(command, &[]).text;
    let value: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{command}: {e}: {said}"));
    let all = value.as_object().unwrap_or_else(|| panic!("{command}: not an object: {said}"));
    assert_eq!(all.keys().collect::<Vec<_>>(), [name], "{command}");
    all[name].as_array().unwrap_or_else(|| panic!("{command}: not a list: {said}")).clone()
}

#[test]
fn status_and_df() {
    let Some(s) = Sandbox::new() else { return };
    assert_eq!(s.sh("gfs2r status", &[]).good(), "nothing is mounted\n");
    assert!(json(&s, "gfs2r status --json", "mounts").is_empty());
    let image = s.image("disk.img", 96 << 20, "-p lock_nolock -t mycluster:data -j 2");
    let before = json(&s, "gfs2r df --json disk.img", "filesystems");
    s.sh(
        "mount -t gfs2r disk.img mnt -o quota=on && mkdir mnt/d && head -c 1000000 /dev/zero > mnt/d/f && sync mnt/d/f",
        &[],
    )
    .good();
    for command in ["gfs2r status --json", "gfs2r status --json mnt/d", "gfs2r status --json disk.img"] {
        let mount = &json(&s, command, "mounts")[0];
        let text = |name: &str| mount[name].as_str().unwrap_or_else(|| panic!("{name}: {mount:#}")).to_owned();
        assert_eq!((text("source"), text("state")), (image.display().to_string(), "live".into()));
        assert_eq!((text("lock_protocol"), text("lock_table")), ("lock_nolock".into(), "mycluster:data".into()));
        assert_eq!((text("directory"), text("quota")), (s.dir().display().to_string(), "on".into()));
        assert_eq!((mount["journal"].as_u64(), mount["journals"].as_u64()), (Some(0), Some(2)));
        assert!(mount["glocks"]["inode"].as_u64() > Some(1) && mount["cache"]["metadata_bytes"].as_u64() > Some(4096));
        assert_eq!(mount["block_size"].as_u64(), Some(4096));
    }
    let said = s.sh("gfs2r status", &[]).good();
    assert!(said.contains("state     live") && said.contains("table mycluster:data, journal 0 of 2"), "{said}");
    // df: what the daemon counts is what the disk says, and what df(1) says.
    let mounted = json(&s, "gfs2r df --json", "filesystems");
    let number = |f: &[Value], name: &str| f[0][name].as_u64().unwrap_or_else(|| panic!("{name} in {f:?}"));
    assert_eq!(number(&mounted, "total_bytes"), number(&before, "total_bytes"));
    let stat = s.sh("stat -f -c '%b %f %S' mnt", &[]).good();
    let stat: Vec<u64> = stat.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
    assert_eq!(stat[0] * stat[2], number(&mounted, "total_bytes"));
    assert!(number(&before, "free_bytes") - number(&mounted, "free_bytes") >= 1_000_000);
    s.sh("gfs2r df mnt | grep -q \"$1\"", &[&s.dir()]).good();
    s.sh("umount mnt", &[]).good();
    let after = json(&s, "gfs2r df --json disk.img", "filesystems");
    for name in ["total_bytes", "free_bytes", "used_bytes"] {
        assert_eq!(number(&after, name), number(&mounted, name), "{name}");
    }
    s.sh("gfs2r status mnt", &[]).fails(1, "not on a mounted gfs2r filesystem");
    s.sh("gfs2r df /proc/version", &[]).fails(1, "/proc/version");
    s.sh("gfs2r df", &[]).good();
}

#[test]
fn quotas() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 96 << 20, "-p lock_nolock");
    s.sh("mount -t gfs2r disk.img mnt", &[]).good();
    s.sh("gfs2r quota report mnt", &[]).fails(1, "quotas are off on this mount");
    s.sh("umount mnt && mount -t gfs2r disk.img mnt -o quota=on && chmod 777 mnt", &[]).good();
    let get = |who: &str| json(&s, &format!("gfs2r quota get {who} --json mnt"), "quotas")[0].clone();
    assert_eq!(get("-u 4242")["limit_bytes"], 0);
    s.sh("gfs2r quota set -u nobody --limit 1M --warn 512k mnt", &[]).good();
    let line = get("-u nobody");
    assert_eq!((&line["limit_bytes"], &line["warn_bytes"]), (&(1 << 20).into(), &(512 << 10).into()));
    assert_eq!((line["name"].as_str(), line["kind"].as_str()), (Some("nobody"), Some("user")));
    // Rounded up: a limit of a few bytes is not no limit.
    s.sh("gfs2r quota set -g 77 --limit 10 mnt", &[]).good();
    assert_eq!(get("-g 77")["limit_bytes"], 4096);
    // Enforced, and counted.
    let as_nobody = "setpriv --reuid nobody --regid 78 --clear-groups";
    s.sh(&format!("{as_nobody} dd if=/dev/zero of=mnt/big bs=64k count=8 conv=fsync"), &[]).good();
    s.sh(&format!("{as_nobody} dd if=/dev/zero of=mnt/more bs=64k count=16 conv=fsync"), &[]).code_is(1);
    let used = get("-u nobody")["used_bytes"].as_u64().expect("a number");
    assert!((512 << 10..=1 << 20).contains(&used), "{used} bytes used");
    let report = json(&s, "gfs2r quota report --json mnt", "quotas");
    assert!(report.iter().any(|l| l["name"] == "nobody") && report.iter().any(|l| l["kind"] == "group"), "{report:?}");
    assert!(json(&s, "gfs2r quota report -g --json mnt", "quotas").iter().all(|l| l["kind"] == "group"));
    let text = s.sh("gfs2r quota report mnt", &[]).good();
    assert!(text.contains("user   nobody") && text.contains("1.0M") && text.contains("#77"), "{text}");
    // Limits go as they came, and are on the disk.
    s.sh("gfs2r quota set -u nobody --limit none mnt", &[]).good();
    assert_eq!((&get("-u nobody")["limit_bytes"], &get("-u nobody")["warn_bytes"]), (&0.into(), &(512 << 10).into()));
    s.sh("umount mnt && mount -t gfs2r disk.img mnt -o quota=account", &[]).good();
    assert_eq!(get("-u nobody")["warn_bytes"], 512 << 10);
    s.sh("gfs2r quota set -u no-such-user --limit 1 mnt", &[]).fails(1, "no such user 'no-such-user'");
    s.sh("gfs2r quota set -u 1 -g 1 --limit 1 mnt", &[]).code_is(2);
    s.sh("gfs2r quota set -u 1 --limit lots mnt", &[]).code_is(2);
    s.sh("chmod 755 . && setpriv --reuid 65534 --clear-groups gfs2r quota report mnt", &[]).fails(1, "root");
    s.sh("mount -o remount,ro mnt && gfs2r quota set -u 1 --limit 1M mnt", &[]).fails(1, "read-only");
    s.sh("umount mnt", &[]).good();
    s.is_clean(&image);
}

#[test]
fn freeze_and_thaw() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 96 << 20, "-p lock_nolock");
    s.sh(
        "mount -t gfs2r disk.img mnt && mkdir mnt/sub && echo before > mnt/f && head -c 3000000 /dev/zero > mnt/big",
        &[],
    )
    .good();
    s.sh("gfs2r thaw mnt", &[]).fails(1, "not frozen");
    s.sh("gfs2r freeze mnt", &[]).good();
    assert_eq!(json(&s, "gfs2r status --json mnt", "mounts")[0]["state"], "frozen");
    // A copy is clean and whole; reading goes on; who writes waits.
    let copy = s.path("copy.img");
    std::fs::copy(&image, &copy).expect("copy");
    s.is_clean(&copy);
    s.sh("cat mnt/f && ls -l mnt && stat mnt/big", &[]).good();
    s.sh("gfs2r freeze mnt", &[]).fails(1, "frozen already");
    // In a directory of its own: the kernel lets nobody look for names where somebody makes one.
    s.sh("(echo after > mnt/sub/g && sync mnt/sub/g && echo done > wrote) >/dev/null 2>&1 &", &[]).good();
    s.sh("sleep 0.5; test -e wrote", &[]).code_is(1);
    s.sh("cat mnt/f; gfs2r thaw mnt", &[]).good();
    s.eventually("test -e wrote && test -s mnt/sub/g");
    // An unmount thaws.
    s.sh("gfs2r freeze mnt && mount -o remount,ro mnt", &[]).code_is(32);
    s.sh("umount mnt", &[]).good();
    s.is_clean(&image);
    s.sh("mkdir other && mount -t gfs2r copy.img other && cat other/f && test $(stat -c %s other/big) = 3000000 && umount other", &[])
        .good();
}

#[test]
fn glocks() {
    let Some(s) = Sandbox::new() else { return };
    s.image("disk.img", 96 << 20, "-p lock_nolock");
    s.sh("mount -t gfs2r disk.img mnt && mkdir mnt/d && echo 12345 > mnt/d/f && sync mnt/d/f", &[]).good();
    let size = s.sh("stat -c '%i' mnt/d/f", &[]).good();
    let dump = s.sh("gfs2r glocks mnt", &[]).good();
    assert!(dump.contains("G:  s:EX n:2/") && dump.contains(" I: n:") && dump.contains(" R: n:"), "{dump}");
    let locks = json(&s, "gfs2r glocks --json mnt/d", "glocks");
    let name = format!("2/{:x}", size.trim().parse::<u64>().expect("a block"));
    let file = locks.iter().find(|l| l["name"] == name.as_str()).unwrap_or_else(|| panic!("{name} in {locks:#?}"));
    let object = file["object"].as_str().expect("its inode");
    assert!(object.contains("t:8") && object.ends_with("s:6"), "{object}");
    assert!(locks.iter().all(|l| l["holders"].is_array() && l["state"].is_string()));
    s.sh("umount mnt", &[]).good();
}

#[test]
fn dlm_of_a_mount_without_one() {
    let Some(s) = Sandbox::new() else { return };
    s.image("disk.img", 96 << 20, "-p lock_nolock");
    s.sh("gfs2r dlm ls", &[]).good();
    s.sh("mount -t gfs2r disk.img mnt", &[]).good();
    for question in ["ls", "status"] {
        let line = s.sh(&format!("gfs2r dlm {question} 2>&1"), &[]).good();
        assert!(line.lines().count() == 1 && line.contains("mnt: uses no lock manager"), "{line}");
        let nodes = json(&s, &format!("gfs2r dlm {question} --json 2>/dev/null"), "nodes");
        assert!(nodes.is_empty());
    }
    for question in ["lockdump", "plocks"] {
        let line = s.sh(&format!("! gfs2r dlm {question} fs0 2>&1"), &[]).good();
        assert!(line.contains("no mount of this host is in lockspace 'fs0'"), "{line}");
    }
    s.sh("umount mnt", &[]).good();
}
