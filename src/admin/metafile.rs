//! The file that `gfs2_edit savemeta` writes (ondisk.md 11.4): a header and records, each a block without its trailing zeros;
//! plain, or packed with gzip. bzip2 is read too.
//!
//! Reading trusts nothing: whatever the bytes are, it ends, and keeps one record in memory.

use crate::format::OnDisk;
use crate::format::be;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: u32 = 0x0117_1970;
const FORMAT: u32 = 1;
/// Bytes of buffer on either side of a (de)compressor.
const BUFFER: usize = 256 << 10;
/// Longest record: its length has 16 bits.
pub const RECORD_MAX: usize = u16::MAX as usize;

/// The header of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileHeader {
    magic: be::U32,
    format: be::U32,
    time: be::U64,
    fs_bytes: be::U64,
    reserved: [u8; 104],
}
const _: () = assert!(size_of::<FileHeader>() == 128);

/// What precedes a block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHeader {
    block: be::U64,
    length: be::U16,
}
const _: () = assert!(size_of::<RecordHeader>() == 10);

enum Sink {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
        }
    }
}

/// Writes a metadata file.
pub struct Writer {
    sink: Sink,
    records: u64,
}

impl Writer {
    /// Begins a file for a filesystem of `fs_bytes`. `level`: 1 to 9 for gzip, 0 for none.
    pub fn new(file: File, fs_bytes: u64, level: u32) -> io::Result<Self> {
        let out = BufWriter::with_capacity(BUFFER, file);
        let mut sink = match level {
            0 => Sink::Plain(out),
            level => Sink::Gzip(Box::new(GzEncoder::new(out, flate2::Compression::new(level.min(9))))),
        };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let header = FileHeader {
            magic: MAGIC.into(),
            format: FORMAT.into(),
            time: time.into(),
            fs_bytes: fs_bytes.into(),
            reserved: [0; 104],
        };
        sink.write(header.as_bytes())?;
        Ok(Self { sink, records: 0 })
    }

    /// Adds a block. Errors: of the file; `InvalidInput` for a full block of 64 KiB, whose length no record can hold.
    pub fn block(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        // One byte at least: a record says that the block is zero where an old disk may hold something else.
        let used = bytes.iter().rposition(|&b| b != 0).map_or(1, |last| last + 1).min(bytes.len());
        let length = u16::try_from(used)
            .map_err(|_| io::Error::new(ErrorKind::InvalidInput, format!("block {number} is too long for a record")))?;
        let header = RecordHeader { block: number.into(), length: length.into() };
        self.sink.write(header.as_bytes())?;
        self.sink.write(&bytes[..used])?;
        self.records += 1;
        Ok(())
    }

    /// Blocks written so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Ends the file; it is durable when this returns.
    pub fn finish(self) -> io::Result<()> {
        let out = match self.sink {
            Sink::Plain(out) => out,
            Sink::Gzip(out) => out.finish()?,
        };
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// Reads a metadata file.
pub struct Reader {
    input: Box<dyn Read>,
    fs_bytes: u64,
    time: u64,
}

impl Reader {
    /// Begins; `InvalidData` when it is no metadata file.
    pub fn new(file: File) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(BUFFER, file);
        let start: Vec<u8> = raw.fill_buf()?.iter().take(3).copied().collect();
        let mut input: Box<dyn Read> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw)))
        } else if start == b"BZh" {
            Box::new(BufReader::with_capacity(BUFFER, MultiBzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        let mut bytes = [0; size_of::<FileHeader>()];
        let alien = || wrong("not a file of saved metadata");
        input.read_exact(&mut bytes).map_err(|e| if e.kind() == ErrorKind::UnexpectedEof { alien() } else { e })?;
        let header = FileHeader::view(&bytes);
        if header.magic.get() != MAGIC {
            return Err(alien());
        }
        if header.format.get() != FORMAT {
            return Err(wrong(&format!("saved metadata of the unknown format {}", header.format.get())));
        }
        Ok(Self { input, fs_bytes: header.fs_bytes.get(), time: header.time.get() })
    }

    /// Bytes of the filesystem that was saved.
    pub fn fs_bytes(&self) -> u64 {
        self.fs_bytes
    }

    /// When it was saved, in seconds since 1970.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The next block: its number; `bytes` becomes what was saved of it. `None` at the end; `InvalidData` for a file that is
    /// cut short.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let mut header = [0; size_of::<RecordHeader>()];
        if !fill(&mut self.input, &mut header)? {
            return Ok(None);
        }
        let header = RecordHeader::view(&header);
        bytes.resize(usize::from(header.length.get()), 0);
        if !bytes.is_empty() && !fill(&mut self.input, bytes)? {
            return Err(cut());
        }
        Ok(Some(header.block.get()))
    }
}

/// Fills `buf`; false when the input has ended before its first byte.
fn fill(input: &mut dyn Read, buf: &mut [u8]) -> io::Result<bool> {
    let mut done = 0;
    while done < buf.len() {
        match input.read(&mut buf[done..]) {
            Ok(0) if done == 0 => return Ok(false),
            Ok(0) => return Err(cut()),
            Ok(n) => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn cut() -> io::Error {
    wrong("the saved metadata ends in the middle of a block")
}
