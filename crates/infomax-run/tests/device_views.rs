//! The kernel that makes views on a device, on the CPU: compiled by the C++ compiler against the emulation of
//! `infomax-cuda`, it gives the bits of the views on the host.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use infomax_augment::rand::RngExt as _;
use infomax_augment::rand_chacha::ChaCha8Rng;
use infomax_augment::rand_chacha::rand_core::SeedableRng as _;
use infomax_augment::{Augmenter, Image, Recipe, Scratch, ViewTables};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The emulated kernel, or nothing on a machine without a C++ compiler.
fn program() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infomax-cuda/tests/emulated");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated-views");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let built = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-ffp-contract=off", "-o"])
        .arg(&program)
        .arg(folder.join("views.cpp"))
        .output();
    match built {
        Ok(built) => assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && std::env::var_os("CXX").is_none() => {
            eprintln!("NOT CHECKED: views on a device; there is no {compiler} ({e}): name one in CXX");
            return None;
        }
        Err(e) => panic!("cannot run {compiler}: {e}"),
    }
    Some(program)
}

/// Views of noise, of waves and of flat images, of a preset.
fn compare(program: &Path, preset: &str, (width, height): (usize, usize), count: usize) {
    let recipe = Recipe::preset(preset).unwrap();
    let augmenter = Augmenter::new(&recipe).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let image = |i: usize, rng: &mut ChaCha8Rng| {
        let pixel = |at: usize, rng: &mut ChaCha8Rng| match i % 3 {
            0 => rng.random::<u8>(),
            1 => (127.0 + 120.0 * ((at * (i + 3)) as f64 * 0.02).sin()) as u8,
            _ => [40, 90, 200][(at + i) % 3],
        };
        let data = (0..width * height * 3).map(|at| pixel(at, rng)).collect();
        Image::new(width, height, 3, data).unwrap()
    };
    let images: Vec<Image> = (0..6).map(|i| image(i, &mut rng)).collect();
    let mut scratch = Scratch::default();
    for view in 0..augmenter.views() {
        let tables = ViewTables::new(&augmenter, view, (width, height)).unwrap();
        let (size, mut want, mut words) = (tables.size(), Vec::new(), Vec::new());
        let mut drawn = Vec::new();
        for i in 0..count {
            let params = augmenter.draw(view, width, height, &mut rng).unwrap();
            let mut out = vec![f32::NAN; 3 * size * size];
            let at = (i * 5) % images.len();
            augmenter.render(view, &images[at], &params, &mut scratch, &mut out).unwrap();
            words.extend(tables.words(at as u32, &params).unwrap());
            want.extend(out);
            drawn.push(params);
        }
        let head = [width, height, size, images.len(), count, tables.axes().len()].map(|n| n as u32);
        let mut input: Vec<u8> = head.iter().flat_map(|n| n.to_le_bytes()).collect();
        images.iter().for_each(|image| input.extend(image.data()));
        input.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        input.extend(tables.axes().iter().flat_map(|w| w.to_le_bytes()));
        input.extend(tables.normalized().iter().flat_map(|w| w.to_le_bytes()));
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("input"), folder.path().join("output"));
        std::fs::write(&from, input).unwrap();
        assert!(Command::new(program).arg(&from).arg(&to).status().unwrap().success());
        let got = std::fs::read(&to).unwrap();
        assert_eq!(got.len(), 4 * want.len());
        for (i, (got, want)) in got.as_chunks::<4>().0.iter().zip(&want).enumerate() {
            let (at, got) = (i / (3 * size * size), f32::from_le_bytes(*got));
            let place = i % (3 * size * size);
            assert_eq!(
                got.to_bits(),
                want.to_bits(),
                "{preset} view {view} of {width}x{height}: {got} instead of {want} at {place}, drawn {:?}",
                drawn[at]
            );
        }
    }
}

#[test]
fn the_kernel_gives_the_bits_of_the_host() {
    let Some(program) = program() else { return };
    // Jitter of all kinds, gray, solarization; bicubic and bilinear.
    compare(&program, "byol-cifar", (32, 32), 24);
    compare(&program, "spt-vicreg-cifar", (32, 32), 12);
    // With blur; from larger and from oblong images; small local views.
    compare(&program, "simclr-cifar", (40, 23), 12);
    compare(&program, "swav-multicrop-cifar", (32, 32), 4);
    compare(&program, "simclr-tiny-imagenet", (64, 64), 4);
    compare(&program, "vicreg-stl10", (96, 96), 2);
    // The center, resized; sides that shrink by much more one way than the other.
    compare(&program, "none", (61, 33), 2);
    compare(&program, "byol-cifar", (20, 96), 6);
}
