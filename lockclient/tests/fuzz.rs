//! The fuzz targets of the lock manager with a fixed budget: random inputs, and mutations of frames that mean something.
//! A new seed every time, printed; `SEED=n` repeats, `FUZZ_ROUNDS=n` goes on for longer.
//!
//! `make fuzz` runs the same bodies (`tests/fuzz/bodies.rs`) guided by coverage.

#[path = "fuzz/bodies.rs"]
mod bodies;
#[path = "../../tests/fuzz/tape.rs"]
#[allow(dead_code, reason = "the other targets use more")]
mod tape;

use std::time::{SystemTime, UNIX_EPOCH};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs a target on inputs that the seed decides; a failure names the round and prints the input.
fn smoke(name: &str, body: fn(&[u8]), longest: u64) {
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = number("SEED").unwrap_or(fresh);
    let rounds = number("FUZZ_ROUNDS").unwrap_or(3000);
    println!("{name}: SEED={seed}, {rounds} rounds");
    let mut state = seed | 1;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    };
    for round in 0..rounds {
        let length = draw() % longest;
        // Small numbers mean something more often than large ones.
        let narrow = draw() % 3 == 0;
        let input: Vec<u8> = (0..length).map(|_| if narrow { (draw() % 8) as u8 } else { draw() as u8 }).collect();
        let outcome = std::panic::catch_unwind(|| body(&input));
        assert!(outcome.is_ok(), "{name}: round {round} of SEED={seed}; the input is {input:02x?}");
    }
}

#[test]
fn wire() {
    smoke("wire", bodies::wire, 300);
}

#[test]
fn engine() {
    smoke("engine", bodies::engine, 1200);
}
