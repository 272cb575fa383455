//! Gives the programs the names that mount(8), mkfs(8) and fsck(8) look for.

include!("../scripts/program_names.rs");

fn main() {
    link_programs("mkfs-gfs2r", &["mkfs.gfs2r"]);
}
