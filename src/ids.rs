//! Every identifier as a type of its own, so that a block of a file is never mistaken for a block of the device.

use std::fmt;
use std::num::NonZeroU64;

/// Address of a filesystem block: its number from the start of the device (ondisk.md, conventions).
///
/// Block 0 is the boot area and can be owned by nobody, so an on-disk pointer is `Option<BlockAddr>` and a hole is `None`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockAddr(NonZeroU64);

impl BlockAddr {
    /// The address with this number; `None` for 0, which is a hole.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
    /// The block number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
    /// The address `blocks` further on; `None` when it would pass 2^64.
    pub fn checked_add(self, blocks: u64) -> Option<Self> {
        self.0.checked_add(blocks).map(Self)
    }
    /// The address `blocks` further on, at most 2^64-1.
    pub fn saturating_add(self, blocks: u64) -> Self {
        Self(self.0.saturating_add(blocks))
    }
    /// A pointer as it stands on the disk: 0 for a hole.
    pub fn raw(pointer: Option<Self>) -> u64 {
        pointer.map_or(0, Self::get)
    }
}

impl fmt::Debug for BlockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
impl fmt::Display for BlockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a block within a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileBlock(pub u64);

/// Number of a block within a journal; wraps at the journal's size, so it is ordered only by [`LogSeq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogBlock(pub u32);

/// Sequence number of a log header (ondisk.md 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSeq(pub u64);

/// Number of a log batch of this mount: 1 for the first. A batch is what one log flush commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Journal id: a slot, not a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jid(pub u32);

/// Formal inode number: which life of a block address is meant (ondisk.md 1.6). Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormalIno(pub u64);

/// Identity of an inode: the pair, since an address may live twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inum {
    /// Which life.
    pub formal: FormalIno,
    /// Where.
    pub addr: BlockAddr,
}

/// Hash of a name in a directory (ondisk.md 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirHash(pub u32);

/// Block size of a volume: a power of two from 512 to 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    shift: u8,
}

impl BlockSize {
    /// `bytes` as a block size; `None` unless it is a power of two in 512..=65536.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 512 && bytes <= 65536 {
            Some(Self { shift: bytes.trailing_zeros() as u8 })
        } else {
            None
        }
    }
    /// Bytes in a block.
    pub const fn bytes(self) -> usize {
        1 << self.shift
    }
    /// log2 of the bytes in a block.
    pub const fn shift(self) -> u32 {
        self.shift as u32
    }
    /// Byte offset of a block on the device. Saturates, so that a wild address fails at the device and not here.
    pub const fn offset(self, addr: BlockAddr) -> u64 {
        addr.get().saturating_mul(1 << self.shift)
    }
    /// The block that holds this byte of a device or file.
    pub const fn block_of(self, byte: u64) -> u64 {
        byte >> self.shift
    }
    /// Offset of a byte within its block.
    pub const fn within(self, byte: u64) -> usize {
        (byte & ((1 << self.shift) - 1)) as usize
    }
    /// Blocks that hold `bytes` bytes.
    pub const fn blocks_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(1 << self.shift)
    }
    /// Pointers (or bytes of stuffed data / 8) in a dinode: (bs-232)/8.
    pub const fn dinode_pointers(self) -> usize {
        (self.bytes() - 232) / 8
    }
    /// Pointers in an indirect block: (bs-24)/8.
    pub const fn indirect_pointers(self) -> usize {
        (self.bytes() - 24) / 8
    }
    /// Bytes of data a dinode can hold: bs-232.
    pub const fn stuffed_max(self) -> usize {
        self.bytes() - 232
    }
    /// Payload of a block that carries a metadata header: bs-24.
    pub const fn payload(self) -> usize {
        self.bytes() - 24
    }
}

/// Kind of a cluster lock; the number is its type in the lock's name (ondisk.md 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKind {
    /// Locks of the mount itself: mount, live, freeze, rename, control, mounted.
    Nondisk = 1,
    /// A dinode with all its metadata and data.
    Inode = 2,
    /// A resource group: header and bitmap.
    Rgrp = 3,
    /// The superblock at mount.
    Meta = 4,
    /// "This inode is open somewhere."
    Iopen = 5,
    /// flock(2).
    Flock = 6,
    /// A quota entry.
    Quota = 8,
    /// Ownership of a journal.
    Journal = 9,
}

/// Name of a cluster lock: kind and number (ondisk.md 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName {
    /// What is protected.
    pub kind: LockKind,
    /// Which one: a block address, a jid, a quota index.
    pub number: u64,
}

impl LockName {
    /// The lock of the inode at this address.
    pub fn inode(addr: BlockAddr) -> Self {
        Self { kind: LockKind::Inode, number: addr.get() }
    }
    /// The lock of the resource group at this address.
    pub fn rgrp(addr: BlockAddr) -> Self {
        Self { kind: LockKind::Rgrp, number: addr.get() }
    }
    /// The lock that says that the inode at this address is in use.
    pub fn iopen(addr: BlockAddr) -> Self {
        Self { kind: LockKind::Iopen, number: addr.get() }
    }
    /// The lock of the superblock, held while it is read at mount.
    pub fn superblock() -> Self {
        Self { kind: LockKind::Meta, number: 0 }
    }
    /// The rename lock (a NONDISK lock, number 3).
    pub fn rename() -> Self {
        Self { kind: LockKind::Nondisk, number: 3 }
    }
    /// The 24-character resource name of the DLM: `"%8x%16x"` of kind and number.
    pub fn resource(self) -> String {
        format!("{:8x}{:16x}", self.kind as u32, self.number)
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.kind as u32, self.number)
    }
}

/// A state of a 2-bit bitmap entry (ondisk.md 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlkState {
    /// Nobody's.
    Free = 0,
    /// Any block that is not a dinode.
    Used = 1,
    /// A dinode without a name, waiting to be deallocated.
    Unlinked = 2,
    /// A live dinode.
    Dinode = 3,
}

impl BlkState {
    /// The state of the two low bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Free,
            1 => Self::Used,
            2 => Self::Unlinked,
            _ => Self::Dinode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_eight_bytes_and_zero_is_a_hole() {
        assert_eq!(size_of::<Option<BlockAddr>>(), 8);
        assert_eq!(BlockAddr::new(0), None);
    }

    #[test]
    fn resource_names_are_the_kernels() {
        let addr = BlockAddr::new(0x805b).expect("not 0");
        assert_eq!(LockName::inode(addr).resource(), "       2            805b");
        assert_eq!(LockName::inode(addr).resource().len(), 24);
    }

    #[test]
    fn block_sizes() {
        assert!(BlockSize::new(256).is_none() && BlockSize::new(4097).is_none() && BlockSize::new(131072).is_none());
        let bs = BlockSize::new(4096).expect("legal");
        assert_eq!((bs.dinode_pointers(), bs.indirect_pointers(), bs.stuffed_max()), (483, 509, 3864));
    }
}
