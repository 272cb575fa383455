//! The fuzz targets with a fixed budget: inputs of `fuzz/corpus`, and mutations of them that a seed decides.
//!
//! `make fuzz` runs the same targets (`tests/fuzz/bodies.rs`) guided by coverage and for as long as one likes.

#[path = "fuzz/base.rs"]
mod base;
#[path = "fuzz/bodies.rs"]
mod bodies;
#[path = "fuzz/exercise.rs"]
mod exercise;
#[path = "model/harness.rs"]
mod harness;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "model/ops.rs"]
mod ops;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "model/reference.rs"]
mod reference;
#[path = "fuzz/tape.rs"]
mod tape;

use cap::Cap;
use ops::Rng;
use std::alloc::System;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nothing on a disk may make us ask for more than this, all tests together.
const MEMORY: usize = 1 << 30;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY);

/// Longest input: longer ones only repeat.
const INPUT_MAX: usize = 4096;

/// Panics on any thread: a background thread's would otherwise go unseen.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    files.iter().map(|f| fs::read(f).expect("readable")).collect()
}

fn mutate(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.below(6) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        match rng.below(9) {
            0 => input.insert(at, rng.next() as u8),
            1 => {
                let len = rng.below(16) as usize;
                let new = rng.bytes(len);
                input.splice(at..at, new);
            }
            2 => {
                let end = (at + 1 + rng.below(8) as usize).min(input.len());
                input.drain(at.min(end)..end);
            }
            3 if !other.is_empty() => {
                let from = rng.below(other.len() as u64) as usize;
                let end = (from + 1 + rng.below(64) as usize).min(other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
            4 if !other.is_empty() => {
                input.truncate(at);
                input.extend(&other[rng.below(other.len() as u64) as usize..]);
            }
            _ if at < input.len() => match rng.below(3) {
                0 => input[at] = rng.next() as u8,
                1 => input[at] ^= 1 << rng.below(8),
                _ => input[at] = *rng.pick(&[0, 1, 7, 0x7f, 0x80, 0xff]),
            },
            _ => input.push(rng.next() as u8),
        }
    }
    input.truncate(INPUT_MAX);
}

fn smoke(target: &str, rounds: u64) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            usual(info);
        }));
    });
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(rounds);
    let seed = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    println!("{target}: SEED={seed}, {rounds} rounds");
    let (_, body) = bodies::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let mut rng = Rng::new(seed);
    let mut pool = corpus(target);
    assert!(!pool.is_empty(), "fuzz/corpus/{target} is empty");
    let given = pool.len();
    for round in 0..given as u64 + rounds {
        let input = match pool.get(round as usize) {
            Some(first) if (round as usize) < given => first.clone(),
            _ => {
                let mut input = pool[rng.below(pool.len() as u64) as usize].clone();
                let other = &pool[rng.below(pool.len() as u64) as usize];
                mutate(&mut rng, &mut input, other);
                input
            }
        };
        run(target, *body, &input, round);
        // Some are built upon.
        if round >= given as u64 && rng.chance(10) {
            if pool.len() < given + 200 {
                pool.push(input);
            } else {
                let at = given + rng.below(200) as usize;
                pool[at] = input;
            }
        }
    }
}

/// One input. It lies in a file while it runs, for what ends the whole process or never ends.
fn run(target: &str, body: fn(&[u8]), input: &[u8], round: u64) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}.input"));
    fs::write(&file, input).expect("written");
    let before = PANICS.load(Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(|| body(input)));
    let after = PANICS.load(Ordering::Relaxed);
    assert!(
        result.is_ok() && before == after,
        "{target}: a panic in round {round}; the input is {}: {input:02x?}",
        file.display()
    );
    fs::remove_file(&file).expect("removed");
}

#[test]
fn block() {
    smoke("block", 1200);
}

#[test]
fn journal() {
    smoke("journal", 1200);
}

#[test]
fn dir() {
    smoke("dir", 1200);
}

#[test]
fn ops_against_the_model() {
    smoke("ops", 600);
}

#[test]
fn image() {
    smoke("image", 1500);
}

/// Runs one input: `FUZZ_INPUT=target:file cargo test --test fuzz one_input -- --ignored`.
#[test]
#[ignore = "only with FUZZ_INPUT"]
fn one_input() {
    let what = std::env::var("FUZZ_INPUT").expect("FUZZ_INPUT=target:file");
    let (target, file) = what.split_once(':').expect("target:file");
    let (_, body) = bodies::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    body(&fs::read(file).expect("readable"));
}

/// Writes inputs to begin with: blocks of real volumes, and noise for what is decided step by step.
#[test]
#[ignore = "writes fuzz/corpus"]
fn make_corpus() {
    let put = |target: &str, name: &str, input: &[u8]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join(name), input).expect("written");
    };
    for n in 0..base::COUNT {
        let base = base::base(n);
        for (k, (kind, blocks)) in base.kinds.iter().enumerate() {
            let block = base::read(&base.device, base.bs, blocks[0]);
            let end = block.iter().rposition(|&b| b != 0).map_or(24, |e| (e + 1).max(24));
            let which: &[u8] = if blocks.len() <= 256 { &[0] } else { &[0, 0] };
            let input = [&[n as u8, k as u8], which, &[0x0d], &block[24..end]].concat();
            put("block", &format!("{n}-{kind}"), &input);
        }
    }
    let mut rng = Rng::new(1);
    for target in ["journal", "dir", "ops", "image"] {
        for n in 0..24 {
            let len = 40 + rng.below(400) as usize;
            put(target, &format!("noise-{n}"), &rng.bytes(len));
        }
    }
}
