//! What the kernel's page cache may hold of each file of a shared mount (fuse.md 6.1).
//!
//! A page may be mapped, and changed through the mapping without a word to us, once somebody has the file open for reading and
//! writing: a *mapper*. From then on pages are filled under the exclusive lock (O4), so that nobody else has a copy. What was
//! filled under a shared lock must be gone before the first mapper may map (O5).
//!
//! Three things must never be under way together, or the kernel waits for a page whose fill waits for the lock (D3): a drain of a
//! shared lock that drops pages, and fills of that file that want the exclusive lock. So the first mapper waits until no drain
//! is dropping pages, and fills stay exclusive as long as an exclusive one is under way.

use crate::error::Result;
use crate::sync::{Condvar, Mutex, about_to_wait};
use std::collections::HashMap;

/// Files of which the kernel has pages, or may get some.
#[derive(Default)]
pub(super) struct Pages {
    files: Mutex<HashMap<u64, File>>,
    /// Rung when a drain is done.
    drained: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct File {
    /// Opens for reading and writing.
    mappers: u32,
    /// Fills under way, with a shared and an exclusive lock.
    fills: [u32; 2],
    /// Drains that are dropping pages.
    drains: u32,
    /// A page was filled since the kernel last dropped all.
    filled: bool,
}

/// A fill under way.
pub(super) struct Filling<'a> {
    pages: &'a Pages,
    node: u64,
    exclusive: bool,
}

/// The dropping of a file's pages for a lock.
pub(super) struct Draining<'a> {
    pages: &'a Pages,
    node: u64,
}

impl Pages {
    fn change<T>(&self, node: u64, f: impl FnOnce(&mut File) -> T) -> T {
        let mut files = self.files.lock();
        let file = files.entry(node).or_default();
        let result = f(file);
        if *file == File::default() {
            files.remove(&node);
        }
        result
    }

    fn look(&self, node: u64) -> File {
        self.files.lock().get(&node).copied().unwrap_or_default()
    }

    /// A page is to be filled.
    pub(super) fn fill(&self, node: u64) -> Filling<'_> {
        let exclusive = self.change(node, |f| {
            let exclusive = f.mappers > 0 || f.fills[1] > 0;
            f.fills[usize::from(exclusive)] += 1;
            exclusive
        });
        Filling { pages: self, node, exclusive }
    }

    /// The kernel has pages of this file.
    pub(super) fn holds(&self, node: u64) -> bool {
        self.look(node).filled
    }

    /// The kernel may have pages of this file that were changed without a word.
    pub(super) fn holds_changed(&self, node: u64) -> bool {
        let f = self.look(node);
        f.filled && f.mappers > 0
    }

    /// The kernel shall drop its pages for a lock; `None` when it has none. What is filled from here on counts anew.
    pub(super) fn drain(&self, node: u64) -> Option<Draining<'_>> {
        self.change(node, |f| {
            let filled = std::mem::take(&mut f.filled);
            f.drains += u32::from(filled);
            filled.then(|| Draining { pages: self, node })
        })
    }

    /// A file was made and opened for reading and writing: the kernel has nothing of it.
    pub(super) fn made_with_mapper(&self, node: u64) {
        self.change(node, |f| f.mappers += 1);
    }

    /// Somebody opens for reading and writing. Before the first one, `drop_pages` makes the kernel drop all pages. `MustWait`
    /// where that would be needed and the thread may not wait.
    pub(super) fn open_mapper(&self, node: u64, drop_pages: impl Fn() -> Result<()>) -> Result<()> {
        loop {
            let mut files = self.files.lock();
            let f = files.entry(node).or_default();
            if f.mappers > 0 || f.drains == 0 && !f.filled && f.fills[0] == 0 {
                f.mappers += 1;
                return Ok(());
            }
            if let Err(must_wait) = about_to_wait() {
                if *f == File::default() {
                    files.remove(&node);
                }
                return Err(must_wait);
            }
            if f.drains > 0 {
                self.drained.wait(&mut files);
                continue;
            }
            f.filled = false;
            drop(files);
            drop_pages()?;
        }
    }

    /// One of them closes.
    pub(super) fn close_mapper(&self, node: u64) {
        self.change(node, |f| f.mappers = f.mappers.saturating_sub(1));
    }
}

impl Filling<'_> {
    /// Whether it wants the exclusive lock.
    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// The lock is held: from now until the next drain the kernel has a page.
    pub(super) fn held(&self) {
        self.pages.change(self.node, |f| f.filled = true);
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        let n = usize::from(self.exclusive);
        self.pages.change(self.node, |f| f.fills[n] = f.fills[n].saturating_sub(1));
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        self.pages.change(self.node, |f| f.drains = f.drains.saturating_sub(1));
        self.pages.drained.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::impatiently;
    use std::cell::Cell;

    #[test]
    fn fills_are_exclusive_while_somebody_may_map() {
        let pages = Pages::default();
        let first = pages.fill(7);
        assert!(!first.is_exclusive());
        first.held();
        assert!(impatiently(|| pages.open_mapper(7, || Ok(()))).is_err(), "the kernel has a page");
        let round = Cell::new(Some(first));
        pages
            .open_mapper(7, || {
                round.take();
                Ok(())
            })
            .expect("after a round");
        let second = pages.fill(7);
        assert!(second.is_exclusive() && !pages.holds(7));
        second.held();
        assert!(pages.holds_changed(7));
        pages.close_mapper(7);
        assert!(pages.fill(7).is_exclusive(), "one that is exclusive is still under way");
        drop(second);
        assert!(!pages.fill(7).is_exclusive() && pages.holds(7) && !pages.holds_changed(7));
        drop(pages.drain(7).expect("a page"));
        assert!(pages.drain(7).is_none());
        assert!(pages.files.lock().is_empty(), "nothing is kept of a file without pages");
    }

    #[test]
    fn a_mapper_waits_for_a_drain_that_drops_pages() {
        let pages = Pages::default();
        pages.fill(7).held();
        let drain = pages.drain(7).expect("a page");
        assert!(impatiently(|| pages.open_mapper(7, || Ok(()))).is_err());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| pages.open_mapper(7, || Ok(())));
            drop(drain);
            waits.join().expect("no panic").expect("no drain any more");
        });
        assert!(impatiently(|| pages.open_mapper(7, || Ok(()))).is_ok(), "the second one need not wait");
    }
}
