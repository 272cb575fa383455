//! The columns of a listing.

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Column {
    /// file, dir, link, char, block, fifo, socket.
    Type,
    /// Permission bits, octal, with setuid, setgid and sticky.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Size in bytes, of everything but directories.
    Size,
    /// Size in bytes of directories.
    DirSize,
    /// Number of links.
    Nlink,
    /// Device number of device nodes, MAJOR:MINOR.
    Rdev,
    /// Last access, seconds.nanoseconds.
    Atime,
    /// Last change of the contents.
    Mtime,
    /// Last change of the inode.
    Ctime,
    /// The first path of the same inode, for files with several links.
    Same,
    /// Target of a symlink.
    Link,
    /// Hash of a file's contents.
    Content,
    /// Extended attributes of all namespaces, one field each.
    Xattrs,
    /// Allocated space in units of 512 bytes. Not in the default.
    Blocks,
    /// Where a file has data, as SEEK_DATA and SEEK_HOLE say. Not in the default.
    Data,
    /// Inode flags of `lsattr`, hex; files and directories. Not in the default.
    Flags,
    /// Inode number (GFS2: the address of the dinode). Not in the default.
    Ino,
}

use Column::*;

const ALL: [(Column, &str); 19] = [
    (Type, "type"),
    (Mode, "mode"),
    (Uid, "uid"),
    (Gid, "gid"),
    (Size, "size"),
    (DirSize, "dirsize"),
    (Nlink, "nlink"),
    (Rdev, "rdev"),
    (Atime, "atime"),
    (Mtime, "mtime"),
    (Ctime, "ctime"),
    (Same, "same"),
    (Link, "link"),
    (Content, "content"),
    (Xattrs, "xattrs"),
    (Blocks, "blocks"),
    (Data, "data"),
    (Flags, "flags"),
    (Ino, "ino"),
];

/// A set of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns(u32);

impl Default for Columns {
    /// All but blocks, data, flags and ino.
    fn default() -> Columns {
        let mut columns = Columns(0);
        for (column, _) in ALL {
            columns = columns.with(column);
        }
        columns.without(Blocks).without(Data).without(Flags).without(Ino)
    }
}

impl Columns {
    /// The set and one more column.
    pub fn with(self, column: Column) -> Columns {
        Columns(self.0 | 1 << column as u32)
    }

    /// The set without a column.
    pub fn without(self, column: Column) -> Columns {
        Columns(self.0 & !(1 << column as u32))
    }

    /// Whether a column is in the set.
    pub fn has(self, column: Column) -> bool {
        self.0 & 1 << column as u32 != 0
    }
}

impl std::str::FromStr for Column {
    type Err = String;

    fn from_str(name: &str) -> Result<Column, String> {
        let found = ALL.iter().find(|(_, known)| *known == name);
        found.map(|(column, _)| *column).ok_or_else(|| format!("no column {name:?}"))
    }
}
