//! `gfs2r`: the front command. Each subcommand is a file in `cli/`; `table` lays out what they list.

mod demo;
mod df;
mod dlm;
mod glocks;
mod grow;
mod image;
mod jadd;
mod quota;
mod read;
mod savemeta;
mod status;
mod stock;
mod table;
mod top;
mod tune;

use crate::mount::{Mounted, VERSION};
use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::Value;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Tools for GFS2 volumes.
#[derive(Parser, Debug)]
#[command(
    name = "gfs2r",
    version = VERSION,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "\
Exit status:
  0 done; 1 failed; 2 wrong usage

Examples:
  gfs2r status
  gfs2r df --json /mnt/gfs2
  gfs2r quota set -u alice --limit 10G /mnt/gfs2
  gfs2r freeze /mnt/gfs2 && lvcreate -s ... ; gfs2r thaw /mnt/gfs2
  gfs2r dump disk.img dir /usr/share --json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Status(status::Arguments),
    Df(df::Arguments),
    Quota(quota::Arguments),
    Glocks(glocks::Arguments),
    Dlm(dlm::Arguments),
    Top(top::Arguments),
    Freeze(Freeze),
    Thaw(Thaw),
    Grow(grow::Arguments),
    Jadd(jadd::Arguments),
    Tune(tune::Arguments),
    Dump(image::Arguments),
    Ls(read::Ls),
    Cat(read::Cat),
    Cp(read::Cp),
    Tar(read::Tar),
    Savemeta(savemeta::Save),
    Restoremeta(savemeta::Restore),
    Demo(demo::Arguments),
}

/// Bring a mounted volume to rest, so that a snapshot of its device is clean.
///
/// What programs have written is put on the disk, the journal is closed. Changes wait until the volume is thawed; reading
/// goes on, but not in a directory where somebody waits to make a file. An unmount thaws.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gfs2r freeze /mnt/gfs2\n  lvcreate -s -n snap vg/gfs2\n  gfs2r thaw /mnt/gfs2")]
struct Freeze {
    /// A mounted directory, or its device or image.
    mount: PathBuf,
}

/// End a freeze.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gfs2r thaw /mnt/gfs2")]
struct Thaw {
    /// A mounted directory, or its device or image.
    mount: PathBuf,
}

/// What a subcommand ends with: a status, or one line that says what failed.
type Outcome = Result<ExitCode, String>;

/// `gfs2r`.
pub fn main() -> ExitCode {
    if let Some(code) = stock::dispatch() {
        return code;
    }
    if let Some(code) = gfs2r_manual::on_request(Cli::command) {
        return code;
    }
    let command = Cli::parse().command;
    let (name, outcome) = match &command {
        Command::Status(a) => ("status", status::run(a)),
        Command::Df(a) => ("df", df::run(a)),
        Command::Quota(a) => ("quota", quota::run(a)),
        Command::Glocks(a) => ("glocks", glocks::run(a)),
        Command::Dlm(a) => ("dlm", dlm::run(a)),
        Command::Top(a) => ("top", top::run(a)),
        Command::Freeze(a) => ("freeze", freeze(a)),
        Command::Thaw(a) => ("thaw", about(&a.mount, Mounted::find(&a.mount).and_then(|m| m.ask("thaw"))).map(done)),
        Command::Grow(a) => ("grow", grow::run(a)),
        Command::Jadd(a) => ("jadd", jadd::run(a)),
        Command::Tune(a) => ("tune", tune::run(a)),
        Command::Dump(a) => ("dump", image::run(a)),
        Command::Ls(a) => ("ls", read::ls(a)),
        Command::Cat(a) => ("cat", read::cat(a)),
        Command::Cp(a) => ("cp", read::cp(a)),
        Command::Tar(a) => ("tar", read::tar(a)),
        Command::Savemeta(a) => ("savemeta", savemeta::run_save(a)),
        Command::Restoremeta(a) => ("restoremeta", savemeta::run_restore(a)),
        Command::Demo(a) => ("demo", demo::run(a)),
    };
    outcome.unwrap_or_else(|why| {
        eprintln!("gfs2r: {name}: {why}");
        ExitCode::FAILURE
    })
}

fn done(_nothing: Value) -> ExitCode {
    ExitCode::SUCCESS
}

fn freeze(arguments: &Freeze) -> Outcome {
    let frozen = || {
        let mounted = Mounted::find(&arguments.mount)?;
        // First what the kernel has collected: it has to pass while changes still do.
        let dir = std::fs::File::open(mounted.target()).map_err(|e| e.to_string())?;
        rustix::fs::syncfs(&dir).map_err(|e| io::Error::from(e).to_string())?;
        mounted.ask("freeze")
    };
    about(&arguments.mount, frozen()).map(done)
}

/// Puts before an error what it is about.
fn about<T>(what: &std::path::Path, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|e| format!("{}: {e}", what.display()))
}

/// Prints; a reader who has gone away (`| head`) is no failure.
fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}")),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints a listing as JSON, with its one name at the top.
fn print_json(name: &str, listing: Value) -> Outcome {
    let all: serde_json::Map<String, Value> = [(name.to_owned(), listing)].into_iter().collect();
    print(&format!("{:#}\n", Value::Object(all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        assert!(help.lines().count() <= 40 && help.trim_end().ends_with("--json"), "{help}");
    }
}
