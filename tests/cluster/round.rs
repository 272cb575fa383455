//! A round: work on all nodes while things go wrong, then peace, and the reckoning.

use crate::checker;
use crate::history::{History, now};
use crate::job::{Job, Started};
use crate::lab::{Lab, TOKEN_MS};
use crate::view;
use crate::worker::Spec;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[path = "round/faults.rs"]
mod faults;

/// Processes on all nodes together; at least two on each.
const PROCESSES: usize = 6;
/// Who is still at it this long after the end hangs.
const HANGS: Duration = Duration::from_secs(45);
/// How long the others may take to see that a node is dead and to kill it.
const FENCE_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9.
    Kill,
    /// SIGSTOP: the others kill it.
    Freeze,
    /// SIGSTOP for less than the token: nothing may happen.
    Pause,
    /// Off the network: the others kill it.
    Cut,
    /// A clean umount in the middle of it all.
    Leave,
    /// The disk takes its time: nothing may happen.
    SlowDisk,
    /// The disk fails for a moment: the node withdraws if it noticed.
    Flicker,
    /// The disk fails for good: the node withdraws, the others go on.
    DeadDisk,
    /// What some nodes send to others is lost: somebody is killed.
    OneWay,
}

pub const FAULTS: [Fault; 9] = [
    Fault::Kill,
    Fault::Pause,
    Fault::SlowDisk,
    Fault::DeadDisk,
    Fault::Freeze,
    Fault::OneWay,
    Fault::Cut,
    Fault::Flicker,
    Fault::Leave,
];

/// What a round shall be.
pub struct Plan<'a> {
    pub number: u32,
    pub seed: u64,
    pub length: Duration,
    /// Operations of each process.
    pub most: u64,
    /// One after the other, again and again; empty: none.
    pub faults: &'a [Fault],
    /// At the end all nodes die at once, before anybody has looked.
    pub power_loss: bool,
}

pub struct Round<'a> {
    lab: &'a mut Lab,
    plan: Plan<'a>,
    /// History files, with the mounting and the process.
    files: Vec<(PathBuf, usize, u32)>,
    writers: u32,
    until: u64,
    random: u64,
    wrong: Vec<String>,
}

/// Runs a round on a lab with everything mounted; what went wrong. At the end everything is unmounted.
pub fn run(lab: &mut Lab, plan: Plan<'_>) -> Vec<String> {
    let random = plan.seed;
    let mut round = Round { lab, plan, files: Vec::new(), writers: 0, until: 0, random, wrong: Vec::new() };
    if let Err(e) = round.all() {
        round.wrong.push(e);
    }
    round.wrong
}

impl Round<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n.max(1)
    }

    fn everyone(&self) -> Vec<usize> {
        (0..self.lab.nodes.len()).collect()
    }

    fn root(&self, node: usize, round: u32) -> PathBuf {
        self.lab.nodes[node].mnt().join(format!("round{round}"))
    }

    fn all(&mut self) -> Result<(), String> {
        let first = self.below(self.lab.nodes.len() as u64) as usize;
        self.same_as_before(first)?;
        let number = self.plan.number;
        let older = number.checked_sub(1).map(|n| self.root(first, n));
        self.job(first, &Job::SetUp { root: self.root(first, number), older }, Duration::from_secs(60))?;
        self.until = now() + u64::try_from(self.plan.length.as_nanos()).unwrap_or(u64::MAX);
        for node in self.everyone() {
            self.start_workers(node)?;
        }
        self.trouble()?;
        self.wait_for_workers()?;
        if self.plan.power_loss {
            self.power_loss()?;
        }
        for node in self.everyone() {
            let spec = self.spec(node);
            self.job(node, &Job::LastLook(spec), Duration::from_secs(60))?;
        }
        self.reckon()?;
        self.compare_views()?;
        let everyone = self.everyone();
        self.lab.umount(&everyone)?;
        match self.lab.fsck() {
            Err(found) if !self.plan.faults.is_empty() && self.lab.fsck_ours().is_ok() => {
                // A killed node's unlinked inodes are deleted when somebody mounts, if not before.
                let orphans = found.matches("bitmap says 2").count();
                println!("  {orphans} unlinked inodes were left behind; mounting once more");
                self.lab.mount(&everyone)?;
                std::thread::sleep(Duration::from_millis(500));
                self.lab.umount(&everyone)?;
                self.lab.fsck()
            }
            result => result,
        }
    }

    fn spec(&mut self, node: usize) -> Spec {
        self.writers += 1;
        let mounting = self.lab.nodes[node].mounting;
        let history = self.lab.dir().join(format!("history-{}-{mounting}-{}", self.plan.number, self.writers));
        self.files.push((history.clone(), mounting, self.writers));
        Spec {
            root: self.root(node, self.plan.number),
            history,
            seed: self.plan.seed ^ u64::from(self.writers) << 40,
            writer: self.writers,
            until: self.until,
            most: self.plan.most,
        }
    }

    fn start_workers(&mut self, node: usize) -> Result<(), String> {
        for _ in 0..(PROCESSES / self.lab.nodes.len()).max(2) {
            let spec = self.spec(node);
            let what = format!("node{} worker {}", node + 1, spec.writer);
            let output = self.lab.nodes[node].dir.join("workers");
            let started = Started::job(&Job::Work(spec), what, &output).map_err(|e| e.to_string())?;
            self.lab.nodes[node].workers.push(started);
        }
        Ok(())
    }

    /// A job on a node, to its end.
    fn job(&mut self, node: usize, job: &Job, limit: Duration) -> Result<(), String> {
        let output = self.lab.nodes[node].dir.join("job");
        let _old = fs::remove_file(&output).is_ok();
        let what = format!("node{}: {}", node + 1, format!("{job:?}").split([' ', '(']).next().unwrap_or(""));
        let mut started = Started::job(job, what, &output).map_err(|e| e.to_string())?;
        match started.wait(Instant::now() + limit).map_err(|e| e.to_string())? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                Err(format!("{}: {status}: {}", started.what, fs::read_to_string(output).unwrap_or_default()))
            }
            None => Err(format!("{}\n{}", self.hung(node, &started), self.circumstances())),
        }
    }

    fn hung(&self, node: usize, started: &Started) -> String {
        let node = &self.lab.nodes[node];
        let daemon = node.daemon.as_ref().map(|d| crate::job::stack_of(d.id())).unwrap_or_default();
        format!("{} HANGS:\n{}  daemon:\n{daemon}", started.what, started.stack())
    }

    /// What is under way, and what the daemons say.
    fn circumstances(&self) -> String {
        let mut text = "operations under way:\n".to_owned();
        for (file, _, writer) in &self.files {
            let lines = fs::read_to_string(file).unwrap_or_default();
            let last = lines.lines().last().filter(|l| l.contains("Begin"));
            text += &last.map_or_else(String::new, |l| format!("    worker {writer}: {l}\n"));
        }
        text + &self.lab.locks()
    }

    /// Injects faults until the end of the round.
    fn trouble(&mut self) -> Result<(), String> {
        let mut next = now() + 2_000_000_000;
        let mut serial = self.below(FAULTS.len() as u64) as usize * usize::from(self.plan.number > 0);
        // What takes a while is not begun at the end.
        let last = self.until.saturating_sub(3_000_000_000);
        while now() < self.until {
            std::thread::sleep(Duration::from_millis(20));
            self.look_after_daemons()?;
            if self.plan.faults.is_empty() || now() < next || now() > last {
                continue;
            }
            let fault = self.plan.faults[serial % self.plan.faults.len()];
            serial += 1;
            let node = self.below(self.lab.nodes.len() as u64) as usize;
            let began = Instant::now();
            self.inject(fault, node)?;
            println!("  {fault:?} node{} ({:?})", node + 1, began.elapsed());
            next = now() + 500_000_000 + self.below(1_500_000_000);
        }
        Ok(())
    }

    /// A daemon that ends by itself is a failure; one that was too slow for its token is mounted again.
    fn look_after_daemons(&mut self) -> Result<(), String> {
        for node in self.everyone() {
            if let Some(at) = self.lab.fenced(node) {
                println!("  node{} was slow, and was fenced", node + 1);
                self.back_from_the_dead(node, at)?;
            } else if !self.lab.lives(node) {
                return Err(format!("node{}: its daemon ended:\n    {}", node + 1, self.lab.nodes[node].log_tail()));
            }
        }
        Ok(())
    }

    fn back_from_the_dead(&mut self, node: usize, at: u64) -> Result<(), String> {
        self.lab.bury(node, at);
        let pause = 200 + self.below(3000);
        std::thread::sleep(Duration::from_millis(pause));
        let since = Instant::now();
        self.lab.mount(&[node])?;
        println!("  dead for {pause} ms, back in {:?}", since.elapsed());
        self.start_workers(node)
    }

    fn inject(&mut self, fault: Fault, node: usize) -> Result<(), String> {
        match fault {
            Fault::Kill => {
                let at = now();
                self.back_from_the_dead(node, at)
            }
            Fault::Pause => {
                self.lab.signal(node, Signal::STOP);
                let pause = TOKEN_MS / 5 + self.below(TOKEN_MS / 5);
                std::thread::sleep(Duration::from_millis(pause));
                self.lab.signal(node, Signal::CONT);
                Ok(())
            }
            Fault::Freeze => {
                self.lab.signal(node, Signal::STOP);
                let at = self.wait_for_fence(node)?;
                self.back_from_the_dead(node, at)
            }
            Fault::Cut => {
                self.lab.cut(node).map_err(|e| e.to_string())?;
                let fenced = self.wait_for_fence(node);
                self.lab.heal(node).map_err(|e| e.to_string())?;
                self.back_from_the_dead(node, fenced?)
            }
            Fault::SlowDisk => self.slow_disk(node),
            Fault::Flicker => self.bad_disk(node, true),
            Fault::DeadDisk => self.bad_disk(node, false),
            Fault::OneWay => self.one_way(node),
            Fault::Leave => {
                self.lab.nodes[node].workers.iter_mut().for_each(Started::kill);
                self.lab.nodes[node].workers.clear();
                let since = Instant::now();
                self.lab.umount(&[node])?;
                let left = since.elapsed();
                let pause = self.below(1500);
                std::thread::sleep(Duration::from_millis(pause));
                let since = Instant::now();
                self.lab.mount(&[node])?;
                println!("  left in {left:?}, back in {:?}", since.elapsed());
                self.start_workers(node)
            }
        }
    }

    fn wait_for_fence(&mut self, node: usize) -> Result<u64, String> {
        let until = Instant::now() + FENCE_LIMIT;
        loop {
            if let Some(at) = self.lab.fenced(node) {
                return Ok(at);
            }
            if Instant::now() > until {
                let logs: Vec<String> =
                    self.lab.nodes.iter().map(|n| format!("node{}:\n    {}", n.number, n.log_tail())).collect();
                return Err(format!("node{} was not fenced in {FENCE_LIMIT:?}:\n{}", node + 1, logs.join("\n")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_for_workers(&mut self) -> Result<(), String> {
        let until = Instant::now() + HANGS;
        let mut hanging = Vec::new();
        for node in self.everyone() {
            let mut workers = std::mem::take(&mut self.lab.nodes[node].workers);
            for worker in &mut workers {
                let until = until.max(Instant::now() + Duration::from_millis(50));
                match worker.wait(until).map_err(|e| e.to_string())? {
                    Some(status) if status.success() => {}
                    Some(status) => {
                        let said = fs::read_to_string(self.lab.nodes[node].dir.join("workers")).unwrap_or_default();
                        self.wrong.push(format!("{}: {status}: {said}", worker.what));
                    }
                    None => hanging.push(self.hung(node, worker)),
                }
            }
            self.lab.nodes[node].workers = workers;
        }
        let circumstances = if hanging.is_empty() { String::new() } else { self.circumstances() };
        self.look_after_daemons()?;
        for node in self.everyone() {
            self.lab.nodes[node].workers.clear();
        }
        if hanging.is_empty() { Ok(()) } else { Err(format!("{}\n{}", hanging.join("\n"), circumstances)) }
    }

    /// All nodes at once, and all come back.
    fn power_loss(&mut self) -> Result<(), String> {
        let at = now();
        for node in self.everyone() {
            self.lab.signal(node, Signal::KILL);
        }
        for node in self.everyone() {
            self.lab.bury(node, at);
        }
        println!("  power loss");
        let everyone = self.everyone();
        self.lab.mount(&everyone)
    }

    /// Puts the histories together and checks them.
    fn reckon(&mut self) -> Result<(), String> {
        let mut history = History { incarnations: self.lab.incarnations(), events: Vec::new() };
        for (file, by, process) in self.files.iter().filter(|(f, _, _)| f.exists()) {
            history.load(file, *by, *process).map_err(|e| e.to_string())?;
        }
        println!("  {} operations: {}", history.events.len(), checker::summary(&history));
        let incarnations = history.incarnations.clone();
        let wrong = checker::check(history);
        if !wrong.is_empty() {
            for (i, n) in incarnations.iter().enumerate() {
                println!("  incarnation {i}: node{} faulty from {:?}, killed at {:?}", n.node, n.faulty, n.killed);
            }
        }
        if wrong.is_empty() {
            for (file, _, _) in &self.files {
                let _missing = fs::remove_file(file).is_err();
            }
        }
        self.wrong.extend(wrong);
        Ok(())
    }

    fn view(&mut self, node: usize) -> Result<String, String> {
        let out = self.lab.nodes[node].dir.join("view");
        let root = self.lab.nodes[node].mnt();
        self.job(node, &Job::View { root, out: out.clone() }, Duration::from_secs(60))?;
        fs::read_to_string(out).map_err(|e| e.to_string())
    }

    /// All nodes see the same tree.
    fn compare_views(&mut self) -> Result<(), String> {
        let first = self.view(0)?;
        for node in self.everyone().into_iter().skip(1) {
            let other = self.view(node)?;
            if other != first {
                let lines = view::differences(&first, &other).join("\n    ");
                self.wrong.push(format!("node1 (<) and node{} (>) see different trees:\n    {lines}", node + 1));
            }
        }
        fs::write(self.lab.dir().join("view"), first).map_err(|e| e.to_string())
    }

    /// What was there before the last umount is there.
    fn same_as_before(&mut self, node: usize) -> Result<(), String> {
        let Ok(before) = fs::read_to_string(self.lab.dir().join("view")) else { return Ok(()) };
        let is = self.view(node)?;
        if is != before {
            let lines = view::differences(&before, &is).join("\n    ");
            self.wrong.push(format!("before the umount (<) and after the mount (>):\n    {lines}"));
        }
        Ok(())
    }
}
