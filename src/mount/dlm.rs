//! What `gfs2r dlm` asks of a mount: the lock manager's node in this daemon, and its lockspace.

use lockclient::inspect::{ClusterNode, PlockFileView};
use lockclient::node::Inspector;
use lockclient::node::space::LockSpace;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The lock manager as far as it can be looked at.
pub(super) struct Dlm {
    node: Inspector,
    space: LockSpace,
    /// The nodes' names by their numbers.
    names: BTreeMap<u32, String>,
    /// We have no journal.
    spectator: bool,
}

impl Dlm {
    /// For a mount with `lock_dlm`: its node and the lockspace it has joined.
    pub(super) fn new(node: Inspector, space: LockSpace, names: BTreeMap<u32, String>, spectator: bool) -> Self {
        Self { node, space, names, spectator }
    }

    /// A node's name.
    pub(super) fn name_of(&self, node: u32) -> String {
        self.names.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// Our own name.
    pub(super) fn own_name(&self) -> String {
        self.name_of(self.space.node().0)
    }

    /// What `gfs2r status` shows of the cluster: nodes, quorum, who has which journal. Null when the lock manager has ended.
    pub(super) fn summary(&self, demand: (u64, u64)) -> Value {
        let Some(view) = self.node.inspect() else { return Value::Null };
        let name = |node: u32| self.name_of(node);
        let space = self.space.inspect();
        let state = |node: &ClusterNode| match node {
            _ if space.members.iter().any(|m| m.node == node.node) => "mounted",
            _ if node.being_fenced => "being_fenced",
            _ if node.in_doubt => "in_doubt",
            _ if node.alive => "alive",
            _ if node.differs => "configured_differently",
            _ if node.fenced => "fenced",
            _ => "absent",
        };
        let nodes: Vec<Value> = view
            .membership
            .nodes
            .iter()
            .map(|n| {
                json!({
                    "id": n.node, "name": name(n.node), "state": state(n), "fence_failures": n.fence_failures,
                })
            })
            .collect();
        let journals: Vec<Value> = space
            .members
            .iter()
            .filter(|m| m.slot > 0 && !(self.spectator && m.node == view.node))
            .map(|m| json!({ "journal": m.slot - 1, "node": name(m.node) }))
            .collect();
        json!({
            "node": name(view.node), "quorate": view.quorate, "generation": space.generation,
            "locks": if space.running { "running" } else { "recovering" }, "recovery_step": space.recovery_step,
            "nodes": nodes, "journals": journals, "notices": demand.0, "waits": demand.1,
            "lock_records": space.locks,
        })
    }
}

/// `dlm node`, `dlm locks LOCKSPACE`, `dlm plocks LOCKSPACE`; nothing where there is no lock manager, or for a lockspace that
/// is not this mount's.
pub(super) fn answer(dlm: Option<&Dlm>, rest: &str) -> Result<Value, String> {
    let (what, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let Some(dlm) = dlm else { return Ok(Value::Null) };
    let value = match what {
        "node" => serde_json::to_value(dlm.node.inspect().ok_or("the lock manager has ended")?),
        "locks" | "plocks" if name != dlm.space.name() => return Ok(Value::Null),
        "locks" => serde_json::to_value(dlm.space.lock_dump()),
        "plocks" => {
            serde_json::to_value(dlm.space.plocks().iter().map(PlockFileView::from).collect::<Vec<PlockFileView>>())
        }
        other => return Err(format!("unknown request 'dlm {other}'")),
    };
    value.map_err(|e| e.to_string())
}
