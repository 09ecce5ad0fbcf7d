//! Every parser on mutated files: it may refuse them, but never panics, and never gives a sample that does not
//! hold what it promises.
//!
//! `INFOMAX_FUZZ_ITERATIONS` sets the number of mutations of each format (`cargo xtask ci --full` uses more);
//! a failure names format and iteration, which is all that is needed to see it again.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_augment::CropBox;
use infomax_core::Key;
use infomax_data::{Dataset, Format, Limits, OpenOptions, decode, decode_part, open, probe};
use rand::{Rng, RngExt as _};
use std::fs;
use std::io::{Cursor, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tempfile::TempDir;

fn iterations() -> u64 {
    std::env::var("INFOMAX_FUZZ_ITERATIONS").ok().and_then(|v| v.parse().ok()).unwrap_or(150)
}

/// Changes a few places: bits, bytes, numbers at the borders of their range, runs that are cut, doubled or moved.
fn mutate(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..=6u32) {
        if bytes.is_empty() {
            return;
        }
        // Headers decide most, so half of the changes are near the start.
        let reach = if rng.random::<bool>() { bytes.len().min(128) } else { bytes.len() };
        let at = rng.random_range(0..reach as u64) as usize;
        let run = rng.random_range(1..=16u64) as usize;
        let end = (at + run).min(bytes.len());
        match rng.random_range(0..8u32) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8u32),
            1 => bytes[at] = rng.random(),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5u64) as usize],
            3 => bytes[at..end].fill(0xff),
            4 => bytes[at..end].fill(0),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => bytes.truncate(bytes.len() - bytes.len() / 8 - 1),
        }
    }
}

/// A small source of a format: the files, of which the first one is mutated, and which of them is opened.
struct Seed {
    name: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    /// Opened is the file, not the folder.
    file: bool,
}

fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 200]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn npy(descr: &str, shape: &str, data: usize) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    [&b"\x93NUMPY\x01\x00"[..], &(dict.len() as u16).to_le_bytes(), dict.as_bytes(), &vec![0; data]].concat()
}

fn seeds() -> Vec<Seed> {
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 4][..], &[7; 40]].concat();
    let idx_labels = vec![0, 0, 8, 1, 0, 0, 0, 2, 1, 0];
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [("0.png", png()), ("0.cls", b"3".to_vec()), ("1.png", png())] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let view =
        |shape, data| safetensors::tensor::TensorView::new(safetensors::Dtype::U8, shape, data).unwrap();
    let tensors = [("x", view(vec![2, 5, 4], &[3; 40])), ("y", view(vec![2], &[1, 0]))];
    let file = |name, path, bytes| Seed { name, files: vec![(path, bytes)], file: true };
    let folder = |name, files| Seed { name, files, file: false };
    let seeds = vec![
        folder(
            "idx",
            vec![("train-images-idx3-ubyte", idx.clone()), ("train-labels-idx1-ubyte", idx_labels.clone())],
        ),
        folder(
            "idx labels",
            vec![("train-labels-idx1-ubyte", idx_labels), ("train-images-idx3-ubyte", idx.clone())],
        ),
        file("idx.gz", "train-images-idx3-ubyte.gz", gzip(&idx)),
        file("npy", "x.npy", npy("|u1", "2, 5, 4", 40)),
        file("npy f4", "x.npy", npy("<f4", "2, 5, 4", 160)),
        folder("npy labels", vec![("y.npy", npy("<i4", "2,", 8)), ("x.npy", npy("|u1", "2, 5, 4", 40))]),
        // Written by NumPy: fixtures/make_pickle.py.
        file("npz", "x.npz", include_bytes!("fixtures/arrays.npz").to_vec()),
        file("safetensors", "x.safetensors", safetensors::serialize(tensors, None).unwrap()),
        file("tar", "x.tar", tar.clone()),
        file("tar.gz", "x.tar.gz", gzip(&tar)),
        folder("cifar-10", vec![("data_batch_1.bin", [&[3][..], &[9; 3072], &[4], &[9; 3072]].concat())]),
        folder("cifar-100", vec![("train.bin", [&[3, 50][..], &[9; 3072]].concat())]),
        folder("pickle", vec![("data_batch_1", include_bytes!("fixtures/batch_protocol2.pickle").to_vec())]),
        folder(
            "pickle 4",
            vec![("data_batch_1", include_bytes!("fixtures/batch_protocol4.pickle").to_vec())],
        ),
        folder(
            "list",
            vec![
                ("list.txt", b"a.png 1\nb.png 0\n# c\na.png\t2\n".to_vec()),
                ("a.png", png()),
                ("b.png", png()),
            ],
        ),
        folder("images", vec![("a.png", png()), ("b.png", png())]),
    ];
    #[cfg(feature = "parquet")]
    let seeds = seeds.into_iter().chain([file("parquet", "x.parquet", parquet())]).collect();
    seeds
}

#[cfg(feature = "parquet")]
fn parquet() -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    let schema = "message schema { REQUIRED BINARY image; REQUIRED INT64 label; }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(&mut bytes, schema, properties.into()).unwrap();
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&[ByteArray::from(png()), ByteArray::from(png())], None, None)
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 0], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

/// What holds of every sample of whatever was opened.
fn walk(data: &dyn Dataset, limit: usize) {
    assert!(!data.is_empty());
    for index in (0..data.len()).take(6).chain([data.len() - 1]) {
        if let Some(label) = data.label(index) {
            assert!(
                (label as usize) < data.classes().len(),
                "label {label} of {} classes",
                data.classes().len()
            );
        }
        if let Ok(image) = data.image(index) {
            assert!(image.width() * image.height() <= limit);
        }
        assert!(!data.place(index).is_empty());
    }
    assert!(data.image(data.len()).is_err());
    assert!(data.blocks().is_sorted() && data.blocks().last().is_none_or(|end| *end == data.len()));
}

#[test]
fn no_parser_panics_on_mutated_files() {
    let options = OpenOptions { max_pixels: 1 << 20, cache_bytes: 1 << 20, ..OpenOptions::default() };
    for seed in seeds() {
        let dir = TempDir::new().unwrap();
        for (name, bytes) in &seed.files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let (name, original) = &seed.files[0];
        let path = dir.path().join(name);
        let target = if seed.file || seed.name == "list" { path.clone() } else { dir.path().to_path_buf() };
        let (_, whole) = open(&target, &options).unwrap().parts[0].clone();
        walk(&*whole, options.max_pixels);
        // 1733: the parquet crate panics.
        for iteration in (0..iterations()).chain([1733]) {
            let mut bytes = original.clone();
            mutate(&mut bytes, &mut Key::new(7).fold_named(seed.name).fold_in(iteration).rng());
            fs::write(&path, &bytes).unwrap();
            let run = || {
                for (_, data) in open(&target, &options).map(|o| o.parts).unwrap_or_default() {
                    walk(&*data, options.max_pixels);
                }
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_ok(), "{}, iteration {iteration}", seed.name);
        }
    }
}

/// The pixels that libjpeg-turbo gives, asked without our own decoder in between.
fn by_the_library(bytes: &[u8], size: (usize, usize)) -> Option<Vec<u8>> {
    use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, PixelFormat};
    let limits = DecodeLimits { max_pixels: 1 << 16, max_scans: 200, ..DecodeLimits::default() };
    let image = catch_unwind(|| {
        let mut decoder = Decoder::new_with_limits(bytes, limits).ok()?;
        let gray = decoder.jpeg_color_space() == ColorSpace::Grayscale;
        decoder.set_output_format(if gray { PixelFormat::Grayscale } else { PixelFormat::Rgb });
        decoder.decode_image().ok()
    });
    let image = image.ok()??;
    if image.precision != 8 || (image.width, image.height) != size {
        return None;
    }
    Some(match image.pixel_format {
        PixelFormat::Grayscale => image.data.iter().flat_map(|v| [*v; 3]).collect(),
        _ => image.data,
    })
}

#[test]
fn no_decoder_panics_on_mutated_images() {
    let limits = Limits { max_pixels: 1 << 16 };
    let jpegs = ["420.jpg", "422.jpg", "444.jpg", "progressive.jpg", "gray.jpg", "restart.jpg", "low.jpg"];
    for name in jpegs.into_iter().chain(["420.png", "gray.png"]) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let original = fs::read(path).unwrap();
        for iteration in 0..4 * iterations() {
            let mut rng = Key::new(8).fold_named(name).fold_in(iteration).rng();
            let mut bytes = original.clone();
            mutate(&mut bytes, &mut rng);
            let run = AssertUnwindSafe(|| {
                let Ok(header) = probe(&bytes, limits) else { return };
                let (x, y) =
                    (rng.random_range(0..header.width as u64), rng.random_range(0..header.height as u64));
                let (x, y) = (x as usize, y as usize);
                let wanted =
                    CropBox { x, y, width: (header.width - x).min(20), height: (header.height - y).min(9) };
                let part = decode_part(&bytes, limits, wanted);
                if let Ok(part) = &part {
                    assert!(part.x <= x && part.x + part.image.width() >= x + wanted.width);
                    assert!(part.y <= y && part.y + part.image.height() >= y + wanted.height);
                }
                let whole = decode(&bytes, limits);
                if let Ok(image) = &whole {
                    assert_eq!((image.width(), image.height()), (header.width, header.height));
                }
                if let (Ok(whole), Ok(part)) = (&whole, &part) {
                    for (x, y) in
                        (x..x + wanted.width).flat_map(|x| (y..y + wanted.height).map(move |y| (x, y)))
                    {
                        assert_eq!(part.image.pixel(x - part.x, y - part.y), whole.pixel(x, y));
                    }
                }
                if header.format == Format::Jpeg {
                    let theirs = by_the_library(&bytes, (header.width, header.height));
                    assert_eq!(whole.ok().map(|image| image.data().to_vec()), theirs);
                }
            });
            assert!(catch_unwind(run).is_ok(), "{name}, iteration {iteration}");
        }
    }
}
