//! Decoding, whole and in part.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_augment::{CropBox, Image};
use infomax_data::{Limits, decode, decode_part, probe};
use proptest::prelude::*;
use std::io::Cursor;
use std::path::{Path, PathBuf};

const KINDS: [&str; 7] = ["420", "422", "444", "progressive", "gray", "restart", "low"];

fn golden(name: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn whole(bytes: &[u8]) -> Image {
    decode(bytes, Limits::default()).unwrap()
}

/// Pillow's pixels, bit for bit: `golden/make_jpegs.py`.
#[test]
fn jpeg_pixels_are_those_of_pillow() {
    for kind in KINDS {
        let ours = whole(&golden(&format!("{kind}.jpg")));
        assert_eq!((ours.width(), ours.height(), ours.channels()), (83, 61, 3));
        assert_eq!(ours, whole(&golden(&format!("{kind}.png"))), "{kind}");
    }
}

#[track_caller]
fn same(bytes: &[u8], whole: &Image, wanted: CropBox) {
    let part = decode_part(bytes, Limits::default(), wanted).unwrap();
    for y in wanted.y..wanted.y + wanted.height {
        for x in wanted.x..wanted.x + wanted.width {
            assert_eq!(part.image.pixel(x - part.x, y - part.y), whole.pixel(x, y), "{wanted:?} at {x}, {y}");
        }
    }
}

#[test]
fn corners_and_edges() {
    for kind in KINDS {
        for extension in ["jpg", "png"] {
            let bytes = golden(&format!("{kind}.{extension}"));
            let all = whole(&bytes);
            for (x, y, width, height) in [
                (0, 0, 1, 1),
                (82, 60, 1, 1),
                (0, 0, 83, 61),
                (82, 0, 1, 61),
                (0, 60, 83, 1),
                (31, 15, 33, 18),
            ] {
                same(&bytes, &all, CropBox { x, y, width, height });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_part_has_the_pixels_of_the_whole(
        kind in 0usize..KINDS.len(), x in 0usize..83, y in 0usize..61, w in 1usize..84, h in 1usize..62,
    ) {
        let (width, height) = (w.min(83 - x), h.min(61 - y));
        for extension in ["jpg", "png"] {
            let bytes = golden(&format!("{}.{extension}", KINDS[kind]));
            same(&bytes, &whole(&bytes), CropBox { x, y, width, height });
        }
    }
}

#[test]
fn a_part_is_smaller_than_the_whole() {
    let image = image::RgbImage::from_fn(640, 480, |x, y| image::Rgb([x as u8, y as u8, 7]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    let wanted = CropBox { x: 300, y: 200, width: 40, height: 30 };
    let part = decode_part(bytes.get_ref(), Limits::default(), wanted).unwrap();
    assert!(part.image.width() <= 40 + 64 && part.image.height() <= 30 + 64, "{:?}", part.image);
}

#[test]
fn boxes_beyond_the_image_are_refused() {
    let bytes = golden("420.jpg");
    for (x, y, width, height) in
        [(0, 0, 84, 1), (83, 0, 1, 1), (0, 0, 0, 1), (usize::MAX, 0, 2, 1), (0, 61, 1, 1)]
    {
        let message = decode_part(&bytes, Limits::default(), CropBox { x, y, width, height }).unwrap_err();
        assert!(message.contains("83x61"), "{message}");
    }
    let wanted = CropBox { x: 0, y: 0, width: 1, height: 1 };
    assert!(decode_part(&bytes, Limits { max_pixels: 100 }, wanted).unwrap_err().contains("max_pixels"));
}

/// A file that was cut anywhere is an error or has lost nothing but its last bytes.
#[test]
fn every_cut_is_noticed() {
    for kind in KINDS {
        for extension in ["jpg", "png"] {
            let bytes = golden(&format!("{kind}.{extension}"));
            let all = whole(&bytes);
            for cut in (0..bytes.len()).step_by(7) {
                if let Ok(image) = decode(&bytes[..cut], Limits::default()) {
                    assert_eq!(image, all, "{kind}.{extension} cut at {cut} of {}", bytes.len());
                }
            }
        }
    }
}

#[test]
fn long_metadata_before_the_size() {
    let bytes = golden("420.jpg");
    let comment = [&[0xff, 0xfe, 0xff, 0xfd][..], &[b'x'; 65531]].concat();
    let long = [&bytes[..2], &comment, &comment, &bytes[2..]].concat();
    assert_eq!(probe(&long, Limits::default()).unwrap().width, 83);
    assert_eq!(whole(&long), whole(&bytes));
    assert!(probe(&long[..70_000], Limits::default()).unwrap_err().contains("ends before"));
}
