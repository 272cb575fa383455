//! mkfs(8) looks for `mkfs.gfs2r`, but Cargo cannot build a program with a dot in its name. So a link with that name is put
//! beside the program: `target/release/mkfs.gfs2r` -> `mkfs-gfs2r`.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR").expect("set by Cargo");
    // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out.
    let Some(profile) = Path::new(&out).ancestors().nth(3) else { return };
    let link = profile.join("mkfs.gfs2r");
    // Made again when somebody has removed it.
    println!("cargo::rerun-if-changed={}", link.display());
    if link.symlink_metadata().is_err()
        && let Err(e) = std::os::unix::fs::symlink("mkfs-gfs2r", &link)
    {
        println!("cargo::warning=cannot link {}: {e}", link.display());
    }
}
