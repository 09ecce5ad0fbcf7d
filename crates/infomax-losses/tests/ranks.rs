//! Every objective on 1 to 4 ranks, with equal and unequal shares, against one process on the whole batch: values,
//! gradients and running state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/traffic.rs"]
mod traffic;

use candle_core::{DType, Device, Tensor, Var};
use common::catalog::{Case, catalog, embeddings};
use infomax_core::{Collective, Context, Counted, Embeddings, Key, Local, TermState, Views, replicas};
use infomax_losses::{EntropyConfig, ObjectiveConfig};
use infomax_testing::spread;
use std::sync::Arc;

/// Two global views and a local one.
const VIEWS: usize = 3;
const STEPS: u64 = 3;

/// What one rank saw: the total of each step, the gradients of its rows, and the state at the end.
struct Seen {
    totals: Vec<f64>,
    parts: Vec<Vec<f64>>,
    grads: Vec<Vec<Tensor>>,
    state: TermState,
}

/// The rows of a batch that belong to one rank.
#[derive(Clone, Copy)]
struct Share {
    start: usize,
    rows: usize,
}

fn batch(step: u64, n: usize, d: usize, dtype: DType) -> (Vec<Tensor>, Vec<Tensor>, Vec<u32>) {
    let base = spread(&[n, d], 7 + step, 0.9);
    let near = |seed: u64| (&base + spread(&[n, d], seed, 0.3)).unwrap().to_dtype(dtype).unwrap();
    let views = (0..VIEWS as u64).map(|v| near(100 * step + v)).collect();
    let targets = (0..2u64).map(|v| near(100 * step + 10 + v)).collect();
    (views, targets, (0..n as u32).map(|i| (i * 7 + step as u32) % 3).collect())
}

fn train(
    config: &ObjectiveConfig,
    (n, d, dtype): (usize, usize, DType),
    share: Share,
    ranks: &dyn Collective,
) -> infomax_core::Result<Seen> {
    let mut objective = config.build()?;
    let mut seen = Seen { totals: Vec::new(), parts: Vec::new(), grads: Vec::new(), state: TermState::new() };
    for step in 0..STEPS {
        let (views, targets, labels) = batch(step, n, d, dtype);
        let own = |t: &Tensor| t.narrow(0, share.start, share.rows).unwrap().copy().unwrap();
        let vars: Vec<Var> = views.iter().map(|v| Var::from_tensor(&own(v)).unwrap()).collect();
        let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let z = Embeddings {
            targets: Some(Views::new(targets.iter().map(own).collect()).unwrap()),
            labels: Some(labels[share.start..][..share.rows].to_vec()),
            globals: Some(2),
            ..embeddings(&leaves, &leaves)
        };
        let z = Embeddings { predictions: Some(z.projections.map(|v| Ok((v * 0.8)?)).unwrap()), ..z };
        // Past the steps in which prototypes are frozen.
        let ctx = Context {
            step: 1000 + step,
            total_steps: Some(2000),
            key: Key::new(3).fold_in(step),
            collective: ranks,
        };
        let report = objective.evaluate(&z, &ctx)?;
        let number = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        let grads = report.total.backward()?;
        let grad = |v: &Var| grads.get(v).cloned().unwrap_or_else(|| v.zeros_like().unwrap());
        seen.totals.push(number(&report.total));
        seen.parts.push(report.parts.iter().map(|part| number(&part.value)).collect());
        seen.grads.push(vars.iter().map(grad).collect());
        objective.update(&z.detach(), &ctx)?;
    }
    seen.state = objective.state();
    Ok(seen)
}

fn on_ranks<T: Send>(shares: &[usize], f: impl Fn(Share, Arc<dyn Collective>) -> T + Sync) -> Vec<T> {
    let f = &f;
    std::thread::scope(|scope| {
        let mut start = 0;
        let mut threads = Vec::new();
        for (rank, &rows) in replicas(shares.len()).into_iter().zip(shares) {
            let share = Share { start, rows };
            start += rows;
            threads.push(scope.spawn(move || f(share, Arc::new(rank))));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, over the largest value of what is expected.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    let scale = expected.iter().fold(1e-12f64, |m, v| m.max(v.abs()));
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    worst.fold(0f64, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v) }) / scale
}

/// What is wrong with an objective on these shares, in words.
fn compare(
    config: &ObjectiveConfig,
    (n, d, dtype): (usize, usize, DType),
    shares: &[usize],
    whole: &infomax_core::Result<Seen>,
) -> Vec<String> {
    let tolerance = if dtype == DType::F64 { 1e-6 } else { 1e-4 };
    let found = on_ranks(shares, |share, rank| train(config, (n, d, dtype), share, &*rank));
    let k = shares.len() as f64;
    let mut wrong = Vec::new();
    let mut start = 0;
    let first_state = found.first().and_then(|seen| seen.as_ref().ok()).map(|seen| seen.state.clone());
    for (rank, (seen, &rows)) in found.into_iter().zip(shares).enumerate() {
        let at = format!("{shares:?} n={n} d={d} {dtype:?} rank {rank}");
        match (seen, whole) {
            // What one process refuses, every rank does.
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => wrong.push(format!("{at}: one process refuses it: {error}")),
            (Err(error), Ok(_)) => wrong.push(format!("{at}: {error}")),
            (Ok(seen), Ok(whole)) => {
                for step in 0..STEPS as usize {
                    let e = relative(&[seen.totals[step]], &[whole.totals[step]]);
                    if e > tolerance {
                        wrong.push(format!("{at} step {step}: total off by {e:.1e}"));
                    }
                    let e = relative(&seen.parts[step], &whole.parts[step]);
                    if e > tolerance {
                        wrong.push(format!("{at} step {step}: parts off by {e:.1e}"));
                    }
                    for v in 0..VIEWS {
                        let scale = values(&whole.grads[step][v]).iter().fold(0f64, |m, x| m.max(x.abs()));
                        let expected = whole.grads[step][v].narrow(0, start, rows).unwrap();
                        // By the convention of `Collective`: the mean over the ranks of the gradients of parameters.
                        let own = (&seen.grads[step][v] / k).unwrap();
                        let (own, expected) = (values(&own), values(&expected));
                        let e = own.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                        let e = e.fold(0f64, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v) });
                        if e > tolerance * scale.max(1e-12) {
                            let e = e / scale.max(1e-12);
                            wrong.push(format!("{at} step {step} view {v}: gradient off by {e:.1e}"));
                        }
                    }
                }
                assert_eq!(seen.state.keys().collect::<Vec<_>>(), whole.state.keys().collect::<Vec<_>>());
                for (name, expected) in &whole.state {
                    let e = relative(&values(&seen.state[name]), &values(expected));
                    if e > tolerance {
                        wrong.push(format!("{at}: state {name} off by {e:.1e}"));
                    }
                    let first = &first_state.as_ref().unwrap()[name];
                    if values(first) != values(&seen.state[name]) {
                        wrong.push(format!("{at}: state {name} has other bits than that of rank 0"));
                    }
                }
            }
        }
        start += rows;
    }
    wrong
}

/// Names, kinds and settings of all objectives; rows by far more and fewer than dimensions, so that both what sums
/// moments and what gathers rows is met.
#[test]
fn ranks_have_the_value_the_gradient_and_the_state_of_one_process() {
    let sizes = [(24, 4), (9, 10)];
    let mut wrong = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    // So many prototypes that their gradient is more than the rows.
    let mut many = ObjectiveConfig::named("swav").unwrap();
    if let EntropyConfig::Swav(config) = &mut many.entropy {
        config.prototypes = 40;
    }
    let many = Case { name: "swav of 40 prototypes".into(), config: many };
    for case in catalog().into_iter().chain([many]) {
        names.insert(case.config.name.clone());
        for (n, d) in sizes {
            let shares: &[&[usize]] = match n {
                24 => &[&[24], &[12, 12], &[5, 11, 8], &[7, 6, 6, 5]],
                _ => &[&[4, 5], &[3, 1, 3, 2]],
            };
            for dtype in [DType::F64, DType::F32] {
                let all = Share { start: 0, rows: n };
                let whole = train(&case.config, (n, d, dtype), all, &Local);
                assert!(whole.is_ok() || n < d, "{}: {:?}", case.name, whole.err());
                for shares in shares {
                    let found = compare(&case.config, (n, d, dtype), shares, &whole);
                    wrong.extend(found.into_iter().map(|problem| format!("{}: {problem}", case.name)));
                }
            }
        }
    }
    // All named ones, and `custom`.
    assert_eq!(names.len(), infomax_losses::names().len() + 1);
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

/// A rank's part of a gradient follows without asking the others, whatever the objective; and nothing is exchanged by
/// one process.
#[test]
fn backward_passes_exchange_nothing() {
    for case in catalog() {
        for (n, d, shares) in [(24, 4, vec![10, 14]), (9, 10, vec![4, 5])] {
            let counts = on_ranks(&shares, |share, rank| {
                let counted = Counted::new(rank);
                let (views, targets, labels) = batch(0, n, d, DType::F64);
                let own = |t: &Tensor| t.narrow(0, share.start, share.rows).unwrap().copy().unwrap();
                let vars: Vec<Var> = views.iter().map(|v| Var::from_tensor(&own(v)).unwrap()).collect();
                let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                let z = Embeddings {
                    targets: Some(Views::new(targets.iter().map(own).collect()).unwrap()),
                    labels: Some(labels[share.start..][..share.rows].to_vec()),
                    globals: Some(2),
                    ..embeddings(&leaves, &leaves)
                };
                let ctx = Context { collective: &counted, ..Context::standalone() };
                let objective = case.config.build().unwrap();
                let report = objective.evaluate(&z, &ctx).ok()?;
                let forward = counted.take();
                report.total.backward().unwrap();
                Some((forward, counted.take()))
            });
            for (forward, backward) in counts.into_iter().flatten() {
                assert!(forward.messages() > 0, "{}: a loss of the own rows alone", case.name);
                assert_eq!(backward.messages(), 0, "{}: {backward:?}", case.name);
                // No more than the rows of all views and some numbers; of local maps, those of all matches.
                let matches = if case.config.entropy.kind() == "vicregl" { 48 } else { 0 };
                let rows = ((VIEWS + 2 + matches) * 8 * n * d) as u64;
                assert!(forward.bytes() < rows + 1000, "{}: {forward:?}", case.name);
            }
        }
    }
}

/// The document states what is exchanged, row by row, and no row is more than a gather of all rows with its gradient.
#[test]
fn the_table_of_traffic_is_what_is_exchanged() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ranks-traffic.md");
    let stated = std::fs::read_to_string(path).unwrap();
    let measured = traffic::measure();
    for line in traffic::table(&measured).lines() {
        assert!(
            stated.contains(line),
            "docs/ranks-traffic.md does not state {line}; write it again with the output of \
             `cargo run -p infomax-losses --example ranks_traffic`"
        );
    }
    for (name, traffic) in measured {
        // VICRegL's local embeddings are more rows than those of its views.
        for (traffic, size) in traffic.iter().zip(traffic::SIZES).filter(|_| name != "vicregl") {
            let (bytes, all) = (traffic.bytes(), traffic::gathered(size));
            assert!(bytes <= all, "{name} {size:?}: {bytes} of {all}");
        }
    }
}
