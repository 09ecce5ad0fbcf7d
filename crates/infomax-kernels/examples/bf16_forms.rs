//! What maps in bf16 gain in a convolution, by the form that multiplies them: what the rule of `images::conv::Conv::pairs` rests on. For
//! 3x3 kernels of stride 1 it chooses f32 registers, so that both columns are the same there; for others pairs, where the processor
//! has fast ones. Ratios to the same convolution of maps in f32; above 1 is faster.
//!
//! `cargo run --release -p infomax-kernels --example bf16_forms [batch]`

#![allow(clippy::print_stdout)]

mod common;

use candle_core::Tensor;
use common::{noise, seconds};
use infomax_kernels::{Blocked, Conv2dConfig, Isa};

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

const PASSES: [(bool, bool, &str); 3] =
    [(false, false, "forward"), (true, false, "input gradient"), (false, true, "weight gradient")];

/// Seconds of the three passes on these maps.
fn times(
    xs: &Blocked,
    weight: &Tensor,
    grad: &Blocked,
    cfg: Conv2dConfig,
) -> infomax_kernels::Result<[f64; 3]> {
    let mut found = [0.0; 3];
    for (at, (images, weights, _)) in PASSES.into_iter().enumerate() {
        found[at] = seconds(|| {
            match at {
                0 => drop(xs.conv2d(weight, cfg)?),
                _ => drop(xs.conv2d_grads(weight, cfg, grad, (images, weights))?),
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn main() -> infomax_kernels::Result<()> {
    let batch: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(64);
    let best = Isa::detect();
    println!("{best:?}, batch {batch}, {} threads; ratios to f32", rayon::current_num_threads());
    println!(
        "| kernel, stride | channels | side | pass | f32, GFLOP/s | bf16, as chosen | bf16, f32 registers |"
    );
    println!("|---|---|---|---|---|---|---|");
    let shapes =
        [16, 32, 64, 128, 256, 512].into_iter().flat_map(|c| [56, 32, 16, 8, 4].map(|side| (c, side)));
    let shapes: Vec<(usize, usize)> =
        shapes.filter(|(c, side)| (256..=4_096).contains(&(c * side))).collect();
    for (kernel, stride) in [(3, 1), (3, 2), (1, 1)] {
        for &(c, side) in &shapes {
            let cfg = Conv2dConfig { padding: kernel / 2, stride, ..Default::default() };
            let weight = noise(&[c, c, kernel, kernel])?;
            let maps = noise(&[batch, c, side, side])?;
            let out = (side + 2 * (kernel / 2) - kernel) / stride + 1;
            let grads = noise(&[batch, c, out, out])?;
            let full = times(&Blocked::from_images(&maps)?, &weight, &Blocked::from_images(&grads)?, cfg)?;
            let half = (Blocked::from_images_bf16(&maps)?, Blocked::from_images_bf16(&grads)?);
            let chosen = times(&half.0, &weight, &half.1, cfg)?;
            Isa::Avx512.limit_process();
            let vectors = times(&half.0, &weight, &half.1, cfg)?;
            best.limit_process();
            let gflop = 2e-9 * (batch * c * c * kernel * kernel * out * out) as f64;
            for (at, (_, _, pass)) in PASSES.into_iter().enumerate() {
                println!(
                    "| {kernel}x{kernel}, {stride} | {c} | {side} | {pass} | {:.0} | {:.2} | {:.2} |",
                    gflop / full[at],
                    full[at] / chosen[at],
                    full[at] / vectors[at]
                );
            }
        }
    }
    Ok(())
}
