//! flock, POSIX record locks, open file description locks.

use crate::harness::*;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

fn lock_ofd(f: &File, kind: i32, start: i64, len: i64) -> Result<(), nix::errno::Errno> {
    fcntl(f, FcntlArg::F_OFD_SETLK(&range(kind, start, len))).map(|_| ())
}

fn again(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("open")
}

pub fn run(t: &T) {
    let path = t.dir().join("f");
    file(&path, 0o644);
    let (a, b) = (again(&path), again(&path));
    t.ok("flock", flock(&a, FlockOperation::NonBlockingLockExclusive));
    t.err("a second one", flock(&b, FlockOperation::NonBlockingLockExclusive), Errno::AGAIN);
    t.err("a shared one", flock(&b, FlockOperation::NonBlockingLockShared), Errno::AGAIN);
    t.ok("downgrade", flock(&a, FlockOperation::NonBlockingLockShared));
    t.ok("both share", flock(&b, FlockOperation::NonBlockingLockShared));
    t.ok("unlock", flock(&a, FlockOperation::Unlock));
    t.ok("upgrade", flock(&b, FlockOperation::NonBlockingLockExclusive));
    let waiter = {
        let a = a.try_clone().expect("clone");
        std::thread::spawn(move || flock(&a, FlockOperation::LockExclusive))
    };
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop(b);
    t.ok("waiting ends when the other closes", waiter.join().expect("ends"));
    t.ok("unlock", flock(&a, FlockOperation::Unlock));

    let c = again(&path);
    t.ok("OFD lock", lock_ofd(&a, libc::F_WRLCK, 0, 100));
    t.eq("overlapping", lock_ofd(&c, libc::F_WRLCK, 50, 100), Err(nix::errno::Errno::EAGAIN));
    t.eq("reading", lock_ofd(&c, libc::F_RDLCK, 0, 1), Err(nix::errno::Errno::EAGAIN));
    t.ok("beside", lock_ofd(&c, libc::F_WRLCK, 100, 100));
    t.ok("unlock a part", lock_ofd(&a, libc::F_UNLCK, 50, 50));
    t.ok("which is free now", lock_ofd(&c, libc::F_WRLCK, 50, 50));
    let mut found = range(libc::F_WRLCK, 0, 0);
    t.ok("GETLK", fcntl(&c, FcntlArg::F_OFD_GETLK(&mut found)));
    t.eq("finds the other's", (found.l_type as i32, found.l_start, found.l_len), (libc::F_WRLCK, 0, 50));
    drop(a);
    t.ok("closing frees", lock_ofd(&c, libc::F_WRLCK, 0, 0));

    // POSIX locks belong to processes: another one must be refused.
    let d = again(&path);
    drop(c);
    t.ok("POSIX lock", fcntl(&d, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 10, 10))));
    t.ok("one's own does not hinder", fcntl(&d, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 0, 100))));
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+b')\ntry: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,5,15)\n\
                  except OSError as e: sys.exit(7)\n";
    let other =
        std::process::Command::new("timeout").args(["-s", "KILL", "20", "python3", "-c", script]).arg(&path).status();
    match other.expect("timeout runs").code() {
        Some(127) => println!("SKIPPED: locks of another process (no python3)"),
        code => t.eq("another process is refused", code, Some(7)),
    }
}
