//! What the fuser crate is told at the start, and its way to tell the kernel something.

use super::kernel::{BACKGROUND, MAX_IO, Voice, wanted};
use super::service::Service;
use fuser::{INodeNo, InitFlags, KernelConfig, Notifier};
use std::io;
use std::time::Duration;

impl Voice for Notifier {
    fn inval_inode(&self, node: u64, offset: i64, len: i64) -> io::Result<bool> {
        // It does not say whether the kernel knows the node.
        Notifier::inval_inode(self, INodeNo(node), offset, len).map(|()| true)
    }

    fn forget(&self, _node: u64) -> io::Result<()> {
        // The crate has no such notification, and no shared mounts, which alone need it.
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Asks the kernel for the features that the policy wants.
pub(super) fn negotiate(service: &Service, config: &mut KernelConfig) -> io::Result<()> {
    let wanted = InitFlags::from_bits_retain(wanted(service));
    if let Err(missing) = config.add_capabilities(wanted) {
        tracing::debug!(?missing, "this kernel lacks some FUSE features");
        let present = wanted & config.capabilities();
        config.add_capabilities(present).map_err(|m| io::Error::other(format!("FUSE features {m:?}")))?;
    }
    // Each returns what was possible instead; anything the kernel gives will do.
    for refused in [config.set_max_write(MAX_IO).err(), config.set_max_readahead(MAX_IO).err()].into_iter().flatten() {
        tracing::debug!(refused, "the kernel limits request sizes");
    }
    for refused in [config.set_max_background(BACKGROUND.0).err(), config.set_congestion_threshold(BACKGROUND.1).err()]
        .into_iter()
        .flatten()
    {
        tracing::debug!(refused, "the kernel limits background requests");
    }
    if config.set_time_granularity(Duration::from_nanos(1)).is_err() {
        tracing::debug!("the kernel keeps coarser times");
    }
    Ok(())
}
