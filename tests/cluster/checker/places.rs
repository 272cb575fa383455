//! Names: a name that many try to create has one winner; a file that is moved about is in one place.

use super::search::{Model, search};
use super::{Event, History, Op, Outcome, shorten};
use std::collections::BTreeMap;

/// A name: is it there, and what of that would survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Absent,
    /// Created by this incarnation, not yet durable, seen by nobody else.
    New(usize),
    There,
}

struct Created;

impl Model for Created {
    type State = Name;

    fn initial(&self) -> Name {
        Name::Absent
    }

    fn apply(&self, state: Name, event: &Event) -> Option<Name> {
        match (&event.op, &event.outcome, state) {
            (Op::Create { .. }, None | Some(Outcome::Done | Outcome::Failed(_)), Name::Absent) => {
                Some(Name::New(event.by))
            }
            // It may have found it there and nobody was told, or failed.
            (Op::Create { .. }, None | Some(Outcome::Failed(_)), state) => Some(state),
            (Op::Create { .. }, Some(Outcome::Exists), Name::New(by)) if by == event.by => Some(state),
            (Op::Create { .. }, Some(Outcome::Exists), Name::New(_) | Name::There) => Some(Name::There),
            (Op::SyncNames, _, _) => Some(state),
            _ => None,
        }
    }

    fn returned(&self, state: Name, event: &Event) -> Name {
        // Whatever this node had done before its fsync began; what it did since is at worst believed durable too early.
        match (&event.op, state) {
            (Op::SyncNames, Name::New(by)) if by == event.by && event.done() => Name::There,
            _ => state,
        }
    }

    fn killed(&self, state: Name, by: usize) -> Vec<Name> {
        if state == Name::New(by) { vec![Name::Absent, Name::There] } else { vec![state] }
    }
}

/// Names created with O_EXCL and mkdir.
pub(super) fn names(history: &History) -> Vec<String> {
    let mut by_name: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        if let Op::Create { name } = event.op {
            by_name.entry(name).or_default().push(event);
        }
    }
    // An fsync matters to the names that were tried before it began and were not answered by others since; it is offered to all
    // that a killed incarnation created.
    let syncs: Vec<&Event> =
        history.events.iter().filter(|e| e.op == Op::SyncNames && e.done() && history.killed(e.by).is_some()).collect();
    let mut wrong = Vec::new();
    for (name, mut events) in by_name {
        let created: Vec<(usize, u64)> =
            events.iter().filter(|e| e.done()).filter_map(|e| Some((e.by, e.end?))).collect();
        let durable = |s: &&Event| created.iter().any(|(by, end)| *by == s.by && *end <= s.start);
        let kept: Vec<&Event> = syncs.iter().copied().filter(durable).collect();
        events.extend(kept);
        if let Err(at) = search(&Created, history, &events) {
            wrong.push(format!("name {name} was created twice, or was and was not there: {at}"));
        }
    }
    shorten(wrong)
}

/// A token: where it is, where it would be after its mover's death, and who that is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    now: u8,
    durable: u8,
    mover: usize,
    /// Where it was before, and when the move that brought it here had returned.
    before: u8,
    moved: u64,
}

struct Token;

impl Model for Token {
    type State = Place;

    fn initial(&self) -> Place {
        Place { now: 0, durable: 0, mover: 0, before: 0, moved: 0 }
    }

    fn apply(&self, state: Place, event: &Event) -> Option<Place> {
        // Another node that sees it makes it durable.
        let seen = if state.mover == event.by { state } else { Place { durable: state.now, ..state } };
        match (&event.op, &event.outcome) {
            (Op::Move { from, to, .. }, None | Some(Outcome::Done | Outcome::Failed(_))) if *from == state.now => {
                let moved = event.end.unwrap_or(u64::MAX);
                Some(Place { now: *to, durable: seen.durable, mover: event.by, before: state.now, moved })
            }
            // The kernel looks up the old name and then the new one, and when another node makes the same move between the two it
            // sees two names of one inode: then rename(2) succeeds and does nothing, without a word to the filesystem. In the
            // kernel's own GFS2 it is the same.
            (Op::Move { from, to, .. }, Some(Outcome::Done))
                if *to == state.now
                    && *from == state.before
                    && state.moved > event.start
                    && state.mover != event.by =>
            {
                Some(seen)
            }
            (Op::Move { .. }, None | Some(Outcome::Failed(_))) => Some(state),
            // Whoever looks into a directory that the move did not touch sees nothing of it.
            (Op::Move { from: at, .. } | Op::Look { at, .. }, Some(Outcome::Absent)) if *at != state.now => {
                Some(if *at == state.before { seen } else { state })
            }
            (Op::Look { at, .. }, Some(Outcome::Present)) if *at == state.now => Some(seen),
            (Op::Look { .. }, None | Some(Outcome::Failed(_))) => Some(state),
            _ => None,
        }
    }

    fn returned(&self, state: Place, event: &Event) -> Place {
        let synced = matches!(event.op, Op::Move { .. }) && event.done() && state.mover == event.by;
        if synced { Place { durable: state.now, ..state } } else { state }
    }

    fn killed(&self, state: Place, by: usize) -> Vec<Place> {
        let kept = Place { durable: state.now, ..state };
        let lost = Place { now: state.durable, ..state };
        if state.mover == by { vec![kept, lost] } else { vec![state] }
    }
}

/// Files moved between directories.
pub(super) fn tokens(history: &History) -> Vec<String> {
    let mut tokens: BTreeMap<u8, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        if let Op::Move { token, .. } | Op::Look { token, .. } = event.op {
            tokens.entry(token).or_default().push(event);
        }
    }
    let wrong = tokens.iter().filter_map(|(token, events)| {
        let at = search(&Token, history, events).err()?;
        Some(format!("token {token} was in two places, or in none: {at}"))
    });
    shorten(wrong.collect())
}
