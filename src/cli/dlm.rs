//! `gfs2r dlm`.

use super::{Outcome, print, print_json};
use crate::mount::Mounted;
use clap::{Args, Subcommand};
use lockclient::inspect::{NodeView, PlockFileView, ResourceView, render};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::process::ExitCode;

/// Show the lock manager of the cluster mounts of this host, as dlm_tool does.
///
/// Each mount with lock_dlm is a node of its own, which shares the locks of its lockspace (the part of the lock table's
/// name after the colon) with the other nodes of the cluster.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gfs2r dlm ls
  gfs2r dlm status
  gfs2r dlm lockdump fs0
  gfs2r dlm plocks fs0 --json | jq '.inodes[].waiters'")]
pub(super) struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand, Debug)]
enum Question {
    /// The lockspaces, with their members, their state and what recovery is doing.
    #[command(after_help = "Examples:\n  gfs2r dlm ls\n  gfs2r dlm ls --json | jq '.nodes[].lockspaces[].members'")]
    Ls(Form),
    /// The nodes of the cluster as this one sees them, and the connections to them.
    ///
    /// M: the node lives; X: it is silent. In doubt is who fell silent and may still write: it is fenced before locking
    /// goes on.
    #[command(after_help = "Examples:\n  gfs2r dlm status\n  gfs2r dlm status --json | jq '.nodes[].quorate'")]
    Status(Form),
    /// The locks of a lockspace that this node knows: its own, and all of the resources it is the master of.
    ///
    /// Each resource with its master, the node that directs to it, and its value block; then its locks: gr(anted) and
    /// rq (requested) mode, the node that holds it, the process, the flags of its last operation.
    #[command(after_help = "Examples:\n  gfs2r dlm lockdump fs0\n  gfs2r dlm lockdump --json fs0 | jq '.resources[0]'")]
    Lockdump(Named),
    /// The POSIX locks of a lockspace, of all nodes, and who waits for them.
    ///
    /// Inode, RD or WR, first and last byte, the node, the process there, the owner.
    #[command(after_help = "Examples:\n  gfs2r dlm plocks fs0\n  gfs2r dlm plocks fs0 --json | jq '.inodes[].waiters'")]
    Plocks(Named),
}

#[derive(Args, Debug)]
struct Form {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Named {
    /// The lockspace.
    lockspace: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.question {
        Question::Ls(form) => nodes(form.json, |node| node.lockspaces.is_empty(), render::lockspaces),
        Question::Status(form) => nodes(form.json, |_| false, render::status),
        Question::Lockdump(named) => {
            named_one::<Vec<ResourceView>>("locks", named, "resources", |resources| render::locks(resources))
        }
        Question::Plocks(named) => {
            named_one::<Vec<PlockFileView>>("plocks", named, "inodes", |files| render::plocks(files))
        }
    }
}

/// Asks every mount for its node. One without a lock manager gets a line; so does one that does not answer, which makes
/// the command fail.
fn nodes(json: bool, is_dull: impl Fn(&NodeView) -> bool, text: impl Fn(&NodeView) -> String) -> Outcome {
    let (mut all, mut failed, mut without) = (Vec::new(), Vec::new(), 0);
    for mounted in Mounted::all().map_err(|e| e.to_string())? {
        let answer = mounted.ask("dlm node");
        if answer == Ok(Value::Null) {
            eprintln!("gfs2r: dlm: {}: uses no lock manager (lock_nolock)", mounted.target().display());
            without += 1;
            continue;
        }
        match answer.and_then(|answer| read::<NodeView>(&answer).map(|node| (answer, node))) {
            Ok(found) => all.push(found),
            Err(why) => failed.push(format!("{}: {why}", mounted.target().display())),
        }
    }
    failed.iter().for_each(|line| eprintln!("gfs2r: dlm: {line}"));
    let printed = if json {
        print_json("nodes", all.into_iter().map(|(answer, _)| answer).collect())?
    } else if all.is_empty() && failed.is_empty() && without == 0 {
        print("nothing is mounted\n")?
    } else {
        let shown = all.iter().filter(|(_, node)| all.len() == 1 || !is_dull(node)).map(|(_, node)| text(node));
        print(&shown.collect::<String>())?
    };
    Ok(if failed.is_empty() { printed } else { ExitCode::FAILURE })
}

/// Asks the mounts until one is in the lockspace.
fn named_one<T: DeserializeOwned>(what: &str, named: &Named, name: &str, text: impl Fn(&T) -> String) -> Outcome {
    let lockspace = &named.lockspace;
    if lockspace.chars().any(char::is_whitespace) {
        return Err(format!("'{lockspace}' is no name of a lockspace"));
    }
    let mut failed = Vec::new();
    for mounted in Mounted::all().map_err(|e| e.to_string())? {
        match mounted.ask(&format!("dlm {what} {lockspace}")) {
            Ok(Value::Null) => {}
            Ok(answer) if named.json => return print_json(name, answer),
            Ok(answer) => return print(&text(&read(&answer)?)),
            Err(why) => failed.push(format!(" ({}: {why})", mounted.target().display())),
        }
    }
    Err(format!("no mount of this host is in lockspace '{lockspace}'{}", failed.concat()))
}

fn read<T: DeserializeOwned>(answer: &Value) -> Result<T, String> {
    T::deserialize(answer).map_err(|e| format!("the daemon's answer cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a daemon sends is what is shown.
    #[test]
    fn answers_are_read_and_shown() {
        let node = NodeView { node: 4, quorate: true, ..NodeView::default() };
        let answer = serde_json::to_value(&node).expect("a value");
        assert_eq!(
            render::status(&read(&answer).expect("a node")),
            "cluster nodeid 4 quorate 1 incarnation 0 token 0 ms\n"
        );
        let file = PlockFileView { number: 7, ..PlockFileView::default() };
        let answer = serde_json::to_value(vec![file]).expect("a value");
        assert_eq!(render::plocks(&read::<Vec<PlockFileView>>(&answer).expect("files")), "");
        assert!(read::<NodeView>(&answer).is_err());
    }
}
