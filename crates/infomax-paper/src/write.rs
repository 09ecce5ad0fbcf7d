//! Files that appear as a whole or not at all.

use crate::finding::{Cell, Table};
use crate::{Error, Result};
use std::io::Write as _;
use std::path::Path;

/// Replaces a file: written beside it, synced, renamed. A full disk leaves the old one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |e| Error::io("write", path, e);
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.prefix(".tmp-").tempfile_in(dir).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

/// A value as indented JSON.
pub(crate) fn json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io("encode", path, e.into()))?;
    replace(path, (text + "\n").as_bytes())
}

/// A table as CSV: units in the names of columns, numbers with all their digits.
pub(crate) fn csv(path: &Path, table: &Table) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let named = table.columns.iter().map(|c| match &*c.unit {
        "" => c.name.clone(),
        unit => format!("{} [{unit}]", c.name),
    });
    let failed = |e: csv::Error| Error::io("encode", path, std::io::Error::other(e));
    writer.write_record(named).map_err(failed)?;
    for row in &table.rows {
        let cells = row.iter().map(|cell| match cell {
            Cell::Number(v) => v.to_string(),
            Cell::Text(text) => text.clone(),
            Cell::Missing => String::new(),
        });
        writer.write_record(cells).map_err(failed)?;
    }
    let bytes =
        writer.into_inner().map_err(|e| Error::io("encode", path, std::io::Error::other(e.to_string())))?;
    replace(path, &bytes)
}
