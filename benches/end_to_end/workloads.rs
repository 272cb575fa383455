//! What is done to the targets, in suites: the rows of a suite follow from one another.

#[path = "workloads/bulk.rs"]
mod bulk;
#[path = "workloads/files.rs"]
mod files;
#[path = "workloads/format.rs"]
mod format;
#[path = "workloads/listing.rs"]
mod listing;
#[path = "workloads/random.rs"]
mod random;
#[path = "workloads/small.rs"]
mod small;
#[path = "workloads/synced.rs"]
mod synced;
#[path = "workloads/together.rs"]
mod together;
#[path = "workloads/tree.rs"]
mod tree;
#[path = "workloads/walk.rs"]
mod walk;

use super::measure::Bench;
use super::targets::Kind;
use std::io;

/// Some workloads that are run together.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// The rows that it gives, for `--list` and `--only`.
    pub(crate) rows: &'static [&'static str],
    /// The targets that it makes sense for.
    pub(crate) fits: fn(Kind) -> bool,
    /// Whether it works on the target's mount (or raw image).
    pub(crate) needs_mount: bool,
    pub(crate) run: fn(&mut Bench<'_>) -> io::Result<()>,
}

/// All of them, in the table's order.
const SUITES: &[Suite] = &[
    files::ONE_DIR,
    files::MANY_DIRS,
    tree::TREE,
    listing::LISTING,
    bulk::BULK,
    random::RANDOM,
    synced::SYNCED,
    small::SMALL,
    together::TOGETHER,
    format::FORMAT,
];

/// The suites of which the name or a row contains one of the words; all without words.
pub(crate) fn chosen(words: &[String]) -> Vec<&'static Suite> {
    let fits = |s: &&Suite| {
        words.is_empty()
            || words.iter().any(|w| s.name.contains(w.as_str()) || s.rows.iter().any(|r| r.contains(w.as_str())))
    };
    SUITES.iter().filter(fits).collect()
}

/// Whether a row is wanted.
pub(crate) fn wanted(words: &[String], suite: &str, row: &str) -> bool {
    words.is_empty() || words.iter().any(|w| suite.contains(w.as_str()) || row.contains(w.as_str()))
}

/// Where a suite's row stands in the table.
pub(crate) fn place(suite: &str, row: &str) -> (usize, usize) {
    let at = SUITES.iter().position(|s| s.name == suite).unwrap_or(SUITES.len());
    let rows = SUITES.get(at).map_or(&[][..], |s| s.rows);
    (at, rows.iter().position(|r| *r == row).unwrap_or(rows.len()))
}

/// Prints suites and rows.
pub(crate) fn list() {
    for suite in SUITES {
        println!("{}", suite.name);
        for row in suite.rows {
            println!("    {row}");
        }
    }
}
