//! Every operation against torchvision on PIL images and on tensors, with the same parameters.
//!
//! `golden/generate.py` made the expected pixels and records the versions. Against PIL images all must be
//! equal, except for the blur, which may be off by one gray level. With the semantics of tensors all must equal
//! torchvision on tensors, by either of its interfaces, with the same exception. Cases named `tensor: ` without
//! a semantics hold how far the arithmetic of PIL images is off from that of tensors.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_augment::{
    Affine, AffineStep, Augmenter, Blur, CropBox, EraseFill, EraseStep, Filter, Image, JitterStep, Recipe,
    Sampling, Scratch, Semantics, ViewConfig, ViewParams,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    normalize: Vec<Normalize>,
    all_colors: Vec<AllColors>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
    expected: usize,
}

/// A checksum of what an operation makes of all colors.
#[derive(Deserialize)]
struct AllColors {
    semantics: Semantics,
    kind: String,
    value: f64,
    sum: u64,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    width: usize,
    height: usize,
    channels: usize,
    input: usize,
    size: usize,
    crop: [usize; 4],
    filter: Filter,
    tolerance: u8,
    expected: usize,
    #[serde(default)]
    jitter: Vec<(String, f64)>,
    #[serde(default)]
    grayscale: bool,
    sigma: Option<f64>,
    kernel: Option<usize>,
    solarize: Option<u8>,
    #[serde(default)]
    flip: bool,
    #[serde(default)]
    vertical_flip: bool,
    resize: Option<usize>,
    affine: Option<AffineStep>,
    #[serde(default)]
    sampling: Sampling,
    #[serde(default)]
    fill: u8,
    posterize: Option<u8>,
    #[serde(default)]
    equalize: bool,
    erase: Option<[usize; 4]>,
    #[serde(default)]
    level: u8,
    #[serde(default)]
    semantics: Semantics,
}

fn step(kind: &str, value: f64) -> JitterStep {
    match kind {
        "brightness" => JitterStep::Brightness(value as f32),
        "contrast" => JitterStep::Contrast(value as f32),
        "saturation" => JitterStep::Saturation(value as f32),
        "hue" => JitterStep::Hue(value),
        other => panic!("{other}"),
    }
}

impl Case {
    fn params(&self) -> ViewParams {
        let [x, y, width, height] = self.crop;
        // Steps of strength zero fill up to four.
        let mut jitter = [JitterStep::Brightness(1.0); 4];
        for (slot, (kind, value)) in jitter.iter_mut().zip(&self.jitter) {
            *slot = step(kind, *value);
        }
        ViewParams {
            crop: CropBox { x, y, width, height },
            flip: self.flip,
            vertical_flip: self.vertical_flip,
            jitter: Some(jitter),
            grayscale: self.grayscale,
            blur: self.sigma,
            solarize: self.solarize,
            affine: self.affine,
            posterize: self.posterize,
            equalize: self.equalize,
            noise: None,
            erase: self.erase.map(|[x, y, width, height]| EraseStep {
                area: CropBox { x, y, width, height },
                fill: EraseFill::Value(f32::from(self.level) / 255.0),
                seed: 0,
            }),
        }
    }

    fn run(&self, scratch: &mut Scratch, pixels: &[u8]) -> (u8, usize) {
        let bytes = self.width * self.height * self.channels;
        let input = pixels[self.input..self.input + bytes].to_vec();
        let image = Image::new(self.width, self.height, self.channels, input).unwrap();
        let view = ViewConfig {
            filter: self.filter,
            resize: self.resize,
            affine: Some(Affine {
                p: 1.0,
                degrees: (0.0, 0.0),
                translate: (0.0, 0.0),
                scale: (1.0, 1.0),
                shear: (0.0, 0.0),
                sampling: self.sampling,
                fill: self.fill,
            }),
            blur: self.kernel.map(|k| Blur { p: 1.0, sigma: (0.1, 2.0), kernel: Some(k) }),
            ..ViewConfig::plain(self.size)
        };
        let (mean, std) = (vec![0.0; self.channels], vec![1.0; self.channels]);
        let semantics = self.semantics;
        let augmenter = Augmenter::new(&Recipe { mean, std, semantics, views: vec![view] }).unwrap();
        let mut out = vec![0f32; self.channels * self.size * self.size];
        augmenter.render(0, &image, &self.params(), scratch, &mut out).unwrap();
        let expected = &pixels[self.expected..self.expected + out.len()];
        let (mut worst, mut count) = (0, 0);
        for (i, want) in expected.iter().enumerate() {
            let (pixel, c) = (i / self.channels, i % self.channels);
            let got = (out[c * self.size * self.size + pixel] * 255.0).round() as u8;
            worst = worst.max(got.abs_diff(*want));
            count += usize::from(got != *want);
        }
        (worst, count)
    }
}

#[test]
fn operations_equal_torchvision() {
    let golden: Golden = serde_json::from_str(include_str!("golden/cases.json")).unwrap();
    let pixels = include_bytes!("golden/pixels.bin");
    assert!(golden.cases.len() > 600);
    // One scratch for all: nothing may be left behind by an earlier view.
    let mut scratch = Scratch::default();
    let wrong: Vec<_> = golden
        .cases
        .iter()
        .filter_map(|case| {
            let (worst, count) = case.run(&mut scratch, pixels);
            (worst > case.tolerance)
                .then(|| format!("{}: {count} values differ, by up to {worst}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn normalization_equals_torch_to_the_bit() {
    let golden: Golden = serde_json::from_str(include_str!("golden/cases.json")).unwrap();
    let pixels = include_bytes!("golden/pixels.bin");
    let ramp: Vec<u8> = (0..=255).flat_map(|v| [v; 3]).collect();
    let image = Image::new(16, 16, 3, ramp).unwrap();
    for Normalize { mean, std, expected } in golden.normalize {
        let recipe = Recipe { mean, std, semantics: Semantics::Pil, views: vec![ViewConfig::plain(16)] };
        let augmenter = Augmenter::new(&recipe).unwrap();
        let mut out = vec![0f32; 768];
        augmenter.render(0, &image, &ViewParams::plain(16, 16), &mut Scratch::default(), &mut out).unwrap();
        let want = pixels[expected..expected + 4 * 768].as_chunks().0;
        for (i, (got, want)) in out.iter().zip(want).enumerate() {
            assert_eq!(got.to_bits(), u32::from_le_bytes(*want), "value {i} of {:?}", recipe.mean);
        }
    }
}

/// torchvision's operations on tensors, by both of its interfaces, of all 16,777,216 colors.
#[test]
fn every_color_equals_torchvision_on_tensors() {
    let golden: Golden = serde_json::from_str(include_str!("golden/cases.json")).unwrap();
    assert!(golden.all_colors.len() > 15);
    let side = 1 << 16;
    let mut scratch = Scratch::default();
    let mut out = vec![0f32; 3 * side];
    let mut wrong = Vec::new();
    for AllColors { semantics, kind, value, sum } in &golden.all_colors {
        let (mean, std, semantics) = (vec![0.0; 3], vec![1.0; 3], *semantics);
        let recipe = Recipe { mean, std, semantics, views: vec![ViewConfig::plain(256)] };
        let augmenter = Augmenter::new(&recipe).unwrap();
        let mut params = ViewParams::plain(256, 256);
        if kind == "grayscale" {
            params.grayscale = true;
        } else {
            let mut jitter = [JitterStep::Brightness(1.0); 4];
            jitter[0] = step(kind, *value);
            params.jitter = Some(jitter);
        }
        let mut total = 0u64;
        for red in 0..=255u8 {
            let pixels = (0..side).flat_map(|i| [red, (i >> 8) as u8, i as u8]).collect();
            let image = Image::new(256, 256, 3, pixels).unwrap();
            augmenter.render(0, &image, &params, &mut scratch, &mut out).unwrap();
            let places = (0..).map(|i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C16).wrapping_add(1));
            let bytes = out.iter().map(|v| u64::from((v * 255.0 + 0.5) as u8));
            let part = bytes.zip(places).fold(0u64, |sum, (v, w)| sum.wrapping_add(v.wrapping_mul(w)));
            total = total.wrapping_mul(31).wrapping_add(part);
        }
        if total != *sum {
            wrong.push(format!("{semantics:?} {kind} {value}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
