//! The power switch. The agent that nodes run is this program again: it asks the observer, through a socket in the file
//! system, which network namespaces do not divide. The observer does what the case wants done, writes it down, and only
//! then answers.

use crate::lab::Lives;
use crate::observer::{Entry, Log, What, now};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// First argument of the agent.
pub(crate) const ROLE: &str = "--fence-agent";

/// What the power switch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Kills the node.
    Kill,
    /// Takes the disk away from it, as fencing at the storage does: it lives on, and what it holds counts no more.
    Spare,
    /// Fails.
    Fail,
    /// Answers later, when the policy has changed.
    Wait,
}

/// The agent: `SOCKET ACTOR`, options on standard input.
pub(crate) fn agent(arguments: &[String]) -> ExitCode {
    let [socket, actor] = arguments else { return ExitCode::FAILURE };
    match ask(Path::new(socket), actor) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fence agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(socket: &Path, actor: &str) -> std::io::Result<bool> {
    let mut options = String::new();
    std::io::stdin().read_to_string(&mut options)?;
    let victim = options.lines().find_map(|line| line.strip_prefix("node=")).unwrap_or("0");
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{victim} {actor}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer == "off")
}

/// The observer's end.
#[derive(Clone)]
pub(crate) struct Switch {
    pub(crate) policy: Arc<Mutex<Policy>>,
    lives: Lives,
    log: Log,
}

impl Switch {
    /// Listens until the process ends; the threads wait in `accept` and cost nothing.
    pub(crate) fn open(socket: &Path, lives: Lives, log: Log) -> std::io::Result<Switch> {
        let listener = UnixListener::bind(socket)?;
        let switch = Switch { policy: Arc::new(Mutex::new(Policy::Kill)), lives, log };
        let served = switch.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let switch = served.clone();
                std::thread::spawn(move || {
                    if let Err(error) = switch.serve(stream) {
                        switch.note(0, format!("the agent went away: {error}"));
                    }
                });
            }
        });
        Ok(switch)
    }

    pub(crate) fn set(&self, policy: Policy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn note(&self, node: u32, text: String) {
        self.log.add(Entry { at: now(), node, life: 0, what: What::Note(text) });
    }

    fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
        let (Some(victim), Some(actor)) = (numbers.next(), numbers.next()) else { return Ok(()) };
        self.note(victim, format!("node {actor} wants node {victim} fenced"));
        loop {
            let policy = *self.policy.lock().unwrap_or_else(PoisonError::into_inner);
            if policy != Policy::Wait {
                let done = self.shoot(policy, victim, actor);
                self.note(victim, format!("node {actor} is told: {}", if done { "off" } else { "failed" }));
                return stream.write_all(if done { b"off" } else { b"failed" });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One shot at a time: of two who shoot at one another, the first is served.
    fn shoot(&self, policy: Policy, victim: u32, actor: u32) -> bool {
        let mut lives = self.lives.lock();
        let actor_is_off = lives.get(&actor).is_none_or(|life| life.fenced);
        if policy == Policy::Fail || actor_is_off {
            return false;
        }
        // A node that was never started is off.
        if let Some(life) = lives.get_mut(&victim) {
            if policy == Policy::Kill {
                life.kill();
            }
            life.fenced = true;
            self.log.add(Entry { at: now(), node: victim, life: life.number, what: What::Fenced });
        }
        true
    }
}
