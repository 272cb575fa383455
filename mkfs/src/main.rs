//! mkfs.gfs2r: makes a GFS2 filesystem.
//!
//! ```text
//! cli   arguments           ask   are they right?      busy  is the device in use?
//! probe what is there now   show  what the user sees   everything else is the library
//! ```

mod ask;
mod cli;
mod probe;
mod show;

use cli::{Cli, Extended};
use gfs2r::device::{BlockDevice, FileDevice, OpenMode};
use gfs2r_mkfs::{Error, Plan};
use show::{Show, print};
use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

/// Exit status of wrong options and refusals, as of the stock tool.
const REFUSED: u8 = 255;
/// Exit status of failures after that.
const FAILED: u8 = 1;

/// Why it ends here: the status and what is still to be said.
struct Stop(u8, String);

impl Stop {
    fn refuse(why: impl std::fmt::Display) -> Self {
        Self(REFUSED, why.to_string())
    }
    /// `program: what: why`.
    fn fail(what: &str, why: impl std::fmt::Display) -> Self {
        Self(FAILED, format!("mkfs.gfs2r: {what}: {why}"))
    }
}

fn main() -> ExitCode {
    if let Some(code) = gfs2r_manual::on_request(<Cli as clap::CommandFactory>::command) {
        return code;
    }
    match Cli::from_args().map_err(|status| Stop(status, String::new())).and_then(|cli| run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop(status, text)) => {
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(status)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Stop> {
    let extended = Extended::parse(&cli.extended).map_err(|wrong| match wrong {
        cli::Wrong::Unknown(text) => {
            print(cli::EXTENDED_HELP);
            Stop::refuse(text)
        }
        cli::Wrong::Other(text) => Stop::refuse(text),
    })?;
    if extended.help {
        print(cli::EXTENDED_HELP);
        return Ok(());
    }
    let mut wish = ask::Wish::new(cli, extended).map_err(Stop::refuse)?;
    let path = Path::new(&wish.device).to_path_buf();
    let device = open(&path, cli.dry_run)?;
    let found = probe::probe(&device, &path);
    if let Some(found) = &found {
        say(cli, &format!("{}\n", found.sentence()));
    }
    let plan = decide(cli, &mut wish, &device)?;
    if !cli.dry_run {
        confirm(cli, &path)?;
        let mut show = Show::new(cli.quiet || cli.json, cli.debug.then_some(&plan));
        plan.write(&device, &mut show).map_err(|e| Stop::fail(&wish.device, e))?;
    }
    report(cli, plan, wish.device)
}

/// Opens the device for writing, alone.
fn open(path: &Path, dry_run: bool) -> Result<FileDevice, Stop> {
    let name = path.display().to_string();
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::InvalidInput => Stop(FAILED, format!("'{name}' is not a block device or regular file")),
        std::io::ErrorKind::ResourceBusy => Stop::fail(&name, format!("Device or resource busy ({e})")),
        _ => Stop::fail(&name, words(&e)),
    };
    if path.is_dir() {
        return Err(Stop::fail(&name, "Is a directory"));
    }
    let mode = if dry_run { OpenMode::ReadOnly } else { OpenMode::ReadWrite };
    let device = FileDevice::open(path, mode).map_err(failed)?;
    if !dry_run {
        gfs2r::device::claim(&device).map_err(failed)?;
    }
    Ok(device)
}

/// The system's words for an error, without the number.
fn words(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Everything that depends on the device, in the order in which the stock tool looks at it.
fn decide(cli: &Cli, wish: &mut ask::Wish, device: &FileDevice) -> Result<Plan, Stop> {
    let topology = wish.extended.topology.or_else(|| device.topology());
    if let Some(t) = &topology {
        if cli.debug {
            say(
                cli,
                &format!(
                    "alignment_offset: {}\nlogical_sector_size: {}\nminimum_io_size: {}\noptimal_io_size: {}\n\
                 physical_sector_size: {}\n",
                    t.alignment_offset, t.logical, t.minimum_io, t.optimal_io, t.physical
                ),
            );
        }
        if t.alignment_offset != 0 {
            eprintln!("Warning: device is not properly aligned. This may harm performance.");
        }
    }
    let (bs, warning) = ask::block_size(cli.block_size.as_deref(), topology.as_ref()).map_err(Stop::refuse)?;
    if let Some(warning) = warning {
        say(cli, &format!("{warning}\n"));
    }
    wish.options.block_size = bs;
    if let Some(text) = &cli.uuid {
        wish.options.uuid = ask::uuid(text).map_err(Stop::refuse)?;
    }
    if let Some(text) = &wish.size {
        let blocks = cli::size(text, bs.bytes() as u64);
        wish.options.blocks = Some(blocks.ok_or_else(|| Stop::refuse(format!("Bad size: {text}")))?);
    }
    wish.options.discard = device.is_block_device() && !cli.keep;
    // Whether it fits at all comes first; only then are the stripes looked at.
    let alignment = wish.alignment(topology.as_ref());
    let unaligned = Plan::new(device.size(), &wish.options).map_err(planned)?;
    if cli.debug {
        say(cli, &echo(wish, &unaligned));
    }
    let Some(alignment) = alignment.map_err(Stop::refuse)? else {
        if cli.debug {
            say(cli, "  rgrp align = (disabled)\n");
        }
        return Ok(unaligned);
    };
    if cli.debug {
        say(cli, &format!("  rgrp align = {}+{} blocks\n", alignment.base, alignment.offset));
    }
    wish.options.alignment = alignment;
    Plan::new(device.size(), &wish.options).map_err(planned)
}

fn planned(e: Error) -> Stop {
    match e {
        Error::NoSpace => Stop(FAILED, format!("mkfs.gfs2r: {e}")),
        _ => Stop::refuse(e),
    }
}

/// The options as they were understood (`-D`).
fn echo(wish: &ask::Wish, plan: &Plan) -> String {
    let o = &wish.options;
    format!(
        "File system options:\n  bsize = {}\n  qcsize = {}\n  jsize = {}\n  journals = {}\n  proto = {}\n  table = {}\n  \
         rgsize = {}\n  fssize = {}\n  sunit = {}\n  swidth = {}\n  format = {}\n",
        o.block_size.bytes(),
        o.quota_change_mib,
        plan.layout.journal_mib,
        o.journals,
        o.lock_proto,
        o.lock_table,
        o.rgrp_mib,
        o.blocks.unwrap_or(0),
        wish.extended.sunit.unwrap_or(0),
        wish.extended.swidth.unwrap_or(0),
        o.format
    )
}

/// Says something to the user: on standard output, unless that is for JSON.
fn say(cli: &Cli, text: &str) {
    if cli.json {
        eprint!("{text}");
    } else {
        print(text);
    }
}

/// Tells what will be lost, and asks unless told not to.
fn confirm(cli: &Cli, path: &Path) -> Result<(), Stop> {
    let mut target = path.to_path_buf();
    if path.is_symlink() {
        target = std::fs::canonicalize(path).map_err(|e| Stop::fail(&path.display().to_string(), words(&e)))?;
        say(cli, &format!("{} is a symbolic link to {}\n", path.display(), target.display()));
    }
    say(cli, &format!("This will destroy any data on {}\n", target.display()));
    if cli.override_ {
        return Ok(());
    }
    let mut input = std::io::stdin().lock();
    loop {
        say(cli, "Are you sure you want to proceed? [y/n] ");
        let mut line = String::new();
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => {
                say(cli, "\n");
                return Err(Stop(REFUSED, String::new()));
            }
            Ok(_) => match line.trim_start().chars().next() {
                Some('y' | 'Y') => return Ok(()),
                Some('n' | 'N') => return Err(Stop(REFUSED, String::new())),
                _ => {}
            },
        }
    }
}

fn report(cli: &Cli, plan: Plan, device: String) -> Result<(), Stop> {
    let report = gfs2r_mkfs::Report { device, ..plan.report };
    if cli.json {
        let mut report = serde_json::to_value(&report).map_err(|e| Stop::fail("report", e))?;
        report["dry_run"] = cli.dry_run.into();
        let text = serde_json::to_string_pretty(&serde_json::json!({ "filesystems": [report] }));
        let text = text.map_err(|e| Stop::fail("report", e))?;
        print(&format!("{text}\n"));
    } else if !cli.quiet || cli.dry_run {
        print(&report.to_string());
    }
    if cli.dry_run && !cli.json {
        print("Nothing was written (dry run).\n");
    }
    Ok(())
}
