// Included by the build scripts. Programs are called `mount.gfs2r` and the like, because mount(8) looks for them under these
// names; rustc does not allow a dot in a crate's name. So each is a link beside the real program, which tells by its own name
// what it is.
fn link_programs(program: &str, names: &[&str]) {
    println!("cargo:rerun-if-changed=build.rs");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // target/PROFILE/build/PACKAGE-HASH/out
    let profile = out.ancestors().nth(3).expect("OUT_DIR lies below target/PROFILE");
    for name in names {
        let link = profile.join(name);
        match std::fs::read_link(&link) {
            Ok(to) if to.as_os_str() == program => continue,
            Ok(_) => std::fs::remove_file(&link).expect("an outdated link can be removed"),
            Err(_) => {}
        }
        std::os::unix::fs::symlink(program, &link).expect("a link can be made in target/");
    }
}
