//! Random operations against a naive model, on volumes of every block size, remounted now and then; the checker looks after
//! every commit, the stock fsck at the end.

#[path = "model/harness.rs"]
mod harness;
#[path = "model/ops.rs"]
mod ops;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "model/reference.rs"]
mod reference;
mod support;

use gfs2r::device::MemoryDevice;
use gfs2r::volume::OpenOptions;
use harness::World;
use ops::Rng;
use std::sync::Arc;
use support::{check, format, stock_fsck};

fn run(block_size: u32, format_number: u32, operations: u64, seed: u64) {
    run_on(160, 2, block_size, format_number, operations, seed);
}

fn run_on(mib: u64, journals: u32, block_size: u32, format_number: u32, operations: u64, seed: u64) {
    println!("{mib} MiB, block size {block_size}, format {format_number}, {operations} operations, SEED={seed}");
    let dev = Arc::new(MemoryDevice::new(mib << 20));
    format(&*dev, block_size, journals, format_number, seed);
    let mut world = World::new(dev.clone(), OpenOptions::default());
    let mut rng = Rng::new(seed);
    for n in 0..operations {
        let op = ops::random(&mut rng, u64::from(block_size));
        world.apply(&op);
        if n % 251 == 250 {
            world.fs().sync().expect("sync");
            check(&*dev, &format!("SEED={seed} after operation {n} ({op:?})"));
        }
        match n % 5000 {
            2499 => world.remount(),
            4999 => {
                world.fs().sync().expect("sync");
                world.abandon();
                world.check_all();
            }
            _ => {}
        }
    }
    world.check_all();
    println!("  {} nodes at the end, {} times out of space", world.model.nodes.len(), world.no_space);
    world.finish();
    check(&*dev, &format!("SEED={seed} at the end"));
    stock_fsck(&dev, &format!("SEED={seed} at the end"));
}

#[test]
fn model_512() {
    run(512, 1802, 30_000, ops::seed("model_512"));
}

#[test]
fn model_1024() {
    run(1024, 1802, 35_000, ops::seed("model_1024"));
}

#[test]
fn model_4096() {
    run(4096, 1802, 35_000, ops::seed("model_4096"));
}

#[test]
fn model_2048() {
    run(2048, 1802, 12_000, ops::seed("model_2048"));
}

/// Without `trusted.` attributes.
#[test]
fn model_format_1801() {
    run(1024, 1801, 8_000, ops::seed("model_format_1801"));
}

/// The smallest volume: full most of the time.
#[test]
fn model_small() {
    run_on(32, 1, 4096, 1802, 12_000, ops::seed("model_small"));
}
