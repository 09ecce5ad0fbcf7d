//! Images and batches per second: `cargo run --release -p infomax-data --example shapes_throughput [-- FOLDER]`.
//!
//! Prints how fast shapes are drawn on one core, and how fast a loader with two workers delivers
//! VICReg views of them, or of the images below FOLDER, as tensors.
#![allow(clippy::print_stdout)]

use infomax_augment::{Augmenter, Recipe};
use infomax_core::{BatchSource as _, Key};
use infomax_data::{Dataset, FolderOptions, ImageFolder, Loader, LoaderConfig, Shapes, ShapesConfig};
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shapes = Shapes::new(ShapesConfig { len: 20_000, cache_bytes: 0, ..ShapesConfig::default() })?;
    let start = Instant::now();
    for i in 0..shapes.len() {
        shapes.image(i)?;
    }
    println!("shapes, one core: {:.0} images/s", shapes.len() as f64 / start.elapsed().as_secs_f64());
    load("shapes, drawn every time", Arc::new(shapes))?;
    if let Some(folder) = std::env::args_os().nth(1) {
        for (name, cache_bytes) in [("folder, decoded every time", 0), ("folder, decoded once", 1 << 30)] {
            let start = Instant::now();
            let data =
                ImageFolder::open(&folder, &FolderOptions { cache_bytes, ..FolderOptions::default() })?;
            println!("{}, opened in {:.2} s", data.describe(), start.elapsed().as_secs_f64());
            load(name, Arc::new(data))?;
        }
    }
    Ok(())
}

fn load(name: &str, data: Arc<dyn Dataset>) -> Result<(), Box<dyn std::error::Error>> {
    let augmenter = Augmenter::new(&Recipe::preset("vicreg-cifar")?)?;
    let config = LoaderConfig { workers: 2, key: Key::new(1), ..LoaderConfig::default() };
    let mut loader = Loader::new(data, augmenter, config)?;
    let start = Instant::now();
    for _ in 0..loader.batches_per_epoch() {
        loader.next_batch()?;
    }
    let (s, stats) = (start.elapsed().as_secs_f64(), loader.stats());
    println!(
        "{name}, loader with 2 workers: {:.0} samples/s (2 views each); decode {:.2} s, augment {:.2} s",
        stats.samples as f64 / s,
        stats.decode_s,
        stats.augment_s
    );
    Ok(())
}
