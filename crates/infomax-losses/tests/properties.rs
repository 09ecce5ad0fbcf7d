//! Properties of every estimator and objective: gradients, invariances, bounds, collapse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::{DType, Tensor};
use common::{number, total};
use infomax_core::{Context, Embeddings, Key, Views};
use infomax_losses::entropy::*;
use infomax_losses::pairwise::{
    Exclude, Score, row_log_sum_exp, row_log_sum_exp_blocked, row_log_sum_exp_composed,
};
use infomax_losses::{Entropy, EntropyConfig, Invariance, ObjectiveConfig, Path, bounds, names};
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};
use proptest::prelude::*;

/// Few slices, so that the sliced estimators stay quick.
fn quick(mut config: ObjectiveConfig) -> ObjectiveConfig {
    match &mut config.entropy {
        EntropyConfig::SigReg(c) => c.slices = 8,
        EntropyConfig::VisReg(c) => c.slices = 8,
        _ => {}
    }
    config
}

fn evaluate(objective: &dyn infomax_core::Objective, views: &[Tensor]) -> candle_core::Result<Tensor> {
    let report = objective.evaluate(&embeddings(views), &Context::standalone());
    Ok(report.map_err(candle_core::Error::wrap)?.total)
}

fn embeddings(views: &[Tensor]) -> Embeddings {
    let projections = Views::new(views.to_vec()).unwrap();
    Embeddings {
        predictions: Some(projections.clone()),
        targets: Some(projections.detach()),
        ..Embeddings::new(projections)
    }
}

#[test]
fn every_objective_passes_the_gradient_check() {
    for named in names() {
        let objective = quick(ObjectiveConfig::named(named.name).unwrap()).build().unwrap();
        // The predictions are the projections here, so that what a method stops is checked through `detach`.
        let stops = ["byol", "simsiam", "tico", "visreg"].iter().any(|s| named.name.starts_with(s));
        let adaptive = named.name.contains("pairdist");
        if stops || adaptive {
            continue; // They hold a part constant that a difference would move.
        }
        for (v, n, d) in [(2, 5, 9), (2, 6, 6), (2, 11, 4), (4, 5, 3)] {
            if v > 2 && named.name == "koleo" {
                continue;
            }
            let views: Vec<Tensor> = (0..v).map(|i| spread(&[n, d], 10 + i, 1.3)).collect();
            gradcheck(&views, GradCheck { rel: 3e-6, ..Default::default() }, |z| {
                evaluate(objective.as_ref(), z)
            })
            .unwrap_or_else(|e| panic!("{} {v} {n} {d}: {e}", named.name));
        }
    }
}

#[test]
fn every_estimator_passes_the_gradient_check() {
    for kind in EntropyConfig::KINDS.iter().filter(|k| !["none", "tico", "visreg"].contains(k)) {
        let invariance: Invariance = toml::from_str("kind = \"none\"").unwrap();
        let config = quick(ObjectiveConfig::custom(invariance, EntropyConfig::of_kind(kind).unwrap()));
        let objective = config.build().unwrap();
        for (n, d) in [(5, 9), (7, 7), (12, 4)] {
            let views = [spread(&[n, d], 21, 1.1), spread(&[n, d], 22, 1.1)];
            gradcheck(&views, GradCheck { rel: 3e-6, ..Default::default() }, |z| {
                evaluate(objective.as_ref(), z)
            })
            .unwrap_or_else(|e| panic!("{kind} {n} {d}: {e}"));
        }
    }
}

#[test]
fn a_collapsed_batch_never_scores_better_than_a_spread_one() {
    let (n, d) = (24, 6);
    for named in names() {
        let config = quick(ObjectiveConfig::named(named.name).unwrap());
        if matches!(config.entropy, EntropyConfig::None(_)) {
            continue; // BYOL and SimSiam have nothing against collapse in the loss.
        }
        let objective = config.build().unwrap();
        let score = |scale: f64| {
            let z = Key::new(5).normal(0.0, scale, (n, d), DType::F64, &candle_core::Device::Cpu).unwrap();
            let z = (z + 0.7).unwrap();
            objective.evaluate(&embeddings(&[z.clone(), z]), &Context::standalone()).map(|r| number(&r.total))
        };
        let (collapsed, spread) = (score(1e-4).unwrap(), score(1.0).unwrap());
        assert!(collapsed > spread, "{}: collapsed {collapsed}, spread {spread}", named.name);
    }
}

#[test]
fn every_objective_is_finite_or_a_named_error() {
    let device = candle_core::Device::Cpu;
    for named in names() {
        let objective = quick(ObjectiveConfig::named(named.name).unwrap()).build().unwrap();
        for dtype in [DType::F32, DType::F64] {
            for (n, d) in [(2, 3), (4, 9), (9, 4)] {
                for (scale, offset) in
                    [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1e-4, 0.0), (1e4, 0.0), (1.0, 1e3)]
                {
                    let z: Vec<Tensor> = (0..2)
                        .map(|v| {
                            let z = Key::new(v).normal(offset, scale, (n, d), DType::F64, &device).unwrap();
                            candle_core::Var::from_tensor(&z.to_dtype(dtype).unwrap()).unwrap().into_inner()
                        })
                        .collect();
                    let what = format!("{} {dtype:?} {n} {d} {scale} {offset}", named.name);
                    match objective.evaluate(&embeddings(&z), &Context::standalone()) {
                        Err(e) => assert!(e.to_string().len() > 20, "{what}: {e}"),
                        Ok(report) => {
                            assert!(number(&report.total).is_finite(), "{what}");
                            let grads = report.total.backward().unwrap();
                            for z in &z {
                                if let Some(g) = grads.get(z) {
                                    let sum = number(&g.abs().unwrap().sum_all().unwrap());
                                    assert!(sum.is_finite(), "{what}: gradient {sum}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn state_survives_a_checkpoint() {
    for name in ["corinfomax", "tico"] {
        let build = || ObjectiveConfig::named(name).unwrap().build().unwrap();
        let (mut a, mut b) = (build(), build());
        let z = embeddings(&[spread(&[8, 4], 1, 1.0), spread(&[8, 4], 2, 1.0)]);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn entropies_shift_with_scale_and_not_with_translation(seed in 0u64..1000, scale in 0.3f64..3.0) {
        let z = spread(&[16, 3], seed, 1.5);
        let scaled = (&z * scale).unwrap();
        let moved = (&z + 3.0).unwrap();
        let gain = 3.0 * scale.ln();
        let estimators: [(&dyn Entropy, &dyn Entropy); 3] = [
            (&Gaussian { eps: 0.0, weight: 1.0, corrected: false }, &Gaussian { eps: 0.0, weight: 1.0, corrected: false }),
            (&KozachenkoLeonenko::default(), &KozachenkoLeonenko::default()),
            (
                &PairDist { variance: 0.5, ..Default::default() },
                &PairDist { variance: 0.5 * scale * scale, ..Default::default() },
            ),
        ];
        for (estimator, of_scaled) in estimators {
            let h = estimator.estimate(&z).unwrap().nats;
            prop_assert!((estimator.estimate(&moved).unwrap().nats - h).abs() < 1e-9);
            prop_assert!((of_scaled.estimate(&scaled).unwrap().nats - h - gain).abs() < 1e-9);
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
        let ((gram, gram_grads), (features, features_grads)) = (run(Path::Gram), run(Path::Features));
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
}
