//! Our decoder against the library: the same pixels, and no verdict of its own on files that are not in order.
#![allow(clippy::unwrap_used)]

use super::{baseline, decode, library, size};
use crate::dataset::Part;
use crate::decode::{Limits, guarded};
use infomax_augment::CropBox;
use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};
use proptest::prelude::*;

/// An image of soft and hard edges and of noise, in a mixture that depends on the seed.
fn picture(width: usize, height: usize, channels: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(width * height * channels);
    let (wave, hard, noise) =
        (1 + seed % 7, seed.is_multiple_of(3), [0, 5, 60, 255][(seed / 3 % 4) as usize]);
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let soft =
                    ((x * (c + 1)) as f64 * 0.02 * wave as f64).sin() * 80.0 + (y as f64 * 0.1).cos() * 40.0;
                let edge = if hard && (x / 5 + y / 7) % 2 == 0 { 120.0 } else { 0.0 };
                let rough = ((state >> 40) % (noise + 1)) as f64 - noise as f64 / 2.0;
                out.push((128.0 + soft + edge + rough).clamp(0.0, 255.0) as u8);
            }
        }
    }
    out
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    sampling: Option<Subsampling>,
    quality: u8,
    optimize: bool,
    restart: u16,
}

fn encode(width: usize, height: usize, kind: Kind, seed: u64) -> Vec<u8> {
    let (channels, format) = match kind.sampling {
        None => (1, PixelFormat::Grayscale),
        Some(_) => (3, PixelFormat::Rgb),
    };
    let pixels = picture(width, height, channels, seed);
    let encoder = Encoder::new(&pixels, width, height, format).quality(kind.quality);
    let encoder = encoder.optimize_huffman(kind.optimize).restart_blocks(kind.restart);
    encoder.subsampling(kind.sampling.unwrap_or(Subsampling::S444)).encode().unwrap()
}

fn kinds() -> impl Strategy<Value = Kind> {
    let samplings = [None, Some(Subsampling::S444), Some(Subsampling::S422), Some(Subsampling::S420)];
    let parts = (0..4usize, 1..=100u8, any::<bool>(), prop_oneof![Just(0u16), 1..40u16]);
    parts.prop_map(move |(sampling, quality, optimize, restart)| Kind {
        sampling: samplings[sampling],
        quality,
        optimize,
        restart,
    })
}

fn from_library(bytes: &[u8], size: (usize, usize), wanted: CropBox) -> Result<Part, String> {
    guarded(|| library::decode(bytes, Limits::default(), size, wanted))
}

#[track_caller]
fn same(ours: &Part, theirs: &Part, wanted: CropBox) {
    for y in wanted.y..wanted.y + wanted.height {
        for x in wanted.x..wanted.x + wanted.width {
            let (a, b) =
                (ours.image.pixel(x - ours.x, y - ours.y), theirs.image.pixel(x - theirs.x, y - theirs.y));
            assert_eq!(a, b, "{wanted:?} at {x}, {y}");
        }
    }
}

fn inside(width: usize, height: usize, (x, y, right, bottom): (usize, usize, usize, usize)) -> CropBox {
    let (x, y) = (x % width, y % height);
    CropBox { x, y, width: 1 + right % (width - x), height: 1 + bottom % (height - y) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_common_file_has_the_pixels_of_the_library(
        width in 6usize..150, height in 1usize..100, kind in kinds(), seed in any::<u64>(),
        sides in any::<(usize, usize, usize, usize)>(),
    ) {
        let bytes = encode(width, height, kind, seed);
        let all = CropBox { x: 0, y: 0, width, height };
        let theirs = from_library(&bytes, (width, height), all).unwrap();
        for wanted in [all, inside(width, height, sides)] {
            let ours = baseline::decode(&bytes, (width, height), wanted).expect("our kind");
            prop_assert_eq!((ours.image.width(), ours.image.height()), (wanted.width, wanted.height));
            same(&ours, &theirs, wanted);
        }
    }

    /// Whatever happens to a file, the verdict and the pixels are the library's.
    #[test]
    fn damaged_files_are_judged_as_by_the_library(
        kind in kinds(), seed in any::<u64>(), sides in any::<(usize, usize, usize, usize)>(),
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), 0..5u8), 1..4), in_scan in any::<bool>(),
    ) {
        let (width, height) = (70, 50);
        let mut bytes = encode(width, height, kind, seed);
        let scan = bytes.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
        for (at, byte, how) in changes {
            let start = if in_scan { scan.min(bytes.len() - 1) } else { 0 };
            let at = start + at % (bytes.len() - start);
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(3)),
            }
        }
        if let Ok(size) = size(&bytes) && size.0 > 0 && size.1 > 0 && size.0 * size.1 < 1 << 20 {
            let wanted = inside(size.0, size.1, sides);
            let ours = guarded(|| decode(&bytes, Limits::default(), size, wanted));
            let theirs = from_library(&bytes, size, wanted);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => same(&ours, &theirs, wanted),
                (ours, theirs) => prop_assert_eq!(ours.map(|_| ()), theirs.map(|_| ())),
            }
        }
    }
}

#[test]
fn large_images_and_crops() {
    let kind = Kind { sampling: Some(Subsampling::S420), quality: 90, optimize: false, restart: 0 };
    for sampling in [None, Some(Subsampling::S444), Some(Subsampling::S422), Some(Subsampling::S420)] {
        let bytes = encode(500, 375, Kind { sampling, ..kind }, 4);
        let all = CropBox { x: 0, y: 0, width: 500, height: 375 };
        let theirs = from_library(&bytes, (500, 375), all).unwrap();
        for wanted in [all, CropBox { x: 101, y: 77, width: 260, height: 201 }] {
            same(&baseline::decode(&bytes, (500, 375), wanted).unwrap(), &theirs, wanted);
        }
    }
}

/// What is not of the common kind is not touched.
#[test]
fn other_kinds_are_left_to_the_library() {
    let pixels = picture(40, 30, 3, 2);
    let encoder = || Encoder::new(&pixels, 40, 30, PixelFormat::Rgb);
    let files = [
        encoder().progressive(true).encode().unwrap(),
        encoder().arithmetic(true).encode().unwrap(),
        encoder().subsampling(Subsampling::S440).encode().unwrap(),
        encoder().subsampling(Subsampling::S411).encode().unwrap(),
        encoder().colorspace(libjpeg_turbo_rs::ColorSpace::Rgb).encode().unwrap(),
    ];
    let all = CropBox { x: 0, y: 0, width: 40, height: 30 };
    for (i, bytes) in files.iter().enumerate() {
        assert!(baseline::decode(bytes, (40, 30), all).is_none(), "{i}");
        assert!(decode(bytes, Limits::default(), (40, 30), all).is_ok(), "{i}");
    }
}

/// Damage that only a part of the file has is noticed by every crop.
#[test]
fn damage_is_noticed_outside_of_the_crop() {
    for restart in [0, 3] {
        let kind = Kind { sampling: Some(Subsampling::S420), quality: 80, optimize: false, restart };
        let bytes = encode(96, 96, kind, 5);
        for wanted in
            [CropBox { x: 0, y: 0, width: 9, height: 9 }, CropBox { x: 90, y: 90, width: 6, height: 6 }]
        {
            assert!(baseline::decode(&bytes, (96, 96), wanted).is_some());
            let cut = &bytes[..bytes.len() * 3 / 4];
            assert!(decode(cut, Limits::default(), (96, 96), wanted).is_err(), "{restart}");
        }
    }
}
