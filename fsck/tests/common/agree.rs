//! The quick check against the full one.

use super::plant::Plant;
use gfs2r::device::MemoryDevice;
use gfs2r::format::Dinode;
use gfs2r::format::OnDisk;
use gfs2r_fsck::{CheckError, Options, Report, Yes, check, repair};

/// With and without a quick look before it the check must say the same. True when the quick look was enough.
///
/// # Errors
/// What differs.
pub(crate) fn agree(device: &MemoryDevice, options: &Options) -> Result<bool, String> {
    let ask = |quick, memory| check(device, &Options { quick, memory, ..options.clone() });
    let (quick, full) = (ask(true, None), ask(false, None));
    let (quick, full) = match (quick, full) {
        (Ok(quick), Ok(full)) => (quick, full),
        (Err(quick), Err(full)) if quick.to_string() == full.to_string() => return Ok(false),
        (quick, full) => return Err(format!("quick: {quick:?}\nfull: {full:?}")),
    };
    let numbers = |mut report: Report| {
        report.stats.bytes_read = 0;
        (report.issues, report.more, report.complete, report.stats)
    };
    let clean = full.is_clean() && full.issues.is_empty();
    let (quick, full) = (numbers(quick), numbers(full));
    if quick != full {
        return Err(format!("quick: {quick:?}\nfull: {full:?}"));
    }
    // What is refused with one byte less than the full check takes was not settled by a quick look.
    Ok(match ask(false, Some(0)) {
        Err(CheckError::Memory { needed, .. }) if clean => ask(true, Some(needed - 1)).is_ok(),
        _ => false,
    })
}

/// An image in which there is nothing at all to find, not even what is legal: only there the quick check does all its work.
pub(crate) fn healthy(name: &str) -> Plant {
    let plant = Plant::new(&super::image(name));
    if name.starts_with("dirty") {
        repair(&plant.device, &mut Yes).expect("journals are replayed, orphans freed");
    }
    for issue in plant.check().issues {
        assert_eq!(issue.code(), "blocks-beyond-eof", "{issue}");
        plant.edit(issue.inode.expect("of a file"), |block| Dinode::edit(block).size.set(1 << 20));
    }
    assert_eq!(agree(&plant.device, &Options::closed()), Ok(true), "{name} is not healthy");
    plant
}
