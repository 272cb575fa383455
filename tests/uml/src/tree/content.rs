//! The canonical hash of a file's contents.
//!
//! SHA-256 over, for each 4096-byte piece that is not all zeros in the order of their offsets, the offset (64-bit
//! little-endian) and the piece (the last one filled up with zeros), and at the end the file's size. So a hole and
//! written zeros give the same hash, and a sparse file of terabytes is hashed in no time. Written as 32 hex digits.

use rustix::fd::AsFd;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, pread};
use sha2::{Digest, Sha256};

/// The unit of the hash; not related to the filesystem's block size.
const PIECE: usize = 4096;
/// How much is read at once; a multiple of [`PIECE`].
const BUFFER: usize = 64 * PIECE;

/// A hash in the making. Pieces must come in the order of their offsets.
#[derive(Default)]
struct Hash(Sha256);

impl Hash {
    /// Takes bytes that start at `offset`, a multiple of [`PIECE`].
    fn add(&mut self, offset: u64, bytes: &[u8]) {
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            if piece != &[0u8; PIECE][..piece.len()] {
                self.0.update((offset + (index * PIECE) as u64).to_le_bytes());
                self.0.update(piece);
                self.0.update(&[0u8; PIECE][piece.len()..]);
            }
        }
    }

    fn end(mut self, size: u64) -> String {
        self.0.update(size.to_le_bytes());
        super::hex(&self.0.finalize()[..16])
    }
}

/// The canonical hash of a file that is open for reading and has `size` bytes. Up to `whole` bytes every byte is read,
/// holes too; a larger file is read only where SEEK_DATA says that there is data.
///
/// # Errors
/// Those of lseek and read; EIO when the file ends before `size`.
pub fn hash(file: impl AsFd, size: u64, whole: u64) -> Result<String, Errno> {
    let mut hash = Hash::default();
    if size <= whole {
        add_range(&file, &mut hash, 0, size, size)?;
    } else {
        let piece = PIECE as u64;
        let mut done = 0; // what lies before has been hashed
        for (from, to) in data(&file, size)? {
            // Ranges need not start and end at a piece's border; no piece may come twice.
            let from = (from / piece * piece).max(done);
            let to = to.div_ceil(piece).saturating_mul(piece).min(size);
            add_range(&file, &mut hash, from, to, size)?;
            done = to.div_ceil(piece).saturating_mul(piece).max(done);
        }
    }
    Ok(hash.end(size))
}

/// The canonical hash of bytes in memory, equal to that of a file with these contents.
pub fn hash_of(bytes: &[u8]) -> String {
    let mut hash = Hash::default();
    hash.add(0, bytes);
    hash.end(bytes.len() as u64)
}

/// Where a file has data: ranges `(from, to)` in order, as SEEK_DATA and SEEK_HOLE say.
///
/// # Errors
/// Those of lseek; EIO for an answer that makes no sense (a range that does not go forward).
pub fn data(file: impl AsFd, size: u64) -> Result<Vec<(u64, u64)>, Errno> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let from = match seek(&file, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => break, // a hole to the end
            Err(error) => return Err(error),
        };
        let to = seek(&file, SeekFrom::Hole(from))?;
        if from < at || to <= from || to > size {
            return Err(Errno::IO);
        }
        ranges.push((from, to));
        at = to;
    }
    Ok(ranges)
}

fn add_range(file: impl AsFd, hash: &mut Hash, from: u64, to: u64, size: u64) -> Result<(), Errno> {
    if from >= to {
        return Ok(());
    }
    // No larger than needed: touching new memory is what costs most in a guest.
    let mut buffer = vec![0u8; (to - from).min(BUFFER as u64) as usize];
    let mut at = from;
    while at < to {
        let want = (to - at).min(BUFFER as u64) as usize; // at most BUFFER, fits
        let mut got = 0;
        while got < want {
            match pread(&file, &mut buffer[got..want], at + got as u64) {
                Ok(0) if at + (got as u64) < size => return Err(Errno::IO),
                Ok(0) => break,
                Ok(n) => got += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        hash.add(at, &buffer[..got]);
        at += want as u64;
    }
    Ok(())
}
