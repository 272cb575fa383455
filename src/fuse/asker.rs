//! Who asks, with what only the kernel knows of them.

use crate::fs::Caller;

/// The program that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Its ids.
    pub who: Caller,
    /// Its process, 0 where the kernel asks on its own account.
    pub pid: u32,
}

impl Asker {
    /// Whether it has this group, as its own or as a supplementary one. A program we cannot see has none of the latter.
    pub fn has_group(&self, gid: u32) -> bool {
        if self.who.gid == gid {
            return true;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
        groups.split_whitespace().any(|g| g.parse() == Ok(gid))
    }

    /// True for those who may give a file the setgid bit of a group they are not in (CAP_FSETID, as far as we can tell).
    pub fn is_privileged(&self) -> bool {
        self.who.uid == 0
    }
}
