//! An archive of a volume's files in the PAX format (POSIX.1-2001), as GNU tar reads and writes it: nanoseconds, extended
//! attributes (`SCHILY.xattr`), sparse files (`GNU.sparse` 1.0), names and sizes of any length.

use super::{Met, Reader, Step};
use crate::format::dinode::mode::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};
use crate::ids::BlockAddr;
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BLOCK: usize = 512;
const CHUNK: u64 = 1 << 20;

/// Writes archives.
pub struct Archive<'r, W> {
    reader: &'r Reader,
    out: W,
    written: u64,
    /// Names of files with several.
    links: HashMap<BlockAddr, Vec<u8>>,
}

/// The variable part of a member's header.
struct Member<'m> {
    name: &'m [u8],
    link: &'m [u8],
    kind: u8,
    size: u64,
    pax: Vec<u8>,
}

impl<'r, W: Write> Archive<'r, W> {
    /// Begins an archive.
    pub fn new(reader: &'r Reader, out: W) -> Self {
        Self { reader, out, written: 0, links: HashMap::new() }
    }

    /// Adds `from` and all that is below it. `wrong` is told of what cannot be read. Errors: of the output.
    pub fn add(&mut self, from: Met, wrong: &mut dyn FnMut(&Path, &str)) -> io::Result<()> {
        let reader = self.reader;
        reader.walk(from, &mut |step| match step {
            Step::Enter(met) => self.member(met, wrong),
            Step::Leave(_) => Ok(()),
            Step::Damaged(path, e) => {
                wrong(path, &e.to_string());
                Ok(())
            }
        })
    }

    /// Ends the archive: two empty blocks, and the record of 20 filled up.
    pub fn finish(mut self) -> io::Result<()> {
        let end = (self.written + 2 * BLOCK as u64).next_multiple_of(20 * BLOCK as u64);
        self.out.write_all(&vec![0; (end - self.written) as usize])?;
        self.out.flush()
    }

    fn member(&mut self, met: &Met, wrong: &mut dyn FnMut(&Path, &str)) -> io::Result<()> {
        let d = &met.dinode;
        let mut name = met.path.as_os_str().as_bytes().to_vec();
        while name.first() == Some(&b'/') {
            name.remove(0);
        }
        if name.is_empty() {
            name.push(b'.');
        }
        let kind = match d.mode.get() & S_IFMT {
            S_IFREG => b'0',
            S_IFLNK => b'2',
            S_IFCHR => b'3',
            S_IFBLK => b'4',
            S_IFDIR => b'5',
            S_IFIFO => b'6',
            S_IFSOCK => {
                wrong(&met.path, "a socket: archives hold none");
                return Ok(());
            }
            _ => {
                wrong(&met.path, "a file of no known type");
                return Ok(());
            }
        };
        if kind == b'5' {
            name.push(b'/');
        }
        let mut member = Member { name: &name, link: &[], kind, size: 0, pax: Vec::new() };
        if kind != b'5' && d.nlink.get() > 1 {
            if let Some(first) = self.links.get(&met.inum.addr) {
                let first = first.clone();
                member.kind = b'1';
                member.link = &first;
                return self.header(met, member);
            }
            self.links.insert(met.inum.addr, name.clone());
        }
        match self.reader.xattrs(met.inum) {
            Ok(all) => all.iter().for_each(|(n, v)| record(&mut member.pax, &[b"SCHILY.xattr.", &n[..]].concat(), v)),
            Err(e) => wrong(&met.path, &e.to_string()),
        }
        match kind {
            b'2' => match self.reader.link_target(met) {
                Ok(target) => {
                    member.link = &target;
                    self.header(met, member)
                }
                Err(e) => {
                    wrong(&met.path, &e.to_string());
                    Ok(())
                }
            },
            b'0' => self.file(met, member, wrong),
            _ => self.header(met, member),
        }
    }

    fn file(&mut self, met: &Met, member: Member<'_>, wrong: &mut dyn FnMut(&Path, &str)) -> io::Result<()> {
        let size = met.dinode.size.get();
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < size {
            match self.reader.data_after(met.inum, at) {
                Ok(Some((start, end))) if end > at => {
                    pieces.push((start, end - start));
                    at = end;
                }
                Ok(_) => break,
                Err(e) => {
                    wrong(&met.path, &e.to_string());
                    break;
                }
            }
        }
        let data: u64 = pieces.iter().map(|(_, len)| len).sum();
        let mut map = Vec::new();
        let inner;
        let mut member = member;
        if data < size {
            // A last piece of no length says where the file ends.
            if pieces.last().is_none_or(|(start, len)| start + len < size) {
                pieces.push((size, 0));
            }
            writeln!(map, "{}", pieces.len())?;
            pieces.iter().try_for_each(|(start, len)| write!(map, "{start}\n{len}\n"))?;
            map.resize(map.len().next_multiple_of(BLOCK), 0);
            record(&mut member.pax, b"GNU.sparse.major", b"1");
            record(&mut member.pax, b"GNU.sparse.minor", b"0");
            record(&mut member.pax, b"GNU.sparse.name", member.name);
            record(&mut member.pax, b"GNU.sparse.realsize", size.to_string().as_bytes());
            let base = member.name.rsplit(|&b| b == b'/').next().unwrap_or(b"");
            inner = [b"GNUSparseFile.0/", base].concat();
            member.name = &inner;
        }
        member.size = map.len() as u64 + data;
        self.header(met, member)?;
        self.put(&map)?;
        let mut buf = vec![0; CHUNK.min(data.next_multiple_of(65536)) as usize];
        for (start, len) in pieces {
            let mut done = 0;
            while done < len {
                let n = (len - done).min(buf.len() as u64) as usize;
                let read = self.reader.read(met.inum, start + done, &mut buf[..n]);
                // The length is promised: what cannot be read is zeros.
                let got = read.unwrap_or_else(|e| {
                    wrong(&met.path, &format!("at byte {}: {e}", start + done));
                    0
                });
                buf[got.min(n)..n].fill(0);
                self.put(&buf[..n])?;
                done += n as u64;
            }
        }
        self.pad()
    }

    /// Writes a member's headers.
    fn header(&mut self, met: &Met, mut member: Member<'_>) -> io::Result<()> {
        let d = &met.dinode;
        let mut pax = Vec::new();
        if member.name.len() > 100 || !member.name.is_ascii() {
            record(&mut pax, b"path", member.name);
        }
        if member.link.len() > 100 || !member.link.is_ascii() {
            record(&mut pax, b"linkpath", member.link);
        }
        for (key, value) in [(&b"uid"[..], d.uid.get().into()), (b"gid", d.gid.get().into()), (b"size", member.size)] {
            let most = if key == b"size" { 0o77_777_777_777 } else { 0o7_777_777 };
            if value > most {
                record(&mut pax, key, value.to_string().as_bytes());
            }
        }
        for (key, t) in [(&b"mtime"[..], d.mtime()), (b"atime", d.atime()), (b"ctime", d.ctime())] {
            record(&mut pax, key, seconds(t).as_bytes());
        }
        pax.append(&mut member.pax);
        let name =
            [b"PaxHeaders/", member.name.rsplit(|&b| b == b'/').find(|p| !p.is_empty()).unwrap_or(b"x")].concat();
        let size = pax.len() as u64;
        self.ustar(met, &Member { name: &name, link: &[], kind: b'x', size, pax: Vec::new() })?;
        self.put(&pax)?;
        self.pad()?;
        self.ustar(met, &member)
    }

    fn ustar(&mut self, met: &Met, member: &Member<'_>) -> io::Result<()> {
        let d = &met.dinode;
        let mut h = [0u8; BLOCK];
        let fit = |field: &mut [u8], bytes: &[u8]| {
            let n = bytes.len().min(field.len());
            field[..n].copy_from_slice(&bytes[..n]);
        };
        fit(&mut h[..100], member.name);
        octal(&mut h[100..108], u64::from(d.mode.get() & 0o7777));
        octal(&mut h[108..116], d.uid.get().into());
        octal(&mut h[116..124], d.gid.get().into());
        octal(&mut h[124..136], member.size);
        octal(&mut h[136..148], u64::try_from(d.mtime().sec).unwrap_or(0));
        h[156] = member.kind;
        fit(&mut h[157..257], member.link);
        h[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut h[329..337], d.major.get().into());
        octal(&mut h[337..345], d.minor.get().into());
        h[148..156].fill(b' ');
        let sum: u64 = h.iter().map(|&b| u64::from(b)).sum();
        octal(&mut h[148..155], sum);
        self.put(&h)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let rest = (self.written.next_multiple_of(BLOCK as u64) - self.written) as usize;
        self.put(&[0; BLOCK][..rest])
    }
}

/// An octal number and a NUL; one that does not fit stands in the PAX record.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() == digits {
        field[..digits].copy_from_slice(text.as_bytes());
    } else {
        field[..digits].fill(b'7');
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    to.extend_from_slice(len.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// Seconds since 1970 with nanoseconds, as a decimal number.
fn seconds(t: crate::clock::Timestamp) -> String {
    let total = i128::from(t.sec) * 1_000_000_000 + i128::from(t.nsec);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000)
}
