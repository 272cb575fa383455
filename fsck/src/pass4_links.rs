//! Pass 4: link counts (ondisk.md 12.7).

use crate::issue::IssueKind;
use crate::pass2_directories::Links;
use crate::state::State;

/// Compares the link count of each inode with the names that were found.
pub(crate) fn run(st: &mut State, links: &Links) {
    for at in 0..st.inodes.len() {
        let inode = &st.inodes[at];
        let (addr, nlink, refs) = (inode.addr, inode.nlink, inode.refs);
        let kind = if inode.unlinked {
            let named = st.entries.iter().any(|e| nlink != 0 && e.addr == addr);
            // With a name as well it is the bitmap that is wrong, and the name was reported.
            (nlink != 0 && !named).then_some(IssueKind::UnlinkedLinks { nlink })
        } else if inode.is_dir() {
            let counted = inode.subdirs.saturating_add(2);
            // Subdirectories are counted from entries; a directory that cannot be read has lost some.
            (nlink != counted && !inode.damaged).then_some(IssueKind::InodeLinks { found: nlink, counted })
        } else {
            let stale = links.stale[at];
            if links.names_lost || (refs..=refs.saturating_add(stale)).contains(&nlink) && (refs + stale) > 0 {
                None
            } else if refs == 0 && stale == 0 {
                Some(IssueKind::InodeUnreferenced { nlink })
            } else {
                Some(IssueKind::InodeLinks { found: nlink, counted: refs })
            }
        };
        if let Some(kind) = kind {
            st.found.add(addr, addr, kind);
        }
    }
}
