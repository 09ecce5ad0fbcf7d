//! Writes a sheet of shapes, or of views of them, as a PNG:
//! `cargo run --release -p infomax-data --example sheet -- OUT.png [PRESET]`.
#![allow(clippy::print_stdout)]

use infomax_augment::{Augmenter, Recipe, Scratch};
use infomax_core::Key;
use infomax_data::{Dataset, Shapes, ShapesConfig};

const COLUMNS: usize = 20;
const ROWS: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let out = args.next().ok_or("give the name of the PNG file to write")?;
    let preset = args.next();
    let data = Shapes::new(ShapesConfig::default())?;
    let size = data.config().size;
    let mut sheet = image::RgbImage::new((COLUMNS * size) as u32, (ROWS * size) as u32);
    let augmenter = preset
        .map(|name| {
            Recipe::preset(&name)
                .and_then(|r| Augmenter::new(&r.with_size(size).with_normalization(&[0.; 3], &[1.; 3])))
        })
        .transpose()?;
    let mut scratch = Scratch::default();
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let image = data.image(row * COLUMNS + column)?;
            let mut pixels = image.data().to_vec();
            if let Some(augmenter) = &augmenter {
                let mut view = vec![0f32; 3 * size * size];
                let mut rng = Key::new(1).fold_in((row * COLUMNS + column) as u64).rng();
                augmenter.apply(column % augmenter.views(), &image, &mut rng, &mut scratch, &mut view)?;
                for (i, px) in pixels.chunks_exact_mut(3).enumerate() {
                    px.iter_mut()
                        .enumerate()
                        .for_each(|(c, v)| *v = (view[c * size * size + i] * 255.0).round() as u8);
                }
            }
            for (i, px) in pixels.chunks_exact(3).enumerate() {
                let (x, y) = (column * size + i % size, row * size + i / size);
                sheet.put_pixel(x as u32, y as u32, image::Rgb([px[0], px[1], px[2]]));
            }
        }
    }
    sheet.save(&out)?;
    println!("wrote {out}");
    Ok(())
}
