//! Against the kernel's GFS2, in a User-Mode Linux guest that has it and FUSE as well.
//!
//! Both work on disks of the same kind in the same guest, which has one processor and pays more for a system call or a switch
//! between processes than a real machine does: a daemon looks worse there than it is. The floor, measured in the same guest,
//! tells how much of the distance is FUSE's.

use super::Args;
use gfs2r_uml::{Job, Uml, guest_path};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Everything but the volume of 1 TiB, for which a guest has no disk.
const ONLY: &str = "files,sources,directory,bulk,random,fsync";

/// How much smaller the workloads are by themselves.
const SCALE: f64 = 0.1;

/// Boots a guest and runs this program in it.
pub(crate) fn run(args: &Args, dir: &Path) -> Result<(), String> {
    let uml = match Uml::find() {
        Ok(uml) => uml,
        Err(why) => {
            eprintln!("SKIPPED: end_to_end --kernel: {why}");
            return Ok(());
        }
    };
    let disks = ["gfs2r.disk", "gfs2.disk"].map(|name| dir.join(name));
    for disk in &disks {
        File::create(disk).and_then(|f| f.set_len(1 << 30)).map_err(|e| format!("{}: {e}", disk.display()))?;
    }
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let only = if args.only.is_empty() { ONLY.to_owned() } else { args.only.join(",") };
    let script = format!(
        "mkdir /tmp/bench && exec {exe} --alone --dir /tmp/bench --bin-dir {bin} --only '{only}' --rounds {rounds} \
         --scale {scale} --targets gfs2r,floor,gfs2 --device gfs2r=/dev/ubda --device gfs2=/dev/ubdb \
         --json $OUT/samples.json {cpu} {best}",
        exe = guest_path(&exe),
        bin = guest_path(&args.bin_dir()),
        rounds = args.rounds,
        scale = args.scale.unwrap_or(SCALE),
        best = if args.best { "--best" } else { "" },
        cpu = if args.cpu { "--cpu" } else { "" },
    );
    let job = Job::new(script).module("fuse").memory_mib(2048).limit(Duration::from_secs(args.limit));
    let job = disks.iter().fold(job, Job::disk);
    let outcome = uml.run(&job)?.success()?;
    println!("{}", outcome.console);
    for line in outcome.trouble() {
        println!("the guest's kernel: {line}");
    }
    if let Some(path) = &args.json {
        std::fs::write(path, outcome.read("samples.json")?).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
