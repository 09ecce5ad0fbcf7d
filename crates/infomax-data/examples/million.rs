//! Start-up and memory with a folder of a million files, made of hard links and removed at the end.
//!
//! Run: `cargo run --release -p infomax-data --example million -- [FILES] [FOLDER]`
#![allow(clippy::print_stdout)]

use infomax_augment::{Augmenter, Recipe};
use infomax_core::{BatchSource as _, Key};
use infomax_data::{Dataset as _, ImageFolder, Loader, LoaderConfig, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let files: usize = args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(1_000_000);
    let root = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let root = root.join(format!("infomax-million-{}", std::process::id()));
    let result = measure(files, &root);
    std::fs::remove_dir_all(&root)?;
    result
}

fn measure(files: usize, root: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    // A thousand files a class, all links to one: file systems limit the links to one file.
    let start = Instant::now();
    for class in 0..files.div_ceil(1000) {
        let folder = root.join(format!("class-{class:04}"));
        std::fs::create_dir_all(&folder)?;
        let image =
            image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8 * 8, y as u8 * 8, class as u8]));
        let first = folder.join("image-0000000.jpg");
        image.save(&first)?;
        for i in 1..1000.min(files - class * 1000) {
            std::fs::hard_link(&first, folder.join(format!("image-{i:07}.jpg")))?;
        }
    }
    println!("made {files} files in {:.1} s", start.elapsed().as_secs_f64());

    let before = resident();
    let start = Instant::now();
    // No memory for decoded images: what grows now is a leak.
    let data = Arc::new(ImageFolder::open(root, &OpenOptions { cache_bytes: 0, ..OpenOptions::default() })?);
    println!(
        "opened {} files, {} classes: {:.2} s, {:.0} MiB",
        data.len(),
        data.classes().len(),
        start.elapsed().as_secs_f64(),
        resident() - before
    );
    let augmenter = Augmenter::new(&Recipe::preset("vicreg-cifar").map_err(|e| e.to_string())?)?;
    let config = LoaderConfig { key: Key::new(0), ..LoaderConfig::default() };
    let mut loader = Loader::new(data, augmenter, config)?;
    let start = Instant::now();
    loader.next_batch()?;
    println!("first batch after {:.2} s; resident {:.0} MiB", start.elapsed().as_secs_f64(), resident());
    for part in 1..=8 {
        for _ in 0..50 {
            loader.next_batch()?;
        }
        println!("{:6} images: resident {:.0} MiB", part * 50 * 256, resident());
    }
    println!("{:.0} images/s", 400.0 * 256.0 / start.elapsed().as_secs_f64());
    Ok(())
}

/// MiB of memory in use; 0 where the system does not tell.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: Option<f64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}
