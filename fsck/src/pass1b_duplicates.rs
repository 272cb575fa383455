//! Pass 1b: who claims the blocks that were claimed more than once (ondisk.md 12.4).
//!
//! Pass 1 keeps one byte per block and knows only the second claimant. When there are any, everything is walked once more
//! with an eye on the blocks in question.

use crate::disk::Disk;
use crate::issue::{IssueKind, Owners};
use crate::pass1_metadata;
use crate::report::CheckError;
use crate::state::State;

/// Notes an issue for each block with several claims.
pub(crate) fn run(disk: &Disk<'_>, st: &mut State) -> Result<(), CheckError> {
    if st.taken.is_empty() {
        return Ok(());
    }
    let mut again = State {
        map: std::mem::take(&mut st.map),
        fs_format: st.fs_format,
        watch: Some(st.taken.iter().map(|&block| (block, Vec::new())).collect()),
        ..State::default()
    };
    again.found.muted = true;
    let result = walk(disk, &mut again, &st.strays);
    st.map = std::mem::take(&mut again.map);
    result?;
    for (block, owners) in again.watch.unwrap_or_default() {
        let inode = owners.last().map(|owner| owner.inode);
        st.found.add(block, inode, IssueKind::BlockDoubleOwned { owners: Owners(owners) });
    }
    Ok(())
}

fn walk(disk: &Disk<'_>, again: &mut State, strays: &[u64]) -> Result<(), CheckError> {
    again.map.forget();
    pass1_metadata::run(disk, again)?;
    for &stray in strays {
        let bytes = disk.read(stray)?;
        pass1_metadata::dinode(disk, again, stray, false, &bytes)?;
    }
    Ok(())
}
