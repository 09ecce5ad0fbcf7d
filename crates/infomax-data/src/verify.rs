//! Checks the encoded images of a source, in parallel, and keeps what was decoded.

use crate::cache::ImageCache;
use crate::dataset::SizeRange;
use crate::decode::{self, Header, Limits};
use crate::encoded::Store;
use crate::options::{Skipped, Verify};
use rayon::prelude::*;

/// The images that passed.
pub(crate) struct Checked<S> {
    pub(crate) store: S,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) sizes: Option<SizeRange>,
    pub(crate) cache: ImageCache,
}

/// Above this number of images [`Verify::Auto`] checks nothing, so that opening stays a matter of seconds.
const AUTO_LIMIT: usize = 100_000;

pub(crate) fn verify<S: Store>(
    mut store: S,
    level: Verify,
    limits: Limits,
    cache_bytes: usize,
) -> Checked<S> {
    let never = level == Verify::Never || (level == Verify::Auto && store.len() > AUTO_LIMIT);
    if never {
        let cache = ImageCache::new(store.len(), cache_bytes);
        return Checked { store, skipped: Vec::new(), sizes: None, cache };
    }
    let mut skipped = Vec::new();
    let headers: Vec<Result<Header, String>> =
        (0..store.len()).into_par_iter().map(|i| header(&store, i, limits)).collect();
    split(&mut store, &headers, &mut skipped);
    let mut headers: Vec<Header> = headers.into_iter().flatten().collect();

    let bytes: usize = headers.iter().map(|h| h.width * h.height * 3).sum();
    let mut cache = ImageCache::new(store.len(), cache_bytes);
    if level == Verify::Decode || (level == Verify::Auto && bytes <= cache_bytes) {
        let results: Vec<Result<(), String>> = (0..store.len())
            .into_par_iter()
            .map(|i| {
                let bytes = store.read(i).map_err(|e| e.to_string())?;
                cache.keep(i, &decode::decode(&bytes, limits)?);
                Ok(())
            })
            .collect();
        let keep = split(&mut store, &results, &mut skipped);
        if keep.contains(&false) {
            cache = cache.retain(&keep);
            let mut flags = keep.iter();
            headers.retain(|_| *flags.next().unwrap_or(&true));
        }
    }
    let sizes = SizeRange::of(headers.iter().map(|h| (h.width, h.height)));
    Checked { store, skipped, sizes, cache }
}

/// Forgets the images whose result is an error, and lists them.
fn split<S: Store, T>(store: &mut S, results: &[Result<T, String>], skipped: &mut Vec<Skipped>) -> Vec<bool> {
    for (i, result) in results.iter().enumerate() {
        if let Err(reason) = result {
            skipped.push(Skipped { path: store.place(i), reason: reason.clone() });
        }
    }
    let keep: Vec<bool> = results.iter().map(Result::is_ok).collect();
    if keep.contains(&false) {
        store.retain(&keep);
    }
    keep
}

/// Reads as much of an image as is needed to find its size.
fn header(store: &impl Store, index: usize, limits: Limits) -> Result<Header, String> {
    const START: usize = 1 << 14;
    let bytes = store.head(index, START).map_err(|e| e.to_string())?;
    let first = decode::probe(&bytes, limits);
    if first.is_ok() || bytes.len() < START {
        return first;
    }
    // Long metadata can push the size behind the first part.
    decode::probe(&store.read(index).map_err(|e| e.to_string())?, limits)
}
