//! The command line: every option of the stock tool, checked in its order and refused in its words.

mod extended;
mod numbers;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
pub(crate) use extended::{Extended, HELP as EXTENDED_HELP, Wrong};
pub(crate) use numbers::{mebibytes, size};

const EXAMPLES: &str = "\
Sizes take k, M, G or T (1024 based). Without one, -J, -c and -r mean megabytes, -b, sunit and swidth bytes, and SIZE blocks.

Exit status:
  0 success; 255 wrong options or refused; 1 failed after that

Examples:
  mkfs.gfs2r -p lock_nolock image                         a filesystem in an image file, for this computer alone
  mkfs.gfs2r -j 3 -t mycluster:myfs /dev/vg0/shared       for a cluster of three nodes
  mkfs.gfs2r -n -j 8 -J 64M -t mycluster:myfs /dev/sdb    what would be made; nothing is written
  mkfs.gfs2r -O -q --json -p lock_nolock image 2G         for scripts";

/// Creates a GFS2 filesystem on a block device or in an image file.
#[derive(Debug, Parser)]
#[command(
    name = "mkfs.gfs2r",
    bin_name = "mkfs.gfs2r",
    version = VERSION,
    disable_version_flag = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = EXAMPLES,
    override_usage = "mkfs.gfs2r [OPTIONS] DEVICE [SIZE]"
)]
pub(crate) struct Cli {
    /// Block device or image file, and the size to use (default: all of it).
    #[arg(value_name = "DEVICE", allow_hyphen_values = false, num_args = 0..)]
    pub(crate) operands: Vec<String>,
    /// Block size in bytes: a power of two from 512 to the page size [default: 4096]
    #[arg(short = 'b', value_name = "BYTES", allow_hyphen_values = true, hide_default_value = true)]
    pub(crate) block_size: Option<String>,
    /// Size of each quota change file, 1 to 64 MB [default: 1]
    #[arg(short = 'c', value_name = "MB", allow_hyphen_values = true)]
    pub(crate) quota_change: Option<String>,
    /// Show options, resource groups and system files as they are made
    #[arg(short = 'D')]
    pub(crate) debug: bool,
    /// Size of each journal, 8 to 1024 MB [default: by the size of the device]
    #[arg(short = 'J', value_name = "MB", allow_hyphen_values = true)]
    pub(crate) journal_size: Option<String>,
    /// Number of journals: one for each node that mounts at the same time [default: 1]
    #[arg(short = 'j', value_name = "N", allow_hyphen_values = true)]
    pub(crate) journals: Option<String>,
    /// Do not discard the contents of a block device first
    #[arg(short = 'K')]
    pub(crate) keep: bool,
    /// Do not ask for confirmation
    #[arg(short = 'O')]
    pub(crate) override_: bool,
    /// Extended options; see -o help
    #[arg(short = 'o', value_name = "KEY[=VALUE],...", allow_hyphen_values = true)]
    pub(crate) extended: Vec<String>,
    /// Lock protocol: lock_dlm or lock_nolock [default: lock_dlm]
    #[arg(short = 'p', value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) protocol: Option<String>,
    /// Be quiet
    #[arg(short = 'q')]
    pub(crate) quiet: bool,
    /// Size of resource groups, 32 to 2048 MB [default: 256]
    #[arg(short = 'r', value_name = "MB", allow_hyphen_values = true)]
    pub(crate) rgrp_size: Option<String>,
    /// Lock table: the cluster's and the filesystem's name
    #[arg(short = 't', value_name = "CLUSTER:NAME", allow_hyphen_values = true)]
    pub(crate) table: Option<String>,
    /// UUID of the filesystem [default: random]
    #[arg(short = 'U', value_name = "UUID", allow_hyphen_values = true)]
    pub(crate) uuid: Option<String>,
    /// Show what would be made, write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Report as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the version and the formats it knows
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nmakes GFS2 formats 1801 and 1802 (multihost format 1900), as mkfs.gfs2 of gfs2-utils 3.5.0 does"
);

impl Cli {
    /// Parses the arguments of the process. `Err` carries the exit status; everything has been said then.
    pub(crate) fn from_args() -> Result<Self, u8> {
        Self::try_parse().map_err(|e| match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // Nothing can be done about a closed standard output here.
                let _ = e.print();
                0
            }
            _ => {
                eprintln!("mkfs.gfs2r: {}\nPlease use '-h' for help.", complaint(&e));
                255
            }
        })
    }
}

/// What is wrong with the arguments, in getopt's words where it has some.
fn complaint(e: &clap::Error) -> String {
    let argument = match e.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.as_str(),
        Some(ContextValue::Strings(all)) => all.first().map_or("", String::as_str),
        _ => "",
    };
    let name = argument.split_whitespace().next().unwrap_or("");
    match (e.kind(), name.strip_prefix('-')) {
        (ErrorKind::UnknownArgument, Some(letter)) if !letter.starts_with('-') => {
            format!("invalid option -- '{letter}'")
        }
        (ErrorKind::UnknownArgument, _) => format!("unrecognized option '{name}'"),
        (ErrorKind::InvalidValue, Some(letter)) => format!("option requires an argument -- '{letter}'"),
        _ => e.to_string().lines().next().unwrap_or("").trim_start_matches("error: ").to_owned(),
    }
}
