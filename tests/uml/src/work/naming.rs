//! Steps that make, move and remove names.

use super::{Kind, Work};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use std::path::PathBuf;

const ANY: [Kind; 4] = [Kind::Dir, Kind::File, Kind::Symlink, Kind::Special];
const NO_DIR: [Kind; 3] = [Kind::File, Kind::Symlink, Kind::Special];

impl Work {
    /// A new file, empty or with something in it, now and then with journaled data.
    pub(super) fn create_file(&mut self) {
        let Some((dir, name, path)) = self.new_place() else { return };
        let mode = Mode::from_raw_mode([0o644, 0o600, 0o755, 0o4755, 0o666][self.rng.below(5) as usize]);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, mode);
        let Some(file) = self.note("create", &path, opened) else { return };
        let node = self.names.add(dir, name, Kind::File);
        if self.rng.one_in(6) && self.config.chattr_j {
            self.journal_data(&file, &path);
        }
        if !self.rng.one_in(4) {
            let length = self.length();
            self.put(&file, node, &path, 0, length);
        }
    }

    pub(super) fn make_dir(&mut self) {
        let Some((dir, name, path)) = self.new_place() else { return };
        let mode = Mode::from_raw_mode([0o755, 0o700, 0o2775, 0o1777][self.rng.below(4) as usize]);
        let made = rustix::fs::mkdir(&path, mode);
        if self.note("mkdir", &path, made).is_some() {
            self.names.add(dir, name, Kind::Dir);
            if self.rng.one_in(40) && self.config.chattr_j {
                self.journal_data_dir(&path);
            }
        }
    }

    /// A chain of directories, each in the one before.
    pub(super) fn make_deep_dirs(&mut self) {
        let Some(mut dir) = self.names.pick(&[Kind::Dir], &mut self.rng) else { return };
        for level in 0..self.rng.range(5, 40) {
            let name = format!("d{level}.{}", self.step).into_bytes();
            let Some(path) = self.names.path_below(dir, &name).map(|path| self.config.dir.join(path)) else { return };
            let made = rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755));
            if self.note("mkdir", &path, made).is_none() {
                return;
            }
            dir = self.names.add(dir, name, Kind::Dir);
        }
    }

    /// Targets are short, just at the limit of what a dinode holds (bs - 232 for GFS2), or too long.
    pub(super) fn make_symlink(&mut self) {
        let Some((dir, name, path)) = self.new_place() else { return };
        let length = match self.rng.below(6) {
            0..3 => self.rng.range(1, 60),
            3 => self.rng.range(61, 250),
            4 => self.rng.range(251, 3800),
            _ => self.rng.range(3800, 4095),
        };
        let target: Vec<u8> = (0..length).map(|at| if at % 30 == 29 { b'/' } else { b'a' + (at % 26) as u8 }).collect();
        let made = rustix::fs::symlink(target.as_slice(), &path);
        if self.note("symlink", &path, made).is_some() {
            self.names.add(dir, name, Kind::Symlink);
        }
    }

    pub(super) fn make_special(&mut self) {
        let Some((dir, name, path)) = self.new_place() else { return };
        let kinds = [FileType::CharacterDevice, FileType::BlockDevice, FileType::Fifo, FileType::Socket];
        let kind = kinds[self.rng.below(4) as usize];
        let device = match kind {
            FileType::CharacterDevice | FileType::BlockDevice => {
                rustix::fs::makedev(self.rng.below(4000) as u32, self.rng.below(1 << 20) as u32)
            }
            _ => 0,
        };
        let made = rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o640), device);
        if self.note("mknod", &path, made).is_some() {
            self.names.add(dir, name, Kind::Special);
        }
    }

    pub(super) fn make_link(&mut self) {
        let Some((node, from)) = self.pick(&[Kind::File, Kind::File, Kind::Symlink, Kind::Special]) else { return };
        let Some((dir, name, to)) = self.new_place() else { return };
        let kind = self.names.kind(node);
        let made = rustix::fs::linkat(CWD, &from, CWD, &to, AtFlags::empty());
        if self.note("link", &to, made).is_some() {
            self.names.add(dir, name, kind);
        }
    }

    /// To a new name, over another file, or (without replacing) against one.
    pub(super) fn rename_file(&mut self) {
        let Some((node, from)) = self.pick(&NO_DIR) else { return };
        if self.rng.one_in(3) {
            let Some((target, to)) = self.pick(&NO_DIR) else { return };
            let flags = if self.rng.one_in(4) { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
            // Two links of one file: nothing is renamed, and both names stay.
            let same = same_inode(&from, &to);
            let renamed = rustix::fs::renameat_with(CWD, &from, CWD, &to, flags);
            if self.note("rename-over", &to, renamed).is_some() && !same {
                let (parent, name) = self.names.place_of(target);
                self.names.remove(target);
                self.names.rename(node, parent, name);
            }
            return;
        }
        let Some((dir, name, to)) = self.new_place() else { return };
        let renamed = rustix::fs::renameat(CWD, &from, CWD, &to);
        if self.note("rename", &to, renamed).is_some() {
            self.names.rename(node, dir, name);
        }
    }

    /// A directory to a new place (also into itself, which must fail), or over an empty or a full one.
    pub(super) fn rename_dir(&mut self) {
        let Some((node, from)) = self.pick(&[Kind::Dir]) else { return };
        if node == 0 {
            return;
        }
        if self.rng.one_in(4) {
            let Some((target, to)) = self.pick(&[Kind::Dir]) else { return };
            if target == 0 || target == node {
                return;
            }
            let renamed = rustix::fs::renameat(CWD, &from, CWD, &to);
            if self.note("rename-dir-over", &to, renamed).is_some() {
                let (parent, name) = self.names.place_of(target);
                self.names.remove(target);
                self.names.rename(node, parent, name);
            }
            return;
        }
        let Some((dir, name, to)) = self.new_place() else { return };
        let renamed = rustix::fs::renameat(CWD, &from, CWD, &to);
        if self.note("rename-dir", &to, renamed).is_some() {
            self.names.rename(node, dir, name);
        }
    }

    /// Two names of any kind change places.
    pub(super) fn rename_exchange(&mut self) {
        let Some((a, a_path)) = self.pick(&ANY) else { return };
        let Some((b, b_path)) = self.pick(&ANY) else { return };
        if a == 0 || b == 0 || a == b {
            return;
        }
        let same = same_inode(&a_path, &b_path);
        let related = self.names.is_within(a, b) || self.names.is_within(b, a);
        let exchanged = rustix::fs::renameat_with(CWD, &a_path, CWD, &b_path, RenameFlags::EXCHANGE);
        if self.note("exchange", &b_path, exchanged).is_some() && !same {
            if related {
                self.fatal.get_or_insert(format!("step {}: a directory changed places with one below it", self.step));
                return;
            }
            self.names.exchange(a, b);
        }
    }

    pub(super) fn unlink(&mut self) {
        let Some((node, path)) = self.pick(&NO_DIR) else { return };
        let removed = rustix::fs::unlink(&path);
        if self.note("unlink", &path, removed).is_some() {
            self.names.remove(node);
        }
    }

    /// Mostly an empty directory; otherwise it must fail.
    pub(super) fn remove_dir(&mut self) {
        let mut found = None;
        for _ in 0..8 {
            let Some((node, path)) = self.pick(&[Kind::Dir]) else { return };
            if node != 0 {
                let empty = self.names.is_empty_dir(node);
                found = Some((node, path));
                if empty {
                    break;
                }
            }
        }
        let Some((node, path)) = found else { return };
        let removed = rustix::fs::rmdir(&path);
        if self.note("rmdir", &path, removed).is_some() {
            self.names.remove(node);
        }
    }
}

/// Whether two names are links of one inode.
fn same_inode(a: &PathBuf, b: &PathBuf) -> bool {
    matches!((rustix::fs::lstat(a), rustix::fs::lstat(b)), (Ok(a), Ok(b)) if a.st_ino == b.st_ino)
}
