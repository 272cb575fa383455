//! Three nodes on this machine with one disk.

use super::daemon::{Daemon, run};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const NODES: u32 = 3;

/// Formats the shared disk.
pub(super) fn mkfs(bin: &Path, disk: &Path, fresh: bool) -> Command {
    let mut command = Command::new(bin.join("mkfs.gfs2r"));
    command.args(["-O", "-q", "-p", "lock_dlm", "-t", "bench:dlm", "-J", "128", "-j", &NODES.to_string()]);
    if !fresh {
        command.arg("-K");
    }
    command.arg(disk);
    command
}

/// Where a node's mount is; the first has the target's own.
pub(crate) fn root(first: &Path, node: u32) -> PathBuf {
    if node == 1 { first.to_owned() } else { first.with_extension(format!("node{node}")) }
}

fn run_dir(first: &Path, node: u32) -> PathBuf {
    first.with_extension(format!("run{node}"))
}

/// Mounts on all nodes.
pub(super) fn mount(bin: &Path, disk: &Path, first: &Path) -> io::Result<Daemon> {
    let (agent, file) = (first.with_extension("fence"), first.with_extension("toml"));
    std::fs::write(&agent, "#!/bin/sh\nexit 1\n")?;
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755))?;
    // Addresses of this run.
    let net = std::process::id() % 60_000;
    let net = format!("127.{}.{}", 2 + net / 250, 1 + net % 250);
    // Measured beside other work: nobody is to be given up because he is slow.
    let mut text = "name = \"bench\"\ntoken_ms = 10000\n".to_owned();
    for node in 1..=NODES {
        text += &format!("[[node]]\nid = {node}\nname = \"node{node}\"\naddress = \"{net}.{node}\"\n");
        text += &format!("[node.fence]\nagent = \"{}\"\n", agent.display());
    }
    std::fs::write(&file, text)?;
    let mount = |node: u32| {
        std::fs::create_dir_all(root(first, node))?;
        let options = format!("cluster={},node=node{node}", file.display());
        let mut command = Command::new(bin.join("mount.gfs2r"));
        command.args(["-o", &options]).arg(disk).arg(root(first, node)).env("GFS2R_RUN_DIR", run_dir(first, node));
        run(&mut command)
    };
    // Together: each waits for a majority.
    std::thread::scope(|scope| {
        let all: Vec<_> = (1..=NODES).map(|node| scope.spawn(move || mount(node))).collect();
        all.into_iter().try_for_each(|node| node.join().map_err(|_| io::Error::other("a thread panicked"))?)
    })?;
    Daemon::of_mounts(&(1..=NODES).map(|node| (run_dir(first, node), root(first, node))).collect::<Vec<_>>())
}

/// Unmounts on all nodes, the first at the end.
pub(super) fn unmount(bin: &Path, first: &Path) -> io::Result<()> {
    (1..=NODES).rev().try_for_each(|node| {
        let mut command = Command::new(bin.join("umount.gfs2r"));
        run(command.arg(root(first, node)).env("GFS2R_RUN_DIR", run_dir(first, node)))
    })
}
