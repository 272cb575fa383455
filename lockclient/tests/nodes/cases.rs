//! What is done to the cluster, and what must come of it. Every case ends with the observer's check.

use crate::fence::Policy;
use crate::lab::{KEPT, LIMIT, Lab};
use crate::node::TOKEN_MS;
use crate::observer::{Entry, MS, What, now};
use rustix::process::Signal;
use std::time::Duration;

pub(crate) type Case = fn(&mut Lab) -> Result<(), String>;

/// All cases, by what they promise.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("three nodes take locks from one another, and leave", turns),
    ("an observer who reads late is not misled", late),
    ("a cut shorter than the token harms nobody", short_cut),
    ("cuts of one to two tokens that heal: everyone goes on, no lock hangs", long_cuts),
    ("a node is killed: fenced, taken over from, back as another", killed),
    ("the leader is killed", leader_killed),
    ("killed and back before anyone noticed: nobody is fenced", quick_restart),
    ("a node is cut off: it stops by itself, the others wait for its fencing", cut_off),
    ("a node that is not heard is fenced", mute),
    ("a node that does not hear is fenced", deaf),
    ("two nodes do not hear one another, the third hears both", half_cut),
    ("a node sleeps past the token: fenced in its sleep", sleeper_killed),
    ("a node sleeps past the token and wakes: expelled before it uses anything", sleeper_wakes),
    ("the fence agent fails: nobody is granted anything until it succeeds", agent_fails),
    ("two of three die: the third stops, and goes on when they are back", minority),
    ("all three are killed and started anew", everyone),
    ("of two nodes that are cut from one another one goes on", two_nodes),
    ("without fencing the observer sees two holders", planted_fault),
];

/// By when a node has noticed silence: the token, and a second for a machine that has other work.
const NOTICED: u64 = (TOKEN_MS + 1000) * MS;

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn until(at: u64) {
    pause(at.saturating_sub(now()) / MS + 1);
}

/// No node is granted anything in a span of time that is over.
fn no_grants(lab: &Lab, nodes: &[u32], from: u64, to: u64) -> Result<(), String> {
    until(to);
    for node in nodes {
        let grants = lab.log.grants(*node, from, to);
        if grants > 0 {
            return Err(format!("node {node} was granted {grants} locks while it had to wait"));
        }
    }
    Ok(())
}

/// What the victim keeps is granted to others, once it is fenced; notes how long that took.
fn taken_over(lab: &mut Lab, nodes: &[u32], victim: u32) -> Result<(), String> {
    lab.want(nodes)?;
    let fenced = lab.fenced(victim)?;
    lab.log.wait("its locks are granted to others", LIMIT, |entries| {
        let granted = |e: &Entry| {
            e.at > fenced && e.node != victim && matches!(&e.what, What::Granted { name, .. } if name == KEPT)
        };
        entries.iter().any(granted)
    })?;
    let first = lab
        .log
        .entries()
        .iter()
        .filter(|e| e.at > fenced && matches!(e.what, What::Granted { .. }))
        .map(|e| e.at)
        .min();
    let took = first.unwrap_or(fenced).saturating_sub(fenced) / MS;
    lab.remark(format!("first grant {took} ms after fencing"));
    lab.at_work(nodes)
}

fn nobody_fenced(lab: &Lab) -> Result<(), String> {
    match lab.log.count(&What::Fenced) {
        0 => Ok(()),
        n => Err(format!("{n} nodes were fenced")),
    }
}

fn turns(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    pause(1500);
    for (left, node) in [1, 3, 2].into_iter().enumerate() {
        lab.tell(node, "leave")?;
        lab.log
            .wait("a node leaves", LIMIT, |entries| entries.iter().filter(|e| e.what == What::Left).count() > left)?;
    }
    nobody_fenced(lab)?;
    lab.check()
}

/// Without waiting for what was said before, some of these looks find two holders.
fn late(lab: &mut Lab) -> Result<(), String> {
    lab.late = true;
    lab.boot_all(&[1, 2, 3])?;
    for _ in 0..10 {
        lab.at_work(&[1, 2, 3])?;
        lab.check()?;
    }
    nobody_fenced(lab)
}

fn short_cut(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    for node in [3, 1] {
        lab.cut(node, true)?;
        pause(TOKEN_MS / 4);
        lab.cut(node, false)?;
        lab.at_work(&[1, 2, 3])?;
    }
    nobody_fenced(lab)?;
    lab.check()
}

/// All are cut off: nobody has quorum. Or one is, and the agent fails. The lives and the locks of all go on after that.
fn long_cuts(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.policy(Policy::Fail);
    for nodes in [&[1, 2, 3][..], &[3], &[1]] {
        for ms in [TOKEN_MS * 11 / 10, TOKEN_MS * 3 / 2, TOKEN_MS * 2] {
            nodes.iter().try_for_each(|node| lab.cut(*node, true))?;
            pause(ms);
            nodes.iter().try_for_each(|node| lab.cut(*node, false))?;
            lab.at_work(&[1, 2, 3])?;
        }
    }
    nobody_fenced(lab)?;
    lab.check()
}

fn killed(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(2)?;
    lab.kill(2);
    taken_over(lab, &[1, 3], 2)?;
    lab.boot_all(&[2])?;
    lab.at_work(&[1, 2, 3])?;
    lab.check()
}

fn leader_killed(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(1)?;
    lab.kill(1);
    taken_over(lab, &[2, 3], 1)?;
    lab.boot_all(&[1])?;
    lab.at_work(&[1, 2, 3])?;
    lab.check()
}

/// The new life proves that the old one is over.
fn quick_restart(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(2)?;
    lab.kill(2);
    lab.boot_all(&[2])?;
    lab.at_work(&[1, 2, 3])?;
    nobody_fenced(lab)?;
    lab.check()
}

fn cut_off(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(3)?;
    lab.policy(Policy::Wait);
    lab.cut(3, true)?;
    let cut = now();
    no_grants(lab, &[1, 2, 3], cut + NOTICED, cut + NOTICED + 700 * MS)?;
    lab.policy(Policy::Kill);
    taken_over(lab, &[1, 2], 3)?;
    lab.boot_all(&[3])?;
    lab.at_work(&[1, 2, 3])?;
    lab.check()
}

fn mute(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(3)?;
    lab.policy(Policy::Wait);
    lab.silence(3, 1, true)?;
    lab.silence(3, 2, true)?;
    let cut = now();
    no_grants(lab, &[1, 2, 3], cut + NOTICED, cut + NOTICED + 300 * MS)?;
    lab.policy(Policy::Kill);
    taken_over(lab, &[1, 2], 3)?;
    lab.check()
}

fn deaf(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(3)?;
    lab.silence(1, 3, true)?;
    lab.silence(2, 3, true)?;
    taken_over(lab, &[1, 2], 3)?;
    lab.silence(1, 3, false)?;
    lab.silence(2, 3, false)?;
    lab.boot_all(&[3])?;
    lab.at_work(&[1, 2, 3])?;
    lab.check()
}

/// Each of the two has a majority with the third; only one may use it.
fn half_cut(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.silence(1, 2, true)?;
    lab.silence(2, 1, true)?;
    lab.log.wait("one of the two is fenced", LIMIT, |entries| entries.iter().any(|e| e.what == What::Fenced))?;
    let victim = lab.log.entries().iter().find(|e| e.what == What::Fenced).map_or(0, |e| e.node);
    let survivors: Vec<u32> = (1..=3).filter(|node| *node != victim).collect();
    lab.at_work(&survivors)?;
    lab.remark(format!("node {victim} was fenced"));
    if lab.log.count(&What::Fenced) != 1 {
        return Err("both were fenced".into());
    }
    lab.check()
}

fn sleeper_killed(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(2)?;
    lab.signal(2, Signal::STOP)?;
    taken_over(lab, &[1, 3], 2)?;
    lab.check()
}

/// Fenced at its storage, it lives; what it holds is lost, and it must not take anything new.
fn sleeper_wakes(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    for victim in [2, 1] {
        lab.policy(Policy::Spare);
        lab.keep(victim)?;
        lab.signal(victim, Signal::STOP)?;
        let others: Vec<u32> = (1..=3).filter(|node| *node != victim).collect();
        taken_over(lab, &others, victim)?;
        lab.signal(victim, Signal::CONT)?;
        let (life, woken) = (lab.life(victim), now());
        lab.log.wait("the one that woke is expelled", LIMIT, |entries| {
            entries.iter().any(|e| e.life == life && e.what == What::Ended)
        })?;
        let noticed =
            lab.log.entries().iter().find(|e| e.life == life && e.what == What::Ended).map_or(woken, |e| e.at);
        lab.remark(format!("expelled {} ms after waking", noticed.saturating_sub(woken) / MS));
        pause(300);
        lab.at_work(&others)?;
        lab.kill(victim);
        lab.boot_all(&[victim])?;
        lab.at_work(&[1, 2, 3])?;
    }
    lab.check()
}

fn agent_fails(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(2)?;
    lab.policy(Policy::Fail);
    lab.kill(2);
    let killed = now();
    no_grants(lab, &[1, 3], killed + NOTICED, killed + NOTICED + 1500 * MS)?;
    let failed = lab.log.entries().iter().filter(|e| matches!(&e.what, What::Note(t) if t.contains("failed"))).count();
    if failed < 2 {
        return Err(format!("the agent was run {failed} times: it must be tried again"));
    }
    lab.policy(Policy::Kill);
    taken_over(lab, &[1, 3], 2)?;
    lab.check()
}

fn minority(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    lab.kill(1);
    lab.kill(2);
    let killed = now();
    no_grants(lab, &[3], killed + NOTICED, killed + NOTICED + 700 * MS)?;
    nobody_fenced(lab)?;
    // The first to return makes a majority, and has the other fenced; it comes back after that.
    lab.boot(1)?;
    lab.at_work(&[1, 3])?;
    lab.boot_all(&[2])?;
    lab.at_work(&[1, 2, 3])?;
    lab.check()
}

fn everyone(lab: &mut Lab) -> Result<(), String> {
    lab.boot_all(&[1, 2, 3])?;
    (1..=3).for_each(|node| lab.kill(node));
    lab.boot_all(&[2, 1, 3])?;
    nobody_fenced(lab)?;
    lab.check()
}

fn two_nodes(lab: &mut Lab) -> Result<(), String> {
    lab.count = 2;
    lab.boot_all(&[1, 2])?;
    lab.cut(1, true)?;
    lab.log.wait("one is fenced", LIMIT, |entries| entries.iter().any(|e| e.what == What::Fenced))?;
    let victim = lab.log.entries().iter().find(|e| e.what == What::Fenced).map_or(0, |e| e.node);
    lab.at_work(&[3 - victim])?;
    lab.cut(1, false).or_else(|error| if victim == 1 { Ok(()) } else { Err(error) })?;
    lab.boot_all(&[victim])?;
    lab.at_work(&[1, 2])?;
    if lab.log.count(&What::Fenced) != 1 {
        return Err("both were fenced".into());
    }
    lab.check()
}

/// The same cut as before, and nodes that go on without fencing: the observer must see it.
fn planted_fault(lab: &mut Lab) -> Result<(), String> {
    lab.fencing = false;
    lab.boot_all(&[1, 2, 3])?;
    lab.keep(3)?;
    lab.cut(3, true)?;
    lab.want(&[1, 2])?;
    let cut = now();
    lab.log.wait("the others go on", LIMIT, |entries| {
        entries
            .iter()
            .any(|e| e.at > cut && e.node != 3 && matches!(&e.what, What::Granted { name, .. } if name == KEPT))
    })?;
    match lab.check() {
        Err(found) if found.contains("TWO HOLDERS of kept") => {
            lab.remark(found);
            Ok(())
        }
        other => Err(format!("the observer does not see it: {other:?}")),
    }
}
