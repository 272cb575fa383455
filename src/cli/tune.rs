//! `gfs2r tune`, and `tunegfs2`.

use super::stock::{self, Options, Stock};
use super::{Outcome, print};
use crate::admin::tune::{Changes, TuneError, listing, parse_uuid, tune};
use crate::device::{FileDevice, OpenMode, claim};
use crate::format::Superblock;
use clap::Args;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// sysexits.h: wrong usage, wrong data, input or output.
const USAGE: u8 = 64;
const DATA: u8 = 65;
const IO: u8 = 74;

/// Show and change the superblock of a volume that nobody has mounted.
///
/// The label, the UUID, the lock protocol and the lock table. On a mounted volume only -l works: what is changed takes effect with
/// the next mount, and a node that is at work must find what it mounted.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status:
  0 done; 64 wrong usage; 65 something that the volume cannot be; 74 the device or its superblock cannot be read

Examples:
  gfs2r tune -l /dev/vg0/shared
  gfs2r tune -L mycluster:myfs /dev/vg0/shared
  gfs2r tune -o lockproto=lock_nolock disk.img             for one computer alone, from now on
  gfs2r tune -U random copy.img && gfs2r tune -l --json copy.img")]
pub(super) struct Arguments {
    /// List what the superblock says.
    #[arg(short)]
    list: bool,
    /// The label, which is the lock table too: CLUSTER:NAME.
    #[arg(short = 'L', value_name = "LABEL")]
    label: Option<String>,
    /// The UUID, or `random`.
    #[arg(short = 'U', value_name = "UUID")]
    uuid: Option<String>,
    /// lockproto=lock_dlm|lock_nolock, locktable=CLUSTER:NAME.
    #[arg(short = 'o', value_name = "KEY=VALUE,...", value_delimiter = ',')]
    options: Vec<String>,
    /// The format of the filesystem, 1801 or 1802; there is no way back.
    #[arg(short = 'r', value_name = "VERSION")]
    format: Option<String>,
    /// List as JSON.
    #[arg(long)]
    json: bool,
    /// Block device or image file.
    device: PathBuf,
}

/// What went wrong, and the exit status for it.
type Failure = (u8, String);

pub(super) fn run(arguments: &Arguments) -> Outcome {
    // Statuses of their own, so the message is printed here.
    Ok(tuned(arguments).unwrap_or_else(|(code, why)| {
        eprintln!("gfs2r: tune: {why}");
        ExitCode::from(code)
    }))
}

fn tuned(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let changes = changes(arguments)?;
    if changes.is_empty() && !arguments.list && !arguments.json {
        return Err((USAGE, "nothing to do (-l lists, -L -U -o -r change)".into()));
    }
    let sb = apply(&arguments.device, &changes)?;
    let text = match (arguments.json, arguments.list) {
        (true, _) => format!("{:#}\n", as_json(&sb)),
        (false, true) => as_text(&sb),
        (false, false) => return Ok(ExitCode::SUCCESS),
    };
    print(&text).map_err(|e| (IO, e))
}

fn changes(arguments: &Arguments) -> Result<Changes, Failure> {
    let mut changes = Changes::default();
    for option in &arguments.options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "lockproto" => changes.lockproto = Some(value.into()),
            "locktable" => changes.locktable = Some(value.into()),
            _ => return Err((USAGE, format!("unknown option '{key}' (lockproto=, locktable=)"))),
        }
    }
    if let Some(label) = &arguments.label {
        if changes.locktable.is_some() {
            return Err((USAGE, "The -L argument cannot be used with the 'locktable' option".into()));
        }
        changes.locktable = Some(label.clone());
    }
    if let Some(text) = &arguments.uuid {
        let uuid = if text == "random" { random_uuid().map_err(|e| (IO, e.to_string()))? } else { text.clone() };
        changes.uuid = Some(parse_uuid(&uuid).ok_or_else(|| (DATA, format!("Invalid UUID: {text}")))?);
    }
    if let Some(text) = &arguments.format {
        changes.format = Some(text.parse().map_err(|_| (DATA, format!("Invalid format option '{text}'")))?);
    }
    Ok(changes)
}

fn random_uuid() -> std::io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim().to_owned())
}

fn apply(path: &Path, changes: &Changes) -> Result<Superblock, Failure> {
    let about = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let open = |e: std::io::Error| match e.kind() {
        ErrorKind::ResourceBusy => (IO, about(&"in use (a mounted volume can only be listed: -l)")),
        _ => (IO, format!("Unable to open device {}: {}", path.display(), crate::mount::words(&e))),
    };
    let mode = if changes.is_empty() { OpenMode::ReadOnly } else { OpenMode::ReadWrite };
    let device = FileDevice::open(path, mode).map_err(open)?;
    if !changes.is_empty() {
        claim(&device).map_err(open)?;
    }
    tune(&device, changes).map_err(|e| match e {
        TuneError::Wrong(what) => (DATA, what),
        e => (IO, about(&e)),
    })
}

fn as_text(sb: &Superblock) -> String {
    listing(sb).iter().map(|(name, _, value)| format!("{name}: {value}\n")).collect()
}

fn as_json(sb: &Superblock) -> Value {
    let value = |text: &str| text.parse::<u64>().map_or_else(|_| json!(text), |n| json!(n));
    let named = ["format", "block_size", "block_shift", "root", "master"];
    let lines = listing(sb);
    let fields = lines.iter().map(|(_, name, text)| {
        let value = if named.contains(name) { value(text) } else { json!(text) };
        ((*name).to_owned(), value)
    });
    json!({ "superblock": Value::Object(fields.collect()) })
}

const STOCK: Stock = Stock {
    name: "tunegfs2",
    usage: "Usage: tunegfs2 [-hlV] [-L <label>] [-U <UUID>] [-o <mount options>] [-r <version>] <device>\n",
    with_value: "LUor",
    without: "hlV",
};

/// `tunegfs2`.
pub(super) fn stock() -> ExitCode {
    let usage = |why: &str| {
        eprintln!("{why}");
        print!("{}", STOCK.usage);
        ExitCode::from(USAGE)
    };
    let Options { given, operands } = match STOCK.parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(why) => return usage(&why),
    };
    if let Some(code) = stock::told(&STOCK, &given) {
        return code;
    }
    let value = |letter| given.iter().rev().find(|(l, _)| *l == letter).map(|(_, value)| value.clone());
    let [device] = &operands[..] else { return usage("Incorrect number of arguments") };
    let arguments = Arguments {
        list: value('l').is_some(),
        label: value('L'),
        uuid: value('U'),
        // What it does not know, and a name without a value, the stock tool passes over.
        options: given
            .iter()
            .filter(|(letter, _)| *letter == 'o')
            .flat_map(|(_, text)| text.split(','))
            .filter(|part| ["lockproto=", "locktable="].iter().any(|known| part.starts_with(known)))
            .map(String::from)
            .collect(),
        format: value('r'),
        json: false,
        device: device.into(),
    };
    let done = changes(&arguments).and_then(|changes| apply(&arguments.device, &changes));
    match done {
        Ok(sb) if arguments.list => print(&as_text(&sb)).unwrap_or(ExitCode::from(IO)),
        Ok(_) => ExitCode::SUCCESS,
        Err((code, why)) => {
            eprintln!("{why}");
            ExitCode::from(code)
        }
    }
}
