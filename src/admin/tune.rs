//! The superblock: what it says, and changing it (ondisk.md 1.4, 11.3).

use crate::device::{AlignedBuf, BlockDevice};
use crate::format::superblock::{FORMAT_MAX, FORMAT_MIN, SUPERBLOCK_OFFSET};
use crate::format::{OnDisk, Superblock};
use crate::volume::{Identity, OpenError, uuid_text};
use std::fmt;

/// Longest name of a filesystem within its lock table.
const NAME_MAX: usize = 30;
/// Longest lock table: its field holds a NUL too.
const TABLE_MAX: usize = 63;

/// What is to be changed; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// `lock_dlm` or `lock_nolock`.
    pub lockproto: Option<String>,
    /// `cluster:name`.
    pub locktable: Option<String>,
    /// UUID in textual order.
    pub uuid: Option<[u8; 16]>,
    /// The format, 1801 or 1802: never back.
    pub format: Option<u32>,
}

impl Changes {
    /// True when nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum TuneError {
    /// What was asked for makes no sense; in the stock tool's words.
    Wrong(String),
    /// There is no superblock that we know.
    Superblock(OpenError),
    /// The device failed.
    Device(std::io::Error),
}

impl fmt::Display for TuneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) => f.write_str(what),
            Self::Superblock(e) => e.fmt(f),
            Self::Device(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for TuneError {}

fn wrong(what: impl Into<String>) -> TuneError {
    TuneError::Wrong(what.into())
}

/// A superblock with these changes: pure.
pub fn changed(superblock: &Superblock, changes: &Changes) -> Result<Superblock, TuneError> {
    let mut sb = *superblock;
    if let Some(proto) = &changes.lockproto {
        if !["lock_dlm", "lock_nolock"].contains(&proto.as_str()) {
            return Err(wrong(format!("Invalid lock protocol: {proto}")));
        }
        put(&mut sb.lockproto, proto.as_bytes());
    }
    if let Some(table) = &changes.locktable {
        if table.len() > TABLE_MAX || table.contains('\0') {
            return Err(wrong("Invalid lock table: it is too long"));
        }
        put(&mut sb.locktable, table.as_bytes());
    }
    // Also where only one of the two is new: they must fit. A killed fsck leaves `fsck_dlm`.
    if (changes.lockproto.is_some() || changes.locktable.is_some()) && sb.lockproto().ends_with(b"_dlm") {
        check_table(sb.locktable())?;
    }
    if let Some(uuid) = changes.uuid {
        sb.uuid = uuid;
    }
    if let Some(format) = changes.format {
        if !(FORMAT_MIN..=FORMAT_MAX).contains(&format) {
            return Err(wrong(format!("Invalid format option '{format}'")));
        }
        if format < sb.fs_format.get() {
            return Err(wrong("Regressing the filesystem format is not supported"));
        }
        sb.fs_format.set(format);
    }
    Ok(sb)
}

/// A lock table that names a cluster and a filesystem.
fn check_table(table: &[u8]) -> Result<(), TuneError> {
    let invalid = |what: &str| Err(wrong(format!("Invalid lock table: {what}")));
    let mut parts = table.split(|&b| b == b':');
    match (parts.next(), parts.next(), parts.next()) {
        (_, None, _) => invalid("missing colon"),
        (_, _, Some(_)) => invalid("contains more than one colon"),
        (_, Some(name), _) if name.len() > NAME_MAX => invalid("file system name is too long"),
        _ => Ok(()),
    }
}

fn put(field: &mut [u8; 64], text: &[u8]) {
    field.fill(0);
    let len = text.len().min(TABLE_MAX);
    field[..len].copy_from_slice(&text[..len]);
}

/// Changes the superblock of a volume that nobody has mounted; durable when this returns. What it says now.
pub fn tune(device: &dyn BlockDevice, changes: &Changes) -> Result<Superblock, TuneError> {
    let id = Identity::read(device).map_err(TuneError::Superblock)?;
    let new = changed(&id.superblock, changes)?;
    if changes.is_empty() {
        return Ok(new);
    }
    // The block itself, unless the device has larger sectors: its neighbours are not ours to touch.
    let mut block = AlignedBuf::zeroed(id.bs.bytes().min(4096).max(device.alignment()));
    device.read(SUPERBLOCK_OFFSET, &mut block).map_err(TuneError::Device)?;
    *Superblock::edit(&mut block) = new;
    device.write_durable(SUPERBLOCK_OFFSET, &block).map_err(TuneError::Device)?;
    Ok(new)
}

/// A UUID in its usual form, with hyphens.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let hyphenated = text.len() == 36;
    uuid::Uuid::parse_str(text).ok().filter(|_| hyphenated).map(uuid::Uuid::into_bytes)
}

/// What `-l` shows: names, as people see them and as JSON has them, and values.
pub fn listing(sb: &Superblock) -> Vec<(&'static str, &'static str, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    vec![
        ("File system volume name", "label", text(sb.locktable())),
        ("File system UUID", "uuid", uuid_text(&sb.uuid)),
        ("File system magic number", "magic", format!("0x{:X}", sb.header.magic.get())),
        ("File system format version", "format", sb.fs_format.get().to_string()),
        ("Block size", "block_size", sb.bsize.get().to_string()),
        ("Block shift", "block_shift", sb.bsize_shift.get().to_string()),
        ("Root inode", "root", sb.root_dir.addr.get().to_string()),
        ("Master inode", "master", sb.master_dir.addr.get().to_string()),
        ("Lock protocol", "lock_protocol", text(sb.lockproto())),
        ("Lock table", "lock_table", text(sb.locktable())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn superblock(proto: &str, table: &str) -> Superblock {
        let mut sb = Superblock::new_zeroed();
        put(&mut sb.lockproto, proto.as_bytes());
        put(&mut sb.locktable, table.as_bytes());
        sb.fs_format.set(1802);
        sb
    }
    fn says(sb: &Superblock, changes: Changes) -> String {
        changed(sb, &changes).map_or_else(|e| e.to_string(), |sb| String::from_utf8_lossy(sb.locktable()).into_owned())
    }

    #[test]
    fn the_stock_tools_rules() {
        let dlm = superblock("lock_dlm", "c:fs");
        let table = |t: &str| Changes { locktable: Some(t.into()), ..Changes::default() };
        let proto = |p: &str| Changes { lockproto: Some(p.into()), ..Changes::default() };
        assert_eq!(says(&dlm, table("lab")), "Invalid lock table: missing colon");
        assert_eq!(says(&dlm, table("a:b:c")), "Invalid lock table: contains more than one colon");
        assert_eq!(
            says(&dlm, table(&format!("a:{}", "n".repeat(31)))),
            "Invalid lock table: file system name is too long"
        );
        assert_eq!(says(&dlm, table("c:new")), "c:new");
        assert_eq!(says(&dlm, proto("x")), "Invalid lock protocol: x");
        assert_eq!(says(&superblock("lock_nolock", "abc"), table("lab")), "lab");
        // A table without a cluster does not go with lock_dlm, whichever comes last.
        assert_eq!(says(&superblock("lock_nolock", "abc"), proto("lock_dlm")), "Invalid lock table: missing colon");
        let both = Changes { locktable: Some("abc".into()), ..proto("lock_nolock") };
        assert_eq!(says(&dlm, both), "abc");
        // What a killed fsck left.
        let left = superblock("fsck_dlm", "c:fs");
        assert_eq!(changed(&left, &proto("lock_dlm")).expect("mended").lockproto(), b"lock_dlm");
        let format = |n| Changes { format: Some(n), ..Changes::default() };
        assert_eq!(says(&dlm, format(1900)), "Invalid format option '1900'");
        assert_eq!(says(&dlm, format(1801)), "Regressing the filesystem format is not supported");
        assert_eq!(says(&dlm, format(1802)), "c:fs");
    }

    #[test]
    fn uuids() {
        let text = "12345678-1234-abcd-1234-123456789abc";
        assert_eq!(uuid_text(&parse_uuid(text).expect("good")), text);
        for bad in [
            "",
            "zz",
            "12345678-1234-abcd-1234-123456789abg",
            "12345678-1234-abcd-1234123456789abcd",
            "é2345678-1234-abcd-1234-123456789ab",
        ] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
    }
}
