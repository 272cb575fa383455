//! The host's side: a guest with the kernel's lock manager, and its single steps.

use super::agent::{hex, unhex};
use super::{Event, Events};
use crate::{Guest, Job, Outcome, Uml, guest_path, program};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const CONFIG: &str = "/sys/kernel/config/dlm/cluster";
/// A call that takes longer has failed.
const CALL: Duration = Duration::from_secs(20);
const BOOT: Duration = Duration::from_secs(60);

/// The guest's part of the set-up, before its program takes over.
const SCRIPT: &str = r#"
mkdir -p /run/dev
mount -t devtmpfs devtmpfs /run/dev
mount -t configfs configfs /sys/kernel/config
ip link set lo up
ip link set vec0 up
ip addr add "$ADDRESS/24" dev vec0
exec "$AGENT" "$ADDRESS:9000" /run/dev
"#;

/// What a call came to: a text, or a negative error.
pub type Reply = Result<String, i32>;

type Pending = Arc<Mutex<BTreeMap<u64, Sender<Reply>>>>;

/// A kernel as a node of the cluster. Dropping it kills it.
pub struct KernelNode {
    /// Its number.
    pub id: u32,
    /// What its kernel has told.
    pub events: Events,
    guest: Guest,
    out: TcpStream,
    pending: Pending,
    next: u64,
}

impl KernelNode {
    /// Boots a guest with the number `id` and an address, on a tap device of the caller's network namespace.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub fn boot(uml: &Uml, id: u32, address: Ipv4Addr, tap: &str, limit: Duration) -> Result<KernelNode, String> {
        KernelNode::boot_with(uml, id, address, tap, Job::new("").memory_mib(256).limit(limit))
    }

    /// The same with disks, modules and whatever else the job has; its script is replaced.
    ///
    /// # Errors
    /// When it cannot be started or does not answer.
    pub fn boot_with(uml: &Uml, id: u32, address: Ipv4Addr, tap: &str, job: Job) -> Result<KernelNode, String> {
        let job = job
            .script(SCRIPT)
            .variable("ADDRESS", address.to_string())
            .variable("AGENT", guest_path(&program("dlmguest")?))
            .kernel_arg(format!("vec0:transport=tap,ifname={tap},depth=128,gro=1"));
        let guest = uml.spawn(&job)?;
        guest.wait_for_line("dlmguest: ready", BOOT)?;
        let agent = SocketAddr::from((address, 9000));
        // A guest that has other work does not say at once where it is: the host's own network gives up after three seconds.
        let until = std::time::Instant::now() + CALL;
        let out = loop {
            match TcpStream::connect_timeout(&agent, CALL) {
                Ok(stream) => break stream,
                Err(error) if std::time::Instant::now() >= until => return Err(format!("{agent}: {error}")),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        out.set_nodelay(true).map_err(|error| error.to_string())?;
        let (events, pending) = (Events::default(), Pending::default());
        let input = BufReader::new(out.try_clone().map_err(|error| error.to_string())?);
        let (told, asked) = (events.clone(), pending.clone());
        std::thread::spawn(move || listen(input, &told, &asked));
        let mut node = KernelNode { id, events, guest, out, pending, next: 1 };
        node.step(&format!("mkdir {CONFIG}"))?;
        Ok(node)
    }

    /// Sends a command; its answer will be there.
    fn send(&mut self, command: &str) -> Result<Receiver<Reply>, String> {
        let (sender, receiver) = channel();
        self.next += 1;
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(self.next, sender);
        let line = format!("{} {command}\n", self.next);
        self.out.write_all(line.as_bytes()).map_err(|error| format!("kernel node {}: {error}", self.id))?;
        Ok(receiver)
    }

    fn call(&mut self, command: &str) -> Result<Reply, String> {
        let answer = self.send(command)?;
        answer.recv_timeout(CALL).map_err(|_| format!("kernel node {}: no answer to '{command}'", self.id))
    }

    /// A command that must succeed.
    fn step(&mut self, command: &str) -> Result<String, String> {
        self.call(command)?.map_err(|error| format!("kernel node {}: '{command}': error {error}", self.id))
    }

    /// Sets a value of the cluster's configuration (`toss_secs` ...).
    ///
    /// # Errors
    /// When the kernel refuses it or does not answer, as in all steps.
    pub fn configure(&mut self, what: &str, value: &str) -> Result<(), String> {
        self.step(&format!("write {CONFIG}/{what} {value}")).map(drop)
    }

    /// Makes the address of a node known.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn add_address(&mut self, node: u32, address: Ipv4Addr) -> Result<(), String> {
        let comm = format!("{CONFIG}/comms/{node}");
        self.step(&format!("mkdir {comm}"))?;
        self.step(&format!("write {comm}/nodeid {node}"))?;
        self.step(&format!("address {comm}/addr {address}"))?;
        if node == self.id {
            self.step(&format!("write {comm}/local 1"))?;
        }
        Ok(())
    }

    /// A node has left the cluster: the kernel drops its connections.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn remove_address(&mut self, node: u32) -> Result<(), String> {
        self.step(&format!("rmdir {CONFIG}/comms/{node}")).map(drop)
    }

    /// Begins to make a lockspace, and waits until the kernel asks for its members. Answered with [`KernelNode::admit`].
    ///
    /// # Errors
    /// When the kernel does not ask.
    pub fn begin_create(&mut self, space: &str) -> Result<Receiver<Reply>, String> {
        let answer = self.send(&format!("create {space}"))?;
        self.wait_until_it_asks("online", space, &answer)?;
        self.step(&format!("mkdir {CONFIG}/spaces/{space}"))?;
        Ok(answer)
    }

    /// Begins to mount GFS2 on the guest's first disk, and waits until the kernel asks for the members of its lockspace.
    /// Answered with [`KernelNode::admit`]; the mount's outcome is that of a script.
    ///
    /// # Errors
    /// When the kernel does not ask.
    pub fn begin_mount(&mut self, space: &str, options: &str) -> Result<Receiver<Reply>, String> {
        let answer = self.begin_run(&format!("mount -t gfs2 -o '{options}' /dev/ubda /mnt/gfs"))?;
        self.wait_until_it_asks("online", space, &answer)?;
        self.step(&format!("mkdir {CONFIG}/spaces/{space}"))?;
        Ok(answer)
    }

    /// Begins to unmount it, and waits until the kernel asks to be stopped.
    ///
    /// # Errors
    /// When it does not ask.
    pub fn begin_umount(&mut self, space: &str) -> Result<Receiver<Reply>, String> {
        let answer = self.begin_run("umount /mnt/gfs")?;
        self.wait_until_it_asks("offline", space, &answer)?;
        Ok(answer)
    }

    fn wait_until_it_asks(&self, action: &str, space: &str, answer: &Receiver<Reply>) -> Result<(), String> {
        let asked = Event::Uevent(action.into(), space.into());
        match self.events.wait(&format!("uevent {action}"), CALL, |event| *event == asked) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}; answer {:?}", answer.try_recv().map(|reply| ran(&reply)))),
        }
    }

    /// Begins to run a shell script in the guest; [`ran`] reads the answer.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn begin_run(&mut self, script: &str) -> Result<Receiver<Reply>, String> {
        self.send(&format!("run {}", hex(script.as_bytes())))
    }

    /// Runs a shell script in the guest to its end: what it printed, on both of its outputs.
    ///
    /// # Errors
    /// When it ends with another status than 0, or not within `limit`.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<String, String> {
        let answer = self.begin_run(script)?;
        let answer = answer.recv_timeout(limit).map_err(|_| format!("node {}: no end of: {script}", self.id))?;
        ran(&answer).map_err(|error| format!("node {}: {script}: {error}", self.id))
    }

    /// Begins to leave a lockspace, and waits until the kernel asks to be stopped.
    ///
    /// # Errors
    /// When it does not ask.
    pub fn begin_remove(&mut self, space: &str) -> Result<Receiver<Reply>, String> {
        let answer = self.send(&format!("remove {space}"))?;
        let asked = Event::Uevent("offline".into(), space.into());
        self.events.wait("uevent offline", CALL, |event| *event == asked)?;
        Ok(answer)
    }

    /// Adds a member for the next start.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn add_member(&mut self, space: &str, node: u32) -> Result<(), String> {
        let member = format!("{CONFIG}/spaces/{space}/nodes/{node}");
        self.step(&format!("mkdir {member}"))?;
        self.step(&format!("write {member}/nodeid {node}"))?;
        self.step(&format!("write {member}/weight 1")).map(drop)
    }

    /// Takes one out.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn remove_member(&mut self, space: &str, node: u32) -> Result<(), String> {
        self.step(&format!("rmdir {CONFIG}/spaces/{space}/nodes/{node}")).map(drop)
    }

    /// The membership of a lockspace that has been left is forgotten.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn forget(&mut self, space: &str) -> Result<(), String> {
        self.step(&format!("rmdir {CONFIG}/spaces/{space}")).map(drop)
    }

    /// Tells the kernel the lockspace's global id.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn set_id(&mut self, space: &str, id: u32) -> Result<(), String> {
        self.step(&format!("write /sys/kernel/dlm/{space}/id {id}")).map(drop)
    }

    /// Stops a lockspace; it has stopped when this returns.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn stop(&mut self, space: &str) -> Result<(), String> {
        self.step(&format!("write /sys/kernel/dlm/{space}/control 0")).map(drop)
    }

    /// Starts it with the members of the configuration.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn start(&mut self, space: &str) -> Result<(), String> {
        self.step(&format!("write /sys/kernel/dlm/{space}/control 1")).map(drop)
    }

    /// Answers the kernel's question: it is in, or out.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn admit(&mut self, space: &str) -> Result<(), String> {
        self.step(&format!("write /sys/kernel/dlm/{space}/event_done 0")).map(drop)
    }

    /// The recovery status of a lockspace.
    ///
    /// # Errors
    /// As in [`KernelNode::configure`].
    pub fn recovery_status(&mut self, space: &str) -> Result<u32, String> {
        let text = self.step(&format!("read /sys/kernel/dlm/{space}/recover_status"))?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|error| format!("{text}: {error}"))
    }

    /// A new lock, or (with the id of a lock, and the flag CONVERT) another mode. The answer is its id; it comes when
    /// the kernel lets the call go on.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn lock(
        &mut self,
        space: &str,
        (tag, lock): (u64, u32),
        mode: u8,
        flags: u32,
        name: &[u8],
        lvb: &[u8],
    ) -> Result<Receiver<Reply>, String> {
        self.send(&format!("lock {space} {tag} {lock} {mode} {flags} {} {}", hex(name), hex(lvb)))
    }

    /// Gives a lock up, or what it waits for.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn unlock(
        &mut self,
        space: &str,
        (tag, lock): (u64, u32),
        flags: u32,
        lvb: &[u8],
    ) -> Result<Receiver<Reply>, String> {
        self.send(&format!("unlock {space} {tag} {lock} {flags} {}", hex(lvb)))
    }

    /// The host's side of the guest's `$OUT`.
    pub fn out(&self) -> &Path {
        self.guest.out()
    }

    /// What its kernel has said.
    pub fn kernel_log(&self) -> String {
        self.guest.kernel()
    }

    /// What its program has said.
    pub fn console(&self) -> String {
        self.guest.console()
    }

    /// Pulls the plug.
    pub fn kill(self) -> Outcome {
        self.events.close();
        self.guest.kill()
    }
}

/// What a script printed.
///
/// # Errors
/// Its status when that is not 0, and what it printed.
pub fn ran(reply: &Reply) -> Result<String, String> {
    let text = reply.as_ref().map_err(|error| format!("cannot be started: error {error}"))?;
    let (status, output) = text.split_once(' ').unwrap_or((text, "-"));
    let output = String::from_utf8_lossy(&unhex(output).unwrap_or_default()).into_owned();
    if status == "0" { Ok(output) } else { Err(format!("status {status}: {output}")) }
}

fn listen(input: impl BufRead, events: &Events, pending: &Pending) {
    // A guest that is killed says nothing more; the loop ends with the connection.
    for line in input.lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["=", call, result, ref text @ ..] => {
                let Ok(call) = call.parse() else { continue };
                let sender = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&call);
                let reply = match result.parse().unwrap_or(-5) {
                    0 => Ok(text.join(" ")),
                    error => Err(error),
                };
                // Whoever asked may have stopped waiting.
                let _gone = sender.map(|sender| sender.send(reply));
            }
            ["!", ref event @ ..] => match parse(event) {
                Some(event) => events.add(event),
                None => eprintln!("from the guest: {line}"),
            },
            _ => eprintln!("from the guest: {line}"),
        }
    }
    events.close();
}

fn parse(words: &[&str]) -> Option<Event> {
    Some(match words {
        ["completed", tag, status, flags, lvb] => {
            let lvb = Some(unhex(lvb)?).filter(|lvb| !lvb.is_empty());
            let (status, flags) = (status.parse().ok()?, flags.parse().ok()?);
            Event::Completed { tag: tag.parse().ok()?, status, flags, lvb }
        }
        ["blocking", tag, mode] => Event::Blocking { tag: tag.parse().ok()?, mode: mode.parse().ok()? },
        ["uevent", action, name] => Event::Uevent((*action).into(), (*name).into()),
        _ => return None,
    })
}
