//! Tells a client, in order and one at a time: from the lockspace's own thread, or, where the client is prompt, at once
//! from the thread that has read the news off a socket. Whoever tells, tells until nothing is left; a thread that
//! carries out a call of the client's never does.

use super::space::{Callback, LockClient, Prompt};
use super::trust::Trust;
use crate::plock::PlockAnswer;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

struct State {
    queue: VecDeque<Callback>,
    /// Someone is telling.
    telling: bool,
    /// Nothing is taken in any more.
    ended: bool,
    /// What was granted is lost, and not told any more.
    forfeited: bool,
    /// The thread waits for something to do.
    idle: bool,
}

pub(super) struct Teller {
    /// Until it has been told that it was the last: what it holds may hold us.
    client: Mutex<Option<Arc<dyn LockClient>>>,
    prompt: Prompt,
    trust: Arc<Trust>,
    state: Mutex<State>,
    wake: Condvar,
}

/// A reader tells so much at a time; the thread goes on.
const TURN: usize = 64;

impl Teller {
    /// Starts the thread.
    pub(super) fn new(name: &str, client: Arc<dyn LockClient>, trust: Arc<Trust>) -> std::io::Result<Arc<Teller>> {
        let state = State { queue: VecDeque::new(), telling: false, ended: false, forfeited: false, idle: false };
        let prompt = client.prompt();
        let teller = Arc::new(Teller {
            client: Mutex::new(Some(client)),
            prompt,
            trust,
            state: Mutex::new(state),
            wake: Condvar::new(),
        });
        let own = teller.clone();
        std::thread::Builder::new().name(format!("locks {name}")).spawn(move || own.run())?;
        Ok(teller)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Consistent at every step; the client is called without it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what is to be told; [`Teller::rouse`] or [`Teller::tell_promptly`] must follow.
    pub(super) fn push(&self, callback: Callback) {
        let mut state = self.state();
        if state.ended {
            // What is dropped may tell someone: not while we are locked.
            drop(state);
            return drop(callback);
        }
        state.queue.push_back(callback);
    }

    /// The thread shall tell what is there.
    pub(super) fn rouse(&self) {
        let state = self.state();
        if state.idle && !state.queue.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Is there anything that the client has not heard to its end?
    pub(super) fn is_behind(&self) -> bool {
        let state = self.state();
        state.telling || !state.queue.is_empty()
    }

    /// Nothing is taken in any more; what is there is told, and then that it was the last.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.wake.notify_one();
    }

    /// The others have gone on without us: nobody hears of a grant any more, whatever the clock says.
    pub(super) fn forfeit(&self) {
        self.state().forfeited = true;
    }

    /// Tells from this thread what the client takes from any.
    pub(super) fn tell_promptly(&self) {
        let mut state = self.state();
        for _ in 0..TURN {
            let ready = !state.telling
                && !state.forfeited
                && self.trust.holds()
                && state.queue.front().is_some_and(|first| self.is_prompt(first));
            let Some(callback) = ready.then(|| state.queue.pop_front()).flatten() else { break };
            state = self.tell_one(state, callback);
        }
        // What is left is the thread's; so is what came while we told, and it did not dare.
        if !state.telling && state.idle && (!state.queue.is_empty() || state.ended) {
            self.wake.notify_one();
        }
    }

    /// What is told next. Nobody hears of a grant while others may have gone on without us; recovery passes by. When
    /// the lockspace ends like that, what was granted is not told any more.
    fn next(&self, state: &mut State) -> Option<Callback> {
        if !state.forfeited && self.trust.holds() {
            return state.queue.pop_front();
        }
        if let Some(place) = state.queue.iter().position(passes) {
            return state.queue.remove(place);
        }
        while state.ended {
            match state.queue.pop_front()? {
                Callback::Plock(done, _) => return Some(Callback::Plock(done, PlockAnswer::Gone)),
                Callback::Completed(..) | Callback::Blocking(..) => {}
                other => return Some(other),
            }
        }
        None
    }

    fn is_prompt(&self, callback: &Callback) -> bool {
        match callback {
            Callback::Completed(..) => self.prompt != Prompt::No,
            Callback::Blocking(..) => self.prompt == Prompt::Always,
            _ => false,
        }
    }

    fn tell_one<'a>(&'a self, mut state: MutexGuard<'a, State>, callback: Callback) -> MutexGuard<'a, State> {
        state.telling = true;
        drop(state);
        let told = Told(self);
        let client = self.client().clone();
        if let Some(client) = client {
            tell(&*client, callback);
        }
        drop(told);
        self.state()
    }

    fn run(&self) {
        let mut state = self.state();
        loop {
            let next = if state.telling { None } else { self.next(&mut state) };
            let Some(callback) = next else {
                if state.ended && !state.telling {
                    break;
                }
                state.idle = true;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle = false;
                continue;
            };
            state = self.tell_one(state, callback);
        }
        drop(state);
        let client = self.client().take();
        if let Some(client) = client {
            client.ended();
        }
    }

    fn client(&self) -> MutexGuard<'_, Option<Arc<dyn LockClient>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Even if the client panics, others are told.
struct Told<'a>(&'a Teller);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.state().telling = false;
    }
}

/// Is this nothing that anyone is granted?
fn passes(callback: &Callback) -> bool {
    !matches!(callback, Callback::Completed(..) | Callback::Blocking(..) | Callback::Refused(..) | Callback::Plock(..))
}

fn tell(client: &dyn LockClient, callback: Callback) {
    match callback {
        Callback::Completed(token, completion) => client.completed(token, completion),
        Callback::Blocking(token, lock, mode) => client.blocking(token, lock, mode),
        Callback::Refused(call, why) => client.refused(call, why),
        Callback::Prepare => client.prepare(),
        Callback::SlotFailed(slot) => client.slot_failed(slot),
        Callback::Recovered { slots, our_slot, generation } => client.recovered(&slots, our_slot, generation),
        Callback::Expelled => client.expelled(),
        Callback::Plock(done, answer) => done.tell(answer),
        Callback::Barrier(told) => {
            // Whoever waited may have ended.
            let _gone = told.send(());
        }
    }
}
