//! One fault, one finding: each kind of issue is planted alone in a volume that was in order, and found alone.

#[path = "../common/mod.rs"]
mod common;
mod directories;
mod inodes;
mod volume;

use common::agree;
use common::plant::Plant;
use gfs2r::format::{MetaHeader, OnDisk, get_u64, put_u64};
use gfs2r_fsck::{CODES, CheckError, Options, Severity, Yes, check, repair};
use std::collections::BTreeSet;

/// (code, image, fault). A code may occur several times.
type Case = (&'static str, &'static str, fn(&Plant));

const F4: &str = "full.4096";
const F5: &str = "full.512";
const D4: &str = "dirty.4096";

fn to_type(bytes: &mut [u8], kind: u32) {
    MetaHeader::edit(bytes).kind.set(kind);
}

/// The first pointer of a dinode: of an indirect block, in the files used here.
fn first_pointer(p: &Plant, path: &str) -> u64 {
    get_u64(&p.read(p.addr(path)), 232)
}

fn all() -> impl Iterator<Item = &'static Case> {
    use {directories::*, inodes::*, volume::*};
    [SUPERBLOCK_AND_SYSTEM, RGRPS, JOURNALS, DINODES, DIRECTORIES, XATTRS].into_iter().flatten()
}

#[test]
fn one_fault_one_finding() {
    let mut failures = Vec::new();
    let images: Vec<_> = [F4, F5, D4].map(|name| (name, common::image(name))).into();
    for (n, (code, image, fault)) in all().enumerate() {
        let device = &images.iter().find(|(name, _)| name == image).expect("listed").1;
        let plant = Plant::new(device);
        let usual = plant.check().issues;
        assert!(usual.iter().all(|i| i.severity() == Severity::Info), "{image} is not clean: {usual:?}");
        fault(&plant);
        let report = check(&plant.device, &Options::default()).expect("the check runs");
        // What is legal and was there before is not a finding; neither is the view of a dirty journal, unless asked for.
        let found: Vec<_> = report
            .issues
            .iter()
            .filter(|i| !usual.contains(i) && (i.code() != "journal-replayed" || *code == "journal-replayed"))
            .filter(|i| i.severity() > Severity::Info || i.code() == *code)
            .collect();
        if found.len() != 1 || found[0].code() != *code {
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            failures.push(format!("case {n}, {code}: found {found:#?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// In a volume that the quick check calls healthy, each fault alone changes its mind.
#[test]
fn the_quick_check_sees_every_fault() {
    let images: Vec<_> = [F4, F5].map(|name| (name, agree::healthy(name))).into();
    for (n, (code, image, fault)) in all().enumerate() {
        // These are about journals that are dirty: the quick check does not look at such volumes.
        let device = if *image == D4 {
            common::image(image)
        } else {
            images.iter().find(|(name, _)| name == image).expect("listed").1.device.snapshot()
        };
        let plant = Plant::new(&device);
        fault(&plant);
        let full = check(&plant.device, &Options { quick: false, ..Options::default() }).expect("the check runs");
        assert!(full.has(code), "case {n}, {code}: {full}");
        assert_eq!(agree::agree(&plant.device, &Options::default()), Ok(false), "case {n}, {code}");
    }
}

/// The stock tool takes its time: it is asked about every fifth case, or about every `GFS2R_STOCK`th.
fn asked(n: usize) -> bool {
    let every = std::env::var("GFS2R_STOCK").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    every != 0 && n % every == 0
}

/// After the repair nothing is found any more, by us or by the stock tool.
#[test]
fn what_is_planted_is_repaired() {
    let mut failures = Vec::new();
    let images: Vec<_> = [F4, F5, D4].map(|name| (name, common::image(name))).into();
    let only = std::env::var("GFS2R_CASE").ok();
    for (n, (code, image, fault)) in all().enumerate() {
        if only.as_ref().is_some_and(|only| *only != format!("{n}") && only != code) {
            continue;
        }
        let device = &images.iter().find(|(name, _)| name == image).expect("listed").1;
        let plant = Plant::new(device);
        if image.starts_with("full") {
            plant.refill_journals();
        }
        fault(&plant);
        let done = match repair(&plant.device, &mut Yes) {
            Ok(done) => done,
            Err(e) => {
                failures.push(format!("case {n}, {code}: {e}"));
                continue;
            }
        };
        let report = check(&plant.device, &Options::closed()).expect("the check runs");
        if only.is_some() {
            println!("{done:#?}\n{report}");
        }
        if !done.clean || !report.is_clean() {
            let issues: Vec<_> = done.issues.iter().map(|(i, yes)| format!("{yes} {i}")).collect();
            failures.push(format!("case {n}, {code}: {issues:#?}, and then {report}"));
        } else if let Some(status) =
            asked(n).then(|| common::stock_verdict(&plant.device)).flatten().filter(|&s| s != 0)
        {
            failures.push(format!("case {n}, {code}: the stock tool says {status} ({} rounds)", done.rounds));
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_code_is_planted() {
    let planted: BTreeSet<_> = all().map(|(code, ..)| *code).collect();
    // This one needs another option and has a test of its own.
    // And without a superblock nothing is checked: see `tests/repair`.
    let others = ["journal-dirty", "superblock-lost"];
    let missing: Vec<_> =
        CODES.iter().map(|(code, _)| *code).filter(|c| !planted.contains(c) && !others.contains(c)).collect();
    assert!(missing.is_empty(), "no test plants {missing:?}");
}

#[test]
fn a_dirty_journal_where_none_is_allowed() {
    let plant = Plant::new(&common::image(F4));
    plant.log(1, &[(plant.addr("/a/hello"), plant.read(plant.addr("/a/hello")))]);
    let report = check(&plant.device, &Options::closed()).expect("the check runs");
    assert_eq!(report.codes(), ["journal-dirty"], "{report}");
}

#[test]
fn issues_know_where_they_are() {
    let plant = Plant::new(&common::image(F4));
    plant.dinode("/a/b/c/renamed", |di| di.nlink.set(9));
    plant.dinode("<master>/per_node/quota_change1", |di| di.nlink.set(9));
    let report = plant.check();
    let paths: BTreeSet<_> = report.problems().filter_map(|i| i.path.clone()).collect();
    assert_eq!(paths, BTreeSet::from(["/a/b/c/renamed".into(), "<master>/per_node/quota_change1".into()]));
    assert!(report.problems().all(|i| i.inode.is_some() && i.block == i.inode));
}

#[test]
fn owners_of_a_block_are_named() {
    let plant = Plant::new(&common::image(F4));
    let shared = plant.blocks("/a/cut")[0];
    plant.edit(plant.addr("/a/data"), |b| put_u64(b, 240, shared));
    let report = plant.check();
    let text = report.problems().next().expect("one").to_string();
    for path in ["/a/cut", "/a/data"] {
        assert!(text.contains(&format!("inode {}", plant.addr(path))), "{text}");
    }
}

#[test]
fn what_cannot_be_worked_with_is_refused() {
    let refused = |f: fn(&Plant)| {
        let plant = Plant::new(&common::image(F4));
        f(&plant);
        matches!(check(&plant.device, &Options::default()), Err(CheckError::Superblock(_)))
    };
    assert!(refused(|p| p.superblock(|sb| sb.header.magic.set(0))));
    assert!(refused(|p| p.superblock(|sb| sb.fs_format.set(1803))));
    assert!(refused(|p| p.superblock(|sb| sb.fs_format.set(1800))));
    assert!(refused(|p| p.superblock(|sb| sb.bsize.set(4097))));
    assert!(refused(|p| p.superblock(|sb| sb.master_dir.addr.set(0))));
}

#[test]
fn the_number_of_issues_is_limited() {
    let plant = Plant::new(&common::image(F4));
    for leaf in plant.leaves("/big") {
        plant.leaf(leaf, |l| l.inode.set(7));
    }
    let report = check(&plant.device, &Options { issues_max: 2, ..Options::default() }).expect("the check runs");
    assert_eq!(report.issues.len(), 2);
    assert!(report.more > 0 && !report.is_clean());
}
