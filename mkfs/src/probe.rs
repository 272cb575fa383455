//! What is on a device already: filesystems and partition tables, by the marks they leave.
//!
//! The usual ones are known here by the names blkid(8) gives them; when none is found and blkid is installed, it is asked,
//! since it knows a hundred more.

use gfs2r::device::BlockDevice;
use std::path::Path;
use std::process::{Command, Stdio};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A filesystem, or something else that holds data (swap, RAID, LVM …).
    Filesystem(String),
    /// A partition table.
    PartitionTable(String),
}

impl Found {
    /// The sentence for the user.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Filesystem(name) => format!("It appears to contain an existing filesystem ({name})"),
            Self::PartitionTable(name) => format!("It appears to contain a partition table ({name})."),
        }
    }
}

/// A mark: offset, bytes, name.
const MARKS: [(u64, &[u8], &str); 17] = [
    (65536, &[0x01, 0x16, 0x19, 0x70, 0, 0, 0, 1], "gfs2"),
    (0, b"XFSB", "xfs"),
    (65600, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "crypto_LUKS"),
    (536, b"LVM2 001", "LVM2_member"),
    (24, b"LVM2 001", "LVM2_member"),
    (4086, b"SWAPSPACE2", "swap"),
    (4086, b"SWAP-SPACE", "swap"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (82, b"FAT32   ", "vfat"),
    (54, b"FAT1", "vfat"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
    (32769, b"CD001", "iso9660"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "linux_raid_member"),
    (4096, b"OCFSV2", "ocfs2"),
    (0, b"hsqs", "squashfs"),
];

/// Looks at a device; `None` when nothing is known to be there. A device that cannot be read there holds nothing we know.
pub(crate) fn probe(device: &dyn BlockDevice, path: &Path) -> Option<Found> {
    let mut head = vec![0; 70 << 10];
    head.truncate(usize::try_from(device.size()).unwrap_or(usize::MAX));
    let readable = device.read(0, &mut head).is_ok();
    let known = if readable { marks(&head) } else { None };
    known.or_else(|| ask_blkid(path))
}

fn marks(head: &[u8]) -> Option<Found> {
    let at = |offset: u64, bytes: &[u8]| head.get(offset as usize..).is_some_and(|rest| rest.starts_with(bytes));
    if let Some(name) = ext(head) {
        return Some(Found::Filesystem(name.into()));
    }
    if let Some((_, _, name)) = MARKS.iter().find(|(offset, bytes, _)| at(*offset, bytes)) {
        return Some(Found::Filesystem((*name).into()));
    }
    if at(512, b"EFI PART") || at(4096, b"EFI PART") {
        return Some(Found::PartitionTable("gpt".into()));
    }
    // Many things end their first sector like this; a partition table has sane flags and at least one type.
    let entries: Vec<&[u8]> = head.get(446..510)?.chunks(16).collect();
    let sane = entries.iter().all(|e| e[0] & 0x7f == 0) && entries.iter().any(|e| e[4] != 0);
    (at(510, &[0x55, 0xaa]) && sane).then(|| Found::PartitionTable("dos".into()))
}

/// ext2, ext3 and ext4 differ in features only.
fn ext(head: &[u8]) -> Option<&'static str> {
    let sb = head.get(1024..2048)?;
    if sb[56..58] != [0x53, 0xef] {
        return None;
    }
    let word = |at: usize| u32::from(sb[at]) | u32::from(sb[at + 1]) << 8 | u32::from(sb[at + 2]) << 16;
    let (compatible, incompatible, read_only) = (word(92), word(96), word(100));
    // Extents, 64-bit, flexible groups; huge files, checksums of groups, many links.
    if incompatible & 0x2c0 != 0 || read_only & 0x78 != 0 {
        return Some("ext4");
    }
    Some(if compatible & 4 != 0 { "ext3" } else { "ext2" })
}

fn ask_blkid(path: &Path) -> Option<Found> {
    let ask = |tag: &str| {
        let mut command = Command::new("blkid");
        command.args(["-p", "-o", "value", "-s", tag, "--"]).arg(path).stderr(Stdio::null());
        let out = command.output().ok().filter(|out| out.status.success())?;
        let name = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        (!name.is_empty()).then_some(name)
    };
    ask("TYPE").map(Found::Filesystem).or_else(|| ask("PTTYPE").map(Found::PartitionTable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_where_they_are() {
        for (offset, bytes, name) in MARKS {
            let mut head = vec![0; 70 << 10];
            head[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            assert_eq!(marks(&head), Some(Found::Filesystem(name.into())));
        }
        assert_eq!(marks(&[0; 4096]), None);
        assert_eq!(marks(&[]), None);
    }

    #[test]
    fn boot_sectors_are_not_all_partition_tables() {
        let mut head = vec![0; 4096];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(marks(&head), None);
        head[450] = 0x83;
        assert_eq!(marks(&head), Some(Found::PartitionTable("dos".into())));
    }
}
