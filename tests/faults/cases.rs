//! The operations, each as one thing that may fail.

#[path = "cases/attrs.rs"]
mod attrs;
#[path = "cases/contents.rs"]
mod contents;
#[path = "cases/names.rs"]
mod names;
#[path = "cases/whole.rs"]
mod whole;

use crate::stage::Ctx;
use gfs2r::error::Result;

/// How much of an operation there may be when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// All or nothing.
    Whole,
    /// The contents of these may be changed in part.
    Parts(&'static [&'static str]),
}

/// One operation.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub name: &'static str,
    pub unit: Unit,
    /// What it tells, for those that ask.
    pub body: fn(&Ctx<'_>) -> Result<String>,
    /// What it did is durable when it returns without an error.
    pub durable: bool,
    /// It is one operation, which can be done again after it has failed.
    pub again: bool,
    /// Blocks that it needs for a while besides those it takes.
    pub spare: u64,
    /// What it tells depends on how full the disk is.
    pub volatile: bool,
    /// Blocks of what it replaced may stay allocated until somebody comes by.
    pub leaves: bool,
    /// It plays where orphans lie about.
    pub orphans: bool,
    /// It needs the quotas to be counted.
    pub quota: bool,
}

impl Case {
    fn new(name: &'static str, unit: Unit, body: fn(&Ctx<'_>) -> Result<String>) -> Self {
        Self {
            name,
            unit,
            body,
            durable: false,
            again: true,
            spare: 0,
            volatile: false,
            leaves: false,
            orphans: false,
            quota: false,
        }
    }
}

/// All or nothing.
fn whole(name: &'static str, body: fn(&Ctx<'_>) -> Result<String>) -> Case {
    Case::new(name, Unit::Whole, body)
}

/// May stop half-way in the contents of these.
fn parts(name: &'static str, of: &'static [&'static str], body: fn(&Ctx<'_>) -> Result<String>) -> Case {
    Case::new(name, Unit::Parts(of), body)
}

/// Several operations: when it fails, those before the last may have been done.
fn several(case: Case) -> Case {
    Case { again: false, ..case }
}

/// An operation that has nothing to tell.
trait Silent {
    fn quiet(self) -> Result<String>;
}

impl<T> Silent for Result<T> {
    fn quiet(self) -> Result<String> {
        self.map(|_| String::new())
    }
}

/// A short text for long bytes.
fn digest(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0u64, |sum, &b| sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(b) + 1));
    format!("{} bytes {sum:x}", bytes.len())
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let all = [names::cases(), contents::cases(), attrs::cases(), whole::cases()].concat();
    let names: std::collections::BTreeSet<_> = all.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), all.len(), "each has a name of its own");
    all
}
