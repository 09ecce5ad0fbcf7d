//! Compressed tar files: unpacked once, beside themselves.

use crate::folder::open_error;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The compression of a tar file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Zstandard,
    /// One that is not read.
    Other,
}

/// What unpacking may come to: this many times the compressed size, and a little for tiny files. Headers, padding
/// and labels shrink well, images hardly; a bomb of gzip comes to 1,000 times its size.
const MAX_RATIO: u64 = 100;
const MAX_TINY: u64 = 16 << 20;

/// The compression that a name tells of, `None` where it is no compressed tar file.
pub(crate) fn packing(path: &Path) -> Option<Packing> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if is(&[".tar.gz", ".tgz"]) {
        Some(Packing::Gzip)
    } else if is(&[".tar.zst", ".tzst"]) {
        Some(Packing::Zstandard)
    } else {
        is(&[".tar.bz2", ".tbz2", ".tar.xz", ".txz"]).then_some(Packing::Other)
    }
}

/// The compression that the first bytes tell of.
pub(crate) fn packing_of(start: &[u8]) -> Option<Packing> {
    match start {
        [0x1f, 0x8b, ..] => Some(Packing::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstandard),
        _ => None,
    }
}

/// What is said about a file that is not read.
pub(crate) fn refused(path: &Path) -> Error {
    let reason = "a tar file compressed with something else than gzip or zstd; take the compression off (bunzip2, \
                  unxz) to train from shards, or unpack it to a folder";
    Error::Decode { path: path.to_path_buf(), reason: reason.into() }
}

/// Unpacks a compressed tar file into a hidden file beside it, or finds what was unpacked before, and returns
/// its path.
///
/// The file is written under another name and appears by a rename when it is whole. It has the time of the
/// compressed one, so it is made anew when that changes.
///
/// # Errors
/// A stream that is damaged or cut, or comes to more than a hundred times its size; a folder that cannot be
/// written to; a compression that this build does not read.
pub(crate) fn unpack(path: &Path, packing: Packing) -> Result<PathBuf> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(|e| open_error(path, e))?;
    let meta = file.metadata().map_err(|e| open_error(path, e))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let target = path.with_file_name(format!(".{name}.unpacked"));
    let modified = meta.modified().map_err(|e| open_error(path, e))?;
    if std::fs::metadata(&target).is_ok_and(|m| m.is_file() && m.modified().is_ok_and(|t| t == modified)) {
        return Ok(target);
    }
    let most = meta.len().saturating_mul(MAX_RATIO).saturating_add(MAX_TINY);
    let reader = BufReader::with_capacity(1 << 18, file);
    let mut stream: Box<dyn Read> = match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        #[cfg(feature = "zstd")]
        Packing::Zstandard => {
            Box::new(zstd::stream::read::Decoder::with_buffer(reader).map_err(|e| open_error(path, e))?)
        }
        #[cfg(not(feature = "zstd"))]
        Packing::Zstandard => {
            let reason = "tar files compressed with zstd are read by builds with the feature `zstd` of infomax-data \
                          only; `zstd -d` takes the compression off";
            return Err(damaged(reason.into()));
        }
        Packing::Other => return Err(refused(path)),
    };

    let mut part = Partial::create(path, &name)?;
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0u64);
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => {
                let reason = format!(
                    "the compressed tar file is damaged or cut: {e}, {total} bytes behind its start (unpacked); \
                     fetch it again"
                );
                return Err(damaged(reason));
            }
        };
        total += count as u64;
        if total > most {
            let reason = format!(
                "unpacks to more than {most} bytes, {MAX_RATIO} times its size: a decompression bomb; if it is \
                 none, take the compression off"
            );
            return Err(damaged(reason));
        }
        part.write(&buffer[..count])?;
    }
    part.finish(&target, modified)?;
    Ok(target)
}

/// A file that is being written, and is removed if it does not get whole.
struct Partial {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
}

impl Partial {
    fn create(packed: &Path, name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = packed.with_file_name(format!(".{name}.partial-{}-{number}", std::process::id()));
        match File::create_new(&path) {
            Ok(file) => Ok(Self { path, writer: Some(BufWriter::with_capacity(1 << 20, file)) }),
            Err(e) => {
                let reason = format!(
                    "a compressed tar file is unpacked beside itself, and its folder cannot be written to ({e}); \
                     take the compression off (gunzip, zstd -d), or copy it to a folder of yours"
                );
                Err(Error::Decode { path: packed.to_path_buf(), reason })
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.writer.as_mut().map_or(Ok(()), |w| w.write_all(bytes));
        written.map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    fn finish(mut self, target: &Path, modified: std::time::SystemTime) -> Result<()> {
        let done = |writer: BufWriter<File>| {
            let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.set_modified(modified)?;
            file.sync_all()?;
            std::fs::rename(&self.path, target)
        };
        match self.writer.take().map_or(Ok(()), done) {
            Ok(()) => {
                // Nothing is left to remove.
                self.path = PathBuf::new();
                Ok(())
            }
            Err(source) => Err(Error::Io { path: self.path.clone(), source }),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.writer = None;
        if !self.path.as_os_str().is_empty() {
            // Nothing can be done about a failure here, and the first error matters more.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
