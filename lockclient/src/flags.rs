//! Flags of a request and of a status block, with the protocol's bits (dlm.md 1.4).

bitflags::bitflags! {
    /// How a request, conversion or unlock is to be carried out. Unknown bits of a peer are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct LockFlags: u32 {
        /// Fail with `EAGAIN` instead of waiting.
        const NOQUEUE = 0x1;
        /// (unlock call) give up an outstanding request or conversion.
        const CANCEL = 0x2;
        /// Operate on an existing lock.
        const CONVERT = 0x4;
        /// Take part in the transfer of the value block.
        const VALBLK = 0x8;
        /// This conversion queues behind those already waiting.
        const QUECVT = 0x10;
        /// Invalidate the value block where it would have been written.
        const IVVALBLK = 0x20;
        /// Resolve a conversion deadlock by dropping this lock to NL while it waits.
        const CONVDEADLK = 0x40;
        /// (userspace API of the kernel) outlives its process; carried, without effect here.
        const PERSISTENT = 0x80;
        /// Do not fail on conversion deadlock; send a blocking notice instead.
        const NODLCKWT = 0x100;
        /// Accepted, without effect.
        const NODLCKBLK = 0x200;
        /// An NL request that passes all queues.
        const EXPEDITE = 0x400;
        /// With NOQUEUE: tell the holders although the request fails.
        const NOQUEUEBAST = 0x800;
        /// Queue at the head.
        const HEADQUE = 0x1000;
        /// Once compatible, grant irrespective of the order of the queue.
        const NOORDER = 0x2000;
        /// (userspace API of the kernel) adopt an orphan; carried, without effect here.
        const ORPHAN = 0x4000;
        /// If the mode cannot be granted, try PR.
        const ALTPR = 0x8000;
        /// If the mode cannot be granted, try CW.
        const ALTCW = 0x1_0000;
        /// (unlock call) unlock even while waiting or converting.
        const FORCEUNLOCK = 0x2_0000;
        /// Deprecated by the kernel and without effect here.
        const TIMEOUT = 0x4_0000;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// What a completion says besides its status.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct StatusFlags: u32 {
        /// The lock was dropped to NL to resolve a conversion deadlock and waits.
        const DEMOTED = 0x1;
        /// The value block of the resource is not valid.
        const VALNOTVALID = 0x2;
        /// Granted in the alternate mode.
        const ALTMODE = 0x4;
        const _ = !0;
    }
}
