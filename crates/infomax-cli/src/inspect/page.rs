//! The report as a page, with small pictures of rows.

use crate::embeddings::Loaded;
use anyhow::{Context as _, Result};
use infomax_augment::Image;
use infomax_data::{Limits, decode};
use infomax_report::data_uri;
use infomax_run::inspect::{Inspection, PageExtras, Section, page, with_comparison};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The longer side of a small picture.
const SIDE: usize = 112;
/// The largest file that is opened for one.
const LARGEST: u64 = 64 << 20;
/// Columns that the maps are colored by, beside the labels.
const COLORS: usize = 4;
/// What a column of paths of pictures is called.
pub(super) const PATHS: [&str; 8] =
    ["path", "image_path", "file_path", "file_name", "filename", "file", "image", "image_file"];
/// What a column of names is called.
pub(super) const NAMES: [&str; 6] = ["name", "id", "key", "title", "text", "caption"];

pub(super) fn write(
    name: &str,
    report: &Inspection,
    loaded: &Loaded,
    beside: Option<&Section>,
    path: &Path,
) -> Result<()> {
    let table = &loaded.table;
    let paths = table.column(&PATHS);
    let names = table.column(&NAMES).or(paths).map(|(_, values)| values.clone()).unwrap_or_default();
    let mut extras = PageExtras {
        class_names: loaded.labels.as_ref().map(|l| l.names.clone()).unwrap_or_default(),
        colors: colors(loaded),
        names,
        notes: loaded.notes.clone(),
        ..PageExtras::default()
    };
    if let Some((_, paths)) = paths {
        let (pictures, failed) = thumbnails(report, paths, &loaded.folder);
        extras.thumbnails = pictures;
        if let Some(first) = failed.first() {
            extras
                .notes
                .push(format!("{} pictures of rows could not be shown; the first: {first}", failed.len()));
        }
    }
    let classes = loaded.labels.as_ref().map(|labels| labels.classes.as_slice());
    let mut html = page(name, report, classes, &extras);
    if let Some(beside) = beside {
        html = with_comparison(html, beside);
    }
    let context = || format!("cannot write {}", path.display());
    crate::embed::replace(path, html.to_html().as_bytes()).with_context(context)
}

/// Columns with more than one value, of which most occur several times or are numbers.
fn colors(loaded: &Loaded) -> Vec<(String, Vec<Option<String>>)> {
    let useful = |(name, values): &&(String, Vec<Option<String>>)| {
        let distinct: BTreeSet<&str> = values.iter().flatten().map(String::as_str).collect();
        let numbers = distinct.iter().all(|v| v.parse::<f64>().is_ok());
        let named = PATHS.iter().chain(&NAMES).chain(&["row"]).any(|n| name.eq_ignore_ascii_case(n));
        !named && distinct.len() > 1 && (numbers || distinct.len() * 2 <= values.len())
    };
    loaded.table.columns.iter().filter(useful).take(COLORS).cloned().collect()
}

type Pictures = (BTreeMap<usize, String>, Vec<String>);

fn thumbnails(report: &Inspection, paths: &[Option<String>], folder: &Path) -> Pictures {
    let (mut found, mut failed) = (BTreeMap::new(), Vec::new());
    let rows: BTreeSet<usize> = report.shown().0.into_iter().map(|note| note.row).collect();
    for row in rows {
        let Some(own) = paths.get(row).and_then(Option::as_deref) else { continue };
        // Relative to the table, else to where the program runs.
        let beside = folder.join(own);
        let place = if beside.exists() { beside } else { Path::new(own).to_path_buf() };
        match thumbnail(&place) {
            Ok(uri) => {
                found.insert(row, uri);
            }
            Err(e) => failed.push(format!("{}: {e}", place.display())),
        }
    }
    (found, failed)
}

fn thumbnail(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path)?.len();
    anyhow::ensure!(size <= LARGEST, "{size} bytes; the limit is {LARGEST}");
    let image = decode(&std::fs::read(path)?, Limits::default()).map_err(anyhow::Error::msg)?;
    let (width, height, pixels) = reduced(&image);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(data_uri("image/png", &bytes))
}

/// The means of equal boxes, in RGB; an image that is small enough stays as it is.
fn reduced(image: &Image) -> (usize, usize, Vec<u8>) {
    let (w, h, c) = (image.width(), image.height(), image.channels());
    let longer = w.max(h).max(1);
    let scale = |side: usize| if longer <= SIDE { side } else { (side * SIDE / longer).max(1) };
    let (tw, th) = (scale(w), scale(h));
    let mut out = Vec::with_capacity(tw * th * 3);
    for y in 0..th {
        let ys = y * h / th..((y + 1) * h).div_ceil(th).min(h);
        for x in 0..tw {
            let xs = x * w / tw..((x + 1) * w).div_ceil(tw).min(w);
            for channel in 0..3 {
                let at = channel.min(c - 1);
                let sum: u64 = ys
                    .clone()
                    .flat_map(|y| xs.clone().map(move |x| (y * w + x) * c + at))
                    .map(|k| u64::from(image.data()[k]))
                    .sum();
                let count = (ys.len() * xs.len()).max(1) as u64;
                out.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    (tw, th, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_reduced_by_means_and_never_enlarged() {
        let small = Image::new(3, 2, 3, (0..18).collect()).unwrap();
        assert_eq!(reduced(&small), (3, 2, (0..18).collect()));
        // Half black, half white, columns: the mean of each box.
        let data = (0..448 * 224).flat_map(|k| if k % 448 < 224 { [0u8; 3] } else { [255; 3] }).collect();
        let (w, h, pixels) = reduced(&Image::new(448, 224, 3, data).unwrap());
        assert_eq!((w, h), (112, 56));
        assert!(
            pixels[..56 * 3].iter().all(|p| *p == 0) && pixels[56 * 3..112 * 3].iter().all(|p| *p == 255)
        );
    }
}
