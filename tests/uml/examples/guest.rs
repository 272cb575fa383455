//! Runs a script in a guest, for experiments by hand:
//!
//! ```text
//! cargo run -p gfs2r-uml --example guest -- [--disk IMAGE]... [--limit SECONDS] [--out DIR] [--kernel] 'SCRIPT'
//! ```
//!
//! Prints what the script prints and, with `--kernel` or when the guest did not end well, what the kernel said. With
//! `--out` the files of `$OUT` are copied there. In the script, `$FSWORK` and `$TREELIST` are the programs. The exit
//! status is that of the script, 124 after the limit, 125 for a dead guest.
#![forbid(unsafe_code)]

use gfs2r_uml::{End, Job, Uml, guest_path, program};
use std::path::PathBuf;
use std::time::Duration;

fn run() -> Result<i32, String> {
    let mut job = Job::new("");
    let (mut script, mut kernel, mut out) = (String::new(), false, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--disk" => job = job.disk(value()?),
            "--limit" => {
                job = job.limit(Duration::from_secs(value()?.parse().map_err(|error| format!("--limit: {error}"))?))
            }
            "--out" => out = Some(PathBuf::from(value()?)),
            "--kernel" => kernel = true,
            _ => script = word,
        }
    }
    job = job
        .script(script)
        .variable("FSWORK", guest_path(&program("fswork")?))
        .variable("TREELIST", guest_path(&program("treelist")?));
    let outcome = Uml::find()?.run(&job)?;
    print!("{}", outcome.console);
    if kernel || !matches!(outcome.end, End::Script(_)) {
        eprint!("{}", outcome.kernel);
    }
    eprintln!("{:?} after {:.2} s; trouble: {:?}", outcome.end, outcome.duration.as_secs_f64(), outcome.trouble());
    if let Some(out) = out {
        std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
        for entry in std::fs::read_dir(outcome.out()).map_err(|error| error.to_string())? {
            let entry = entry.map_err(|error| error.to_string())?;
            std::fs::copy(entry.path(), out.join(entry.file_name()))
                .map_err(|error| format!("{}: {error}", entry.path().display()))?;
        }
    }
    Ok(match outcome.end {
        End::Script(status) => status,
        End::TimedOut | End::Killed => 124,
        End::Died => 125,
    })
}

fn main() {
    match run() {
        Ok(status) => std::process::exit(status),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(126)
        }
    }
}
