include!("../scripts/program_names.rs");

fn main() {
    link_programs("mkfs-gfs2r", &["mkfs.gfs2r"]);
}
