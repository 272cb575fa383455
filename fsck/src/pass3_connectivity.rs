//! Pass 3: every directory is reached from the root or the master directory, and `..` leads back (ondisk.md 12.6).

use crate::issue::IssueKind;
use crate::pass2_directories::{Links, names};
use crate::state::State;
use gfs2r::format::DiFlags;

/// Below which of the two top directories something lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Top {
    Root,
    Master,
}

/// Where the way up from a directory was found to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Unknown,
    /// Being walked: meeting it again is a cycle.
    Open,
    To(Top),
    Nowhere,
}

/// Checks all directories; the top of each inode that has one.
pub(crate) fn run(st: &mut State, links: &Links) -> Vec<Option<Top>> {
    let mut ways = vec![Way::Unknown; st.inodes.len()];
    for at in 0..st.inodes.len() {
        if st.inodes[at].is_dir() && !st.inodes[at].unlinked {
            walk_up(st, links, &mut ways, at);
            dotdot(st, at);
        }
    }
    let top = |way: Way| match way {
        Way::To(top) => Some(top),
        _ => None,
    };
    let tops: Vec<_> = (0..st.inodes.len())
        .map(|at| {
            if st.inodes[at].is_dir() {
                return top(ways[at]);
            }
            st.inodes[at].entry.and_then(|entry| top(ways[st.entries[entry as usize].parent as usize]))
        })
        .collect();
    for (at, top) in tops.iter().enumerate() {
        system_flag(st, at, *top);
    }
    tops
}

/// Follows names upwards until the way is known, then marks all directories on it.
fn walk_up(st: &mut State, links: &Links, ways: &mut [Way], from: usize) {
    let mut path = Vec::new();
    let mut at = from;
    let way = loop {
        match ways[at] {
            Way::Unknown => {}
            Way::Open => {
                // Nothing but itself leads to it.
                let addr = st.inodes[at].addr;
                st.found.add(addr, addr, IssueKind::DirectoryUnreachable {});
                break Way::Nowhere;
            }
            known => break known,
        }
        ways[at] = Way::Open;
        path.push(at);
        let inode = &st.inodes[at];
        if inode.addr == st.root {
            break Way::To(Top::Root);
        }
        if inode.addr == st.master {
            break Way::To(Top::Master);
        }
        match inode.entry {
            Some(entry) => at = st.entries[entry as usize].parent as usize,
            None => {
                let addr = inode.addr;
                if !links.names_lost && links.stale[at] == 0 {
                    st.found.add(addr, addr, IssueKind::DirectoryUnreachable {});
                }
                break Way::Nowhere;
            }
        }
    };
    for at in path {
        ways[at] = way;
    }
}

fn dotdot(st: &mut State, at: usize) {
    let inode = &st.inodes[at];
    let Some(found) = inode.dotdot else { return };
    let is_top = inode.addr == st.root || inode.addr == st.master;
    let parent = match inode.entry {
        _ if is_top => inode,
        Some(entry) => &st.inodes[st.entries[entry as usize].parent as usize],
        None => return,
    };
    if names(found, parent) {
        return;
    }
    let (addr, expected, formal) = (inode.addr, parent.addr, parent.formal);
    let kind = if found.1 == expected {
        IssueKind::DirentStale { name: "..".into(), target: expected, found: found.0, expected: formal }
    } else {
        IssueKind::DotdotWrong { found: found.1, expected }
    };
    st.found.add(addr, addr, kind);
}

fn system_flag(st: &mut State, at: usize, top: Option<Top>) {
    let inode = &st.inodes[at];
    let expected = top == Some(Top::Master);
    if top.is_some() && inode.flags.has(DiFlags::SYSTEM) != expected {
        let (addr, flags) = (inode.addr, inode.flags.0);
        st.found.add(addr, addr, IssueKind::SystemFlag { flags, expected });
    }
}
