//! `infomax data preview`: a sheet of views, and what was drawn for each.

use crate::args::ConfigSource;
use crate::{Status, print};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use infomax_augment::{Augmenter, CropBox, Image, Recipe, Scratch, ViewParams};
use infomax_core::Key;
use infomax_run::{Images, RunConfig, config};
use serde::Serialize;
use std::path::{Path, PathBuf};

pub(super) const EXAMPLES: &str = "Examples:\n  infomax data preview --out views.png                               the embedded data set and its recipe\n  infomax data preview --data photos/ --preset vicreg-imagenet --out views.png\n  infomax data preview --data photos/ --preset simclr-cifar@96 --rows 12 --seed 3 --out views.png\n  infomax data preview --config my.toml --out views.png              the recipe of a run, [augment.recipe] too\n  infomax data preview --set augment.semantics=tensor --out views.png  as torchvision on tensors\n  infomax data preview --list                                        the presets\n\nEach row is one image, with the boxes of its crops, and then its views. Beside FILE.png, FILE.json holds the\nparameters that were drawn. A training run of the same seed sees the same views in the same epoch.";

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// The PNG file to write; the parameters go into a JSON file of the same name beside it.
    #[arg(long, value_name = "FILE.png", required_unless_present = "list")]
    out: Option<PathBuf>,
    /// Images, as for `infomax pretrain` [default: the embedded data set].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A preset, NAME or NAME@SIZE, instead of the recipe of the configuration.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// A TOML file, as for `infomax pretrain`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one value, for example `augment.size=64`; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// How many images are shown, spread over the data set.
    #[arg(long, value_name = "N", default_value_t = 8)]
    rows: usize,
    /// The seed, as of a run.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The epoch, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    epoch: u64,
    /// Print the parameters (or, with --list, the presets) as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// List the presets.
    #[arg(long)]
    list: bool,
}

/// What was drawn for the whole sheet.
#[derive(Debug, Serialize)]
struct Sheet {
    data: String,
    recipe: Recipe,
    seed: u64,
    epoch: u64,
    images: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    index: usize,
    class: Option<String>,
    width: usize,
    height: usize,
    views: Vec<ViewParams>,
}

pub(super) fn run(args: &PreviewArgs) -> Result<Status> {
    if args.list {
        return list(args.json);
    }
    let out = args.out.as_deref().context("--out FILE.png says where the sheet goes")?;
    if args.rows == 0 {
        bail!("--rows 0: a sheet shows at least one image");
    }
    let source = ConfigSource {
        config: args.config.clone(),
        data: args.data.clone(),
        set: args.set.clone(),
        seed: args.seed,
        ..ConfigSource::default()
    };
    let mut config = RunConfig::resolve(&config::layers(&source.origins())?)?;
    let images = Images::open(&config.data)?;
    config.settle(&images)?;
    let recipe = match &args.preset {
        Some(name) => {
            let mut recipe = Recipe::preset(name).context("--preset (--list shows all)")?;
            let sets = |key: &str| args.set.iter().any(|set| set.trim_start().starts_with(key));
            if sets("augment.preset") || sets("augment.recipe") {
                bail!(
                    "--preset {name} and --set augment.preset or augment.recipe both say what the views are"
                );
            }
            if let Some(size) = config.augment.size.filter(|_| sets("augment.size")) {
                if name.contains('@') {
                    bail!("--preset {name} has a size already; leave it or augment.size = {size} out");
                }
                recipe = recipe.with_size(size);
            }
            config.augment.with_settings(recipe)
        }
        None => config.augment.resolve()?,
    };
    let augmenter = Augmenter::new(&recipe)?;
    let (train, seed) = (&images.train, config.train.run.seed);
    // The key of the loader of a run: `infomax pretrain` draws the same views.
    let key = Key::new(seed).fold_named("data").fold_named("augment").fold_in(args.epoch);

    let rows = args.rows.min(train.len());
    let cell = (0..augmenter.views()).map(|v| augmenter.output(v).1).max().unwrap_or(1);
    let mut canvas = Canvas::new(augmenter.views() + 1, rows, cell)?;
    let mut scratch = Scratch::default();
    let mut described = Vec::with_capacity(rows);
    for row in 0..rows {
        let index = row * train.len() / rows;
        let mut image = train.image(index)?;
        if image.channels() != augmenter.channels() {
            image = image.to_channels(augmenter.channels())?;
        }
        let mut params = Vec::with_capacity(augmenter.views());
        for view in 0..augmenter.views() {
            let (channels, size, _) = augmenter.output(view);
            let mut pixels = vec![0f32; channels * size * size];
            let mut rng = key.fold_in(index as u64).fold_in(view as u64).rng();
            params.push(augmenter.apply(view, &image, &mut rng, &mut scratch, &mut pixels)?);
            canvas.view(view + 1, row, &pixels, size, &recipe);
        }
        canvas.original(row, &image, &params);
        let class = train.label(index).and_then(|l| train.classes().get(l as usize).cloned());
        let (width, height) = (image.width(), image.height());
        described.push(Row { index, class, width, height, views: params });
    }

    canvas.write(out)?;
    let sheet = Sheet { data: train.name(), recipe, seed, epoch: args.epoch, images: described };
    let text = serde_json::to_string_pretty(&sheet)?;
    let beside = out.with_extension("json");
    std::fs::write(&beside, &text).with_context(|| format!("could not write {}", beside.display()))?;
    if args.json {
        print(&text)?;
    } else {
        print(&format!(
            "{}: {rows} images of {} and {} views of each; {}: their parameters",
            out.display(),
            sheet.data,
            augmenter.views(),
            beside.display()
        ))?;
    }
    Ok(Status::Done)
}

fn list(json: bool) -> Result<Status> {
    let mut rows = Vec::new();
    for preset in Recipe::presets() {
        let recipe = Recipe::preset(preset.name)?;
        let sizes: Vec<String> = recipe.views.iter().map(|v| format!("{}x{}", v.count, v.size)).collect();
        rows.push((preset, sizes, recipe));
    }
    if json {
        let all: Vec<_> = rows
            .iter()
            .map(|(p, _, recipe)| serde_json::json!({"name": p.name, "source": p.source, "recipe": recipe}))
            .collect();
        print(&serde_json::to_string_pretty(&all)?)?;
    } else {
        for (preset, sizes, _) in rows {
            print(&format!("{:<28} {:<16} {}", preset.name, sizes.join(" + "), preset.source))?;
        }
        print("\nNAME@SIZE is the same recipe at another size, in pixels of its largest view.")?;
    }
    Ok(Status::Done)
}

/// The lines of the boxes of the first views; more views take them in turn.
const COLORS: [[u8; 3]; 4] = [[230, 60, 60], [60, 110, 230], [240, 190, 40], [60, 170, 90]];
/// Pixels between the cells.
const GAP: usize = 2;
/// The longest side of a sheet.
const MOST: usize = 32_768;

/// A sheet of square cells.
struct Canvas {
    width: usize,
    height: usize,
    cell: usize,
    pixels: Vec<[u8; 3]>,
}

impl Canvas {
    fn new(columns: usize, rows: usize, cell: usize) -> Result<Self> {
        let (width, height) = (columns * (cell + GAP) + GAP, rows * (cell + GAP) + GAP);
        if width > MOST || height > MOST {
            bail!("the sheet would have {width}x{height} pixels, more than {MOST} a side; use fewer --rows");
        }
        Ok(Self { width, height, cell, pixels: vec![[255; 3]; width * height] })
    }

    fn put(&mut self, (column, row): (usize, usize), (x, y): (usize, usize), color: [u8; 3]) {
        let (x, y) = (GAP + column * (self.cell + GAP) + x, GAP + row * (self.cell + GAP) + y);
        self.pixels[y * self.width + x] = color;
    }

    /// A view, with its normalization undone, in the middle of its cell.
    fn view(&mut self, column: usize, row: usize, view: &[f32], size: usize, recipe: &Recipe) {
        let planes: Vec<&[f32]> = view.chunks_exact(size * size).collect();
        let margin = (self.cell - size) / 2;
        for i in 0..size * size {
            let value = |c: usize| {
                let c = c.min(planes.len() - 1);
                ((planes[c][i] * recipe.std[c] + recipe.mean[c]) * 255.0).round().clamp(0.0, 255.0) as u8
            };
            let color = if planes.len() < 3 { [value(0); 3] } else { [value(0), value(1), value(2)] };
            self.put((column, row), (margin + i % size, margin + i / size), color);
        }
    }

    /// The image, fitted into its cell, with the boxes of the crops.
    fn original(&mut self, row: usize, image: &Image, params: &[ViewParams]) {
        let scale = self.cell as f64 / image.width().max(image.height()) as f64;
        let side = |n: usize| ((n as f64 * scale).round() as usize).clamp(1, self.cell);
        let (width, height) = (side(image.width()), side(image.height()));
        for y in 0..height {
            for x in 0..width {
                let at = (x * image.width() / width, y * image.height() / height);
                let px = image.pixel(at.0, at.1).unwrap_or(&[0]);
                let color = if px.len() < 3 { [px[0]; 3] } else { [px[0], px[1], px[2]] };
                self.put((0, row), (x, y), color);
            }
        }
        for (view, params) in params.iter().enumerate() {
            let CropBox { x, y, width: w, height: h } = params.crop;
            let scaled = |from: usize, n: usize, most: usize| {
                let end = ((from + n) as f64 * scale).round() as usize;
                ((from as f64 * scale) as usize, end.clamp(1, most) - 1)
            };
            let ((x0, x1), (y0, y1)) = (scaled(x, w, width), scaled(y, h, height));
            let color = COLORS[view % COLORS.len()];
            for x in x0..=x1 {
                self.put((0, row), (x, y0.min(y1)), color);
                self.put((0, row), (x, y1), color);
            }
            for y in y0..=y1 {
                self.put((0, row), (x0.min(x1), y), color);
                self.put((0, row), (x1, y), color);
            }
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let context = || format!("could not write {}", path.display());
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().with_context(context)?;
        writer.write_image_data(self.pixels.as_flattened()).with_context(context)?;
        writer.finish().with_context(context)?;
        std::fs::write(path, bytes).with_context(context)
    }
}
