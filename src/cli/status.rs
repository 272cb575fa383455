//! `gfs2r status`.

use super::table::human;
use super::{Outcome, about, print, print_json};
use crate::mount::Mounted;
use clap::Args;
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;

/// Show the mounts of this host and how they are.
///
/// States: live; read_only; frozen (gfs2r freeze); withdrawn (the disk contradicted itself and is left alone); dead (the
/// daemon is gone); hung (it does not answer); mounting (it waits for the cluster).
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status:
  0 every mount shown is well; 1 one is withdrawn, dead or hung

Examples:
  gfs2r status
  gfs2r status --json /mnt/gfs2 | jq '.mounts[0].state'")]
pub(super) struct Arguments {
    /// Mounted directories, or their devices or images; all of this host without one.
    mounts: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let found: Vec<Mounted> = if arguments.mounts.is_empty() {
        Mounted::all().map_err(|e| e.to_string())?
    } else {
        arguments.mounts.iter().map(|m| about(m, Mounted::find(m))).collect::<Result<_, _>>()?
    };
    let all: Vec<Value> = found.iter().map(Mounted::status).collect();
    let ill = all.iter().any(|m| matches!(m["state"].as_str(), Some("withdrawn" | "dead" | "hung")));
    let printed = if arguments.json {
        print_json("mounts", Value::Array(all))?
    } else if all.is_empty() {
        print("nothing is mounted\n")?
    } else {
        print(&all.iter().map(text).collect::<Vec<_>>().join("\n"))?
    };
    Ok(if ill { std::process::ExitCode::FAILURE } else { printed })
}

/// A mount, in a few lines.
fn text(m: &Value) -> String {
    let string = |v: &Value| v.as_str().unwrap_or("?").to_owned();
    let size = |v: &Value| human(v.as_u64().unwrap_or(0));
    let mut out = format!("{} on {}\n", string(&m["source"]), string(&m["directory"]));
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<9} {value}");
    };
    let cause = m["withdraw_cause"].as_str().map(|c| format!(": {c}")).unwrap_or_default();
    line("state", format!("{}{cause}", string(&m["state"]).replace('_', "-")));
    if let Some(what) = m["waiting_for"].as_str() {
        line("cluster", what.to_owned());
    }
    if m["pid"].is_null() {
        if let Some(log) = m["log"].as_str() {
            line("log", log.to_owned());
        }
        return out;
    }
    let table = m["lock_table"].as_str().filter(|t| !t.is_empty()).map(|t| format!(", table {t}")).unwrap_or_default();
    let journal = match m["journal"].as_u64() {
        Some(own) => format!("journal {own} of {}", m["journals"]),
        None => format!("no journal of {}", m["journals"]),
    };
    line("locks", format!("{}{table}, {journal}", string(&m["lock_protocol"])));
    if let Some(cluster) = m["cluster"].as_object() {
        let each = |list: &str, show: &dyn Fn(&Value) -> String| -> String {
            cluster[list].as_array().map(|all| all.iter().map(show).collect::<Vec<_>>().join(", ")).unwrap_or_default()
        };
        let quorum = if cluster["quorate"] == true { "quorate" } else { "no quorum" };
        let recovery = match cluster["locks"].as_str() {
            Some("recovering") => format!(", recovering ({})", string(&cluster["recovery_step"])),
            _ => String::new(),
        };
        line("node", format!("{}, {quorum}, generation {}{recovery}", string(&cluster["node"]), cluster["generation"]));
        let node = |n: &Value| {
            let failed = match n["fence_failures"].as_u64() {
                None | Some(0) => String::new(),
                Some(1) => " (fencing it has failed)".into(),
                Some(times) => format!(" (fencing it has failed {times} times)"),
            };
            format!("{} {}{failed}", string(&n["name"]), string(&n["state"]).replace('_', " "))
        };
        line("nodes", each("nodes", &node));
        line("journals", each("journals", &|j| format!("{} {}", j["journal"], string(&j["node"]))));
    }
    let (space, cache) = (&m["space"], &m["cache"]);
    line(
        "space",
        format!(
            "{} of {} free, {} inodes",
            size(&space["free_bytes"]),
            size(&space["total_bytes"]),
            space["inodes_used"]
        ),
    );
    line(
        "cache",
        format!(
            "{} of {} metadata, {} of data not yet written",
            size(&cache["metadata_bytes"]),
            size(&cache["metadata_limit_bytes"]),
            size(&cache["dirty_data_bytes"])
        ),
    );
    line("glocks", format!("{} of inodes, {} of resource groups", m["glocks"]["inode"], m["glocks"]["rgrp"]));
    line("quota", string(&m["quota"]));
    line("volume", format!("format {}, block size {}, UUID {}", m["format"], m["block_size"], string(&m["uuid"])));
    line("daemon", format!("pid {}", m["pid"]));
    out
}
