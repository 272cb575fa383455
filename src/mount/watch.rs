//! What `gfs2r top` shows of a cluster mount: hot locks, and who waits for whom.

use super::live::Live;
use crate::cluster::Cluster;
use crate::ids::{BlockAddr, LockKind, LockName};
use serde_json::{Value, json};

/// So many locks of each list.
const MAX: usize = 64;

/// The answer to `top`; null where no other node is.
pub(super) fn answer(live: &Live) -> Value {
    let (Some(part), Some(dlm)) = (live.cluster(), &live.dlm) else { return Value::Null };
    let hot: Vec<Value> = part
        .demand()
        .iter()
        .take(MAX)
        .map(|(name, demand)| {
            let (kind, path) = what(live, *name);
            json!({ "name": name.to_string(), "kind": kind, "path": path, "notices": demand.notices, "waits": demand.waits })
        })
        .collect();
    let waiting: Vec<Value> = part
        .waits()
        .iter()
        .take(MAX)
        .map(|wait| {
            let (kind, path) = what(live, wait.name);
            let (holders, master) = holders(&part, wait.name, &|node| dlm.name_of(node));
            json!({
                "name": wait.name.to_string(), "kind": kind, "path": path, "wants": wait.wants.to_string(),
                "since_ms": u64::try_from(wait.since.as_millis()).unwrap_or(u64::MAX), "held_back": wait.held_back,
                "holders": holders, "master": master,
            })
        })
        .collect();
    json!({
        "directory": live.target, "lock_table": live.options.lock().locktable, "node": dlm.own_name(),
        "hot": hot, "waiting": waiting,
    })
}

/// What kind of thing a lock protects, and where it is found.
fn what(live: &Live, name: LockName) -> (&'static str, Option<String>) {
    let path = || BlockAddr::new(name.number).and_then(|addr| live.opened.fs.path_of(addr));
    match name.kind {
        LockKind::Inode => ("inode", path()),
        LockKind::Iopen => ("open", path()),
        LockKind::Flock => ("flock", path()),
        LockKind::Rgrp => ("resource group", None),
        LockKind::Quota => ("quota", None),
        LockKind::Meta => ("superblock", None),
        LockKind::Nondisk => ("mount", None),
        LockKind::Journal => ("journal", None),
    }
}

/// Who holds a lock, with the mode, as far as this node knows: all of them if it is the master; and else who that is.
fn holders(part: &Cluster, name: LockName, of: &dyn Fn(u32) -> String) -> (Vec<String>, Option<String>) {
    let Some(space) = part.space() else { return (Vec::new(), None) };
    let Some(view) = space.look(name.resource().as_bytes()) else { return (Vec::new(), None) };
    let others = view.granted.iter().chain(&view.converting).filter(|lock| lock.node != space.node().0);
    let holders = others.filter(|lock| lock.granted != "NL").map(|lock| format!("{} {}", of(lock.node), lock.granted));
    (holders.collect(), view.master.map(of))
}
