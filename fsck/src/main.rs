//! fsck.gfs2r: checks a GFS2 volume. So far it only looks (`-n`).

use clap::Parser;
use gfs2r::device::{FileDevice, OpenMode};
use gfs2r_fsck::{CheckError, Journals, Options, Report, Severity, check};
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// No errors.
const CLEAN: u8 = 0;
/// Errors were found and left as they are.
const UNCORRECTED: u8 = 4;
/// The check could not be carried out.
const FAILED: u8 = 8;
/// Bad options, or not a volume this program knows.
const USAGE: u8 = 16;

/// Checks a GFS2 volume. The device is opened read-only and may be in use, but what changes meanwhile looks like damage.
///
/// A journal that was not closed is replayed in memory, and the result is checked: the view that the next mount will have.
///
/// Exit status: 0 clean, 4 errors left uncorrected, 8 the check failed, 16 usage error or not a known GFS2 volume.
#[derive(Parser)]
#[command(name = "fsck.gfs2r", bin_name = "fsck.gfs2r", disable_version_flag = true)]
struct Arguments {
    /// Answer no to all questions: change nothing.
    #[arg(short = 'n')]
    no: bool,
    /// Repair everything (not implemented yet).
    #[arg(short = 'y', conflicts_with_all = ["no", "automatic", "preen"])]
    yes: bool,
    /// Repair what is safe, for use at boot (not implemented yet).
    #[arg(short = 'a')]
    automatic: bool,
    /// The same as -a.
    #[arg(short = 'p')]
    preen: bool,
    /// Check even if the volume seems clean; always done.
    #[arg(short = 'f')]
    force: bool,
    /// Say nothing.
    #[arg(short = 'q', conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: what is legal but worth knowing, and numbers.
    #[arg(short = 'v')]
    verbose: bool,
    /// Print the version.
    #[arg(short = 'V')]
    version: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Block device or image file.
    #[arg(required_unless_present = "version")]
    device: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(code) = gfs2r_manual::on_request(<Arguments as clap::CommandFactory>::command) {
        return code;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let code = if e.use_stderr() { USAGE } else { CLEAN };
            return match e.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(FAILED),
            };
        }
    };
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        // Nobody listens any more; the status still tells.
        Err(_) => ExitCode::from(FAILED),
    }
}

fn run(arguments: &Arguments) -> io::Result<u8> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let Some(device) = arguments.device.as_deref().filter(|_| !arguments.version) else {
        writeln!(out, "fsck.gfs2r {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(CLEAN);
    };
    if !arguments.no {
        writeln!(err, "fsck.gfs2r: repair is not implemented yet: run with -n")?;
        return Ok(USAGE);
    }
    let path = device.display();
    let opened = match FileDevice::open(device, OpenMode::ReadOnly) {
        Ok(opened) => opened,
        Err(e) => {
            writeln!(err, "fsck.gfs2r: {path}: {e}")?;
            return Ok(USAGE);
        }
    };
    match check(&opened, &Options { journals: Journals::Overlay, ..Options::default() }) {
        Ok(report) => {
            let code = if report.is_clean() { CLEAN } else { UNCORRECTED };
            if arguments.json {
                writeln!(out, "{}", as_json(device, &report))?;
            } else if !arguments.quiet {
                print(&mut out, arguments, device, &report)?;
            }
            Ok(if report.complete { code } else { FAILED })
        }
        Err(e) => {
            writeln!(err, "fsck.gfs2r: {path}: {e}")?;
            Ok(if matches!(e, CheckError::Superblock(_)) { USAGE } else { FAILED })
        }
    }
}

fn print(out: &mut impl Write, arguments: &Arguments, device: &Path, report: &Report) -> io::Result<()> {
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
    let issues: Vec<_> = report
        .issues
        .iter()
        .map(|issue| {
            json!({
                "code": issue.code(),
                "severity": issue.severity().to_string(),
                "block": issue.block,
                "inode": issue.inode,
                "path": issue.path.as_ref().map(|p| p.to_string_lossy()),
                "text": issue.kind.to_string(),
            })
        })
        .collect();
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
