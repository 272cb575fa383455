include!("scripts/program_names.rs");

fn main() {
    link_programs("gfs2r", &["mount.gfs2r", "umount.gfs2r"]);
}
