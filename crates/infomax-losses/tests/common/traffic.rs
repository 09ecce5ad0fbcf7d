//! What every named objective exchanges in a step, as a table.
#![allow(unreachable_pub)] // Shared with an example.

use candle_core::{DType, Tensor, Var};
use infomax_core::{Context, Counted, Embeddings, LocalMap, Traffic, Views, replicas};
use infomax_losses::{EntropyConfig, InvarianceConfig, ObjectiveConfig, names};
use std::sync::Arc;

/// Samples of all ranks, dimensions, ranks.
pub type Size = (usize, usize, usize);

/// More samples than dimensions, and fewer.
pub const SIZES: [Size; 2] = [(1024, 64, 4), (128, 256, 4)];

/// Views of a sample.
const VIEWS: usize = 2;

/// Patches of a local map.
const PATCHES: usize = 4;

/// What a step of each named objective exchanges, of both sizes.
pub fn measure() -> Vec<(&'static str, [Traffic; 2])> {
    names().iter().map(|named| (named.name, SIZES.map(|size| step(named.name, size)))).collect()
}

/// The table in Markdown: kB that a rank receives in a step, and the messages of it.
pub fn table(measured: &[(&str, [Traffic; 2])]) -> String {
    let of = |(n, d, k): Size| format!("n = {n}, d = {d}, K = {k}");
    let [first, second] = SIZES.map(of);
    let mut text = format!("| objective | kB: {first} | messages | kB: {second} | messages |\n");
    text += "|---|--:|--:|--:|--:|\n";
    let cells = |traffic: &Traffic| format!("{:.1} | {}", traffic.bytes() as f64 / 1e3, traffic.messages());
    for (name, [first, second]) in measured {
        text += &format!("| `{name}` | {} | {} |\n", cells(first), cells(second));
    }
    let [first, second] = SIZES.map(|size| format!("{:.1} | {}", gathered(size) as f64 / 1e3, 2 * VIEWS));
    text + &format!("| rows gathered, gradients summed | {first} | {second} |\n")
}

/// What a gather of all views and a sum of their gradients would be.
pub fn gathered((n, d, k): Size) -> u64 {
    let bytes = VIEWS * n * d * 4;
    (3 * bytes * (k - 1) / k) as u64
}

/// What rank 0 exchanges in the value, the gradient and the update of an objective, in f32.
fn step(name: &str, (n, d, k): Size) -> Traffic {
    let mut config = ObjectiveConfig::named(name).unwrap();
    match &mut config.entropy {
        // Of these the traffic depends on the number.
        EntropyConfig::SigReg(c) => c.slices = 256,
        EntropyConfig::Swav(c) => c.prototypes = 300,
        // Of these it does not.
        EntropyConfig::VisReg(c) => c.slices = 4,
        EntropyConfig::Vicregl(c) => (c.matches_first, c.matches_second) = (4, 2),
        _ => {}
    }
    if let InvarianceConfig::Whitened(c) = &mut config.invariance {
        // A covariance of fewer rows than columns has no root without it.
        c.eps = 0.5;
    }
    let (config, rows) = (&config, n / k);
    let counts: Vec<Traffic> = std::thread::scope(|scope| {
        let run = |rank: infomax_core::Replica| {
            use infomax_core::Collective as _;
            let number = rank.rank() as u64;
            let counted = Counted::new(Arc::new(rank));
            let rows_of = |seed: u64, scale: f64| {
                let base = infomax_testing::spread(&[rows, d], 10 * number + 1, 1.0);
                let own = infomax_testing::spread(&[rows, d], 100 + 10 * number + seed, scale);
                (base + own).unwrap().to_dtype(DType::F32).unwrap()
            };
            let view = |v: usize| Var::from_tensor(&rows_of(v as u64, 0.4)).unwrap().as_tensor().clone();
            let views: Vec<Tensor> = (0..VIEWS).map(view).collect();
            let maps = views.iter().map(|z| {
                let patches: Vec<Tensor> =
                    (0..PATCHES).map(|p| (z * (1.0 - 0.2 * p as f64)).unwrap()).collect();
                LocalMap::new(Tensor::stack(&patches, 1).unwrap(), None).unwrap()
            });
            let maps = maps.collect();
            let projections = Views::new(views).unwrap();
            let z = Embeddings {
                predictions: Some(projections.map(|v| Ok((v * 0.9)?)).unwrap()),
                targets: Some(Views::new((0..VIEWS).map(|v| rows_of(5 + v as u64, 0.4)).collect()).unwrap()),
                labels: Some((0..rows as u32).map(|i| i % 10).collect()),
                ..Embeddings::new(projections.with_local(maps).unwrap())
            };
            let ctx = Context { step: 1000, collective: &counted, ..Context::standalone() };
            let mut objective = config.build().unwrap();
            let report = objective.evaluate(&z, &ctx).unwrap();
            report.total.backward().unwrap();
            objective.update(&z.detach(), &ctx).unwrap();
            counted.traffic()
        };
        let threads: Vec<_> = replicas(k).into_iter().map(|rank| scope.spawn(move || run(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    counts.into_iter().next().unwrap()
}
