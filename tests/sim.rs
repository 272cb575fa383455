//! The whole cluster in one simulated process: the real engine, the real cluster machines and the real lock engines on each node,
//! one disk, one network, one clock, and a seed that decides everything else.
//!
//! `SEED=n` repeats a schedule (and shows what happened, with `LINES=n` the last so many lines), `SCHEDULES=n` runs so many.

#[path = "sim/callback.rs"]
mod callback;
#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/history.rs"]
mod history;
#[path = "sim/log.rs"]
mod log;
#[path = "sim/mover.rs"]
mod mover;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/node.rs"]
mod node;
#[allow(dead_code, reason = "each test uses its own part")]
mod support;
#[path = "sim/tokens.rs"]
mod tokens;
#[path = "sim/world.rs"]
mod world;

use gfs2r::device::MemoryDevice;
use gfs2r::sync::simulated::Report;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use world::{Broken, Counts, Plan, schedule};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// A schedule; panics with all there is to know when something is wrong.
fn one(seed: u64, counts: &Arc<Counts>) -> (Report, MemoryDevice) {
    let last = Arc::new(Mutex::new(None));
    let report = schedule(Plan::of(seed), number("LINES").unwrap_or(0) as usize, counts, &last);
    let report = report.unwrap_or_else(|why| panic!("SEED={seed} {:?}\n{why}", Plan::of(seed)));
    let image = last.lock().expect("no panic").take().expect("it has ended");
    (report, image)
}

/// Schedules from `first` on, until there are so many or the time is over.
fn many(first: u64, schedules: u64, time: Duration) {
    let (start, counts) = (Instant::now(), Arc::new(Counts::default()));
    let mut done = 0;
    while done < schedules && start.elapsed() < time {
        let seed = first.wrapping_add(done);
        let (_, image) = one(seed, &counts);
        if Plan::of(seed).stock {
            support::check(&image, &format!("SEED={seed}"));
            support::stock_fsck(&image, &format!("SEED={seed}"));
            println!("{} schedules, {:?}", done + 1, start.elapsed());
        }
        done += 1;
    }
    let n = |a: &std::sync::atomic::AtomicU64| a.load(Ordering::Relaxed);
    println!(
        "{done} schedules from SEED={first} on in {:?}: {} operations, {} deaths, {} replays, {} withdrawals",
        start.elapsed(),
        n(&counts.operations),
        n(&counts.deaths),
        n(&counts.replays),
        n(&counts.withdrawals)
    );
}

/// `SEED` alone: that one, twice. Otherwise fresh seeds: as many as `SCHEDULES` says, or for a while.
#[test]
fn schedules() {
    if let (Some(seed), None) = (number("SEED"), number("SCHEDULES")) {
        let (report, _) = one(seed, &Arc::default());
        report.lines.iter().for_each(|line| println!("{line}"));
        println!("SEED={seed}: {:?}\n{:?}", Plan::of(seed), Report { lines: Vec::new(), ..report });
        return;
    }
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_micros() as u64);
    let first = number("SEED").unwrap_or(fresh);
    println!("SEED={first}");
    match number("SCHEDULES") {
        Some(n) => many(first, n, Duration::MAX),
        None => many(first, u64::MAX, Duration::from_secs(20)),
    }
}

/// Seeds that found something; each passes now.
///
/// * 383: a lock that was to be given up in part was asked for again and again once the lock service was gone.
/// * 3015: a node died between taking over what a dead one had counted (statfs) and marking its log clean: counted twice.
/// * 4275: a value block that was in doubt was believed again when a holder of a shared lock became the master.
/// * 5000086: a node died while the lowest member asked all for their slots: nobody who had mounted was told, and its journal was
///   replayed only when it came back, over what the others had written.
/// * 8000002: two threads of a node looked up the same inode for the first time; the one that came second to the lock that says
///   it is in use waited for the other, which kept it until the inode was forgotten: a directory was locked for as long.
/// * 8001946: a node whose disk failed tried to replay a dead one's journal for ever, and did not withdraw: all others waited.
/// * 8005092: a node that had closed, and was a member still, replayed a journal, added its counts to the statfs file in place,
///   and died before it had marked the log clean: counted twice.
/// * 8031047: a node died when it had taken over what a dead one had counted; the next took it over as well, before it replayed the
///   log of the former (`tests/shared/deaths.rs` shows it).
/// * 28, 2075, 4205: mistakes of the simulation itself (a fence that met the next life; a read during which the writer died; nobody
///   withdrew for a thread that waits).
#[test]
fn seeds() {
    for seed in
        [28, 216, 383, 2044, 2075, 2345, 3015, 4205, 4275, 5_000_086, 8_000_002, 8_001_946, 8_005_092, 8_031_047]
    {
        one(seed, &Arc::default());
    }
}

/// A broken rule is noticed, and soon.
fn is_noticed(broken: Broken) {
    let found = (8_000_000..8_001_500).find_map(|seed| {
        let plan = Plan { broken: Some(broken), ..Plan::of(seed) };
        schedule(plan, 0, &Arc::default(), &Arc::default()).err().map(|why| (seed, why))
    });
    let (seed, why) = found.unwrap_or_else(|| panic!("{broken:?} was not noticed"));
    println!("{broken:?} is noticed with SEED={seed}: {}", why.what.lines().next().unwrap_or_default());
}

#[test]
fn a_replay_that_is_left_out_is_noticed() {
    is_noticed(Broken::Replay);
}

#[test]
#[ignore = "not noticed within 400 schedules and the new ones since; whether the engine defends itself or the mutation has no teeth is not known"]
fn a_fence_that_does_nothing_is_noticed() {
    is_noticed(Broken::Fence);
}

#[test]
fn a_flush_that_does_nothing_is_noticed() {
    is_noticed(Broken::Flush);
}

#[test]
fn a_log_that_is_not_written_is_noticed() {
    is_noticed(Broken::Log);
}

#[test]
fn data_that_is_not_written_is_noticed() {
    is_noticed(Broken::Data);
}

#[test]
#[ignore = "not noticed in a minute of schedules; why is not known"]
fn revokes_that_are_forgotten_are_noticed() {
    is_noticed(Broken::Revokes);
}

#[test]
fn a_seed_repeats_a_schedule() {
    let first = number("SEED").unwrap_or(1);
    for seed in first..first + 5 {
        let reports = [(); 2].map(|()| one(seed, &Arc::default()).0);
        assert_eq!(reports[0], reports[1], "SEED={seed}");
    }
}
