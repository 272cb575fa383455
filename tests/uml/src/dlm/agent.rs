//! The program inside the guest: one TCP connection, one command a line, answers and events as lines.
//!
//! A command is `NUMBER WORD ARGUMENT..`, its answer `= NUMBER RESULT TEXT` with 0 or a negative error. Operations on
//! locks are done by a thread of their lockspace (the kernel lets them wait while it is stopped), creating and removing
//! a lockspace by threads of their own, as is a script that is run (`STATUS OUTPUT` is the text of its answer). Events are `! completed TAG STATUS FLAGS LVB`, `! blocking TAG MODE`,
//! `! uevent ACTION LOCKSPACE`. Bytes are in hexadecimal digits, `-` stands for none.

use super::device::{self, LVB_LENGTH, LockOp, Told};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketType, bind, recv, socket};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Hexadecimal digits of some bytes, `-` for none.
pub(super) fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".into() } else { bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
}

/// The bytes of some hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

struct Space {
    minor: u32,
    ops: Sender<(u64, LockOp)>,
    stop: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Agent {
    out: Arc<Mutex<TcpStream>>,
    spaces: Arc<Mutex<BTreeMap<String, Space>>>,
    dev: Arc<PathBuf>,
}

/// Serves the first connection to `address` until it ends. `dev` is where the devices are.
///
/// # Errors
/// What went wrong, in a line.
pub fn serve(address: &str, dev: &Path) -> Result<(), String> {
    // As long as it is open the kernel believes that someone looks after the membership.
    let _monitor = File::open(dev.join("dlm-monitor")).map_err(|error| format!("dlm-monitor: {error}"))?;
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    println!("dlmguest: ready");
    let (stream, _) = listener.accept().map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let input = BufReader::new(stream.try_clone().map_err(|error| error.to_string())?);
    let agent = Agent { out: Arc::new(Mutex::new(stream)), spaces: Arc::default(), dev: Arc::new(dev.to_owned()) };
    let listening = agent.clone();
    thread::spawn(move || {
        if let Err(error) = listening.hear_uevents() {
            println!("dlmguest: uevents: {error}");
        }
    });
    for line in input.lines() {
        let line = line.map_err(|error| error.to_string())?;
        agent.command(&line);
    }
    Ok(())
}

fn number(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(5)
}

impl Agent {
    fn say(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = out.write_all(format!("{line}\n").as_bytes()) {
            println!("dlmguest: {error}");
        }
    }

    fn spaces(&self) -> MutexGuard<'_, BTreeMap<String, Space>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, number: u64, result: Result<String, i32>) {
        match result {
            Ok(text) => self.say(&format!("= {number} 0 {text}")),
            Err(error) => self.say(&format!("= {number} {error} -")),
        }
    }

    fn command(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let Some(call) = words.first().and_then(|word| word.parse::<u64>().ok()) else { return };
        let done = |result: io::Result<String>| self.answer(call, result.map_err(|error| number(&error)));
        match words[1..] {
            ["mkdir", path] => done(std::fs::create_dir(path).map(|()| "-".into())),
            ["rmdir", path] => done(std::fs::remove_dir(path).map(|()| "-".into())),
            ["read", path] => done(std::fs::read_to_string(path).map(|text| text.trim().to_string())),
            ["write", path, text] => done(write(path, text.as_bytes())),
            ["address", path, address] => done(socket_address(address).and_then(|bytes| write(path, &bytes))),
            ["create", name] => self.in_background(call, name, Agent::create),
            ["remove", name] => self.in_background(call, name, Agent::remove),
            ["run", script] => self.in_background(call, script, Agent::run),
            ["lock", name, tag, lock, mode, flags, resource, lvb] => {
                self.operate(call, name, &[tag, lock, mode, flags, resource, lvb], false);
            }
            ["unlock", name, tag, lock, flags, lvb] => {
                self.operate(call, name, &[tag, lock, "0", flags, "-", lvb], true);
            }
            _ => self.answer(call, Err(-22)),
        }
    }

    fn in_background(&self, call: u64, name: &str, work: fn(&Agent, &str) -> io::Result<String>) {
        let (agent, name) = (self.clone(), name.to_owned());
        thread::spawn(move || {
            let result = work(&agent, &name).map_err(|error| number(&error));
            agent.answer(call, result);
        });
    }

    fn control(&self, request: &[u8]) -> io::Result<usize> {
        let control = OpenOptions::new().read(true).write(true).open(self.dev.join("dlm-control"))?;
        Ok(rustix::io::write(&control, request)?)
    }

    fn create(&self, name: &str) -> io::Result<String> {
        let minor = self.control(&device::encode_create(name))?;
        let device = self.dev.join(format!("dlm_{name}"));
        let device = OpenOptions::new().read(true).write(true).open(device)?;
        rustix::fs::fcntl_setfl(&device, rustix::fs::OFlags::NONBLOCK)?;
        let device = Arc::new(device);
        let (ops, inbox) = channel::<(u64, LockOp)>();
        let stop = Arc::new(AtomicBool::new(false));
        let (agent, reading, halt) = (self.clone(), device.clone(), stop.clone());
        thread::spawn(move || agent.read_results(&reading, &halt));
        let agent = self.clone();
        thread::spawn(move || {
            for (call, op) in inbox {
                let result = rustix::io::write(&*device, &device::encode_lock(&op));
                agent.answer(call, result.map(|lock| lock.to_string()).map_err(|e| -e.raw_os_error()));
            }
        });
        self.spaces().insert(name.to_owned(), Space { minor: minor as u32, ops, stop }); // minors have 20 bits
        Ok(minor.to_string())
    }

    fn remove(&self, name: &str) -> io::Result<String> {
        let space = self.spaces().remove(name).ok_or(Errno::NOENT)?;
        space.stop.store(true, Ordering::Release);
        let minor = space.minor;
        // With the last handle on the device the locks of this process go; that is what leaving is.
        drop(space);
        self.control(&device::encode_remove(minor)).map(|_| "-".into())
    }

    /// Runs a shell script: its status, and all that it printed.
    fn run(&self, script: &str) -> io::Result<String> {
        let script = unhex(script).ok_or(Errno::INVAL)?;
        let script = String::from_utf8(script).map_err(|_| Errno::INVAL)?;
        let done = Command::new("/bin/bash").args(["-c", &script]).stdin(Stdio::null()).output()?;
        let text = [done.stdout, done.stderr].concat();
        Ok(format!("{} {}", done.status.code().unwrap_or(255), hex(&text)))
    }

    /// Passes on what the device tells, until the lockspace goes.
    fn read_results(&self, device: &File, stop: &AtomicBool) {
        let mut buffer = [0; device::RESULT + 2 * LVB_LENGTH];
        while !stop.load(Ordering::Acquire) {
            match rustix::io::read(device, &mut buffer) {
                Ok(length) => match device::decode(&buffer[..length]) {
                    Some(Told::Completed { tag, status, flags, lvb, .. }) => {
                        let lvb = lvb.map_or_else(|| "-".into(), |lvb| hex(&lvb));
                        self.say(&format!("! completed {tag} {status} {flags} {lvb}"));
                    }
                    Some(Told::Blocking { tag, mode }) => self.say(&format!("! blocking {tag} {mode}")),
                    None => println!("dlmguest: {length} bytes that are no result"),
                },
                Err(Errno::AGAIN) => {
                    let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                    // An error is met again at the next read.
                    let _again = poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&pause));
                }
                Err(Errno::INTR) => {}
                Err(error) => return println!("dlmguest: reading results: {error}"),
            }
        }
    }

    fn operate(&self, call: u64, name: &str, words: &[&str; 6], unlock: bool) {
        let op = parse(words, unlock);
        let sent = op.is_some_and(|op| self.spaces().get(name).is_some_and(|space| space.ops.send((call, op)).is_ok()));
        if !sent {
            self.answer(call, Err(-22));
        }
    }

    fn hear_uevents(&self) -> io::Result<()> {
        let socket = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        let mut buffer = [0; 8192];
        loop {
            let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let value = |key: &str| text.split('\0').find_map(|word| word.strip_prefix(key));
            if let (Some("dlm"), Some(action), Some(name)) =
                (value("SUBSYSTEM="), value("ACTION="), value("LOCKSPACE="))
            {
                self.say(&format!("! uevent {action} {name}"));
            }
        }
    }
}

fn write(path: &str, bytes: &[u8]) -> io::Result<String> {
    OpenOptions::new().write(true).open(path)?.write_all(bytes)?;
    Ok("-".into())
}

/// A socket address as the kernel stores it, 128 bytes.
fn socket_address(text: &str) -> io::Result<Vec<u8>> {
    let address: Ipv4Addr = text.parse().map_err(|_| Errno::INVAL)?;
    let mut bytes = vec![0; 128];
    bytes[..2].copy_from_slice(&2u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    Ok(bytes)
}

fn parse([tag, lock, mode, flags, resource, lvb]: &[&str; 6], unlock: bool) -> Option<LockOp> {
    let mut value = [0; LVB_LENGTH];
    let given = unhex(lvb)?;
    value.get_mut(..given.len())?.copy_from_slice(&given);
    Some(LockOp {
        unlock,
        tag: tag.parse().ok()?,
        lock: lock.parse().ok()?,
        mode: mode.parse().ok()?,
        flags: flags.parse().ok()?,
        name: unhex(resource)?,
        lvb: value,
    })
}
