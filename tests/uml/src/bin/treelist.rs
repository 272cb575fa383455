//! `treelist [--without COLUMN,...] [--with COLUMN,...] [--whole BYTES] [--skip PATH]... DIR`: prints the canonical
//! listing of a tree (see the library's `tree`). Exit status 1 when something could not be read, 2 for a usage error.
#![forbid(unsafe_code)]

use gfs2r_uml::tree::{Column, Options, list};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: treelist [--without COLUMN,...] [--with COLUMN,...] [--whole BYTES] [--skip PATH]... DIR";

fn arguments() -> Result<(PathBuf, Options), String> {
    let mut options = Options::default();
    let mut root = None;
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        if !text.starts_with("--") {
            root = Some(PathBuf::from(word));
            continue;
        }
        let value = words.next().ok_or(USAGE)?.to_string_lossy().into_owned();
        match text.as_str() {
            "--without" | "--with" => {
                for name in value.split(',') {
                    let column: Column = name.parse()?;
                    options.columns =
                        if text == "--with" { options.columns.with(column) } else { options.columns.without(column) };
                }
            }
            "--whole" => options.whole = value.parse().map_err(|error| format!("--whole {value}: {error}"))?,
            "--skip" => options.skip.push(value),
            _ => return Err(USAGE.into()),
        }
    }
    Ok((root.ok_or(USAGE)?, options))
}

fn main() -> ExitCode {
    let (root, options) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let listing = list(&root, &options, &mut out).and_then(|listing| {
        out.flush().map_err(|error| format!("standard output: {error}"))?;
        Ok(listing)
    });
    match listing {
        Ok(listing) if listing.errors.is_empty() => ExitCode::SUCCESS,
        Ok(listing) => {
            listing.errors.iter().for_each(|error| eprintln!("{error}"));
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
