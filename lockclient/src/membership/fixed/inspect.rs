//! What an administrator sees of the membership ([`crate::inspect`]).

use super::Fixed;
use crate::inspect::{ClusterNode, MembershipView};

impl Fixed {
    pub(super) fn view(&self) -> MembershipView {
        let mut nodes = self.config.nodes.clone();
        nodes.sort_unstable();
        let describe = |node| {
            let peer = self.peers.get(&node);
            ClusterNode {
                node: node.0,
                alive: self.lives(node),
                incarnation: self.incarnation(node),
                heard_ms_ago: peer.and_then(|peer| peer.heard).map(|at| self.now.saturating_sub(at)),
                in_doubt: self.doubtful.contains(&node),
                being_fenced: peer.is_some_and(|peer| peer.fencing.is_some()),
                fenced: self.fenced.contains(&node),
                differs: self.has_differed(node),
                // Counted by the node, which has the agents run.
                fence_failures: 0,
            }
        };
        MembershipView {
            incarnation: self.config.incarnation,
            token_ms: self.config.token_ms,
            nodes: nodes.into_iter().map(describe).collect(),
        }
    }
}
