//! What taking and losing an rgrp's lock means.

use super::group::Rgrp;
use super::index::Index;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::glock::Protected;
use crate::ids::LockName;
use crate::journal::Journal;
use std::sync::Arc;

/// What rgrps need to be read and written.
pub struct RgrpContext {
    pub(super) cache: Arc<Cache>,
    pub(super) journal: Arc<Journal>,
    pub(super) index: Index,
}

impl Protected for Rgrp {
    type Context = RgrpContext;
    const HAS_LVB: bool = true;

    fn instantiate(name: LockName, cx: &RgrpContext) -> Result<Self> {
        let n = cx.index.by_lock(name).ok_or(Error::Stale)?;
        Self::read(&cx.cache, n, *cx.index.extent(n), cx.index.skip(n))
    }

    fn sync(name: LockName, _: &mut Self, cx: &RgrpContext) -> Result<()> {
        cx.journal.sync_owner(name)
    }

    fn sync_without(name: LockName, cx: &RgrpContext) -> Result<()> {
        cx.journal.sync_owner(name)
    }

    fn cannot_give_up(_: LockName, cause: &Error, cx: &RgrpContext) {
        cx.journal.withdraw(cause);
    }

    fn invalidate(name: LockName, cx: &RgrpContext) {
        if let Some(n) = cx.index.by_lock(name) {
            cx.index.claims(n).lost();
        }
        cx.cache.invalidate(name);
    }

    fn describe(&self) -> Option<String> {
        let (n, flags) = (self.extent().addr, self.flags());
        Some(format!(
            "R: n:{n} f:{flags:02x} b:{}/{} i:{} u:{}",
            self.free(),
            self.free(),
            self.dinodes(),
            self.unlinked()
        ))
    }
}
