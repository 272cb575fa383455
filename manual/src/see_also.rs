//! What lies beside a page: its files, and the pages that a reader wants next.

/// The programs' own pages.
const PROGRAMS: [&str; 5] = ["gfs2r", "mkfs.gfs2r", "mount.gfs2r", "umount.gfs2r", "fsck.gfs2r"];

/// Pages of others, and those that no command writes: first what a page's name begins with.
const OTHERS: [(&str, &[&str]); 10] = [
    ("mkfs.", &["mkfs(8)", "gfs2(5)"]),
    ("mount.", &["gfs2r-cluster.toml(5)", "mount(8)", "fstab(5)", "gfs2(5)"]),
    ("umount.", &["umount(8)"]),
    ("fsck.", &["gfs2r-fsck-checks(8)", "fsck(8)"]),
    ("gfs2r-grow", &["gfs2r-jadd(8)", "gfs2_grow(8)"]),
    ("gfs2r-jadd", &["gfs2r-grow(8)", "gfs2_jadd(8)"]),
    ("gfs2r-tune", &["tunegfs2(8)"]),
    ("gfs2r-dlm", &["gfs2r-cluster.toml(5)"]),
    ("gfs2r-status", &["gfs2r-cluster.toml(5)"]),
    ("gfs2r-top", &["gfs2r-cluster.toml(5)"]),
];

/// Files that a page's program reads or writes, a line for each.
pub(crate) fn files(page: &str) -> Option<&'static [&'static str]> {
    match page {
        "mount.gfs2r" => Some(&[
            "  /etc/fstab                 lines of type gfs2r",
            "  /etc/gfs2r/cluster.toml    the nodes of the cluster",
            "  /run/gfs2r/                a folder for each mount: pid, mount point, control socket",
        ]),
        "umount.gfs2r" | "gfs2r" => {
            Some(&["  /run/gfs2r/    a folder for each mount: pid, mount point, control socket"])
        }
        _ => None,
    }
}

/// What its SEE ALSO names: the command above it, then the other programs, then others.
pub(crate) fn pages(page: &str) -> Vec<String> {
    let mut names = Vec::new();
    let parent = page.rsplit_once('-').map(|(parent, _)| parent).filter(|p| p.contains('-'));
    names.extend(parent.map(|p| format!("{p}(8)")));
    names.extend(PROGRAMS.iter().filter(|&&p| p != page).map(|p| format!("{p}(8)")));
    let others = OTHERS.iter().filter(|(begins, _)| page.starts_with(begins));
    names.extend(others.flat_map(|(_, pages)| pages.iter().map(|&p| p.to_owned())));
    names
}

#[cfg(test)]
mod tests {
    use super::pages;

    #[test]
    fn the_command_above_comes_first() {
        assert_eq!(pages("gfs2r-dlm-ls")[..2], ["gfs2r-dlm(8)", "gfs2r(8)"]);
        assert_eq!(pages("gfs2r-df")[0], "gfs2r(8)");
        assert!(!pages("mkfs.gfs2r").contains(&"mkfs.gfs2r(8)".to_owned()));
        assert!(pages("umount.gfs2r").contains(&"umount(8)".to_owned()));
    }
}
