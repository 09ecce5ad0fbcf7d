//! Views per second on one core: `cargo run --release -p infomax-augment --example throughput`.
#![allow(clippy::print_stdout)]

use infomax_augment::{Augmenter, Blur, Filter, Image, Recipe, Scratch};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bilinear = |mut recipe: Recipe| {
        recipe.views.iter_mut().for_each(|v| v.filter = Filter::Bilinear);
        recipe
    };
    let mut large = bilinear(Recipe::preset("vicreg-imagenet-symmetric")?);
    large.views[0].blur = Some(Blur { p: 0.5, sigma: (0.1, 2.0), kernel: Some(23) });
    time("VICReg CIFAR, 32x32 to 32x32, bicubic", &Recipe::preset("vicreg-cifar")?, 32, 32)?;
    time("VICReg CIFAR, 32x32 to 32x32, bilinear", &bilinear(Recipe::preset("vicreg-cifar")?), 32, 32)?;
    time("SimCLR CIFAR, 32x32 to 32x32, bicubic", &Recipe::preset("simclr-cifar")?, 32, 32)?;
    time("VICReg ImageNet, 500x375 to 224x224, bilinear, blur 23 p 0.5", &large, 500, 375)?;
    Ok(())
}

fn time(name: &str, recipe: &Recipe, width: usize, height: usize) -> Result<(), Box<dyn std::error::Error>> {
    let augmenter = Augmenter::new(recipe)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let images: Vec<Image> = (0..8)
        .map(|_| {
            let mut data = vec![0; width * height * 3];
            rng.fill_bytes(&mut data);
            Image::new(width, height, 3, data)
        })
        .collect::<Result<_, _>>()?;
    let (c, h, w) = augmenter.output(0);
    let (mut out, mut scratch) = (vec![0f32; c * h * w], Scratch::default());
    let mut best = 0f64;
    for _ in 0..5 {
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_millis(300) {
            for image in &images {
                augmenter.apply(0, image, &mut rng, &mut scratch, &mut out)?;
                count += 1;
            }
        }
        best = best.max(f64::from(count) / start.elapsed().as_secs_f64());
    }
    println!("{name}: {best:.0} views/s");
    Ok(())
}
