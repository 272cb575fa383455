//! `gfs2r ls`, `cat`, `cp` and `tar`: files of a volume that nobody has mounted.

use super::table::columns;
use super::{Outcome, about, print, print_json};
use crate::admin::reader::{Met, Reader, copy, pax};
use crate::device::{BlockDevice, FileDevice, OpenMode};
use crate::format::dinode::mode::{S_IFLNK, S_IFMT};
use crate::format::{Dinode, DirentType};
use clap::Args;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The volume.
#[derive(Args, Debug)]
pub(super) struct Image {
    /// Block device or image file; nobody should have it mounted for writing.
    image: PathBuf,
    /// Leave dirty journals alone; without this they are replayed, in memory.
    #[arg(long)]
    no_replay: bool,
}

/// List files of a volume that nobody has mounted.
///
/// Needs no root and writes nothing. What is damaged is told and passed over; the exit status is then 1.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gfs2r ls disk.img\n  gfs2r ls -lR disk.img /home\n  gfs2r ls --json disk.img /etc/passwd"
)]
pub(super) struct Ls {
    #[command(flatten)]
    image: Image,
    /// Files or directories, from the root of the volume; the root when absent.
    paths: Vec<PathBuf>,
    /// With mode, links, owner, group, size and time of last change.
    #[arg(short)]
    long: bool,
    /// Also names that begin with a dot.
    #[arg(short)]
    all: bool,
    /// Also what is below directories.
    #[arg(short = 'R')]
    recursive: bool,
    /// With inode numbers.
    #[arg(short)]
    inode: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Write the contents of files of a volume that nobody has mounted to standard output.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gfs2r cat disk.img /etc/fstab")]
pub(super) struct Cat {
    #[command(flatten)]
    image: Image,
    /// Files, from the root of the volume.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Copy files and directories out of a volume that nobody has mounted.
///
/// As `cp -a` does: sparse files stay sparse, hard links stay links; times, modes, extended attributes and ACLs are kept, and
/// owners for root. Nothing that exists is overwritten. What is damaged is told and passed over; the exit status is then 1.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gfs2r cp disk.img /home /root/rescued\n  gfs2r cp disk.img /etc/fstab /etc/passwd ."
)]
pub(super) struct Cp {
    #[command(flatten)]
    image: Image,
    /// Sources, from the root of the volume; then where to: a directory, or a new name for a single source.
    #[arg(required = true, num_args = 2.., value_name = "SOURCE... TARGET")]
    paths: Vec<PathBuf>,
}

/// Write files of a volume that nobody has mounted to standard output as an archive.
///
/// The format is PAX, as GNU tar reads it: with nanoseconds, extended attributes and ACLs, and sparse files without their holes
/// (`tar --xattrs --xattrs-include='*' -xpf -` restores all of it).
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gfs2r tar disk.img | zstd > disk.tar.zst\n  gfs2r tar disk.img /home | tar -tvf -"
)]
pub(super) struct Tar {
    #[command(flatten)]
    image: Image,
    /// Files or directories, from the root of the volume; the root when absent.
    paths: Vec<PathBuf>,
}

/// Tells what is wrong, and remembers that something was.
struct Wrong {
    command: &'static str,
    any: bool,
}

impl Wrong {
    fn new(command: &'static str) -> Self {
        Self { command, any: false }
    }
    fn tell(&mut self, path: &Path, what: &str) {
        self.any = true;
        eprintln!("gfs2r: {}: {}: {what}", self.command, path.display());
    }
    fn code(&self) -> ExitCode {
        if self.any { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
    fn find(&mut self, reader: &Reader, path: &Path) -> Option<Met> {
        reader.find(path).inspect_err(|e| self.tell(path, &e.to_string())).ok()
    }
}

impl Image {
    fn open(&self) -> Result<Reader, String> {
        let dev = about(&self.image, FileDevice::open(&self.image, OpenMode::ReadOnly).map_err(|e| e.to_string()))?;
        let dev: Arc<dyn BlockDevice> = Arc::new(dev);
        let hint = if self.no_replay { "" } else { " (try --no-replay, or fsck.gfs2r -n)" };
        about(&self.image, Reader::open(dev, !self.no_replay).map_err(|e| format!("{e}{hint}")))
    }
}

fn or_root(paths: &[PathBuf]) -> Vec<PathBuf> {
    if paths.is_empty() { vec![PathBuf::from("/")] } else { paths.to_vec() }
}

/// A reader of our output who has gone away is no failure.
fn written(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}")),
        _ => Ok(()),
    }
}

pub(super) fn ls(arguments: &Ls) -> Outcome {
    let reader = arguments.image.open()?;
    let mut wrong = Wrong::new("ls");
    let mut all = Vec::new();
    let paths = or_root(&arguments.paths);
    for (n, path) in paths.iter().enumerate() {
        let Some(met) = wrong.find(&reader, path) else { continue };
        let heading = (paths.len() > 1 || arguments.recursive).then_some(n > 0);
        ls_one(arguments, &reader, met, heading, &mut all, &mut wrong)?;
    }
    if arguments.json {
        print_json("files", Value::Array(all))?;
    }
    Ok(wrong.code())
}

fn ls_one(
    arguments: &Ls,
    reader: &Reader,
    met: Met,
    heading: Option<bool>,
    all: &mut Vec<Value>,
    wrong: &mut Wrong,
) -> Result<(), String> {
    let mut todo = vec![met];
    let mut seen = std::collections::HashSet::new();
    let mut first = heading != Some(true);
    while let Some(met) = todo.pop() {
        let mut files = Vec::new();
        let is_dir = met.is_dir();
        if !is_dir {
            files.push(met.clone());
        } else if !seen.insert(met.inum.addr) {
            wrong.tell(&met.path, "met twice");
            continue;
        } else {
            let (names, failed) = reader.list(met.inum);
            if let Some(e) = failed {
                wrong.tell(&met.path, &e.to_string());
            }
            for (name, entry) in names.into_iter().filter(|(name, _)| arguments.all || name[0] != b'.') {
                let path = met.path.join(std::ffi::OsStr::from_bytes(&name));
                match reader.dinode(entry.inum) {
                    Ok(dinode) => files.push(Met { path, inum: entry.inum, dinode }),
                    Err(e) => wrong.tell(&path, &e.to_string()),
                }
            }
        }
        if arguments.json {
            all.extend(files.iter().map(|file| as_json(reader, file)));
        } else {
            let title = (heading.is_some() && is_dir).then(|| format!("{}:\n", met.path.display()));
            let gap = if first || title.is_none() { "" } else { "\n" };
            print(&format!("{gap}{}{}", title.unwrap_or_default(), as_text(arguments, reader, &files, is_dir)))?;
        }
        first = false;
        if arguments.recursive && is_dir {
            todo.extend(files.into_iter().rev().filter(Met::is_dir));
        }
    }
    Ok(())
}

fn as_text(arguments: &Ls, reader: &Reader, files: &[Met], short_names: bool) -> String {
    let rows: Vec<Vec<String>> = files
        .iter()
        .map(|file| {
            let d = &file.dinode;
            let mut row = Vec::new();
            if arguments.inode {
                row.push(file.inum.addr.to_string());
            }
            if arguments.long {
                let size = match DirentType::from_mode(d.mode.get()) {
                    Some(DirentType::Chr | DirentType::Blk) => format!("{},{}", d.major.get(), d.minor.get()),
                    _ => d.size.get().to_string(),
                };
                row.extend([mode_text(d.mode.get()), d.nlink.get().to_string(), d.uid.get().to_string()]);
                row.extend([d.gid.get().to_string(), size, time_text(d.mtime().sec)]);
            }
            let name = if short_names { file.path.file_name().unwrap_or_default() } else { file.path.as_os_str() };
            let mut name = printable(name);
            if arguments.long && d.mode.get() & S_IFMT == S_IFLNK {
                let to =
                    reader.link_target(file).map_or("?".to_owned(), |t| printable(std::ffi::OsStr::from_bytes(&t)));
                name = format!("{name} -> {to}");
            }
            row.push(name);
            row
        })
        .collect();
    columns(&rows, if arguments.long || arguments.inode { 9 } else { 1 })
}

/// A terminal is not to be told what to do by a name.
fn printable(name: &std::ffi::OsStr) -> String {
    name.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn as_json(reader: &Reader, file: &Met) -> Value {
    let d: &Dinode = &file.dinode;
    let time = |t: crate::clock::Timestamp| json!({ "seconds": t.sec, "nanoseconds": t.nsec });
    let target = reader.link_target(file).ok().map(|t| String::from_utf8_lossy(&t).into_owned());
    json!({
        "path": file.path.to_string_lossy(), "inode": file.inum.addr.get(), "formal": file.inum.formal.0,
        "mode": format!("{:o}", d.mode.get()), "nlink": d.nlink.get(), "uid": d.uid.get(), "gid": d.gid.get(),
        "size": d.size.get(), "blocks": d.blocks.get(), "atime": time(d.atime()), "mtime": time(d.mtime()),
        "ctime": time(d.ctime()), "major": d.major.get(), "minor": d.minor.get(), "target": target,
    })
}

fn mode_text(mode: u32) -> String {
    let kind = match DirentType::from_mode(mode) {
        Some(DirentType::Dir) => 'd',
        Some(DirentType::Lnk) => 'l',
        Some(DirentType::Chr) => 'c',
        Some(DirentType::Blk) => 'b',
        Some(DirentType::Fifo) => 'p',
        Some(DirentType::Sock) => 's',
        Some(DirentType::Reg) => '-',
        None => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `2026-11-25 07:58` (UTC), by the arithmetic of the Gregorian calendar; the number itself far away from now.
fn time_text(seconds: i64) -> String {
    let days = seconds.div_euclid(86400);
    if !(-719_468..=2_932_896).contains(&days) {
        return format!("@{seconds}");
    }
    let minutes = seconds.rem_euclid(86400) / 60;
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year + era * 400) } else { (month - 9, year + era * 400 + 1) };
    format!("{year:04}-{month:02}-{of_month:02} {:02}:{:02}", minutes / 60, minutes % 60)
}

pub(super) fn cat(arguments: &Cat) -> Outcome {
    let reader = arguments.image.open()?;
    let mut wrong = Wrong::new("cat");
    let mut out = io::stdout().lock();
    let mut buf = vec![0; 1 << 20];
    for path in &arguments.paths {
        let Some(met) = wrong.find(&reader, path) else { continue };
        if met.is_dir() {
            wrong.tell(path, "is a directory");
            continue;
        }
        let mut at = 0;
        loop {
            match reader.read(met.inum, at, &mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    at += n as u64;
                    if let Err(e) = out.write_all(&buf[..n]) {
                        written(Err(e))?;
                        return Ok(wrong.code());
                    }
                }
                Err(e) => {
                    wrong.tell(path, &format!("at byte {at}: {e}"));
                    break;
                }
            }
        }
    }
    written(out.flush())?;
    Ok(wrong.code())
}

pub(super) fn cp(arguments: &Cp) -> Outcome {
    let reader = arguments.image.open()?;
    let mut wrong = Wrong::new("cp");
    let Some((target, sources)) = arguments.paths.split_last() else { return Err("no target".to_owned()) };
    let into = target.is_dir();
    if !into && sources.len() > 1 {
        return Err(format!("{}: not a directory, and there are several sources", target.display()));
    }
    for source in sources {
        let Some(met) = wrong.find(&reader, source) else { continue };
        let name: OsString = source.file_name().map_or_else(|| "root".into(), OsString::from);
        let to = if into { target.join(name) } else { target.clone() };
        copy::copy(&reader, met, &to, &mut |path, what| wrong.tell(path, what)).map_err(|e| e.to_string())?;
    }
    Ok(wrong.code())
}

pub(super) fn tar(arguments: &Tar) -> Outcome {
    let reader = arguments.image.open()?;
    let mut wrong = Wrong::new("tar");
    let out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let mut archive = pax::Archive::new(&reader, out);
    for path in or_root(&arguments.paths) {
        let Some(met) = wrong.find(&reader, &path) else { continue };
        written(archive.add(met, &mut |path, what| wrong.tell(path, what)))?;
    }
    written(archive.finish())?;
    Ok(wrong.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_modes() {
        let cases = [(0, "1970-01-01 00:00"), (951_782_400, "2000-02-29 00:00"), (-1, "1969-12-31 23:59")];
        for (seconds, text) in cases {
            assert_eq!(time_text(seconds), text);
        }
        assert_eq!(time_text(i64::MAX), format!("@{}", i64::MAX));
        assert_eq!((mode_text(0o104755), mode_text(0o041770)), ("-rwsr-xr-x".into(), "drwxrwx--T".into()));
    }
}
