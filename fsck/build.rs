//! Gives the programs the names that mount(8), mkfs(8) and fsck(8) look for.

include!("../scripts/program_names.rs");

fn main() {
    link_programs("fsck-gfs2r", &["fsck.gfs2r"]);
}
