//! `gfs2r savemeta` and `gfs2r restoremeta`.

use super::{Outcome, about, print};
use crate::admin::metafile::Reader;
use crate::admin::restoremeta::restore;
use crate::admin::savemeta::{Scope, save};
use crate::device::{BlockDevice, FileDevice, OpenMode, claim};
use clap::Args;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Save a volume's metadata to a file, for others to look at what is wrong with it.
///
/// The file is the one that gfs2_edit(8) saves and restores. No contents of users' files are in it, but names, owners and
/// extended attributes are. Exit status 1 also when parts of the volume are damaged: the rest was saved.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gfs2r savemeta /dev/vg/lv /tmp/lv.meta.gz
  gfs2r savemeta --slow damaged.img damaged.meta.gz")]
pub(super) struct Save {
    /// Block device or image file; nobody should have it mounted.
    device: PathBuf,
    /// The file to write.
    file: PathBuf,
    /// gzip level; 0 for no compression.
    #[arg(short = 'z', value_name = "LEVEL", default_value_t = 9, value_parser = clap::value_parser!(u32).range(0..=9))]
    level: u32,
    /// Look at every block of the device, where bitmaps or rindex are damaged.
    #[arg(long, conflicts_with = "rgrps")]
    slow: bool,
    /// Only the superblock and the resource groups.
    #[arg(long)]
    rgrps: bool,
}

/// Put saved metadata on a device or into an image file. What was there is lost.
///
/// The result has all structures of the volume that was saved and no contents of its files: it is for looking at. Files of
/// gfs2_edit(8) are read too, packed with gzip or bzip2 or not.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  gfs2r restoremeta lv.meta.gz copy.img && fsck.gfs2r -n copy.img
  gfs2r restoremeta --list lv.meta.gz")]
pub(super) struct Restore {
    /// The saved metadata.
    file: PathBuf,
    /// Block device or image file; a new file is made.
    #[arg(required_unless_present = "list")]
    device: Option<PathBuf>,
    /// Also over something else.
    #[arg(short, long)]
    force: bool,
    /// Only list the saved blocks: number and bytes.
    #[arg(long, conflicts_with_all = ["device", "force"])]
    list: bool,
}

/// A line on a terminal that tells how far it is.
struct Progress(bool);

impl Progress {
    fn new() -> Self {
        Self(io::stderr().is_terminal())
    }
    fn show(&self, text: &str) {
        if self.0 {
            eprint!("\r{text}\x1b[K");
        }
    }
    fn end(&self) {
        self.show("");
    }
}

pub(super) fn run_save(arguments: &Save) -> Outcome {
    let dev = about(&arguments.device, FileDevice::open(&arguments.device, OpenMode::ReadOnly).map_err(text))?;
    let dev: Arc<dyn BlockDevice> = Arc::new(dev);
    let scope = match (arguments.slow, arguments.rgrps) {
        (true, _) => Scope::Everything,
        (_, true) => Scope::Rgrps,
        _ => Scope::Reachable,
    };
    // Nobody overwrites the volume with its own metadata.
    if same_file(&arguments.device, &arguments.file) {
        return Err(format!("{}: this is the volume itself", arguments.file.display()));
    }
    about(&arguments.device, crate::volume::Identity::read(&*dev).map_err(|e| e.to_string()))?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&arguments.file);
    let file = about(&arguments.file, file.map_err(text))?;
    let line = Progress::new();
    let saved = save(&dev, file, arguments.level, scope, &mut |share, blocks| {
        line.show(&format!("{:3.0}% {blocks} blocks saved", share * 100.0));
    });
    line.end();
    let saved = about(&arguments.device, saved.map_err(|e| e.to_string()))?;
    print(&format!("{} blocks of {} bytes saved to {}\n", saved.blocks, saved.block_size, arguments.file.display()))?;
    if saved.problems == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for told in &saved.told {
        eprintln!("gfs2r: savemeta: {}: {told}", arguments.device.display());
    }
    Err(format!("{}: damaged in {} places; what could be found was saved", arguments.device.display(), saved.problems))
}

pub(super) fn run_restore(arguments: &Restore) -> Outcome {
    let file = about(&arguments.file, File::open(&arguments.file).map_err(text))?;
    let mut reader = about(&arguments.file, Reader::new(file).map_err(text))?;
    let Some(device) = arguments.device.as_deref().filter(|_| !arguments.list) else {
        return about(&arguments.file, list(&mut reader));
    };
    let target = about(device, open_target(device, reader.fs_bytes(), arguments.force))?;
    let line = Progress::new();
    let done = restore(&mut reader, &target.file, target.size, &mut |blocks| line.show(&format!("{blocks} blocks")));
    line.end();
    let done = about(&arguments.file, done.map_err(text))?;
    print(&format!("{} blocks of {} bytes restored to {}\n", done.blocks, done.block_size, device.display()))?;
    match done.outside {
        0 => Ok(ExitCode::SUCCESS),
        n => Err(format!("{}: {n} blocks lie past its end and were left out", device.display())),
    }
}

struct Target {
    file: File,
    size: u64,
    /// Keeps others out of a block device.
    _claimed: FileDevice,
}

/// Opens the target alone; an image file is made as large as the filesystem.
fn open_target(path: &Path, fs_bytes: u64, force: bool) -> Result<Target, String> {
    let is_device = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
    let file = OpenOptions::new().read(true).write(true).create(!is_device).truncate(false).open(path).map_err(text)?;
    let claimed = FileDevice::open(path, OpenMode::ReadWrite).map_err(text)?;
    claim(&claimed).map_err(text)?;
    if !force && is_used(&file).map_err(text)? {
        return Err("there is something on it (--force overwrites it)".to_owned());
    }
    if !is_device {
        // Blocks that are not in the file read as zero.
        let size = claimed.size().max(fs_bytes);
        file.set_len(0).and_then(|()| file.set_len(size)).map_err(|e| format!("{size} bytes: {e}"))?;
    }
    let size = claimed.refresh_size().map_err(text)?;
    Ok(Target { file, size, _claimed: claimed })
}

/// True when the first MiB holds anything.
fn is_used(file: &File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.take(1 << 20).read_to_end(&mut start)?;
    Ok(start.iter().any(|&b| b != 0))
}

fn list(reader: &mut Reader) -> Outcome {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut bytes = Vec::new();
    while let Some(block) = reader.next(&mut bytes).map_err(text)? {
        match writeln!(out, "{block} {}", bytes.len()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            written => written.map_err(text)?,
        }
    }
    out.flush().map_err(text)?;
    Ok(ExitCode::SUCCESS)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

fn text(e: io::Error) -> String {
    e.to_string()
}
