//! How the cost of the objectives grows: time of forward and backward over `n` and over `d`, as a plot.
//!
//! `cargo run --release -p infomax-losses --example scaling [FILE]` writes an SVG file, `docs/losses-scaling.svg`
//! unless named. Times are the least of several, f32, all threads of the machine.

use candle_core::{DType, Device, Var};
use infomax_core::{Context, Embeddings, Key};
use infomax_losses::ObjectiveConfig;
use std::fmt::Write as _;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Objectives with a color each.
const NAMES: &[(&str, &str)] = &[
    ("vicreg", "#0072b2"),
    ("barlow-twins", "#d55e00"),
    ("vicreg-logdet", "#009e73"),
    ("simclr", "#cc79a7"),
    ("vicreg-pairdist-kl", "#e69f00"),
    ("lejepa", "#56b4e9"),
];

const SIZES: &[usize] = &[64, 128, 256, 512, 1024, 2048, 4096];

/// Panels: the title, and `(n, d)` from the size.
type Shape = fn(usize) -> (usize, usize);
const PANELS: &[(&str, Shape)] = &[("d at n = 256", |s| (256, s)), ("n at d = 512", |s| (s, 512))];

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;

#[allow(clippy::print_stdout)] // An example prints.
fn main() -> Outcome<()> {
    infomax_kernels::keep_freed_memory();
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/losses-scaling.svg").to_owned();
    let file = std::env::args().nth(1).unwrap_or(default);
    let mut panels = Vec::new();
    for (title, shape) in PANELS {
        let mut curves = Vec::new();
        for (name, color) in NAMES {
            let mut points = Vec::new();
            for size in SIZES {
                let (n, d) = shape(*size);
                let ms = time(name, n, d)?;
                println!("{name} n={n} d={d}: {ms:.3} ms");
                points.push((*size as f64, ms));
            }
            curves.push((*name, *color, points));
        }
        panels.push((*title, curves));
    }
    std::fs::write(&file, svg(&panels)?)?;
    println!("wrote {file}");
    Ok(())
}

fn time(name: &str, n: usize, d: usize) -> Outcome<f64> {
    let objective = ObjectiveConfig::named(name)?.build()?;
    let view = |seed| -> Outcome<Var> {
        Ok(Var::from_tensor(&Key::new(seed).normal(0.0, 1.0, (n, d), DType::F32, &Device::Cpu)?)?)
    };
    let (a, b) = (view(1)?, view(2)?);
    let z = Embeddings::pair(a.as_tensor().clone(), b.as_tensor().clone())?;
    let (mut best, begin, mut count) = (f64::INFINITY, Instant::now(), 0);
    while count < 3 || (count < 30 && begin.elapsed().as_secs_f64() < 0.3) {
        let start = Instant::now();
        objective.evaluate(&z, &Context::standalone())?.total.backward()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
        count += 1;
    }
    Ok(best)
}

type Curves = Vec<(&'static str, &'static str, Vec<(f64, f64)>)>;

/// Both axes are logarithmic, in powers of two and of ten.
fn svg(panels: &[(&str, Curves)]) -> Result<String, std::fmt::Error> {
    let values = || panels.iter().flat_map(|(_, c)| c).flat_map(|(_, _, p)| p).map(|p| p.1);
    let low = values().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values().fold(0.0, f64::max).log10().ceil();
    let (first, last) = (SIZES[0] as f64, SIZES[SIZES.len() - 1] as f64);
    let x = |v: f64| LEFT + (v / first).log2() / (last / first).log2() * WIDTH;
    let y = |v: f64| TOP + (high - v.log10()) / (high - low) * HEIGHT;
    let (pitch, total) = (WIDTH + LEFT + 30.0, TOP + HEIGHT + 90.0);
    let mut out = String::new();
    writeln!(out, "<!-- cargo run --release -p infomax-losses --example scaling -->")?;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {total}\" font-family=\"sans-serif\" font-size=\"12\">",
        pitch * panels.len() as f64
    )?;
    writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>")?;
    for (p, (title, curves)) in panels.iter().enumerate() {
        writeln!(out, "<g transform=\"translate({},0)\">", pitch * p as f64)?;
        let middle = LEFT + WIDTH / 2.0;
        writeln!(
            out,
            "<text x=\"{middle}\" y=\"24\" text-anchor=\"middle\" font-size=\"14\">{title}</text>"
        )?;
        for size in SIZES {
            let at = x(*size as f64);
            let (top, bottom) = (TOP, TOP + HEIGHT);
            writeln!(out, "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>")?;
            writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{size}</text>",
                bottom + 16.0
            )?;
        }
        for power in low as i32..=high as i32 {
            let at = y(10f64.powi(power));
            writeln!(out, "<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/>")?;
            let label = 10f64.powi(power);
            writeln!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label} ms</text>",
                LEFT - 4.0,
                at + 4.0
            )?;
        }
        for (_, color, points) in curves {
            let path: Vec<String> =
                points.iter().map(|(s, ms)| format!("{:.1},{:.1}", x(*s), y(*ms))).collect();
            writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
                path.join(" ")
            )?;
        }
        writeln!(out, "</g>")?;
    }
    for (i, (name, color)) in NAMES.iter().enumerate() {
        let (at, line) = (LEFT + 150.0 * i as f64, TOP + HEIGHT + 50.0);
        writeln!(out, "<rect x=\"{at}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{color}\"/>", line - 6.0)?;
        writeln!(out, "<text x=\"{}\" y=\"{line}\">{name}</text>", at + 20.0)?;
    }
    writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{}\">forward and backward of two views, f32; least of several runs</text>",
        TOP + HEIGHT + 76.0
    )?;
    writeln!(out, "</svg>")?;
    Ok(out)
}
