//! fsck.gfs2r: checks a GFS2 volume, and repairs it.

mod program;

use clap::Parser;
use gfs2r::device::{BlockDevice, FileDevice, OpenMode, claim};
use gfs2r::format::superblock::SUPERBLOCK_OFFSET;
use gfs2r::format::{OnDisk, Superblock};
use gfs2r_fsck::{CheckError, Journals, Options, UndoDevice, check, put_back, repair};
use program::{Answers, Conversation, print};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// No errors.
const CLEAN: u8 = 0;
/// Errors were found and all of them repaired.
const CORRECTED: u8 = 1;
/// Errors were found and left as they are.
const UNCORRECTED: u8 = 4;
/// The check could not be carried out.
const FAILED: u8 = 8;
/// Bad options, a device in use, or not a volume this program knows.
const USAGE: u8 = 16;
/// The user stopped it.
const CANCELLED: u8 = 32;

/// Checks a GFS2 volume and repairs it. No computer may have it mounted, on no node of a cluster.
///
/// Journals that were not closed are replayed first. Without -n, -y, -a or -p every finding is asked about: y repairs it, n
/// leaves it, a repairs it and all that follow. All repairs are worked out in memory and then written through one of the
/// volume's own journals, so that a crash leaves the volume as it was or as it is to be. Ctrl-C stops before that.
///
/// With -n the device is opened read-only and nothing is written, ever; a journal that was not closed is replayed in memory,
/// and the result is checked: the view that the next mount will have.
#[derive(Parser)]
#[command(
    name = "fsck.gfs2r",
    bin_name = "fsck.gfs2r",
    disable_version_flag = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = "\
Exit status:
  0 clean; 1 errors were found, all repaired; 4 errors left; 8 the check failed;
  16 wrong usage, device in use, or not a GFS2 volume; 32 stopped by the user

Examples:
  fsck.gfs2r -n /dev/vg0/shared
  fsck.gfs2r -n --json disk.img
  fsck.gfs2r -y --undo before.undo disk.img
  fsck.gfs2r --put-back before.undo disk.img"
)]
struct Arguments {
    /// Answer no to all questions: change nothing.
    #[arg(short = 'n')]
    no: bool,
    /// Answer yes to all questions: repair everything.
    #[arg(short = 'y', conflicts_with_all = ["no", "automatic", "preen"])]
    yes: bool,
    /// For use at boot: done if all journals are clean (but see -f), else repairs everything. Refuses a volume of a cluster.
    #[arg(short = 'a', conflicts_with = "no")]
    automatic: bool,
    /// The same as -a.
    #[arg(short = 'p', conflicts_with = "no")]
    preen: bool,
    /// Check even if the volume seems clean; with -a and -p.
    #[arg(short = 'f')]
    force: bool,
    /// Say nothing.
    #[arg(short = 'q', overrides_with = "verbose")]
    quiet: bool,
    /// Say more: what is legal but worth knowing, and numbers.
    #[arg(short = 'v', overrides_with = "quiet")]
    verbose: bool,
    /// Print the version.
    #[arg(short = 'V')]
    version: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// With -n: use at most so much memory (bytes, or with K, M or G), and refuse a volume that takes more.
    #[arg(long, value_name = "SIZE", requires = "no", value_parser = size)]
    memory: Option<u64>,
    /// Keep what is overwritten in this file, which must not exist.
    #[arg(long, value_name = "FILE", conflicts_with = "no")]
    undo: Option<PathBuf>,
    /// Put back what an earlier run with --undo has overwritten.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no", "yes", "automatic", "preen", "undo"])]
    put_back: Option<PathBuf>,
    /// Block device or image file.
    #[arg(required_unless_present = "version")]
    device: Option<PathBuf>,
}

/// Bytes, from a number with or without a binary unit.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.to_ascii_uppercase().chars().last() {
        Some('K') => (&text[..text.len() - 1], 10),
        Some('M') => (&text[..text.len() - 1], 20),
        Some('G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: Option<u64> = digits.parse().ok();
    number.and_then(|n| n.checked_mul(1 << shift)).ok_or_else(|| "not a size like 500M or 4G".to_string())
}

fn main() -> ExitCode {
    if let Some(code) = gfs2r_manual::on_request(<Arguments as clap::CommandFactory>::command) {
        return program::manual::also(code);
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
    let mut out = io::stdout();
    let Some(device) = arguments.device.as_deref().filter(|_| !arguments.version) else {
        writeln!(out, "fsck.gfs2r {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(CLEAN);
    };
    let complain = |what: &dyn std::fmt::Display| writeln!(io::stderr(), "fsck.gfs2r: {}: {what}", device.display());
    let mode = if arguments.no { OpenMode::ReadOnly } else { OpenMode::ReadWrite };
    let opened = FileDevice::open(device, mode).and_then(|opened| {
        if !arguments.no {
            claim(&opened)?;
        }
        Ok(opened)
    });
    let opened = match opened {
        Ok(opened) => opened,
        Err(e) => {
            let hint = if e.kind() == io::ErrorKind::ResourceBusy { " (unmount it first)" } else { "" };
            complain(&format!("{e}{hint}"))?;
            return Ok(USAGE);
        }
    };
    let result = match (&arguments.undo, &arguments.put_back) {
        _ if arguments.no => look(arguments, &opened),
        (_, Some(file)) => match put_back(&opened, file) {
            Ok(n) => {
                writeln!(io::stdout(), "{}: {n} writes undone", device.display())?;
                return Ok(CLEAN);
            }
            Err(e) => {
                complain(&format!("{}: {e}", file.display()))?;
                return Ok(FAILED);
            }
        },
        (Some(file), None) => match UndoDevice::new(opened, file) {
            Ok(kept) => mend(arguments, &kept),
            Err(e) => {
                complain(&format!("{}: {e}", file.display()))?;
                return Ok(USAGE);
            }
        },
        (None, None) => mend(arguments, &opened),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            complain(&e)?;
            Ok(if matches!(e, CheckError::Superblock(_)) { USAGE } else { FAILED })
        }
    }
}

/// Checks without writing. The inner result is that of printing.
fn look(arguments: &Arguments, device: &FileDevice) -> Result<io::Result<u8>, CheckError> {
    let report =
        check(device, &Options { journals: Journals::Overlay, memory: arguments.memory, ..Options::default() })?;
    let code = match (report.complete, report.is_clean()) {
        (false, _) => FAILED,
        (true, false) => UNCORRECTED,
        (true, true) => CLEAN,
    };
    Ok(print::report(arguments, device.path(), &report).map(|()| code))
}

/// Checks and repairs.
fn mend(arguments: &Arguments, device: &dyn BlockDevice) -> Result<io::Result<u8>, CheckError> {
    let path = arguments.device.clone().unwrap_or_default();
    let preen = arguments.automatic || arguments.preen;
    if preen {
        let report = check(device, &Options::default())?;
        let dirty = report.stats.journals_dirty > 0;
        if !dirty && !arguments.force {
            let said = if arguments.quiet { Ok(()) } else { writeln!(io::stdout(), "{}: clean.", path.display()) };
            return Ok(said.map(|()| CLEAN));
        }
        if is_clustered(device)? && (dirty || !report.is_clean()) {
            let what = "it belongs to a cluster, and other nodes may have it mounted: unmount it everywhere and run \
                        fsck.gfs2r without -a and -p";
            let said = writeln!(io::stderr(), "fsck.gfs2r: {}: {what}", path.display());
            return Ok(said.map(|()| UNCORRECTED));
        }
    }
    let answers = if arguments.yes || preen { Answers::Yes } else { Answers::Ask };
    let mut talk = Conversation::new(answers, arguments.quiet || arguments.json);
    let done = repair(device, &mut talk)?;
    let code = match () {
        () if done.cancelled => CANCELLED,
        () if !done.clean => UNCORRECTED,
        () if done.issues.iter().any(|(_, repaired)| *repaired) => CORRECTED,
        () => CLEAN,
    };
    Ok(print::repaired(arguments, &path, &done).map(|()| code))
}

fn is_clustered(device: &dyn BlockDevice) -> Result<bool, CheckError> {
    let mut bytes = gfs2r::device::AlignedBuf::zeroed(4096);
    device.read(SUPERBLOCK_OFFSET, &mut bytes).map_err(|error| CheckError::Io { block: 0, error })?;
    Ok(!Superblock::view(&bytes).lockproto().ends_with(b"nolock"))
}
