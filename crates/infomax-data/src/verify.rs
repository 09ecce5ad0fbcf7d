//! Checks the encoded images of a source, in parallel, and keeps what was decoded.

use crate::cache::ImageCache;
use crate::dataset::SizeRange;
use crate::decode::{self, Header, Limits};
use crate::encoded::Store;
use crate::options::{Skipped, Verify};
use rayon::prelude::*;
use std::path::PathBuf;

/// The images that passed.
pub(crate) struct Checked<S> {
    pub(crate) store: S,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) sizes: Option<SizeRange>,
    pub(crate) cache: ImageCache,
    /// How many images have an EXIF orientation, and the first of them.
    pub(crate) turned: Option<(usize, PathBuf)>,
}

/// Above this number of images [`Verify::Auto`] checks nothing, so that opening stays a matter of seconds.
const AUTO_LIMIT: usize = 100_000;

pub(crate) fn verify<S: Store>(
    mut store: S,
    level: Verify,
    limits: Limits,
    cache_bytes: usize,
    upright: bool,
) -> Checked<S> {
    let never = level == Verify::Never || (level == Verify::Auto && store.len() > AUTO_LIMIT);
    if never {
        let cache = ImageCache::new(store.len(), cache_bytes);
        return Checked { store, skipped: Vec::new(), sizes: None, cache, turned: None };
    }
    let mut skipped = Vec::new();
    let headers: Vec<Result<(Header, u8), String>> =
        (0..store.len()).into_par_iter().map(|i| header(&store, i, limits)).collect();
    let mut turned =
        headers.iter().enumerate().filter(|(_, h)| matches!(h, Ok((_, o)) if *o != decode::UPRIGHT));
    let turned = turned.next().map(|(first, _)| (1 + turned.count(), store.place(first)));
    split(&mut store, &headers, &mut skipped);
    // Turned images show their sides swapped.
    let shown = |(header, orientation): (Header, u8)| match upright && orientation >= 5 {
        true => Header { width: header.height, height: header.width, ..header },
        false => header,
    };
    let mut headers: Vec<Header> = headers.into_iter().flatten().map(shown).collect();

    let bytes: usize = headers.iter().map(|h| h.width * h.height * 3).sum();
    let mut cache = ImageCache::new(store.len(), cache_bytes);
    if level == Verify::Decode || (level == Verify::Auto && bytes <= cache_bytes) {
        let results: Vec<Result<(), String>> = (0..store.len())
            .into_par_iter()
            .map(|i| {
                let bytes = store.read(i).map_err(|e| e.to_string())?;
                let image = decode::decode(&bytes, limits)?;
                let image = if upright { decode::turn(image, decode::orientation(&bytes))? } else { image };
                cache.keep(i, &image);
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
    Checked { store, skipped, sizes, cache, turned }
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

/// Reads as much of an image as is needed to find its size, and its orientation.
fn header(store: &impl Store, index: usize, limits: Limits) -> Result<(Header, u8), String> {
    const START: usize = 1 << 14;
    let bytes = store.head(index, START).map_err(|e| e.to_string())?;
    let first = decode::probe(&bytes, limits);
    if first.is_ok() || bytes.len() < START {
        return first.map(|header| (header, decode::orientation(&bytes)));
    }
    // Long metadata can push the size behind the first part, and some formats need all of it.
    let bytes = store.read(index).map_err(|e| e.to_string())?;
    decode::probe(&bytes, limits).map(|header| (header, decode::orientation(&bytes)))
}
