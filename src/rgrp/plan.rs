//! Which blocks of an rgrp a promise is kept with, chosen before it is given.
//!
//! One run that holds everything and leaves room for a reservation behind it; else one run that holds everything; else the
//! longest pieces that are nearest to the goal.

use super::claims::{Bars, Claims};
use super::group::Rgrp;
use crate::ids::BlkState;

/// A run of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) len: u32,
}

/// Runs of usable blocks from `from` to the end and then from the start, as the bitmap and `bars` have it.
fn usable<'a>(group: &'a Rgrp, bars: &'a Bars<'a>, from: u32) -> impl Iterator<Item = Run> + 'a {
    let data = group.extent().data;
    let from = if from < data { from } else { 0 };
    [(from, data), (0, from)].into_iter().flat_map(move |(mut at, end)| {
        std::iter::from_fn(move || {
            loop {
                at = group.find(at, end, BlkState::Free)?;
                match bars.next(at) {
                    Some((start, stop)) if start <= at => at = stop.min(end),
                    bar => {
                        let most = bar.map_or(end, |(start, _)| start.min(end));
                        let run = Run { first: at, len: group.run(at, most, BlkState::Free) };
                        at += run.len;
                        return Some(run);
                    }
                }
            }
        })
    })
}

/// Plans for `want` blocks, searching from entry `from`; `extra` more behind them are welcome. The first run may be longer
/// than `want` by up to `extra`; otherwise the runs are `want` blocks together, or fewer when there are not more.
pub(super) fn plan(group: &mut Rgrp, claims: &Claims, from: u32, want: u32, extra: u32) -> Vec<Run> {
    if claims.take_grown() {
        group.runs_below = u32::MAX;
    }
    let bars = claims.barred();
    let target = want.saturating_add(extra);
    if target < group.runs_below {
        let mut longest = 0;
        for run in usable(group, &bars, from) {
            if run.len >= target {
                return vec![Run { len: target, ..run }];
            }
            longest = longest.max(run.len);
        }
        group.runs_below = longest + 1;
    }
    if want < group.runs_below
        && let Some(run) = usable(group, &bars, from).find(|run| run.len >= want)
    {
        return vec![Run { len: run.len.min(target), ..run }];
    }
    pieces(group, &bars, from, want, group.runs_below - 1)
}

/// Pieces that together are `want` blocks, none of them longer than `longest`: long ones if there are enough of them.
fn pieces(group: &Rgrp, bars: &Bars<'_>, from: u32, want: u32, longest: u32) -> Vec<Run> {
    let mut least = longest.min(want) / 2;
    loop {
        let mut got = 0;
        let mut runs = Vec::new();
        for run in usable(group, bars, from).filter(|run| run.len >= least.max(1)) {
            let len = run.len.min(want - got);
            runs.push(Run { len, ..run });
            got += len;
            if got == want {
                return runs;
            }
        }
        if least <= 1 {
            return runs;
        }
        least /= 4;
    }
}

/// All runs of usable blocks.
pub(super) fn all(group: &Rgrp, claims: &Claims) -> Vec<Run> {
    usable(group, &claims.barred(), 0).collect()
}
