//! Every inconsistency this program knows, each with a stable code, a severity and named fields.
//!
//! | severity | means |
//! |---|---|
//! | [`Severity::Error`] | a rule is broken: something is lost, unreachable, or the kernel would stumble over it |
//! | [`Severity::Warning`] | a field that nobody trusts is wrong (checksums, copies, hints); works, but nobody should write it |
//! | [`Severity::Info`] | legal and worth knowing: open-unlinked inodes, a replayed journal, blocks beyond the end of a file |

use crate::blockmap::BlockKind;
use gfs2r::ids::BlkState;
use std::fmt;
use std::path::PathBuf;

/// How bad an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Legal, and worth knowing.
    Info,
    /// Wrong, and harmless to every reader we know.
    Warning,
    /// Wrong.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding: what, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// What is wrong.
    pub kind: IssueKind,
    /// The block it was seen in (or that it is about).
    pub block: Option<u64>,
    /// The inode (address of its dinode) it belongs to.
    pub inode: Option<u64>,
    /// A path of that inode, when it has one; system files begin with `<master>`.
    pub path: Option<PathBuf>,
}

impl Issue {
    /// The stable name of this kind of issue.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity())?;
        match (self.inode, self.block) {
            (Some(inode), Some(block)) if inode != block => write!(f, "inode {inode}, block {block}")?,
            (Some(inode), _) => write!(f, "inode {inode}")?,
            (None, Some(block)) => write!(f, "block {block}")?,
            (None, None) => f.write_str("volume")?,
        }
        if let Some(path) = &self.path {
            write!(f, " ({})", path.display())?;
        }
        write!(f, ": {} [{}]", self.kind, self.code())
    }
}

/// One claim on a block that several claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Address of the claiming inode's dinode.
    pub inode: u64,
    /// What it takes the block for.
    pub kind: BlockKind,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {} ({})", self.inode, self.kind)
    }
}

/// The claims on a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(pub Vec<Owner>);

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, owner) in self.0.iter().enumerate() {
            write!(f, "{}{owner}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A bitmap state, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub BlkState);

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            BlkState::Free => "free",
            BlkState::Used => "used",
            BlkState::Unlinked => "unlinked dinode",
            BlkState::Dinode => "dinode",
        })
    }
}

macro_rules! issues {
    ($( $(#[doc = $doc:literal])* $severity:ident $code:literal $name:ident { $($field:ident : $ty:ty),* $(,)? } $text:literal )*) => {
        /// Every kind of inconsistency, with what was found and what was expected.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the text of each kind explains its fields")]
        pub enum IssueKind {
            $( $(#[doc = $doc])* $name { $($field: $ty),* }, )*
        }
        /// Code and severity of every kind.
        pub const CODES: &[(&str, Severity)] = &[ $( ($code, Severity::$severity), )* ];
        /// Code, severity, what it means and how it reads, of every kind: what gfs2r-fsck-checks(8) is made of.
        pub const EXPLAINED: &[(&str, Severity, &str, &str)] =
            &[ $( ($code, Severity::$severity, concat!($($doc),*), $text), )* ];
        impl IssueKind {
            /// The stable name of this kind.
            pub fn code(&self) -> &'static str {
                match self { $( Self::$name { .. } => $code, )* }
            }
            /// How bad this kind is.
            pub fn severity(&self) -> Severity {
                match self { $( Self::$name { .. } => Severity::$severity, )* }
            }
        }
        impl fmt::Display for IssueKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $( Self::$name { $($field),* } => write!(f, $text), )* }
            }
        }
    };
}

issues! {
    // The superblock (ondisk.md 1.4).
    /// Nothing that could be worked with: it was put together from the structures that were found.
    Error "superblock-lost" SuperblockLost { what: String } "no usable superblock ({what})"
    /// Only 1900 is known to anybody.
    Error "superblock-multihost" SuperblockMultihost { found: u32 } "multihost format {found} instead of 1900"
    /// bsize_shift must be log2 of bsize.
    Error "superblock-shift" SuperblockShift { found: u32, expected: u32 } "block size shift {found} instead of {expected}"
    /// A killed fsck leaves `fsck_…` behind.
    Error "superblock-lockproto" SuperblockLockproto { found: String } "unknown lock protocol {found:?}"
    /// The master or root directory is not where the superblock says.
    Error "superblock-directory" SuperblockDirectory { which: &'static str, found: u64 }
        "the {which} directory at {found} is not a directory"
    /// Nobody checks the formal numbers in the superblock.
    Warning "superblock-formal" SuperblockFormal { which: &'static str, found: u64, expected: u64 }
        "formal number {found} for the {which} directory instead of {expected}"

    // System files (ondisk.md 2.6, 7).
    /// A file of the master directory, jindex or per_node is missing.
    Error "system-file-missing" SystemFileMissing { name: String } "system file {name:?} is missing"
    /// A system file is a directory or the like.
    Error "system-file-type" SystemFileType { name: String, mode: u32 } "system file {name:?} has mode {mode:o}"
    /// A system file has the wrong size.
    Error "system-file-size" SystemFileSize { name: String, found: u64, expected: &'static str }
        "system file {name:?} has {found} bytes instead of {expected}"
    /// A name that does not belong among the system files.
    Warning "system-file-unknown" SystemFileUnknown { name: String } "{name:?} does not belong here"
    /// Below the master directory without the SYSTEM flag, or elsewhere with it.
    Error "system-flag" SystemFlag { flags: u32, expected: bool } "flags {flags:#x}: SYSTEM should be {expected}"
    /// Master statfs + deltas is not the sum over the resource groups.
    Error "statfs-totals" StatfsTotals { found: String, expected: String }
        "statfs says {found} (total, free, dinodes) where the resource groups hold {expected}"
    /// The quota file must be whole entries.
    Error "quota-size" QuotaSize { size: u64 } "quota file of {size} bytes, not a multiple of 88"
    /// Every block of a quota_change file must be there.
    Error "quota-change-hole" QuotaChangeHole { at: u64 } "quota change file without block {at}"
    /// A slot that no node would have written.
    Error "quota-change-slot" QuotaChangeSlot { slot: u64, what: &'static str } "quota change slot {slot}: {what}"

    // Resource groups (ondisk.md 3).
    /// The kernel refuses to mount.
    Error "rindex-size" RindexSize { size: u64 } "rindex of {size} bytes, not a multiple of 96"
    /// The arithmetic of ondisk.md 3.1.
    Error "rindex-entry" RindexEntry { entry: u64, what: String } "rindex entry {entry}: {what}"
    /// Two resource groups on the same blocks.
    Error "rindex-overlap" RindexOverlap { entry: u64, other: u64 } "rindex entry {entry} overlaps entry {other}"
    /// A resource group that is not inside the device.
    Error "rindex-beyond-device" RindexBeyondDevice { entry: u64, end: u64, blocks: u64 }
        "rindex entry {entry} ends at block {end}, the device at {blocks}"
    /// A block of the header and bitmap run has another type.
    Error "rgrp-block" RgrpBlock { wanted: u32, found: u32 } "type {found} where type {wanted} of a resource group belongs"
    /// rg_free against the bitmap.
    Error "rgrp-free" RgrpFree { found: u32, counted: u32 } "resource group says {found} free blocks, its bitmap {counted}"
    /// rg_dinodes against the bitmap.
    Error "rgrp-dinodes" RgrpDinodes { found: u32, counted: u32 } "resource group says {found} dinodes, its bitmap {counted}"
    /// rg_crc; nobody verifies it.
    Warning "rgrp-crc" RgrpCrc { found: u32, expected: u32 } "header checksum {found:08x} instead of {expected:08x}"
    /// Distance to the next resource group.
    Warning "rgrp-skip" RgrpSkip { found: u32, expected: u64 } "skip {found} instead of {expected}"
    /// After a grow the old last group keeps 0 until it is next written.
    Info "rgrp-skip-unset" RgrpSkipUnset { expected: u64 } "skip not yet set to {expected}"
    /// The header's copies of the rindex entry; nobody reads them.
    Warning "rgrp-copy" RgrpCopy { field: &'static str, found: u64, expected: u64 } "header says {field} {found}, rindex {expected}"
    /// Bits that live in memory only.
    Warning "rgrp-flags" RgrpFlags { found: u32 } "flags {found:#x} contain bits that never reach the disk"
    /// The next generation was used already: an inode could be given the identity of an earlier one.
    Warning "rgrp-generation" RgrpGeneration { next: u64, used: u64 }
        "next generation {next}, but an inode of this group has {used}"

    // Journals (ondisk.md 8).
    /// Smaller than 8 MiB, larger than 1 GiB or not whole blocks: the kernel refuses to mount.
    Error "journal-size" JournalSize { jid: u32, size: u64 } "journal {jid} has {size} bytes"
    /// The kernel refuses to mount.
    Error "journal-hole" JournalHole { jid: u32, at: u64 } "journal {jid} has no block {at}"
    /// The journal was not closed, and the caller wants closed ones.
    Error "journal-dirty" JournalDirty { jid: u32, tail: u32, head: u32 } "journal {jid} is dirty from {tail} to {head}"
    /// The journal was not closed; what follows is the view after its replay.
    Info "journal-replayed" JournalReplayed { jid: u32, blocks: u64, revoked: u64 }
        "journal {jid} is dirty; checked as if replayed: {blocks} blocks, {revoked} revoked copies"
    /// Sequence numbers must rise around the ring with one fall.
    Error "journal-sequence" JournalSequence { jid: u32, at: u32, found: u64, before: u64 }
        "journal {jid} block {at}: sequence {found} after {before}"
    /// No header at all: the kernel takes it for an empty log.
    Warning "journal-no-header" JournalNoHeader { jid: u32 } "journal {jid} has no log header"
    /// A header with a wrong checksum; a torn last write looks like this.
    Info "journal-header-damaged" JournalHeaderDamaged { jid: u32, at: u32 } "journal {jid} block {at}: log header with a wrong checksum"
    /// The header was written for another place.
    Warning "journal-header-place" JournalHeaderPlace { jid: u32, at: u32, field: &'static str, found: u64, expected: u64 }
        "journal {jid} block {at}: log header says {field} {found} instead of {expected}"
    /// The tail of the newest header is not a place in the journal.
    Error "journal-tail" JournalTail { jid: u32, tail: u32 } "journal {jid}: tail {tail} is outside the journal"
    /// The walk from tail to head failed: recovery gives up here and the mount fails.
    Error "journal-walk" JournalWalk { jid: u32, at: u32, what: &'static str } "journal {jid} block {at}: {what}"
    /// A logged metadata block without magic: recovery gives up.
    Error "journal-payload" JournalPayload { jid: u32, at: u32, target: u64 }
        "journal {jid} block {at}: copy of metadata block {target} without magic"
    /// A logged block that no node logs.
    Error "journal-target" JournalTarget { jid: u32, at: u32, target: u64 }
        "journal {jid} block {at}: copy of block {target}, which is never journaled"
    /// Two journals hold unrevoked copies of one block.
    Error "journal-conflict" JournalConflict { jid: u32, other: u32 } "copies to replay in journals {jid} and {other}"
    /// Replay overwrites file data that is not journaled: a revoke is missing.
    Error "journal-overwrites-data" JournalOverwritesData { jid: u32 }
        "journal {jid} would overwrite file data with an old copy (a revoke is missing)"

    // Any metadata block.
    /// Wrong magic or type.
    Error "block-type" BlockType { kind: BlockKind, wanted: u32, found: u32 } "type {found} where {kind} (type {wanted}) belongs"
    /// mh_format; nobody checks it.
    Warning "block-format" BlockFormat { found: u32, expected: u32 } "header format {found} instead of {expected}"
    /// A pointer to where no file can own anything.
    Error "pointer-range" PointerRange { pointer: u64, kind: BlockKind } "pointer {pointer} to {kind} is outside all resource groups"
    /// Two owners, or one owner twice.
    Error "block-double-owned" BlockDoubleOwned { owners: Owners } "claimed by {owners}"
    /// Allocated, and owned by nobody.
    Error "block-leaked" BlockLeaked { count: u64 } "{count} allocated blocks from here on belong to nobody"
    /// Owned, and not allocated.
    Error "block-not-allocated" BlockNotAllocated { kind: BlockKind } "{kind} in a block that the bitmap calls free"
    /// The bitmap has the wrong one of its three allocated states.
    Error "block-state" BlockState { found: State, kind: BlockKind } "{kind} in a block that the bitmap calls {found}"

    // Dinodes (ondisk.md 4).
    /// The bitmap says dinode, the block does not.
    Error "dinode-header" DinodeHeader { found: u32 } "type {found} in a block that the bitmap calls dinode"
    /// di_num.no_addr.
    Error "dinode-address" DinodeAddress { found: u64 } "dinode says it is at {found}"
    /// di_num.no_formal_ino.
    Error "dinode-formal" DinodeFormal {} "formal number 0"
    /// Not one of the seven types.
    Error "dinode-mode" DinodeMode { mode: u32 } "mode {mode:o} has no known type"
    /// Higher than any tree of this block size.
    Error "dinode-height" DinodeHeight { height: u16, max: u16 } "height {height}, at most {max}"
    /// di_depth of a hashed directory.
    Error "dinode-depth" DinodeDepth { depth: u16, min: u16 } "depth {depth}, {min} to 17 expected"
    /// More bytes than a dinode holds.
    Error "dinode-stuffed-size" DinodeStuffedSize { size: u64, max: u64 } "{size} bytes in the dinode, at most {max} fit"
    /// A size that no offset can reach.
    Error "dinode-size" DinodeSize { size: u64 } "size {size}"
    /// Flags that this type of inode never has.
    Warning "dinode-flags" DinodeFlags { flags: u32, what: &'static str } "flags {flags:#x}: {what}"
    /// An allocation goal outside all resource groups.
    Warning "dinode-goal" DinodeGoal { field: &'static str, goal: u64 } "{field} {goal} is outside all resource groups"
    /// Nanoseconds of a second and more.
    Warning "dinode-time" DinodeTime { which: &'static str, nsec: u32 } "{which} with {nsec} ns"
    /// di_payload_format; nobody reads it.
    Warning "dinode-payload-format" DinodePayloadFormat { found: u32, expected: u32 } "payload format {found} instead of {expected}"
    /// di_blocks against what was counted.
    Error "dinode-blocks" DinodeBlocks { found: u64, counted: u64 } "inode says {found} blocks and owns {counted}"
    /// A device, fifo or socket with contents.
    Error "special-contents" SpecialContents { size: u64, height: u16 } "a special file with size {size} and height {height}"
    /// A symlink target that the kernel would not have written.
    Error "symlink-target" SymlinkTarget { what: &'static str } "symbolic link: {what}"
    /// Preallocated, or left by an interrupted truncate.
    Info "blocks-beyond-eof" BlocksBeyondEof { count: u64 } "{count} blocks beyond the end of the file"
    /// An interrupted truncate that the next writer finishes.
    Info "truncate-in-progress" TruncateInProgress { count: u64 } "truncate in progress, {count} blocks still to free"
    /// No name, still complete: deleted when its last user closes it, or by recovery.
    Info "inode-unlinked" InodeUnlinked { blocks: u64 } "unlinked, {blocks} blocks to free"
    /// UNLINKED in the bitmap, links in the dinode.
    Error "unlinked-links" UnlinkedLinks { nlink: u32 } "the bitmap says unlinked, the dinode {nlink} links"
    /// Entries of a directory that is being deleted.
    Error "unlinked-not-empty" UnlinkedNotEmpty { name: String } "an unlinked directory still names {name:?}"

    // Directories (ondisk.md 5).
    /// Neither linear nor hashed.
    Error "directory-form" DirectoryForm { height: u16, flags: u32 } "directory of height {height} with flags {flags:#x} has no form"
    /// di_size of a directory.
    Error "directory-size" DirectorySize { found: u64, expected: u64 } "directory of {found} bytes instead of {expected}"
    /// A missing piece of the hash table.
    Error "directory-hole" DirectoryHole { at: u64 } "the hash table has no block {at}"
    /// A slot without leaf.
    Error "directory-slot" DirectorySlot { slot: u32, pointer: u64 } "slot {slot} of the hash table holds {pointer}"
    /// Run length and place must follow from lf_depth.
    Error "leaf-run" LeafRun { depth: u16, start: u32, length: u32 } "leaf of depth {depth} in {length} slots from {start}"
    /// lf_depth larger than di_depth, or different along a chain.
    Error "leaf-depth" LeafDepth { depth: u16, expected: u16 } "leaf depth {depth}, {expected} expected"
    /// Chains belong to tables of the greatest depth.
    Warning "leaf-chain" LeafChain { depth: u16 } "a chain of leaves in a table of depth {depth}"
    /// lf_dist.
    Warning "leaf-distance" LeafDistance { found: u32, expected: u32 } "leaf number {found} of its chain instead of {expected}"
    /// lf_inode.
    Warning "leaf-inode" LeafInode { found: u64 } "leaf says it belongs to inode {found}"
    /// lf_dirent_format.
    Warning "leaf-format" LeafFormat { found: u32 } "entry format {found} instead of 1200"
    /// lf_entries: the kernel withdraws.
    Error "leaf-entries" LeafEntries { found: u16, counted: u32 } "leaf says {found} entries and holds {counted}"
    /// di_entries: the kernel withdraws.
    Error "directory-entries" DirectoryEntries { found: u32, counted: u32 } "directory says {found} entries and holds {counted}"
    /// A record that breaks the chain of records.
    Error "dirent-record" DirentRecord { offset: u32, what: &'static str } "entry at offset {offset}: {what}"
    /// An unused entry that is not the first of its block: the kernel withdraws.
    Error "dirent-sentinel" DirentSentinel { offset: u32 } "unused entry at offset {offset}, not the first of its block"
    /// `/` or NUL in a name.
    Error "dirent-name" DirentName { name: String } "name {name:?} contains what no name can"
    /// Listed and not found.
    Error "dirent-hash" DirentHash { name: String, found: u32, expected: u32 } "{name:?}: hash {found:08x} instead of {expected:08x}"
    /// In a leaf where nobody looks for it.
    Error "dirent-misplaced" DirentMisplaced { name: String, hash: u32 } "{name:?}: hash {hash:08x} does not belong into this leaf"
    /// Two entries of one name.
    Error "dirent-duplicate" DirentDuplicate { name: String } "{name:?} twice"
    /// Nothing there.
    Error "dirent-dangling" DirentDangling { name: String, target: u64 } "{name:?} names {target}, where no inode is"
    /// The inode is being deleted.
    Error "dirent-unlinked" DirentUnlinked { name: String, target: u64 } "{name:?} names {target}, an unlinked inode"
    /// Another life of the block: ESTALE.
    Error "dirent-stale" DirentStale { name: String, target: u64, found: u64, expected: u64 }
        "{name:?} names {target} as number {found}, which is number {expected} now"
    /// de_type: the kernel withdraws.
    Error "dirent-type" DirentType { name: String, found: u16, mode: u32 } "{name:?}: entry type {found} for mode {mode:o}"
    /// No `.` or no `..`.
    Error "dot-missing" DotMissing { name: &'static str } "no {name:?}"
    /// `.` names another inode.
    Error "dot-wrong" DotWrong { found: u64 } "\".\" names {found}"
    /// `..` names another directory than the one that names this one.
    Error "dotdot-wrong" DotdotWrong { found: u64, expected: u64 } "\"..\" names {found} instead of {expected}"
    /// Two names for one directory.
    Error "directory-linked-twice" DirectoryLinkedTwice { name: String } "a second name {name:?} for a directory"
    /// No way to it from root or master.
    Error "directory-unreachable" DirectoryUnreachable {} "directory without a name"
    /// A file without a name.
    Error "inode-unreferenced" InodeUnreferenced { nlink: u32 } "no name, and {nlink} links"
    /// di_nlink against the entries.
    Error "inode-links" InodeLinks { found: u32, counted: u32 } "{found} links, {counted} counted"

    // Extended attributes (ondisk.md 6).
    /// A record that breaks the chain of records: the kernel withdraws.
    Error "xattr-record" XattrRecord { offset: u32, what: &'static str } "attribute record at offset {offset}: {what}"
    /// A type this format does not have.
    Error "xattr-type" XattrType { offset: u32, found: u8 } "attribute record at offset {offset}: type {found}"
    /// Number of value blocks against the length of the value.
    Error "xattr-pointers" XattrPointers { offset: u32, found: u8, expected: u64 }
        "attribute record at offset {offset}: {found} value blocks instead of {expected}"
    /// A value block is missing.
    Error "xattr-hole" XattrHole { offset: u32 } "attribute record at offset {offset}: a value block is missing"
    /// The kernel frees the value blocks of one attribute under the lock of one resource group.
    Error "xattr-rgrp" XattrRgrp { name: String } "the value blocks of {name:?} lie in several resource groups"
    /// Two records of one name.
    Error "xattr-duplicate" XattrDuplicate { name: String } "attribute {name:?} twice"
    /// The indirect block of attribute blocks.
    Error "xattr-indirect" XattrIndirect { slot: u32, what: &'static str } "slot {slot} of the attribute index: {what}"
    /// Not a POSIX ACL.
    Error "acl-syntax" AclSyntax { name: String, what: &'static str } "{name:?}: {what}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique() {
        let codes: HashSet<_> = CODES.iter().map(|(code, _)| code).collect();
        assert_eq!(codes.len(), CODES.len());
    }

    #[test]
    fn an_issue_reads_well() {
        let issue = Issue {
            kind: IssueKind::DinodeBlocks { found: 3, counted: 2 },
            block: Some(77),
            inode: Some(77),
            path: Some("/a".into()),
        };
        assert_eq!(issue.to_string(), "error: inode 77 (/a): inode says 3 blocks and owns 2 [dinode-blocks]");
    }
}
