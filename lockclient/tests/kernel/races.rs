//! Messages that cross on the wire, by chance and by the hundred.

use crate::lab::{EAGAIN, EBUSY, ECANCEL, EDEADLK, EUNLOCK, LIMIT, Lab, Lock, NONE};
use crate::locks::ways;
use gfs2r_uml::dlm::Event;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;
use std::time::{Duration, Instant};

pub(crate) fn lookups(lab: &mut Lab) -> Result<(), String> {
    const EACH: usize = 150;
    for dir in lab.members.clone() {
        let mut pairs = Vec::new();
        for n in 0..EACH {
            let name = lab.name(dir);
            let (a, b) = ways(lab)[n % 2];
            // Both at once; three of the one, so that some wait for the look-up of the first.
            let first = lab.request(a, &name, Mode::Ex, NONE)?;
            let second = lab.request(b, &name, Mode::Ex, NONE)?;
            let third = lab.request(a, &name, Mode::Ex, NONE)?;
            pairs.push([first, second, third]);
        }
        for locks in &pairs {
            let mut left: Vec<&Lock> = locks.iter().collect();
            while !left.is_empty() {
                let at = wait_for_one(lab, &left)?;
                let lock = left.remove(at);
                lab.id(lock)?;
                lab.unlock(lock)?;
            }
        }
    }
    Ok(())
}

/// Waits until one of these locks is granted.
fn wait_for_one(lab: &Lab, locks: &[&Lock]) -> Result<usize, String> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        for (at, lock) in locks.iter().enumerate() {
            let done = |event: &Event| matches!(event, Event::Completed { tag, .. } if *tag == lock.tag);
            match lab.events(lock.node)?.take(done) {
                Some(Event::Completed { status: 0, .. }) => return Ok(at),
                Some(other) => return Err(format!("{lock:?}: {other:?}")),
                None => {}
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Err(format!("none of {locks:?} is granted"))
}

pub(crate) fn crossing_cancels(lab: &mut Lab) -> Result<(), String> {
    for (dir, master) in lab.places() {
        for (holder, asker) in ways(lab) {
            for (n, held) in [Mode::Pr, Mode::Nl].into_iter().cycle().take(20).enumerate() {
                let force = n % 4 >= 2;
                crossing(lab, (dir, master), (holder, held), asker, force)
                    .map_err(|error| format!("dir {dir}, master {master}, {holder} holds {held:?}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// A request and its cancel, a conversion and its cancel, one right behind the other.
fn crossing(lab: &mut Lab, place: (u32, u32), has: (u32, Mode), asker: u32, force: bool) -> Result<(), String> {
    let (name, anchor) = lab.resource(place.0, place.1)?;
    let held = lab.lock(has.0, &name, has.1, NONE)?;
    let (flag, given_up) = if force { (LockFlags::FORCEUNLOCK, EUNLOCK) } else { (LockFlags::CANCEL, ECANCEL) };
    let lock = lab.request(asker, &name, Mode::Ex, NONE)?;
    lab.try_unlock(&lock, flag, &[])?.map_err(|error| format!("giving up a request is refused: {error}"))?;
    let first = lab.done(&lock)?.status;
    let granted = first == 0;
    if !(granted && has.1 == Mode::Nl || first == given_up) {
        return Err(format!("a request that was given up ended with {first}"));
    }
    if granted && force {
        // The unlock comes after it.
        lab.ends(&lock, EUNLOCK)?;
    } else if granted {
        lab.unlock(&lock)?;
    }
    let lock = lab.lock(asker, &name, Mode::Cr, NONE)?;
    lab.convert(&lock, Mode::Ex, NONE, &[])?;
    lab.try_unlock(&lock, flag, &[])?.map_err(|error| format!("giving up a conversion is refused: {error}"))?;
    let first = lab.done(&lock)?.status;
    match (first, force) {
        (0, false) if has.1 == Mode::Nl => lab.unlock(&lock)?,
        (0, true) if has.1 == Mode::Nl => drop(lab.ends(&lock, EUNLOCK)?),
        (ECANCEL, false) => lab.unlock(&lock)?,
        (EUNLOCK, true) => {}
        _ => return Err(format!("a conversion that was given up ended with {first}")),
    }
    lab.unlock_all([&held, &anchor])
}

pub(crate) fn counter(lab: &mut Lab) -> Result<(), String> {
    count(lab, 200, None)
}

pub(crate) fn breaking_connections(lab: &mut Lab) -> Result<(), String> {
    let connections = |lab: &mut Lab| Ok::<_, String>(lab.kernel()?.kernel_log().matches("got connection").count());
    let before = connections(lab)?;
    count(lab, 60, Some(4))?;
    let after = connections(lab)?;
    if after < before + 10 { Err(format!("only {} connections were made", after - before)) } else { Ok(()) }
}

/// Hands a lock and its value around; our connections break every so many rounds.
fn count(lab: &mut Lab, rounds: u64, breaks: Option<u64>) -> Result<(), String> {
    for (dir, master) in lab.places() {
        let (name, anchor) = lab.resource(dir, master)?;
        let locks = [lab.lock(lab.k, &name, Mode::Nl, LockFlags::VALBLK)?, {
            let p = lab.p();
            lab.lock(p, &name, Mode::Nl, LockFlags::VALBLK)?
        }];
        lab.convert(&locks[0], Mode::Ex, LockFlags::VALBLK, &[])?;
        lab.ends(&locks[0], 0)?;
        for round in 0..rounds {
            if breaks.is_some_and(|every| round.is_multiple_of(every)) {
                lab.ours.values().for_each(|ours| ours.break_connections());
            }
            let (from, to) = (&locks[round as usize % 2], &locks[(round as usize + 1) % 2]);
            lab.convert(to, Mode::Ex, LockFlags::VALBLK, &[])?;
            lab.told(from, Mode::Ex)?;
            let mut value = [0; 32];
            value[..8].copy_from_slice(&(round + 1).to_be_bytes());
            lab.converts(from, Mode::Nl, LockFlags::VALBLK, &value, 0)?;
            let got = lab.ends(to, 0)?;
            if got.lvb.as_deref() != Some(&value) {
                return Err(format!("dir {dir}, master {master}, round {round}: {got:?}"));
            }
        }
        lab.unlock_all(&locks)?;
        lab.unlock(&anchor)?;
    }
    Ok(())
}

pub(crate) fn idle(lab: &mut Lab) -> Result<(), String> {
    let mut names = Vec::new();
    for (dir, master) in lab.places() {
        for _ in 0..10 {
            let (name, anchor) = lab.resource(dir, master)?;
            let other = if master == lab.k { lab.p() } else { lab.k };
            lab.attempt(other, &name, Mode::Pr, NONE, 0)?;
            lab.unlock(&anchor)?;
            names.push((name, master, other));
        }
    }
    // Both sides drop what is older than a second; a master tells the directory.
    let p = lab.p();
    let deadline = Instant::now() + LIMIT;
    let known = |lab: &Lab| {
        let dump = lab.ours.get(&p).map_or_else(String::new, |ours| ours.dump());
        names.iter().filter(|(name, ..)| dump.contains(&*String::from_utf8_lossy(name))).count()
    };
    while known(lab) > 0 {
        if Instant::now() > deadline {
            return Err(format!(
                "{} of {} idle names are still known\n{}",
                known(lab),
                names.len(),
                lab.ours[&p].dump()
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // And found again, by the other node, which becomes the master.
    for (name, master, other) in &names {
        let lock = lab.lock(*other, name, Mode::Ex, NONE)?;
        lab.attempt(*master, name, Mode::Pr, LockFlags::NOQUEUE, EAGAIN)?;
        lab.unlock(&lock)?;
    }
    Ok(())
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What the test knows of a lock: what it may hold, and what is under way.
struct Held {
    lock: Lock,
    resource: usize,
    mode: Option<Mode>,
    /// What it has again when the conversion under way fails.
    before: Option<Mode>,
    wanted: Option<Mode>,
    /// It has been granted once.
    exists: bool,
    /// It is a new lock that may end by itself. A kernel gives its number to the next one at once, so that a cancel
    /// that comes late would hit that one.
    fleeting: bool,
    /// The operation under way has been cancelled; until both have ended the lock may be busy.
    cancelled: bool,
    leaving: bool,
}

pub(crate) fn random(lab: &mut Lab) -> Result<(), String> {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 8 | u64::from(lab.k));
    random_from(lab, seed).map_err(|error| format!("SEED={seed}: {error}"))
}

fn random_from(lab: &mut Lab, seed: u64) -> Result<(), String> {
    const OPERATIONS: u32 = 4000;
    let mut rng = Rng(seed);
    let names: Vec<Vec<u8>> = (0..4).map(|n| lab.name([lab.k, lab.p()][n % 2])).collect();
    let mut locks: Vec<Held> = Vec::new();
    let mut ended = 0;
    let deadline = Instant::now() + 4 * LIMIT;
    while ended < OPERATIONS {
        let news = settle(lab, &mut locks)?;
        ended += news;
        if news == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        if Instant::now() > deadline {
            return Err(format!("only {ended} operations ended"));
        }
        match rng.below(10) {
            0..=3 if locks.len() < 24 => {
                let (resource, node) = (rng.below(4) as usize, [lab.k, lab.p()][rng.below(2) as usize]);
                let mode = Mode::ALL[rng.below(6) as usize];
                let flags = [NONE, NONE, LockFlags::NOQUEUE][rng.below(3) as usize];
                let lock = lab.request(node, &names[resource], mode, flags)?;
                locks.push(Held {
                    lock,
                    resource,
                    mode: None,
                    before: None,
                    wanted: Some(mode),
                    exists: false,
                    fleeting: !flags.is_empty(),
                    cancelled: false,
                    leaving: false,
                });
            }
            _ if locks.is_empty() => {}
            what => {
                let at = rng.below(locks.len() as u64) as usize;
                act(lab, &mut locks[at], what, &mut rng)?;
            }
        }
    }
    // Everything is given up, and everything must end.
    let deadline = Instant::now() + LIMIT;
    while !locks.is_empty() {
        settle(lab, &mut locks)?;
        for held in locks.iter_mut().filter(|held| held.wanted.is_none() && !held.leaving) {
            give_up(lab, held)?;
        }
        if Instant::now() > deadline {
            let left: Vec<_> = locks.iter().map(|held| (&held.lock, held.resource, held.mode, held.wanted)).collect();
            return Err(format!("these locks hang: {left:?}"));
        }
    }
    Ok(())
}

/// What a lock keeps for certain while it is being converted: what is given up is given up when the call is made, not
/// when the test hears that it has ended.
fn kept(now: Mode, wanted: Mode) -> Mode {
    match (now, wanted) {
        (Mode::Pr, Mode::Cw) | (Mode::Cw, Mode::Pr) => Mode::Cr,
        _ => now.min(wanted),
    }
}

/// Does something with a lock; what may be refused may be refused.
fn act(lab: &mut Lab, held: &mut Held, what: u64, rng: &mut Rng) -> Result<(), String> {
    match what {
        4..=6 if held.wanted.is_none() && !held.leaving => {
            let (mode, flags) = (Mode::ALL[rng.below(6) as usize], [NONE, LockFlags::NOQUEUE][rng.below(2) as usize]);
            let (before, after) = (held.mode, held.mode.map(|now| kept(now, mode)));
            (held.before, held.mode) = (before, after);
            match lab.try_convert(&held.lock, mode, flags, &[])? {
                Ok(()) => (held.wanted, held.cancelled) = (Some(mode), false),
                Err(EBUSY) if held.cancelled => held.mode = before,
                Err(error) => return Err(format!("conversion of {:?} refused: {error}", held.lock)),
            }
        }
        // A kernel refuses a second cancel.
        7 | 8 if held.fleeting => {}
        7 if held.wanted.is_some() && !held.leaving && !held.cancelled => {
            // It may have ended meanwhile.
            let _late = lab.try_unlock(&held.lock, LockFlags::CANCEL, &[])?;
            held.cancelled = true;
        }
        8 if !held.leaving && !held.cancelled => {
            if lab.try_unlock(&held.lock, LockFlags::FORCEUNLOCK, &[])?.is_ok() {
                (held.mode, held.leaving) = (None, true);
            }
        }
        _ if held.wanted.is_none() && !held.leaving => {
            give_up(lab, held)?;
        }
        _ => {}
    }
    Ok(())
}

/// An unlock; later, if the lock is still busy with a cancel.
fn give_up(lab: &mut Lab, held: &mut Held) -> Result<(), String> {
    match lab.try_unlock(&held.lock, NONE, &[])? {
        Ok(()) => (held.mode, held.leaving) = (None, true),
        Err(EBUSY) if held.cancelled => {}
        Err(error) => return Err(format!("unlock of {:?} refused: {error}", held.lock)),
    }
    Ok(())
}

/// Takes in what has ended, and checks that what is held together may be.
fn settle(lab: &mut Lab, locks: &mut Vec<Held>) -> Result<u32, String> {
    let mut news = 0;
    for at in (0..locks.len()).rev() {
        let tag = locks[at].lock.tag;
        let done = |event: &Event| matches!(event, Event::Completed { tag: t, .. } if *t == tag);
        let Some(Event::Completed { status, .. }) = lab.events(locks[at].lock.node)?.take(done) else { continue };
        news += 1;
        let held = &mut locks[at];
        match status {
            // Without a wish: the end of a cancel that came too late.
            0 => {
                let wanted = held.wanted.take();
                (held.exists, held.fleeting) = (true, false);
                if !held.leaving {
                    held.mode = wanted.or(held.mode);
                }
            }
            // A new lock is gone, another one keeps its mode.
            EAGAIN | ECANCEL | EDEADLK if held.exists => {
                held.wanted = None;
                if !held.leaving {
                    held.mode = held.before;
                }
            }
            EAGAIN | ECANCEL => {
                gone(lab, locks.remove(at))?;
                continue;
            }
            EUNLOCK => {
                gone(lab, locks.remove(at))?;
                continue;
            }
            other => return Err(format!("{:?} ended with {other}", held.lock)),
        }
        let (mode, resource) = (locks[at].mode, locks[at].resource);
        for other in locks.iter().filter(|other| other.resource == resource && other.lock.tag != tag) {
            if !lockclient::mode::compatible(mode, other.mode) {
                return Err(format!("{tag} was given {mode:?} beside {:?} of {:?}", other.mode, other.lock));
            }
        }
    }
    Ok(news)
}

fn gone(lab: &mut Lab, held: Held) -> Result<(), String> {
    lab.id(&held.lock).map(drop)
}
