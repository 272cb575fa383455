//! Every member is done: locking goes on (dlm.md 4.5 steps 12 to 18).

use super::Step;
use crate::engine::grant::Occasion;
use crate::engine::resource::ResourceKey;
use crate::engine::{Effect, Engine};

impl Engine {
    pub(crate) fn finish(&mut self) {
        self.recovery.step = Step::Idle;
        self.recovery.gone.clear();
        self.recovery.listing.clear();
        // All members have these slots by now; those of a round that was given up may be known to none but their giver.
        self.recovery.members.iter_mut().for_each(|member| member.slot_before = member.slot.unwrap_or(0));
        self.release_callbacks();
        self.running = true;
        self.draining = true;
        while let Some((from, msg)) = self.request_queue.pop_front() {
            self.execute(from, msg);
        }
        self.draining = false;
        self.reissue_waiters();
        self.refuse_deadlocked();
        let due: Vec<ResourceKey> = self.resources.keys().filter(|key| self.resources[*key].grant_due).collect();
        for key in due {
            if std::mem::take(&mut self.resources[key].grant_due) && self.is_master(key) {
                self.grant_pass(key, Occasion::Recovered);
            }
        }
        let recovered = Effect::Recovered {
            slots: self.recovery.slots.clone(),
            our_slot: if self.recovery.slots.is_empty() { 0 } else { self.recovery.our_slot },
            generation: self.recovery.generation,
        };
        self.emit(recovered);
        self.admit_clients();
    }
}
