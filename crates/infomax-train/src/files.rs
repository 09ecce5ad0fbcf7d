//! Writing so that a crash leaves either the old or the new.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

/// Writes a file that nobody looks at yet, and syncs it.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::io("write", path, e))
}

/// Syncs the entries of a folder, so that renames in it survive a power cut.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    // Windows cannot open folders; its renames are journalled.
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", path, e))?;
    }
    Ok(())
}

/// Renames, and syncs the folder of the new name.
pub(crate) fn rename_synced(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))?;
    sync_dir(folder(to))
}

/// Replaces a file as a whole: written beside it, synced, renamed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = folder(path);
    let io = |e| Error::io("write", path, e);
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any other new file: the umask takes away, and colleagues read what it leaves.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.prefix(".tmp-").tempfile_in(dir).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    sync_dir(dir)
}

/// The folder that a path is in; a bare name is in the present one.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a folder and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("read", path, e))
}
