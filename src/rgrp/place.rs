//! Which rgrps are tried, in which order.
//!
//! First the one where the inode has its reservation or its goal. Then this node's: numbers jid, jid + journals, jid +
//! 2·journals …, so that nodes seldom want the same rgrp's lock. Then the others.

use super::claims::Reservation;
use super::{Rgrps, Want};
use crate::sync::serial;

impl Rgrps {
    /// The rgrp to begin with.
    pub(super) fn start(&self, want: Want, resv: &Reservation) -> usize {
        if want.spread {
            return self.anywhere();
        }
        let here = self.cx.index.of(want.goal);
        // A reservation elsewhere than the goal was made because there was no room at the goal.
        resv.get().map(|(n, ..)| n).or(here).or(resv.rgrp()).unwrap_or(0)
    }

    /// Some rgrp of this node's, another one each time (Orlov: a directory apart from its siblings).
    fn anywhere(&self) -> usize {
        let (step, own) = (self.njournals as usize, self.jid.0 as usize);
        // Fibonacci hashing: the numbers go everywhere without repeating soon.
        let n = (serial().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let preferred = self.len().saturating_sub(own).div_ceil(step);
        if preferred == 0 { n % self.len().max(1) } else { own + n % preferred * step }
    }

    /// True for this node's: the others use them when theirs are full.
    pub(super) fn prefers(&self, n: usize) -> bool {
        n % self.njournals as usize == self.jid.0 as usize % self.njournals as usize
    }

    /// All rgrps in the order in which they are tried.
    pub(super) fn order(&self, start: usize) -> impl Iterator<Item = usize> + '_ {
        let n = self.len();
        let rest = move || (1..n).map(move |i| (start + i) % n);
        let preferred = |i: &usize| self.prefers(*i);
        std::iter::once(start)
            .take(n.min(1))
            .chain(rest().filter(preferred))
            .chain(rest().filter(|i| !self.prefers(*i)))
    }
}
