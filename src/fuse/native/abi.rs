//! The messages of /dev/fuse, as linux/fuse.h (UAPI) lays them out: this machine's byte order, no padding but what is named.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol we speak.
pub(super) const MAJOR: u32 = 7;
/// Its newest revision that we know; a flag decides about each feature.
pub(super) const MINOR: u32 = 40;

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

messages! {
    /// Begins every request.
    InHeader = 40 { len: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32, ext_len: u16, padding: u16 }
    /// Begins every answer and every notification (with `unique` 0 and the code in `error`).
    OutHeader = 16 { len: u32, error: i32, unique: u64 }
    InitIn = 16 { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    InitOut = 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, unused: [u32; 7],
    }
    Attr = 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atime_nsec: u32, mtime_nsec: u32,
        ctime_nsec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    EntryOut = 128 {
        node: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    }
    AttrOut = 104 { attr_valid: u64, attr_valid_nsec: u32, padding: u32, attr: Attr }
    ForgetOne = 16 { node: u64, count: u64 }
    BatchForgetIn = 8 { count: u32, padding: u32 }
    GetattrIn = 16 { flags: u32, padding: u32, handle: u64 }
    SetattrIn = 88 {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atime_nsec: u32, mtime_nsec: u32, ctime_nsec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    MknodIn = 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
    MkdirIn = 8 { mode: u32, umask: u32 }
    Rename2In = 16 { new_dir: u64, flags: u32, padding: u32 }
    OpenIn = 8 { flags: i32, open_flags: u32 }
    OpenOut = 16 { handle: u64, open_flags: u32, padding: u32 }
    CreateIn = 16 { flags: i32, mode: u32, umask: u32, open_flags: u32 }
    FlushIn = 24 { handle: u64, unused: u32, padding: u32, lock_owner: u64 }
    FileLock = 24 { start: u64, end: u64, kind: u32, pid: u32 }
    LkIn = 48 { handle: u64, owner: u64, lock: FileLock, flags: u32, padding: u32 }
    ReleaseIn = 24 { handle: u64, flags: i32, release_flags: u32, lock_owner: u64 }
    ReadIn = 40 { handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: i32, padding: u32 }
    WriteIn = 40 { handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: i32, padding: u32 }
    WriteOut = 8 { size: u32, padding: u32 }
    SetxattrIn = 8 { size: u32, flags: i32 }
    GetxattrIn = 8 { size: u32, padding: u32 }
    IoctlIn = 32 { handle: u64, flags: u32, command: u32, arg: u64, in_size: u32, out_size: u32 }
    IoctlOut = 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    FallocateIn = 32 { handle: u64, offset: u64, length: u64, mode: i32, padding: u32 }
    LseekIn = 24 { handle: u64, offset: i64, whence: i32, padding: u32 }
    StatfsOut = 80 {
        blocks: u64, free: u64, available: u64, files: u64, files_free: u64, block_size: u32, name_len: u32,
        fragment_size: u32, padding: u32, spare: [u32; 6],
    }
    Dirent = 24 { ino: u64, next: u64, name_len: u32, kind: u32 }
    PruneOut = 16 { count: u32, padding: u32, spare: u64 }
    InvalInodeOut = 24 { node: u64, offset: i64, len: i64 }
}

/// INIT flags; those above bit 31 travel in `flags2`.
pub(in crate::fuse) mod init {
    pub(in crate::fuse) const ASYNC_READ: u64 = 1;
    pub(in crate::fuse) const POSIX_LOCKS: u64 = 1 << 1;
    pub(in crate::fuse) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(in crate::fuse) const EXPORT_SUPPORT: u64 = 1 << 4;
    pub(in crate::fuse) const BIG_WRITES: u64 = 1 << 5;
    pub(in crate::fuse) const DONT_MASK: u64 = 1 << 6;
    pub(in crate::fuse) const FLOCK_LOCKS: u64 = 1 << 10;
    pub(in crate::fuse) const HAS_IOCTL_DIR: u64 = 1 << 11;
    pub(in crate::fuse) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(in crate::fuse) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(in crate::fuse) const ASYNC_DIO: u64 = 1 << 15;
    pub(in crate::fuse) const WRITEBACK_CACHE: u64 = 1 << 16;
    pub(in crate::fuse) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(in crate::fuse) const POSIX_ACL: u64 = 1 << 20;
    pub(in crate::fuse) const MAX_PAGES: u64 = 1 << 22;
    pub(in crate::fuse) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(in crate::fuse) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub(in crate::fuse) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(in crate::fuse) const INIT_EXT: u64 = 1 << 30;
    pub(in crate::fuse) const HAS_EXPIRE_ONLY: u64 = 1 << 35;
    pub(in crate::fuse) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// `SetattrIn::valid`.
pub(super) mod fattr {
    pub(in crate::fuse::native) const MODE: u32 = 1;
    pub(in crate::fuse::native) const UID: u32 = 1 << 1;
    pub(in crate::fuse::native) const GID: u32 = 1 << 2;
    pub(in crate::fuse::native) const SIZE: u32 = 1 << 3;
    pub(in crate::fuse::native) const ATIME: u32 = 1 << 4;
    pub(in crate::fuse::native) const MTIME: u32 = 1 << 5;
    pub(in crate::fuse::native) const ATIME_NOW: u32 = 1 << 7;
    pub(in crate::fuse::native) const MTIME_NOW: u32 = 1 << 8;
    pub(in crate::fuse::native) const CTIME: u32 = 1 << 10;
}

/// GETATTR names an open file: the kernel is about to use its size, mostly for a write.
pub(super) const GETATTR_FH: u32 = 1;
/// READ for somebody who has the file open, past the page cache; others fill the page cache.
pub(super) const READ_LOCKOWNER: u32 = 1 << 1;
/// SETLK is a flock(2), not an fcntl(2) lock.
pub(super) const LK_FLOCK: u32 = 1;
/// RELEASE ends a flock(2).
pub(super) const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// WRITE comes from the page cache, not from a write(2) going on.
pub(super) const WRITE_CACHE: u32 = 1;
/// WRITE by someone who may not keep setuid and setgid.
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// Reads and writes of this open file bypass the page cache.
pub(super) const FOPEN_DIRECT_IO: u32 = 1;
/// What the page cache holds of the file is still good.
pub(super) const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// Direct writes to this file may run side by side.
pub(super) const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
/// Notification: attributes, and unless the offset is negative pages, are no longer good.
pub(super) const NOTIFY_INVAL_INODE: i32 = 2;
/// Notification: names of these inodes that nobody uses are to be forgotten (from protocol 7.45 on).
pub(super) const NOTIFY_PRUNE: i32 = 9;
