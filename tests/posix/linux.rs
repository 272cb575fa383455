//! What Linux does beyond POSIX: setgid of outsiders, block counts, file handles, labels, trimming, writes through mappings.

use crate::harness::*;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub fn run(t: &T) {
    setgid_of_outsiders(t);
    block_counts(t);
    dates(t);
    handles(t);
    ioctls(t);
    mappings(t);
}

/// Whoever changes a file whose group they are not in takes setgid away, also where the group may not execute it.
fn setgid_of_outsiders(t: &T) {
    let d = t.dir_with(0o777);
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 5] = [
        ("write", |p| open(p, OFlags::WRONLY, 0).expect("open").write_all_at(b"x", 0).expect("write")),
        ("truncate", |p| open(p, OFlags::WRONLY, 0).expect("open").set_len(3).expect("truncate")),
        ("O_TRUNC", |p| drop(open(p, OFlags::WRONLY | OFlags::TRUNC, 0).expect("open"))),
        ("fallocate", |p| {
            fallocate(open(p, OFlags::WRONLY, 0).expect("open"), FallocateFlags::empty(), 0, 9000).expect("fallocate");
        }),
        ("chown", |p| chown(p, Some(USER), None).expect("chown")),
    ];
    for (what, change) in changes {
        let p = d.join(what);
        fs::write(&p, b"0123456789").expect("write");
        for (gid, mode, wanted) in
            [(OTHER, 0o2666, 0o666), (USER, 0o2666, 0o2666), (USER, 0o6676, 0o676), (OTHER, 0o6777, 0o777)]
        {
            chown(&p, Some(USER), Some(gid)).expect("chown");
            chmod(&p, mode).expect("chmod");
            as_user(USER, USER, || change(&p));
            t.eq(&format!("mode {mode:o} of group {gid} after {what}"), perm(&p), wanted);
        }
    }
}

/// The number of blocks follows while a file is open.
fn block_counts(t: &T) {
    let p = t.dir().join("f");
    let f = create(&p, 0o644).expect("create");
    let blocks = || rustix::fs::fstat(&f).expect("fstat").st_blocks;
    for n in 1..=3 {
        f.write_all_at(&vec![1; 1 << 20], (n - 1) << 20).expect("write");
        f.sync_all().expect("fsync");
        t.yes(&format!("{n} MiB have their blocks after fsync: {}", blocks()), blocks() >= 2048 * n as i64);
    }
    f.set_len(0).expect("ftruncate");
    t.yes("none are left after ftruncate", blocks() < 64);
}

/// What a program sees of times right after its write stays so when the kernel writes the pages later.
fn dates(t: &T) {
    let d = t.dir();
    let times = |p: &Path| {
        let st = stat(p);
        (st.st_mtime, st.st_mtime_nsec, st.st_ctime, st.st_ctime_nsec)
    };
    for n in 0..20 {
        let p = d.join(format!("f{n}"));
        let f = create(&p, 0o644).expect("create");
        f.write_all_at(&[n; 9000], 0).expect("write");
        let before = times(&p);
        std::thread::sleep(std::time::Duration::from_millis(7));
        f.sync_all().expect("fsync");
        drop(f);
        t.eq("times after fsync and close", times(&p), before);
    }
}

#[track_caller]
fn python(t: &T, what: &str, script: &str, path: &Path) {
    let mut python = std::process::Command::new("timeout");
    python.args(["-s", "KILL", "60", "python3", "-c", script]).arg(path);
    match python.output() {
        Ok(out) if out.status.code() == Some(127) => println!("SKIPPED: {what} (no python3)"),
        Ok(out) => t.yes(&format!("{what}: {}", String::from_utf8_lossy(&out.stderr)), out.status.success()),
        Err(e) => t.yes(&format!("python3: {e}"), false),
    }
}

/// open_by_handle_at(2), also when the kernel has forgotten the inode; stale and forged handles.
fn handles(t: &T) {
    let script = r"
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
d = sys.argv[1]
def handle(p):
    h = ctypes.create_string_buffer(8 + 128)
    struct.pack_into('Ii', h, 0, 128, 0)
    assert libc.name_to_handle_at(-100, p.encode(), h, ctypes.byref(ctypes.c_int()), 0) == 0, p
    return h
def opened(h, flags=os.O_RDONLY):
    fd = libc.open_by_handle_at(root, h, flags)
    return fd if fd >= 0 else -ctypes.get_errno()
def forget():
    open('/proc/sys/vm/drop_caches', 'w').write('2\n')
root = os.open(d, os.O_RDONLY)
os.makedirs(d + '/a/b')
hs = {}
for n in range(20):
    with open(f'{d}/a/b/{n}', 'w') as f: f.write(str(n))
    hs[n] = handle(f'{d}/a/b/{n}')
dir = handle(d + '/a/b')
for n in range(0, 20, 4): os.unlink(f'{d}/a/b/{n}')
forget()
for n, h in hs.items():
    fd = opened(h)
    if n % 4 == 0: assert fd == -errno.ESTALE, (n, fd)
    else: assert fd >= 0 and os.read(fd, 9) == str(n).encode(), (n, fd); os.close(fd)
fd = opened(dir, os.O_RDONLY | os.O_DIRECTORY)
assert sorted(os.listdir(fd)) == sorted(str(n) for n in range(20) if n % 4), fd
os.close(fd)
forged = ctypes.create_string_buffer(hs[1].raw)
for address in list(range(1, 600)) + [1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]:
    struct.pack_into('Q', forged, 8, address)
    fd = opened(forged)
    if fd >= 0: os.close(fd)
    else: assert fd == -errno.ESTALE, (address, fd)
with open(d + '/alive', 'w') as f: f.write('still')
";
    python(t, "file handles", script, &t.dir());
}

/// FS_IOC_GETFSLABEL shows the lock table; FITRIM refuses ranges that make no sense.
fn ioctls(t: &T) {
    let script = r"
import errno, fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
label = bytearray(256)
fcntl.ioctl(fd, 0x81009431, label)
def trim(*range):
    b = bytearray(struct.pack('QQQ', *range))
    try: fcntl.ioctl(fd, 0xC0185879, b)
    except OSError as e: return -e.errno
    return struct.unpack('QQQ', b)[1]
all = (1 << 64) - 1
assert trim(0, all, 0) >= 0
assert trim(1 << 50, 1 << 20, 0) == -errno.EINVAL, 'behind the end'
assert trim(0, 100, 0) == -errno.EINVAL, 'less than a block'
assert trim(0, all, 1 << 50) == -errno.EINVAL, 'longer than any group'
";
    python(t, "ioctls", script, &t.dir());
}

/// What mappings change: times, size limits, the end of the file, contents side by side with write(2) and O_DIRECT.
fn mappings(t: &T) {
    let script = r"
import mmap, os, random, sys, time
d = sys.argv[1]
def times(p): s = os.stat(p); return s.st_mtime_ns, s.st_ctime_ns
p = d + '/times'
with open(p, 'wb') as f: f.write(b'a' * 8192)
before = times(p); time.sleep(.02)
fd = os.open(p, os.O_RDWR)
m = mmap.mmap(fd, 8192); m[5000] = 1; m.close(); os.close(fd)
after = times(p)
assert after[0] > before[0] and after[1] > before[1], 'a write through a mapping changes mtime and ctime'
# Data that only a mapping has written is found by SEEK_DATA, also when its file was closed since.
fd = os.open(d + '/hole', os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20); os.close(fd); m[40960] = 7
r = os.open(d + '/hole', os.O_RDONLY)
assert os.lseek(r, 0, os.SEEK_DATA) == 40960
m.close()
# A file's own pages as the buffer of direct I/O to it.
fd = os.open(d + '/own', os.O_RDWR | os.O_CREAT); os.write(fd, b'X' * 65536); os.fsync(fd)
m = mmap.mmap(fd, 65536); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
g = os.open(d + '/own', os.O_RDWR | os.O_DIRECT)
assert os.preadv(g, [m], 0) == 65536; m[0:1] = b'Y'; assert os.pwritev(g, [m], 0) == 65536
m.close()
# All kinds of writing, against a copy in memory.
seed = random.randrange(1 << 30); rng = random.Random(seed)
try:
    p = d + '/mix'; fd = os.open(p, os.O_RDWR | os.O_CREAT); g = os.open(p, os.O_RDWR | os.O_DIRECT)
    MAX, model, buf = 1 << 19, bytearray(), mmap.mmap(-1, 1 << 17)
    def put(at, b): model.extend(bytes(max(0, at + len(b) - len(model)))); model[at:at + len(b)] = b
    for n in range(1200):
        kind, at, size = rng.randrange(6), rng.randrange(MAX), rng.randrange(1, 60000)
        if kind == 0: b = rng.randbytes(size); os.pwrite(fd, b, at); put(at, b)
        elif kind == 1:
            at, size = at & -4096, (size & -4096) + 4096; b = rng.randbytes(size); buf[:size] = b
            assert os.pwritev(g, [memoryview(buf)[:size]], at) == size; put(at, b)
        elif kind == 2:
            at, size = at & -4096, (size & -4096) + 4096
            x = os.preadv(g, [memoryview(buf)[:size]], at); assert buf[:x] == model[at:at + size], n
        elif kind == 3: os.ftruncate(fd, at); del model[at:]; model.extend(bytes(at - len(model)))
        elif kind == 4: assert os.pread(fd, size, at) == model[at:at + size], n
        elif len(model) > 8192:
            m = mmap.mmap(fd, len(model)); at %= len(model); b = rng.randbytes(min(size, len(model) - at))
            assert m[at:at + len(b)] == model[at:at + len(b)], n
            m[at:at + len(b)] = b; put(at, b); m.close()
        assert os.fstat(fd).st_size == len(model), n
    with open(p, 'rb') as f: assert f.read() == model
except AssertionError as e:
    raise AssertionError(f'seed {seed}: {e}')
";
    python(t, "mappings", script, &t.dir());
}
