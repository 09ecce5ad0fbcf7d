//! JPEG files to augmented batches; the same work as `benches/peers/loader.py` does in Python.
//!
//! Run: `cargo run --release -p infomax-data --example loader -- --data DIR`
#![allow(clippy::print_stdout)]

use infomax_augment::{Augmenter, Blur, Filter, Recipe, Scratch};
use infomax_core::{BatchSource as _, Key};
use infomax_data::{
    FolderOptions, ImageFolder, Limits, Loader, LoaderConfig, Subset, Verify, decode, decode_part, probe,
};
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().skip_while(|a| a != "--data").nth(1).ok_or("give --data DIR")?;
    let folder = PathBuf::from(folder);
    let train = folder.join("train");
    decode_and_view()?;
    let folder = if train.is_dir() { train } else { folder };
    load(&folder, "", 0)?;
    load(&folder, ", decoded once and kept", 1 << 30)?;
    Ok(())
}

fn bilinear(name: &str) -> infomax_augment::Result<Recipe> {
    let mut recipe = Recipe::preset(name)?;
    recipe.views.iter_mut().for_each(|v| v.filter = Filter::Bilinear);
    Ok(recipe)
}

fn decode_and_view() -> Result<(), Box<dyn std::error::Error>> {
    let image = image::RgbImage::from_fn(500, 375, |x, y| {
        let wave = |c: f64| (0.05 * (c + 1.0) * f64::from(x)).sin() + (0.07 * f64::from(y) + c).cos();
        image::Rgb([0.0, 1.0, 2.0].map(|c| (127.0 + 60.0 * wave(c)) as u8))
    });
    // As Pillow saves it: quality 90, chroma at half the resolution.
    let bytes = compress(image.as_raw(), 500, 375, PixelFormat::Rgb, 90, Subsampling::S420)?;
    let mut recipe = bilinear("vicreg-imagenet-symmetric")?;
    recipe.views[0].blur = Some(Blur { p: 0.5, sigma: (0.1, 2.0), kernel: Some(23) });
    let augmenter = Augmenter::new(&recipe)?;
    let (mut out, mut scratch) = (vec![0f32; 3 * 224 * 224], Scratch::default());
    let mut rng = Key::new(1).rng();
    let limits = Limits::default();
    let whole = rate(&mut || {
        decode(&bytes, limits)?;
        Ok(())
    })?;
    println!("JPEG 500x375 decoded (PIL): {whole:.1} images/s");
    let mut part_of_view = |render: bool| {
        rate(&mut || {
            // What the loader does: the crop is drawn first, and only what it needs is decoded.
            let header = probe(&bytes, limits)?;
            let mut params = augmenter.draw(0, header.width, header.height, &mut rng)?;
            let part = decode_part(&bytes, limits, params.crop)?;
            if render {
                params.crop.x -= part.x;
                params.crop.y -= part.y;
                augmenter.render(0, &part.image, &params, &mut scratch, &mut out)?;
            }
            Ok(())
        })
    };
    let (part, view) = (part_of_view(false)?, part_of_view(true)?);
    println!("JPEG 500x375 decoded as far as a VICReg view sees it (PIL): {part:.1} images/s");
    for library in ["torchvision", "albumentations"] {
        println!("JPEG 500x375 decoded, one VICReg view 224x224 ({library}): {view:.1} images/s");
    }
    Ok(())
}

type Work<'a> = &'a mut dyn FnMut() -> Result<(), Box<dyn std::error::Error>>;

/// The best of several timings, in calls per second.
fn rate(work: Work<'_>) -> Result<f64, Box<dyn std::error::Error>> {
    let mut best = 0f64;
    for _ in 0..5 {
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < Duration::from_millis(300) {
            work()?;
            count += 1;
        }
        best = best.max(f64::from(count) / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn load(folder: &std::path::Path, how: &str, cache_bytes: usize) -> Result<(), Box<dyn std::error::Error>> {
    let verify = if cache_bytes == 0 { Verify::Never } else { Verify::Auto };
    let data = ImageFolder::open(folder, &FolderOptions { cache_bytes, verify, ..FolderOptions::default() })?;
    let count = 10_000.min(infomax_data::Dataset::len(&data));
    let data = Arc::new(Subset::balanced(Arc::new(data), count, Key::new(0))?);
    let augmenter = Augmenter::new(&bilinear("vicreg-cifar")?)?;
    let mut loader = Loader::new(data, augmenter, LoaderConfig { workers: 2, ..LoaderConfig::default() })?;
    let start = Instant::now();
    for _ in 0..loader.batches_per_epoch() {
        loader.next_batch()?;
    }
    let rate = loader.samples_per_epoch() as f64 / start.elapsed().as_secs_f64();
    println!(
        "folder of JPEG files{how}, two VICReg views 32x32, batch 256, 2 workers (torchvision): {rate:.1} images/s"
    );
    Ok(())
}
