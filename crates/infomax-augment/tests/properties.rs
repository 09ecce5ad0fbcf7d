//! Laws of the augmentation, the distribution of its parameters, and bad input.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_augment::{
    Affine, Augment, Augmenter, ColorJitter, Crop, CropBox, Erase, EraseFill, Error, EvalTransform, Filter,
    Image, JitterStep, Noise, NoiseStep, Posterize, Recipe, Sampling, Scratch, Semantics, ViewConfig,
    ViewParams,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng as _};

fn noise(width: usize, height: usize, channels: usize, seed: u64) -> Image {
    let mut data = vec![0; width * height * channels];
    Rng::fill_bytes(&mut ChaCha8Rng::seed_from_u64(seed), &mut data);
    Image::new(width, height, channels, data).unwrap()
}

const SEMANTICS: [Semantics; 3] = [Semantics::Pil, Semantics::Tensor, Semantics::TensorV2];

/// A recipe of one view whose output is `v / 255`.
fn raw(view: ViewConfig, channels: usize) -> Augmenter {
    raw_as(Semantics::Pil, view, channels)
}

fn raw_as(semantics: Semantics, view: ViewConfig, channels: usize) -> Augmenter {
    let (mean, std) = (vec![0.0; channels], vec![1.0; channels]);
    Augmenter::new(&Recipe { mean, std, semantics, views: vec![view] }).unwrap()
}

fn render(augmenter: &Augmenter, image: &Image, params: &ViewParams) -> Vec<f32> {
    let (c, h, w) = augmenter.output(0);
    let mut out = vec![f32::NAN; c * h * w];
    augmenter.render(0, image, params, &mut Scratch::default(), &mut out).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_image_and_preset_gives_finite_views(
        width in 1usize..70, height in 1usize..70, seed: u64, preset in 0usize..Recipe::preset_names().len(),
        channels in prop_oneof![Just(1usize), Just(2), Just(3), Just(4), Just(6)], semantics in 0usize..3,
    ) {
        let name = Recipe::preset_names()[preset];
        let recipe = Recipe::preset(name).unwrap().with_size(20);
        let recipe = recipe.with_normalization(&vec![0.5; channels], &vec![0.25; channels]);
        let recipe = recipe.with_semantics(SEMANTICS[semantics]);
        let augmenter = Augmenter::new(&recipe).unwrap();
        let image = noise(width, height, channels, seed);
        let (mut used, mut fresh) = (Scratch::default(), Scratch::default());
        for view in 0..augmenter.views() {
            let (c, h, w) = augmenter.output(view);
            let (mut a, mut b) = (vec![f32::NAN; c * h * w], vec![f32::NAN; c * h * w]);
            let key = seed ^ view as u64;
            augmenter.apply(view, &image, &mut ChaCha8Rng::seed_from_u64(key), &mut used, &mut a).unwrap();
            augmenter.apply(view, &image, &mut ChaCha8Rng::seed_from_u64(key), &mut fresh, &mut b).unwrap();
            prop_assert!(a.iter().all(|v| (-2.0..=2.0).contains(v)));
            prop_assert_eq!(a, b, "the same generator gives the same bits, whatever was computed before");
            fresh = Scratch::default();
        }
    }

    #[test]
    fn crops_stay_inside(width in 1usize..400, height in 1usize..400, seed: u64, low in 0.01f64..1.0) {
        let view = ViewConfig { crop: Some(Crop { scale: (low, 1.0), ratio: (0.5, 2.0) }), ..ViewConfig::plain(4) };
        let augmenter = raw(view, 3);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..20 {
            let CropBox { x, y, width: w, height: h } = augmenter.draw(0, width, height, &mut rng).unwrap().crop;
            prop_assert!(w > 0 && h > 0 && x + w <= width && y + h <= height);
        }
    }

    #[test]
    fn flat_images_stay_flat(shade: u8, w in 1usize..40, h in 1usize..40, size in 1usize..40, sigma in 0.1f64..8.0, cubic: bool, semantics in 0usize..3) {
        let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
        let augmenter = raw_as(SEMANTICS[semantics], ViewConfig { filter, ..ViewConfig::plain(size) }, 3);
        let image = Image::new(w, h, 3, vec![shade; w * h * 3]).unwrap();
        let crop = CropBox { x: 0, y: 0, width: w, height: h };
        let params = ViewParams { crop, blur: Some(sigma), ..ViewParams::plain(w, h) };
        prop_assert!(render(&augmenter, &image, &params).iter().all(|v| *v == f32::from(shade) / 255.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The semantics round differently and agree on everything else, whatever is drawn: one step of brightness,
    /// contrast, saturation and gray is off by few levels, and a resize of a smooth image by one.
    #[test]
    fn semantics_differ_by_rounding(w in 2usize..60, h in 2usize..60, size in 1usize..50, cubic: bool, seed: u64) {
        let data = (0..w * h * 3).map(|i| (128.0 + 60.0 * ((i / 3 % w) as f64 / 9.0).sin() + (i / 3 / w) as f64) as u8);
        let image = Image::new(w, h, 3, data.collect()).unwrap();
        let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
        let jitter = ColorJitter { p: 1.0, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.0 };
        let view = ViewConfig {
            crop: Some(Crop { scale: (0.3, 1.0), ratio: (0.75, 1.3) }),
            filter,
            jitter: Some(jitter),
            grayscale: 0.3,
            flip: 0.5,
            ..ViewConfig::plain(size)
        };
        let [pil, tensor, v2] = SEMANTICS.map(|semantics| {
            let augmenter = raw_as(semantics, view.clone(), 3);
            let params = augmenter.draw(0, w, h, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            (params, render(&augmenter, &image, &params))
        });
        for (params, out) in [tensor, v2] {
            prop_assert_eq!(params, pil.0, "the semantics change nothing that is drawn");
            let off = out.iter().zip(&pil.1).map(|(a, b)| (a - b).abs() * 255.0).fold(0.0, f32::max);
            prop_assert!(off < 8.5, "off by {off}: {params:?}");
        }
    }
}

#[test]
fn flips_are_their_own_inverse_and_mirror() {
    SEMANTICS.into_iter().for_each(flip_twice);
}

fn flip_twice(semantics: Semantics) {
    let image = noise(9, 9, 3, 1);
    let augmenter = raw_as(semantics, ViewConfig::plain(9), 3);
    let plain = ViewParams::plain(9, 9);
    let straight = render(&augmenter, &image, &plain);
    let flipped = render(&augmenter, &image, &ViewParams { flip: true, ..plain });
    for (a, b) in straight.chunks(9).zip(flipped.chunks(9)) {
        assert!(a.iter().eq(b.iter().rev()));
    }
    let bytes: Vec<u8> =
        (0..81).flat_map(|i| [0, 81, 162].map(|c| (flipped[c + i] * 255.0).round() as u8)).collect();
    let again = Image::new(9, 9, 3, bytes).unwrap();
    assert_eq!(render(&augmenter, &again, &ViewParams { flip: true, ..plain }), straight);
}

#[test]
fn neutral_parameters_are_the_identity() {
    SEMANTICS.into_iter().for_each(neutral);
}

fn neutral(semantics: Semantics) {
    let image = noise(16, 16, 3, 2);
    let augmenter = raw_as(semantics, ViewConfig::plain(16), 3);
    let plain = ViewParams::plain(16, 16);
    let steps = [
        JitterStep::Hue(0.0),
        JitterStep::Brightness(1.0),
        JitterStep::Contrast(1.0),
        JitterStep::Saturation(1.0),
    ];
    let out = render(&augmenter, &image, &ViewParams { jitter: Some(steps), ..plain });
    assert_eq!(out, render(&augmenter, &image, &plain));
    let want: Vec<f32> =
        (0..3).flat_map(|c| image.data().iter().skip(c).step_by(3).map(|v| f32::from(*v) / 255.0)).collect();
    assert_eq!(out, want);
    let strength_zero = ColorJitter { p: 1.0, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
    let jittered = raw_as(semantics, ViewConfig { jitter: Some(strength_zero), ..ViewConfig::plain(16) }, 3);
    let mut drawn = vec![0.0; 768];
    jittered
        .apply(0, &image, &mut ChaCha8Rng::seed_from_u64(1), &mut Scratch::default(), &mut drawn)
        .unwrap();
    assert_eq!(drawn, want);
}

#[test]
fn the_fourth_channel_keeps_its_values() {
    let image = noise(8, 8, 4, 3);
    let augmenter = raw(ViewConfig::plain(8), 4);
    let plain = ViewParams::plain(8, 8);
    let steps = [
        JitterStep::Hue(0.2),
        JitterStep::Brightness(0.5),
        JitterStep::Contrast(0.5),
        JitterStep::Saturation(0.5),
    ];
    let all = ViewParams { jitter: Some(steps), grayscale: true, solarize: Some(10), ..plain };
    assert_eq!(render(&augmenter, &image, &all)[192..], render(&augmenter, &image, &plain)[192..]);
}

/// Mean and variance of every drawn parameter, at 20,000 draws and four standard errors.
#[test]
fn parameters_have_torchvisions_distributions() {
    let n = 20_000;
    let augmenter = Augmenter::new(&Recipe::preset("vicreg-imagenet").unwrap()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let draws: Vec<ViewParams> = (0..n).map(|_| augmenter.draw(1, 500, 400, &mut rng).unwrap()).collect();
    let near = |what: &str, got: f64, want: f64, deviation: f64| {
        let z = (got - want) / (deviation / (n as f64).sqrt());
        assert!(z.abs() < 4.0, "{what}: {got} instead of {want} (z = {z})");
    };
    let share = |what: &str, p: f64, hit: &dyn Fn(&ViewParams) -> bool| {
        let got = draws.iter().filter(|d| hit(d)).count() as f64 / n as f64;
        near(what, got, p, (p * (1.0 - p)).sqrt());
    };
    share("flip", 0.5, &|d| d.flip);
    share("jitter", 0.8, &|d| d.jitter.is_some());
    share("grayscale", 0.2, &|d| d.grayscale);
    share("blur", 0.1, &|d| d.blur.is_some());
    share("solarize", 0.2, &|d| d.solarize == Some(128));
    assert!(draws.iter().all(|d| !d.vertical_flip));
    for first in 0..4 {
        share("order", 0.2, &|d| {
            d.jitter.is_some_and(|j| match j[0] {
                JitterStep::Brightness(_) => first == 0,
                JitterStep::Contrast(_) => first == 1,
                JitterStep::Saturation(_) => first == 2,
                JitterStep::Hue(_) => first == 3,
            })
        });
    }
    let steps: Vec<JitterStep> = draws.iter().filter_map(|d| d.jitter).flatten().collect();
    let moments = |what: &str, low: f64, high: f64, pick: &dyn Fn(&JitterStep) -> Option<f64>| {
        let values: Vec<f64> = steps.iter().filter_map(pick).collect();
        assert!(values.iter().all(|v| (low - 1e-6..=high + 1e-6).contains(v)), "{what}");
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let error = (high - low) / (12.0 * values.len() as f64).sqrt();
        assert!((mean - 0.5 * (low + high)).abs() < 4.0 * error, "{what}: mean {mean}");
        let spread = values.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b))
            - values.iter().fold(f64::INFINITY, |a, b| a.min(*b));
        assert!(spread > 0.99 * (high - low), "{what}: spread {spread}");
    };
    moments("brightness", 0.6, 1.4, &|s| {
        if let JitterStep::Brightness(v) = s { Some(f64::from(*v)) } else { None }
    });
    moments("contrast", 0.6, 1.4, &|s| {
        if let JitterStep::Contrast(v) = s { Some(f64::from(*v)) } else { None }
    });
    moments("saturation", 0.8, 1.2, &|s| {
        if let JitterStep::Saturation(v) = s { Some(f64::from(*v)) } else { None }
    });
    moments("hue", -0.1, 0.1, &|s| if let JitterStep::Hue(v) = s { Some(*v) } else { None });

    // A wide ratio at a small scale never fails to fit: area uniform, log ratio uniform.
    let small = ViewConfig {
        crop: Some(Crop { scale: (0.1, 0.3), ratio: (0.75, 4.0 / 3.0) }),
        ..ViewConfig::plain(8)
    };
    let augmenter = raw(small, 3);
    let boxes: Vec<CropBox> = (0..n).map(|_| augmenter.draw(0, 900, 900, &mut rng).unwrap().crop).collect();
    let mean = |f: &dyn Fn(&CropBox) -> f64| boxes.iter().map(f).sum::<f64>() / n as f64;
    near("area", mean(&|b| (b.width * b.height) as f64 / 810_000.0), 0.2, 0.2 / 12f64.sqrt());
    near("log ratio", mean(&|b| (b.width as f64 / b.height as f64).ln()), 0.0, 0.576 / 12f64.sqrt());
    near("place", mean(&|b| b.x as f64 / (900 - b.width) as f64), 0.5, 1.0 / 12f64.sqrt());
    near("place", mean(&|b| b.y as f64 / (900 - b.height) as f64), 0.5, 1.0 / 12f64.sqrt());
}

#[test]
fn crops_that_never_fit_fall_back_to_the_center() {
    let tall =
        ViewConfig { crop: Some(Crop { scale: (1.0, 1.0), ratio: (1.0, 1.0) }), ..ViewConfig::plain(8) };
    let crop = raw(tall, 3).draw(0, 30, 100, &mut ChaCha8Rng::seed_from_u64(0)).unwrap().crop;
    assert_eq!(crop, CropBox { x: 0, y: 35, width: 30, height: 30 });
}

#[test]
fn wrong_input_is_an_error_that_names_it() {
    let augmenter = Augmenter::new(&Recipe::preset("none").unwrap()).unwrap();
    let image = noise(10, 10, 3, 0);
    let mut scratch = Scratch::default();
    let plain = ViewParams::plain(10, 10);
    let mut out = vec![0.0; 3 * 32 * 32];
    assert_eq!(
        augmenter.render(2, &image, &plain, &mut scratch, &mut out),
        Err(Error::View { view: 2, views: 2 })
    );
    let short = augmenter.render(0, &image, &plain, &mut scratch, &mut out[1..]);
    assert_eq!(short, Err(Error::Output { expected: 3072, got: 3071 }));
    let gray = augmenter.render(0, &noise(10, 10, 1, 0), &plain, &mut scratch, &mut out);
    assert_eq!(gray, Err(Error::Channels { image: 1, recipe: 3 }));
    for (x, width) in [(5, 6), (0, 0), (usize::MAX, 2)] {
        let params = ViewParams { crop: CropBox { x, y: 0, width, height: 3 }, ..plain };
        assert!(matches!(
            augmenter.render(0, &image, &params, &mut scratch, &mut out),
            Err(Error::CropBox { .. })
        ));
    }
}

#[test]
fn evaluation_takes_the_center() {
    let image = noise(20, 10, 3, 4);
    let transform = EvalTransform::new(10, &[0.0; 3], &[1.0; 3]).unwrap();
    let mut out = vec![0.0; 300];
    transform.apply(&image, &mut Scratch::default(), &mut out).unwrap();
    assert_eq!(out[0], f32::from(image.pixel(5, 0).unwrap()[0]) / 255.0);
    assert_eq!(out[299], f32::from(image.pixel(14, 9).unwrap()[2]) / 255.0);
    let inner = EvalTransform::new(5, &[0.0; 3], &[1.0; 3]).unwrap().with_center(0.5).unwrap();
    let mut out = vec![0.0; 75];
    inner.apply(&image, &mut Scratch::default(), &mut out).unwrap();
    assert_eq!(out[0], f32::from(image.pixel(7, 2).unwrap()[0]) / 255.0);
    assert!(EvalTransform::new(5, &[0.0; 3], &[1.0; 3]).unwrap().with_center(0.0).is_err());
    assert!(EvalTransform::new(0, &[0.0; 3], &[1.0; 3]).is_err());
    let recipe = Recipe::preset("swav-multicrop-cifar").unwrap();
    assert_eq!(EvalTransform::for_recipe(&recipe).unwrap().output(), (3, 32, 32));
    // The semantics of a recipe go with it, and change the pixels.
    let outputs = SEMANTICS.map(|semantics| {
        let view = ViewConfig { filter: Filter::Bicubic, ..ViewConfig::plain(7) };
        let augmenter = raw_as(semantics, view, 3);
        let transform = EvalTransform::for_recipe(augmenter.recipe()).unwrap();
        let mut out = vec![0.0; 147];
        transform.apply(&image, &mut Scratch::default(), &mut out).unwrap();
        assert_eq!(out, render(&augmenter, &image, &ViewParams::plain(20, 10)));
        out
    });
    assert!(outputs[0] != outputs[1] && outputs[1] != outputs[2]);
}

/// The parameters of rotation, shift, scaling, shear, noise and erasing, at 20,000 draws and four standard
/// errors.
#[test]
fn newer_parameters_have_their_distributions() {
    let n = 20_000;
    let affine = Affine {
        p: 0.7,
        degrees: (-30.0, 50.0),
        translate: (0.1, 0.3),
        scale: (0.8, 1.3),
        shear: (-10.0, 5.0),
        sampling: Sampling::Bilinear,
        fill: 0,
    };
    let erase = Erase { p: 0.25, scale: (0.02, 0.33), ratio: (0.3, 3.3), fill: EraseFill::Value(0.0) };
    let view = ViewConfig {
        affine: Some(affine),
        posterize: Some(Posterize { p: 0.4, bits: 3 }),
        equalize: 0.15,
        vertical_flip: 0.3,
        noise: Some(Noise { p: 0.6, sigma: (0.02, 0.1) }),
        erase: Some(erase),
        ..ViewConfig::plain(100)
    };
    let augmenter = raw(view, 3);
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let draws: Vec<ViewParams> = (0..n).map(|_| augmenter.draw(0, 80, 60, &mut rng).unwrap()).collect();
    let near = |what: &str, values: Vec<f64>, want: f64, deviation: f64| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let z = (mean - want) / (deviation / (values.len() as f64).sqrt());
        assert!(z.abs() < 4.0, "{what}: {mean} instead of {want} (z = {z})");
    };
    let share = |what: &str, p: f64, hit: &dyn Fn(&ViewParams) -> bool| {
        near(what, draws.iter().map(|d| f64::from(u8::from(hit(d)))).collect(), p, (p * (1.0 - p)).sqrt());
    };
    share("affine", 0.7, &|d| d.affine.is_some());
    share("posterize", 0.4, &|d| d.posterize == Some(3));
    share("equalize", 0.15, &|d| d.equalize);
    share("vertical flip", 0.3, &|d| d.vertical_flip);
    share("noise", 0.6, &|d| d.noise.is_some());
    share("erase", 0.25, &|d| d.erase.is_some());
    let steps: Vec<_> = draws.iter().filter_map(|d| d.affine).collect();
    let uniform = |what: &str, values: Vec<f64>, low: f64, high: f64| {
        assert!(values.iter().all(|v| (low..=high).contains(v)), "{what}");
        near(what, values, 0.5 * (low + high), (high - low) / 12f64.sqrt());
    };
    uniform("degrees", steps.iter().map(|s| s.degrees).collect(), -30.0, 50.0);
    uniform("shift", steps.iter().map(|s| f64::from(s.translate.0)).collect(), -10.0, 10.0);
    uniform("shift", steps.iter().map(|s| f64::from(s.translate.1)).collect(), -30.0, 30.0);
    uniform("scale", steps.iter().map(|s| s.scale).collect(), 0.8, 1.3);
    uniform("shear", steps.iter().map(|s| s.shear).collect(), -10.0, 5.0);
    uniform("sigma", draws.iter().filter_map(|d| d.noise).map(|s| s.sigma).collect(), 0.02, 0.1);
    // Seldom does a try not fit, so the area is close to uniform.
    let boxes: Vec<_> = draws.iter().filter_map(|d| d.erase).map(|e| e.area).collect();
    assert!(boxes.iter().all(|b| b.x + b.width <= 100 && b.y + b.height <= 100));
    near("erased", boxes.iter().map(|b| (b.width * b.height) as f64 / 1e4).collect(), 0.175, 0.0895);
    near("place", boxes.iter().map(|b| b.x as f64 / (100 - b.width) as f64).collect(), 0.5, 0.29);
}

#[test]
fn noise_has_its_moments_and_its_seed() {
    let augmenter = raw(ViewConfig::plain(100), 3);
    let image = Image::new(100, 100, 3, vec![128; 30_000]).unwrap();
    let noisy = |seed| {
        let noise = Some(NoiseStep { sigma: 0.1, seed });
        render(&augmenter, &image, &ViewParams { noise, ..ViewParams::plain(100, 100) })
    };
    let values = noisy(1);
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 3e4;
    let var = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 3e4;
    assert!((mean - 128.0 / 255.0).abs() < 4.0 * 0.1 / 3e4f64.sqrt(), "{mean}");
    assert!((var - 0.01).abs() < 4.0 * 0.01 * (2.0 / 3e4f64).sqrt(), "{var}");
    assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
    assert_eq!(noisy(1), values);
    assert_ne!(noisy(2), values);
}

#[test]
fn a_full_turn_of_the_hue_comes_back() {
    let image = noise(16, 16, 3, 5);
    let augmenter = raw(ViewConfig::plain(16), 3);
    let plain = ViewParams::plain(16, 16);
    let turned = |turns: f64| {
        let steps =
            [JitterStep::Hue(turns), JitterStep::Hue(0.0), JitterStep::Hue(0.0), JitterStep::Hue(0.0)];
        render(&augmenter, &image, &ViewParams { jitter: Some(steps), ..plain })
    };
    // The hue has 8 bits: 256 / 255 of a turn is none, as a turn by nothing is through the same 8 bits.
    assert_eq!(turned(256.5 / 255.0), turned(1e-9));
    let straight = render(&augmenter, &image, &plain);
    let off = turned(1e-9).into_iter().zip(straight).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0.0, f32::max) <= 8.5 / 255.0);
}

#[test]
fn huge_and_thin_images_give_views() {
    let view = ViewConfig {
        crop: Some(Crop { scale: (0.2, 1.0), ratio: (0.75, 4.0 / 3.0) }),
        filter: Filter::Bicubic,
        ..ViewConfig::plain(32)
    };
    let shapes = [(1, 1), (1, 70_000), (70_000, 1), (6_000, 4_000)];
    for (semantics, (width, height)) in SEMANTICS.into_iter().flat_map(|s| shapes.map(|shape| (s, shape))) {
        let augmenter = raw_as(semantics, view.clone(), 1);
        let image = Image::new(width, height, 1, vec![200; width * height]).unwrap();
        let mut out = vec![f32::NAN; 1024];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let params = augmenter.apply(0, &image, &mut rng, &mut Scratch::default(), &mut out).unwrap();
        assert!(out.iter().all(|v| *v == 200.0 / 255.0), "{width}x{height}");
        let CropBox { x, y, width: w, height: h } = params.crop;
        assert_eq!(params.source_point(0.0, 0.0), (x as f64, y as f64));
        assert_eq!(params.source_point(1.0, 1.0), ((x + w) as f64, (y + h) as f64));
        let mirrored = ViewParams { flip: true, ..params };
        assert_eq!(mirrored.source_point(0.0, 0.0), ((x + w) as f64, y as f64));
    }
}

#[test]
fn the_trait_gives_what_the_type_does() {
    fn first<A: Augment>(augmenter: &A, sample: &A::Sample, seed: u64) -> Vec<f32> {
        let mut out = vec![0.0; augmenter.shape(0).unwrap().iter().product()];
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        augmenter.apply(0, sample, &mut rng, &mut A::Scratch::default(), &mut out).unwrap();
        out
    }
    let augmenter = Augmenter::new(&Recipe::preset("simclr-cifar").unwrap()).unwrap();
    let image = noise(50, 40, 3, 6);
    let mut out = vec![0.0; 3072];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    augmenter.apply(0, &image, &mut rng, &mut Scratch::default(), &mut out).unwrap();
    assert_eq!(first(&augmenter, &image, 7), out);
    assert!(Augment::shape(&augmenter, 2).is_err());
}
