//! Pass 5: every block is in the state that its owner demands (ondisk.md 12.3, last rule).

use crate::blockmap::BlockKind;
use crate::issue::{IssueKind, State as StateWord};
use crate::state::State;
use gfs2r::ids::BlkState;

/// Compares the bitmaps with what pass 1 found.
pub(crate) fn run(st: &mut State) {
    // Blocks of what could not be read belong to somebody who is not known.
    let owners_lost = !st.no_dinodes.is_empty() || st.inodes.iter().any(|inode| inode.damaged);
    let mut leak: Option<(u64, u64)> = None;
    let State { map, found, no_dinodes, .. } = st;
    let mut no_dinodes = no_dinodes.iter().peekable();
    for group in &map.groups {
        let mut next = 0;
        while next < group.extent.data {
            let index = next;
            if index.is_multiple_of(4) && group.is_idle(index) {
                next += 4;
                continue;
            }
            next += 1;
            let addr = group.extent.block_at(index).get();
            let (state, kind) = (group.state(index), group.kind(index));
            let wrong = match (kind, state) {
                (None, BlkState::Free) => None,
                (None, BlkState::Used) => {
                    leak = match leak {
                        Some((first, count)) if first + count == addr => Some((first, count + 1)),
                        other => {
                            report(found, other, owners_lost);
                            Some((addr, 1))
                        }
                    };
                    None
                }
                (None, BlkState::Dinode | BlkState::Unlinked) => {
                    while no_dinodes.next_if(|(at, _)| *at < addr).is_some() {}
                    no_dinodes.next_if(|(at, _)| *at == addr).map(|&(_, found)| IssueKind::DinodeHeader { found })
                }
                (Some(BlockKind::Dinode), BlkState::Dinode | BlkState::Unlinked) => None,
                (Some(kind), BlkState::Free) => Some(IssueKind::BlockNotAllocated { kind }),
                (Some(BlockKind::Dinode), BlkState::Used) => {
                    Some(IssueKind::BlockState { found: StateWord(state), kind: BlockKind::Dinode })
                }
                (Some(_), BlkState::Used) => None,
                // With a valid dinode in it the block has two owners, which was reported.
                (Some(kind), _) => {
                    while no_dinodes.next_if(|(at, _)| *at < addr).is_some() {}
                    let here = no_dinodes.next_if(|(at, _)| *at == addr).is_some();
                    here.then_some(IssueKind::BlockState { found: StateWord(state), kind })
                }
            };
            if let Some(kind) = wrong {
                found.add(addr, None, kind);
            }
        }
    }
    report(found, leak, owners_lost);
}

fn report(found: &mut crate::report::Findings, leak: Option<(u64, u64)>, owners_lost: bool) {
    if let Some((first, count)) = leak.filter(|_| !owners_lost) {
        found.add(first, None, IssueKind::BlockLeaked { count });
    }
}
