//! `gfs2r demo`.

use super::Outcome;
use clap::Args;
use std::process::{Command, ExitCode, Stdio};

/// The script that `make demo` runs too.
const CLUSTER: &str = include_str!("../../scripts/demo");
const SINGLE: &str = include_str!("../../scripts/demo-single");

/// Three nodes on this machine mount one disk, one is killed in the middle of writing, another takes over: the whole story in
/// two minutes.
///
/// Everything happens in a temporary folder (below TMPDIR), which is removed at the end. Needs root and bash.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gfs2r demo\n  gfs2r demo --single")]
pub(super) struct Arguments {
    /// One node and real programs instead: a large tree, a compiler, git, SQLite, a crash (needs cc, git and sqlite3).
    #[arg(long)]
    single: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let script = if arguments.single { SINGLE } else { CLUSTER };
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = own.parent().ok_or("its own folder is unknown")?;
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "demo"]).env("GFS2R_BIN", folder).stdin(Stdio::null());
    let status = bash.status().map_err(|e| format!("bash: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
