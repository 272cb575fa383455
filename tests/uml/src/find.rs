//! Where the kernel is, and where this crate's programs are.

use crate::{Guest, Job, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A User-Mode Linux kernel with its modules, ready to run guests.
#[derive(Debug, Clone)]
pub struct Uml {
    kernel: PathBuf,
    module_root: PathBuf,
}

impl Uml {
    /// Finds the kernel in `$GFS2R_UML_DIR`, or else in `uml` of cargo's target folder, and fetches it (Debian's package
    /// user-mode-linux, 20 MB) when it is not there.
    ///
    /// # Errors
    /// One line that says why there is none.
    pub fn find() -> Result<Uml, String> {
        let dir = match std::env::var_os("GFS2R_UML_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => target_dir().join("uml"),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch-uml.sh");
        let output = Command::new("sh").arg(&script).arg(&dir).output().map_err(|error| format!("sh: {error}"))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(reason.lines().last().unwrap_or("scripts/fetch-uml.sh failed").to_string());
        }
        let dir = std::fs::canonicalize(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Uml { kernel: dir.join("usr/bin/linux.uml"), module_root: dir.join("root") })
    }

    /// [`find`](Uml::find) for a test: without a kernel it prints `SKIPPED: reason` and gives `None`, so that the test
    /// can return; with `GFS2R_UML_REQUIRED=1` in the environment it fails instead.
    ///
    /// # Panics
    /// When the kernel is required and cannot be had.
    pub fn find_or_skip() -> Option<Uml> {
        match Uml::find() {
            Ok(uml) => Some(uml),
            Err(reason) if std::env::var_os("GFS2R_UML_REQUIRED").is_some_and(|value| value == "1") => {
                panic!("GFS2R_UML_REQUIRED=1, but: {reason}")
            }
            Err(reason) => {
                use std::io::Write;
                // Past the test harness's capture, which would hide it. If standard error is closed there is nobody to tell.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
                None
            }
        }
    }

    /// Runs a guest to its end (or its time limit).
    ///
    /// # Errors
    /// When it cannot be started; what goes wrong later is in the [`Outcome`].
    pub fn run(&self, job: &Job) -> Result<Outcome, String> {
        Ok(self.spawn(job)?.wait())
    }

    /// Starts a guest and returns at once.
    ///
    /// # Errors
    /// When it cannot be started: a disk image that is not there, no room for the job directory.
    pub fn spawn(&self, job: &Job) -> Result<Guest, String> {
        Guest::start(&self.kernel, &self.module_root, job)
    }
}

/// The path under which the guest sees a file of the host, wherever it is; absolute paths only.
pub fn guest_path(path: &Path) -> String {
    format!("/run/host{}", path.display())
}

/// Builds (if need be) and finds one of this crate's programs, `treelist` or `fswork`, for the host and the guest alike.
///
/// # Errors
/// When cargo cannot build it; with cargo's last words.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let target = target_dir();
    let release = profile_dir().is_some_and(|dir| dir.ends_with("release"));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--bin", name, "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    if release {
        command.arg("--release");
    }
    let output = command.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo build --bin {name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let path = target.join(if release { "release" } else { "debug" }).join(name);
    std::fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// `target/PROFILE`, when the running program is a test (`target/PROFILE/deps/NAME`) or a program of the project.
fn profile_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    Some(if folder.ends_with("deps") { folder.parent()?.to_path_buf() } else { folder.to_path_buf() })
}

/// Cargo's target folder.
fn target_dir() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    profile_dir()
        .and_then(|dir| Some(dir.parent()?.to_path_buf()))
        .filter(|dir| dir.join("CACHEDIR.TAG").exists())
        .unwrap_or_else(own)
}
