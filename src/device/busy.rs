//! Whether an image file is in use. Block devices are claimed when they are opened; files are not, so we look around.

use super::{FileDevice, OpenMode};
use std::io;
use std::path::{Path, PathBuf};

/// Claims an image for this program, and sees whether somebody else uses it; block devices were claimed when they were opened.
///
/// # Errors
/// `ResourceBusy`: another program has locked it, or a loop device on it is mounted or held.
pub fn claim(device: &FileDevice) -> io::Result<()> {
    if device.is_block_device() {
        return Ok(());
    }
    device.lock_exclusive()?;
    let image = std::fs::canonicalize(device.path())?;
    for (name, backing) in loop_devices() {
        let Some(node) = Path::new("/dev").join(&name).to_str().map(PathBuf::from) else { continue };
        // One that is attached and idle does not hold the image: whoever set it up may want just this.
        if backing == image
            && let Err(e) = FileDevice::open(&node, OpenMode::ReadWrite)
            && e.kind() == io::ErrorKind::ResourceBusy
        {
            let what = format!("the image is in use through {}, which is mounted or held", node.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
    }
    Ok(())
}

/// Names of the loop devices and the files behind them.
fn loop_devices() -> Vec<(String, PathBuf)> {
    let Ok(blocks) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    blocks
        .flatten()
        .filter_map(|entry| {
            let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            Some((entry.file_name().into_string().ok()?, PathBuf::from(backing.trim_end())))
        })
        .collect()
}
