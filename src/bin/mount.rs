//! The mount(8) helper.

fn main() -> std::process::ExitCode {
    gfs2r::mount::mount_main()
}
