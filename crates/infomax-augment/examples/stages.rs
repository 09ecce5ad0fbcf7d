//! Microseconds that each operation adds to a view of 224 x 224 from 500 x 375, alone, on one core, with the
//! arithmetic of PIL images, of tensors, and of tensors by torchvision's second interface.
//!
//! Run: `cargo run --release -p infomax-augment --example stages`
//!
//! Each figure is the mean over 40 drawn crops of the least of 25 timings, so that other work on the machine
//! shows little.
#![allow(clippy::print_stdout)]

use infomax_augment::{
    AffineStep, Augmenter, Blur, Filter, Image, JitterStep, Recipe, Scratch, Semantics, ViewParams,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::time::Instant;

const ROTATION: AffineStep = AffineStep { degrees: 11.0, translate: (0, 0), scale: 1.0, shear: 0.0 };

type Change = fn(&ViewParams, &mut ViewParams);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stages: [(&str, Change); 10] = [
        ("crop, resize, normalize", |_, _| {}),
        ("flip", |_, p| p.flip = true),
        ("rotation", |_, p| p.affine = Some(ROTATION)),
        ("brightness", |_, p| p.jitter = Some(only(JitterStep::Brightness(1.23)))),
        ("contrast", |_, p| p.jitter = Some(only(JitterStep::Contrast(1.23)))),
        ("saturation", |_, p| p.jitter = Some(only(JitterStep::Saturation(1.13)))),
        ("hue", |_, p| p.jitter = Some(only(JitterStep::Hue(0.07)))),
        ("grayscale", |_, p| p.grayscale = true),
        ("blur", |drawn, p| p.blur = Some(drawn.blur.unwrap_or(1.05))),
        ("solarize", |_, p| p.solarize = Some(128)),
    ];
    let mut recipe = Recipe::preset("vicreg-imagenet-symmetric")?;
    recipe.views[0].filter = Filter::Bilinear;
    recipe.views[0].blur = Some(Blur { p: 1.0, sigma: (0.1, 2.0), kernel: Some(23) });
    let all = [Semantics::Pil, Semantics::Tensor, Semantics::TensorV2];
    let augmenters: Vec<Augmenter> = all
        .map(|semantics| Augmenter::new(&recipe.clone().with_semantics(semantics)))
        .into_iter()
        .collect::<Result<_, _>>()?;
    let image = Image::new(
        500,
        375,
        3,
        (0..500 * 375 * 3).map(|i| ((i * 2_654_435_761_usize) >> 20) as u8).collect(),
    )?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let draws: Vec<ViewParams> =
        (0..40).map(|_| augmenters[0].draw(0, 500, 375, &mut rng)).collect::<Result<_, _>>()?;
    let (mut out, mut scratch) = (vec![0f32; 3 * 224 * 224], Scratch::default());
    let mut plain = [0.0; 3];
    println!("{:24} {:>9} {:>9} {:>9}", "us", "pil", "tensor", "tensor-v2");
    for (i, (name, change)) in stages.iter().enumerate() {
        let mut line = format!("{name:24}");
        for (augmenter, plain) in augmenters.iter().zip(&mut plain) {
            let mut total = 0.0;
            for drawn in &draws {
                let mut params = ViewParams { crop: drawn.crop, ..ViewParams::plain(500, 375) };
                change(drawn, &mut params);
                let mut best = f64::INFINITY;
                for _ in 0..25 {
                    let start = Instant::now();
                    augmenter.render(0, &image, &params, &mut scratch, &mut out)?;
                    best = best.min(start.elapsed().as_secs_f64());
                }
                total += best * 1e6 / draws.len() as f64;
            }
            if i == 0 {
                *plain = total;
                line += &format!(" {total:9.1}");
            } else {
                line += &format!(" {:+9.1}", total - *plain);
            }
        }
        println!("{line}");
    }
    Ok(())
}

fn only(step: JitterStep) -> [JitterStep; 4] {
    let mut steps = [JitterStep::Brightness(1.0); 4];
    steps[0] = step;
    steps
}
