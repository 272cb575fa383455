//! What a block leads to, from its bytes alone; no bytes make this panic.

use crate::format::dinode::DINODE_SIZE;
use crate::format::dinode::mode::{S_IFDIR, S_IFMT, S_IFREG};
use crate::format::directory::DEPTH_MAX;
use crate::format::ea::{EA_HEADER, EA_LAST};
use crate::format::{DiFlags, Dinode, EaHeader, Leaf, MetaHeader, MetaType, OnDisk, get_u64};
use crate::ids::BlockSize;

/// Bytes of a metadata block before its contents.
const START: usize = size_of::<MetaHeader>();
/// The highest tree there is (blocks of 512 bytes).
const HEIGHT_MAX: u16 = 10;

/// As what a block is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// In a search of the device: it may be anything.
    Found,
    /// A dinode.
    Dinode,
    /// A pointer block above `levels` more of them, then what `bottom` says.
    Indirect { levels: u16, bottom: Bottom },
    /// A block of a hash table.
    Table,
    /// A leaf.
    Leaf,
    /// The list of a file's EA blocks.
    EaList,
    /// Records of attributes.
    EaBlock,
    /// A piece of an attribute's value.
    EaData,
    /// Contents of a system file.
    Contents,
    /// The same of one that may hold copies of users' data: a journal.
    Logged,
}

/// What is below the pointer blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bottom {
    /// A user's data.
    Data,
    /// [`Role::Table`].
    Table,
    /// [`Role::Contents`].
    Contents,
    /// [`Role::Logged`].
    Logged,
}

impl Role {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Found => "a metadata block",
            Self::Dinode => "a dinode",
            Self::Indirect { .. } => "an indirect block",
            Self::Table => "a hash table block",
            Self::Leaf => "a leaf",
            Self::EaList => "a list of attribute blocks",
            Self::EaBlock => "an attribute block",
            Self::EaData => "an attribute value block",
            Self::Contents | Self::Logged => "a block of a system file",
        }
    }

    /// True when the block is what it is met as.
    pub(super) fn fits(self, block: &[u8]) -> bool {
        let header = MetaHeader::view(block);
        let kind = MetaType::from_raw(header.kind.get()).filter(|_| MetaHeader::has_magic(block));
        match self {
            Self::Contents => true,
            Self::Found | Self::Logged => kind.is_some_and(|k| k.format() == header.format.get()),
            Self::Dinode => kind == Some(MetaType::Dinode),
            Self::Indirect { .. } | Self::EaList => kind == Some(MetaType::Indirect),
            Self::Table => kind == Some(MetaType::JournaledData),
            Self::Leaf => kind == Some(MetaType::Leaf),
            Self::EaBlock => kind == Some(MetaType::EaBlock),
            Self::EaData => kind == Some(MetaType::EaData),
        }
    }
}

/// How much of a block is saved: nothing that a user wrote.
pub(super) fn length(block: &[u8], role: Role) -> usize {
    let is_dinode = MetaHeader::view_kind(block) == MetaType::Dinode as u32;
    if role == Role::Contents || !is_dinode {
        return block.len();
    }
    let d = Dinode::view(block);
    let is_data = d.mode.get() & S_IFMT == S_IFREG && d.height.get() == 0 && !d.flags().has(DiFlags::SYSTEM);
    if is_data { DINODE_SIZE } else { block.len() }
}

/// Adds what this block leads to.
pub(super) fn children(bs: BlockSize, block: &[u8], role: Role, next: &mut Vec<(u64, Role)>) {
    match role {
        Role::Found if MetaHeader::view_kind(block) == MetaType::Dinode as u32 => of_dinode(bs, block, next),
        Role::Dinode => of_dinode(bs, block, next),
        Role::Indirect { levels, bottom } => {
            if let Some(below) = below(levels, bottom) {
                pointers(block, START, block.len(), below, next);
            }
        }
        Role::Table => pointers(block, START, block.len(), Role::Leaf, next),
        Role::Leaf => {
            let further = Leaf::view(block).next.get();
            if further != 0 {
                next.push((further, Role::Leaf));
            }
        }
        Role::EaList => pointers(block, START, block.len(), Role::EaBlock, next),
        Role::EaBlock => of_attributes(block, next),
        Role::Found | Role::EaData | Role::Contents | Role::Logged => {}
    }
}

/// What a block is whose pointer stands above `levels` further levels of pointer blocks; `None` for a user's data.
fn below(levels: u16, bottom: Bottom) -> Option<Role> {
    match (levels.checked_sub(1), bottom) {
        (Some(levels), bottom) => Some(Role::Indirect { levels, bottom }),
        (None, Bottom::Data) => None,
        (None, Bottom::Table) => Some(Role::Table),
        (None, Bottom::Contents) => Some(Role::Contents),
        (None, Bottom::Logged) => Some(Role::Logged),
    }
}

fn of_dinode(bs: BlockSize, block: &[u8], next: &mut Vec<(u64, Role)>) {
    let d = Dinode::view(block);
    let flags = d.flags();
    if d.eattr.get() != 0 {
        next.push((d.eattr.get(), if flags.has(DiFlags::EA_INDIRECT) { Role::EaList } else { Role::EaBlock }));
    }
    let is_hashed = d.mode.get() & S_IFMT == S_IFDIR && flags.has(DiFlags::EXHASH);
    let bottom = match (is_hashed, flags.has(DiFlags::SYSTEM), flags.has(DiFlags::JDATA)) {
        (true, ..) => Bottom::Table,
        (_, true, true) => Bottom::Contents,
        // Journals; and quota_change files, which are metadata to the last block.
        (_, true, false) => Bottom::Logged,
        _ => Bottom::Data,
    };
    match d.height.get().min(HEIGHT_MAX) {
        0 if is_hashed => {
            let slots = 1usize << d.depth.get().min(DEPTH_MAX);
            pointers(block, DINODE_SIZE, (DINODE_SIZE + 8 * slots).min(bs.bytes()), Role::Leaf, next);
        }
        0 => {}
        height => {
            if let Some(below) = below(height - 1, bottom) {
                pointers(block, DINODE_SIZE, block.len(), below, next);
            }
        }
    }
}

/// Adds the pointers in `start..end` that are not 0; runs of the same one count once.
fn pointers(block: &[u8], start: usize, end: usize, role: Role, next: &mut Vec<(u64, Role)>) {
    let mut last = 0;
    for at in (start..end.saturating_sub(7)).step_by(8) {
        let to = get_u64(block, at);
        if to != 0 && to != last {
            next.push((to, role));
        }
        last = to;
    }
}

fn of_attributes(block: &[u8], next: &mut Vec<(u64, Role)>) {
    let mut at = START;
    while at + EA_HEADER <= block.len() {
        let record = EaHeader::view(&block[at..]);
        let len = record.rec_len.get() as usize;
        if len < EA_HEADER || len > block.len() - at {
            return;
        }
        let first = at + EA_HEADER + usize::from(record.name_len).next_multiple_of(8);
        let end = (first + 8 * usize::from(record.num_ptrs)).min(at + len);
        pointers(block, first, end, Role::EaData, next);
        if record.flags & EA_LAST != 0 {
            return;
        }
        at += len;
    }
}
