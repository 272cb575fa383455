//! Repairs a volume.
//!
//! The checker is the judge: a round is a whole check of the volume as it would be, then a [plan](plan) of what to do about
//! the findings, then the plan carried out in memory. Rounds go on until the check finds nothing that it would not find on
//! a healthy volume, or until nothing helps. Only then is anything written, through one of the volume's own journals
//! (`commit.rs`), so that a crash leaves the volume as it was or as it is to be.
//!
//! Before the first round dirty journals are replayed, in place, as a mount would do it.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | what is to be done about each finding: decisions, no writes |
//! | `apply.rs` | carries a plan out |
//! | `work.rs` | blocks changed in memory, bitmaps, space |
//! | `build.rs` | dinodes, trees and directories made anew |
//! | `salvage.rs` `tree.rs` `search.rs` | reading what is damaged |
//! | `superblock.rs` `groups.rs` `journals.rs` `system.rs` | each kind of foundation, mended or rebuilt |
//! | `shared.rs` `xattr.rs` | blocks with several owners; attributes |
//! | `commit.rs` `undo.rs` | to the disk, and back |
//!
//! Invariants: a stage's findings are dealt with only when earlier stages have none, so that nothing is thrown away because
//! of what another fault hides; memory is bounded by the checker's and by what is changed.

mod apply;
mod build;
mod commit;
mod groups;
mod journals;
mod plan;
mod salvage;
mod search;
mod shared;
mod superblock;
mod system;
mod tree;
mod undo;
mod work;
mod xattr;

pub use undo::{UndoDevice, put_back};

use crate::check::{self, Examined, examine};
use crate::issue::{Issue, IssueKind};
use crate::journal::Journal;
use crate::report::{CheckError, Findings, Journals, Options};
use gfs2r::device::BlockDevice;
use plan::{Plan, Stage, decide, stage};
use std::collections::{HashMap, HashSet};
use work::Work;

/// Whom a repair talks to.
pub trait Talk {
    /// A step begins.
    fn step(&mut self, _what: &str) {}
    /// May this be repaired?
    fn approve(&mut self, issue: &Issue) -> bool;
    /// The user wants to stop; asked between steps.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Says yes to everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Yes;

impl Talk for Yes {
    fn approve(&mut self, _: &Issue) -> bool {
        true
    }
}

/// What a repair did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Everything that was found, with true for what was repaired. Consequences of repairs are listed as well.
    pub issues: Vec<(Issue, bool)>,
    /// Journals that were replayed.
    pub replayed: u32,
    /// Blocks written, those of replay not counted.
    pub written: u64,
    /// The volume has no faults any more.
    pub clean: bool,
    /// The user stopped it; apart from replay nothing was written.
    pub cancelled: bool,
    /// Rounds it took.
    pub rounds: u32,
}

/// A finding, as it is recognised in the next round.
type Key = (Option<u64>, Option<u64>, String);

fn key(issue: &Issue) -> Key {
    (issue.block, issue.inode, issue.kind.to_string())
}

/// After so many rounds something goes round in circles.
const ROUNDS_MAX: u32 = 100;
/// After so many rounds with the same finding it is left for later.
const TRIES_MAX: u32 = 6;

/// Checks and repairs a volume that nobody else uses.
///
/// # Errors
/// When the device fails, or holds nothing that a volume could be rebuilt from.
pub fn repair(device: &dyn BlockDevice, talk: &mut dyn Talk) -> Result<Repaired, CheckError> {
    let options = Options { issues_max: 100_000, ..Options::closed() };
    let mut found = Findings::new(&options);
    let (disk, sb, lost) = superblock::load(device, &mut found)?;
    let mut done = Repaired::default();
    let mut work = Work::new(disk, sb);
    if let Some(error) = lost {
        let kind = IssueKind::SuperblockLost { what: error.to_string() };
        let issue = Issue { kind, block: Some(65536 >> work.disk.bs.shift()), inode: None, path: None };
        let yes = talk.approve(&issue);
        done.issues.push((issue, yes));
        if !yes {
            return Ok(done);
        }
        work.sb_changed = true;
    }
    if !replay(&mut work, &options, talk, &mut done)? {
        return Ok(done);
    }
    let journals = rounds(&mut work, &options, found, talk, &mut done)?;
    if done.cancelled {
        return Ok(done);
    }
    talk.step("Writing changes to disk");
    done.written += commit::commit(&mut work, &journals)?;
    Ok(done)
}

/// Replays dirty journals in place. False when the user does not want to, or stopped.
fn replay(
    work: &mut Work<'_>,
    options: &Options,
    talk: &mut dyn Talk,
    done: &mut Repaired,
) -> Result<bool, CheckError> {
    let overlay = Options { journals: Journals::Overlay, ..options.clone() };
    let mut found = Findings::new(&overlay);
    let mut sb = work.sb;
    let journals = crate::initialize::journals(&mut work.disk, &mut found, &sb, Journals::MustBeClean)?.journals;
    if !journals.iter().any(Journal::is_dirty) {
        return Ok(true);
    }
    talk.step("Recovering journals (this may take a while)");
    sb = work.sb;
    let Examined { st, journals, .. } = examine(&mut work.disk, &sb, Findings::new(&overlay), &overlay, None)?;
    let contested = Plan::new(&st.found.issues).contested;
    for journal in journals.iter().filter(|j| j.is_dirty()) {
        let jid = journal.jid;
        let bad = st.found.issues.iter().find(|i| {
            let walk = matches!(
                i.kind,
                IssueKind::JournalWalk { .. } | IssueKind::JournalPayload { .. } | IssueKind::JournalTail { .. }
            );
            walk && i.inode == Some(journal.inode)
        });
        if let Some(issue) = bad {
            let yes = talk.approve(issue);
            done.issues.push((issue.clone(), yes));
            if !yes {
                return Ok(false);
            }
            journals::clear(work, journal, &contested)?;
            continue;
        }
        let overwrites = |i: &&Issue| matches!(i.kind, IssueKind::JournalOverwritesData { jid: j } if j == jid);
        let wrong: Vec<Issue> = st.found.issues.iter().filter(overwrites).cloned().collect();
        for issue in wrong {
            let yes = talk.approve(&issue);
            if let Some(block) = issue.block.filter(|_| yes) {
                work.disk.forget(Some(block));
            }
            done.issues.push((issue, yes));
        }
        done.replayed += 1;
    }
    let others = st
        .found
        .issues
        .iter()
        .filter(|i| matches!(i.kind, IssueKind::JournalTarget { .. } | IssueKind::JournalConflict { .. }));
    done.issues.extend(others.map(|i| (i.clone(), true)));
    let io = |error| CheckError::Io { block: 0, error };
    commit::in_place(work, &work.disk.changes())?;
    work.disk.device().flush().map_err(io)?;
    let cleared: HashSet<u64> = done.issues.iter().filter_map(|(i, _)| i.inode).collect();
    for journal in journals.iter().filter(|j| j.is_dirty()) {
        let replayed = st
            .found
            .issues
            .iter()
            .any(|i| matches!(i.kind, IssueKind::JournalReplayed { jid, .. } if jid == journal.jid));
        if replayed || !cleared.contains(&journal.inode) {
            journals::close(work, journal)?;
        }
    }
    work.disk.forget(None);
    system::statfs_after_replay(work, &journals)?;
    Ok(!talk.cancelled())
}

/// True when nobody else claims one of its blocks.
fn is_sole_owner(journal: &Journal, plan: &Plan) -> bool {
    plan.contested.is_empty() || !journal.blocks.iter().any(|block| plan.contested.contains(block))
}

/// Rounds until nothing is left to do. The journals as the last round found them.
fn rounds(
    work: &mut Work<'_>,
    options: &Options,
    mut found: Findings,
    talk: &mut dyn Talk,
    done: &mut Repaired,
) -> Result<Vec<Journal>, CheckError> {
    let mut tries: HashMap<Key, u32> = HashMap::new();
    let mut declined: HashSet<Key> = HashSet::new();
    let (mut searched, mut resets) = (0, 0);
    let sb_block = Some(65536 >> work.disk.bs.shift());
    loop {
        if talk.cancelled() {
            done.cancelled = true;
            return Ok(Vec::new());
        }
        done.rounds += 1;
        work.start_round();
        let sb = work.sb;
        let extents = work.extents.clone();
        let now = std::mem::replace(&mut found, Findings::new(options));
        let Examined { mut st, journals, complete } = examine(&mut work.disk, &sb, now, options, extents.as_deref())?;
        check::name(&mut st);
        let issues = st.found.issues.clone();
        if !complete {
            searched += 1;
            // What was found in the superblock is for the next round.
            let (own, foundation): (Vec<Issue>, Vec<Issue>) =
                issues.into_iter().partition(|i| matches!(stage(&i.kind), Stage::Structure) && i.block == sb_block);
            found.issues = own;
            let yes = foundation.iter().fold(true, |all, issue| {
                let yes = searched > 1 || talk.approve(issue);
                done.issues.push((issue.clone(), yes));
                all && yes
            });
            if !yes || searched > 3 || !groups::establish(work)? {
                return Ok(journals);
            }
            continue;
        }
        let missing = plan::misses_files(&st);
        let open = |issue: &&Issue| {
            // Files of a journal's node are unknown as long as the journal is missing.
            let waits = missing && matches!(issue.kind, IssueKind::SystemFileUnknown { .. });
            !waits
                && stage(&issue.kind) < Stage::Leave
                && !declined.contains(&key(issue))
                && tries.get(&key(issue)).is_none_or(|&n| n < TRIES_MAX)
        };
        let todo = issues.iter().filter(open).map(|i| stage(&i.kind)).min();
        let Some(least) = todo.filter(|_| done.rounds < ROUNDS_MAX) else {
            if work.extents.is_some() && done.rounds < ROUNDS_MAX && system::write_rindex(work, &mut st)? {
                work.extents = None;
                continue;
            }
            let left = issues.iter().filter(|i| stage(&i.kind) < Stage::Leave);
            done.clean = left.clone().next().is_none() && st.found.more == 0 && work.extents.is_none();
            done.issues.extend(left.filter(|i| !declined.contains(&key(i))).map(|i| (i.clone(), false)));
            // Changes are not written through a log that may lie in somebody's file.
            let plan = Plan::new(&issues);
            return Ok(journals.into_iter().filter(|j| is_sole_owner(j, &plan)).collect());
        };
        if done.rounds == 1 {
            talk.step("Repairing");
        }
        let mut plan = Plan::new(&issues);
        let mine: Vec<&Issue> = issues.iter().filter(open).filter(|i| stage(&i.kind) == least).collect();
        for issue in mine {
            let silent = matches!(issue.kind, IssueKind::InodeUnlinked { .. });
            let tries = tries.entry(key(issue)).or_default();
            *tries += 1;
            let again = *tries > 1;
            if !silent && !again && !talk.approve(issue) {
                declined.insert(key(issue));
                done.issues.push((issue.clone(), false));
                continue;
            }
            let structure = least == Stage::Structure;
            let last_resort = *tries > 3 && structure && issue.inode.is_some_and(|i| i != st.root && i != st.master);
            if last_resort {
                plan.remove.extend(issue.inode);
            } else if decide(&st, &work.disk, issue, &mut plan)? && !silent && !again {
                done.issues.push((issue.clone(), true));
            }
        }
        for jid in std::mem::take(&mut plan.clear) {
            // First it must be known which blocks are the journal's.
            if let Some(journal) = journals.iter().find(|j| j.jid == jid && is_sole_owner(j, &plan)) {
                journals::clear(work, journal, &plan.contested)?;
            }
        }
        apply::apply(work, &mut st, plan)?;
        // What failed for want of space may succeed now.
        if least == Stage::Counts && resets < 2 && tries.values().any(|&n| n >= TRIES_MAX) {
            resets += 1;
            tries.retain(|_, n| *n < TRIES_MAX);
        }
    }
}
