//! Small stable numbers for the members, and the generation of the membership (dlm.md 4.5.1). GFS2 derives journal
//! numbers from them: a slot, once given, must not change while its member stays.

use crate::engine::Engine;
use crate::frame::{RcomConfig, Slot};
use crate::ids::NodeId;

impl Engine {
    /// The lowest member is about to ask everyone for its slot.
    pub(crate) fn forget_slots(&mut self) {
        let (node, slot, generation) = (self.config.node, self.recovery.our_slot, self.recovery.generation);
        for member in &mut self.recovery.members {
            (member.slot, member.generation) = (None, 0);
            if member.node == node {
                (member.slot, member.generation) = (Some(slot), generation);
            }
        }
    }

    /// The lowest member hears what slot a member has.
    pub(crate) fn note_slot(&mut self, from: NodeId, config: &RcomConfig) {
        if let Some(member) = self.recovery.members.iter_mut().find(|m| m.node == from) {
            (member.slot, member.generation) = (Some(config.our_slot), config.generation);
            if config.our_slot != 0 {
                member.slot_given = config.our_slot;
            }
        }
    }

    /// The lowest member gives slots to those who have none.
    pub(crate) fn assign_slots(&mut self) {
        let members = &mut self.recovery.members;
        let consistent = members.iter().all(|m| match m.slot {
            None => false,
            Some(slot) => m.slot_before == 0 || slot == 0 || slot == m.slot_before,
        });
        let mut taken: Vec<u16> = members.iter().filter_map(|m| m.slot).filter(|slot| *slot != 0).collect();
        taken.sort_unstable();
        let unique = taken.windows(2).all(|pair| pair[0] != pair[1]);
        if !consistent || !unique {
            return self.ignore("members do not agree on their slots");
        }
        let generation = members.iter().map(|m| m.generation).max().unwrap_or(0).wrapping_add(1);
        for member in members.iter_mut() {
            if member.slot == Some(0) {
                // At most as many numbers are taken as there are members, far below 2^16.
                let free = (1..=u16::MAX).find(|slot| !taken.contains(slot)).unwrap_or(0);
                taken.push(free);
                member.slot = Some(free);
            }
            member.generation = generation;
        }
        let slots = members.iter().map(|m| Slot { node: m.node, slot: m.slot.unwrap_or(0) }).collect();
        self.publish_slots(slots, generation);
    }

    /// Another member learns the slots from the lowest one.
    pub(crate) fn adopt_slots(&mut self, config: &RcomConfig) {
        let node = self.config.node;
        let ours = config.slots.iter().find(|s| s.node == node).map(|s| s.slot);
        let complete =
            self.recovery.members.iter().all(|m| config.slots.iter().any(|s| s.node == m.node && s.slot != 0));
        let unchanged = self.recovery.our_slot == 0 || ours == Some(self.recovery.our_slot);
        if config.slots.is_empty() || !complete || !unchanged {
            return self.ignore("slots that do not fit the members");
        }
        let members = &self.recovery.members;
        let slots = config.slots.iter().filter(|s| members.iter().any(|m| m.node == s.node)).copied().collect();
        self.publish_slots(slots, config.generation);
    }

    fn publish_slots(&mut self, slots: Vec<Slot>, generation: u32) {
        let node = self.config.node;
        let recovery = &mut self.recovery;
        for slot in &slots {
            if let Some(member) = recovery.members.iter_mut().find(|m| m.node == slot.node) {
                (member.slot, member.generation) = (Some(slot.slot), generation);
                member.slot_given = slot.slot;
            }
            if slot.node == node {
                recovery.our_slot = slot.slot;
            }
        }
        recovery.generation = generation;
        recovery.slots = slots;
    }
}
