//! Steps on what a file has besides its contents: extended attributes, ACLs, mode, owner, times, flags.

use super::{Kind, Work, data};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Gid, IFlags, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::path::Path;

const ANY: [Kind; 4] = [Kind::Dir, Kind::File, Kind::Symlink, Kind::Special];
const PLAIN: [Kind; 2] = [Kind::Dir, Kind::File];

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";

impl Work {
    fn xattr_name(&mut self) -> String {
        let space = ["user", "user", "trusted", "security"][self.rng.below(4) as usize];
        let number = self.rng.below(6);
        if self.rng.one_in(5) {
            format!("{space}.{}{number}", "long-name-".repeat(12))
        } else {
            format!("{space}.x{number}")
        }
    }

    /// Values from nothing to what needs blocks of its own; on symlinks and device nodes user.* must fail.
    pub(super) fn set_xattr(&mut self) {
        let kinds: &[Kind] = if self.rng.one_in(6) { &ANY } else { &PLAIN };
        let Some((_, path)) = self.pick(kinds) else { return };
        let name = self.xattr_name();
        let length = match self.rng.below(20) {
            0..10 => self.rng.below(60),
            10..15 => self.rng.range(60, 400),
            15..19 => self.rng.range(400, 5000),
            _ => self.rng.range(5000, 60_000),
        };
        let value = self.rng.bytes(length);
        let flags = [XattrFlags::empty(), XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE]
            [self.rng.below(4) as usize];
        let set = rustix::fs::lsetxattr(&path, name.as_str(), &value, flags);
        self.note("setxattr", &path, set);
    }

    pub(super) fn remove_xattr(&mut self) {
        let Some((_, path)) = self.pick(&PLAIN) else { return };
        let name = match self.rng.below(8) {
            0 => ACCESS_ACL.to_string(),
            1 => DEFAULT_ACL.to_string(),
            _ => self.xattr_name(),
        };
        let removed = rustix::fs::lremovexattr(&path, name.as_str());
        self.note("removexattr", &path, removed);
    }

    /// So many that they fill several blocks, and an indirect block tells where these are.
    pub(super) fn many_xattrs(&mut self) {
        let Some((_, path)) = self.pick(&PLAIN) else { return };
        for number in 0..self.rng.range(20, 80) {
            let length = self.rng.range(50, 400);
            let value = self.rng.bytes(length);
            let set = rustix::fs::lsetxattr(&path, format!("user.many{number}").as_str(), &value, XattrFlags::empty());
            if self.note("setxattr", &path, set).is_none() {
                return;
            }
        }
    }

    /// The raw value of a random valid ACL, version 2.
    fn acl(&mut self) -> Vec<u8> {
        const NO_ID: u32 = u32::MAX;
        let mut entries: Vec<(u16, u32)> = vec![(0x01, NO_ID)];
        let (users, groups) = (self.rng.below(4), self.rng.below(4));
        let many = if self.rng.one_in(10) { 20 } else { 0 };
        // Ids must ascend within a tag.
        entries.extend((0..users + many).map(|at| (0x02, 1000 + at as u32)));
        entries.push((0x04, NO_ID));
        entries.extend((0..groups).map(|at| (0x08, 2000 + at as u32)));
        if users + many + groups > 0 {
            entries.push((0x10, NO_ID));
        }
        entries.push((0x20, NO_ID));
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&(self.rng.below(8) as u16).to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    pub(super) fn set_acl(&mut self) {
        let Some((_, path)) = self.pick(&PLAIN) else { return };
        let value = self.acl();
        let set = rustix::fs::setxattr(&path, ACCESS_ACL, &value, XattrFlags::empty());
        self.note("setacl", &path, set);
    }

    /// What is made in the directory from now on inherits it.
    pub(super) fn set_default_acl(&mut self) {
        let Some((_, path)) = self.pick(&[Kind::Dir]) else { return };
        let value = self.acl();
        let set = rustix::fs::setxattr(&path, DEFAULT_ACL, &value, XattrFlags::empty());
        self.note("setacl-default", &path, set);
    }

    pub(super) fn chmod(&mut self) {
        let Some((_, path)) = self.pick(&[Kind::Dir, Kind::File, Kind::Special]) else { return };
        let mode = Mode::from_raw_mode(self.rng.below(0o10000) as u32);
        let done = rustix::fs::chmod(&path, mode);
        self.note("chmod", &path, done);
    }

    pub(super) fn chown(&mut self) {
        let Some((_, path)) = self.pick(&ANY) else { return };
        let (uid, gid) = (self.rng.below(4) as u32 * 1000, self.rng.below(4) as u32 * 1000);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let done = rustix::fs::chownat(CWD, &path, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        self.note("chown", &path, done);
    }

    pub(super) fn set_times(&mut self) {
        let Some((_, path)) = self.pick(&ANY) else { return };
        let mut time = || Timespec {
            tv_sec: self.rng.below(1 << 34) as i64 - (1 << 20),
            tv_nsec: self.rng.below(1_000_000_000) as i64,
        };
        let times = Timestamps { last_access: time(), last_modification: time() };
        let done = rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
        self.note("utimens", &path, done);
    }

    fn change_flags(file: impl AsFd, set: IFlags, clear: IFlags) -> Result<(), Errno> {
        let flags = rustix::fs::ioctl_getflags(&file)?;
        rustix::fs::ioctl_setflags(&file, (flags - clear) | set)
    }

    fn open_any(&mut self) -> Option<(std::path::PathBuf, OwnedFd)> {
        let (_, path) = self.pick(&PLAIN)?;
        let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let file = self.note("open", &path, opened)?;
        Some((path, file))
    }

    /// Flags that change nothing one could see: synchronous, no access times.
    pub(super) fn chattr(&mut self) {
        let Some((path, file)) = self.open_any() else { return };
        let flag = [IFlags::SYNC, IFlags::NOATIME][self.rng.below(2) as usize];
        let (set, clear) = if self.rng.one_in(2) { (flag, IFlags::empty()) } else { (IFlags::empty(), flag) };
        let done = Self::change_flags(&file, set, clear);
        self.note("chattr", &path, done);
    }

    /// Append-only or immutable for a moment, in which a write must fail.
    pub(super) fn chattr_strict(&mut self) {
        let Some((path, file)) = self.open_any() else { return };
        let flag = [IFlags::APPEND, IFlags::IMMUTABLE][self.rng.below(2) as usize];
        let done = Self::change_flags(&file, flag, IFlags::empty());
        if self.note("chattr", &path, done).is_none() {
            return;
        }
        let forbidden = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| data::write_all(file, b"x", 0));
        self.note("forbidden", &path, forbidden);
        let done = Self::change_flags(&file, IFlags::empty(), flag);
        self.note("chattr", &path, done);
    }

    /// Journaled data, for a file that is empty yet: Linux 6.1 can panic when a file has cached data.
    pub(super) fn journal_data(&mut self, file: &OwnedFd, path: &Path) {
        let done = Self::change_flags(file, IFlags::JOURNALING, IFlags::empty());
        self.note("chattr-j", path, done);
    }

    /// The same for a directory: what is made in it inherits the flag.
    pub(super) fn journal_data_dir(&mut self, path: &Path) {
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        if let Some(file) = self.note("open", path, opened) {
            self.journal_data(&file, path);
        }
    }
}
