//! Numbers where digits are easily lost: equal rows, offsets, narrow components, collapse. References in f64.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{number, value_and_grads};
use infomax_core::{Context, Embeddings, Key, Views};
use infomax_losses::entropy::*;
use infomax_losses::{Entropy, EntropyConfig, InvarianceConfig, ObjectiveConfig, bounds, names};
use infomax_testing::spread;
use std::f64::consts::{E, PI};

fn rows(x: &Tensor) -> Vec<Vec<f64>> {
    x.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(u, v)| (u - v) * (u - v)).sum()
}

/// `d/2 ln(2 pi e s2) - sum_i c_i ln sum_j c_j exp(-a r2_ij / (2 s2))`, with its gradient.
fn mixture(x: &[Vec<f64>], c: &[f64], s2: f64, a: f64) -> (f64, Vec<f64>) {
    let (n, d) = (x.len(), x[0].len());
    let score = |i: usize, j: usize| -a * squared(&x[i], &x[j]) / (2.0 * s2);
    let logs: Vec<f64> = (0..n).map(|i| (0..n).map(|j| c[j] * score(i, j).exp()).sum::<f64>().ln()).collect();
    let value =
        0.5 * d as f64 * (2.0 * PI * E * s2).ln() - c.iter().zip(&logs).map(|(c, l)| c * l).sum::<f64>();
    let mut grad = vec![0.0; n * d];
    for i in 0..n {
        for j in (0..n).filter(|j| *j != i) {
            let w = c[i] * c[j] * score(i, j).exp() * ((-logs[i]).exp() + (-logs[j]).exp()) * a / s2;
            for k in 0..d {
                grad[i * d + k] += w * (x[i][k] - x[j][k]);
            }
        }
    }
    (value, grad)
}

#[test]
fn pairdist_keeps_its_digits_in_f32() {
    let x = spread(&[64, 32], 3, 1.7).to_dtype(DType::F32).unwrap();
    let wide = spread(&[48, 256], 4, 1.7).to_dtype(DType::F32).unwrap();
    let equal = vec![1.0 / 64.0; 64];
    for (name, divergence, a) in [
        ("kl", Divergence::Kl, 1.0),
        ("bd", Divergence::Bhattacharyya, 0.25),
        ("chernoff", Divergence::Chernoff, 0.21),
    ] {
        for (x, variance) in [(&x, 1.0), (&x, 0.3), (&x, 100.0), (&wide, 1.0), (&wide, 30.0)] {
            let term = PairDist { divergence, variance, alpha: 0.3, ..Default::default() };
            let n = x.dim(0).unwrap();
            let (value, expected) = mixture(
                &rows(x),
                &equal.iter().map(|_| 1.0 / n as f64).take(n).collect::<Vec<_>>(),
                variance,
                a,
            );
            let (got, grads) = value_and_grads(std::slice::from_ref(x), |x| term.entropy(&x[0]).unwrap());
            assert!((number(&got) - value).abs() < 2e-6 * value.abs(), "{name} {variance}: {got} {value}");
            let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
            for (g, e) in rows(&grads[0]).concat().iter().zip(&expected) {
                // Below the range of f32 there is nothing to hold.
                assert!(
                    (g - e).abs() < 2e-5 * largest + 1e-37,
                    "{name} {variance}: {g:e} {e:e} of {largest:e}"
                );
            }
        }
    }
}

/// `k` copies of each row: the mixture's information about its component is `ln` of the number of distinct rows.
#[test]
fn the_adaptive_variance_tells_equal_rows_from_others() {
    for dtype in [DType::F32, DType::F64] {
        for scale in [1.0, 1e3, 1e-4, 1e-7] {
            let distinct = (spread(&[10, 5], 8, scale) + 3.0 * scale).unwrap();
            let x = Tensor::cat(&[&distinct, &distinct, &distinct], 0).unwrap().to_dtype(dtype).unwrap();
            let term = PairDist { adaptive: true, ..Default::default() };
            let (value, grads) = value_and_grads(std::slice::from_ref(&x), |x| term.entropy(&x[0]).unwrap());
            let information = number(&value) - term.conditional(&x).unwrap();
            let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-9 };
            assert!((information - 10f64.ln()).abs() < tolerance, "{dtype:?} {scale}: {information}");
            assert!(rows(&grads[0]).concat().iter().all(|g| g.is_finite()));
        }
        // A small scale is no collapse: the entropy shifts by d ln c.
        let x = spread(&[20, 4], 9, 1.0).to_dtype(dtype).unwrap();
        let term = PairDist { adaptive: true, ..Default::default() };
        let whole = term.estimate(&x).unwrap().nats;
        let small = term.estimate(&(&x * 1e-7).unwrap()).unwrap().nats;
        assert!((small - whole - 4.0 * 1e-7f64.ln()).abs() < 1e-4, "{dtype:?}: {small} {whole}");
    }
}

#[test]
fn weights_of_a_mixture() {
    let x = spread(&[9, 3], 5, 1.0);
    let raw: Vec<f64> = (1..=9).map(f64::from).collect();
    let c: Vec<f64> = raw.iter().map(|w| w / 45.0).collect();
    for (divergence, a) in [(Divergence::Kl, 1.0), (Divergence::Bhattacharyya, 0.25)] {
        let term = PairDist { divergence, variance: 0.4, ..Default::default() };
        let (value, expected) = mixture(&rows(&x), &c, 0.4, a);
        let (got, grads) =
            value_and_grads(std::slice::from_ref(&x), |x| term.entropy_weighted(&x[0], &raw).unwrap());
        assert!((number(&got) - value).abs() < 1e-11);
        for (g, e) in rows(&grads[0]).concat().iter().zip(&expected) {
            assert!((g - e).abs() < 1e-11);
        }
        // As full covariances, too; equal weights are the plain form.
        let eye = (Tensor::eye(3, DType::F64, &Device::Cpu).unwrap() * 0.4).unwrap();
        let s = eye.unsqueeze(0).unwrap().broadcast_as((9, 3, 3)).unwrap().contiguous().unwrap();
        let full = mixture_bound_weighted(&x, &s, &raw, divergence, 0.5).unwrap();
        assert!((number(&full) - value).abs() < 1e-10);
        let given = PairDistFull { divergence, eps: 0.1, variance: 0.75, ..Default::default() };
        let by_term = given.entropy_of_weighted(&x, &s, &raw).unwrap();
        assert!((number(&by_term) - value).abs() < 1e-10);
        let equal = number(&term.entropy_weighted(&x, &[2.0; 9]).unwrap());
        assert!((equal - number(&term.entropy(&x).unwrap())).abs() < 1e-12);
        assert!((equal - number(&given.entropy_of(&x, &s).unwrap())).abs() < 1e-10);
    }
    let term = PairDist::default();
    for bad in [vec![1.0; 8], vec![-1.0; 9], vec![0.0; 9], vec![f64::NAN; 9]] {
        assert!(term.entropy_weighted(&x, &bad).is_err(), "{bad:?}");
    }
    assert!(PairDistFull::default().entropy_of(&x, &x).is_err());
}

/// `mean_i ln(|u_i - u_nn(i) + eps| + eps)` and its gradient by differences, in f64.
#[test]
fn koleo_far_from_the_origin_and_in_one_dimension() {
    for (offset, d) in [(0.0, 6), (1e3, 6), (1e3, 2), (0.0, 1), (1e3, 1)] {
        let x = (spread(&[30, d], 6, 1.0) + offset).unwrap().to_dtype(DType::F32).unwrap();
        let term = KoLeo::default();
        let plain = |x: &[Vec<f64>]| -> f64 {
            let unit: Vec<Vec<f64>> = x
                .iter()
                .map(|r| {
                    let norm = r.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-8);
                    r.iter().map(|v| v / norm).collect()
                })
                .collect();
            let logs = (0..unit.len()).map(|i| {
                let others = (0..unit.len()).filter(|j| *j != i);
                let j = others
                    .min_by(|a, b| squared(&unit[i], &unit[*a]).total_cmp(&squared(&unit[i], &unit[*b])));
                let pair = unit[i].iter().zip(&unit[j.unwrap()]);
                (pair.map(|(u, v)| (u - v + 1e-8).powi(2)).sum::<f64>().sqrt() + 1e-8).ln()
            });
            logs.sum::<f64>() / unit.len() as f64
        };
        let (value, grads) = value_and_grads(std::slice::from_ref(&x), |x| term.entropy(&x[0]).unwrap());
        let expected = plain(&rows(&x));
        assert!(
            (number(&value) - expected).abs() < 1e-5 * (1.0 + expected.abs()),
            "{offset} {d}: {value} {expected}"
        );
        if d > 1 {
            let exact = x.to_dtype(DType::F64).unwrap();
            let (_, wide) = value_and_grads(&[exact], |x| term.entropy(&x[0]).unwrap());
            let wide = rows(&wide[0]).concat();
            let largest = wide.iter().fold(0f64, |m, v| m.max(v.abs()));
            for (g, e) in rows(&grads[0]).concat().iter().zip(&wide) {
                assert!((g - e).abs() < 1e-5 * largest, "{offset} {d}: {g:e} {e:e}");
            }
        }
    }
}

/// The centers of views do not lose digits far from the origin.
#[test]
fn invariances_to_a_center_do_not_see_an_offset() {
    for text in ["kind = \"mse\"\npairing = \"mean\"", "kind = \"smooth-l1\"\npairing = \"globals\""] {
        let invariance: InvarianceConfig = toml::from_str(text).unwrap();
        let objective =
            ObjectiveConfig::custom(invariance, EntropyConfig::of_kind("none").unwrap()).build().unwrap();
        let views: Vec<Tensor> = (0..3)
            .map(|v| (spread(&[12, 5], 20 + v, 1.0) + 1e5).unwrap().to_dtype(DType::F32).unwrap())
            .collect();
        let exact: Vec<Tensor> =
            views.iter().map(|v| (v.to_dtype(DType::F64).unwrap() - 1e5).unwrap()).collect();
        let (value, grads) = value_and_grads(&views, |z| common::total(objective.as_ref(), z));
        let (expected, wide) = value_and_grads(&exact, |z| common::total(objective.as_ref(), z));
        assert!((number(&value) / number(&expected) - 1.0).abs() < 1e-6, "{text}");
        for (g, e) in grads.iter().zip(&wide) {
            for (g, e) in rows(g).concat().iter().zip(rows(e).concat()) {
                assert!((g - e).abs() < 1e-7, "{text}: {g} {e}");
            }
        }
    }
}

/// Concentrations without end: no hang, and the plain estimate on the sphere.
#[test]
fn small_temperatures_and_large_concentrations() {
    let x = spread(&[12, 4], 7, 1.0);
    let unit = rows(&infomax_losses::invariance::normalize_rows(&x, 1e-12).unwrap());
    for kappa in [0.0, 1e-9, 5.0, 300.0, 1e9, 1e17] {
        let got = Vmf { weight: 1.0, kappa, leave_one_out: true }.estimate(&x).unwrap().nats;
        // ln C + kappa of the sphere in four dimensions: nu = 1.
        let peak = infomax_losses::special::vmf_ln_normalizer(4, kappa) + kappa;
        let logs = (0..12).map(|i| {
            let s: Vec<f64> =
                (0..12).filter(|j| *j != i).map(|j| -0.5 * kappa * squared(&unit[i], &unit[j])).collect();
            let max = s.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
            max + s.iter().map(|v| (v - max).exp()).sum::<f64>().ln() - 11f64.ln()
        });
        let expected = -logs.sum::<f64>() / 12.0 - peak;
        assert!(
            (got - expected).abs() < 1e-6 + 1e-14 * kappa + 1e-9 * expected.abs(),
            "{kappa}: {got} {expected}"
        );
    }
    for t in [1e-17, 1e-9, 1e9] {
        let text = format!("name = \"simclr\"\ntemperature = {t:e}");
        let config: ObjectiveConfig = toml::from_str(&text).unwrap();
        let z = Embeddings::pair(x.clone(), (&x * 1.5).unwrap()).unwrap();
        assert!(
            number(&config.build().unwrap().evaluate(&z, &Context::standalone()).unwrap().total).is_finite()
        );
    }
}

/// No spread is no information: refused with the reason, or at most about 0 nats; never a number out of a floor.
#[test]
fn collapsed_batches_hold_no_information() {
    let noise =
        |seed, scale: f64| (Key::new(seed).normal(0.0, scale, (24, 6), DType::F64, &Device::Cpu)).unwrap();
    let point = spread(&[1, 6], 1, 2.0).broadcast_as((24, 6)).unwrap().contiguous().unwrap();
    let other = spread(&[1, 6], 2, 2.0).broadcast_as((24, 6)).unwrap().contiguous().unwrap();
    let spread_out = noise(3, 1.0);
    let jitter = |seed, scale| (&point + noise(seed, scale)).unwrap();
    let kinds = EntropyConfig::KINDS.iter().filter(|k| **k != "none").map(|kind| {
        let invariance = InvarianceConfig::Mse(Default::default());
        (kind.to_string(), ObjectiveConfig::custom(invariance, EntropyConfig::of_kind(kind).unwrap()))
    });
    let named = names().iter().map(|n| (n.name.to_owned(), ObjectiveConfig::named(n.name).unwrap()));
    for (name, config) in named.chain(kinds) {
        for (case, a, b) in [
            ("one point", &point, &point),
            ("two points", &point, &other),
            ("one view collapsed", &point, &spread_out),
            ("the other view collapsed", &spread_out, &point),
            ("rounding", &point, &(&point * (1.0 + 1e-16)).unwrap()),
        ] {
            for dtype in [DType::F32, DType::F64] {
                let z = Embeddings::pair(a.to_dtype(dtype).unwrap(), b.to_dtype(dtype).unwrap()).unwrap();
                let message = config.account(&z).unwrap_err().to_string();
                assert!(
                    message.contains("no spread") && message.contains("0 nats"),
                    "{name} {case}: {message}"
                );
            }
        }
        // Nearly a point, with unrelated rests in the two views: nothing to be told.
        for scale in [1e-4, 1e-6, 1e-9] {
            let z = Embeddings::pair(jitter(5, scale), jitter(6, scale)).unwrap();
            if let Ok(account) = config.account(&z) {
                let plain = Embeddings::pair(noise(5, 1.0), noise(6, 1.0)).unwrap();
                let large = config.account(&plain).map_or(0.0, |a| a.account.information);
                let nats = account.account.information;
                assert!(
                    nats < large.max(0.0) + 3.0,
                    "{name} {scale}: {nats} nats, {large} of the whole scale"
                );
            }
        }
    }
    let views = Views::new(vec![point.narrow(0, 0, 1).unwrap(), other.narrow(0, 0, 1).unwrap()]).unwrap();
    let message =
        ObjectiveConfig::named("vicreg").unwrap().account(&Embeddings::new(views)).unwrap_err().to_string();
    assert!(message.contains("one sample"), "{message}");
    let message = bounds::account(&point, &point, &LogDet::default(), None).unwrap_err().to_string();
    assert!(message.contains("no spread"), "{message}");
    for s2 in [0.0, -1.0, f64::NAN] {
        let message =
            bounds::account(&spread_out, &spread_out, &LogDet::default(), Some(s2)).unwrap_err().to_string();
        assert!(message.contains("s2"), "{message}");
    }
}

/// A seed fixes the directions of the sliced terms; given ones are taken as they are.
#[test]
fn directions_are_seeded_or_given() {
    let x = spread(&[20, 3], 1, 1.0);
    let step = |n: u64| Context { key: Key::new(n), ..Context::standalone() };
    for kind in ["sigreg", "visreg", "sliced-normality", "rectified"] {
        let total = |more: &str, n: u64| {
            let entropy: EntropyConfig =
                toml::from_str(&format!("kind = \"{kind}\"\nslices = 4{more}")).unwrap();
            let none: InvarianceConfig = toml::from_str("kind = \"none\"").unwrap();
            let objective = ObjectiveConfig::custom(none, entropy).build().unwrap();
            let z = Embeddings::pair(x.clone(), x.clone()).unwrap();
            number(&objective.evaluate(&z, &step(n)).unwrap().total)
        };
        assert!((total("", 1) - total("", 2)).abs() > 1e-9, "{kind}");
        assert_eq!(total("\nseed = 5", 1), total("\nseed = 5", 2), "{kind}");
        assert!((total("\nseed = 5", 1) - total("\nseed = 6", 1)).abs() > 1e-9, "{kind}");
    }
    let axis = Tensor::new(&[[1f64], [0.0], [0.0]], &Device::Cpu).unwrap();
    let got = number(&SigReg::default().along(&x, &axis).unwrap());
    let first = x.narrow(1, 0, 1).unwrap().contiguous().unwrap();
    let expected = number(&epps_pulley(&first, 17, 3.0).unwrap().mean_all().unwrap());
    assert!((got - expected).abs() < 1e-12);
    assert!(SigReg::default().along(&x, &axis.t().unwrap()).is_err());
}

/// Independent views in a narrow cone tell nothing of each other, whatever the width of the objective's own kernel.
#[test]
fn a_kernel_wider_than_the_rows_is_no_information() {
    let noise =
        |seed| (Key::new(seed).normal(0.0, 0.02, (600, 8), DType::F64, &Device::Cpu).unwrap() + 1.0).unwrap();
    let z = Embeddings::pair(noise(1), noise(2)).unwrap();
    for name in ["dcl", "dclw", "supcon", "hydes", "byol"] {
        let account = ObjectiveConfig::named(name).unwrap().account(&z).unwrap();
        assert!(account.stands_in && account.estimator == "vmf", "{name}: {account:?}");
        assert!(account.account.information < 0.5, "{name}: {account:?}");
    }
    // A kernel that fits is the objective's own: rows all over the sphere.
    let wide = |seed| Key::new(seed).normal(0.0, 1.0, (600, 8), DType::F64, &Device::Cpu).unwrap();
    let z = Embeddings::pair(wide(1), (wide(1) + (wide(2) * 0.3).unwrap()).unwrap()).unwrap();
    let account = ObjectiveConfig::named("simclr").unwrap().account(&z).unwrap();
    assert!(!account.stands_in && account.estimator == "contrastive", "{account:?}");
}

/// What a variable tells of itself has no end, and points have no density: neither is a number of nats.
#[test]
fn equal_views_and_repeated_rows_have_no_account() {
    let z = Key::new(5).normal(0.0, 1.0, (32, 4), DType::F32, &Device::Cpu).unwrap();
    let noise = (Key::new(6).normal(0.0, 0.1, (32, 4), DType::F32, &Device::Cpu).unwrap() + &z).unwrap();
    let two = Tensor::cat(&vec![z.narrow(0, 0, 2).unwrap(); 16], 0).unwrap();
    let beside = (&two + 1e-2).unwrap();
    let account = |name: &str, a: &Tensor, b: &Tensor| {
        let z = Embeddings::pair(a.clone(), b.clone()).unwrap();
        ObjectiveConfig::named(name).unwrap().account(&z).map_err(|e| e.to_string())
    };
    for name in ["vicreg", "simclr", "koleo"] {
        let message = account(name, &z, &z).unwrap_err();
        assert!(message.contains("equals view 1"), "{name}: {message}");
    }
    let message = account("vicreg", &two, &beside).unwrap_err();
    assert!(message.contains("only 2 of its 32 rows are distinct"), "{message}");
    assert!(account("vicreg", &z, &noise).unwrap().account.information > 0.0);
}
