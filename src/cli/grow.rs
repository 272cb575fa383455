//! `gfs2r grow`, and `gfs2_grow`.

use super::stock::{self, Stock};
use super::{Outcome, about, print, print_json};
use crate::admin::geometry::Alignment;
use crate::admin::grow::{GrowError, Growth, Request, grow};
use crate::admin::offline;
use crate::mount::{Mounted, bytes, growth_json};
use crate::volume::OpenOptions;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Let a volume grow into its device, mounted or not.
///
/// First make the device larger (lvextend, truncate -s, and losetup -c for a loop device), on all nodes; then run this on one of
/// them. The other nodes use the new space as soon as they need it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lvextend -L +100G /dev/vg0/shared && gfs2r grow /mnt/gfs2
  gfs2r grow -T /mnt/gfs2                    what would be done
  truncate -s 20G disk.img && gfs2r grow disk.img")]
pub(super) struct Arguments {
    /// Mounted directories, devices or images.
    #[arg(required = true, value_name = "DEVICE|MOUNTPOINT")]
    volumes: Vec<PathBuf>,
    /// Do everything but change the volume.
    #[arg(short = 'T', long = "test")]
    test: bool,
    /// Use so much of the device only, or with -T as if it were so large: a size (512M, 10G ...).
    #[arg(short = 'D', value_name = "SIZE", value_parser = size)]
    device_size: Option<u64>,
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

fn size(text: &str) -> Result<u64, String> {
    let size = bytes(text).ok_or("a size (512M, 10G ...)")?;
    u64::try_from(size).map_err(|e| e.to_string())
}

/// What is asked for; `Err` with the words after the volume's name.
struct Order {
    test: bool,
    device_size: Option<u64>,
    unmounted: bool,
}

/// Why it did not grow: because there was no room, or else.
enum Failure {
    HasNotGrown(String),
    Other(String),
}

impl Failure {
    fn words(self) -> String {
        match self {
            Self::HasNotGrown(why) | Self::Other(why) => why,
        }
    }
}

/// What was done: the device's and the mount's name, and [`growth_json`].
fn run_one(volume: &Path, order: &Order) -> Result<Value, Failure> {
    // The daemon has no other way to tell.
    let sort = |why: String| match why.contains("has not grown") {
        true => Failure::HasNotGrown(why),
        false => Failure::Other(why),
    };
    match Mounted::of_volume(volume).map_err(Failure::Other)? {
        Some(mounted) => {
            let size = order.device_size.map_or_else(String::new, |n| format!(" size={n}"));
            let test = if order.test { " test" } else { "" };
            mounted.ask(&format!("grow{test}{size}")).map_err(sort)
        }
        None => of_unmounted(volume, order).map_err(sort),
    }
}

fn of_unmounted(device: &Path, order: &Order) -> Result<Value, String> {
    let options = OpenOptions { read_only: order.test, norecovery: order.test, ..OpenOptions::default() };
    let offline = offline::open(device, order.unmounted || order.test, &options).map_err(|e| e.to_string())?;
    let bs = offline.opened.fs.volume().bs;
    let alignment = offline.topology.and_then(|t| Alignment::of_device(&t, bs)).unwrap_or_default();
    let request = Request { device_bytes: order.device_size, alignment, dry_run: order.test };
    let grown = grow(&offline.opened.fs, &request);
    let closed = offline.opened.close();
    let grown: Growth = grown.map_err(|e: GrowError| e.to_string())?;
    closed.map_err(|e| e.to_string())?;
    Ok(growth_json(&grown, device, None))
}

/// In the stock tool's words.
fn text(grown: &Value) -> String {
    let mount = grown["directory"].as_str().map_or_else(String::new, |dir| format!("Mount point: {dir}\n"));
    let megabytes = grown["grows_by_bytes"].as_u64().unwrap_or(0) >> 20;
    format!(
        "{mount}Device: {}\nSize: {} blocks\nLength: {} blocks\nThe file system will grow by {megabytes}MB.\n",
        grown["source"].as_str().unwrap_or(""),
        grown["old_blocks"],
        grown["device_blocks"],
    )
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let order = Order { test: arguments.test, device_size: arguments.device_size, unmounted: arguments.unmounted };
    let mut all = Vec::new();
    for volume in &arguments.volumes {
        let grown = about(volume, run_one(volume, &order).map_err(Failure::words))?;
        if !arguments.quiet && !arguments.json {
            let test = if order.test { "(Test mode - file system will not be changed)\n" } else { "" };
            print(&format!("{test}{}gfs2r grow complete.\n", text(&grown)))?;
        }
        all.push(grown);
    }
    if arguments.json { print_json("grown", json!(all)) } else { Ok(ExitCode::SUCCESS) }
}

const STOCK: Stock = Stock {
    name: "gfs2_grow",
    usage: "\
Usage:
    gfs2_grow [options] <device>

Expands a GFS2 file system after the device containing the file system has been expanded

Options:
 -h                 Display this usage information
 -q                 Quiet, reduce verbosity
 -T                 Do everything except update file system
 -V                 Display version information
 -v                 Increase verbosity
",
    with_value: "D",
    without: "hqTVv",
};

/// `gfs2_grow`.
pub(super) fn stock() -> ExitCode {
    let options = match STOCK.parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\nPlease use '-h' for help.");
            return ExitCode::FAILURE;
        }
    };
    if let Some(code) = stock::told(&STOCK, &options.given) {
        return code;
    }
    let device_size = match options.value('D').map(size).transpose() {
        Ok(size) => size,
        Err(why) => {
            eprintln!("gfs2_grow: -D: {why}");
            return ExitCode::FAILURE;
        }
    };
    if options.operands.is_empty() {
        print!("{}", STOCK.usage);
        return ExitCode::FAILURE;
    }
    let order = Order { test: options.has('T'), device_size, unmounted: false };
    let quiet = options.has('q');
    let say = |text: &str| {
        if !quiet {
            print!("{text}")
        }
    };
    if order.test {
        say("(Test mode - file system will not be changed)\n");
    }
    let mut code = ExitCode::SUCCESS;
    for volume in options.operands.iter().map(Path::new) {
        match run_one(volume, &order) {
            Ok(grown) => say(&text(&grown)),
            Err(Failure::HasNotGrown(_)) => {
                eprintln!("The calculated resource group size is too small.\n{} has not grown.", volume.display());
                code = ExitCode::from(255);
            }
            Err(Failure::Other(why)) => {
                eprintln!("{}: {why}", volume.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    say("gfs2_grow complete.\n");
    code
}
