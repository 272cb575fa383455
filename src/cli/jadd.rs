//! `gfs2r jadd`, and `gfs2_jadd`.

use super::stock::{self, Options, Stock};
use super::{Outcome, about, print, print_json};
use crate::admin::jadd::{JaddError, Request, jadd};
use crate::admin::offline;
use crate::mount::{Mounted, added_json};
use crate::volume::OpenOptions;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Add journals to a volume, mounted or not: one for each node more that shall mount it at the same time.
///
/// Nodes that have it mounted go on as before; the next node that mounts takes one of the new journals.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gfs2r jadd /mnt/gfs2                       one more, of 128 MB
  gfs2r jadd -j 2 -J 32 /mnt/gfs2            two more, of 32 MB each
  gfs2r jadd -j 3 --unmounted /dev/vg0/shared")]
pub(super) struct Arguments {
    /// A mounted directory, a device or an image.
    #[arg(value_name = "DEVICE|MOUNTPOINT")]
    volume: PathBuf,
    /// How many.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65535))]
    journals: u32,
    /// Megabytes in each.
    #[arg(short = 'J', value_name = "MB", default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=1024))]
    journal_size: u32,
    /// Megabytes in each quota change file.
    #[arg(short = 'c', value_name = "MB", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    quota_change_size: u32,
    /// Say nothing.
    #[arg(short, long)]
    quiet: bool,
    /// No node has it mounted: needed for a cluster's volume that is not mounted here.
    #[arg(long)]
    unmounted: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What was done: [`added_json`].
fn run_one(volume: &Path, request: &Request, unmounted: bool) -> Result<Value, String> {
    match Mounted::of_volume(volume)? {
        Some(mounted) => mounted.ask(&format!(
            "jadd count={} journal={} quota_change={}",
            request.count, request.journal_mib, request.quota_change_mib
        )),
        None => of_unmounted(volume, request, unmounted),
    }
}

fn of_unmounted(device: &Path, request: &Request, unmounted: bool) -> Result<Value, String> {
    let offline = offline::open(device, unmounted, &OpenOptions::default()).map_err(|e| e.to_string())?;
    let seed = Request::of_now(&*offline.opened.fs.volume().clock).seed;
    let added = jadd(&offline.opened.fs, &Request { seed, ..*request });
    let closed = offline.opened.close();
    let added = added.map_err(|e: JaddError| e.to_string())?;
    closed.map_err(|e| e.to_string())?;
    Ok(added_json(&added))
}

fn text(volume: &Path, added: &Value) -> String {
    format!(
        "Filesystem: {}\nOld journals: {}\nNew journals: {}\n",
        volume.display(),
        added["old_journals"],
        added["new_journals"]
    )
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let request = Request {
        count: arguments.journals,
        journal_mib: arguments.journal_size,
        quota_change_mib: arguments.quota_change_size,
        seed: 0,
    };
    let mut added = about(&arguments.volume, run_one(&arguments.volume, &request, arguments.unmounted))?;
    if arguments.json {
        added["volume"] = json!(arguments.volume);
        return print_json("added", json!([added]));
    }
    if arguments.quiet { Ok(ExitCode::SUCCESS) } else { print(&text(&arguments.volume, &added)) }
}

const STOCK: Stock = Stock {
    name: "gfs2_jadd",
    usage: "\
Usage:
gfs2_jadd [options] <device>

Adds journals to a GFS2 file system.

Options:
 -c <size>          Size of quota change file, in megabytes
 -D                 Enable debugging code
 -h                 Display this help, then exit
 -J <size>          Size of journals, in megabytes
 -j <number>        Number of journals
 -q                 Don't print anything
 -V                 Display version information, then exit
",
    with_value: "cJj",
    without: "DhqV",
};

/// The numbers on a stock command line, in its limits.
fn numbers(options: &Options) -> Result<Request, &'static str> {
    let number = |letter, otherwise| options.value(letter).map_or(otherwise, |text| text.parse().unwrap_or(0));
    let request =
        Request { count: number('j', 1), journal_mib: number('J', 128), quota_change_mib: number('c', 1), seed: 0 };
    match request {
        Request { count: 0, .. } => Err("no journals specified"),
        Request { journal_mib, .. } if !(32..=1024).contains(&journal_mib) => Err("bad journal size"),
        Request { quota_change_mib, .. } if !(1..=64).contains(&quota_change_mib) => Err("bad quota change size"),
        _ => Ok(request),
    }
}

/// `gfs2_jadd`.
pub(super) fn stock() -> ExitCode {
    let fail = |why: &str| {
        eprintln!("{why}");
        ExitCode::FAILURE
    };
    let options = match STOCK.parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(why) => return fail(&format!("{why}\nPlease use '-h' for help.")),
    };
    if let Some(code) = stock::told(&STOCK, &options.given) {
        return code;
    }
    let path = match &options.operands[..] {
        [] => return fail("no path specified (try -h for help)"),
        [path] => Path::new(path),
        [_, second, ..] => return fail(&format!("Unrecognized argument: {second}")),
    };
    let request = match numbers(&options) {
        Ok(request) => request,
        Err(why) => return fail(why),
    };
    match run_one(path, &request, false) {
        Ok(added) => {
            if !options.has('q') {
                print!("{}", text(path, &added));
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{}: {why}", path.display());
            ExitCode::from(255)
        }
    }
}
