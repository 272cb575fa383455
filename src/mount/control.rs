//! The control socket: one request line, one answer line, `ok [JSON]` or `error WHY`. Only root can connect.

use super::live::Live;
use super::{dlm, live, remount, rundir, watch};
use crate::admin::geometry::Alignment;
use crate::admin::{grow, jadd};
use crate::device::{FileDevice, OpenMode};
use crate::quota::Who;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Connections that are served at the same time: a question must be answered while a freeze waits.
const CONNECTIONS_MAX: usize = 16;

/// Answers as long as it lives.
pub(super) struct Listening {
    path: PathBuf,
    ends: Arc<AtomicBool>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // So that the thread looks; if nobody listens any more it need not.
        let _woken = UnixStream::connect(&self.path);
    }
}

/// Listens on `path` in a thread of its own.
pub(super) fn listen(path: &Path, live: Arc<Live>) -> io::Result<Listening> {
    let listener = rundir::listen(path)?;
    let busy = Arc::new(AtomicUsize::new(0));
    let ends = Arc::new(AtomicBool::new(false));
    let listening = Listening { path: path.to_owned(), ends: Arc::clone(&ends) };
    std::thread::Builder::new().name("gfs2r-control".into()).spawn(move || {
        for stream in listener.incoming() {
            if ends.load(Ordering::Acquire) {
                return;
            }
            let served = stream.and_then(|stream| start(stream, &live, &busy));
            if let Err(e) = served {
                tracing::debug!("control connection: {e}");
            }
        }
    })?;
    Ok(listening)
}

fn start(mut stream: UnixStream, live: &Arc<Live>, busy: &Arc<AtomicUsize>) -> io::Result<()> {
    /// Counts a connection down, however its thread ends.
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::AcqRel);
        }
    }
    let before = busy.fetch_add(1, Ordering::AcqRel);
    let counted = Counted(Arc::clone(busy));
    if before >= CONNECTIONS_MAX {
        return writeln!(stream, "error too many requests at the same time");
    }
    let live = Arc::clone(live);
    std::thread::Builder::new().name("gfs2r-answer".into()).spawn(move || {
        let _counted = counted;
        if let Err(e) = serve(stream, &live) {
            tracing::debug!("control connection: {e}");
        }
    })?;
    Ok(())
}

fn serve(mut stream: UnixStream, live: &Live) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut line = String::new();
    BufReader::new(io::Read::take(&stream, 4096)).read_line(&mut line)?;
    match answer(live, line.trim()) {
        Ok(Value::Null) => writeln!(stream, "ok"),
        Ok(value) => writeln!(stream, "ok {value}"),
        Err(why) => writeln!(stream, "error {}", why.replace('\n', " ")),
    }
}

fn answer(live: &Live, line: &str) -> Result<Value, String> {
    let (request, rest) = line.split_once(' ').unwrap_or((line, ""));
    let fs = &live.opened.fs;
    match request {
        "ping" => Ok(Value::Null),
        "status" => Ok(live.status()),
        "glocks" => Ok(json!(live.glocks())),
        "top" => Ok(watch::answer(live)),
        "dlm" => dlm::answer(live.dlm.as_ref(), rest),
        "sync" => done(fs.sync()),
        "freeze" | "thaw" | "remount" | "grow" | "jadd" => {
            let _one_at_a_time = live.changing.lock();
            change(live, request, rest)
        }
        "quota" => quota(live, rest),
        other => Err(format!("unknown request '{other}'")),
    }
}

fn done(result: crate::error::Result<()>) -> Result<Value, String> {
    result.map(|()| Value::Null).map_err(|e| e.to_string())
}

/// What must not happen twice at the same time.
fn change(live: &Live, request: &str, rest: &str) -> Result<Value, String> {
    let fs = &live.opened.fs;
    match request {
        "freeze" if fs.is_frozen() => Err("frozen already".into()),
        // On all nodes.
        "freeze" => done(live.cluster().map_or_else(|| fs.freeze(), |part| part.freeze())),
        "thaw" if !fs.is_frozen() => Err("not frozen".into()),
        "thaw" => match live.cluster() {
            None => {
                fs.thaw();
                Ok(Value::Null)
            }
            Some(part) => match part.thaw() {
                Err(crate::error::Error::Invalid) => Err("another node froze it (thaw it there)".into()),
                result => done(result),
            },
        },
        "grow" => grown(live, rest),
        "jadd" => added(live, rest),
        _ => remounted(live, rest).map(|()| Value::Null),
    }
}

/// Whether the volume as a whole may be changed.
fn may_change(live: &Live) -> Result<(), String> {
    match (live.opened.is_read_only(), live.opened.fs.is_frozen()) {
        (true, _) => Err("mounted read-only".into()),
        (_, true) => Err("frozen (thaw it first)".into()),
        _ => Ok(()),
    }
}

/// `grow [test] [size=BYTES]`.
fn grown(live: &Live, rest: &str) -> Result<Value, String> {
    let mut request = grow::Request::default();
    for word in rest.split_ascii_whitespace() {
        match word.split_once('=') {
            None if word == "test" => request.dry_run = true,
            Some(("size", bytes)) => {
                request.device_bytes = Some(bytes.parse().map_err(|_| format!("{word}: not a size"))?)
            }
            _ => return Err("test or size=BYTES".into()),
        }
    }
    if !request.dry_run {
        may_change(live)?;
    }
    let fs = &live.opened.fs;
    let topology = FileDevice::open(&live.source, OpenMode::ReadOnly).ok().and_then(|device| device.topology());
    let alignment = topology.and_then(|t| Alignment::of_device(&t, fs.volume().bs));
    request.alignment = alignment.unwrap_or_default();
    let grown = grow::grow(fs, &request).map_err(|e| e.to_string())?;
    if !request.dry_run {
        tracing::info!("{} resource groups more, {} blocks", grown.groups.len(), grown.data_blocks());
    }
    Ok(growth_json(&grown, &live.source, Some(&live.target)))
}

/// What a growth was, for answers and listings.
pub fn growth_json(grown: &grow::Growth, source: &Path, directory: Option<&Path>) -> Value {
    let groups: Vec<Value> = grown
        .groups
        .iter()
        .map(|rg| json!({ "addr": rg.addr.get(), "length": rg.length, "data0": rg.data0.get(), "data": rg.data }))
        .collect();
    let bs = grown.bs.bytes() as u64;
    json!({
        "source": source, "directory": directory, "block_size": bs, "old_blocks": grown.old_blocks,
        "device_blocks": grown.device_blocks, "data_blocks": grown.data_blocks(),
        "grows_by_bytes": grown.device_blocks.saturating_sub(grown.old_blocks).saturating_mul(bs),
        "resource_groups": groups,
    })
}

/// `jadd count=N journal=MB quota_change=MB`.
fn added(live: &Live, rest: &str) -> Result<Value, String> {
    may_change(live)?;
    let mut request = jadd::Request::of_now(&*live.opened.fs.volume().clock);
    for word in rest.split_ascii_whitespace() {
        let (name, number) = word.split_once('=').unwrap_or((word, ""));
        let number = number.parse().map_err(|_| format!("{word}: not a number"))?;
        match name {
            "count" => request.count = number,
            "journal" => request.journal_mib = number,
            "quota_change" => request.quota_change_mib = number,
            _ => return Err("count=N, journal=MB or quota_change=MB".into()),
        }
    }
    let added = jadd::jadd(&live.opened.fs, &request).map_err(|e| e.to_string())?;
    live.journals.store(added.new, Ordering::Release);
    tracing::info!("{} journals now, {} before", added.new, added.old);
    Ok(added_json(&added))
}

/// What journals were added, for answers and listings.
pub fn added_json(added: &jadd::Added) -> Value {
    json!({ "old_journals": added.old, "new_journals": added.new })
}

/// `remount ro|rw OPTIONS`.
fn remounted(live: &Live, rest: &str) -> Result<(), String> {
    let (mode, options) = rest.split_once(' ').unwrap_or((rest, ""));
    let read_only = match mode {
        "ro" => true,
        "rw" => false,
        _ => return Err("ro or rw is missing".into()),
    };
    let mut now = live.options.lock();
    *now = remount::serve(&live.opened, &now, &live.atime, read_only, options)?;
    Ok(())
}

/// `quota report`, `quota get user|group ID`, `quota set user|group ID limit=BYTES warn=BYTES`.
fn quota(live: &Live, rest: &str) -> Result<Value, String> {
    let fs = &live.opened.fs;
    let Some(quota) = fs.quota() else {
        return Err(match live.opened.is_read_only() {
            true => "a read-only mount does not know quotas".into(),
            false => "quotas are off on this mount (mount it with -o quota=account or quota=on)".into(),
        });
    };
    let vol = fs.volume();
    let mut words = rest.split_ascii_whitespace();
    let verb = words.next().unwrap_or("");
    if verb == "report" {
        let lines = quota.report(vol).map_err(|e| e.to_string())?;
        return Ok(lines.iter().map(|l| live::quota_line(l, vol.bs)).collect());
    }
    let who = who(words.next(), words.next()).ok_or("whose quota? (user or group, and a number)")?;
    match verb {
        "get" => {}
        "set" => {
            let (mut limit, mut warn) = (None, None);
            for word in words {
                let (name, bytes) = word.split_once('=').ok_or("limit=BYTES or warn=BYTES")?;
                let bytes: u64 = bytes.parse().map_err(|_| format!("{word}: not a number of bytes"))?;
                // Rounded up: 0 would mean no limit.
                let blocks = Some(bytes.div_ceil(vol.bs.bytes() as u64));
                match name {
                    "limit" => limit = blocks,
                    "warn" => warn = blocks,
                    _ => return Err("limit=BYTES or warn=BYTES".into()),
                }
            }
            if live.opened.is_read_only() {
                return Err("mounted read-only".into());
            }
            quota.set(vol, who, limit, warn).and_then(|()| fs.sync()).map_err(|e| e.to_string())?;
        }
        other => return Err(format!("unknown request 'quota {other}'")),
    }
    let line = quota.line(vol, who).map_err(|e| e.to_string())?;
    Ok(live::quota_line(&line, vol.bs))
}

fn who(kind: Option<&str>, id: Option<&str>) -> Option<Who> {
    let id = id?.parse().ok()?;
    match kind? {
        "user" => Some(Who::User(id)),
        "group" => Some(Who::Group(id)),
        _ => None,
    }
}
