//! Calls of a node that may have been declared dead: they wait until it is trusted again.

use super::{Said, Shared};
use crate::engine::{ClientCall, Event};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

impl Shared {
    /// The engine is locked, and nothing may be granted now.
    pub(super) fn park(&self, call: ClientCall) {
        self.is_parking.store(true, Ordering::Release);
        self.parked().push(call);
    }

    fn parked(&self) -> MutexGuard<'_, Vec<ClientCall>> {
        // A list: whole at every step.
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// We are trusted: the calls that waited are carried out, and what was not told is. Not while someone is at work on
    /// the engine: then the driver comes again.
    pub(crate) fn go_on(&self) {
        if self.is_parking.load(Ordering::Acquire) {
            let now = self.now();
            let mut said = Said::default();
            let Some(mut engine) = self.engine_if_free() else { return };
            self.is_parking.store(false, Ordering::Release);
            let parked = std::mem::take(&mut *self.parked());
            for call in parked {
                engine.handle(Event::Client(call), now);
                while let Some(effect) = engine.next_effect() {
                    self.pass_on(effect, &mut said);
                }
            }
            self.note_wake(&engine);
            drop(engine);
            self.links.flush(said);
        }
        self.teller.rouse();
    }
}
