//! Views per second on one core; the same work as `benches/peers/augment.py` does in Python.
//!
//! Run: `cargo run --release -p infomax-augment --example throughput`
#![allow(clippy::print_stdout)]

use infomax_augment::{Augmenter, Blur, Filter, Image, Recipe, Scratch, Semantics};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bilinear = |mut recipe: Recipe| {
        recipe.views.iter_mut().for_each(|v| v.filter = Filter::Bilinear);
        recipe
    };
    let small = bilinear(Recipe::preset("vicreg-cifar")?);
    let mut large = bilinear(Recipe::preset("vicreg-imagenet-symmetric")?);
    large.views[0].blur = Some(Blur { p: 0.5, sigma: (0.1, 2.0), kernel: Some(23) });
    // One measurement stands beside each of the two libraries.
    let rows = [
        ("VICReg 32x32 from 32x32", &small, 32, 32),
        ("VICReg 224x224 from 500x375, blur 23", &large, 500, 375),
    ];
    for (name, recipe, width, height) in rows {
        let rate = rate(recipe, width, height)?;
        println!("{name} (torchvision): {rate:.1} views/s");
        println!("{name} (albumentations): {rate:.1} views/s");
    }
    // The arithmetic of tensors, beside torchvision on tensors.
    for (name, recipe, width, height) in rows {
        for (semantics, peer) in [
            (Semantics::Tensor, "torchvision on tensors"),
            (Semantics::TensorV2, "torchvision v2 on tensors"),
        ] {
            let rate = rate(&recipe.clone().with_semantics(semantics), width, height)?;
            println!("{name} ({peer}): {rate:.1} views/s");
        }
    }
    let cubic = Recipe::preset("vicreg-cifar")?;
    println!("VICReg 32x32 from 32x32, bicubic: {:.1} views/s", rate(&cubic, 32, 32)?);
    println!(
        "SimCLR 32x32 from 32x32, bicubic: {:.1} views/s",
        rate(&Recipe::preset("simclr-cifar")?, 32, 32)?
    );
    Ok(())
}

/// The best of several timings.
fn rate(recipe: &Recipe, width: usize, height: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let augmenter = Augmenter::new(recipe)?;
    let image = picture(width, height)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (c, h, w) = augmenter.output(0);
    let (mut out, mut scratch) = (vec![0f32; c * h * w], Scratch::default());
    let mut best = 0f64;
    for _ in 0..5 {
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_millis(300) {
            augmenter.apply(0, &image, &mut rng, &mut scratch, &mut out)?;
            count += 1;
        }
        best = best.max(f64::from(count) / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Waves, the same formula as in the Python script.
fn picture(width: usize, height: usize) -> infomax_augment::Result<Image> {
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let wave = (0.05 * (c + 1) as f64 * x as f64).sin() + (0.07 * y as f64 + c as f64).cos();
                data.push((127.0 + 60.0 * wave) as u8);
            }
        }
    }
    Image::new(width, height, 3, data)
}
