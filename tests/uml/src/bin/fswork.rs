//! `fswork --dir DIR --ops N --seed S [--no-chattr-j] [--sync-log FILE] [--trace FILE] [--budget BYTES]`: the random
//! workload of the library's `work`. `fswork --dir DIR --check LOG`: checks what a sync log promises. Exit status 1 for
//! a filesystem that failed or broke a promise, 2 for a usage error.
#![forbid(unsafe_code)]

use gfs2r_uml::work::{Config, run, synclog};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: fswork --dir DIR (--ops N --seed S [--no-chattr-j] [--sync-log FILE] [--trace FILE] [--budget BYTES] | --check LOG)";

fn arguments() -> Result<(Config, Option<PathBuf>), String> {
    let mut config = Config::new("", 1000, 0);
    let mut check = None;
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_string_lossy().into_owned();
        if word == "--no-chattr-j" {
            config.chattr_j = false;
            continue;
        }
        let value = words.next().ok_or(USAGE)?;
        let number = || value.to_string_lossy().parse::<u64>().map_err(|error| format!("{word}: {error}"));
        match word.as_str() {
            "--dir" => config.dir = value.into(),
            "--ops" => config.ops = number()?,
            "--seed" => config.seed = number()?,
            "--budget" => config.budget = number()?,
            "--sync-log" => config.sync_log = Some(value.into()),
            "--trace" => config.trace = Some(value.into()),
            "--check" => check = Some(value.into()),
            _ => return Err(USAGE.into()),
        }
    }
    if config.dir.as_os_str().is_empty() { Err(USAGE.into()) } else { Ok((config, check)) }
}

fn work(config: &Config) -> Result<(), String> {
    let counts = run(config, &mut std::io::stdout())?;
    for (what, count) in counts {
        println!("{what} {count}");
    }
    Ok(())
}

fn check(log: &Path, dir: &Path) -> Result<(), String> {
    let checked = synclog::check(log, dir)?;
    println!("fswork: kept {} open {} broken {}", checked.kept, checked.open, checked.broken.len());
    if checked.broken.is_empty() { Ok(()) } else { Err(checked.broken.join("\n")) }
}

fn main() -> ExitCode {
    let (config, log) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let done = match &log {
        Some(log) => check(log, &config.dir),
        None => work(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fswork: FAILED {error}");
            ExitCode::from(1)
        }
    }
}
