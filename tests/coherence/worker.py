"""A program on one of the mounts. It runs each line it is given and prints the result; see rig.rs."""
import errno, fcntl, mmap, os, random, signal, struct, sys, time

PAGE = 4096


class Register:
    """Eight bytes at the start of a file, written and read in one way."""

    def __init__(self, path, how):
        self.how = how
        flags = {"wo": os.O_WRONLY, "ro": os.O_RDONLY, "rw": os.O_RDWR, "mmap": os.O_RDWR, "mmap-ro": os.O_RDONLY}[how]
        self.fd = os.open(path, flags)
        self.map = None
        if how == "mmap":
            self.map = mmap.mmap(self.fd, PAGE)
        if how == "mmap-ro":
            self.map = mmap.mmap(self.fd, PAGE, prot=mmap.PROT_READ)

    def set(self, n):
        if self.map is None:
            os.pwrite(self.fd, struct.pack("<Q", n), 0)
        else:
            self.map[0:8] = struct.pack("<Q", n)

    def get(self):
        return struct.unpack("<Q", os.pread(self.fd, 8, 0) if self.map is None else self.map[0:8])[0]

    def close(self):
        if self.map is not None:
            self.map.close()
        os.close(self.fd)


def writes(path, how, seconds, first, step, log):
    """Writes first, first + step, ... and logs when."""
    r, out, end, n = Register(path, how), [], time.monotonic() + seconds, first
    while time.monotonic() < end:
        before = time.monotonic_ns()
        r.set(n)
        out.append((before, time.monotonic_ns(), n))
        n += step
        if how == "mmap":
            time.sleep(0.0002)
    r.close()
    with open(log, "w") as f:
        f.writelines("%d %d %d\n" % o for o in out)
    return len(out)


def reads(path, how, seconds, log):
    """Reads and logs when what was seen."""
    r, out, end = Register(path, how), [], time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.monotonic_ns()
        n = r.get()
        out.append((before, time.monotonic_ns(), n))
        if how.startswith("mmap"):
            time.sleep(0.0001)
    r.close()
    with open(log, "w") as f:
        f.writelines("%d %d %d\n" % o for o in out)
    return len(out)


def appends(path, tag, count, size):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for n in range(count):
        record = (b"%c%07d" % (tag, n)).ljust(size - 1, b"%c" % tag) + b"\n"
        assert os.write(fd, record) == size
    os.close(fd)
    return count


def appended(path, size):
    """How many records each tag has; whole ones, in order, or an error."""
    with open(path, "rb") as f:
        data = f.read()
    assert len(data) == os.stat(path).st_size, "size %d, read %d" % (os.stat(path).st_size, len(data))
    assert len(data) % size == 0, "size %d" % len(data)
    next_of = {}
    for at in range(0, len(data), size):
        record = data[at : at + size]
        tag, n = record[0], int(record[1:8])
        assert record[8:-1] == bytes([tag]) * (size - 9) and record[-1:] == b"\n", "torn at %d: %r" % (at, record)
        assert n == next_of.get(tag, 0), "%c: %d instead of %d" % (tag, n, next_of.get(tag, 0))
        next_of[tag] = n + 1
    return sorted((chr(t), n) for t, n in next_of.items())


OFD_SETLKW = 38


class Lock:
    def __init__(self, path, kind):
        self.kind, self.fd = kind, os.open(path, os.O_RDWR)

    def change(self, how):
        if self.kind == "flock":
            fcntl.flock(self.fd, how)
        elif self.kind == "fcntl":
            fcntl.lockf(self.fd, how, 8, 0)
        else:
            kind = fcntl.F_UNLCK if how == fcntl.LOCK_UN else fcntl.F_WRLCK
            fcntl.fcntl(self.fd, OFD_SETLKW, struct.pack("hhqqi", kind, 0, 0, 8, 0))

    def __enter__(self):
        self.change(fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.change(fcntl.LOCK_UN)


def counts(path, kind, how, times):
    """Adds one so many times, under a lock of this kind."""
    r, lock = Register(path, how), Lock(path, kind)
    for _ in range(times):
        with lock:
            r.set(r.get() + 1)
    r.close()
    os.close(lock.fd)
    return times


def whole(path, how, size):
    """The contents, read in one of several ways."""
    flags = os.O_RDWR if how in ("rw", "mmap-rw") else os.O_RDONLY
    fd = os.open(path, flags)
    try:
        assert os.fstat(fd).st_size == size, "fstat %d, expected %d" % (os.fstat(fd).st_size, size)
        if how in ("ro", "rw"):
            return os.pread(fd, size + 100, 0)
        if size == 0:
            return b""
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ | (mmap.PROT_WRITE if how == "mmap-rw" else 0)) as m:
            return m[:]
    finally:
        os.close(fd)


def changed(path, r, want):
    """Changes the file and the bytes it should have."""
    how = r.choice(("pwrite", "rdwr", "mmap", "append", "truncate", "extend", "punch"))
    data = bytes([r.randrange(256)]) * r.randrange(1, 9000)
    at = r.randrange(0, 40000)
    if how in ("pwrite", "rdwr"):
        fd = os.open(path, os.O_WRONLY if how == "pwrite" else os.O_RDWR)
        os.pwrite(fd, data, at)
        want.extend(bytes(max(0, at + len(data) - len(want))))
        want[at : at + len(data)] = data
    elif how == "append":
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        want.extend(data)
    elif how in ("truncate", "extend"):
        fd = os.open(path, os.O_RDWR)
        size = r.randrange(0, len(want) + 1) if how == "truncate" else len(want) + r.randrange(1, 9000)
        os.ftruncate(fd, size)
        del want[size:]
        want.extend(bytes(size - len(want)))
    elif how == "mmap":
        fd = os.open(path, os.O_RDWR)
        if want:
            with mmap.mmap(fd, 0) as m:
                at = r.randrange(0, len(want))
                data = data[: len(want) - at]
                m[at : at + len(data)] = data
                want[at : at + len(data)] = data
    else:
        fd = os.open(path, os.O_RDWR)
        if len(want) > 2:
            os.posix_fallocate(fd, 0, len(want))
    os.close(fd)
    if len(want) > 100000:
        os.truncate(path, 1000)
        del want[1000:]
    return how


def model(path, lock, expect, seconds, seed):
    """Under a lock: the file is as the last one left it, then it is changed."""
    r, lock, rounds, end = random.Random(seed), Lock(lock, "flock"), 0, time.monotonic() + seconds
    last = "nothing"
    while time.monotonic() < end:
        with lock:
            with open(expect, "rb") as f:
                want = bytearray(f.read())
            for _ in range(2):
                how = r.choice(("ro", "rw", "mmap-ro", "mmap-rw"))
                got = whole(path, how, len(want))
                if got != want:
                    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
                    raise AssertionError(
                        "%s: %d bytes, expected %d, first difference at %d; mine before: %s; round %d"
                        % (how, len(got), len(want), at, last, rounds)
                    )
            last = changed(path, r, want)
            with open(expect, "wb") as f:
                f.write(want)
        rounds += 1
    return rounds


def shakes(path, how, seconds):
    """One thing with a file over and over, while others do other things."""
    fd = os.open(path, os.O_RDWR)
    m = mmap.mmap(fd, 16 * PAGE) if how in ("dirty", "fault") else None
    r, done, end = random.Random(seconds), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        if how == "dirty":
            m[r.randrange(16) * PAGE] = done % 251
        elif how == "fault":
            m[r.randrange(16) * PAGE + 1]
        elif how == "size":
            os.ftruncate(fd, (16 + r.randrange(16)) * PAGE)
        elif how == "look":
            os.pread(fd, PAGE, 0)
        elif how == "write":
            os.pwrite(fd, b"w", r.randrange(16) * PAGE + 2)
        done += 1
    if m is not None:
        m.close()
    os.close(fd)
    return done


def checks(path, seconds):
    """Writes past the cache and looks through a mapping at once; how often it was wrong."""
    w, r, wrong, n, end = Register(path, "wo"), Register(path, "mmap-ro"), 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        n += 1
        w.set(n)
        wrong += r.get() != n
    w.close()
    r.close()
    return (wrong, n > 100)


def stares(path, seconds):
    """Looks through a mapping without a pause."""
    r, end, done = Register(path, "mmap-ro"), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(100):
            r.get()
        done += 100
    r.close()
    return done


def mix(root, seconds, seed):
    """Anything, on few names; only for what hangs."""
    r, done, end = random.Random(seed), 0, time.monotonic() + seconds
    dirs = [os.path.join(root, d) for d in ("p", "q")]
    for d in dirs:
        os.makedirs(d, exist_ok=True)
    held = []

    def name():
        return os.path.join(r.choice(dirs), "n%d" % r.randrange(6))

    def opened(flags):
        held.append(os.open(name(), flags, 0o644))
        if len(held) > 8:
            os.close(held.pop(r.randrange(8)))
        return held[-1]

    def mapped():
        fd = opened(os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 9000)
        child = os.fork()
        if child == 0:
            # Somebody may cut the file off meanwhile: SIGBUS.
            try:
                m = mmap.mmap(fd, 9000)
                for i in range(0, 9000, 1000):
                    m[i] = i % 251
                    m[8999 - i]
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    def locked():
        fd = opened(os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)

    ops = (
        lambda: os.pread(opened(os.O_RDONLY), 9000, 0),
        lambda: os.pwrite(opened(os.O_WRONLY | os.O_CREAT), b"x" * r.randrange(9000), r.randrange(20000)),
        lambda: os.write(opened(os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"y" * 100),
        lambda: os.close(os.open(name(), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)),
        mapped,
        locked,
        lambda: os.unlink(name()),
        lambda: os.rename(name(), name()),
        lambda: os.link(name(), name()),
        lambda: os.stat(name()),
        lambda: os.chmod(name(), 0o600 | r.randrange(8)),
        lambda: os.truncate(name(), r.randrange(10000)),
        lambda: os.listdir(r.choice(dirs)),
        lambda: os.setxattr(name(), "user.a", b"v" * r.randrange(100)),
        lambda: os.fsync(r.choice(held)) if held else None,
    )
    while time.monotonic() < end:
        try:
            r.choice(ops)()
        except OSError as e:
            known = (errno.ENOENT, errno.EEXIST, errno.EAGAIN, errno.ESTALE, errno.ENODATA, errno.EBADF)
            if e.errno not in known:
                raise
        done += 1
    for fd in held:
        os.close(fd)
    return done


def main():
    for line in sys.stdin:
        try:
            try:
                result = eval(line, globals())
            except SyntaxError:
                exec(line, globals())
                result = None
            said = repr(result)
        except OSError as e:
            said = errno.errorcode.get(e.errno, str(e))
        except BaseException as e:
            said = "! %s: %s" % (type(e).__name__, e)
        print(said.replace("\n", " "), flush=True)


main()
