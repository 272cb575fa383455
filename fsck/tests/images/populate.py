"""Fills the GFS2 mounted at /mnt/gfs with one of everything, for the images beside this file. The data compresses well.

Run inside a kernel that knows GFS2 (mount -t gfs2 -o acl,quota=on). With the argument "dirty" some work follows that is
committed and not written in place: stop the machine then.
"""
import os, subprocess, sys, time

os.chdir('/mnt/gfs')
# Names whose hashes have the same 17 top bits: they overflow one leaf whatever the size of the table.
SAME = 'c13527 c158231 c185835 c290994 c463503 c508155 c716952 c867815 c998909 c1091596 c1147634 c1252795 c1384437 c1517550 c1662901 c1740219 c1913846 c2082969 c2208424 c2363072'.split()


def data(n, seed=0):
    return b''.join(b'%015d\n' % (i + seed) for i in range(n // 16 + 1))[:n]


def put(path, content, offset=0):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, content, offset)
    os.close(fd)


for d in ['a/b/c/d', 'deep/er/down', 'empty', 'big', 'same']:
    os.makedirs(d)
big = ['name-%d-%s' % (i, 'x' * (i % 60)) for i in range(600)]
for i, name in enumerate(big):
    put('big/' + name, b'' if i % 5 else b'contents %d' % i)
for name in big[::3]:
    os.unlink('big/' + name)
for name in SAME:
    put('same/' + name, name.encode())
put('a/hello', b'hello\n')
os.link('a/hello', 'a/b/hello2')
os.symlink('../hello', 'a/b/link')
os.symlink('y' * 200, 'a/longlink')
os.mkfifo('a/fifo')
os.mknod('a/chr', 0o20644, os.makedev(5, 1))
os.mknod('a/blk', 0o60644, os.makedev(8, 3))
put('a/data', data(777000))
put('a/sparse', data(3000), 102400000)
put('a/sparse', data(1000), 3072000000)
put('a/cut', data(1228800))
os.truncate('a/cut', 123457)
put('a/prealloc', b'x')
subprocess.check_call(['fallocate', '-n', '-l', '300000', 'a/prealloc'])
put('a/jdata', b'')
subprocess.check_call(['chattr', '+j', 'a/jdata'])
put('a/jdata', bytes.fromhex('01161970') + data(80000))
for f in ['hello', 'data']:
    os.setxattr('a/' + f, 'user.small', b'value')
    os.setxattr('a/' + f, 'security.foo', b'bar')
os.setxattr('a/data', 'user.big', b'q' * 9000)
for i in range(60):
    os.setxattr('a/cut', 'user.attr-number-%d' % i, b'z' * (i * 7))
for i in range(0, 60, 4):
    os.removexattr('a/cut', 'user.attr-number-%d' % i)
os.setxattr('a/cut', 'trusted.t', b'tv')
subprocess.check_call(['setfacl', '-m', 'u:1000:rw,g:1001:r', 'a/hello'])
subprocess.check_call(['setfacl', '-d', '-m', 'u:1000:rwx', 'a/b'])
put('a/b/inherits', b'')
os.mkdir('a/b/subinherits')
os.chown('a/data', 1000, 1001)
os.mkdir('ren')
os.mkdir('ren/x')
put('ren/f', b'f')
os.rename('ren/x', 'a/b/moved')
os.rename('ren/f', 'a/b/c/renamed')
subprocess.check_call(['rm', '-rf', 'deep'])
os.rmdir('empty')

if sys.argv[1:] == ['dirty']:
    os.sync()
    time.sleep(1)
    for i in range(40):
        put('a/b/new-%d' % i, data(5000 * (i % 4), i))
        put('a/jdata', bytes.fromhex('01161970') + data(4000, i), 4096 * (i % 20))
        if i % 4 == 0:
            fd = os.open('a/b', os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    for i in range(0, 40, 3):
        os.unlink('a/b/new-%d' % i)
    subprocess.check_call(['rm', '-rf', 'same'])
    os.setxattr('a/data', 'user.big', b'r' * 7000)
    os.truncate('a/data', 1000)
    os.chown('a/cut', 1000, 1001)
    orphan = os.open('a/b/c/orphan', os.O_RDWR | os.O_CREAT)
    os.pwrite(orphan, data(100000), 0)
    os.unlink('a/b/c/orphan')
    put('a/last', data(100))
    fd = os.open('a/last', os.O_RDWR)
    os.fsync(fd)
    print('work is done', flush=True)
    time.sleep(1000)
