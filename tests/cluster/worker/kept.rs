//! Files that are kept open while others remove them.

use super::{KEPT, Worker, files, read_at, write_durably};
use crate::history::{Op, Outcome};
use std::fs::{self, File};
use std::io;

/// Files held open, with the value in them once it was read.
#[derive(Default)]
pub(super) struct Kept(Vec<(File, Option<u64>)>);

impl Worker {
    fn kept_path(&mut self) -> std::path::PathBuf {
        let k = self.below(KEPT);
        self.path(&format!("kept/k{k}"))
    }

    /// Whole before it has its name.
    pub(super) fn put_kept(&mut self) {
        let (value, path) = (self.value(), self.kept_path());
        let new = self.path(&format!("kept/new{}", self.writer));
        self.op(Op::Other { what: format!("put {}", path.display()) }, |_| {
            write_durably(&new, &files::body(value))?;
            match fs::hard_link(&new, &path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            fs::remove_file(&new)?;
            Ok(Outcome::Done)
        });
    }

    pub(super) fn open_kept(&mut self) {
        let path = self.kept_path();
        self.op(Op::Other { what: format!("keep {}", path.display()) }, |w| match File::open(&path) {
            Ok(file) => {
                if w.kept.0.len() > 6 {
                    w.kept.0.remove(0);
                }
                w.kept.0.push((file, None));
                Ok(Outcome::Done)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Outcome::Absent),
            Err(e) => Err(e),
        });
    }

    pub(super) fn read_kept(&mut self) {
        if self.kept.0.is_empty() {
            return;
        }
        let i = self.below(self.kept.0.len() as u64) as usize;
        self.op(Op::Other { what: format!("read kept {i}") }, |w| {
            let (file, known) = &mut w.kept.0[i];
            let bytes = read_at(file, 0, 100_000)?;
            Ok(match (files::value_of(&bytes), &known) {
                (Ok(value), Some(before)) if value != *before => {
                    Outcome::Wrong(format!("{before:#x} has become {value:#x}"))
                }
                (Ok(value), _) => {
                    *known = Some(value);
                    Outcome::Value(value)
                }
                (Err(e), _) => Outcome::Wrong(e),
            })
        });
    }

    pub(super) fn remove_kept(&mut self) {
        let path = self.kept_path();
        self.op(Op::Other { what: format!("remove {}", path.display()) }, |_| match fs::remove_file(&path) {
            Ok(()) => Ok(Outcome::Done),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Outcome::Absent),
            Err(e) => Err(e),
        });
    }
}
