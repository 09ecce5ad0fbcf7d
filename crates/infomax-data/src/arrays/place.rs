//! Bytes at a position of a file, or of memory.

use crate::Result;
use crate::folder::open_error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A file that many threads read at positions of their own, or the contents of a compressed one.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    bytes: Bytes,
    len: u64,
}

#[derive(Debug)]
enum Bytes {
    #[cfg(any(unix, windows))]
    File(File),
    #[cfg(not(any(unix, windows)))]
    File(std::sync::Mutex<File>),
    Memory(Vec<u8>),
}

impl Place {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| open_error(path, e))?;
        let meta = file.metadata().map_err(|e| open_error(path, e))?;
        if meta.is_dir() {
            return Err(open_error(
                path,
                io::Error::new(io::ErrorKind::IsADirectory, "a folder, not a file"),
            ));
        }
        #[cfg(not(any(unix, windows)))]
        let file = std::sync::Mutex::new(file);
        Ok(Self { path: path.to_path_buf(), bytes: Bytes::File(file), len: meta.len() })
    }

    /// What was taken out of a compressed file.
    pub(crate) fn memory(path: &Path, bytes: Vec<u8>) -> Self {
        Self { path: path.to_path_buf(), len: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    /// With the path of another file in messages.
    pub(crate) fn shown_as(mut self, path: &Path) -> Self {
        self.path = path.to_path_buf();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` from a position on.
    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.bytes {
            Bytes::File(file) => read_file(file, at, out),
            Bytes::Memory(bytes) => {
                let start = usize::try_from(at).ok();
                let source = start.and_then(|s| bytes.get(s..s.checked_add(out.len())?));
                out.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// `len` bytes from a position on; refused when the file does not have them, before memory is taken.
    pub(crate) fn take(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut out = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.read(at, &mut out)?;
        Ok(out)
    }
}

#[cfg(unix)]
fn read_file(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

#[cfg(windows)]
fn read_file(file: &File, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => (at, out) = (at + n as u64, &mut out[n..]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn read_file(file: &std::sync::Mutex<File>, at: u64, out: &mut [u8]) -> io::Result<()> {
    use std::io::{Read as _, Seek as _};
    let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    file.seek(io::SeekFrom::Start(at))?;
    file.read_exact(out)
}
