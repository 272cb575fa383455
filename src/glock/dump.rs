//! The familiar text of the kernel's glock dumps: a `G:` line per glock, an `H:` line per holder or waiter, and a line about
//! the object (`I:` an inode, `R:` a resource group).

use super::machine::Phase;
use super::mode::LockState;
use super::{Glock, GlockTable, Protected};
use std::fmt::Write;
use std::sync::Arc;

impl<T: Protected> GlockTable<T> {
    /// The dump of all glocks, by name.
    pub fn dump(&self) -> String {
        let mut glocks = self.glocks();
        glocks.sort_by_key(|g| g.name());
        glocks.iter().fold(String::new(), |mut out, g| {
            g.dump_to(&mut out);
            out
        })
    }
}

impl<T: Protected> Glock<T> {
    /// Appends the dump of this glock.
    pub fn dump_to(self: &Arc<Self>, out: &mut String) {
        let p = self.picture();
        // The object is looked at only if that needs no waiting; a glock in use shows none.
        let object = self.object.try_read().and_then(|o| o.as_ref().map(Protected::describe));
        let mut flags = String::new();
        let mut flag = |yes: bool, c| {
            if yes {
                flags.push(c);
            }
        };
        flag(p.phase != Phase::Idle, 'l');
        flag(p.demote.is_some(), 'D');
        flag(p.demote.is_some() && p.phase != Phase::Idle, 'p');
        flag(matches!(p.phase, Phase::Draining { .. } | Phase::Syncing(_)), 'f');
        flag(matches!(p.phase, Phase::Invalidating(_)), 'i');
        flag(matches!(p.phase, Phase::Asking { .. }), 'r');
        flag(p.state == LockState::Unlocked, 'I');
        flag(!p.waiters.is_empty() || p.held.1 > 0, 'q');
        flag(object.is_some(), 'o');
        let target = match p.phase {
            Phase::Draining { to, .. } | Phase::Syncing(to) | Phase::Invalidating(to) | Phase::Asking { to, .. } => to,
            _ => p.state,
        };
        let (demote, at) = p.demote.map_or((LockState::Exclusive, 0), |(to, at)| (to, at));
        let users = Arc::strong_count(self) - 1;
        let name = self.name();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "G:  s:{} n:{name} f:{flags} t:{target} d:{demote}/{at} a:0 v:0 r:{users}", p.state);
        if p.held.1 > 0 {
            let _ = writeln!(out, " H: s:{} f:H e:0 p:{} [{} holding]", p.held.0, std::process::id(), p.held.1);
        }
        for (w, thread) in &p.waiters {
            let tries = if w.tries { "tW" } else { "W" };
            let thread = thread.as_deref().unwrap_or("gone");
            let _ = writeln!(out, " H: s:{} f:{tries} e:0 p:{} [{thread}]", w.wants, std::process::id());
        }
        if let Some(Some(object)) = object {
            let _ = writeln!(out, " {object}");
        }
    }
}
