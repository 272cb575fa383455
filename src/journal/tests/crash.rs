//! The power goes at every single operation, and everything that may be lost then is lost in turn.

use super::model::Model;
use super::rig::*;
use crate::device::{CrashMode, MemoryDevice, SimDevice};
use crate::ids::BlockSize;
use std::sync::Arc;

const MODES: [CrashMode; 6] =
    [CrashMode::AllLost, CrashMode::AllKept, CrashMode::Random, CrashMode::Torn, CrashMode::Prefix(1), CrashMode::Torn];

struct Setup {
    seed: u64,
    bs: u32,
    log_blocks: u32,
    steps: usize,
    cache: usize,
}

impl Setup {
    fn mount(&self, disk: MemoryDevice) -> Rig {
        let bs = BlockSize::new(self.bs).expect("legal");
        Rig::mount(disk, bs, self.log_blocks, self.cache).expect("what a crash leaves can be mounted")
    }
    /// Runs the workload; with a crash point, until the power goes.
    fn run(&self, crash_at: Option<u64>) -> (Rig, Model) {
        let rig = self.mount(fresh_disk(BlockSize::new(self.bs).expect("legal")));
        if let Some(at) = crash_at {
            rig.dev.set_crash_point(at);
        }
        let mut model = Model::new(self.seed);
        model.format(&rig);
        for _ in 0..self.steps {
            if let Err(e) = model.step(&rig) {
                assert!(rig.dev.crashed(), "seed {}: {e} without a crash", self.seed);
                break;
            }
        }
        model.durable = model.durable.max(rig.journal.committed());
        (rig, model)
    }
    /// Crashes at every `stride`th operation.
    fn crash_everywhere(&self, stride: u64) {
        let (rig, model) = self.run(None);
        assert_eq!(rig.journal.overruns(), 0);
        assert!(rig.journal.withdrawn().is_none());
        let ops = rig.dev.ops();
        let last = self.mount(rig.dev.crash(0, CrashMode::AllLost));
        model.check(&last, "at the end");
        for at in (3..ops).step_by(stride as usize) {
            let (rig, model) = self.run(Some(at));
            for (i, mode) in MODES.into_iter().enumerate() {
                let what = format!("seed {} bs {} log {} crash at {at} {mode:?}", self.seed, self.bs, self.log_blocks);
                let seed = self.seed ^ at << 8 ^ i as u64;
                let image = rig.dev.crash(seed, mode);
                if i % 2 == 0 {
                    model.check(&self.mount(image), &what);
                } else {
                    self.crash_in_recovery(image, &model, seed, &what);
                }
            }
        }
    }
    /// The power goes again during recovery.
    fn crash_in_recovery(&self, image: MemoryDevice, model: &Model, seed: u64, what: &str) {
        let bs = BlockSize::new(self.bs).expect("legal");
        let dev = Arc::new(SimDevice::new(image));
        dev.set_crash_point(seed % 5);
        let again = match Rig::mount_device(dev.clone(), bs, self.log_blocks, self.cache) {
            // Recovery was shorter than that.
            Ok(rig) => rig,
            Err(_) => {
                let mut rig = self.mount(dev.crash(seed, MODES[(seed % 4) as usize]));
                // The statfs delta may have been applied twice: accepted (ondisk.md 8.10, 7).
                rig.replayed.clean = true;
                rig
            }
        };
        model.check(&again, &format!("{what} and again in recovery"));
    }
}

#[test]
fn every_crash_point_small_blocks() {
    for seed in seeds(2) {
        Setup { seed, bs: 512, log_blocks: 48, steps: 150, cache: 1 << 20 }.crash_everywhere(3);
    }
}

#[test]
fn every_crash_point_large_log() {
    for seed in seeds(2) {
        Setup { seed, bs: 1024, log_blocks: 256, steps: 200, cache: 1 << 20 }.crash_everywhere(5);
    }
}

#[test]
fn every_crash_point_tiny_cache() {
    for seed in seeds(2) {
        Setup { seed, bs: 4096, log_blocks: 64, steps: 150, cache: 0 }.crash_everywhere(5);
    }
}

/// Seeds of this run: `GFS2R_SEEDS=n` for more, `GFS2R_SEED=s` for one of them.
pub(super) fn seeds(usual: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let list: Vec<u64> = match (number("GFS2R_SEED"), number("GFS2R_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, n) => (1..=n.unwrap_or(usual)).collect(),
    };
    println!("seeds {list:?}");
    list
}
