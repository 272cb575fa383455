//! Snapshots as text, in the manner of `dlm_tool ls`, `status`, `lockdump` and `plocks`: the same words where there are
//! any, one line for each lock. Programs should read the values instead.

use super::{LockView, NodeView, PlockFileView, PlockView, ResourceView};
use std::fmt::Write;

// Writing to a String cannot fail: its results are not looked at below.

/// The lockspaces of a node.
pub fn lockspaces(node: &NodeView) -> String {
    if node.lockspaces.is_empty() {
        return "no lockspaces\n".to_owned();
    }
    let mut out = "dlm lockspaces\n".to_owned();
    for space in &node.lockspaces {
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<13} {value}");
        };
        let members: Vec<String> = space.members.iter().map(|member| member.node.to_string()).collect();
        let slots: Vec<String> = space.members.iter().map(|m| format!("{}:{}", m.node, m.slot)).collect();
        let state = if space.running { "running".to_owned() } else { format!("recovering ({})", space.recovery_step) };
        line("name", space.name.clone());
        line("id", format!("{:#010x}", space.id));
        line("flags", "0x00000000".to_owned());
        line("state", state);
        line("change", format!("member {} generation {}", members.len(), space.generation));
        line("members", members.join(" "));
        line("slots", slots.join(" "));
        line("locks", format!("{} on {} resources", space.locks, space.resources));
        let source = space.plocks.source.map_or("recovering".to_owned(), |node| format!("ordered by node {node}"));
        line("plocks", format!("{}, {source}", space.plocks.size));
        if !space.ignored.is_empty() {
            let ignored: Vec<String> = space.ignored.iter().map(|(why, count)| format!("{count} {why}")).collect();
            line("ignored", ignored.join(", "));
        }
        out.push('\n');
    }
    out
}

/// The cluster, and the conversations with its nodes.
pub fn status(node: &NodeView) -> String {
    let membership = &node.membership;
    let mut out = String::new();
    let quorate = u8::from(node.quorate);
    let (id, incarnation, token) = (node.node, membership.incarnation, membership.token_ms);
    let _ = writeln!(out, "cluster nodeid {id} quorate {quorate} incarnation {incarnation} token {token} ms");
    for other in &membership.nodes {
        let letter = if other.alive { 'M' } else { 'X' };
        let _ = write!(out, "node {} {letter}", other.node);
        if let Some(ago) = other.heard_ms_ago {
            let _ = write!(out, " heard {ago} ms ago");
        }
        let states = [(other.in_doubt, "in doubt"), (other.being_fenced, "being fenced"), (other.fenced, "fenced")];
        for (_, state) in states.iter().filter(|(holds, _)| *holds) {
            let _ = write!(out, ", {state}");
        }
        if let Some(peer) = node.peers.iter().find(|peer| peer.node == other.node) {
            let (connection, conversation) = (&peer.connection, &peer.conversation);
            let (behind, dropped) = (peer.unacknowledged, peer.dropped);
            let _ = write!(out, " connection {connection} {conversation} unacknowledged {behind} dropped {dropped}");
        }
        out.push('\n');
    }
    out
}

/// Every lock that this node knows.
pub fn locks(resources: &[ResourceView]) -> String {
    let mut out = String::new();
    for resource in resources {
        let master = resource.master.map_or("?".to_owned(), |node| node.to_string());
        let value = match (&resource.lvb, resource.lvb_valid) {
            (Some(lvb), true) => format!(" lvb {lvb} seq {}", resource.lvb_sequence),
            (_, false) => format!(" lvb invalid seq {}", resource.lvb_sequence),
            (None, true) => String::new(),
        };
        let _ = writeln!(out, "\"{}\" master {master} dir {}{value}", resource.name, resource.directory);
        let queues =
            [("granted", &resource.granted), ("convert", &resource.converting), ("waiting", &resource.waiting)];
        for (queue, locks) in queues {
            locks.iter().for_each(|lock| one_lock(&mut out, queue, lock));
        }
    }
    out
}

fn one_lock(out: &mut String, queue: &str, lock: &LockView) {
    let LockView { id, remote_id, node, pid, granted, requested, flags, awaits, .. } = lock;
    let _ = write!(out, "  {queue} id {id:08x} gr {granted} rq {requested} node {node} pid {pid} flags {flags:x}");
    if *remote_id != 0 {
        let _ = write!(out, " remid {remote_id:08x}");
    }
    if awaits != "Nothing" {
        let _ = write!(out, " awaits {}", awaits.to_lowercase());
    }
    out.push('\n');
}

/// Byte-range locks and who waits for them.
pub fn plocks(files: &[PlockFileView]) -> String {
    let mut out = String::new();
    for file in files {
        let mut line = |lock: &PlockView, tail: &str| {
            let PlockView { start, end, exclusive, node, pid, owner } = lock;
            let kind = if *exclusive { "WR" } else { "RD" };
            let number = file.number;
            let _ = writeln!(out, "{number} {kind} {start}-{end} nodeid {node} pid {pid} owner {owner:x}{tail}");
        };
        file.locks.iter().for_each(|lock| line(lock, ""));
        file.waiters.iter().for_each(|lock| line(lock, " WAITING"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterNode, MemberView, MembershipView, PeerView, PlockCounts, SpaceView};
    use super::*;

    fn node() -> NodeView {
        let member = |node, slot| MemberView { node, incarnation: 5, slot, weight: 1 };
        let space = SpaceView {
            name: "fs0".into(),
            id: 0x44fd_2812,
            running: true,
            generation: 7,
            slot: 1,
            members: vec![member(1, 1), member(2, 2)],
            locks: 12,
            resources: 9,
            ignored: [("message from a stranger".to_owned(), 3)].into(),
            plocks: PlockCounts { source: Some(1), reached: Some(40), size: 2, ..PlockCounts::default() },
            ..SpaceView::default()
        };
        let alive = |node| ClusterNode { node, alive: true, incarnation: Some(5), ..ClusterNode::default() };
        let nodes = vec![
            alive(1),
            ClusterNode { heard_ms_ago: Some(120), ..alive(2) },
            ClusterNode { node: 3, heard_ms_ago: Some(9000), in_doubt: true, being_fenced: true, ..Default::default() },
        ];
        let (connection, conversation) = ("up".into(), "ESTABLISHED".into());
        NodeView {
            node: 1,
            quorate: true,
            membership: MembershipView { incarnation: 5, token_ms: 1000, nodes },
            peers: vec![PeerView { node: 2, connection, conversation, unacknowledged: 4, dropped: 1 }],
            lockspaces: vec![space],
        }
    }

    #[test]
    fn lockspaces_and_status_are_these_lines() {
        let golden = "\
dlm lockspaces
name          fs0
id            0x44fd2812
flags         0x00000000
state         running
change        member 2 generation 7
members       1 2
slots         1:1 2:2
locks         12 on 9 resources
plocks        2, ordered by node 1
ignored       3 message from a stranger

";
        assert_eq!(lockspaces(&node()), golden);
        let golden = "\
cluster nodeid 1 quorate 1 incarnation 5 token 1000 ms
node 1 M
node 2 M heard 120 ms ago connection up ESTABLISHED unacknowledged 4 dropped 1
node 3 X heard 9000 ms ago, in doubt, being fenced
";
        assert_eq!(status(&node()), golden);
        assert_eq!(lockspaces(&NodeView::default()), "no lockspaces\n");
    }

    #[test]
    fn locks_are_these_lines() {
        let lock = LockView {
            id: 0x0100_0001,
            remote_id: 0x2a,
            node: 2,
            pid: 77,
            granted: "PR".into(),
            requested: "IV".into(),
            flags: 8,
            awaits: "Nothing".into(),
            wants_notices: true,
        };
        let waits = LockView { granted: "IV".into(), requested: "EX".into(), awaits: "Request".into(), ..lock.clone() };
        let resource = ResourceView {
            name: "       2            1b3a".into(),
            master: Some(1),
            directory: 2,
            granted: vec![lock],
            waiting: vec![LockView { remote_id: 0, ..waits }],
            lvb: Some("00ff".into()),
            lvb_sequence: 3,
            lvb_valid: true,
            ..ResourceView::default()
        };
        let stale = ResourceView { name: "x\\x00".into(), lvb_sequence: 4, ..ResourceView::default() };
        let golden = "\
\"       2            1b3a\" master 1 dir 2 lvb 00ff seq 3
  granted id 01000001 gr PR rq IV node 2 pid 77 flags 8 remid 0000002a
  waiting id 01000001 gr IV rq EX node 2 pid 77 flags 8 awaits request
\"x\\x00\" master ? dir 0 lvb invalid seq 4
";
        assert_eq!(locks(&[resource, stale]), golden);
    }

    #[test]
    fn plocks_are_these_lines() {
        let held = PlockView { start: 5, end: 14, exclusive: true, node: 1, pid: 856, owner: 0x99ba_5b80 };
        let waiter = PlockView { exclusive: false, node: 2, end: i64::MAX as u64, ..held };
        let file = PlockFileView { number: 6973, locks: vec![held], waiters: vec![waiter] };
        let golden = "\
6973 WR 5-14 nodeid 1 pid 856 owner 99ba5b80
6973 RD 5-9223372036854775807 nodeid 2 pid 856 owner 99ba5b80 WAITING
";
        assert_eq!(plocks(&[file]), golden);
    }
}
