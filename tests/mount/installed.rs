//! What `make install` puts where, and that `make uninstall` takes it away again.

use crate::sandbox::{Sandbox, make};
use std::path::Path;
use std::process::Command;

fn files(below: &Path) -> Vec<String> {
    let out = Command::new("find").arg(below).args(["!", "-type", "d", "-printf", "%P\n"]).output().expect("find runs");
    let mut files: Vec<_> = String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect();
    files.sort();
    files
}

#[test]
fn everything_is_put_in_place_and_taken_away() {
    // Nothing here needs root, but that the other programs are built.
    let Some(sandbox) = Sandbox::new() else { return };
    let stage = sandbox.path("stage");
    make("install", &stage).unwrap_or_else(|e| panic!("{e}"));
    let there = files(&stage);
    let share = "usr/local/share";
    for program in ["mkfs.gfs2r", "mount.gfs2r", "umount.gfs2r", "fsck.gfs2r", "gfs2r"] {
        for path in [
            format!("usr/local/sbin/{program}"),
            format!("{share}/man/man8/{program}.8"),
            format!("{share}/bash-completion/completions/{program}"),
            format!("{share}/zsh/site-functions/_{program}"),
            format!("{share}/fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(there.contains(&path), "{path} is missing in {there:?}");
        }
        sandbox.sh("bash -n \"$1\"", &[&stage.join(format!("{share}/bash-completion/completions/{program}"))]).good();
        let page = std::fs::read_to_string(stage.join(format!("{share}/man/man8/{program}.8"))).expect("a page");
        assert!(page.contains(".SH NAME") && page.contains(".SH OPTIONS") && page.contains("SEE ALSO"), "{page}");
    }
    for name in ["gfs2r-quota-set.8", "gfs2r-status.8", "gfs2r-freeze.8"] {
        assert!(there.contains(&format!("{share}/man/man8/{name}")), "{name} is missing");
    }
    for name in ["mount.gfs2r", "umount.gfs2r", "mkfs.gfs2r", "fsck.gfs2r", "mount.fuse.gfs2r", "umount.fuseblk.gfs2r"]
    {
        assert!(there.contains(&format!("sbin/{name}")), "/sbin/{name} is missing");
    }
    make("uninstall", &stage).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(files(&stage), Vec::<String>::new(), "uninstall leaves files");
}

#[test]
fn help_and_version() {
    let Some(sandbox) = Sandbox::new() else { return };
    for command in [
        "mount.gfs2r",
        "umount.gfs2r",
        "gfs2r",
        "gfs2r status",
        "gfs2r df",
        "gfs2r quota",
        "gfs2r quota set",
        "gfs2r glocks",
        "gfs2r dlm",
        "gfs2r dlm ls",
        "gfs2r dlm status",
        "gfs2r dlm lockdump",
        "gfs2r dlm plocks",
        "gfs2r freeze",
        "gfs2r thaw",
        "gfs2r dump",
        "gfs2r demo",
    ] {
        let help = sandbox.sh(&format!("COLUMNS=80 {command} --help"), &[]).good();
        assert!(help.lines().count() <= 60, "{command}: longer than a terminal:\n{help}");
        assert!(help.lines().all(|l| l.chars().count() <= 80), "{command}: wider than a terminal:\n{help}");
        let end = help.split("Examples:").nth(1).unwrap_or_else(|| panic!("{command}: no examples:\n{help}"));
        assert!(end.trim().lines().all(|l| l.trim().len() > 5), "{command}: the examples are not the end:\n{help}");
    }
    for command in ["mount.gfs2r", "umount.gfs2r", "gfs2r"] {
        let version = sandbox.sh(&format!("{command} -V"), &[]).good();
        assert!(version.starts_with(command) && version.contains("1801") && version.contains("1802"), "{version}");
    }
    // Usage errors are one line, with mount(8)'s status.
    sandbox.sh("mount.gfs2r /dev/null", &[]).fails(1, "<DIR>");
    sandbox.sh("mount.gfs2r a b -o", &[]).fails(1, "-o");
    sandbox.sh("umount.gfs2r --nonsense x", &[]).fails(1, "--nonsense");
}
