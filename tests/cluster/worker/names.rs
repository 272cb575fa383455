//! Names that one of many gets, and files that move about.

use super::{PLACES, TOKENS, Worker};
use crate::history::{Op, Outcome};
use std::fs::{self, File};
use std::io;

impl Worker {
    /// Everybody tries the same names in the same order; every third is a directory, some are only looked for.
    pub(super) fn create_name(&mut self) {
        self.name += 1;
        let name = self.name;
        self.create(name);
    }

    fn create(&mut self, name: u32) {
        let path = self.path(&format!("names/n{name}"));
        if self.below(3) == 0 {
            // Who has found nothing must see what others create after that.
            self.op(Op::Other { what: format!("stat n{name}") }, |_| match fs::metadata(&path) {
                Ok(_) => Ok(Outcome::Present),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Outcome::Absent),
                Err(e) => Err(e),
            });
        }
        self.op(Op::Create { name }, |_| {
            let created = if name % 3 == 0 {
                fs::create_dir(&path)
            } else {
                File::options().write(true).create_new(true).open(&path).map(|_| ())
            };
            match created {
                Ok(()) => Ok(Outcome::Done),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Outcome::Exists),
                Err(e) => Err(e),
            }
        });
        // Those who lag behind catch up: else the last of them would only ever lose.
        if self.below(20) == 0 {
            while fs::symlink_metadata(self.path(&format!("names/n{}", self.name + 1))).is_ok() {
                self.name += 1;
            }
        }
    }

    pub(super) fn sync_names(&mut self) {
        self.op(Op::SyncNames, |w| {
            File::open(w.path("names"))?.sync_all()?;
            Ok(Outcome::Done)
        });
    }

    /// Whoever has a name may not get it again: tries the highest ones.
    pub(super) fn names_at_the_end(&mut self) {
        let Ok(entries) = fs::read_dir(self.path("names")) else { return };
        let numbers = entries.filter_map(|e| e.ok()?.file_name().to_str()?.get(1..)?.parse::<u32>().ok());
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        for name in numbers.into_iter().rev().take(40) {
            self.create(name);
        }
    }

    pub(super) fn move_token(&mut self) {
        let (token, from) = (self.small(TOKENS), self.small(PLACES));
        let to = (from + 1 + self.small(PLACES - 1)) % PLACES;
        let place = |k: u8| format!("place{k}");
        self.op(Op::Move { token, from, to }, |w| {
            let name = format!("token{token}");
            match fs::rename(w.path(&place(from)).join(&name), w.path(&place(to)).join(&name)) {
                Ok(()) => {
                    File::open(w.path(&place(to)))?.sync_all()?;
                    Ok(Outcome::Done)
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Outcome::Absent),
                Err(e) => Err(e),
            }
        });
    }

    pub(super) fn look_for_token(&mut self) {
        let (token, at) = (self.small(TOKENS), self.small(PLACES));
        self.look(token, at);
    }

    pub(super) fn look(&mut self, token: u8, at: u8) {
        self.op(Op::Look { token, at }, |w| match fs::read(w.path(&format!("place{at}/token{token}"))) {
            Ok(bytes) if bytes == format!("token {token}").as_bytes() => Ok(Outcome::Present),
            Ok(bytes) => Ok(Outcome::Wrong(format!("{bytes:?}"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Outcome::Absent),
            Err(e) => Err(e),
        });
    }
}
