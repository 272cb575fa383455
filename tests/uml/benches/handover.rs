//! Hand-overs: two nodes append to one file in turn, so that one dirty block moves each time; and read it, so that nothing has to
//! move. The kernel's GFS2 and lock manager in two guests, gfs2r in two guests of the same kind, gfs2r twice on this machine.
//!
//! `cargo bench -p gfs2r-uml --bench handover -- [--turns N] [--rounds N] [--failovers N] [--only WORD] [--rows WORD] [--dir DIR] [--programs DIR]`
//!
//! A guest has one processor and pays more for a system call or a switch between processes than a real machine does: a daemon
//! looks worse there than it is. The row of turns in which nothing is done tells what taking turns costs by itself.

use gfs2r_uml::kernels::{Kernels, TABLE};
use gfs2r_uml::nodes::{Nodes, cluster_file, must};
use gfs2r_uml::{Job, Uml, guest_path, network};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const WHAT: &str = "hand-overs between two nodes";
const TURNS: &str = env!("CARGO_BIN_EXE_turns");
const PORT: u16 = 9100;
/// Silence of a node that counts as its death.
const TOKEN_MS: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(300);
/// What is done in turn, and by which letters: of the first node, of the second.
const ROWS: [(&str, u8, u8); 6] = [
    ("nothing", b'n', b'n'),
    ("append, nothing", b'a', b'n'),
    ("append, append", b'a', b'a'),
    ("append, read", b'a', b'r'),
    ("append, stat", b'a', b's'),
    ("read, read", b'q', b'q'),
];

struct Args {
    turns: u32,
    rounds: u32,
    only: String,
    dir: PathBuf,
    wait: bool,
    programs: PathBuf,
    failovers: u32,
    rows: String,
}

fn arguments() -> Result<Args, String> {
    let mut args = Args {
        turns: 300,
        rounds: 3,
        only: String::new(),
        dir: std::env::temp_dir(),
        wait: false,
        programs: programs(),
        failovers: 10,
        rows: String::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--turns" => args.turns = value()?.parse().map_err(|error| format!("--turns: {error}"))?,
            "--rounds" => args.rounds = value()?.parse().map_err(|error| format!("--rounds: {error}"))?,
            "--only" => args.only = value()?,
            "--rows" => args.rows = value()?,
            "--dir" => args.dir = value()?.into(),
            "--failovers" => args.failovers = value()?.parse().map_err(|error| format!("--failovers: {error}"))?,
            // Of another build, to compare with.
            "--programs" => args.programs = value()?.into(),
            // Keeps the mounts until a line arrives on standard input.
            "--wait" => args.wait = true,
            "--bench" => {}
            _ => {
                return Err(format!(
                    "{word}: not an option (--turns, --rounds, --failovers, --only, --rows, --dir, --programs, --wait)"
                ));
            }
        }
    }
    Ok(args)
}

/// A node that takes turns.
struct Player(TcpStream);

impl Player {
    fn connect(address: Ipv4Addr) -> Result<Self, String> {
        let address = SocketAddr::from((address, PORT));
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                Ok(stream) => {
                    let limited = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(LIMIT)));
                    return limited.map(|()| Self(stream)).map_err(|error| error.to_string());
                }
                Err(error) if Instant::now() > until => return Err(format!("{address}: {error}")),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn turn(&mut self, letter: u8) -> Result<(), String> {
        let mut answer = [0];
        let done = self.0.write_all(&[letter]).and_then(|()| self.0.read_exact(&mut answer));
        done.map_err(|error| error.to_string())?;
        if answer == *b"k" { Ok(()) } else { Err(format!("'{}' failed", char::from(letter))) }
    }
}

/// Microseconds of every turn, sorted.
fn play(players: &mut [Player; 2], (first, second): (u8, u8), turns: u32) -> Result<Vec<u32>, String> {
    let [one, two] = players;
    for _ in 0..5 {
        one.turn(first)?;
        two.turn(second)?;
    }
    let mut all = Vec::new();
    for n in 0..turns {
        let begun = Instant::now();
        if n % 2 == 0 {
            one.turn(first)?
        } else {
            two.turn(second)?
        }
        all.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    all.sort_unstable();
    Ok(all)
}

/// What was counted so far, of both nodes.
type Counts = Vec<(&'static str, u64)>;

/// Reads, writes and flushes of the disk.
fn disk_of(kernels: &mut Kernels, nodes: [u32; 2]) -> Result<Counts, String> {
    let mut all = [0; 3];
    for node in nodes {
        let text = kernels.node(node)?.run("read -r line </sys/block/ubda/stat; echo $line", LIMIT)?;
        let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        for (sum, field) in all.iter_mut().zip([0, 4, 15]) {
            *sum += fields.get(field).copied().unwrap_or(0);
        }
    }
    Ok(["reads", "writes", "flushes"].into_iter().zip(all).collect())
}

/// Bytes that the lock managers of this machine have sent one another; heartbeats are not among them.
fn lock_traffic() -> Result<Counts, String> {
    let said =
        must(Command::new("ss").args(["-tinH", "state", "established", "( sport = :21064 or dport = :21064 )"]))?;
    let sent = said.split_whitespace().filter_map(|word| word.strip_prefix("bytes_sent:")?.parse::<u64>().ok());
    Ok(vec![("bytes of locking", sent.sum())])
}

/// Measures all rows with these players.
fn measure(
    who: &str,
    players: &mut [Player; 2],
    args: &Args,
    mut counts: impl FnMut() -> Result<Counts, String>,
) -> Result<(), String> {
    for (row, first, second) in ROWS.into_iter().filter(|row| row.0.contains(&args.rows)) {
        let before = counts()?;
        let turns = play(players, (first, second), args.turns)?;
        let all: u64 = turns.iter().map(|&us| u64::from(us)).sum();
        let at = |part: f64| f64::from(turns[((turns.len() - 1) as f64 * part) as usize]) / 1000.0;
        let after = counts()?;
        let each = before.iter().zip(after).map(|(before, (what, after))| {
            // The turns that are not measured do their part.
            format!("   {:.2} {what}", (after - before.1) as f64 / (turns.len() + 10) as f64)
        });
        let io: String = each.collect();
        println!(
            "{who:<22} {row:<16} {:>9.1} turns/s   median {:>8.3}   99 % {:>8.3}   most {:>8.3} ms{io}",
            turns.len() as f64 * 1e6 / all.max(1) as f64,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}

fn programs() -> PathBuf {
    Path::new(TURNS).with_file_name("")
}

fn format(image: &Path, journals: u32, mib: u32) -> Result<(), String> {
    File::create(image).and_then(|file| file.set_len(1 << 30)).map_err(|error| error.to_string())?;
    let mut command = Command::new(programs().join("mkfs.gfs2r"));
    command.args(["-O", "-q", "-p", "lock_dlm", "-t", TABLE]);
    must(command.args(["-j", &journals.to_string(), "-J", &mib.to_string()]).arg(image)).map(drop)
}

fn job() -> Job {
    Job::new("").module("fuse").memory_mib(384).limit(LIMIT)
}

fn start_players(kernels: &mut Kernels, nodes: [u32; 2]) -> Result<[Player; 2], String> {
    for node in nodes {
        let address = network::guest_address(node);
        let program = guest_path(Path::new(TURNS));
        kernels.node(node)?.begin_run(&format!("exec {program} {address}:{PORT} /mnt/gfs/file >$OUT/turns 2>&1"))?;
    }
    let [one, two] = nodes.map(network::guest_address);
    Ok([Player::connect(one)?, Player::connect(two)?])
}

fn kernel(uml: &Uml, dir: &Path, args: &Args) -> Result<(), String> {
    const NODES: [u32; 2] = [1, 2];
    let image = dir.join("kernel.image");
    format(&image, 2, 32)?;
    let mut kernels = Kernels::boot(uml, &image, &NODES, &job())?;
    NODES.iter().try_for_each(|&node| kernels.mount(node, "noatime"))?;
    let mut players = start_players(&mut kernels, NODES)?;
    measure("kernel in guests", &mut players, args, || disk_of(&mut kernels, NODES))
}

fn ours_in_guests(uml: &Uml, dir: &Path, args: &Args) -> Result<(), String> {
    // Others than the kernel's: a tap may still belong to a guest that was killed a moment ago.
    const NODES: [u32; 2] = [3, 4];
    let image = dir.join("guests.image");
    format(&image, 2, 32)?;
    let addresses = NODES.map(|node| (node, network::guest_address(node)));
    let job = job().file("cluster.toml", cluster_file(&addresses, "/bin/true", 5000));
    let mut kernels = Kernels::boot(uml, &image, &NODES, &job)?;
    for node in NODES {
        let program = guest_path(&args.programs.join("mount.gfs2r"));
        let options = format!("fg,noatime,cluster=$OUT/cluster.toml,node=node{node}");
        kernels.node(node)?.begin_run(&format!(
            "mkdir /tmp/run; GFS2R_RUN_DIR=/tmp/run exec {program} /dev/ubda /mnt/gfs -o {options} >$OUT/log 2>&1"
        ))?;
    }
    let mounted = "for i in $(seq 300); do mountpoint -q /mnt/gfs && exit; sleep 0.1; done; cat $OUT/log; exit 1";
    for node in NODES {
        kernels.node(node)?.run(mounted, Duration::from_secs(60))?;
    }
    let mut players = start_players(&mut kernels, NODES)?;
    measure("gfs2r in guests", &mut players, args, || disk_of(&mut kernels, NODES))
}

/// A program that goes with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.0.kill();
        if let Err(error) = self.0.wait() {
            eprintln!("{error}");
        }
    }
}

/// Nodes 1 and 2 of this machine take turns.
fn players_here(nodes: &Nodes) -> Result<([Player; 2], Vec<Running>), String> {
    let mut running = Vec::new();
    for node in [1, 2] {
        let mut command = Command::new(TURNS);
        command.arg(format!("{}:{PORT}", network::own_address(node))).arg(nodes.mnt(node).join("file"));
        running.push(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|e| e.to_string())?));
    }
    let [one, two] = [1, 2].map(network::own_address);
    Ok(([Player::connect(one)?, Player::connect(two)?], running))
}

/// From the death of the node that holds a file to the first write of another into it, in milliseconds.
fn one_failover(dir: &Path, args: &Args) -> Result<f64, String> {
    let image = dir.join("failover.image");
    format(&image, 3, 8)?;
    let mut nodes = Nodes::new(&dir.join("failover"), &args.programs, &image, 3, TOKEN_MS)?;
    nodes.mount_all()?;
    let ([mut holder, mut heir], running) = players_here(&nodes)?;
    heir.turn(b'a')?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        holder.turn(b'a')?;
    }
    nodes.strike(1)?;
    let begun = Instant::now();
    heir.turn(b'a')?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    if took > TOKEN_MS as f64 * 1.5 {
        eprintln!("a failover took {took:.0} ms:\n{}\n{}", nodes.log(2), nodes.log(3));
    }
    drop((holder, heir));
    nodes.kill(&[1]);
    drop(running);
    nodes.umount(2)?;
    nodes.umount(3)?;
    Ok(took)
}

fn failovers(dir: &Path, args: &Args) -> Result<(), String> {
    let mut all = Vec::new();
    for _ in 0..args.failovers {
        all.push(one_failover(dir, args)? - TOKEN_MS as f64);
    }
    all.sort_by(f64::total_cmp);
    let list: Vec<String> = all.iter().map(|ms| format!("{ms:.0}")).collect();
    let (Some(median), Some(most)) = (list.get(list.len() / 2), list.last()) else { return Ok(()) };
    println!(
        "failover, kill -9 to the first write into the file of the dead, beyond the {TOKEN_MS} ms of silence that count as \
         death: median {median}, most {most} ms of {} ({})",
        all.len(),
        list.join(" ")
    );
    Ok(())
}

fn ours_here(dir: &Path, args: &Args) -> Result<(), String> {
    let image = dir.join("here.image");
    format(&image, 2, 32)?;
    let mut nodes = Nodes::new(&dir.join("here"), &args.programs, &image, 2, 5000)?;
    nodes.mount_all()?;
    let (mut players, running) = players_here(&nodes)?;
    measure("gfs2r on this machine", &mut players, args, lock_traffic)?;
    if args.wait {
        eprintln!("daemons {:?} {:?}; press Enter", nodes.daemon(1), nodes.daemon(2));
        std::io::stdin().read_line(&mut String::new()).map_err(|error| error.to_string())?;
    }
    drop((players, running));
    nodes.umount_all()
}

fn main() -> ExitCode {
    if let Some(end) = network::enter(WHAT) {
        return end;
    }
    let args = match arguments() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if !Path::new("/dev/fuse").exists() || !programs().join("mount.gfs2r").exists() {
        return network::skip(WHAT, "there is no /dev/fuse, or mount.gfs2r is not built in this profile");
    }
    let dir = args.dir.join(format!("gfs2r-handover-{}", std::process::id()));
    let made = std::fs::create_dir_all(&dir);
    let result = made.map_err(|error| error.to_string()).and_then(|()| rounds(&dir, &args));
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        eprintln!("{}: {error}", dir.display());
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn rounds(dir: &Path, args: &Args) -> Result<(), String> {
    let uml = Uml::find();
    for _ in 0..args.rounds {
        match &uml {
            Ok(uml) => {
                if "kernel".contains(&args.only) {
                    kernel(uml, dir, args)?;
                }
                if "guests".contains(&args.only) {
                    ours_in_guests(uml, dir, args)?;
                }
            }
            Err(why) => eprintln!("SKIPPED: the guests: {why}"),
        }
        if "here".contains(&args.only) {
            ours_here(dir, args)?;
        }
    }
    if "failover".contains(&args.only) { failovers(dir, args) } else { Ok(()) }
}
