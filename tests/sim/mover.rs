//! Who moves tokens about, beside the other work of a life, and looks for them: as programs do through a kernel that keeps no name
//! (it looks each up anew, and remembers the inodes for a while).

use crate::node::Life;
use crate::tokens::{Kind, Outcome, PLACES, TOKENS};
use crate::world::{ME, World};
use gfs2r::dir::Cookie;
use gfs2r::error::{Error, Result};
use gfs2r::fs::{Fs, RenameHow};
use gfs2r::ids::BlockAddr;
use gfs2r::sync::simulated::{note, random};
use gfs2r::sync::thread;
use gfs2r::volume::Opened;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One thread's view of the tokens.
pub(crate) struct Mover<'a> {
    world: &'a Arc<World>,
    fs: &'a Arc<Fs>,
    by: u64,
    /// What the kernel remembers.
    known: Vec<BlockAddr>,
}

pub(crate) fn place(n: usize) -> String {
    format!("place{n}")
}
pub(crate) fn token(n: usize) -> String {
    format!("token{n}")
}

/// The threads of a life that do nothing else.
pub(crate) fn start(life: &Life, opened: &Arc<Opened>) -> Vec<thread::JoinHandle<()>> {
    let start = |n: u64| {
        let (life, opened) = (life.clone(), Arc::clone(opened));
        let run = move || {
            let mut mover = Mover::new(&life.world, &opened.fs, life.by);
            for _ in 0..1 + random(life.world.plan.operations * 2) {
                let (what, done) = mover.step();
                life.world.counts.operations.fetch_add(1, Ordering::Relaxed);
                note(life.by, || format!("life {}: {what}: {done:?}", life.by));
                if !life.goes_on(&what, done) {
                    return;
                }
                if random(3) == 0 {
                    thread::sleep(Duration::from_micros(random(40_000)));
                }
            }
            // Nobody is there to hear of a failure.
            if !life.is_over() {
                life.goes_on("forget", mover.forget());
            }
        };
        thread::Builder::new().name(format!("mover {n}")).spawn(run).expect("a thread")
    };
    (0..life.world.plan.movers).map(start).collect()
}

impl<'a> Mover<'a> {
    pub(crate) fn new(world: &'a Arc<World>, fs: &'a Arc<Fs>, by: u64) -> Self {
        Self { world, fs, by, known: Vec::new() }
    }

    fn step(&mut self) -> (String, Result<()>) {
        let (n, from) = (random(TOKENS as u64) as usize, random(PLACES as u64) as usize);
        let to = (from + 1 + random(PLACES as u64 - 1) as usize) % PLACES;
        match random(10) {
            0..=4 => (format!("move token {n} from {from} to {to}"), self.move_it(n, from, to)),
            5 | 6 => (format!("look for token {n} in {from}"), self.look(n, from)),
            7 | 8 => (format!("list {from}"), self.list(from)),
            _ => ("forget".into(), self.forget()),
        }
    }

    fn known(&mut self, parent: BlockAddr, name: &str) -> Result<BlockAddr> {
        let addr = self.fs.lookup(parent, name.as_bytes())?.inum.addr;
        self.known.push(addr);
        Ok(addr)
    }

    pub(crate) fn forget(&mut self) -> Result<()> {
        self.known.drain(..).try_for_each(|addr| self.fs.forget(addr, 1))
    }

    /// What an operation answered, said to the history.
    fn answered(&self, n: usize, slot: usize, found: Result<()>) -> Result<()> {
        let outcome = match found {
            Ok(()) => Outcome::Found,
            Err(Error::NotFound) => Outcome::Absent,
            Err(e) => return Err(e),
        };
        // Who has no cluster any more may be told anything.
        if !self.world.is_out(self.by) {
            let verdict = self.world.tokens.end(self.by, n, slot, outcome);
            verdict.unwrap_or_else(|why| panic!("life {}: {why}", self.by));
        }
        Ok(())
    }

    fn move_it(&mut self, n: usize, from: usize, to: usize) -> Result<()> {
        let root = self.fs.root();
        let (old, new, name) = (self.known(root, &place(from))?, self.known(root, &place(to))?, token(n));
        let slot = self.world.tokens.begin(self.by, n, Kind::Move { from, to });
        let done = self.known(old, &name).and_then(|_| {
            // The kernel looks for what it would replace.
            match self.known(new, &name) {
                Ok(_) | Err(Error::NotFound) => {}
                Err(e) => return Err(e),
            }
            let (old, new) = ((old, name.as_bytes()), (new, name.as_bytes()));
            self.fs.rename(&ME, old, new, if random(3) == 0 { RenameHow::NoReplace } else { RenameHow::Replace })
        });
        if matches!(done, Err(Error::Exists)) {
            panic!("life {}: token {n} was in {from}, and is in {to}", self.by);
        }
        let moved = done.is_ok();
        self.answered(n, slot, done)?;
        if moved && random(3) == 0 {
            let since = self.world.tokens.moment();
            self.fs.fsync(new)?;
            self.world.tokens.durable(self.by, since);
        }
        Ok(())
    }

    pub(crate) fn look(&mut self, n: usize, at: usize) -> Result<()> {
        let dir = self.known(self.fs.root(), &place(at))?;
        let slot = self.world.tokens.begin(self.by, n, Kind::Look { at });
        let found = self.known(dir, &token(n)).and_then(|addr| {
            let mut buf = [0; 16];
            match self.fs.read(addr, 0, &mut buf) {
                Ok(len) => assert_eq!(&buf[..len], token(n).as_bytes(), "what is in token {n}"),
                Err(Error::IsADirectory) if n == TOKENS - 1 => {}
                Err(e) => return Err(e),
            }
            Ok(())
        });
        self.answered(n, slot, found)
    }

    fn list(&mut self, at: usize) -> Result<()> {
        let dir = self.known(self.fs.root(), &place(at))?;
        let slots: Vec<usize> = (0..TOKENS).map(|n| self.world.tokens.begin(self.by, n, Kind::Look { at })).collect();
        let mut found = [false; TOKENS];
        self.fs.list(dir, Cookie::default(), &mut |item| {
            (0..TOKENS).filter(|n| item.name == token(*n).as_bytes()).for_each(|n| {
                assert!(!found[n], "token {n} is listed twice");
                found[n] = true;
            });
            true
        })?;
        let answer = |n: usize| if found[n] { Ok(()) } else { Err(Error::NotFound) };
        (0..TOKENS).try_for_each(|n| self.answered(n, slots[n], answer(n)))
    }
}
