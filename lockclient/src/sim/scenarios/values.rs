//! Which value blocks can be believed after several deaths.

use super::Cluster;
use crate::flags::{LockFlags as F, StatusFlags};
use crate::mode::Mode::*;
use crate::sim::shadow::number_in;

#[test]
fn s39_a_lost_value_is_not_vouched_for() {
    // The only writer dies with what it had not written; a reader is warned, and then the master dies as well.
    for reader_is_master in [false, true] {
        let mut c = Cluster::new(5);
        let (name, _) = c.mastered(5, 1, 39);
        let writer = c.held(2, &name, Ex, F::VALBLK);
        c.convert(writer, Nl, F::VALBLK);
        c.settle();
        let written = c.world.values[name.as_bytes()].last;
        let reader = c.held(3, &name, Nl, F::VALBLK);
        let other = c.held(4, &name, Nl, F::VALBLK);
        c.convert(writer, Ex, F::VALBLK);
        c.settle();
        c.crash(2);
        c.settle();
        c.convert(if reader_is_master { other } else { reader }, Pr, F::VALBLK);
        c.settle();
        let warned = c.last(if reader_is_master { other } else { reader });
        assert_eq!(warned.lvb.map(|lvb| number_in(&lvb)), Some(written));
        assert!(warned.flags.contains(StatusFlags::VALNOTVALID));
        c.crash(1);
        c.settle();
        let late = c.held(5, &name, Pr, F::VALBLK);
        let late = c.last(late);
        let believed = !late.flags.contains(StatusFlags::VALNOTVALID);
        assert!(!believed || late.lvb.is_none_or(|lvb| number_in(&lvb) == 0), "a lost value is passed on as good");
        c.finish();
    }
}
