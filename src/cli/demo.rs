//! `gfs2r demo`.

use super::Outcome;
use clap::Args;
use std::process::{Command, ExitCode, Stdio};

/// The script that `make demo` runs too.
const SCRIPT: &str = include_str!("../../scripts/demo");

/// Format an image, mount it, work on it, pull the plug, recover, check: the whole story in two minutes.
///
/// Everything happens in a temporary folder (below TMPDIR), which is removed at the end. Needs root, bash, a C compiler, git
/// and sqlite3.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gfs2r demo")]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Outcome {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = own.parent().ok_or("its own folder is unknown")?;
    let mut bash = Command::new("bash");
    bash.args(["-c", SCRIPT, "demo"]).env("GFS2R_BIN", folder).stdin(Stdio::null());
    let status = bash.status().map_err(|e| format!("bash: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
