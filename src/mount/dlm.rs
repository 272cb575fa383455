//! What `gfs2r dlm` asks of a mount: the lock manager's node in this daemon, and its lockspace.

use lockclient::inspect::PlockFileView;
use lockclient::node::Inspector;
use lockclient::node::space::LockSpace;
use serde_json::Value;

/// The lock manager as far as it can be looked at.
pub(super) struct Dlm {
    node: Inspector,
    space: LockSpace,
}

impl Dlm {
    /// For a mount with `lock_dlm`: its node and the lockspace it has joined.
    pub(super) fn new(node: Inspector, space: LockSpace) -> Self {
        Self { node, space }
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
