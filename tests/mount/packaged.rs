//! What a packager looks at: pages, completions, the stock tools' names; and fsck(8) at boot.

use crate::sandbox::{Sandbox, make};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The stock names, and what each must be able to do without a volume: its help or version.
const STOCK: [(&str, &str); 6] = [
    ("mkfs.gfs2", "-V"),
    ("fsck.gfs2", "-V"),
    ("mount.gfs2", "-V"),
    ("gfs2_grow", "-V"),
    ("gfs2_jadd", "-V"),
    ("tunegfs2", "-V"),
];

/// Puts copies of the system's programs without the stock ones, and ours by their names, where mount(8) and the like look.
const ONLY_OURS: &str = "set -e; sbin=$(readlink -f /sbin); cp -a \"$sbin\" sbin
    for n in mkfs.gfs2 fsck.gfs2 gfs2_grow gfs2_jadd tunegfs2; do rm -f sbin/$n; done
    cp -a \"$1\"/sbin/. sbin; mount --bind sbin \"$sbin\"; mount --bind \"$1/usr/local\" /usr/local";

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    all.sort();
    all
}

/// Words like `gfs2r-df(8)` of a page's last section, without roff's escapes.
fn see_also(page: &str) -> Vec<String> {
    let list = page.rsplit(".SH \"SEE ALSO\"\n").next().and_then(|l| l.rsplit(".SH SEE ALSO\n").next());
    let list = list.unwrap_or_default().replace('\\', "");
    list.split([',', '\n']).map(str::trim).filter(|w| w.ends_with(')')).map(String::from).collect()
}

#[test]
fn pages_are_whole_and_render() {
    let Some(s) = Sandbox::new() else { return };
    let stage = s.path("stage");
    make("install", &stage).unwrap_or_else(|e| panic!("{e}"));
    let man = stage.join("usr/local/share/man");
    let pages: Vec<_> = entries(&man.join("man8")).into_iter().chain(entries(&man.join("man5"))).collect();
    let name = |path: &Path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.rsplit_once('.').map(|(name, section)| format!("{name}({section})")).expect("a section")
    };
    let ours: HashSet<_> = pages.iter().map(|p| name(p)).collect();
    assert!(ours.contains("gfs2r-cluster.toml(5)") && ours.contains("gfs2r-fsck-checks(8)"), "{ours:?}");
    let groff = s.sh("command -v groff", &[]).code == 0;
    if !groff {
        eprintln!("groff is missing: no page was rendered.");
    }
    for page in &pages {
        let (text, name) = (fs::read_to_string(page).expect("a page"), name(page));
        for section in ["NAME", "SEE ALSO"] {
            assert!(text.contains(section), "{name} has no {section}");
        }
        if name.ends_with("(8)") && name != "gfs2r-fsck-checks(8)" {
            for section in [".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXIT STATUS", ".SH EXAMPLES"] {
                assert!(text.contains(section), "{name} has no {section}");
            }
        }
        let also = see_also(&text);
        assert!(!also.is_empty(), "{name} names no other page");
        for other in also.iter().filter(|o| o.contains("gfs2r")) {
            assert!(ours.contains(other), "{name} names {other}, which is not there");
        }
        if groff {
            let said = s.sh("groff -K utf8 -man -Tutf8 -ww -z \"$1\"", &[page]).good();
            assert_eq!(said, "", "{name}");
        }
    }
}

#[test]
fn completions_can_be_read() {
    let Some(s) = Sandbox::new() else { return };
    let stage = s.path("stage");
    make("install", &stage).unwrap_or_else(|e| panic!("{e}"));
    let share = stage.join("usr/local/share");
    for file in entries(&share.join("bash-completion/completions")) {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let said = s.sh(&format!("bash -c '. \"$0\" && complete -p {name}' \"$1\""), &[&file]).good();
        assert!(said.contains(&name), "{said}");
    }
    for (shell, dir) in [("zsh", "zsh/site-functions"), ("fish", "fish/vendor_completions.d")] {
        if s.sh(&format!("command -v {shell}"), &[]).code != 0 {
            eprintln!("{shell} is missing: its completions were not read.");
            continue;
        }
        for file in entries(&share.join(dir)) {
            assert_eq!(s.sh(&format!("{shell} -n \"$1\""), &[&file]).good(), "");
        }
    }
}

#[test]
fn the_stock_names_do_what_the_stock_tools_do() {
    let Some(s) = Sandbox::new() else { return };
    let stage = s.path("stage");
    // What is there and not ours stays, at both ends.
    fs::create_dir_all(stage.join("sbin")).expect("a folder");
    fs::write(stage.join("sbin/tunegfs2"), "of another package").expect("a file");
    let said = make("install DROP_IN=1", &stage).unwrap_or_else(|e| panic!("{e}"));
    assert!(said.contains("sbin/tunegfs2 is not ours, and stays"), "{said}");
    make("install DROP_IN=1", &stage).unwrap_or_else(|e| panic!("a second time: {e}"));
    s.sh(ONLY_OURS, &[&stage]).good();
    for (name, option) in STOCK {
        let said = s.sh(&format!("/usr/local/sbin/{name} {option}"), &[]).good();
        assert!(said.contains("gfs2r"), "{name}: {said}");
    }
    s.sh("truncate -s 200M disk.img && mkfs -t gfs2 -O -q -D -K -j 2 -J 8 -p lock_nolock -t a:b disk.img", &[]).good();
    for options in ["-n", "-n -n", "-n -f -q -v", "-y", "-a", "-p"] {
        s.sh(&format!("fsck.gfs2 {options} disk.img"), &[]).good();
    }
    for wrong in ["-n -y", "-n -a", "-n -p", "-y -p", "-x"] {
        s.sh(&format!("fsck.gfs2 {wrong} disk.img"), &[]).code_is(16);
    }
    s.sh("mkdir -p mnt && mount -t gfs2 disk.img mnt -o noatime && echo hello > mnt/f", &[]).good();
    s.sh("gfs2_jadd -j 1 -J 32 mnt", &[]).good();
    s.sh("gfs2_grow mnt", &[]).code_is(255); // Nothing to grow into.
    s.sh("umount mnt", &[]).good();
    let said = s.sh("/usr/local/sbin/tunegfs2 -l disk.img", &[]).good();
    assert!(said.contains("a:b"), "{said}");
    s.is_clean(&s.path("disk.img"));
    make("uninstall", &stage).unwrap_or_else(|e| panic!("{e}"));
    let left = s.sh("find \"$1\" ! -type d -printf '%P\\n'", &[&stage]).good();
    assert_eq!(left, "sbin/tunegfs2\n");
}

#[test]
fn fsck_at_boot() {
    let Some(s) = Sandbox::new() else { return };
    let image = s.image("disk.img", 100 << 20, "-p lock_nolock -t a:b -j 1");
    // As it is when the power fails: the file is on the disk, the journal open.
    s.sh(
        "mkdir -p mnt && mount -t gfs2r disk.img mnt && echo kept > mnt/f && sync mnt/f && cp disk.img crashed.img",
        &[],
    )
    .good();
    s.sh("umount mnt", &[]).good();
    let (Some(clean), Some(crashed)) = (s.attach(&image), s.attach(&s.path("crashed.img"))) else { return };
    let boot = |device: &Path, how: &str| {
        let line = format!("{} /srv gfs2r defaults 0 2\n", device.display());
        fs::write(s.path("fstab"), line).expect("a table");
        s.sh(&format!("FSTAB_FILE=fstab fsck {how}"), &[device])
    };
    // All of the table, and one device as systemd does it; a type, as people do it.
    for how in ["-A -T -a", "-a -T -l \"$1\"", "-t gfs2r -T -a \"$1\""] {
        let said = boot(&clean, how);
        assert_eq!((said.code, said.text.trim_end().ends_with(": clean.")), (0, true), "{how}: {}", said.text);
    }
    let said = boot(&crashed, "-A -T -a").good();
    assert!(said.contains("1 journals replayed"), "{said}");
    assert!(boot(&crashed, "-A -T -a").good().contains(": clean."), "a second time nothing is to be done");
    s.is_clean(&crashed);
    s.sh("mount -t gfs2r \"$1\" mnt && grep -qx kept mnt/f && umount mnt", &[&crashed]).good();
}
