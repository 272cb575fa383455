include!("../scripts/program_names.rs");

fn main() {
    link_programs("fsck-gfs2r", &["fsck.gfs2r"]);
}
