//! Gives the programs the names that mount(8), mkfs(8) and fsck(8) look for.

include!("scripts/program_names.rs");

fn main() {
    link_programs("gfs2r", &["mount.gfs2r", "umount.gfs2r"]);
}
