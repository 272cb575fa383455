//! Steps with many names in one directory: hashed directories, their splits and doublings, and their emptying.

use super::{Kind, Work};
use rustix::fs::{Mode, OFlags};

impl Work {
    /// Some hundreds of files more in one of at most four crowded directories.
    pub(super) fn fill_dir(&mut self) {
        let crowds = self.names.crowds.len();
        let crowd = if crowds < 4 && (crowds == 0 || self.rng.one_in(3)) {
            let Some(dir) = self.names.pick(&[Kind::Dir], &mut self.rng) else { return };
            if self.names.path(dir).is_none() {
                return;
            }
            let length = [8, 0, 40, 240][crowds % 4];
            self.names.add_crowd(dir, length)
        } else {
            self.rng.below(crowds as u64) as usize // an index, below a usize
        };
        for _ in 0..self.rng.range(50, 400) {
            let number = self.names.crowds[crowd].next;
            let (dir, Some(name)) = (self.names.crowds[crowd].dir, self.names.crowds[crowd].name(number)) else {
                return;
            };
            let Some(path) = self.names.path_below(dir, &name).map(|path| self.config.dir.join(path)) else { return };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let created = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644));
            if self.note("create", &path, created).is_none() {
                return;
            }
            self.names.crowds[crowd].next += 1;
            self.names.crowds[crowd].alive.push(number);
        }
    }

    /// Removes a part of a crowd: some, most, or all of it.
    pub(super) fn thin_dir(&mut self) {
        let Some(crowd) = self.rng.index(self.names.crowds.len()) else { return };
        let alive = self.names.crowds[crowd].alive.len() as u64;
        let remove = match self.rng.below(10) {
            0 => alive,
            1..4 => alive / 2,
            _ => alive.min(60),
        };
        for _ in 0..remove {
            let Some(at) = self.rng.index(self.names.crowds[crowd].alive.len()) else { return };
            let number = self.names.crowds[crowd].alive[at];
            let (dir, Some(name)) = (self.names.crowds[crowd].dir, self.names.crowds[crowd].name(number)) else {
                return;
            };
            let Some(path) = self.names.path_below(dir, &name).map(|path| self.config.dir.join(path)) else { return };
            let removed = rustix::fs::unlink(&path);
            if self.note("unlink", &path, removed).is_none() {
                return;
            }
            self.names.crowds[crowd].alive.swap_remove(at);
        }
    }

    /// Reads a directory to its end.
    pub(super) fn read_dir(&mut self) {
        let Some((_, path)) = self.pick(&[Kind::Dir]) else { return };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let read = rustix::fs::open(&path, flags, Mode::empty())
            .and_then(rustix::fs::Dir::new)
            .and_then(|dir| dir.into_iter().try_fold(0u64, |count, entry| entry.map(|_| count + 1)));
        self.note("readdir", &path, read);
    }
}
