//! Mounts of a cluster, seen from outside: several volumes on a node, mounts that wait and are given up, a node that was stopped,
//! what can be looked at. Needs root, and says so loudly where it cannot run.

#![allow(unreachable_pub, dead_code, reason = "shared with another test")]

#[path = "mount/sandbox.rs"]
mod sandbox;

use sandbox::Sandbox;
use serde_json::Value;
use std::sync::atomic::{AtomicU8, Ordering};

static LABS: AtomicU8 = AtomicU8::new(1);

/// Volumes a and b, nodes n1 and n2 (and n3, which is never there) with a runtime folder and a folder of mounts each.
struct Lab(Sandbox);

/// Shell functions for the lines below: `m NODE VOLUME OPTIONS`, `u NODE VOLUME`, `on NODE COMMAND...`; `NODE/VOLUME` is mounted
/// on mNODEVOLUME.
const SHELL: &str = r#"
on() { export GFS2R_RUN_DIR="$PWD/run$1"; shift; timeout -s KILL 40 "$@"; }
m() { on "$1" mount.gfs2r "$2.img" "m$1$2" -o "cluster=cluster.toml,node=n$1$3"; }
u() { on "$1" umount.gfs2r "m$1$2"; }
until_true() { for _ in $(seq 300); do "$@" && return 0; sleep 0.1; done; echo "in vain: $*"; return 1; }
pid() { cat "run$1/node-cc.n1/pid"; }
"#;

impl Lab {
    fn new(nodes: u8) -> Option<Self> {
        let s = Sandbox::new()?;
        let (lab, unique) = (LABS.fetch_add(1, Ordering::Relaxed), std::process::id() % 250);
        let mut file = "name = \"cc\"\ntoken_ms = 1000\nunsafe_no_fencing = true\n".to_owned();
        for node in 1..=nodes {
            file += &format!(
                "[[node]]\nid = {node}\nname = \"n{node}\"\naddress = \"127.{}.{unique}.{node}\"\n",
                200 + lab
            );
            let folders = ["run".to_owned(), "m".into()].map(|f| format!("{f}{node}"));
            std::fs::create_dir(s.path(&folders[0])).expect("a folder");
            for volume in ["a", "b"] {
                std::fs::create_dir(s.path(&format!("{}{volume}", folders[1]))).expect("a folder");
            }
        }
        std::fs::write(s.path("cluster.toml"), file).expect("a cluster file");
        for volume in ["a", "b"] {
            s.image(&format!("{volume}.img"), 160 << 20, &format!("-p lock_dlm -t cc:{volume} -j 3"));
        }
        Some(Self(s))
    }

    #[track_caller]
    fn sh(&self, line: &str) -> String {
        self.0.sh(&format!("{SHELL}{line}"), &[]).good()
    }

    #[track_caller]
    fn json(&self, node: u8, command: &str) -> Value {
        let said = self.sh(&format!("on {node} gfs2r {command} --json || true"));
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{command}: {e}: {said}"))
    }

    fn is_clean(&self) {
        for volume in ["a.img", "b.img"] {
            self.0.is_clean(&self.0.path(volume));
        }
    }
}

#[test]
fn two_volumes_on_each_node() {
    let Some(lab) = Lab::new(2) else { return };
    lab.sh("m 1 a & m 2 a & wait; m 1 b && m 2 b");
    let mounts = lab.json(1, "status");
    let pids: Vec<&Value> = mounts["mounts"].as_array().expect("a list").iter().map(|m| &m["pid"]).collect();
    assert!(pids.len() == 2 && pids[0] == pids[1] && pids[0].is_u64(), "{mounts:#}");
    lab.sh("echo one > m1a/x && grep -q one m2a/x && echo two > m2b/y && grep -q two m1b/y");
    assert!(lab.sh("m 1 b 2>&1 || true").contains("already mounted here"));
    // Each may go by itself and come back, in any order.
    lab.sh("u 1 a && grep -q two m1b/y && m 1 a && grep -q one m1a/x && u 1 b && m 1 b && u 1 b && u 1 a");
    lab.sh("[ -z \"$(ls run1)\" ] || { ls run1; exit 1; }");
    lab.sh("grep -q two m2b/y && m 1 b && grep -q two m1b/y && u 1 b && u 2 b && u 2 a");
    // A handed-over mount that fails is a failed mount, and the others do not notice.
    lab.sh("m 1 a && { m 1 b ,bogus && exit 1; m 1 b ,quota=on,lockproto=lock_nolock || true; } ; u 1 b; u 1 a");
    lab.is_clean();
}

#[test]
fn a_daemon_with_two_volumes_is_told_to_end_or_killed() {
    let Some(lab) = Lab::new(2) else { return };
    lab.sh("m 1 a & m 2 a & wait; m 1 b && m 2 b");
    lab.sh("echo 1 > m1a/x && echo 1 > m1b/x && sync m1a/x m1b/x && sleep 10 < m1a/x & sleep 0.2");
    lab.sh("kill $(pid 1) && until_true sh -c '! grep -q /m1 /proc/mounts'");
    lab.sh("echo 2 > m2a/x && echo 2 > m2b/x && m 1 a && m 1 b && grep -q 2 m1a/x && grep -q 2 m1b/x");
    lab.sh(
        "echo 3 > m1a/x && sync m1a/x && kill -9 $(pid 1) && umount -l m1a m1b && grep -q 3 m2a/x && grep -q 2 m2b/x",
    );
    lab.sh("m 1 b && m 1 a && grep -q 3 m1a/x && u 1 a && u 1 b && u 2 b && u 2 a");
    lab.is_clean();
}

#[test]
fn a_mount_that_waits_says_for_whom_and_is_given_up() {
    let Some(lab) = Lab::new(3) else { return };
    lab.sh("on 1 env --default-signal=INT timeout -s INT 15 mount.gfs2r a.img m1a -o cluster=cluster.toml,node=n1 > said 2>&1 &
         until_true grep -q 'waiting for n2 (not heard from), n3 (not heard from); 2 of 3' said");
    let status = lab.json(1, "status");
    let mount = &status["mounts"][0];
    assert_eq!(mount["state"], "mounting", "{status:#}");
    assert!(mount["waiting_for"].as_str().is_some_and(|w| w.contains("n2 (not heard from)")), "{status:#}");
    // ^C: nothing is left.
    lab.sh("until_true sh -c '[ -z \"$(ls run1)\" ]' && ! grep -q /m1a /proc/mounts && cat said");
    lab.is_clean();
}

#[test]
fn a_node_that_was_stopped_writes_nothing_when_it_wakes() {
    let Some(lab) = Lab::new(2) else { return };
    lab.sh("m 1 a ,commit=600,statfs_quantum=600 & m 2 a ,commit=600,statfs_quantum=600 & wait");
    lab.sh("(n=0; while echo $n > m1a/$((n % 50)) && sync m1a/$((n % 50)); do n=$((n + 1)); done; echo $n > wrote) 2> /dev/null & sleep 1.5");
    lab.sh("kill -STOP $(pid 1); sleep 3; ls m2a > /dev/null && sync m2a && sleep 1 && md5sum < a.img > before");
    let said = lab.sh(
        "kill -CONT $(pid 1); sleep 3; md5sum < a.img > after; cmp before after && until_true test -s wrote; cat wrote",
    );
    assert!(said.trim().parse::<u32>().is_ok_and(|n| n > 0), "{said}");
    let status = lab.json(1, "status");
    assert_eq!(status["mounts"][0]["state"], "withdrawn", "{status:#}");
    lab.sh("u 1 a; m 1 a && u 1 a && u 2 a");
    lab.is_clean();
}

#[test]
fn top_and_metrics() {
    let Some(lab) = Lab::new(2) else { return };
    let port = 20_000 + std::process::id() % 20_000;
    lab.sh(&format!("m 1 a ,metrics={port} & m 2 a & wait; m 1 b ,metrics={port}; m 2 b ,spectator"));
    lab.sh("mkdir m1a/d && for n in $(seq 20); do echo $n > m1a/d/f && grep -q $n m2a/d/f && echo x >> m2a/d/f; done");
    let top = lab.json(1, "top");
    let hot = top["mounts"][0]["hot"].as_array().expect("a list").clone();
    let of = |path: &str| hot.iter().find(|lock| lock["path"] == path && lock["kind"] == "inode");
    let file = of("/d/f").unwrap_or_else(|| panic!("{top:#}"));
    assert!(file["notices"].as_u64() > Some(10) && file["waits"].as_u64() > Some(10), "{top:#}");
    let text = lab.sh("on 1 gfs2r top --once m1a/d");
    assert!(text.contains("HOT") && text.contains("/d/f") && text.contains("nothing is waited for"), "{text}");
    // Who waits for whom: a lock of flock(2) held on one node and wanted on another.
    lab.sh("flock m2a/d/f sleep 8 & sleep 0.5; timeout 20 flock m1a/d/f true & sleep 1");
    let top = lab.json(1, "top");
    let waits = top["mounts"][0]["waiting"].as_array().expect("a list").clone();
    let wait = waits.iter().find(|w| w["kind"] == "flock").unwrap_or_else(|| panic!("{top:#}"));
    assert!(wait["path"] == "/d/f" && wait["since_ms"].as_u64() > Some(500), "{top:#}");
    assert!(wait["holders"][0] == "n2 EX" || wait["master"] == "n2", "{top:#}");
    let said = lab.sh(&format!("python3 -c \"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/metrics', timeout=5).read().decode())\""));
    for line in [
        "gfs2r_mount_state{volume=\"cc:a\"",
        "gfs2r_space_free_bytes{volume=\"cc:b\"",
        "node=\"n2\",state=\"mounted\"} 1",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    let status = lab.json(2, "status");
    let spectator = status["mounts"].as_array().expect("a list").iter().find(|m| m["lock_table"] == "cc:b").cloned();
    assert!(spectator.is_some_and(|m| m["journal"].is_null()), "{status:#}");
    assert!(lab.sh("on 2 gfs2r status m2b").contains("no journal of 3"));
    lab.sh("until_true sh -c '! pgrep flock >/dev/null'; u 1 a && u 1 b && u 2 a && u 2 b");
    lab.is_clean();
}
