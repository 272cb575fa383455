//! How an operation ended: for the client, and as a number on the wire (dlm.md 1.12).

/// What a completion reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Granted (or, for the rare cancel that came too late, nothing to cancel).
    Granted,
    /// NOQUEUE, and it would have had to wait. A new lock is gone, a converted one keeps its mode.
    Again,
    /// The conversion would deadlock with another; the lock keeps its mode.
    Deadlock,
    /// Cancelled. A new lock is gone, a converted one keeps its mode.
    Cancelled,
    /// Unlocked: the lock is gone.
    Unlocked,
}

impl Status {
    /// Did the operation succeed in what was asked for?
    pub fn is_success(self) -> bool {
        matches!(self, Status::Granted | Status::Unlocked)
    }
}

/// Why a call was refused before anything was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The arguments contradict each other or the state of the lock (`EINVAL`).
    #[error("invalid arguments")]
    Invalid,
    /// Another operation on this lock is outstanding (`EBUSY`).
    #[error("another operation on this lock is outstanding")]
    Busy,
    /// No such lock (`ENOENT`).
    #[error("no such lock")]
    NoEntry,
    /// The table of locks is full (`ENOMEM`).
    #[error("the table of locks is full")]
    NoMemory,
    /// The lockspace is gone (`ENODEV`).
    #[error("the lockspace is gone")]
    NoDevice,
    /// Members of the lockspace are configured differently (`EPROTO`).
    #[error("members of the lockspace are configured differently")]
    Protocol,
}

/// Result codes as they travel: 0 or negative, in the fixed numbers of dlm.md 1.12.
pub mod result {
    /// Done.
    pub const OK: i32 = 0;
    /// Unknown lock.
    pub const ENOENT: i32 = -2;
    /// Lockspace not ready at the addressee.
    pub const ESRCH: i32 = -3;
    /// NOQUEUE failed.
    pub const EAGAIN: i32 = -11;
    /// No room for another lock.
    pub const ENOMEM: i32 = -12;
    /// The addressee is not the master.
    pub const ENOTBLK: i32 = -15;
    /// The lock is not in a state to be converted.
    pub const EBUSY: i32 = -16;
    /// A recovered lock is known already (native number).
    pub const EEXIST: i32 = -17;
    /// Bad message.
    pub const EINVAL: i32 = -22;
    /// Conversion deadlock.
    pub const EDEADLK: i32 = -35;
    /// The addressee does not know the resource.
    pub const EBADR: i32 = -53;
    /// Lock hierarchies are not supported.
    pub const EOPNOTSUPP: i32 = -95;
    /// Queued; a grant will follow.
    pub const EINPROGRESS: i32 = -115;
    /// Cancelled.
    pub const ECANCEL: i32 = -0x1_0001;
    /// Unlocked.
    pub const EUNLOCK: i32 = -0x1_0002;
}
