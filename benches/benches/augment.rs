//! Views of one image on one core.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use infomax_augment::{Augmenter, Image, Recipe, Scratch};
use infomax_core::Key;

/// The group `augment`.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("augment");
    group.throughput(Throughput::Elements(1));
    for (preset, width, height) in
        [("vicreg-cifar", 32, 32), ("simclr-cifar", 32, 32), ("vicreg-imagenet", 500, 375)]
    {
        let augmenter = Augmenter::new(&Recipe::preset(preset).unwrap()).unwrap();
        let image = photograph(width, height);
        let (channels, h, w) = augmenter.output(0);
        let (mut out, mut scratch) = (vec![0.0; channels * h * w], Scratch::default());
        let mut rng = Key::new(1).rng();
        group.bench_function(format!("cpu/{preset}/u8/{width}x{height}x3"), |b| {
            b.iter(|| {
                augmenter.apply(0, &image, &mut rng, &mut scratch, &mut out).unwrap();
                black_box(&out);
            });
        });
    }
    group.finish();
}

/// Smooth colors, as in a photograph: noise would make every branch of the color code equally likely.
fn photograph(width: usize, height: usize) -> Image {
    let pixel = |i: usize| {
        let (y, x, c) = (i / (3 * width), i / 3 % width, i % 3);
        (128.0 + 100.0 * ((x + 7 * c) as f64 / 9.0).sin() * (y as f64 / (11.0 + c as f64)).cos()) as u8
    };
    Image::new(width, height, 3, (0..width * height * 3).map(pixel).collect()).unwrap()
}
