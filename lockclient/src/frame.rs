//! The messages nodes exchange about locks and about recovery, as values (bytes are [`crate::wire`]'s affair).

use crate::flags::{LockFlags, StatusFlags};
use crate::ids::{LockId, Name, NodeId};
use crate::mode::Mode;

/// What a lock message is (the protocol's numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MsgType {
    /// Holder to master: a new lock.
    Request = 1,
    /// Holder to master: another mode.
    Convert = 2,
    /// Holder to master: give up the lock.
    Unlock = 3,
    /// Holder to master: give up what is queued.
    Cancel = 4,
    /// Answer to a request.
    RequestReply = 5,
    /// Answer to a conversion (never to a down-conversion).
    ConvertReply = 6,
    /// Answer to an unlock.
    UnlockReply = 7,
    /// Answer to a cancel.
    CancelReply = 8,
    /// Master to holder: what was queued is granted.
    Grant = 9,
    /// Master to holder: you are in someone's way.
    Bast = 10,
    /// Holder to directory: who is the master? Carries the whole request.
    Lookup = 11,
    /// Master to directory: I no longer use this resource.
    Remove = 12,
    /// Directory to holder: the master.
    LookupReply = 13,
    /// Drop orphaned locks of a process; accepted and ignored here.
    Purge = 14,
}

impl MsgType {
    /// The type of a protocol number.
    pub fn from_number(number: u32) -> Option<MsgType> {
        use MsgType::*;
        const ALL: [MsgType; 14] = [
            Request,
            Convert,
            Unlock,
            Cancel,
            RequestReply,
            ConvertReply,
            UnlockReply,
            CancelReply,
            Grant,
            Bast,
            Lookup,
            Remove,
            LookupReply,
            Purge,
        ];
        usize::try_from(number).ok().and_then(|i| ALL.get(i.checked_sub(1)?).copied())
    }
}

/// A lock message (dlm.md 3.6). Which fields count depends on the type (3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msg {
    /// What it is.
    pub kind: MsgType,
    /// The lock's other side as the sender sees it; the answer in `LookupReply` (-1: not the directory).
    pub nodeid: i32,
    /// Owner process, informational.
    pub pid: u32,
    /// The lock at the sender (in `LookupReply`: at the receiver).
    pub lkid: LockId,
    /// The lock at the receiver, 0 if unknown.
    pub remid: LockId,
    /// Flags of the operation.
    pub exflags: LockFlags,
    /// Flags for the client's status block.
    pub sbflags: StatusFlags,
    /// Bit 0: a lock of the kernel's userspace API; bit 1: an orphan. Echoed.
    pub flags: u16,
    /// Sequence of the value block.
    pub lvbseq: u32,
    /// Hash of the resource name.
    pub hash: u32,
    /// State of the sender's record, informational.
    pub status: u32,
    /// Granted mode, informational.
    pub grmode: Option<Mode>,
    /// Requested mode, authoritative in requests and conversions.
    pub rqmode: Option<Mode>,
    /// The blocked mode of a notice.
    pub bastmode: Option<Mode>,
    /// Bit 0: wants completions; bit 1: wants blocking notices.
    pub asts: u32,
    /// 0 or a negative code of [`crate::status::result`].
    pub result: i32,
    /// Resource name or value block.
    pub extra: Vec<u8>,
}

impl Msg {
    /// A message of this type with every other field empty.
    pub fn new(kind: MsgType) -> Msg {
        Msg {
            kind,
            nodeid: 0,
            pid: 0,
            lkid: LockId::NONE,
            remid: LockId::NONE,
            exflags: LockFlags::empty(),
            sbflags: StatusFlags::empty(),
            flags: 0,
            lvbseq: 0,
            hash: 0,
            status: 0,
            grmode: None,
            rqmode: None,
            bastmode: None,
            asts: 0,
            result: 0,
            extra: Vec::new(),
        }
    }
}

/// A recovery message (dlm.md 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcom {
    /// Status bits, an answer, or a negative code.
    pub result: i32,
    /// Tag of the request, echoed in the reply.
    pub id: u64,
    /// The sender's recovery sequence.
    pub seq: u64,
    /// In replies: the sequence of the request.
    pub seq_reply: u64,
    /// What it is.
    pub body: RcomBody,
}

/// The kinds of recovery messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RcomBody {
    /// How far are you? With slots, if asked.
    Status {
        /// Send the slot table too.
        need_slots: bool,
    },
    /// Which of the resources I direct do you master, after this name?
    Names {
        /// The last name received; `None` starts from the beginning.
        after: Option<Name>,
    },
    /// Who is the new master of this resource?
    Lookup {
        /// Its name.
        name: Name,
    },
    /// A lock for its new master.
    Lock(Box<RcomLock>),
    /// Answer: status bits in `result`, and the configuration.
    StatusReply(RcomConfig),
    /// Answer: some names.
    NamesReply {
        /// The names, in order.
        names: Vec<Name>,
        /// No further names.
        end: bool,
    },
    /// Answer: the master in `result`.
    LookupReply,
    /// Answer: the lock echoed with the new master's id in `remid` and its result.
    LockReply(Box<RcomLock>),
}

impl RcomBody {
    /// Is it an answer?
    pub fn is_reply(&self) -> bool {
        matches!(self, Self::StatusReply(_) | Self::NamesReply { .. } | Self::LookupReply | Self::LockReply(_))
    }

    /// A question that opens a round of recovery.
    pub fn asks(&self) -> bool {
        matches!(self, Self::Status { .. } | Self::Names { .. })
    }

    /// Status and names travel outside the numbered stream.
    pub fn is_raw(&self) -> bool {
        matches!(self, Self::Status { .. } | Self::StatusReply(_) | Self::Names { .. } | Self::NamesReply { .. })
    }
}

/// A node's configuration and slots, in a status reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcomConfig {
    /// Value block length; all ones in a "not ready" answer.
    pub lvblen: u32,
    /// Flags of the lockspace that all members share.
    pub lsflags: u32,
    /// The sender's slot, 0 none.
    pub our_slot: u16,
    /// Generation of the slot table.
    pub generation: u32,
    /// The slot table, if asked for and known.
    pub slots: Vec<Slot>,
}

/// `lvblen` of an answer for a lockspace that is not there yet.
pub const NOT_READY: u32 = u32::MAX;

/// A member's small stable number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The member.
    pub node: NodeId,
    /// Its number, from 1.
    pub slot: u16,
}

/// A lock on its way to a new master (dlm.md 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RcomLock {
    /// Owner process, informational.
    pub ownpid: u32,
    /// The holder's lock.
    pub lkid: LockId,
    /// The new master's lock, in the reply.
    pub remid: LockId,
    /// Must be 0.
    pub parent: u32,
    /// Flags of the lock's last operation.
    pub exflags: LockFlags,
    /// As [`Msg::flags`].
    pub flags: u16,
    /// Sequence of the holder's value block.
    pub lvbseq: u32,
    /// Result, in the reply.
    pub result: i32,
    /// Requested mode.
    pub rqmode: Option<Mode>,
    /// Granted mode.
    pub grmode: Option<Mode>,
    /// 1 waiting, 2 granted, 3 converting.
    pub status: u8,
    /// As [`Msg::asts`].
    pub asts: u8,
    /// The outstanding message at the holder, 0 none.
    pub wait_type: u16,
    /// The resource.
    pub name: Name,
    /// The value block, if the lock has one.
    pub lvb: Vec<u8>,
}

/// What the engine sends and receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// About a lock.
    Msg(Box<Msg>),
    /// About recovery.
    Rcom(Box<Rcom>),
    /// About byte-range locks; between nodes of the built-in membership only, a kernel knows no such frames.
    Plock(Box<crate::plock::order::OrderFrame>),
}
