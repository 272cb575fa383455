//! `gfs2r`: the front command.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tools for GFS2 volumes.
#[derive(Parser, Debug)]
#[command(name = "gfs2r", version = concat!(env!("CARGO_PKG_VERSION"), " (GFS2 formats 1801, 1802)"))]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Mount a volume: the same as mount.gfs2r.
    Mount,
}

/// `gfs2r`.
pub fn main() -> ExitCode {
    match Args::parse().command {
        Command::Mount => crate::mount::mount_main(),
    }
}
