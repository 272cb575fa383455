//! The directory of one guest on the host: its scripts, its control socket, and the window `out`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub(crate) struct JobDir {
    path: PathBuf,
    out: PathBuf,
}

impl JobDir {
    /// Makes one under the system's folder for temporary files, with an empty `out` in it.
    pub(crate) fn create() -> Result<JobDir, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A short name: the guest's control socket lies below, and the path of a socket has 107 bytes at most.
        let name = format!("gfs2r-uml-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let dir = JobDir { out: path.join("out"), path };
        // A leftover of a dead process that had the same id.
        if dir.path.exists() {
            std::fs::remove_dir_all(&dir.path).map_err(|error| format!("{}: {error}", dir.path.display()))?;
        }
        std::fs::create_dir_all(&dir.out).map_err(|error| format!("{}: {error}", dir.out.display()))?;
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Writes a file into the directory itself, with the given mode.
    pub(crate) fn write(&self, name: &str, contents: &[u8], mode: u32) -> Result<(), String> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path.join(name);
        std::fs::write(&path, contents)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)))
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for JobDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{}: cannot be removed: {error}", self.path.display());
        }
    }
}
