//! Properties of every estimator and objective: gradients, invariances, bounds, collapse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::{DType, Tensor};
use common::catalog::{Case, catalog, embeddings};
use common::{number, total};
use infomax_core::{Context, Embeddings, Key, Term as _};
use infomax_losses::entropy::*;
use infomax_losses::pairwise::{
    Exclude, Score, row_log_sum_exp, row_log_sum_exp_blocked, row_log_sum_exp_composed,
};
use infomax_losses::{Entropy, EntropyConfig, MomentForm, ObjectiveConfig, bounds, names, whiten};
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};
use proptest::prelude::*;

/// Named objectives, every entropy kind behind no invariance, and their settings.
fn with_entropy() -> Vec<Case> {
    catalog().into_iter().filter(|case| !matches!(case.config.entropy, EntropyConfig::None(_))).collect()
}

#[test]
fn a_collapsed_batch_never_scores_better_than_a_spread_one() {
    let (n, d) = (24, 6);
    let mut wrong = Vec::new();
    for case in with_entropy() {
        let term = &case.config.entropy;
        // These look at correlations or at the shape only: a factor does not change them, or nothing of it.
        let blind = matches!(term, EntropyConfig::Barlow(_) | EntropyConfig::Frossl(_))
            || matches!(term, EntropyConfig::LogDet(c) if c.moment == Moment::Pearson);
        if matches!(term, EntropyConfig::TotalCorrelation(c) if c.diagonal == 0.0) {
            continue; // Without its diagonal it is decorrelation alone, as its documentation says.
        }
        // The moments grow with the eighth power of the distance to the origin: away from it, a spread batch
        // has rows that are further out than any of a collapsed one.
        let far = matches!(term, EntropyConfig::SlicedNormality(c) if c.statistic == Statistic::Moments);
        // A rectified target has a place of its own: away from it, a point nearer to it is better.
        let offset = match term {
            EntropyConfig::Rectified(c) => c.mu,
            _ if far => 0.0,
            _ => 0.7,
        };
        let objective = case.config.build().unwrap();
        let score = |scale: f64| {
            let z = Key::new(5).normal(0.0, scale, (n, d), DType::F64, &candle_core::Device::Cpu).unwrap();
            let z = (z + offset).unwrap();
            // Labels that have nothing to do with the rows are best met by a point: every sample has its own.
            let own = Some((0..n as u32).collect());
            let z = Embeddings { labels: own, ..embeddings(&[z.clone(), z.clone()], &[z.clone(), z]) };
            objective.evaluate(&z, &Context::standalone()).map_err(|e| e.to_string()).and_then(|r| {
                match number(&r.total) {
                    // What the trainer's guard refuses.
                    value if !value.is_finite() => Err(format!("not finite: {value}")),
                    value => Ok(value),
                }
            })
        };
        // Not only smaller: collapsed to a point up to rounding, where correlations are no help.
        let scale = if blind { 0.0 } else { 1e-4 };
        match (score(scale), score(1.0)) {
            (Ok(collapsed), Ok(spread)) if collapsed > spread => {}
            (Err(_), Ok(_)) if scale == 0.0 => {} // Refused: nothing to be gained by collapsing either.
            (collapsed, spread) => wrong.push(format!("{}: {collapsed:?} {spread:?}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The order of samples, of features, and of views does not matter; those that compare a sample with itself in
/// another view need the same order in all views.
#[test]
fn order_does_not_matter() {
    let (n, d) = (9, 4);
    let index = |order: Vec<u32>| {
        let count = order.len();
        Tensor::from_vec(order, count, &candle_core::Device::Cpu).unwrap()
    };
    let samples = index((0..n as u32).map(|i| (i * 4 + 2) % n as u32).collect());
    let features = index((0..d as u32).rev().collect());
    let mut wrong = Vec::new();
    for case in catalog() {
        // Slices are drawn by coordinate; groups by the place in the batch; prototypes have coordinates.
        let by_place = case.name.contains("sub_batch");
        let by_coordinate = ["sigreg", "lejepa", "visreg", "sliced", "swav", "rectified"]
            .iter()
            .any(|k| case.name.contains(k));
        // Whitening by Cholesky takes the coordinates one after the other.
        let by_coordinate = by_coordinate || case.name.contains("whitened") || case.name.contains("w-mse");
        let objective = case.config.build().unwrap();
        let base = [spread(&[n, d], 31, 1.2), spread(&[n, d], 32, 1.2)];
        let constant = [spread(&[n, d], 33, 1.2), spread(&[n, d], 34, 1.2)];
        let score = |f: &dyn Fn(&Tensor) -> Tensor| {
            let map = |zs: &[Tensor]| zs.iter().map(f).collect::<Vec<_>>();
            let report =
                objective.evaluate(&embeddings(&map(&base), &map(&constant)), &Context::standalone());
            number(&report.unwrap_or_else(|e| panic!("{}: {e}", case.name)).total)
        };
        let rest = score(&Tensor::clone);
        let moved = [
            (by_place, "samples", score(&|z| z.index_select(&samples, 0).unwrap())),
            (by_coordinate || by_place, "features", score(&|z| z.index_select(&features, 1).unwrap())),
        ];
        for (exempt, what, value) in moved {
            if !exempt && (value - rest).abs() > 1e-9 * (1.0 + rest.abs()) {
                wrong.push(format!("{} {what}: {rest} {value}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn state_survives_a_checkpoint() {
    for name in ["corinfomax", "tico", "swav"] {
        let build = || {
            let mut config = ObjectiveConfig::named(name).unwrap();
            if let EntropyConfig::Swav(c) = &mut config.entropy {
                (c.prototypes, c.freeze_steps) = (5, 0);
            }
            config.build().unwrap()
        };
        let (mut a, mut b) = (build(), build());
        let views = [spread(&[8, 4], 1, 1.0), spread(&[8, 4], 2, 1.0)];
        let z = embeddings(&views, &views);
        let start = number(&a.evaluate(&z, &Context::standalone()).unwrap().total);
        a.update(&z, &Context::standalone()).unwrap();
        b.load_state(&a.state()).unwrap();
        let value =
            |o: &dyn infomax_core::Objective| number(&o.evaluate(&z, &Context::standalone()).unwrap().total);
        assert_eq!(value(a.as_ref()), value(b.as_ref()));
        assert_ne!(value(a.as_ref()), start, "{name}: the state does not matter");
    }
}

#[test]
fn clusters_and_coincidence_are_exact() {
    let equal = (spread(&[1, 3], 1, 1.0)).repeat((6, 1)).unwrap();
    let far = Tensor::cat(&[&equal, &(&equal + 1e4).unwrap(), &(&equal - 1e4).unwrap()], 0).unwrap();
    for divergence in [Divergence::Kl, Divergence::Bhattacharyya] {
        let estimator = PairDist { divergence, ..Default::default() };
        let conditional = estimator.conditional(&equal).unwrap();
        assert!((estimator.estimate(&equal).unwrap().nats - conditional).abs() < 1e-9);
        assert!((estimator.estimate(&far).unwrap().nats - conditional - 3f64.ln()).abs() < 1e-9);
    }
}

#[test]
fn account_adds_up() {
    let (a, b) = (spread(&[20, 3], 1, 1.0), spread(&[20, 3], 2, 1.0));
    let account = bounds::account(&a, &b, &Gaussian::default(), Some(0.5)).unwrap();
    assert!((account.information - account.entropy.nats - account.conditional).abs() < 1e-12);
}

/// The prototypes go downhill, keep their length, and rest while they are frozen.
#[test]
fn prototypes_learn() {
    let config = Swav { prototypes: 6, freeze_steps: 1, learning_rate: 0.05, ..Swav::default() };
    let mut term = Running::new(config);
    let views = [spread(&[16, 4], 1, 1.0), spread(&[16, 4], 2, 1.0)];
    let z = Embeddings::pair(views[0].clone(), views[1].clone()).unwrap();
    let loss = |term: &Running<Swav>| {
        let parts = term.evaluate(&z, &Context::standalone()).unwrap();
        parts.iter().map(|p| number(&p.value)).sum::<f64>()
    };
    let start = term.prototypes(4).unwrap();
    let before = loss(&term);
    term.update(&z, &Context::standalone()).unwrap();
    assert_close("frozen", &term.prototypes(4).unwrap(), &start, Tolerance::rel(1e-15));
    for step in 1..40 {
        term.update(&z, &Context { step, ..Context::standalone() }).unwrap();
    }
    let after = loss(&term);
    assert!(after < before - 1e-3, "{before} {after}");
    let lengths = term.prototypes(4).unwrap().sqr().unwrap().sum(1).unwrap().to_vec1::<f64>().unwrap();
    assert!(lengths.iter().all(|l| (l - 1.0).abs() < 1e-12));
    assert!(
        term.evaluate(
            &Embeddings::pair(spread(&[8, 3], 1, 1.0), spread(&[8, 3], 2, 1.0)).unwrap(),
            &Context::standalone()
        )
        .is_err()
    );
    // Codes share the samples out evenly, and each is a distribution.
    let codes = sinkhorn(&spread(&[12, 4], 3, 1.0), 0.05, 300).unwrap();
    for (sums, expected) in [(codes.sum(1).unwrap(), 1.0), (codes.sum(0).unwrap(), 3.0)] {
        let sums = sums.to_vec1::<f64>().unwrap();
        assert!(sums.iter().all(|s| (s - expected).abs() < 3e-3), "{sums:?}");
    }
}

/// The adaptive variance is a constant of the gradient, and the median squared distance of nearest neighbors.
#[test]
fn the_adaptive_variance_is_the_median_neighbor() {
    let z = spread(&[9, 3], 4, 1.0);
    let rows = z.to_vec2::<f64>().unwrap();
    let r2 = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
    let mut nearest: Vec<f64> = (0..9)
        .map(|i| (0..9).filter(|j| *j != i).map(|j| r2(&rows[i], &rows[j])).fold(f64::INFINITY, f64::min))
        .collect();
    nearest.sort_by(f64::total_cmp);
    let fixed = PairDist { variance: 0.5 * nearest[4], ..Default::default() };
    let adaptive = PairDist { variance: 0.5, adaptive: true, ..Default::default() };
    let run = |e: &PairDist| common::value_and_grads(std::slice::from_ref(&z), |z| e.entropy(&z[0]).unwrap());
    let ((a, ga), (b, gb)) = (run(&adaptive), run(&fixed));
    let tolerance = Tolerance { rel: 1e-9, abs: 1e-12 };
    assert_close("value", &a, &b, tolerance);
    assert_close("gradient", &ga[0], &gb[0], tolerance);
}

/// The shape part of VISReg in one dimension, where every slice is the column or its negative: written out, with
/// the deviation that it divides by held constant.
#[test]
fn the_shape_of_visreg_holds_the_deviation_constant() {
    let z = spread(&[11, 1], 6, 1.4);
    let column = z.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let n = 11.0;
    let moments = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / n;
        (mean, (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
    };
    let std = moments(&column).1 + 1e-4;
    let quantiles: Vec<f64> = (1..=11)
        .map(|i| {
            let p = f64::from(i) / 12.0;
            let (mut low, mut high) = (-9.0, 9.0);
            for _ in 0..200 {
                let middle = 0.5 * (low + high);
                let below = 0.5 * (1.0 + infomax_losses::special::erf(middle / 2f64.sqrt())) < p;
                if below { low = middle } else { high = middle }
            }
            low
        })
        .collect();
    // The quantiles are symmetric, so that the sign of a slice does not matter.
    let parts = |z: &Tensor| {
        VisReg { slices: 6, ..Default::default() }.parts(z, Key::new(0)).unwrap().to_vec1::<f64>().unwrap()
    };
    assert!((parts(&z)[1] - parts(&z.neg().unwrap())[1]).abs() < 1e-12);
    let shape = |x: &[f64]| {
        let mean = moments(x).0;
        let mut sorted: Vec<f64> = x.iter().map(|v| (v - mean) / std).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.iter().zip(&quantiles).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / n
    };
    let term = VisReg { slices: 6, ..Default::default() };
    let (value, grads) = common::value_and_grads(std::slice::from_ref(&z), |z| {
        term.parts(&z[0], Key::new(0)).unwrap().get(1).unwrap()
    });
    assert!((number(&value) - shape(&column)).abs() < 1e-9, "{value} {}", shape(&column));
    let grad = grads[0].flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for i in 0..11 {
        let at = |h: f64| {
            let mut x = column.clone();
            x[i] += h;
            shape(&x)
        };
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((slope - grad[i]).abs() < 1e-7, "{i}: {slope} {}", grad[i]);
    }
}

#[test]
fn whitened_batches_are_white_and_singular_ones_refused() {
    let z = (spread(&[40, 5], 3, 2.0) + 7.0).unwrap();
    let y = whiten(&z, 0.0).unwrap();
    let s = (y.t().unwrap().matmul(&y).unwrap() / 39.0).unwrap();
    let eye = Tensor::eye(5, DType::F64, z.device()).unwrap();
    assert_close("covariance", &s, &eye, Tolerance { rel: 0.0, abs: 1e-12 });
    for (n, d) in [(9, 4), (6, 5)] {
        gradcheck(&[spread(&[n, d], 8, 1.0)], GradCheck::default(), |z| Ok(whiten(&z[0], 0.0)?)).unwrap();
        gradcheck(&[spread(&[d, n], 8, 1.0)], GradCheck::default(), |z| Ok(whiten(&z[0], 0.3)?)).unwrap();
    }
    let message = whiten(&spread(&[4, 9], 1, 1.0), 0.0).unwrap_err().to_string();
    assert!(message.contains("eps > 0"), "{message}");
}

#[test]
fn dime_is_zero_for_what_is_unrelated_and_grows_with_the_relation() {
    let renyi = Renyi { alpha: 1.01, ..Default::default() };
    let draw =
        |seed| Key::new(seed).normal(0.0, 1.0, (40, 3), DType::F64, &candle_core::Device::Cpu).unwrap();
    let (x, noise) = (draw(1), draw(2));
    let dime = |y: &Tensor| number(&renyi.dime(&x, y, 10, Key::new(3)).unwrap());
    let near = (&x + (&noise * 0.1).unwrap()).unwrap();
    let far = (&x + &noise).unwrap();
    let (unrelated, weak, strong) = (dime(&noise), dime(&far), dime(&near));
    assert!(
        unrelated.abs() < 0.05 && weak > unrelated + 0.02 && strong > weak,
        "{unrelated} {weak} {strong}"
    );
    let inputs = [spread(&[7, 2], 1, 1.0), spread(&[7, 2], 2, 1.0)];
    gradcheck(&inputs, GradCheck { rel: 3e-6, ..Default::default() }, |z| {
        Ok(Renyi::default().dime(&z[0], &z[1], 3, Key::new(1))?)
    })
    .unwrap();
    // Joint and mutual information of the log-determinant belong together.
    let logdet = LogDet::default();
    let value = |t: infomax_losses::Result<Tensor>| number(&t.unwrap());
    let (a, b) = (&inputs[0], &inputs[1]);
    let parts = value(logdet.entropy(a)) + value(logdet.entropy(b)) - value(logdet.joint(a, b));
    assert!((parts - value(logdet.mutual_information(a, b))).abs() < 1e-12 && parts > 0.0);
}

/// The floors are the expectations of the statistics for `N(0, 1)`.
#[test]
fn floors_are_reached_by_normal_samples() {
    let y = Key::new(9).normal(0.0, 1.0, (60, 3000), DType::F64, &candle_core::Device::Cpu).unwrap();
    for statistic in
        [Statistic::EppsPulley, Statistic::CramerVonMises, Statistic::AndersonDarling, Statistic::Moments]
    {
        let floor = SlicedNormality { statistic, ..Default::default() }.floor();
        let values = normality(&y, statistic).unwrap().to_vec1::<f64>().unwrap();
        let mean = values.iter().sum::<f64>() / 3000.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 3000.0;
        let error = (variance / 3000.0).sqrt();
        assert!((mean - floor).abs() < 5.0 * error, "{statistic:?}: {mean} {floor} +- {error}");
    }
}

/// For every named objective: the three numbers add up, and agreement of the views is worth information.
#[test]
fn every_objective_has_an_account() {
    let draw =
        |seed| Key::new(seed).normal(0.0, 1.0, (60, 3), DType::F64, &candle_core::Device::Cpu).unwrap();
    let (x, noise) = (draw(1), draw(2));
    let far = (&x + &noise).unwrap();
    let near = (&x + (&noise * 0.1).unwrap()).unwrap();
    for named in names() {
        let config = ObjectiveConfig::named(named.name).unwrap();
        let account = |y: &Tensor| {
            let z = Embeddings::pair(x.clone(), y.clone()).unwrap();
            config.account(&z).unwrap_or_else(|e| panic!("{}: {e}", named.name))
        };
        let (weak, strong) = (account(&far).account, account(&near).account);
        for a in [weak, strong] {
            assert!(
                (a.entropy.nats + a.conditional - a.information).abs() < 1e-9 && a.information.is_finite()
            );
        }
        assert!(strong.information > weak.information + 0.5, "{}: {strong:?} {weak:?}", named.name);
    }
    // The objective gives the same in training, by the trait.
    let z = Embeddings::pair(x.clone(), near).unwrap();
    let config = ObjectiveConfig::named("vicreg-pairdist-bd").unwrap();
    let (by_trait, whole) =
        (config.build().unwrap().account(&z).unwrap().unwrap(), config.account(&z).unwrap());
    assert_eq!((by_trait.information, by_trait.estimator.as_str()), (whole.account.information, "pairdist"));
    assert!(!by_trait.stands_in && by_trait.bound == infomax_core::Bound::Lower);
    // Of two Gaussian views with correlation r the information is -d/2 ln(1 - r^2); the bound of the paper with
    // a Gaussian conditional is below it, and near it for a strong relation.
    let config = ObjectiveConfig::named("vicreg").unwrap();
    let n = 4000;
    let wide = |seed| Key::new(seed).normal(0.0, 1.0, (n, 3), DType::F64, &candle_core::Device::Cpu).unwrap();
    let (x, e) = (wide(5), wide(6));
    let r = 0.95f64;
    let y = ((&x * r).unwrap() + (e * (1.0 - r * r).sqrt()).unwrap()).unwrap();
    let got = config.account(&Embeddings::pair(x, y).unwrap()).unwrap().account.information;
    let truth = -1.5 * (1.0 - r * r).ln();
    assert!(got < truth && got > truth - 0.1, "{got} {truth}");
}

/// Lower bounds <= truth <= upper bounds on random mixtures, by Monte Carlo.
#[test]
fn mixtures_are_bracketed() {
    for seed in 0..12u64 {
        let (n, d) = (8, 2);
        let spacing = 0.3 + 0.4 * seed as f64;
        let means = spread(&[n, d], seed, spacing);
        let variance = 0.5f64;
        let centers = means.to_vec2::<f64>().unwrap();
        let draws =
            Key::new(seed).normal(0.0, 1.0, (40_000, d), DType::F64, &candle_core::Device::Cpu).unwrap();
        let logs: Vec<f64> = draws
            .to_vec2::<f64>()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(k, e)| {
                let own = &centers[k % n];
                let x: Vec<f64> = own.iter().zip(e).map(|(m, e)| m + variance.sqrt() * e).collect();
                let density: f64 = centers
                    .iter()
                    .map(|m| {
                        let r2: f64 = m.iter().zip(&x).map(|(a, b)| (a - b) * (a - b)).sum();
                        (-0.5 * r2 / variance).exp() / (2.0 * std::f64::consts::PI * variance)
                    })
                    .sum::<f64>()
                    / n as f64;
                -density.ln()
            })
            .collect();
        let count = logs.len() as f64;
        let truth = logs.iter().sum::<f64>() / count;
        let error = 4.0 * (logs.iter().map(|l| (l - truth).powi(2)).sum::<f64>() / count / count).sqrt();
        let full = {
            let eye = Tensor::eye(d, DType::F64, means.device()).unwrap();
            (eye * variance).unwrap().unsqueeze(0).unwrap().repeat((n, 1, 1)).unwrap()
        };
        for divergence in [Divergence::Kl, Divergence::Bhattacharyya, Divergence::Chernoff, Divergence::Elk] {
            let shared = PairDist { divergence, variance, alpha: 0.4, ..Default::default() };
            let nats = shared.estimate(&means).unwrap().nats;
            assert!((nats - number(&mixture_bound(&means, &full, divergence, 0.4).unwrap())).abs() < 1e-9);
            match divergence {
                Divergence::Kl => assert!(nats >= truth - error, "{seed} {divergence:?}: {nats} {truth}"),
                _ => assert!(nats <= truth + error, "{seed} {divergence:?}: {nats} {truth}"),
            }
        }
    }
}

/// The same bracket for components of different covariances.
#[test]
fn mixtures_of_full_covariances_are_bracketed() {
    let (means, covariances) =
        (common::tensor("methods/means.npy"), common::tensor("methods/covariances.npy"));
    let (n, d) = means.dims2().unwrap();
    let m = means.to_vec2::<f64>().unwrap();
    let roots: Vec<Vec<Vec<f64>>> = covariances
        .to_vec3::<f64>()
        .unwrap()
        .iter()
        .map(|s| {
            let mut l = vec![vec![0.0; d]; d];
            for i in 0..d {
                for j in 0..=i {
                    let rest = s[i][j] - (0..j).map(|k| l[i][k] * l[j][k]).sum::<f64>();
                    l[i][j] = if i == j { rest.sqrt() } else { rest / l[j][j] };
                }
            }
            l
        })
        .collect();
    let ln_density = |x: &[f64]| {
        let sum: f64 = (0..n)
            .map(|k| {
                // Forward substitution: u = L^-1 (x - m).
                let (l, mut u) = (&roots[k], vec![0.0; d]);
                for i in 0..d {
                    let rest = x[i] - m[k][i] - (0..i).map(|j| l[i][j] * u[j]).sum::<f64>();
                    u[i] = rest / l[i][i];
                }
                let half: f64 = u.iter().map(|v| 0.5 * v * v).sum();
                let volume: f64 = (0..d).map(|i| l[i][i].ln()).sum();
                (-half - volume - 0.5 * d as f64 * (2.0 * std::f64::consts::PI).ln()).exp()
            })
            .sum();
        (sum / n as f64).ln()
    };
    let draws = Key::new(4).normal(0.0, 1.0, (40_000, d), DType::F64, &candle_core::Device::Cpu).unwrap();
    let logs: Vec<f64> = draws
        .to_vec2::<f64>()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(k, e)| {
            let (l, own) = (&roots[k % n], &m[k % n]);
            let x: Vec<f64> = (0..d).map(|i| own[i] + (0..=i).map(|j| l[i][j] * e[j]).sum::<f64>()).collect();
            -ln_density(&x)
        })
        .collect();
    let count = logs.len() as f64;
    let truth = logs.iter().sum::<f64>() / count;
    let error = 4.0 * (logs.iter().map(|l| (l - truth).powi(2)).sum::<f64>() / count / count).sqrt();
    let bound = |divergence, alpha| number(&mixture_bound(&means, &covariances, divergence, alpha).unwrap());
    assert!(bound(Divergence::Kl, 0.5) >= truth - error);
    for alpha in [0.2, 0.4, 0.5, 0.7] {
        assert!(bound(Divergence::Chernoff, alpha) <= truth + error, "alpha {alpha}");
    }
    assert!(bound(Divergence::Elk, 0.5) <= truth + error);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn entropies_shift_with_scale_and_not_with_translation(seed in 0u64..1000, scale in 0.3f64..3.0) {
        let z = spread(&[16, 3], seed, 1.5);
        let scaled = (&z * scale).unwrap();
        let moved = (&z + 3.0).unwrap();
        let gain = 3.0 * scale.ln();
        let gaussian = Gaussian { eps: 0.0, ..Default::default() };
        let hadamard = Hadamard { eps: 0.0, ..Default::default() };
        let neighbors = KozachenkoLeonenko::default();
        let pairdist = |variance| PairDist { variance, ..Default::default() };
        let elk = |variance| PairDist { variance, divergence: Divergence::Elk, ..Default::default() };
        let kde = |variance| Kde { variance, leave_one_out: true, ..Default::default() };
        let full = |eps| PairDistFull { eps, divergence: Divergence::Bhattacharyya, ..Default::default() };
        let (v, w) = (0.5, 0.5 * scale * scale);
        // The second has the component that the first has after scaling.
        let estimators: [(Box<dyn Entropy>, Box<dyn Entropy>); 7] = [
            (Box::new(gaussian.clone()), Box::new(gaussian)),
            (Box::new(hadamard.clone()), Box::new(hadamard)),
            (Box::new(neighbors.clone()), Box::new(neighbors)),
            (Box::new(pairdist(v)), Box::new(pairdist(w))),
            (Box::new(elk(v)), Box::new(elk(w))),
            (Box::new(kde(v)), Box::new(kde(w))),
            (Box::new(full(v)), Box::new(full(w))),
        ];
        // A rotation in the plane of the first and the last coordinate.
        let (c, s) = (scale.cos(), scale.sin());
        let rotation = Tensor::new(&[[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], z.device()).unwrap();
        let turned = z.matmul(&rotation).unwrap();
        for (estimator, of_scaled) in estimators {
            let name = estimator.name();
            let h = estimator.estimate(&z).unwrap().nats;
            prop_assert!((estimator.estimate(&moved).unwrap().nats - h).abs() < 1e-9, "{}", name);
            prop_assert!((of_scaled.estimate(&scaled).unwrap().nats - h - gain).abs() < 1e-9, "{}", name);
            let after = estimator.estimate(&turned).unwrap().nats;
            prop_assert!(name == "hadamard" || (after - h).abs() < 1e-9, "{}: {} {}", name, h, after);
        }
    }

    #[test]
    fn streaming_equals_the_whole_matrix(seed in 0u64..1000, n in 2usize..14, d in 1usize..6, block in 1usize..9) {
        let x = spread(&[n, d], seed, 1.5);
        for score in [Score::Distance(0.7), Score::Dot(2.0)] {
            for exclude in [Exclude::Nothing, Exclude::Own] {
                let run = |f: &dyn Fn(&Tensor) -> Tensor| {
                    common::value_and_grads(std::slice::from_ref(&x), |x| {
                        let sums = f(&x[0]);
                        (&sums * spread(&[n], 9, 1.0)).unwrap().sum_all().unwrap()
                    })
                };
                let (expected, expected_grad) = run(&|x| row_log_sum_exp_composed(x, score, exclude).unwrap());
                let (value, grad) = run(&|x| row_log_sum_exp_blocked(x, score, exclude, block).unwrap());
                let tolerance = Tolerance { rel: 1e-10, abs: 1e-11 };
                assert_close("value", &value, &expected, tolerance);
                assert_close("gradient", &grad[0], &expected_grad[0], tolerance);
                let f32 = row_log_sum_exp(&x.to_dtype(DType::F32).unwrap(), score, exclude).unwrap();
                let exact = row_log_sum_exp(&x, score, exclude).unwrap();
                assert_close("f32", &f32, &exact, Tolerance { rel: 3e-6, abs: 3e-6 });
            }
        }
    }

    #[test]
    fn bounds_are_ordered(seed in 0u64..1000, variance in 0.05f64..2.0) {
        let z = spread(&[12, 3], seed, 2.0);
        let h = |divergence| PairDist { divergence, variance, ..Default::default() }.estimate(&z).unwrap().nats;
        prop_assert!(h(Divergence::Bhattacharyya) <= h(Divergence::Kl) + 1e-12);
        prop_assert!(h(Divergence::Elk) <= h(Divergence::Kl) + 1e-12);
        let gaussian = Gaussian { eps: 0.0, ..Default::default() }.estimate(&z).unwrap().nats;
        let hadamard = Hadamard { eps: 0.0, ..Default::default() }.estimate(&z).unwrap().nats;
        prop_assert!(gaussian <= hadamard + 1e-12);
    }

    #[test]
    fn both_paths_agree_and_order_does_not_matter(seed in 0u64..1000, n in 2usize..9, d in 1usize..9) {
        let (a, b) = (spread(&[n, d], seed, 1.0), spread(&[n, d], seed + 1, 1.0));
        let run = |path| {
            common::value_and_grads(&[a.clone(), b.clone()], |z| barlow(&z[0], &z[1], 1e-5, path).unwrap().sum_all().unwrap())
        };
        let ((gram, gram_grads), (features, features_grads)) = (run(MomentForm::Gram), run(MomentForm::Features));
        let tolerance = Tolerance { rel: 1e-8, abs: 1e-9 };
        assert_close("barlow", &gram, &features, tolerance);
        for (x, y) in gram_grads.iter().zip(&features_grads) {
            assert_close("barlow gradient", x, y, Tolerance { rel: 1e-7, abs: 1e-7 });
        }
        let vicreg = ObjectiveConfig::named("vicreg").unwrap().build().unwrap();
        let order = Tensor::from_vec((0..n as u32).rev().collect::<Vec<_>>(), n, a.device()).unwrap();
        let turned = [a.index_select(&order, 0).unwrap(), b.index_select(&order, 0).unwrap()];
        assert_close("order", &total(vicreg.as_ref(), &turned), &total(vicreg.as_ref(), &[a, b]), tolerance);
    }

    #[test]
    fn whole_objectives_are_invariant_where_they_should_be(seed in 0u64..1000, shift in -20.0f64..20.0) {
        let (n, d) = (10, 3);
        let views = [spread(&[n, d], seed, 1.2), spread(&[n, d], seed + 7, 1.2)];
        // A rotation in the plane of the first and the last feature.
        let (c, s) = (shift.cos(), shift.sin());
        let rotation = Tensor::new(&[[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], views[0].device()).unwrap();
        let score = |name: &str, views: &[Tensor]| {
            let mut config = ObjectiveConfig::named(name).unwrap();
            common::catalog::quick(&mut config);
            number(&config.build().unwrap().evaluate(&embeddings(views, views), &Context::standalone()).unwrap().total)
        };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-8 * (1.0 + a.abs());
        let moved = [(&views[0] + shift).unwrap(), (&views[1] + shift).unwrap()];
        for name in ["vicreg", "vibcreg", "vcreg", "barlow-twins", "vicreg-logdet", "vicreg-pairdist-kl", "vicreg-pairdist-bd", "w-mse"] {
            prop_assert!(near(score(name, &views), score(name, &moved)), "translation of {}", name);
        }
        let turned = [views[0].matmul(&rotation).unwrap(), views[1].matmul(&rotation).unwrap()];
        for name in ["vicreg-logdet", "vicreg-pairdist-kl", "vicreg-pairdist-bd", "simclr", "simclr-logdet", "supcon", "dcl", "dclw",
            "align-uniform", "koleo", "emp-ssl", "mec", "matrix-ssl", "mcr2", "mmcr", "hydes", "byol", "simsiam", "tico"] {
            prop_assert!(near(score(name, &views), score(name, &turned)), "rotation for {}", name);
        }
        // Lengths of rows do not matter on the sphere.
        let scaled = [(&views[0] * 3.0).unwrap(), (&views[1] * 3.0).unwrap()];
        for name in ["simclr", "supcon", "dcl", "dclw", "align-uniform", "koleo", "mec", "matrix-ssl", "mcr2", "mmcr", "hydes", "swav", "tico", "w-mse"] {
            prop_assert!(near(score(name, &views), score(name, &scaled)), "scale for {}", name);
        }
    }

    #[test]
    fn information_bounds_keep_their_order(seed in 0u64..1000, n in 3usize..20) {
        let scores = spread(&[n, n], seed, 3.0);
        let value = |t: infomax_losses::Result<Tensor>| number(&t.unwrap());
        let dv = value(bounds::donsker_varadhan(&scores));
        // e^x >= 1 + x: the Donsker-Varadhan form is above that of Nguyen, Wainwright and Jordan.
        prop_assert!(dv >= value(bounds::nwj(&scores)) - 1e-12);
        prop_assert!(value(bounds::info_nce(&scores)) <= (n as f64).ln() + 1e-12);
        prop_assert!((value(bounds::smile(&scores, None)) - dv).abs() < 1e-12);
        prop_assert!((value(bounds::smile(&scores, Some(100.0))) - dv).abs() < 1e-12);
        prop_assert!((value(bounds::tuba(&scores, 1.0)) - value(bounds::nwj(&scores))).abs() < 1e-12);
        let shifted = (&scores + 5.0).unwrap();
        prop_assert!((value(bounds::donsker_varadhan(&shifted)) - dv).abs() < 1e-9);
        prop_assert!((value(bounds::info_nce(&shifted)) - value(bounds::info_nce(&scores))).abs() < 1e-9);
        // The first step of MINE is Donsker-Varadhan in value and gradient; later ones in value.
        let mut mine = bounds::Mine::default();
        let (_, grads) = common::value_and_grads(std::slice::from_ref(&scores), |s| {
            bounds::Mine::default().step(&s[0]).unwrap()
        });
        let (_, of_dv) = common::value_and_grads(std::slice::from_ref(&scores), |s| {
            bounds::donsker_varadhan(&s[0]).unwrap()
        });
        assert_close("mine", &grads[0], &of_dv[0], Tolerance { rel: 1e-9, abs: 1e-12 });
        prop_assert!((number(&mine.step(&scores).unwrap()) - dv).abs() < 1e-12);
        let first = mine.ln_average.unwrap();
        prop_assert!((number(&mine.step(&shifted).unwrap()) - dv).abs() < 1e-9);
        let expected = first + (0.9 + 0.1 * 5f64.exp()).ln();
        prop_assert!((mine.ln_average.unwrap() - expected).abs() < 1e-9);
    }
}
