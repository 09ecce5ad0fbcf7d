//! Checks the files of a folder, in parallel, and keeps what was decoded.

use super::walk::Entry;
use super::{Skipped, Verify, read};
use crate::cache::ImageCache;
use crate::decode::{self, Header, Limits};
use rayon::prelude::*;
use std::io::Read as _;
use std::path::Path;

/// The files that passed.
pub(super) struct Checked {
    pub(super) files: Vec<Entry>,
    pub(super) skipped: Vec<Skipped>,
    /// The least and the largest width and height.
    pub(super) sizes: Option<((usize, usize), (usize, usize))>,
    pub(super) cache: ImageCache,
}

pub(super) fn verify(files: Vec<Entry>, level: Verify, limits: Limits, cache_bytes: usize) -> Checked {
    if level == Verify::Never {
        let cache = ImageCache::new(files.len(), cache_bytes);
        return Checked { files, skipped: Vec::new(), sizes: None, cache };
    }
    let headers: Vec<_> = files.par_iter().map(|f| header(&f.path, limits)).collect();
    let mut skipped = Vec::new();
    let (mut files, headers) = split(files, headers, &mut skipped);
    let bytes: usize = headers.iter().map(|h| h.width * h.height * 3).sum();
    let mut cache = ImageCache::new(files.len(), cache_bytes);
    if level == Verify::Decode || (level == Verify::Auto && bytes <= cache_bytes) {
        let results: Vec<_> = files
            .par_iter()
            .enumerate()
            .map(|(i, f)| match cache.get_or_make(i, || read(&f.path, limits)) {
                Ok(_) => Ok(()),
                Err(crate::Error::Decode { reason, .. }) => Err(reason),
                Err(crate::Error::Io { source, .. }) => Err(source.to_string()),
                Err(other) => Err(other.to_string()),
            })
            .collect();
        if results.iter().any(Result::is_err) {
            cache = cache.retain(|i| results[i].is_ok());
        }
        files = split(files, results, &mut skipped).0;
    }
    let sizes = headers.iter().fold(None, |range, h| {
        let (low, high) = range.unwrap_or(((h.width, h.height), (h.width, h.height)));
        Some(((low.0.min(h.width), low.1.min(h.height)), (high.0.max(h.width), high.1.max(h.height))))
    });
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Checked { files, skipped, sizes, cache }
}

/// Parts good files from bad ones.
fn split<T>(
    files: Vec<Entry>,
    results: Vec<Result<T, String>>,
    skipped: &mut Vec<Skipped>,
) -> (Vec<Entry>, Vec<T>) {
    let mut good = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
    for (file, result) in files.into_iter().zip(results) {
        match result {
            Ok(value) => {
                good.0.push(file);
                good.1.push(value);
            }
            Err(reason) => skipped.push(Skipped { path: file.path, reason }),
        }
    }
    good
}

/// Reads as much of a file as is needed to find its size.
fn header(path: &Path, limits: Limits) -> Result<Header, String> {
    const START: u64 = 1 << 16;
    let mut file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.by_ref().take(START).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let first = decode::probe(&bytes, limits);
    if first.is_ok() || (bytes.len() as u64) < START {
        return first;
    }
    // Long metadata can push the size behind the first part.
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    decode::probe(&bytes, limits)
}
