//! The records of a directory block (ondisk.md 5.2): shared by checker and reader.

use gfs2r::format::OnDisk;
use gfs2r::format::directory::{DIRENT_SIZE, Dirent};

/// A live entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawDirent<'b> {
    /// {formal, addr}.
    pub(crate) inum: (u64, u64),
    pub(crate) hash: u32,
    pub(crate) kind: u16,
    pub(crate) name: &'b [u8],
}

/// Why the chain of records ends before the block does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordFault {
    /// A broken record.
    Record { offset: u32, what: &'static str },
    /// An unused record that is not the first. The chain goes on after it.
    Sentinel { offset: u32 },
}

/// The live entries of a block whose records start at `start`.
pub(crate) struct Dirents<'b> {
    block: &'b [u8],
    start: usize,
    at: usize,
}

impl<'b> Dirents<'b> {
    pub(crate) fn new(block: &'b [u8], start: usize) -> Self {
        Self { block, start, at: start }
    }
    fn broken(&mut self, what: &'static str) -> Option<Result<RawDirent<'b>, RecordFault>> {
        let offset = self.at as u32;
        self.at = self.block.len();
        Some(Err(RecordFault::Record { offset, what }))
    }
}

impl<'b> Iterator for Dirents<'b> {
    type Item = Result<RawDirent<'b>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let at = self.at;
            if at >= self.block.len() {
                return None;
            }
            if self.block.len() - at < DIRENT_SIZE {
                return self.broken("too near to the end of the block");
            }
            let dirent = Dirent::view(&self.block[at..]);
            let (rec_len, name_len) = (usize::from(dirent.rec_len.get()), usize::from(dirent.name_len.get()));
            if rec_len < DIRENT_SIZE || rec_len % 8 != 0 {
                return self.broken("record length too small or not a multiple of 8");
            }
            if rec_len > self.block.len() - at {
                return self.broken("record passes the end of the block");
            }
            let inum = (dirent.inum.formal.get(), dirent.inum.addr.get());
            if inum.0 == 0 || inum.1 == 0 {
                // A stale name must fit as well: the stock tools take the block for corrupt otherwise.
                if DIRENT_SIZE + name_len > rec_len {
                    return self.broken("name length does not fit its unused record");
                }
                self.at += rec_len;
                if at == self.start {
                    continue;
                }
                return Some(Err(RecordFault::Sentinel { offset: at as u32 }));
            }
            if name_len == 0 || name_len > 255 || DIRENT_SIZE + name_len > rec_len {
                return self.broken("name length is 0 or does not fit its record");
            }
            self.at += rec_len;
            let name = &self.block[at + DIRENT_SIZE..at + DIRENT_SIZE + name_len];
            return Some(Ok(RawDirent { inum, hash: dirent.hash.get(), kind: dirent.kind.get(), name }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(block: &mut [u8], at: usize, rec_len: u16, addr: u64, name: &[u8]) {
        let d = Dirent::edit(&mut block[at..]);
        d.inum.formal.set(u64::from(addr != 0));
        d.inum.addr.set(addr);
        d.rec_len.set(rec_len);
        d.name_len.set(name.len() as u16);
        block[at + 40..at + 40 + name.len()].copy_from_slice(name);
    }

    #[test]
    fn a_sentinel_is_first_or_wrong() {
        let mut block = vec![0; 512];
        put(&mut block, 104, 48, 0, b"");
        put(&mut block, 152, 48, 7, b"seven");
        put(&mut block, 200, 312, 8, b"eight");
        let names: Vec<_> = Dirents::new(&block, 104).map(|d| d.expect("live").name.to_vec()).collect();
        assert_eq!(names, [b"seven", b"eight"]);
        put(&mut block, 152, 48, 0, b"seven");
        let faults: Vec<_> = Dirents::new(&block, 104).filter_map(Result::err).collect();
        assert_eq!(faults, [RecordFault::Sentinel { offset: 152 }]);
    }

    #[test]
    fn an_unused_record_has_room_for_its_name() {
        let mut block = vec![0; 512];
        put(&mut block, 104, 48, 0, b"");
        put(&mut block, 152, 360, 7, b"seven");
        Dirent::edit(&mut block[104..]).name_len.set(9);
        let all: Vec<_> = Dirents::new(&block, 104).collect();
        assert!(matches!(all[..], [Err(RecordFault::Record { offset: 104, .. })]), "{all:?}");
    }

    #[test]
    fn broken_records_end_the_walk() {
        for (rec_len, name) in [(0, "x"), (44, "x"), (416, "x"), (48, "nine chars")] {
            let mut block = vec![0; 512];
            put(&mut block, 104, rec_len, 7, name.as_bytes());
            let all: Vec<_> = Dirents::new(&block, 104).collect();
            assert!(matches!(all[..], [Err(RecordFault::Record { offset: 104, .. })]), "{rec_len} {name}: {all:?}");
        }
    }
}
