//! A directory that only this worker changes: it is always what this worker made of it. Others look in.

use super::Worker;
use crate::history::{Op, Outcome};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// Name to content; None is a directory.
#[derive(Default)]
pub(super) struct Own(BTreeMap<String, Option<Vec<u8>>>);

impl Worker {
    fn own_path(&self, name: &str) -> PathBuf {
        self.path(&format!("own/w{}/{name}", self.writer))
    }

    pub(super) fn own_begin(&mut self) {
        let path = self.own_path("");
        self.op(Op::Other { what: "own directory".into() }, |_| fs::create_dir(&path).map(|()| Outcome::Done));
    }

    pub(super) fn own_work(&mut self) {
        let name = format!("{:0>1$}", self.below(40), 8 + self.below(40) as usize % 2 * 60);
        let act = self.below(8);
        let len = self.below(9000) as usize;
        let fill = self.below(256) as u8;
        let path = self.own_path(&name);
        self.op(Op::Other { what: format!("own {act} {name}") }, |w| {
            match (act, w.own.0.get(&name).cloned()) {
                (0..=2, None | Some(Some(_))) => {
                    fs::write(&path, vec![fill; len])?;
                    w.own.0.insert(name, Some(vec![fill; len]));
                }
                (3, None) => {
                    fs::create_dir(&path)?;
                    w.own.0.insert(name, None);
                }
                (4, Some(Some(mut content))) => {
                    use std::io::Write;
                    fs::File::options().append(true).open(&path)?.write_all(&vec![fill; len])?;
                    content.extend(vec![fill; len]);
                    content.truncate(60_000);
                    fs::File::options().write(true).open(&path)?.set_len(content.len() as u64)?;
                    w.own.0.insert(name, Some(content));
                }
                (5, Some(Some(content))) => {
                    let new = format!("m{name}");
                    fs::rename(&path, w.own_path(&new))?;
                    w.own.0.remove(&name);
                    w.own.0.insert(new, Some(content));
                }
                (6, Some(Some(_))) => {
                    fs::remove_file(&path)?;
                    w.own.0.remove(&name);
                }
                (6, Some(None)) => {
                    fs::remove_dir(&path)?;
                    w.own.0.remove(&name);
                }
                (_, Some(Some(content))) => {
                    let is = fs::read(&path)?;
                    if is != content {
                        let at = is.iter().zip(&content).position(|(a, b)| a != b);
                        return Ok(Outcome::Wrong(format!(
                            "{name}: {} bytes, not {}, from {at:?}",
                            is.len(),
                            content.len()
                        )));
                    }
                }
                (_, Some(None)) => {
                    if fs::read_dir(&path)?.next().is_some() {
                        return Ok(Outcome::Wrong(format!("{name} is not empty")));
                    }
                }
                (_, None) => {
                    if fs::symlink_metadata(&path).is_ok() {
                        return Ok(Outcome::Wrong(format!("{name} is there")));
                    }
                }
            }
            Ok(Outcome::Done)
        });
    }

    /// Everything in it, and nothing else. Then a look at what others have.
    pub(super) fn own_check(&mut self) {
        let path = self.own_path("");
        self.op(Op::Other { what: "check own directory".into() }, |w| {
            let mut names: Vec<String> = Vec::new();
            for entry in fs::read_dir(&path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort_unstable();
            let wanted: Vec<&String> = w.own.0.keys().collect();
            if names.iter().collect::<Vec<_>>() != wanted {
                return Ok(Outcome::Wrong(format!("{names:?}, not {wanted:?}")));
            }
            for (name, content) in &w.own.0 {
                let Some(content) = content else { continue };
                let is = fs::read(path.join(name))?;
                if is != *content {
                    let at = is.iter().zip(content).position(|(a, b)| a != b);
                    return Ok(Outcome::Wrong(format!(
                        "{name}: {} bytes, not {}, from {at:?}",
                        is.len(),
                        content.len()
                    )));
                }
            }
            Ok(Outcome::Done)
        });
        self.op(Op::Other { what: "look at the others'".into() }, |w| {
            for dir in fs::read_dir(w.path("own"))? {
                for entry in fs::read_dir(dir?.path())? {
                    let path = entry?.path();
                    match fs::symlink_metadata(&path)
                        .and_then(|m| if m.is_file() { fs::read(&path) } else { Ok(Vec::new()) })
                    {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                        _ => {}
                    }
                }
            }
            Ok(Outcome::Done)
        });
    }
}
