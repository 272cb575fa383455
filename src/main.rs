//! `gfs2r`, `mount.gfs2r`, `umount.gfs2r`: one program that goes by its name.

use std::path::Path;
use std::process::ExitCode;

/// Blocks of one size come and go by the thousand, on many threads; the C library's allocator hands the memory back and forth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // mount(8) may call a helper by the full type: mount.fuse.gfs2r.
    match name.split('.').next() {
        Some("mount") => gfs2r::mount::mount_main(),
        Some("umount") => gfs2r::mount::umount_main(),
        _ => gfs2r::cli::main(),
    }
}
