//! Walking a tree by directory descriptors (paths may be longer than PATH_MAX), and printing its lines.

use super::{Column, Columns, content, escape, hex};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::path::Path;

/// A tree deeper than this is not followed (each level holds a descriptor).
const DEEPEST: usize = 800;

/// The most that the kernel allows for a value, and for a list of names.
const LARGEST_XATTR: usize = 65536;

/// What to list and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The columns.
    pub columns: Columns,
    /// Files up to this size, in bytes, are read whole, larger ones where they have data.
    pub whole: u64,
    /// Paths below the root that are left out, with all below them.
    pub skip: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options { columns: Columns::default(), whole: 16 << 20, skip: Vec::new() }
    }
}

/// What was listed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Number of names, the root included.
    pub names: u64,
    /// What could not be read, one line each; the listing shows it as `!ERRNO` too.
    pub errors: Vec<String>,
}

/// Writes the listing of the tree at `root` to `to`.
///
/// # Errors
/// When the root cannot be opened or `to` cannot be written; other errors become part of the listing.
pub fn list(root: &Path, options: &Options, to: &mut impl Write) -> Result<Listing, String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut walk =
        Walk { options, to, listing: Listing::default(), seen: HashMap::new(), buffer: vec![0; LARGEST_XATTR] };
    walk.line(fd.as_fd(), c".", "/")?;
    walk.directory(fd.as_fd(), "", 0)?;
    Ok(walk.listing)
}

struct Walk<'a, W> {
    options: &'a Options,
    to: &'a mut W,
    listing: Listing,
    /// Inode number to first path, for files with several links.
    seen: HashMap<u64, String>,
    /// For the values of extended attributes and the lists of their names.
    buffer: Vec<u8>,
}

impl<W: Write> Walk<'_, W> {
    /// Lists what is in the directory `dir`, whose escaped path is `path` ("" for the root, else ending in a slash).
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &str, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            self.listing.errors.push(format!("{path}: deeper than {DEEPEST} levels"));
            return Ok(());
        }
        let names = match names(dir) {
            Ok(names) => names,
            Err(error) => {
                self.listing.errors.push(format!("{path}: cannot be listed: {error}"));
                return self.put(&format!("{path}.! !{}\n", error.raw_os_error()));
            }
        };
        for name in names {
            let own = format!("{path}{}", escape(name.to_bytes()));
            if self.options.skip.contains(&own) {
                continue;
            }
            if self.line(dir, &name, &own)? == Some(FileType::Directory) {
                match open(dir, &name, OFlags::DIRECTORY) {
                    Ok(below) => self.directory(below.as_fd(), &format!("{own}/"), depth + 1)?,
                    Err(error) => self.listing.errors.push(format!("{own}: cannot be opened: {error}")),
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, text: &str) -> Result<(), String> {
        self.to.write_all(text.as_bytes()).map_err(|error| format!("cannot write the listing: {error}"))
    }

    /// The text of a column that may fail.
    fn or_error(&mut self, path: &str, what: &str, result: Result<String, Errno>) -> String {
        result.unwrap_or_else(|error| {
            self.listing.errors.push(format!("{path}: {what}: {error}"));
            format!("!{}", error.raw_os_error())
        })
    }

    /// Writes the line of one name; returns its type.
    fn line(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &str) -> Result<Option<FileType>, String> {
        self.listing.names += 1;
        let stat = match rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(error) => {
                self.listing.errors.push(format!("{path}: stat: {error}"));
                self.put(&format!("{path} !{}\n", error.raw_os_error()))?;
                return Ok(None);
            }
        };
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        let mut line = path.to_string();
        self.attributes(&mut line, &stat, kind, path);
        let columns = self.options.columns;
        if kind == FileType::Symlink && columns.has(Column::Link) {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).map(|target| escape(target.to_bytes()));
            line += &format!(" link={}", self.or_error(path, "readlink", target));
        }
        let fd = match kind {
            FileType::RegularFile | FileType::Directory => self.opened(&mut line, dir, name, path, kind, stat.stx_size),
            _ => None,
        };
        if columns.has(Column::Xattrs) {
            match xattrs(dir, name, fd, &mut self.buffer) {
                Ok(fields) => fields.into_iter().for_each(|(name, value)| {
                    line += &format!(
                        " {}={}",
                        escape(&name),
                        self.or_error(path, "getxattr", value.map(|value| hex(&value)))
                    );
                }),
                // What a filesystem without extended attributes says.
                Err(Errno::OPNOTSUPP) => {}
                Err(error) => line += &format!(" xattrs={}", self.or_error(path, "listxattr", Err(error))),
            }
        }
        self.put(&(line + "\n"))?;
        Ok(Some(kind))
    }

    /// The columns that stat gives.
    fn attributes(&mut self, line: &mut String, stat: &Statx, kind: FileType, path: &str) {
        let columns = self.options.columns;
        let directory = kind == FileType::Directory;
        let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let time = |time: StatxTimestamp| format!("{}.{:09}", time.tv_sec, time.tv_nsec);
        let mut add = |column: Column, name: &str, value: String| {
            if columns.has(column) {
                line.push_str(&format!(" {name}={value}"));
            }
        };
        add(Column::Type, "type", type_name(kind).into());
        add(Column::Mode, "mode", format!("{:04o}", stat.stx_mode & 0o7777));
        add(Column::Uid, "uid", stat.stx_uid.to_string());
        add(Column::Gid, "gid", stat.stx_gid.to_string());
        add(if directory { Column::DirSize } else { Column::Size }, "size", stat.stx_size.to_string());
        add(Column::Nlink, "nlink", stat.stx_nlink.to_string());
        if device {
            add(Column::Rdev, "rdev", format!("{}:{}", stat.stx_rdev_major, stat.stx_rdev_minor));
        }
        add(Column::Atime, "atime", time(stat.stx_atime));
        add(Column::Mtime, "mtime", time(stat.stx_mtime));
        add(Column::Ctime, "ctime", time(stat.stx_ctime));
        add(Column::Blocks, "blocks", stat.stx_blocks.to_string());
        add(Column::Ino, "ino", stat.stx_ino.to_string());
        if !directory && stat.stx_nlink > 1 {
            let first = self.seen.entry(stat.stx_ino).or_insert_with(|| path.to_string());
            add(Column::Same, "same", first.clone());
        }
    }

    /// The columns for which a file or directory must be opened; gives its descriptor.
    fn opened(
        &mut self,
        line: &mut String,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &str,
        kind: FileType,
        size: u64,
    ) -> Option<OwnedFd> {
        let columns = self.options.columns;
        let file = kind == FileType::RegularFile;
        let wants = |column| columns.has(column) && (file || column == Column::Flags);
        if !columns.has(Column::Xattrs) && ![Column::Content, Column::Data, Column::Flags].into_iter().any(wants) {
            return None;
        }
        let fd = match open(dir, name, OFlags::empty()) {
            Ok(fd) => fd,
            Err(error) => {
                *line += &format!(" content={}", self.or_error(path, "open", Err(error)));
                return None;
            }
        };
        if wants(Column::Content) {
            let hash = content::hash(&fd, size, self.options.whole);
            *line += &format!(" content={}", self.or_error(path, "read", hash));
        }
        if wants(Column::Data) {
            let ranges = content::data(&fd, size);
            let text = ranges
                .map(|ranges| ranges.iter().map(|(from, to)| format!("{from}-{to}")).collect::<Vec<_>>().join(","));
            *line += &format!(" data={}", self.or_error(path, "lseek", text));
        }
        if wants(Column::Flags) {
            let flags = rustix::fs::ioctl_getflags(&fd).map(|flags| format!("{:x}", flags.bits()));
            *line += &format!(" flags={}", self.or_error(path, "getflags", flags));
        }
        Some(fd)
    }
}

/// The names in a directory but `.` and `..`, sorted.
fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Opens for reading, without leaving a trace in the access time if that may be.
fn open(dir: BorrowedFd<'_>, name: &CStr, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

type Xattr = (Vec<u8>, Result<Vec<u8>, Errno>);

/// All extended attributes of a name, sorted; through its descriptor if there is one. `buffer` has room for the largest
/// value, so that one call does: a system call costs 0.1 ms in a guest.
fn xattrs(dir: BorrowedFd<'_>, name: &CStr, fd: Option<OwnedFd>, buffer: &mut [u8]) -> Result<Vec<Xattr>, Errno> {
    if let Some(fd) = fd {
        let used = rustix::fs::flistxattr(&fd, &mut *buffer)?;
        let list = buffer[..used].to_vec();
        return Ok(values(&list, |name| {
            rustix::fs::fgetxattr(&fd, name, &mut *buffer).map(|used| buffer[..used].to_vec())
        }));
    }
    // There is no "at" form; the way through /proc does not follow the last part of the path.
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = path.as_slice();
    let used = rustix::fs::llistxattr(path, &mut *buffer)?;
    let list = buffer[..used].to_vec();
    Ok(values(&list, |name| rustix::fs::lgetxattr(path, name, &mut *buffer).map(|used| buffer[..used].to_vec())))
}

/// The attributes of a list of names, each ended by a zero byte.
fn values(list: &[u8], mut get: impl FnMut(&[u8]) -> Result<Vec<u8>, Errno>) -> Vec<Xattr> {
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let mut found: Vec<Xattr> = names.map(|name| (name.to_vec(), get(name))).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn type_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "link",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Unknown => "unknown",
    }
}
