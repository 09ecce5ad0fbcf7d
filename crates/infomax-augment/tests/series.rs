//! Views of series and vectors, and mixtures of two views.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_augment::{Augment, Mask, MaskAxis, Noise, Series, SeriesAugmenter, SeriesRecipe, SeriesView};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

fn augmenter(channels: usize, view: SeriesView) -> SeriesAugmenter {
    SeriesAugmenter::new(&SeriesRecipe { channels, views: vec![view] }).unwrap()
}

fn apply(augmenter: &SeriesAugmenter, series: &Series, seed: u64) -> Vec<f32> {
    let mut out = vec![f32::NAN; augmenter.shape(0).unwrap().iter().product()];
    augmenter.apply(0, series, &mut ChaCha8Rng::seed_from_u64(seed), &mut (), &mut out).unwrap();
    out
}

fn ramp(channels: usize, length: usize) -> Series {
    let data = (0..channels * length).map(|i| (i % length) as f32 + 100.0 * (i / length) as f32);
    Series::new(channels, length, data.collect()).unwrap()
}

#[test]
fn neutral_views_are_the_identity_and_reverse_twice_too() {
    let series = ramp(3, 17);
    let plain = augmenter(3, SeriesView::plain(17));
    let same = apply(&plain, &series, 1);
    assert_eq!(Series::new(3, 17, same).unwrap(), series);
    let back = augmenter(3, SeriesView { reverse: 1.0, ..SeriesView::plain(17) });
    let once = Series::new(3, 17, apply(&back, &series, 1)).unwrap();
    assert_ne!(once, series);
    assert_eq!(Series::new(3, 17, apply(&back, &once, 2)).unwrap(), series);
}

#[test]
fn crops_are_linear_and_uniform() {
    let series = ramp(1, 100);
    let crop = augmenter(1, SeriesView { crop: Some((0.3, 0.5)), ..SeriesView::plain(20) });
    let (mut starts, mut spans) = (0.0, 0.0);
    for seed in 0..2000 {
        let params = crop.draw(0, series.length(), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        assert!((30.0..=50.0).contains(&params.span) && params.start + params.span <= 100.0);
        starts += params.start / (100.0 - params.span) / 2000.0;
        spans += params.span / 2000.0;
        let out = apply(&crop, &series, seed);
        for (t, v) in out.iter().enumerate() {
            // A ramp stays a ramp under linear interpolation, but for the half steps at both ends.
            let want = (params.start + (t as f64 + 0.5) * params.span / 20.0 - 0.5).clamp(0.0, 99.0);
            assert!((f64::from(*v) - want).abs() < 1e-4, "{v} {want}");
        }
    }
    assert!((starts - 0.5).abs() < 4.0 * (1.0 / 12f64).sqrt() / 2000f64.sqrt(), "{starts}");
    assert!((spans - 40.0).abs() < 4.0 * 20.0 / (12.0 * 2000.0f64).sqrt(), "{spans}");
}

#[test]
fn noise_and_scaling_have_their_moments() {
    let ones = Series::new(2, 20_000, vec![1.0; 40_000]).unwrap();
    let noise = Some(Noise { p: 1.0, sigma: (0.5, 0.5) });
    let noisy = apply(&augmenter(2, SeriesView { noise, ..SeriesView::plain(20_000) }), &ones, 3);
    let mean = noisy.iter().map(|v| f64::from(*v)).sum::<f64>() / 4e4;
    let var = noisy.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 4e4;
    assert!((mean - 1.0).abs() < 4.0 * 0.5 / 200.0, "{mean}");
    assert!((var - 0.25).abs() < 4.0 * 0.25 * (2.0f64 / 4e4).sqrt(), "{var}");

    let wide = Series::vector(vec![1.0; 20_000]).unwrap();
    let scaled = apply(&augmenter(20_000, SeriesView { scale: noise, ..SeriesView::plain(1) }), &wide, 4);
    let mean = scaled.iter().map(|v| f64::from(*v)).sum::<f64>() / 2e4;
    assert!((mean - 1.0).abs() < 4.0 * 0.5 / 141.0, "{mean}");
    let steady = apply(&augmenter(2, SeriesView { scale: noise, ..SeriesView::plain(50) }), &ones, 5);
    assert!(steady[..50].iter().all(|v| *v == steady[0]) && steady[0] != steady[50]);
}

#[test]
fn masks_cover_their_part() {
    let ones = Series::new(50, 100, vec![1.0; 5000]).unwrap();
    let masked = |axis| {
        let mask = Some(Mask { p: 1.0, part: (0.3, 0.3), axis });
        let out = apply(&augmenter(50, SeriesView { mask, ..SeriesView::plain(100) }), &ones, 6);
        let zeros: Vec<usize> = out.chunks(100).map(|c| c.iter().filter(|v| **v == 0.0).count()).collect();
        (out, zeros)
    };
    let (out, zeros) = masked(MaskAxis::Time);
    assert!(zeros.iter().all(|n| *n == 30));
    let first = out.iter().position(|v| *v == 0.0).unwrap();
    assert!(out[first..first + 30].iter().all(|v| *v == 0.0), "one span");
    let (_, zeros) = masked(MaskAxis::Channels);
    assert!(zeros.iter().all(|n| [0, 100].contains(n)));
    let dropped = zeros.iter().filter(|n| **n == 100).count();
    assert!((3..=27).contains(&dropped), "{dropped} of 50 with p 0.3 (four standard errors)");
    let (_, zeros) = masked(MaskAxis::Values);
    let total: usize = zeros.iter().sum();
    assert!((total as f64 - 1500.0).abs() < 4.0 * (5000.0 * 0.21f64).sqrt(), "{total}");
}

#[test]
fn the_same_key_gives_the_same_bits_and_wrong_input_is_named() {
    let text = "channels = 2\n[[views]]\ncount = 2\nlength = 8\ncrop = [0.5, 1.0]\nreverse = 0.5\n\
                scale = { p = 0.5, sigma = [0.1, 0.2] }\nnoise = { p = 1.0, sigma = [0.0, 0.1] }\n\
                mask = { p = 0.5, part = [0.1, 0.5], axis = \"time\" }\n";
    let recipe: SeriesRecipe = toml::from_str(text).unwrap();
    assert_eq!(toml::from_str::<SeriesRecipe>(&toml::to_string(&recipe).unwrap()).unwrap(), recipe);
    let augmenter = SeriesAugmenter::new(&recipe).unwrap();
    assert_eq!(augmenter.views(), 2);
    let series = ramp(2, 30);
    assert_eq!(apply(&augmenter, &series, 9), apply(&augmenter, &series, 9));
    assert_ne!(apply(&augmenter, &series, 9), apply(&augmenter, &series, 10));

    let message = |r: infomax_augment::Result<Series>| r.unwrap_err().to_string();
    assert!(message(Series::new(2, 2, vec![0.0; 3])).contains("channels x length"));
    assert!(message(Series::new(1, 2, vec![0.0, f32::NAN])).contains("channel 0 is NaN at step 1"));
    assert!(message(Series::vector(vec![])).contains("at least one"));
    let wrong = augmenter.apply(0, &ramp(3, 30), &mut ChaCha8Rng::seed_from_u64(0), &mut (), &mut [0.0; 16]);
    assert!(wrong.unwrap_err().to_string().contains("3 channels"));
    for bad in ["crop = [0.0, 1.0]", "reverse = 2.0", "mask = { p = 1.0, part = [0.5, 1.5] }"] {
        let text = format!("channels = 1\nviews = [{{ length = 4, {bad} }}]");
        let error = SeriesAugmenter::new(&toml::from_str(&text).unwrap()).unwrap_err().to_string();
        assert!(error.contains(bad.split(' ').next().unwrap()), "{error}");
    }
}

#[test]
fn single_steps_stretch_without_panic() {
    for (from, to) in [(1, 1), (1, 9), (9, 1), (2, 1000)] {
        let series = Series::new(1, from, vec![2.5; from]).unwrap();
        let crop = augmenter(1, SeriesView { crop: Some((0.01, 1.0)), ..SeriesView::plain(to) });
        assert!((0..20).all(|seed| apply(&crop, &series, seed).iter().all(|v| *v == 2.5)));
    }
}
