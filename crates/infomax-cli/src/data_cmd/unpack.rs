//! Unpacks archives that came from the network.
//!
//! Nothing is written outside of the target folder: a member with an absolute path or `..`, and one that is
//! neither a file nor a folder, is an error. Nor more than the set is known to hold.

use anyhow::{Context as _, Result, anyhow, bail};
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// What may be written.
struct Target<'a> {
    folder: &'a Path,
    left: u64,
    limit: u64,
}

impl Target<'_> {
    /// The place of a member.
    fn place(&self, name: &Path) -> Result<PathBuf> {
        let mut place = self.folder.to_path_buf();
        for part in name.components() {
            match part {
                Component::Normal(part) => place.push(part),
                Component::CurDir => {}
                _ => bail!("the member `{}` would be written outside of the target folder", name.display()),
            }
        }
        Ok(place)
    }

    /// Makes a file that `fill` writes: at most so many bytes, and it returns how many.
    fn file(&mut self, name: &Path, fill: impl FnOnce(&mut File, u64) -> Result<u64>) -> Result<()> {
        let place = self.place(name)?;
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // A member that comes twice is an error, too.
        let mut file =
            File::create_new(&place).with_context(|| format!("cannot write {}", place.display()))?;
        let written =
            fill(&mut file, self.left + 1).with_context(|| format!("cannot unpack {}", name.display()))?;
        if written > self.left {
            bail!("more than {} bytes unpacked: this is not the data set that it claims to be", self.limit);
        }
        self.left -= written;
        Ok(())
    }

    fn folder(&self, name: &Path) -> Result<()> {
        Ok(std::fs::create_dir_all(self.place(name)?)?)
    }
}

/// Unpacks a `.tar.gz` file into an existing folder; `progress` is told the bytes of the archive so far.
pub(super) fn tar_gz(archive: &Path, folder: &Path, limit: u64, progress: &dyn Fn(u64)) -> Result<()> {
    let file = File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    let counted = Counted { inner: BufReader::new(file), count: 0, progress };
    let mut tar = tar::Archive::new(GzDecoder::new(counted));
    let mut target = Target { folder, left: limit, limit };
    for entry in tar.entries()? {
        let entry = entry.context("damaged archive")?;
        let name = entry.path().context("damaged archive")?.into_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                target.file(&name, |file, most| Ok(std::io::copy(&mut entry.take(most), file)?))?;
            }
            tar::EntryType::Directory => target.folder(&name)?,
            tar::EntryType::XGlobalHeader => {}
            other => bail!("the member `{}` is neither a file nor a folder ({other:?})", name.display()),
        }
    }
    // The checksum of gzip stands at its end, behind the end of the tar file.
    let mut rest = tar.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).context("damaged archive")?;
    Ok(())
}

/// Unpacks a `.zip` file into an existing folder; `progress` is told the number of members so far.
pub(super) fn zip(archive: &Path, folder: &Path, limit: u64, progress: &dyn Fn(u64)) -> Result<()> {
    let file = File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).context("damaged archive")?;
    let mut target = Target { folder, left: limit, limit };
    for i in 0..zip.len() {
        let member = zip.by_index_raw(i).context("damaged archive")?;
        let name = PathBuf::from(member.name().context("damaged archive")?.replace('\\', "/"));
        if member.is_symlink() {
            bail!("the member `{}` is neither a file nor a folder", name.display());
        }
        let is_folder = member.is_dir();
        drop(member);
        match is_folder {
            true => target.folder(&name)?,
            false => target.file(&name, |file, most| {
                infomax_data::read_member(&mut zip, i, most, file)
                    .map_err(|e| anyhow!("damaged archive: {e}"))
            })?,
        }
        progress(i as u64 + 1);
    }
    Ok(())
}

/// Tells how much was read.
struct Counted<'a, R> {
    inner: R,
    count: u64,
    progress: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(out)?;
        self.count += n as u64;
        (self.progress)(self.count);
        Ok(n)
    }
}
