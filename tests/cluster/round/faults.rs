//! Faults of disks, and of networks that work in one direction.

use super::Round;
use crate::disk::Mood;
use crate::history::now;
use crate::job::Job;
use std::time::{Duration, Instant};

/// How long a node with a dead disk may take to notice, withdraw and have its journal replayed by others.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(30);
/// How long a network that fails in one direction is left alone when nobody is killed for it.
const ONE_WAY: Duration = Duration::from_secs(6);

impl Round<'_> {
    pub(super) fn slow_disk(&mut self, node: usize) -> Result<(), String> {
        let micros = 2000 + u32::try_from(self.below(40_000)).unwrap_or(0);
        self.lab.mood(node, Mood::Slow(micros)).map_err(|e| e.to_string())?;
        let wait = 300 + self.below(2500);
        std::thread::sleep(Duration::from_millis(wait));
        self.lab.mood(node, Mood::Well).map_err(|e| e.to_string())
    }

    pub(super) fn bad_disk(&mut self, node: usize, briefly: bool) -> Result<(), String> {
        let mood = [Mood::NoWrites, Mood::Dead, Mood::NoReads][self.below(if briefly { 3 } else { 2 }) as usize];
        let at = now();
        self.lab.mood(node, mood).map_err(|e| e.to_string())?;
        if briefly {
            let wait = self.below(150);
            std::thread::sleep(Duration::from_millis(wait));
            self.lab.mood(node, Mood::Well).map_err(|e| e.to_string())?;
        }
        let Some(parting) = self.wait_for_withdrawal(node, briefly)? else {
            println!("  {mood:?}: not withdrawn");
            return Ok(());
        };
        let replayed = parting.contains("withdrawn: Replayed");
        println!(
            "  {mood:?}: {}",
            if replayed { "withdrawn, and replayed by others" } else { "withdrawn, unreplayed" }
        );
        // Who cannot read the disk does not see that others have replayed: its end tells them, and nobody waits longer.
        let sees = mood == Mood::NoWrites || briefly;
        if self.lab.nodes.len() > 1 && sees && !replayed {
            let logs: Vec<String> =
                self.lab.nodes.iter().map(|n| format!("node{}:\n    {}", n.number, n.log_tail())).collect();
            self.wrong.push(format!(
                "node{}: withdrawn, but nobody replayed its journal:\n{}",
                node + 1,
                logs.join("\n")
            ));
        }
        // What a program learns now would be out of date.
        let root = self.root(node, self.plan.number);
        if let Err(e) = self.job(node, &Job::Refused { root }, Duration::from_secs(20)) {
            self.wrong.push(format!("a withdrawn mount answers: {e}"));
        }
        if self.below(2) == 0 {
            self.lab.nodes[node].workers.iter_mut().for_each(crate::job::Started::kill);
            if let Err(e) = self.lab.abandon(node) {
                self.wrong.push(e);
            }
        }
        self.back_from_the_dead(node, at)
    }

    /// How it ended. `None`: it went on, which only one may whose disk is well again.
    fn wait_for_withdrawal(&mut self, node: usize, briefly: bool) -> Result<Option<String>, String> {
        let began = Instant::now();
        let mut noticed = false;
        while began.elapsed() < WITHDRAW_LIMIT {
            if let Some(parting) = self.lab.withdrawn(node) {
                return Ok(Some(parting));
            }
            noticed |= self.lab.this_log(node).contains("nothing is written any more");
            if briefly && !noticed && began.elapsed() > Duration::from_millis(500) {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("node{} has not withdrawn in {WITHDRAW_LIMIT:?}:\n{}", node + 1, self.circumstances()))
    }

    pub(super) fn one_way(&mut self, node: usize) -> Result<(), String> {
        let me = self.lab.nodes[node].number;
        let others: Vec<u32> = self.lab.nodes.iter().map(|n| n.number).filter(|n| *n != me).collect();
        let (what, ways): (&str, Vec<(u32, u32)>) = match self.below(4) {
            0 | 1 => ("is not heard", others.iter().map(|n| (me, *n)).collect()),
            2 => ("is deaf", others.iter().map(|n| (*n, me)).collect()),
            _ => {
                let other = others[self.below(others.len() as u64) as usize];
                ("is not heard by one", vec![(me, other)])
            }
        };
        self.lab.cut_ways(node, &ways).map_err(|e| e.to_string())?;
        let until = Instant::now() + ONE_WAY;
        let mut dead = Vec::new();
        while dead.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
            dead = self.everyone().into_iter().filter_map(|n| Some((n, self.lab.fenced(n)?))).collect();
        }
        self.lab.heal_ways(&ways).map_err(|e| e.to_string())?;
        let who: Vec<String> = dead.iter().map(|(n, _)| format!("node{}", n + 1)).collect();
        println!("  node{me} {what}: killed {who:?}");
        for (n, at) in dead {
            self.back_from_the_dead(n, at)?;
        }
        Ok(())
    }
}
