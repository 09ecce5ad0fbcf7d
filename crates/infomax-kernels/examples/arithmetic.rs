//! What multiplies bf16 fastest on this machine: every arithmetic that it has, for convolutions and linear layers, beside
//! what `auto` takes. GFLOP/s of the direct form; the last column says where `auto` is not the fastest. It is what the rules
//! of `images::conv` and `infomax_simd::tiles::Cost` are fitted to.
//!
//! `cargo run --release -p infomax-kernels --example arithmetic [batch]`

#![allow(clippy::print_stdout)]

mod common;

use candle_core::{Tensor, Var};
use common::{noise, seconds};
use infomax_kernels::{Arithmetic, Blocked, Conv2dConfig, CpuProducts, Single, linear, no_amx};

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

const FORMS: [(Arithmetic, &str); 4] = [
    (Arithmetic::F32, "f32"),
    (Arithmetic::Pairs, "pairs"),
    (Arithmetic::Tiles, "tiles"),
    (Arithmetic::Auto, "auto"),
];

/// Prints the GFLOP/s of each form; `split`: of products of f32.
fn row(
    name: &str,
    gflop: f64,
    split: bool,
    run: &dyn Fn() -> infomax_kernels::Result<()>,
) -> infomax_kernels::Result<()> {
    let mut found = [None; FORMS.len()];
    for (found, (arithmetic, _)) in found.iter_mut().zip(FORMS) {
        // Split products in pairs are products in f32.
        let same = split && arithmetic == Arithmetic::Pairs;
        let single = if split { Single::Split } else { Single::Exact };
        if !same && (CpuProducts { arithmetic, single }).apply().is_ok() {
            *found = Some(gflop / seconds(run)?);
        }
    }
    CpuProducts::default().apply()?;
    let best = found.iter().flatten().fold(0f64, |m, x| m.max(*x));
    let cells = found.map(|x| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.0}")));
    let auto = found[FORMS.len() - 1].unwrap_or(best);
    let loss = if auto < 0.95 * best { format!("{:.2} of the fastest", auto / best) } else { String::new() };
    println!("| {name} | {} | {loss} |", cells.join(" | "));
    Ok(())
}

fn main() -> infomax_kernels::Result<()> {
    let batch: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(64);
    println!(
        "batch {batch}, {} threads; bf16 by {}",
        rayon::current_num_threads(),
        CpuProducts::default().in_words()
    );
    if let Some(why) = no_amx() {
        println!("no tiles: {why}");
    }
    let names = FORMS.map(|(_, name)| name).join(" | ");
    println!("| work, GFLOP/s | {names} | where auto loses |\n|---|{}", "---|".repeat(FORMS.len() + 1));
    let shapes = [
        (16, 32, 3, 1),
        (32, 16, 3, 1),
        (64, 32, 3, 1),
        (64, 32, 3, 2),
        (128, 16, 3, 1),
        (256, 8, 3, 1),
        (512, 4, 3, 1),
        (256, 14, 1, 1),
        (64, 56, 1, 1),
    ];
    for (c, side, kernel, stride) in shapes {
        let cfg = Conv2dConfig { padding: kernel / 2, stride, ..Default::default() };
        let (weight, maps) = (noise(&[c, c, kernel, kernel])?, noise(&[batch, c, side, side])?);
        let out = (side + 2 * (kernel / 2) - kernel) / stride + 1;
        let grads = noise(&[batch, c, out, out])?;
        let gflop = 2e-9 * (batch * c * c * kernel * kernel * out * out) as f64;
        for half in [true, false] {
            let of = |t: &Tensor| if half { Blocked::from_images_bf16(t) } else { Blocked::from_images(t) };
            let (xs, grad) = (of(&maps)?, of(&grads)?);
            let kind = if half { "bf16" } else { "bf16x3" };
            let name = |pass: &str| {
                format!("{kind}: conv {kernel}x{kernel}/{stride}, {c} channels, {side} px, {pass}")
            };
            row(&name("forward"), gflop, !half, &|| xs.conv2d(&weight, cfg).map(drop))?;
            let grads = |which| xs.conv2d_grads(&weight, cfg, &grad, which).map(drop);
            row(&name("input gradient"), gflop, !half, &|| grads((true, false)))?;
            row(&name("weight gradient"), gflop, !half, &|| grads((false, true)))?;
        }
    }
    for (rows, width) in [(256, 512), (256, 2048), (1024, 1024), (2048, 2048)] {
        let (xs, weight) = (noise(&[rows, width])?, Var::from_tensor(&noise(&[width, width])?)?);
        let gflop = 2e-9 * (rows * width * width) as f64;
        let name = format!("bf16x3: linear, {rows} rows, {width} to {width}");
        row(&name, gflop, true, &|| linear(&xs, &weight, None).map(drop))?;
    }
    Ok(())
}
