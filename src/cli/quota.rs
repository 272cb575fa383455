//! `gfs2r quota`.

use super::table::{columns, human};
use super::{Outcome, about, print, print_json};
use crate::mount::{Mounted, bytes};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Show and set quotas of a mounted volume.
#[derive(Args, Debug)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Examples:
  gfs2r quota report /mnt/gfs2
  gfs2r quota get -u alice /mnt/gfs2
  gfs2r quota set -u alice --limit 10G --warn 9G /mnt/gfs2
  gfs2r quota set -g 100 --limit none /mnt/gfs2"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List everybody with a limit, a warning level or blocks in use.
    #[command(after_help = "Examples:\n  gfs2r quota report /mnt/gfs2\n  gfs2r quota report -u --bytes /mnt/gfs2")]
    Report {
        /// A mounted directory, or its device or image.
        mount: PathBuf,
        /// Only users.
        #[arg(short, long, conflicts_with = "groups")]
        users: bool,
        /// Only groups.
        #[arg(short, long)]
        groups: bool,
        /// Numbers instead of names.
        #[arg(short, long)]
        numeric: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Show the quota of one user or group.
    #[command(after_help = "Examples:\n  gfs2r quota get -u alice /mnt/gfs2")]
    Get {
        #[command(flatten)]
        who: Who,
        /// A mounted directory, or its device or image.
        mount: PathBuf,
        #[command(flatten)]
        form: Form,
    },
    /// Set the limit or the warning level of a user or group.
    #[command(after_help = "Examples:\n  gfs2r quota set -u alice --limit 10G --warn 9G /mnt/gfs2")]
    Set {
        #[command(flatten)]
        who: Who,
        /// More than this cannot be had: a size (512, 10M, 2G ...), or none.
        #[arg(short, long, value_name = "SIZE", required_unless_present = "warn", value_parser = size)]
        limit: Option<u64>,
        /// More than this is worth a warning: a size, or none.
        #[arg(short, long, value_name = "SIZE", value_parser = size)]
        warn: Option<u64>,
        /// A mounted directory, or its device or image.
        mount: PathBuf,
    },
}

#[derive(Args, Debug)]
struct Form {
    /// As JSON, in bytes.
    #[arg(long)]
    json: bool,
    /// In bytes.
    #[arg(short, long)]
    bytes: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Who {
    /// A user: name or number.
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// A group: name or number.
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
}

impl Who {
    /// As the daemon takes it: `user 1000`.
    fn words(&self) -> Result<String, String> {
        // clap sees to it that exactly one is there.
        let (kind, name) = match (&self.user, &self.group) {
            (Some(name), _) => ("user", name),
            (None, name) => ("group", name.as_ref().ok_or("a user or a group is missing")?),
        };
        let id = match name.parse() {
            Ok(id) => Some(id),
            Err(_) if kind == "user" => user_id(name)?,
            Err(_) => group_id(name)?,
        };
        id.map(|id| format!("{kind} {id}")).ok_or_else(|| format!("no such {kind} '{name}'"))
    }
}

fn size(text: &str) -> Result<u64, String> {
    if text == "none" {
        return Ok(0);
    }
    let size = bytes(text).ok_or("a size (512, 10M, 2G ...) or none")?;
    u64::try_from(size).map_err(|e| e.to_string())
}

fn user_id(name: &str) -> Result<Option<u32>, String> {
    let found = nix::unistd::User::from_name(name).map_err(|e| format!("looking for user '{name}': {e}"))?;
    Ok(found.map(|u| u.uid.as_raw()))
}

fn group_id(name: &str) -> Result<Option<u32>, String> {
    let found = nix::unistd::Group::from_name(name).map_err(|e| format!("looking for group '{name}': {e}"))?;
    Ok(found.map(|g| g.gid.as_raw()))
}

/// The name behind a number; one that cannot be found is shown as a number.
fn name(kind: &str, id: u32) -> Option<String> {
    if kind == "user" {
        nix::unistd::User::from_uid(id.into()).ok().flatten().map(|u| u.name)
    } else {
        nix::unistd::Group::from_gid(id.into()).ok().flatten().map(|g| g.name)
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.verb {
        Verb::Report { mount, users, groups, numeric, form } => {
            let lines = ask(mount, "quota report")?.as_array().cloned().unwrap_or_default();
            let wanted = |l: &Value| !(*users && l["kind"] != "user" || *groups && l["kind"] != "group");
            show(lines.into_iter().filter(wanted).collect(), form, *numeric)
        }
        Verb::Get { who, mount, form } => show(vec![ask(mount, &format!("quota get {}", who.words()?))?], form, false),
        Verb::Set { who, limit, warn, mount } => {
            let mut request = format!("quota set {}", who.words()?);
            for (name, value) in [("limit", limit), ("warn", warn)] {
                if let Some(bytes) = value {
                    request.push_str(&format!(" {name}={bytes}"));
                }
            }
            ask(mount, &request).map(super::done)
        }
    }
}

fn ask(mount: &Path, request: &str) -> Result<Value, String> {
    about(mount, Mounted::find(mount).and_then(|m| m.ask(request)))
}

fn show(mut lines: Vec<Value>, form: &Form, numeric: bool) -> Outcome {
    for line in &mut lines {
        let kind = line["kind"].as_str().unwrap_or("").to_owned();
        let id = line["id"].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX);
        line["name"] = json!(name(&kind, id));
    }
    if form.json {
        return print_json("quotas", Value::Array(lines));
    }
    let limit = |v: &Value| match v.as_u64().unwrap_or(0) {
        0 => "none".to_owned(),
        bytes if form.bytes => bytes.to_string(),
        bytes => human(bytes),
    };
    let used = |bytes: u64| if form.bytes { bytes.to_string() } else { human(bytes) };
    let mut rows = vec![["Kind", "Name", "Used", "Warn", "Limit", ""].map(String::from).to_vec()];
    for line in &lines {
        let number = |name: &str| line[name].as_u64().unwrap_or(0);
        let known = line["name"].as_str().filter(|_| !numeric).map(String::from);
        let over = |level: &str| number(level) > 0 && number("used_bytes") >= number(level);
        let mark = match (over("limit_bytes"), over("warn_bytes")) {
            (true, _) => "full",
            (false, true) => "warn",
            _ => "",
        };
        rows.push(vec![
            line["kind"].as_str().unwrap_or("").to_owned(),
            known.unwrap_or_else(|| format!("#{}", line["id"])),
            used(number("used_bytes")),
            limit(&line["warn_bytes"]),
            limit(&line["limit_bytes"]),
            mark.to_owned(),
        ]);
    }
    print(&columns(&rows, 2))
}
