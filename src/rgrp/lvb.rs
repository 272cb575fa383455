//! The value block of an rgrp's lock (ondisk.md 3.5): the header's counters, so that other nodes need not read the header. It
//! must be exact, or a kernel node that trusts it withdraws.

use super::group::Rgrp;
use crate::error::{CorruptKind, Error, Result};
use crate::format::lvb::RgrpLvb;
use crate::format::{MAGIC, OnDisk};
use crate::glock::{ExclusiveHolder, Lvb};

/// The value block for an rgrp.
fn of(group: &Rgrp) -> Lvb {
    let mut lvb = Lvb::default();
    *RgrpLvb::edit(&mut lvb.0) = RgrpLvb {
        magic: MAGIC.into(),
        flags: group.flags().into(),
        free: group.free().into(),
        dinodes: group.dinodes().into(),
        igeneration: group.igeneration().into(),
        unlinked: group.unlinked().into(),
        pad: 0.into(),
    };
    lvb
}

/// Writes what the header now says; after every change of it, with the lock still held.
pub(super) fn publish(group: &mut ExclusiveHolder<Rgrp>) {
    let lvb = of(group);
    group.set_lvb(lvb);
}

/// Compares the value block with a header that was just read. One that nobody has set (or that was lost) is filled in.
pub(super) fn check(group: &mut ExclusiveHolder<Rgrp>) -> Result<()> {
    let lvb = group.glock().lvb();
    let said = RgrpLvb::view(&lvb.0);
    if said.magic.get() != MAGIC {
        publish(group);
        return Ok(());
    }
    let agrees = said.flags.get() == group.flags()
        && said.free.get() == group.free()
        && said.dinodes.get() == group.dinodes()
        && said.igeneration.get() == group.igeneration();
    if agrees {
        return Ok(());
    }
    tracing::error!(
        "rgrp {}: the value block says flags {:x} free {} dinodes {} igeneration {}, the header {:x} {} {} {}",
        group.extent().addr,
        said.flags,
        said.free,
        said.dinodes,
        said.igeneration,
        group.flags(),
        group.free(),
        group.dinodes(),
        group.igeneration(),
    );
    Err(Error::corrupt(group.extent().addr, CorruptKind::Rgrp("its lock's value block disagrees with its header")))
}
