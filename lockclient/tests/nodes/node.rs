//! One node of the cluster: a process of its own, in a network of its own. It joins the lockspace, works, says what it
//! holds on standard output, and does what standard input says; it ends with either.

use crate::lab::{PORT, address};
use crate::observer::now;
use lockclient::client::{Held, Locks};
use lockclient::fence::FenceDevice;
use lockclient::flags::LockFlags;
use lockclient::ids::NodeId;
use lockclient::membership::fixed::{Fixed, FixedConfig};
use lockclient::mode::Mode;
use lockclient::node::{Node, NodeConfig};
use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// First argument of a node.
pub(crate) const ROLE: &str = "--node";
/// Silence after which a node is dead, in milliseconds.
pub(crate) const TOKEN_MS: u64 = 1000;
const STARTUP_MS: u64 = 2500;
/// Resources the nodes quarrel about.
pub(crate) const RESOURCES: u64 = 4;
const WORKERS: u64 = 2;

/// One line on standard output, at once. Without an observer there is nothing to live for.
fn report(at: u64, what: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{at} {what}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

struct Worker {
    locks: Locks,
    rest: AtomicBool,
    tokens: AtomicU64,
    /// Kept as long as the process lives.
    kept: Mutex<Vec<(u64, Held)>>,
}

impl Worker {
    /// A lock, reported before anyone acts on it; `None`: the lockspace has ended.
    fn take(&self, name: &str, mode: Mode) -> Option<(u64, Held)> {
        let Ok(held) = self.locks.lock_blocking(name.as_bytes(), mode, LockFlags::empty()) else {
            self.ended();
            return None;
        };
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        // As a filesystem asks before it writes: at this moment, or before it, nobody can have gone on without us.
        let mut at = now();
        while !self.locks.space().is_trusted() {
            if self.locks.space().has_ended() {
                self.ended();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
            at = now();
        }
        report(at, format_args!("granted {token} {name} {mode:?}"));
        Some((token, held))
    }

    fn give_up(&self, token: u64, held: Held) -> bool {
        report(now(), format_args!("released {token}"));
        let done = self.locks.unlock_blocking(held).is_ok();
        if !done {
            self.ended();
        }
        done
    }

    fn ended(&self) {
        if !self.rest.load(Ordering::Acquire) {
            report(now(), format_args!("ended"));
        }
    }

    /// Locks and unlocks, each lock held for up to three milliseconds.
    fn work(&self, seed: u64) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while !self.rest.load(Ordering::Acquire) {
            // Xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mode = if state >> 40 & 1 == 0 { Mode::Ex } else { Mode::Pr };
            let Some((token, held)) = self.take(&format!("r{}", (state >> 20) % RESOURCES), mode) else { return };
            std::thread::sleep(Duration::from_micros((state >> 50) % 3000));
            if !self.give_up(token, held) {
                return;
            }
        }
    }
}

/// `ID COUNT LIFE FENCING AGENT`.
fn config(arguments: &[String]) -> Option<NodeConfig> {
    let [id, count, life, fencing, agent] = arguments else { return None };
    let (id, count, life) = (id.parse::<u32>().ok()?, count.parse::<u32>().ok()?, life.parse::<u64>().ok()?);
    let nodes: Vec<NodeId> = (1..=count).map(NodeId).collect();
    let socket = |node: u32| SocketAddr::from((address(node), PORT));
    let device = FenceDevice { agent: agent.clone(), options: Vec::new() };
    Some(NodeConfig {
        node: NodeId(id),
        address: socket(id),
        peers: nodes.iter().filter(|node| node.0 != id).map(|node| (*node, socket(node.0))).collect(),
        membership: Box::new(Fixed::new(FixedConfig {
            node: NodeId(id),
            incarnation: life,
            name: "nodes".into(),
            nodes: nodes.clone(),
            token_ms: TOKEN_MS,
            startup_ms: STARTUP_MS,
            fencing: fencing == "true",
        })),
        fence: nodes.iter().map(|node| (*node, device.clone())).collect::<BTreeMap<_, _>>(),
        tls: None,
    })
}

/// What we say to this node goes nowhere from now on; what it says is still heard.
fn silence(peer: &str, silent: bool) {
    let nowhere = ["lladdr", "02:00:00:00:00:fe", "nud", "permanent"];
    let mut command = Command::new("ip");
    command.env("PATH", lab_path()).args(["neigh", if silent { "replace" } else { "del" }, peer, "dev", "eth0"]);
    if silent {
        command.args(nowhere);
    }
    let done = command.status().is_ok_and(|status| status.success());
    report(now(), format_args!("{peer} silenced={silent} done={done}"));
}

fn lab_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn commands(worker: &Arc<Mutex<Option<Arc<Worker>>>>, leave: &std::sync::mpsc::Sender<()>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let worker = worker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (line.split_once(' ').unwrap_or((&line, "")), worker) {
            (("silence", peer), _) => silence(peer, true),
            (("speak", peer), _) => silence(peer, false),
            (("mark", number), _) => report(now(), format_args!("mark {number}")),
            (("keep", name), Some(worker)) => {
                let name = name.to_owned();
                std::thread::spawn(move || {
                    if let Some(kept) = worker.take(&name, Mode::Ex) {
                        worker.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
                    }
                });
            }
            (("want", name), Some(worker)) => {
                let name = name.to_owned();
                std::thread::spawn(move || {
                    if let Some((token, held)) = worker.take(&name, Mode::Ex) {
                        worker.give_up(token, held);
                    }
                });
            }
            (("leave", _), Some(_)) => {
                // The receiver lives as long as the process.
                let _ends = leave.send(());
            }
            (other, _) => report(now(), format_args!("cannot do: {other:?}")),
        }
    }
    // The observer is gone.
    std::process::exit(1);
}

/// The process of a node.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let Some(config) = config(arguments) else { return ExitCode::FAILURE };
    let (life, silent) = (config.node.0, Arc::new(Mutex::new(None)));
    let (leave, told) = std::sync::mpsc::channel();
    std::thread::spawn({
        let worker = silent.clone();
        move || commands(&worker, &leave)
    });
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let joined = runtime.block_on(async {
        let node = Node::start(config).await.map_err(|error| error.to_string())?;
        let locks = Locks::join(&node, "nodes", |_| {}).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((node, locks))
    });
    let (node, locks) = match joined {
        Ok(joined) => joined,
        Err(error) => {
            report(now(), format_args!("cannot join: {error}"));
            return ExitCode::FAILURE;
        }
    };
    report(now(), format_args!("joined"));
    let rest = AtomicBool::new(false);
    let worker = Arc::new(Worker { locks, rest, tokens: AtomicU64::new(1), kept: Mutex::default() });
    *silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker.clone());
    let threads: Vec<_> = (0..WORKERS)
        .map(|n| {
            let worker = worker.clone();
            std::thread::spawn(move || worker.work(now() ^ u64::from(life) << 60 ^ n))
        })
        .collect();
    if told.recv().is_err() {
        return ExitCode::FAILURE;
    }
    worker.rest.store(true, Ordering::Release);
    threads.into_iter().for_each(|thread| drop(thread.join()));
    runtime.block_on(async {
        node.release(worker.locks.space()).await;
        node.shutdown().await;
    });
    report(now(), format_args!("left"));
    ExitCode::SUCCESS
}
