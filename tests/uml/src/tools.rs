//! The stock tools of gfs2-utils, run on the host against an image file.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What a tool printed and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The exit status; `None` after a signal (124 when it was stopped for taking too long).
    pub status: Option<i32>,
    /// Standard output and standard error, in this order.
    pub text: String,
}

/// Runs `mkfs.gfs2 -O -q OPTIONS IMAGE SIZE` on a new sparse file of `bytes` bytes.
///
/// # Errors
/// When the file cannot be made, or the tool fails; with its output.
pub fn mkfs(image: &Path, bytes: u64, options: &[&str]) -> Result<(), String> {
    let file = std::fs::File::create(image).and_then(|file| file.set_len(bytes));
    file.map_err(|error| format!("{}: {error}", image.display()))?;
    let ran = run("mkfs.gfs2", &[&["-O", "-q"], options].concat(), image)?;
    if ran.status == Some(0) { Ok(()) } else { Err(format!("mkfs.gfs2 {options:?}: {:?}\n{}", ran.status, ran.text)) }
}

/// Runs `fsck.gfs2 OPTIONS IMAGE`, for example with `-n` (look only; status 0 is clean) or `-y` (repair; 1 is repaired).
/// `-n` does not replay journals: on an image with a dirty one its complaints mean nothing.
///
/// # Errors
/// Only when it cannot be started.
pub fn fsck(image: &Path, options: &[&str]) -> Result<Ran, String> {
    run("fsck.gfs2", options, image)
}

/// Runs a tool with a limit of five minutes.
fn run(tool: &str, options: &[&str], image: &Path) -> Result<Ran, String> {
    const LIMIT: Duration = Duration::from_secs(300);
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args(["-k", "5", &LIMIT.as_secs().to_string(), tool])
        .args(options)
        .arg(image)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("{tool}: {error}"))?;
    if output.status.code() == Some(127) {
        return Err(format!("{tool} is missing (package gfs2-utils)"));
    }
    let text = [output.stdout, output.stderr].concat();
    Ok(Ran { status: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() })
}
