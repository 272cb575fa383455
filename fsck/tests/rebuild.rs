//! Foundations that are lost altogether are rebuilt: superblock, rindex, headers of resource groups, each system file, the top
//! directories. Then neither checker finds anything, and all files are there.

mod common;

use common::plant::Plant;
use gfs2r_fsck::{Journals, Options, Volume, Yes, check, repair};
use std::collections::BTreeSet;

/// A way to lose something.
type Loss = fn(&Plant);

const LOSSES: &[(&str, Loss)] = &[
    ("superblock", |p| p.edit(65536 / p.bs as u64, |b| b.fill(0))),
    ("rindex", |p| lose(p, "<master>/rindex")),
    ("every rgrp header", |p| p.rindex().iter().for_each(|e| p.edit(e.addr.get(), |b| b.fill(0)))),
    ("one rgrp header and rindex", |p| {
        p.edit(p.rindex()[1].addr.get(), |b| b.fill(0));
        lose(p, "<master>/rindex");
    }),
    ("superblock and rindex", |p| {
        lose(p, "<master>/rindex");
        p.edit(65536 / p.bs as u64, |b| b.fill(0));
    }),
    ("master", |p| lose(p, "<master>")),
    ("master and superblock", |p| {
        lose(p, "<master>");
        p.edit(65536 / p.bs as u64, |b| b.fill(0));
    }),
    ("jindex", |p| lose(p, "<master>/jindex")),
    ("per_node", |p| lose(p, "<master>/per_node")),
    ("inum", |p| lose(p, "<master>/inum")),
    ("statfs", |p| lose(p, "<master>/statfs")),
    ("quota", |p| lose(p, "<master>/quota")),
    ("journal0", |p| lose(p, "<master>/jindex/journal0")),
    ("inum_range0", |p| lose(p, "<master>/per_node/inum_range0")),
    ("statfs_change0", |p| lose(p, "<master>/per_node/statfs_change0")),
    ("quota_change0", |p| lose(p, "<master>/per_node/quota_change0")),
    ("root", |p| lose(p, "/")),
];

fn lose(p: &Plant, path: &str) {
    p.edit(p.addr(path), |b| b.fill(0));
}

/// The last parts of all paths, without lost+found and what was lost itself.
fn names(p: &Plant) -> BTreeSet<String> {
    let volume = Volume::open(&p.device, Journals::Overlay).expect("a volume");
    let tree = volume.tree().expect("in order");
    tree.iter().filter_map(|e| Some(e.path.file_name()?.to_string_lossy().into_owned())).collect()
}

fn rebuild(image: &str, losses: impl Iterator<Item = &'static (&'static str, Loss)>) {
    let base = Plant::new(&common::image(image));
    base.refill_journals();
    let before = names(&base);
    let mut failures = Vec::new();
    for (what, loss) in losses {
        let p = Plant { device: base.device.snapshot(), bs: base.bs };
        loss(&p);
        let done = match repair(&p.device, &mut Yes) {
            Ok(done) => done,
            Err(e) => {
                failures.push(format!("{image}, {what}: {e}"));
                continue;
            }
        };
        let report = check(&p.device, &Options::closed()).expect("the check runs");
        if !done.clean || !report.is_clean() {
            failures.push(format!("{image}, {what}: {report}"));
            continue;
        }
        if let Some(status) = common::stock_verdict(&p.device).filter(|&s| s != 0) {
            failures.push(format!("{image}, {what}: the stock tool says {status}"));
        }
        let after = names(&p);
        // Children of a lost root get names of lost+found, unless their names lie in leaves; what is below keeps its own.
        let missing: Vec<_> = before.difference(&after).collect();
        let allowed = if *what == "root" { 10 } else { 0 };
        if missing.len() > allowed {
            failures.push(format!("{image}, {what}: lost {missing:?}"));
        }
        if *what == "root" && !missing.is_empty() && !after.iter().any(|n| n.starts_with("lost_dir_")) {
            failures.push(format!("{image}, {what}: no lost_dir_N in {after:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn everything_lost_is_rebuilt() {
    rebuild("full.4096", LOSSES.iter());
}

#[test]
fn at_the_smallest_block_size() {
    rebuild("full.512", LOSSES.iter().step_by(2));
}

/// A journal is not written anew while one of its pointers leads to somebody else's block.
#[test]
fn a_journal_that_points_to_a_file_spares_it() {
    let p = Plant::new(&common::image("full.4096"));
    p.refill_journals();
    let (path, fifo) = ("<master>/jindex/journal1", p.addr("/a/fifo"));
    let header = p.blocks(path)[20];
    p.log_header(header, |lh| lh.jinode.set(1));
    let indirect = gfs2r::format::get_u64(&p.read(p.addr(path)), 232);
    p.edit(indirect, |b| gfs2r::format::put_u64(b, 24 + 8 * 10, fifo));
    let before = p.read(fifo);
    let done = repair(&p.device, &mut Yes).expect("repaired");
    let codes: BTreeSet<_> = done.issues.iter().map(|(issue, _)| issue.code()).collect();
    assert!(codes.contains("block-double-owned") && codes.contains("journal-header-place"), "{codes:?}");
    assert!(done.clean, "{:?}", done.issues);
    assert_eq!(p.read(fifo), before, "the file was overwritten");
}
