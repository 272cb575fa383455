//! Two nodes of one volume in this process, mounted with FUSE, and programs that use both: what one does the other sees, through
//! caches, mappings, names and locks (docs/fuse: the rules O1-O8, D1-D8 and A1-A4). Needs root and python3, and says so loudly where
//! it cannot run. `cargo test --release --test coherence hand_overs -- --nocapture` prints what passing a file to and fro costs.

#[path = "coherence/hall.rs"]
mod hall;
#[path = "coherence/rig.rs"]
mod rig;
#[path = "support/mod.rs"]
mod support;

use rig::{Program, Rig};
use std::time::Instant;

/// The programs, and what they say to a line.
struct Pair {
    rig: Rig,
    on: [Program; 2],
}

impl Pair {
    fn new() -> Option<Self> {
        let rig = Rig::new()?;
        let mut on = [rig.program(), rig.program()];
        for (n, program) in on.iter_mut().enumerate() {
            let at = rig.path(n, "");
            assert_eq!(rig.ask(program, &format!("M = {at}")), "None");
        }
        Some(Self { rig, on })
    }
    /// `line` on a node; `M` is its mount with a slash behind.
    fn ask(&mut self, node: usize, line: &str) -> String {
        self.rig.ask(&mut self.on[node], line)
    }
    #[track_caller]
    fn is(&mut self, node: usize, line: &str, expected: &str) {
        assert_eq!(self.ask(node, line), expected, "node {node}: {line}");
    }
    fn finish(self) {
        drop(self.on);
        self.rig.finish();
    }
}

/// Operations as logged: (began, ended, value).
fn log(path: &std::path::Path) -> Vec<(u64, u64, u64)> {
    let text = std::fs::read_to_string(path).expect("a log");
    let parse = |line: &str| {
        let mut words = line.split(' ').map(|w| w.parse().expect("a number"));
        (words.next().expect("began"), words.next().expect("ended"), words.next().expect("a value"))
    };
    text.lines().map(parse).collect()
}

/// One writer: a read sees at least what was written before it began, and nothing that was begun after it ended.
fn stale_reads(writes: &[(u64, u64, u64)], reads: &[(u64, u64, u64)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for &(began, ended, value) in reads {
        let least = writes[..writes.partition_point(|w| w.1 <= began)].last().map_or(0, |w| w.2);
        let most = writes[..writes.partition_point(|w| w.0 <= ended)].last().map_or(0, |w| w.2);
        if value < least || value > most {
            wrong.push(format!("{value}, not in {least}..={most}, at {began}"));
        }
    }
    wrong
}

/// Rules O1-O5, O7: one page, written on one node and read on the other in every way.
#[test]
fn registers() {
    let Some(mut pair) = Pair::new() else { return };
    let (writing, reading) = (pair.rig.outside("writes"), pair.rig.outside("reads"));
    let mut failures = Vec::new();
    for (n, write) in ["wo", "rw", "mmap"].iter().enumerate() {
        for read in ["ro", "rw", "mmap-ro", "mmap"] {
            let (writer, reader) = (n % 2, 1 - n % 2);
            pair.is(0, "f = open(M + 'reg', 'wb').write(bytes(4096))", "None");
            pair.on[writer].start(&format!("writes(M + 'reg', '{write}', 0.8, 1, 1, {writing:?})"));
            pair.on[reader].start(&format!("reads(M + 'reg', '{read}', 0.8, {reading:?})"));
            let said = [pair.rig.answer(&mut pair.on[0]), pair.rig.answer(&mut pair.on[1])];
            assert!(said.iter().all(|s| s.parse::<u64>().is_ok()), "{write}, {read}: {said:?}");
            let (writes, reads) = (log(&writing), log(&reading));
            let mut seen: Vec<u64> = reads.iter().map(|r| r.2).collect();
            seen.dedup();
            let wrong = stale_reads(&writes, &reads);
            let (seen, first) = (seen.len(), wrong.first());
            println!(
                "{write:5} {read:8}: {} writes, {} reads, {seen} values, {} stale",
                writes.len(),
                reads.len(),
                wrong.len()
            );
            if let Some(first) = first {
                failures.push(format!("{write}, {read}: {} stale reads, first {first}", wrong.len()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    pair.finish();
}

/// The same with both on one node, past its page cache and through it, while the other node reads too.
#[test]
fn registers_on_one_node() {
    let Some(mut pair) = Pair::new() else { return };
    let mut third = pair.rig.program();
    let logs: Vec<_> = ["writes", "near", "far"].iter().map(|n| pair.rig.outside(n)).collect();
    let (near, mut failures) = (pair.rig.path(0, "reg"), Vec::new());
    for write in ["wo", "rw", "mmap"] {
        for read in ["ro", "rw", "mmap-ro", "mmap"] {
            pair.is(0, "f = open(M + 'reg', 'wb').write(bytes(4096))", "None");
            third.start(&format!("reads({near}, '{read}', 0.6, {:?})", logs[1]));
            pair.on[0].start(&format!("writes(M + 'reg', '{write}', 0.6, 1, 1, {:?})", logs[0]));
            pair.on[1].start(&format!("reads(M + 'reg', 'ro', 0.5, {:?})", logs[2]));
            let mut said = vec![pair.rig.answer(&mut third)];
            said.extend(pair.on.iter_mut().map(|p| pair.rig.answer(p)));
            assert!(said.iter().all(|s| s.parse::<u64>().is_ok()), "{write}, {read}: {said:?}");
            let writes = log(&logs[0]);
            let wrong = [stale_reads(&writes, &log(&logs[1])), stale_reads(&writes, &log(&logs[2]))];
            println!("{write:5} {read:8}: {said:?} stale {} {}", wrong[0].len(), wrong[1].len());
            for (who, wrong) in ["near", "far"].iter().zip(&wrong) {
                if let Some(first) = wrong.first() {
                    failures.push(format!("{write}, {read}, {who}: {} stale reads, first {first}", wrong.len()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    drop(third);
    pair.finish();
}

/// What was written is in the mappings of the same node at once, however many fault the page in meanwhile.
#[test]
fn mappings_of_the_writers_node() {
    let Some(mut pair) = Pair::new() else { return };
    pair.is(0, "open(M + 'reg', 'wb').write(bytes(4096))", "4096");
    let mut others = [pair.rig.program(), pair.rig.program()];
    let path = pair.rig.path(0, "reg");
    for other in &mut others {
        other.start(&format!("stares({path}, 2)"));
    }
    pair.is(0, "checks(M + 'reg', 1.5)", "(0, True)");
    for other in &mut others {
        pair.rig.answer(other);
    }
    drop(others);
    pair.finish();
}

/// Rule O6.
#[test]
fn appends() {
    let Some(mut pair) = Pair::new() else { return };
    for round in 0..3 {
        let (mut others, file) = ([pair.rig.program(), pair.rig.program()], format!("log{round}"));
        for (n, other) in others.iter_mut().enumerate() {
            let path = pair.rig.path(n, &file);
            pair.on[n].start(&format!("appends({path}, {}, 300, 111)", b'a' + n as u8));
            other.start(&format!("appends({path}, {}, 300, 111)", b'c' + n as u8));
        }
        for program in pair.on.iter_mut().chain(&mut others) {
            assert_eq!(pair.rig.answer(program), "300");
        }
        for n in [0, 1] {
            pair.is(n, &format!("appended(M + '{file}', 111)"), "[('a', 300), ('b', 300), ('c', 300), ('d', 300)]");
        }
    }
    pair.finish();
}

/// Locks of every kind guard what is done through files and through mappings.
#[test]
fn counters() {
    let Some(mut pair) = Pair::new() else { return };
    for kind in ["flock", "fcntl", "ofd"] {
        for how in ["rw", "mmap"] {
            // Byte-range locks of a mount without a cluster's are this node's alone.
            let nodes: &[usize] = if kind == "flock" { &[0, 1] } else { &[0] };
            pair.is(0, "open(M + 'count', 'wb').write(bytes(4096))", "4096");
            let mut others: Vec<(usize, Program)> = nodes.iter().map(|n| (*n, pair.rig.program())).collect();
            for (n, other) in &mut others {
                let line = format!("counts({}, '{kind}', '{how}', 60)", pair.rig.path(*n, "count"));
                other.start(&line);
                pair.on[*n].start(&line);
            }
            for (n, other) in &mut others {
                assert_eq!((pair.rig.answer(other), pair.rig.answer(&mut pair.on[*n])), ("60".into(), "60".into()));
            }
            let sum = 120 * nodes.len();
            for n in [0, 1] {
                pair.is(n, "Register(M + 'count', 'ro').get()", &sum.to_string());
            }
        }
    }
    pair.finish();
}

/// Under a lock every change of a file, however made, is seen however it is looked at.
#[test]
fn a_file_under_a_lock() {
    let Some(mut pair) = Pair::new() else { return };
    let expect = pair.rig.outside("expect");
    std::fs::write(&expect, b"").expect("a file");
    pair.is(0, "[open(M + n, 'wb').close() for n in ('file', 'lock')]", "[None, None]");
    let mut others = [pair.rig.program(), pair.rig.program()];
    let seed = std::process::id();
    println!("seed {seed}");
    for (n, other) in others.iter_mut().enumerate() {
        let (file, lock) = (pair.rig.path(n, "file"), pair.rig.path(n, "lock"));
        let line = |seed: u32| format!("model({file}, {lock}, {expect:?}, 8, {seed})");
        pair.on[n].start(&line(seed + n as u32));
        other.start(&line(seed + 10 + n as u32));
    }
    let said: Vec<String> = pair.on.iter_mut().chain(&mut others).map(|p| pair.rig.answer(p)).collect();
    println!("rounds {said:?}");
    assert!(said.iter().all(|s| s.parse::<u64>().is_ok_and(|n| n > 0)), "{said:?}");
    drop(others);
    pair.finish();
}

/// Names and attributes, step by step: TTL 0, A1-A4.
#[test]
fn names_and_attributes() {
    let Some(mut pair) = Pair::new() else { return };
    for (a, b) in [(0, 1), (1, 0)] {
        pair.is(b, "os.path.exists(M + 'x')", "False");
        pair.is(a, "open(M + 'x', 'wb').write(b'12345')", "5");
        pair.is(b, "(os.stat(M + 'x').st_size, open(M + 'x', 'rb').read())", "(5, b'12345')");
        pair.is(b, "os.chmod(M + 'x', 0o640)", "None");
        pair.is(a, "oct(os.stat(M + 'x').st_mode)", "'0o100640'");
        pair.is(a, "fd = os.open(M + 'x', os.O_RDONLY)", "None");
        pair.is(b, "open(M + 'x', 'ab').write(b'678')", "3");
        pair.is(a, "(os.fstat(fd).st_size, os.pread(fd, 100, 0))", "(8, b'12345678')");
        pair.is(b, "os.truncate(M + 'x', 2)", "None");
        pair.is(a, "(os.fstat(fd).st_size, os.pread(fd, 100, 0))", "(2, b'12')");
        pair.is(b, "(os.setxattr(M + 'x', 'user.u', b'v'), os.link(M + 'x', M + 'y'))", "(None, None)");
        pair.is(a, "(os.getxattr(M + 'x', 'user.u'), os.fstat(fd).st_nlink)", "(b'v', 2)");
        pair.is(b, "open(M + 'new', 'wb').write(b'new')", "3");
        pair.is(b, "os.rename(M + 'new', M + 'x')", "None");
        pair.is(a, "(open(M + 'x').read(), os.fstat(fd).st_nlink, os.pread(fd, 9, 0))", "('new', 1, b'12')");
        pair.is(b, "(os.unlink(M + 'x'), os.unlink(M + 'y'))", "(None, None)");
        pair.is(a, "os.listdir(M)", "[]");
        pair.is(a, "(os.fstat(fd).st_nlink, os.pread(fd, 9, 0), os.close(fd))", "(0, b'12', None)");
        pair.is(a, "os.stat(M + 'x')", "ENOENT");
        pair.is(a, "os.makedirs(M + 'd/e/f')", "None");
        pair.is(b, "(os.listdir(M + 'd/e'), os.rename(M + 'd/e/f', M + 'g'))", "(['f'], None)");
        pair.is(a, "(os.path.exists(M + 'd/e/f'), os.rmdir(M + 'g'), os.removedirs(M + 'd/e'))", "(False, None, None)");
        pair.is(b, "os.listdir(M)", "[]");
        // O_CREAT of a name that has just come to be.
        pair.is(a, "os.path.exists(M + 'z')", "False");
        pair.is(b, "os.close(os.open(M + 'z', os.O_CREAT | os.O_EXCL))", "None");
        pair.is(a, "os.open(M + 'z', os.O_CREAT | os.O_EXCL)", "EEXIST");
        pair.is(a, "(os.close(os.open(M + 'z', os.O_CREAT | os.O_RDWR)), os.unlink(M + 'z'))", "(None, None)");
    }
    pair.finish();
}

/// A mapping and a file, step by step: O4, O5, and what the drain of a mapping brings back.
#[test]
fn mappings() {
    let Some(mut pair) = Pair::new() else { return };
    for (a, b) in [(0, 1), (1, 0)] {
        pair.is(a, "open(M + 'm', 'wb').write(b'0' * 9000)", "9000");
        // Pages from before the first one that maps.
        pair.is(b, "r = open(M + 'm', 'rb')", "None");
        pair.is(b, "view = mmap.mmap(r.fileno(), 9000, prot=mmap.PROT_READ)", "None");
        pair.is(b, "(view[:1], view[5000:5001], view[8999:])", "(b'0', b'0', b'0')");
        pair.is(a, "os.pread(os.open(M + 'm', os.O_RDONLY), 1, 5000)", "b'0'");
        pair.is(b, "f = open(M + 'm', 'r+b')", "None");
        pair.is(b, "m = mmap.mmap(f.fileno(), 9000)", "None");
        for n in 1..6 {
            pair.is(b, &format!("m[5000:5001] = b'{n}'"), "None");
            pair.is(a, "os.pread(os.open(M + 'm', os.O_RDONLY), 1, 5000)", &format!("b'{n}'"));
            pair.is(a, &format!("os.pwrite(os.open(M + 'm', os.O_WRONLY), b'{n}{n}', 5000)"), "2");
            pair.is(b, "(m[5000:5003], view[5000:5003])", &format!("(b'{n}{n}0', b'{n}{n}0')"));
        }
        pair.is(b, "(m.close(), f.close(), view.close(), r.close())", "(None, None, None, None)");
        pair.is(a, "os.unlink(M + 'm')", "None");
    }
    pair.finish();
}

/// Locks: who may have one, what ends one, and that a program that waits for one can be interrupted.
#[test]
fn file_locks() {
    let Some(mut pair) = Pair::new() else { return };
    pair.is(0, "open(M + 'l', 'wb').close()", "None");
    for n in [0, 1] {
        pair.is(n, "fd = os.open(M + 'l', os.O_RDWR)", "None");
        pair.is(n, "signal.signal(signal.SIGALRM, lambda *_: 1 / 0)", "<Handlers.SIG_DFL: 0>");
        pair.is(n, "EX, SH, UN, NB = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_NB", "None");
    }
    pair.is(0, "fcntl.flock(fd, SH)", "None");
    pair.is(1, "fcntl.flock(fd, SH | NB)", "None");
    pair.is(1, "fcntl.flock(fd, EX | NB)", "EAGAIN");
    pair.is(0, "fcntl.flock(fd, EX)", "None");
    pair.is(1, "fcntl.flock(fd, SH | NB)", "EAGAIN");
    // Interrupted, three times.
    for _ in 0..3 {
        let said = pair.ask(1, "(signal.setitimer(signal.ITIMER_REAL, 0.1), fcntl.flock(fd, EX))");
        assert!(said.starts_with("! ZeroDivisionError"), "{said}");
    }
    // Whoever waits gets it when it is free.
    pair.on[1].start("fcntl.flock(fd, EX)");
    std::thread::sleep(std::time::Duration::from_millis(100));
    pair.is(0, "fcntl.flock(fd, UN)", "None");
    assert_eq!(pair.rig.answer(&mut pair.on[1]), "None");
    pair.is(0, "fcntl.flock(fd, SH | NB)", "EAGAIN");
    pair.is(1, "os.close(fd)", "None");
    pair.is(0, "fcntl.flock(fd, EX | NB)", "None");
    // A killed waiter waits no more.
    let mut third = pair.rig.program();
    let path = pair.rig.path(1, "l");
    pair.rig.ask(&mut third, &format!("fd = os.open({path}, os.O_RDWR)"));
    third.start("fcntl.flock(fd, fcntl.LOCK_EX)");
    std::thread::sleep(std::time::Duration::from_millis(50));
    drop(third);
    pair.is(0, "os.close(fd)", "None");
    pair.is(1, "fd = os.open(M + 'l', os.O_RDWR)", "None");
    pair.is(1, "fcntl.flock(fd, EX | NB)", "None");
    pair.finish();
}

/// Byte ranges between processes of one node: who may lock, who is named, what ends a lock.
#[test]
fn byte_ranges() {
    let Some(mut pair) = Pair::new() else { return };
    let mut other = pair.rig.program();
    let path = pair.rig.path(0, "r");
    pair.is(0, "open(M + 'r', 'wb').write(bytes(100))", "100");
    let set_up = format!("fd = os.open({path}, os.O_RDWR); EX, UN, NB = fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB");
    pair.is(0, &set_up, "None");
    assert_eq!(pair.rig.ask(&mut other, &set_up), "None");
    pair.is(0, "fcntl.lockf(fd, EX | NB, 10, 5)", "None");
    for (line, expected) in [
        ("fcntl.lockf(fd, EX | NB, 5, 0)", "None"),
        ("fcntl.lockf(fd, EX | NB, 1, 14)", "EAGAIN"),
        // F_GETLK: a write lock from 5 on, 10 bytes.
        (
            "struct.unpack('hhqqi', fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi', 1, 0, 0, 0, 0)))[:4]",
            "(1, 0, 5, 10)",
        ),
        ("signal.signal(signal.SIGALRM, lambda *_: 1 / 0)", "<Handlers.SIG_DFL: 0>"),
        ("(signal.setitimer(signal.ITIMER_REAL, 0.1), fcntl.lockf(fd, EX))", "! ZeroDivisionError: division by zero"),
    ] {
        assert_eq!(pair.rig.ask(&mut other, line), expected, "{line}");
    }
    other.start("fcntl.lockf(fd, EX)");
    std::thread::sleep(std::time::Duration::from_millis(50));
    // Any close of the file ends the process's locks.
    pair.is(0, &format!("os.close(os.open({path}, os.O_RDONLY))"), "None");
    assert_eq!(pair.rig.answer(&mut other), "None");
    pair.is(0, "fcntl.lockf(fd, EX | NB)", "EAGAIN");
    drop(other);
    pair.is(0, "fcntl.lockf(fd, EX)", "None");
    pair.is(0, "fcntl.lockf(fd, UN)", "None");
    // An open file as the owner.
    pair.is(0, "fcntl.fcntl(fd, 37, struct.pack('hhqqi', 1, 0, 0, 0, 0)) and 1", "1");
    pair.is(0, "fcntl.lockf(os.open(M + 'r', os.O_RDWR), EX | NB)", "EAGAIN");
    pair.is(0, "os.close(fd)", "None");
    pair.is(0, "time.sleep(0.05)", "None");
    pair.is(0, "fcntl.lockf(os.open(M + 'r', os.O_RDWR), EX | NB)", "None");
    pair.finish();
}

/// Rules D1-D5: a file whose pages are dirtied, faulted in and written back while its size changes, on both nodes.
#[test]
fn drains_wait_for_nobody_who_waits() {
    let Some(mut pair) = Pair::new() else { return };
    pair.is(0, "open(M + 'f', 'wb').write(bytes(100000))", "100000");
    let jobs =
        [(0, "dirty"), (0, "size"), (0, "fault"), (0, "fault"), (1, "look"), (1, "dirty"), (1, "write"), (1, "fault")];
    let mut programs: Vec<Program> = jobs.iter().map(|_| pair.rig.program()).collect();
    for ((node, how), program) in jobs.iter().zip(&mut programs) {
        program.start(&format!("shakes({}, '{how}', 4)", pair.rig.path(*node, "f")));
    }
    let said: Vec<String> = programs.iter_mut().map(|p| pair.rig.answer(p)).collect();
    println!("{jobs:?}: {said:?}, {} hand-overs", pair.rig.handed_over());
    assert!(said.iter().all(|s| s.parse::<u64>().is_ok_and(|n| n > 0)), "{said:?}");
    drop(programs);
    pair.finish();
}

/// Anything at once from four programs: nothing hangs, and the disk is in order afterwards.
#[test]
fn anything_at_once() {
    let Some(mut pair) = Pair::new() else { return };
    let mut others = [pair.rig.program(), pair.rig.program()];
    let seed = std::process::id();
    println!("seed {seed}");
    for (n, other) in others.iter_mut().enumerate() {
        let root = pair.rig.path(n, "");
        pair.on[n].start(&format!("mix({root}, 10, {})", seed + n as u32));
        other.start(&format!("mix({root}, 10, {})", seed + 10 + n as u32));
    }
    let said: Vec<String> = pair.on.iter_mut().chain(&mut others).map(|p| pair.rig.answer(p)).collect();
    println!("operations {said:?}");
    assert!(said.iter().all(|s| s.parse::<u64>().is_ok_and(|n| n > 0)), "{said:?}");
    drop(others);
    pair.finish();
}

/// What it costs to pass a file to and fro: printed only.
#[test]
fn hand_overs() {
    let Some(mut pair) = Pair::new() else { return };
    pair.is(0, "open(M + 'turns', 'wb').close()", "None");
    for n in [0, 1] {
        pair.is(n, "fd = os.open(M + 'turns', os.O_WRONLY | os.O_APPEND)", "None");
    }
    let (start, before) = (Instant::now(), pair.rig.handed_over());
    const TURNS: u64 = 300;
    for _ in 0..TURNS {
        for n in [0, 1] {
            pair.is(n, "os.write(fd, b'x')", "1");
        }
    }
    let (took, passed) = (start.elapsed().as_secs_f64(), pair.rig.handed_over() - before);
    println!(
        "{:.0} appends in turn a second, {:.1} grants waited for each",
        2.0 * TURNS as f64 / took,
        passed as f64 / (2 * TURNS) as f64
    );
    pair.is(0, "os.fstat(fd).st_size", &(2 * TURNS).to_string());
    pair.finish();
}

/// Stays mounted for a while, for other tests and for looking: `GFS2R_POSIX_ON=<a mount> cargo test --release --test posix`.
#[test]
#[ignore = "only stays mounted"]
fn stay() {
    let Some(pair) = Pair::new() else { return };
    println!("{} {}", pair.rig.path(0, ""), pair.rig.path(1, ""));
    let seconds = std::env::var("STAY").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    pair.finish();
}
