//! Public functions get tensors of any rank, empty ones among them: they answer with an error, never with a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::catalog::catalog;
use infomax_core::{Context, Embeddings, Key};
use infomax_losses::entropy::{self, Moment};
use infomax_losses::pairwise::{self, Exclude, Score};
use infomax_losses::{MomentForm, bounds, invariance, whiten};
use std::panic::{AssertUnwindSafe, catch_unwind};

const SHAPES: [&[usize]; 17] = [
    &[],
    &[0],
    &[1],
    &[3],
    &[0, 0],
    &[0, 4],
    &[4, 0],
    &[1, 1],
    &[1, 3],
    &[3, 1],
    &[4, 3],
    &[0, 2, 3],
    &[2, 0, 3],
    &[2, 3, 4],
    &[0, 0, 0, 0],
    &[1, 2, 3, 4],
    &[2, 1, 1, 2],
];

fn draw(shape: &[usize]) -> Tensor {
    Key::new(7).normal(0.0, 1.0, shape, DType::F64, &Device::Cpu).unwrap()
}

/// The outcome as far as the shapes matter: whether it is an error.
type Function = Box<dyn Fn(&Tensor, &Tensor) -> bool>;

fn function<T, E>(f: impl Fn(&Tensor, &Tensor) -> Result<T, E> + 'static) -> Function {
    Box::new(move |a, b| f(a, b).is_err())
}

fn functions() -> Vec<(&'static str, Function)> {
    use infomax_losses::entropy as e;
    let per_dim = |moment| entropy::LogDet { beta_per_dim: true, moment, ..Default::default() };
    vec![
        ("mse", function(invariance::mse)),
        ("cosine", function(|a, b| invariance::cosine(a, b, 1e-8))),
        ("weighted_cosine", function(|a, b| invariance::weighted_cosine(a, b, 0.5))),
        ("normalize_rows", function(|a, _| invariance::normalize_rows(a, 1e-8))),
        ("whiten", function(|a, _| whiten(a, 1e-3))),
        ("variance_covariance", function(|a, _| e::variance_covariance(a, 1.0, 1e-4, MomentForm::Auto))),
        ("barlow", function(|a, b| e::barlow(a, b, 1e-5, MomentForm::Auto))),
        ("log_det", function(move |a, _| per_dim(Moment::Covariance).entropy(a))),
        ("log_det_pearson", function(move |a, _| per_dim(Moment::Pearson).entropy(a))),
        ("log_det_mi", function(move |a, b| per_dim(Moment::Covariance).mutual_information(a, b))),
        ("coding_rate", function(|a, _| e::CodingRate::default().entropy(a))),
        ("conditional_rate", function(|a, _| e::CodingRate::default().conditional(a, &[0, 1, 0, 1]))),
        ("pair_dist", function(|a, _| e::PairDist::default().entropy(a))),
        ("uniformity", function(|a, _| e::Uniformity::default().entropy(a))),
        ("half_log_det", function(|a, _| e::half_log_det(a, 1.0, MomentForm::Auto))),
        ("sinkhorn", function(|a, _| e::sinkhorn(a, 0.05, 3))),
        ("rows", function(|a, _| pairwise::row_log_sum_exp(a, Score::Dot(1.0), Exclude::Own))),
        ("distances", function(|a, _| pairwise::squared_distances(a))),
        ("info_nce", function(|a, _| bounds::info_nce(a))),
        ("nwj", function(|a, _| bounds::nwj(a))),
        ("donsker_varadhan", function(|a, _| bounds::donsker_varadhan(a))),
        ("smile", function(|a, _| bounds::smile(a, Some(1.0)))),
        ("jensen_shannon", function(|a, _| bounds::jensen_shannon(a))),
        ("tuba", function(|a, _| bounds::tuba(a, 0.0))),
        ("club", function(|a, _| bounds::club(a))),
        ("leave_one_out", function(|a, _| bounds::leave_one_out(a))),
        ("barber_agakov", function(|a, _| bounds::barber_agakov(a, 1.0))),
        ("account", function(|a, b| bounds::account(a, b, &entropy::LogDet::default(), None))),
    ]
}

#[test]
fn functions_answer_with_errors() {
    let mut wrong = Vec::new();
    for (name, f) in functions() {
        for a in SHAPES {
            for b in SHAPES {
                let (x, y) = (draw(a), draw(b));
                match catch_unwind(AssertUnwindSafe(|| f(&x, &y))) {
                    Err(_) => wrong.push(format!("{name} {a:?} {b:?} panics")),
                    Ok(false) if x.elem_count() == 0 => wrong.push(format!("{name} {a:?} {b:?}: no error")),
                    Ok(_) => (),
                }
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn objectives_answer_with_errors() {
    let mut wrong = Vec::new();
    for case in catalog() {
        let Ok(objective) = case.config.build() else { continue };
        for shape in SHAPES {
            let run = || -> bool {
                let Ok(z) = Embeddings::pair(draw(shape), draw(shape)) else { return true };
                objective.evaluate(&z, &Context::standalone()).is_err()
            };
            match catch_unwind(AssertUnwindSafe(run)) {
                Err(_) => wrong.push(format!("{} {shape:?} panics", case.name)),
                Ok(false) if shape.contains(&0) => wrong.push(format!("{} {shape:?}: no error", case.name)),
                Ok(_) => (),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
