//! Disks that fail and disks that are full: every operation, at every step.
//!
//! - A read, write or flush fails, once or from then on. The caller gets an error or has what was asked for; after a failed
//!   write nothing more is written; after a power cut a replay finds the operation wholly there or not at all, all that was
//!   durable before, and a clean volume. A failed read alone changes nothing.
//! - So many blocks are free, from none up to what an operation needs: it succeeds, or says "no space" and nothing changed.
//!   The same with quota limits. Giving space back always succeeds.
//!
//! A sample, chosen by a seed that is printed (`SEED=` repeats it); all of it with `FAULTS=full`, or `make faults`.

#[path = "faults/act.rs"]
mod act;
#[path = "faults/cases.rs"]
mod cases;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/io.rs"]
mod io;
#[path = "model/ops.rs"]
#[allow(dead_code, unreachable_pub, reason = "the generator of random numbers is used alone")]
mod ops;
#[path = "faults/run.rs"]
mod run;
#[path = "faults/space.rs"]
mod space;
#[path = "faults/stage.rs"]
mod stage;
mod support;
#[path = "faults/view.rs"]
mod view;

use gfs2r::quota::QuotaMode;
use stage::Stage;
use std::sync::OnceLock;

fn stage(bs: u64) -> &'static Stage {
    static STAGES: [OnceLock<Stage>; 3] = [const { OnceLock::new() }; 3];
    let (n, quota) = match bs {
        512 => (0, QuotaMode::Off),
        1024 => (1, QuotaMode::On),
        _ => (2, QuotaMode::On),
    };
    STAGES[n].get_or_init(|| Stage::set(bs, quota))
}

macro_rules! at_each_block_size {
    ($($name:ident: $f:path;)*) => { $(mod $name {
        #[test]
        fn at_512() { $f(super::stage(512), concat!(stringify!($name), " at 512")); }
        #[test]
        fn at_1024() { $f(super::stage(1024), concat!(stringify!($name), " at 1024")); }
        #[test]
        fn at_4096() { $f(super::stage(4096), concat!(stringify!($name), " at 4096")); }
    })* };
}

at_each_block_size! {
    failed_reads: crate::io::reads;
    failed_writes: crate::io::writes;
    failed_mounts: crate::io::mounts;
    full_disk: crate::space::full_disk;
    quota_limits: crate::space::limits;
}
