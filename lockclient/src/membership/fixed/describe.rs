//! What the engine is told of a view: who is in it, and who of the others has died.

use super::{Fixed, View};
use crate::ids::NodeId;
use crate::recovery::{Start, StartMember};

impl Fixed {
    /// A view as a start.
    pub(super) fn describe(&self, lockspace: u32, view: &View) -> Start {
        let known = self.spaces.get(&lockspace).map(|space| space.begun.members.as_slice()).unwrap_or_default();
        let members = view.members.iter().map(|member| StartMember {
            node: member.0,
            weight: 1,
            incarnation: member.1,
            new: !known.contains(member),
        });
        // Who was a member and has not said himself that he left has died, though some of us may still hear him: all must
        // agree on who has left in order.
        let stays = |life: (NodeId, u64)| view.members.iter().any(|m| (m.0, m.1) == life);
        let ended = |life: (NodeId, u64)| {
            let member = known.iter().find(|m| (m.0, m.1) == life);
            self.expelled.contains(&life) || member.is_some_and(|m| !stays(life) && !self.has_left(lockspace, *m))
        };
        let living = self.config.nodes.iter().filter(|node| self.lives(**node));
        let living = living.filter_map(|node| Some((*node, self.incarnation(*node)?)));
        let cluster = living.filter(|life| !ended(*life)).collect();
        Start { members: members.collect(), cluster, round: view.round() }
    }
}
