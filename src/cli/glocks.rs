//! `gfs2r glocks`.

use super::{Outcome, about, print, print_json};
use crate::mount::Mounted;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Show the locks of a mount, as the kernel's /sys/kernel/debug/gfs2/*/glocks does.
///
/// G: a glock: s(tate), n(ame: type/number), f(lags), t(arget), d(emote to/at), r(eferences). H: who holds it or waits.
/// I: its inode: n(umber: formal/address), t(ype), d(inode flags), s(ize). R: its resource group: f(lags), b(locks free),
/// i(nodes), u(nlinked).
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gfs2r glocks /mnt/gfs2
  gfs2r glocks --json /mnt/gfs2 | jq '.glocks[] | select(.holders != [])'")]
pub(super) struct Arguments {
    /// A mounted directory, or its device or image.
    mount: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let dump = about(&arguments.mount, Mounted::find(&arguments.mount).and_then(|m| m.ask("glocks")))?;
    let dump = dump.as_str().unwrap_or_default();
    if arguments.json { print_json("glocks", parse(dump)) } else { print(dump) }
}

/// The dump as objects: a lock with its holders and what it protects.
fn parse(dump: &str) -> Value {
    let mut all: Vec<Map<String, Value>> = Vec::new();
    for line in dump.lines() {
        let (kind, rest) = line.trim_start().split_once(':').unwrap_or((line, ""));
        let of = |letter: &str| {
            rest.split_ascii_whitespace()
                .find_map(|w| w.split_once(':').filter(|(l, _)| *l == letter))
                .map_or("", |(_, v)| v)
        };
        if kind == "G" {
            let lock = json!({
                "name": of("n"), "state": of("s"), "flags": of("f"), "target": of("t"), "demote": of("d"),
                "references": of("r").parse::<u64>().unwrap_or(0), "holders": [], "object": null,
            });
            if let Value::Object(lock) = lock {
                all.push(lock);
            }
            continue;
        }
        let Some(lock) = all.last_mut() else { continue };
        if kind == "H" {
            let holder = json!({ "state": of("s"), "flags": of("f"), "pid": of("p").parse::<u64>().unwrap_or(0) });
            if let Some(Value::Array(holders)) = lock.get_mut("holders") {
                holders.push(holder);
            }
        } else {
            lock.insert("object".into(), line.trim().into());
        }
    }
    Value::Array(all.into_iter().map(Value::Object).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_dump_is_taken_apart() {
        let dump = "G:  s:EX n:2/18 f:lqo t:EX d:EX/0 a:0 v:0 r:3\n H: s:EX f:W e:0 p:7 [gone]\n I: n:1/24 t:4 s:5\n";
        let value = super::parse(dump);
        assert_eq!((&value[0]["name"], &value[0]["references"]), (&"2/18".into(), &3.into()));
        assert_eq!((&value[0]["holders"][0]["pid"], &value[0]["object"]), (&7.into(), &"I: n:1/24 t:4 s:5".into()));
    }
}
