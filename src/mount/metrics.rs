//! Prometheus metrics: `-o metrics=ADDR:PORT` answers every HTTP request with those of all volumes of this process that asked
//! for that address.

use super::live::Live;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Longest head of a request.
const HEAD_MAX: u64 = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

type Volumes = Arc<Mutex<Vec<Weak<Live>>>>;

/// Who is answered for, by address.
static SERVED: Mutex<BTreeMap<SocketAddr, Volumes>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lists that are whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on the volume's metrics are to be had at this address, until it is unmounted.
pub(super) fn serve(address: SocketAddr, live: &Arc<Live>) -> io::Result<()> {
    let mut served = lock(&SERVED);
    if let Some(volumes) = served.get(&address) {
        lock(volumes).push(Arc::downgrade(live));
        return Ok(());
    }
    let listener = TcpListener::bind(address)?;
    let volumes: Volumes = Arc::new(Mutex::new(vec![Arc::downgrade(live)]));
    served.insert(address, Arc::clone(&volumes));
    std::thread::Builder::new().name("gfs2r-metrics".into()).spawn(move || {
        // One after the other: whoever is slow is sent away.
        for stream in listener.incoming() {
            if let Err(e) = stream.and_then(|stream| answer(stream, &volumes)) {
                tracing::debug!("metrics: {e}");
                // Also when there are no more file descriptors: not in a circle.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    })?;
    Ok(())
}

fn answer(mut stream: TcpStream, volumes: &Volumes) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = BufReader::new(Read::take(&stream, HEAD_MAX)).lines();
    let first = head.next().transpose()?.unwrap_or_default();
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split_ascii_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics" | "/")) => {
            let alive: Vec<Arc<Live>> = {
                let mut volumes = lock(volumes);
                volumes.retain(|volume| volume.strong_count() > 0);
                volumes.iter().filter_map(Weak::upgrade).collect()
            };
            ("200 OK", text(&alive.iter().map(|live| live.status()).collect::<Vec<_>>()))
        }
        (Some("GET"), _) => ("404 Not Found", "see /metrics\n".into()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".into()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Name, type, meaning, and where in a mount's status it stands.
const NUMBERS: [(&str, &str, &str); 13] = [
    ("gfs2r_space_total_bytes", "Bytes of the volume.", "/space/total_bytes"),
    ("gfs2r_space_free_bytes", "Free bytes.", "/space/free_bytes"),
    ("gfs2r_inodes_used", "Inodes in use.", "/space/inodes_used"),
    ("gfs2r_journals", "Journals of the volume.", "/journals"),
    ("gfs2r_cache_metadata_bytes", "Metadata in memory.", "/cache/metadata_bytes"),
    ("gfs2r_cache_metadata_limit_bytes", "Clean metadata that is kept at most.", "/cache/metadata_limit_bytes"),
    ("gfs2r_cache_dirty_data_bytes", "File data not yet written.", "/cache/dirty_data_bytes"),
    ("gfs2r_glocks_inode", "Locks of inodes that this node knows.", "/glocks/inode"),
    ("gfs2r_glocks_rgrp", "Locks of resource groups that this node knows.", "/glocks/rgrp"),
    ("gfs2r_cluster_generation", "Changes of the lockspace's members so far.", "/cluster/generation"),
    ("gfs2r_lock_notices_total", "Locks that other nodes wanted to have from this one.", "/cluster/notices"),
    ("gfs2r_lock_waits_total", "Locks that this node had to wait for.", "/cluster/waits"),
    ("gfs2r_locks_known", "Lock records of the lockspace on this node.", "/cluster/lock_records"),
];
/// States of a mount, of its locks and of nodes: one of each set is 1.
const STATES: [&str; 4] = ["live", "read_only", "frozen", "withdrawn"];
const NODE_STATES: [&str; 6] = ["mounted", "alive", "in_doubt", "being_fenced", "fenced", "absent"];

/// The exposition format. Grouped by metric, as it demands.
fn text(mounts: &[Value]) -> String {
    let mut out = String::new();
    let label = |mount: &Value| {
        let text = |value: &Value| {
            value.as_str().unwrap_or("").replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
        };
        format!("volume=\"{}\",directory=\"{}\"", text(&mount["lock_table"]), text(&mount["directory"]))
    };
    let mut family = |name: &str, help: &str, lines: Vec<(String, u64)>| {
        if lines.is_empty() {
            return;
        }
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
    };
    let states = mounts
        .iter()
        .flat_map(|m| STATES.iter().map(move |s| (format!("{},state=\"{s}\"", label(m)), u64::from(m["state"] == *s))));
    family("gfs2r_mount_state", "How the mount is.", states.collect());
    for (name, help, at) in NUMBERS {
        let lines = mounts.iter().filter_map(|m| Some((label(m), m.pointer(at)?.as_u64()?)));
        family(name, help, lines.collect());
    }
    let clusters = || mounts.iter().filter(|m| m["cluster"].is_object());
    let quorate = clusters().map(|m| (label(m), u64::from(m["cluster"]["quorate"] == true)));
    family("gfs2r_cluster_quorate", "Enough nodes are there to go on.", quorate.collect());
    let recovering = clusters().map(|m| (label(m), u64::from(m["cluster"]["locks"] == "recovering")));
    family(
        "gfs2r_cluster_recovering",
        "Locking is stopped until a change of the members is dealt with.",
        recovering.collect(),
    );
    let mut nodes = Vec::new();
    let mut failures = Vec::new();
    for mount in clusters() {
        for node in mount["cluster"]["nodes"].as_array().into_iter().flatten() {
            let labels = format!("{},node=\"{}\"", label(mount), node["name"].as_str().unwrap_or(""));
            let state = |s: &&str| (format!("{labels},state=\"{s}\""), u64::from(node["state"] == **s));
            nodes.extend(NODE_STATES.iter().map(state));
            failures.push((labels.clone(), node["fence_failures"].as_u64().unwrap_or(0)));
        }
    }
    family("gfs2r_node_state", "How this node sees the nodes of the cluster.", nodes);
    family("gfs2r_node_fence_failures", "How often in a row fencing a node in doubt has failed here.", failures);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_exposition_is_grouped() {
        let alone =
            json!({ "lock_table": "a\"b", "directory": "/mnt/a", "state": "live", "space": { "free_bytes": 7 } });
        let nodes = json!([{ "name": "bee", "state": "in_doubt", "fence_failures": 2 }]);
        let cluster = json!({ "quorate": true, "generation": 3, "locks": "running", "nodes": nodes, "notices": 5 });
        let shared = json!({ "lock_table": "c:v", "directory": "/mnt/v", "state": "frozen", "cluster": cluster,
            "space": { "free_bytes": 8 } });
        let text = text(&[alone, shared]);
        for line in [
            "gfs2r_space_free_bytes{volume=\"a\\\"b\",directory=\"/mnt/a\"} 7\ngfs2r_space_free_bytes{volume=\"c:v\"",
            "gfs2r_mount_state{volume=\"c:v\",directory=\"/mnt/v\",state=\"frozen\"} 1",
            "# TYPE gfs2r_lock_notices_total counter\n",
            "gfs2r_node_state{volume=\"c:v\",directory=\"/mnt/v\",node=\"bee\",state=\"in_doubt\"} 1",
            "gfs2r_node_fence_failures{volume=\"c:v\",directory=\"/mnt/v\",node=\"bee\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let helps: Vec<&str> = text.lines().filter(|l| l.starts_with("# HELP")).collect();
        assert_eq!(helps.len(), helps.iter().collect::<std::collections::BTreeSet<_>>().len());
    }
}
