//! The procedural data set: determinism, splits, classes, difficulty.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_data::{Dataset, Shape, Shapes, ShapesConfig, Split};
use std::collections::HashSet;

fn shapes(config: ShapesConfig) -> Shapes {
    Shapes::new(config).unwrap()
}

fn plain() -> ShapesConfig {
    ShapesConfig {
        len: 200,
        scale: (0.5, 0.8),
        rotation: 0.5,
        texture: 0.0,
        clutter: (0, 0),
        noise: 0.0,
        cut: 0.0,
        contrast: 0.3,
        ..ShapesConfig::default()
    }
}

#[test]
fn images_depend_on_seed_split_and_index_alone() {
    let a = shapes(ShapesConfig { len: 30, ..ShapesConfig::default() });
    let b = shapes(ShapesConfig { len: 500, cache_bytes: 0, ..ShapesConfig::default() });
    for i in (0..30).rev() {
        assert_eq!(a.image(i).unwrap(), b.image(i).unwrap());
        assert_eq!(a.image(i).unwrap(), b.image(i).unwrap(), "the second time comes from the cache");
    }
    let other = shapes(ShapesConfig { seed: 1, ..ShapesConfig::default() });
    assert!((0..30).all(|i| a.image(i).unwrap() != other.image(i).unwrap()));
    assert!(a.image(30).is_err());
}

#[test]
fn splits_share_no_image() {
    let mut seen = HashSet::new();
    for split in [Split::Train, Split::Validation, Split::Test] {
        let data = shapes(ShapesConfig { split, len: 300, ..ShapesConfig::default() });
        seen.extend((0..300).map(|i| data.image(i).unwrap().into_data()));
    }
    assert_eq!(seen.len(), 900);
}

#[test]
fn classes_are_balanced_and_named() {
    let data = shapes(ShapesConfig { len: 100, ..ShapesConfig::default() });
    let mut counts = [0; Shape::ALL.len()];
    (0..100).for_each(|i| counts[data.label(i).unwrap() as usize] += 1);
    assert_eq!(counts, [10; 10]);
    assert_eq!(data.classes()[8], "crescent");
    assert_eq!(data.label(100), None);
}

/// Without texture, clutter and noise an image has two colors and their mixtures at the outline.
#[test]
fn plain_images_show_one_figure_on_a_ground() {
    let data = shapes(ShapesConfig { size: 64, ..plain() });
    for i in 0..200 {
        let image = data.image(i).unwrap();
        let ground = image.pixel(0, 0).unwrap().to_vec();
        let differs = |p: &[u8]| p.iter().zip(&ground).any(|(a, b)| a.abs_diff(*b) > 2);
        let figure = image.data().chunks_exact(3).filter(|p| differs(p)).count();
        let part = figure as f64 / (64.0 * 64.0);
        // A diameter of 0.5 to 0.8 of the image, and outlines that fill 0.2 to 1 of their circle.
        assert!((0.03..0.51).contains(&part), "image {i} ({}): {part}", data.classes()[i % 10]);
        let border = (0..64).flat_map(|k| [(k, 0), (k, 63), (0, k), (63, k)]);
        let touching = border.filter(|(x, y)| differs(image.pixel(*x, *y).unwrap())).count();
        assert!(touching <= 2, "image {i} is cut: {touching}");
    }
}

/// The mean color says nothing about the class: the class means differ no more than chance lets them.
#[test]
fn colors_are_independent_of_the_class() {
    let len = 3000;
    let data = shapes(ShapesConfig { len, cache_bytes: 0, ..ShapesConfig::default() });
    let mut sums = [[0f64; 3]; 10];
    let mut squares = [0f64; 3];
    let mut total = [0f64; 3];
    for i in 0..len {
        let image = data.image(i).unwrap();
        for c in 0..3 {
            let mean = image.data().iter().skip(c).step_by(3).map(|v| f64::from(*v)).sum::<f64>() / 1024.0;
            sums[i % 10][c] += mean;
            total[c] += mean;
            squares[c] += mean * mean;
        }
    }
    let n = len as f64;
    for c in 0..3 {
        let variance = squares[c] / n - (total[c] / n).powi(2);
        let error = (variance / (n / 10.0)).sqrt();
        for (class, sum) in sums.iter().enumerate() {
            let z = (sum[c] / (n / 10.0) - total[c] / n) / error;
            assert!(z.abs() < 4.0, "class {class} channel {c}: z = {z}");
        }
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let message = |config: ShapesConfig| Shapes::new(config).unwrap_err().to_string();
    let base = ShapesConfig::default;
    assert!(message(ShapesConfig { len: 0, ..base() }).contains("len = 0"));
    assert!(message(ShapesConfig { size: 4, ..base() }).contains("size = 4"));
    assert!(message(ShapesConfig { scale: (0.9, 0.5), ..base() }).contains("scale"));
    assert!(message(ShapesConfig { clutter: (5, 2), ..base() }).contains("clutter"));
    assert!(message(ShapesConfig { noise: f64::NAN, ..base() }).contains("noise"));
}

#[test]
fn extreme_settings_draw_something() {
    for (size, scale, cut) in [(8, (0.01, 1.0), 1.0), (100, (1.0, 1.0), 0.0), (33, (0.3, 1.0), 0.5)] {
        let config = ShapesConfig {
            len: 40,
            size,
            scale,
            cut,
            texture: 1.0,
            noise: 1.0,
            clutter: (0, 50),
            ..ShapesConfig::default()
        };
        let data = shapes(config);
        (0..40).for_each(|i| assert_eq!(data.image(i).unwrap().data().len(), size * size * 3));
    }
}
