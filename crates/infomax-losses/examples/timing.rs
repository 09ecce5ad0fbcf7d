//! Times forward and backward of the objectives on random embeddings, one line of JSON each.
//!
//! `cargo run --release -p infomax-losses --example timing [REPEATS]`; `benches/peers/losses.py` prints the same
//! lines for the formulas in PyTorch.

use candle_core::{DType, Device, Var};
use infomax_core::{Context, Embeddings, Key};
use infomax_losses::ObjectiveConfig;
use std::time::Instant;

const CASES: &[(&str, usize, usize)] = &[
    ("vicreg", 256, 512),
    ("vicreg", 256, 2048),
    ("vicreg", 256, 8192),
    ("vicreg", 2048, 8192),
    ("vicreg", 4096, 256),
    ("barlow-twins", 256, 4096),
    ("vicreg-logdet", 256, 4096),
    ("frossl", 256, 4096),
    ("simclr", 4096, 256),
    ("lejepa", 512, 512),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let repeats: usize = std::env::args().nth(1).map_or(Ok(5), |r| r.parse())?;
    for (name, n, d) in CASES {
        let objective = ObjectiveConfig::named(name)?.build()?;
        let view = |seed| -> Result<Var, Box<dyn std::error::Error>> {
            let z = Key::new(seed).normal(0.0, 1.0, (*n, *d), DType::F32, &Device::Cpu)?;
            Ok(Var::from_tensor(&z)?)
        };
        let (a, b) = (view(1)?, view(2)?);
        let z = Embeddings::pair(a.as_tensor().clone(), b.as_tensor().clone())?;
        let mut times = Vec::new();
        for _ in 0..repeats.max(1) {
            let start = Instant::now();
            objective.evaluate(&z, &Context::standalone())?.total.backward()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let (best, median) = (times[0], times[times.len() / 2]);
        #[allow(clippy::print_stdout)] // An example prints.
        {
            println!(
                "{{\"objective\":\"{name}\",\"n\":{n},\"d\":{d},\"min_ms\":{best:.2},\"median_ms\":{median:.2}}}"
            );
        }
    }
    Ok(())
}
