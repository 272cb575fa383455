//! Results, for people and for programs.

use crate::Arguments;
use gfs2r_fsck::{Issue, Repaired, Report, Severity};
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

/// The result of a repair.
pub(crate) fn repaired(arguments: &Arguments, device: &Path, done: &Repaired) -> io::Result<()> {
    let out = &mut io::stdout().lock();
    let path = device.display();
    let mended = done.issues.iter().filter(|(_, repaired)| *repaired).count();
    let left = done.issues.len() - mended;
    if arguments.json {
        let issues: Vec<_> = done
            .issues
            .iter()
            .map(|(issue, repaired)| {
                let mut object = issue_json(issue);
                object["repaired"] = json!(repaired);
                object
            })
            .collect();
        let all = json!({
            "device": device.to_string_lossy(),
            "clean": done.clean,
            "cancelled": done.cancelled,
            "journals_replayed": done.replayed,
            "blocks_written": done.written,
            "issues": issues,
        });
        return writeln!(out, "{all}");
    }
    if arguments.quiet {
        return Ok(());
    }
    for (issue, repaired) in &done.issues {
        writeln!(out, "{issue}{}", if *repaired { "" } else { ": left as it is" })?;
    }
    if done.replayed > 0 {
        writeln!(out, "{path}: {} journals replayed", done.replayed)?;
    }
    match () {
        () if done.cancelled => writeln!(out, "{path}: stopped, no repairs were written"),
        () if done.issues.is_empty() && done.clean => writeln!(out, "{path}: clean"),
        () if done.clean => writeln!(out, "{path}: {mended} faults repaired, {} blocks written", done.written),
        () => writeln!(out, "{path}: {mended} faults repaired, {left} left, {} blocks written", done.written),
    }
}

fn issue_json(issue: &Issue) -> serde_json::Value {
    json!({
        "code": issue.code(),
        "severity": issue.severity().to_string(),
        "block": issue.block,
        "inode": issue.inode,
        "path": issue.path.as_ref().map(|p| p.to_string_lossy()),
        "text": issue.kind.to_string(),
    })
}

/// The result of a check.
pub(crate) fn report(arguments: &Arguments, device: &Path, report: &Report) -> io::Result<()> {
    let out = &mut io::stdout().lock();
    if arguments.json {
        return writeln!(out, "{}", as_json(device, report));
    }
    if arguments.quiet {
        return Ok(());
    }
    let least = if arguments.verbose { Severity::Info } else { Severity::Warning };
    for issue in report.issues.iter().filter(|i| i.severity() >= least || i.code() == "journal-replayed") {
        writeln!(out, "{issue}")?;
    }
    if report.more > 0 {
        writeln!(out, "and {} more", report.more)?;
    }
    let stats = &report.stats;
    if arguments.verbose {
        writeln!(
            out,
            "block size {}, {} resource groups, {} journals ({} dirty), {} of {} blocks free, {} inodes ({} unlinked, \
             {} directories), {} entries, {} data blocks, {} bytes read",
            stats.block_size,
            stats.rgrps,
            stats.journals,
            stats.journals_dirty,
            stats.free,
            stats.blocks,
            stats.dinodes,
            stats.unlinked,
            stats.directories,
            stats.entries,
            stats.data_blocks,
            stats.bytes_read
        )?;
    }
    let (errors, all) = (report.errors().count() as u64 + report.more, report.problems().count() as u64 + report.more);
    let path = device.display();
    match (report.complete, all) {
        (false, _) => writeln!(out, "{path}: {errors} errors; the check stopped early"),
        (true, 0) => writeln!(out, "{path}: clean"),
        (true, _) => writeln!(out, "{path}: {errors} errors, {} warnings, nothing was changed", all - errors),
    }
}

fn as_json(device: &Path, report: &Report) -> serde_json::Value {
    let issues: Vec<_> = report.issues.iter().map(issue_json).collect();
    let stats = &report.stats;
    json!({
        "device": device.to_string_lossy(),
        "clean": report.is_clean(),
        "complete": report.complete,
        "issues": issues,
        "more": report.more,
        "stats": {
            "block_size": stats.block_size,
            "rgrps": stats.rgrps,
            "journals": stats.journals,
            "journals_dirty": stats.journals_dirty,
            "blocks_replayed": stats.replayed,
            "blocks": stats.blocks,
            "free": stats.free,
            "dinodes": stats.dinodes,
            "unlinked": stats.unlinked,
            "directories": stats.directories,
            "entries": stats.entries,
            "data_blocks": stats.data_blocks,
            "bytes_read": stats.bytes_read,
        },
    })
}
