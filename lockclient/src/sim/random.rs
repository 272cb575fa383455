//! Schedules drawn from a seed.

use super::{Rng, Verdict, World};
use crate::flags::LockFlags;
use crate::ids::NodeId;
use crate::mode::{Mode, may_queue_convert};

/// The shape of a schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// How many nodes there may be.
    pub nodes: u32,
    /// How many resources they quarrel about.
    pub resources: usize,
    /// Events before everything winds down.
    pub events: usize,
    /// Crashes, departures and joins per ten thousand events.
    pub changes: usize,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule { nodes: 3, resources: 2, events: 600, changes: 60 }
    }
}

/// Runs one schedule; the text of a failure ends with the state of the cluster.
pub fn run_schedule(seed: u64, schedule: &Schedule, prepare: impl FnOnce(&mut World)) -> Verdict {
    let mut world = World::new();
    prepare(&mut world);
    let outcome = drive(&mut world, seed, schedule);
    outcome.map_err(|why| format!("seed {seed}: {why}\n{}", world.dump()))
}

fn drive(world: &mut World, seed: u64, schedule: &Schedule) -> Verdict {
    let mut rng = Rng::new(seed);
    for id in 1..=schedule.nodes {
        world.join(NodeId(id), |_| {})?;
    }
    for event in 0..schedule.events {
        // Quiet moments, in which more can be checked.
        if event % 150 == 149 {
            world.stalled.clear();
            world.settle()?;
            world.check_quiet()?;
        }
        if rng.below(10_000) < schedule.changes {
            change_membership(world, &mut rng, schedule)?;
        }
        step(world, &mut rng, schedule)?;
    }
    world.wind_down()
}

fn step(world: &mut World, rng: &mut Rng, schedule: &Schedule) -> Verdict {
    match rng.below(100) {
        0..50 => {
            let deliverable = world.deliverable();
            if let Some((from, to)) = rng.pick(&deliverable) {
                world.deliver(*from, *to)?;
            }
        }
        50..85 => client_action(world, rng, schedule)?,
        85..95 => {
            let actions = world.group.actions(&world.nodes);
            if let Some(action) = rng.pick(&actions) {
                world.change(*action)?;
            }
        }
        95..98 => {
            world.advance()?;
        }
        98 => world.now += if rng.chance(20) { 6_000 } else { 100 },
        _ => {
            let (from, to) = (NodeId(rng.below(3) as u32 + 1), NodeId(rng.below(3) as u32 + 1));
            if !world.stalled.remove(&(from, to)) {
                world.stalled.insert((from, to));
            }
        }
    }
    Ok(())
}

fn change_membership(world: &mut World, rng: &mut Rng, schedule: &Schedule) -> Verdict {
    let id = NodeId(rng.below(schedule.nodes as usize) as u32 + 1);
    if !world.nodes.contains_key(&id) {
        return world.join(id, |_| {});
    }
    if world.nodes.len() < 2 {
        return Ok(());
    }
    if rng.chance(70) {
        let part = rng.draw();
        world.crash(id, |n| (part % (n as u64 + 1)) as usize);
    } else {
        world.leave(id);
    }
    if rng.chance(30) {
        world.join(id, |_| {})?;
    }
    Ok(())
}

fn client_action(world: &mut World, rng: &mut Rng, schedule: &Schedule) -> Verdict {
    let ids: Vec<NodeId> = world.nodes.keys().copied().collect();
    let Some(node) = rng.pick(&ids).copied() else { return Ok(()) };
    let mine = world.shadows.iter().filter(|(_, s)| s.node == node && !s.dead && s.id.is_some());
    let tokens: Vec<u64> = mine.map(|(token, _)| *token).collect();
    let live = world.shadows.values().filter(|s| s.node == node && !s.dead).count();
    if live < 4 && rng.chance(30) {
        let resource = rng.below(schedule.resources);
        let mode = Mode::ALL[rng.below(6)];
        let flags = request_flags(rng, resource, mode);
        world.lock(node.0, &format!("res{resource}"), mode, flags)?;
        return Ok(());
    }
    let Some(token) = rng.pick(&tokens).copied() else { return Ok(()) };
    let shadow = world.shadows[&token].clone();
    let value = if shadow.name.ends_with(b"0") { LockFlags::VALBLK } else { LockFlags::empty() };
    if !shadow.is_idle() {
        return match rng.below(100) {
            0..15 if !shadow.unlock => world.unlock(token, LockFlags::CANCEL),
            15..22 if !shadow.unlock => world.unlock(token, LockFlags::FORCEUNLOCK),
            _ => Ok(()),
        };
    }
    let Some(held) = shadow.held else { return Ok(()) };
    if let Some(blocked) = shadow.notice.filter(|_| rng.chance(60)) {
        let fitting: Vec<Mode> = Mode::ALL.into_iter().filter(|m| *m <= held && m.compatible(blocked)).collect();
        if let Some(mode) = rng.pick(&fitting) {
            return world.convert(token, *mode, value);
        }
    }
    if rng.chance(25) {
        return world.unlock(token, value);
    }
    let mode = Mode::ALL[rng.below(6)];
    let flags = value | convert_flags(rng, held, mode);
    world.convert(token, mode, flags)
}

fn request_flags(rng: &mut Rng, resource: usize, mode: Mode) -> LockFlags {
    let mut flags = if resource == 0 { LockFlags::VALBLK } else { LockFlags::empty() };
    match rng.below(20) {
        0..3 => flags |= LockFlags::NOQUEUE,
        3..5 => flags |= LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST,
        5 => flags |= LockFlags::NOORDER,
        6 => flags |= LockFlags::HEADQUE,
        7 => flags |= LockFlags::ALTPR,
        8 => flags |= LockFlags::ALTCW,
        9 if mode == Mode::Nl => flags |= LockFlags::EXPEDITE,
        _ => {}
    }
    flags
}

fn convert_flags(rng: &mut Rng, held: Mode, mode: Mode) -> LockFlags {
    match rng.below(20) {
        0..3 => LockFlags::NOQUEUE,
        3 => LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST,
        4..12 if may_queue_convert(held, mode) => LockFlags::QUECVT,
        12..14 => LockFlags::CONVDEADLK,
        14 => LockFlags::ALTPR,
        15 => LockFlags::HEADQUE,
        _ => LockFlags::empty(),
    }
}
