//! How fast gfs2r is, measured against what stands beside it: `cargo bench --bench end_to_end -- --help`.
//!
//! Figures of one machine mean little; ratios of two filesystems measured in turn on it mean something. Each suite of
//! workloads (`end_to_end/workloads/`) runs on every target (`end_to_end/targets.rs`) before the next round begins, and the
//! ratio that the table shows is the median of the ratios of the rounds, not the ratio of the medians: what slows the
//! machine down for a while slows both sides of a round.
//!
//! | target | what it is |
//! |---|---|
//! | `gfs2r` | our daemon, lock_nolock, on an image file |
//! | `dlm` | our daemon on the first of three nodes, lock_dlm; two others have it mounted and do nothing |
//! | `alike` | lock_nolock, served as a mount of a cluster is: names good for no time, writes past the page cache |
//! | `floor-s` | the floor, served so |
//! | `floor` | a tree in memory behind FUSE, served as our daemon serves (`end_to_end/floor.rs`): nothing behind FUSE is faster |
//! | `fuse2fs` | ext4 in userspace, on an image file |
//! | `ext4` | the kernel's ext4, on a loop device over an image file, direct I/O |
//! | `raw` | an image file itself, direct I/O: bulk data only |
//! | `gfs2` | the kernel's GFS2 in a guest (`--kernel`); elsewhere only mkfs.gfs2 |
//!
//! The program is three: the one that was called supervises (`end_to_end/supervise.rs`) and tidies up whatever happens; its
//! child measures; a grandchild is the floor.

#![forbid(unsafe_code)]

#[path = "end_to_end/alike.rs"]
mod alike;
#[path = "end_to_end/floor.rs"]
mod floor;
#[path = "end_to_end/kernel.rs"]
mod kernel;
#[path = "end_to_end/measure.rs"]
mod measure;
#[path = "end_to_end/report.rs"]
mod report;
#[path = "end_to_end/supervise.rs"]
mod supervise;
#[path = "end_to_end/targets.rs"]
mod targets;
#[path = "end_to_end/workloads.rs"]
mod workloads;

use clap::Parser;
use measure::Samples;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use targets::{Kind, Target};

/// Measures gfs2r against the FUSE floor, fuse2fs, ext4 and the raw image.
#[derive(Parser, Debug)]
#[command(
    name = "end_to_end",
    after_help = "\
Examples:
  cargo bench --bench end_to_end
  cargo bench --bench end_to_end -- --only tree,random --targets gfs2r,floor --rounds 5
  cargo bench --bench end_to_end -- --list"
)]
pub(crate) struct Args {
    /// Only the suites or rows with one of these words in their names.
    #[arg(long, value_delimiter = ',', value_name = "WORD")]
    only: Vec<String>,
    /// Which targets.
    #[arg(long, value_delimiter = ',', value_enum, default_value = "gfs2r,floor,fuse2fs,ext4,raw,gfs2")]
    targets: Vec<Kind>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Number of files, bytes and seconds of the workloads, as a multiple of the usual.
    #[arg(long)]
    scale: Option<f64>,
    /// Also writes all samples as JSON to this file; `-`: instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Shows the best round of each target instead of medians: for a machine that others use.
    #[arg(long)]
    best: bool,
    /// Also shows the processor time of the daemon for each operation.
    #[arg(long)]
    cpu: bool,
    /// Where images and mount points are made (about 4 GiB for each target).
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of each image, in MiB.
    #[arg(long, default_value_t = 3072, value_name = "MIB")]
    image_size: u64,
    /// A target on a block device instead of an image.
    #[arg(long, value_name = "TARGET=DEVICE")]
    device: Vec<String>,
    /// Seconds after which everything is ended.
    #[arg(long, default_value_t = 1500, value_name = "SECONDS")]
    limit: u64,
    /// Where mount.gfs2r and mkfs.gfs2r are.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// A node of three against lock_nolock, against the same served alike, and against a floor that is served alike.
    #[arg(long)]
    cluster: bool,
    /// Against the kernel's GFS2, in a User-Mode Linux guest, with a tenth of the work.
    #[arg(long)]
    kernel: bool,
    /// Lists suites and rows.
    #[arg(long)]
    list: bool,
    /// Keeps the mounts after the last round until a line arrives on standard input (to look at a daemon).
    #[arg(long)]
    wait: bool,
    /// Nobody supervises: in a guest that is thrown away.
    #[arg(long)]
    alone: bool,
    /// Set by the supervisor.
    #[arg(long, hide = true)]
    child: bool,
    /// Serves the floor on this directory.
    #[arg(long, hide = true, value_name = "DIR")]
    serve_floor: Option<PathBuf>,
    /// As a mount that several nodes share.
    #[arg(long, hide = true)]
    shared: bool,
    /// Serves a volume as a mount that several nodes share.
    #[arg(long, hide = true, value_name = "IMAGE", requires = "on")]
    serve_alike: Option<PathBuf>,
    /// Where.
    #[arg(long, hide = true, value_name = "DIR")]
    on: Option<PathBuf>,
    /// What cargo bench always passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured unless something else is said, and with `--cluster`.
const DEFAULT_TARGETS: [Kind; 6] = [Kind::Gfs2r, Kind::Floor, Kind::Fuse2fs, Kind::Ext4, Kind::Raw, Kind::Gfs2];
const CLUSTER_SUITES: [&str; 4] =
    ["10000 files, 1 directory", "10000 files, 100 directories", "small writes", "nodes at once"];

impl Args {
    fn bin_dir(&self) -> PathBuf {
        self.bin_dir.clone().unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_gfs2r")).with_file_name(""))
    }

    /// The block device that was named for a target.
    fn device_of(&self, kind: Kind) -> Option<PathBuf> {
        self.device.iter().filter_map(|d| d.split_once('=')).find(|(k, _)| *k == kind.name()).map(|(_, d)| d.into())
    }
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.cluster && args.targets == DEFAULT_TARGETS {
        args.targets = vec![Kind::Dlm, Kind::Alike, Kind::FloorAlike, Kind::Gfs2r];
    }
    if args.cluster && args.only.is_empty() {
        args.only = CLUSTER_SUITES.iter().map(|name| (*name).to_owned()).collect();
    }
    let result = if let Some(dir) = &args.serve_floor {
        floor::serve(dir, args.shared).map_err(|e| e.to_string())
    } else if let (Some(image), Some(dir)) = (&args.serve_alike, &args.on) {
        alike::serve(image, dir).map_err(|e| e.to_string())
    } else if args.list {
        workloads::list();
        Ok(())
    } else if args.child || args.alone {
        measure_all(&args)
    } else if let Some(why) = supervise::impossible(&args.bin_dir()) {
        // Loudly, but `cargo bench` as a user, or without a build of mkfs, goes on.
        eprintln!("SKIPPED: end_to_end: {why}");
        Ok(())
    } else {
        supervise::run(&args)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("end_to_end: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Sets up the targets, runs the rounds, prints the table.
fn measure_all(args: &Args) -> Result<(), String> {
    let supervised = std::env::var_os("GFS2R_BENCH_DIR").filter(|_| args.child).map(PathBuf::from);
    let dir = supervised.or_else(|| args.dir.clone()).ok_or("--alone needs --dir")?;
    if args.kernel {
        return kernel::run(args, &dir);
    }
    let scale = args.scale.unwrap_or(1.0);
    let suites = workloads::chosen(&args.only);
    if suites.is_empty() {
        return Err("no suite or row has such a name (see --list)".into());
    }
    let mounts_needed = suites.iter().any(|s| s.needs_mount);
    let mut targets = Vec::new();
    for &kind in &args.targets {
        match Target::new(kind, &dir, args, mounts_needed) {
            Ok(target) => targets.push(target),
            Err(e) => eprintln!("SKIPPED: target {}: {e}", kind.name()),
        }
    }
    let mut samples = Samples::default();
    for round in 0..args.rounds {
        for suite in &suites {
            eprint!("round {} of {}: {}:", round + 1, args.rounds, suite.name);
            // Not always the same one first.
            for n in 0..targets.len() {
                let which = (n + round as usize) % targets.len();
                let target = &mut targets[which];
                let start = Instant::now();
                if let Err(e) = samples.run(suite, target, scale, round) {
                    eprintln!("{} on {}: {e}", suite.name, target.kind.name());
                    samples.failed(suite, target.kind);
                }
                eprint!(" {} {:.1} s", target.kind.name(), start.elapsed().as_secs_f64());
            }
            eprintln!();
        }
    }
    if args.wait {
        eprintln!("mounted below {}; press Enter", dir.display());
        std::io::stdin().read_line(&mut String::new()).map_err(|e| e.to_string())?;
    }
    for target in &mut targets {
        if let Err(e) = target.unmount() {
            eprintln!("unmounting {}: {e}", target.kind.name());
        }
    }
    report::print(&samples, args).map_err(|e| format!("report: {e}"))
}
