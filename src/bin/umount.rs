//! The umount(8) helper.

fn main() -> std::process::ExitCode {
    gfs2r::mount::umount_main()
}
