//! `gfs2r df`.

use super::table::{columns, human};
use super::{Outcome, about, print, print_json};
use crate::device::{BlockDevice, FileDevice, OpenMode};
use crate::ids::BlkState;
use crate::mount::Mounted;
use crate::volume::Layout;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Show the space of volumes, mounted or not.
///
/// Of a mounted volume the daemon's counters are shown; of any other the bitmaps on the disk are counted.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gfs2r df
  gfs2r df --json disk.img")]
pub(super) struct Arguments {
    /// Mounted directories, devices or images; every mount of this host without one.
    what: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// In bytes.
    #[arg(short, long)]
    bytes: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    if arguments.what.is_empty() {
        for m in Mounted::all().map_err(|e| e.to_string())? {
            match about(m.target(), of_mount(&m)) {
                Ok(line) => all.push(line),
                Err(why) => wrong.push(why),
            }
        }
    }
    for what in &arguments.what {
        let found = match Mounted::find(what) {
            Ok(mounted) => of_mount(&mounted),
            // Not mounted: is there a volume on it?
            Err(why) if what.is_dir() => Err(why),
            Err(_) => of_image(what).map_err(|e| e.to_string()),
        };
        all.push(about(what, found)?);
    }
    let shown = show(arguments, all)?;
    // One that does not answer hides no other.
    if wrong.is_empty() { Ok(shown) } else { Err(wrong.join("\n")) }
}

fn show(arguments: &Arguments, all: Vec<Value>) -> Outcome {
    if arguments.json {
        return print_json("filesystems", Value::Array(all));
    }
    let size = |v: &Value| {
        let bytes = v.as_u64().unwrap_or(0);
        if arguments.bytes { bytes.to_string() } else { human(bytes) }
    };
    let mut rows = vec![["Source", "Mounted on", "Size", "Used", "Free", "Use%", "Inodes"].map(String::from).to_vec()];
    for f in &all {
        let (total, used) = (f["total_bytes"].as_u64().unwrap_or(0), f["used_bytes"].as_u64().unwrap_or(0));
        let percent = (u128::from(used) * 100).div_ceil(u128::from(total.max(1)));
        rows.push(vec![
            f["source"].as_str().unwrap_or("?").to_owned(),
            f["directory"].as_str().unwrap_or("-").to_owned(),
            size(&f["total_bytes"]),
            size(&f["used_bytes"]),
            size(&f["free_bytes"]),
            format!("{percent}%"),
            f["inodes_used"].to_string(),
        ]);
    }
    print(&columns(&rows, 2))
}

fn of_mount(mounted: &Mounted) -> Result<Value, String> {
    let status = mounted.ask("status")?;
    let space = &status["space"];
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let (total, free) = (number(&space["total_bytes"]), number(&space["free_bytes"]));
    Ok(line(&status["source"], &status["directory"], total, free, number(&space["inodes_used"])))
}

fn of_image(image: &Path) -> Result<Value, Box<dyn std::error::Error>> {
    let dev: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(image, OpenMode::ReadOnly)?);
    let layout = Layout::read(Arc::clone(&dev))?;
    let (mut total, mut free, mut dinodes) = (0u64, 0u64, 0u64);
    for n in 0..layout.rgrps().len() {
        total += u64::from(layout.rgrps()[n].data);
        free += layout.count(&*dev, n, BlkState::Free)?;
        dinodes += layout.count(&*dev, n, BlkState::Dinode)?;
    }
    let block = layout.identity().bs.bytes() as u64;
    Ok(line(&json!(image), &Value::Null, total.saturating_mul(block), free.saturating_mul(block), dinodes))
}

fn line(source: &Value, directory: &Value, total: u64, free: u64, inodes: u64) -> Value {
    json!({
        "source": source, "directory": directory, "total_bytes": total, "used_bytes": total.saturating_sub(free),
        "free_bytes": free, "inodes_used": inodes,
    })
}
