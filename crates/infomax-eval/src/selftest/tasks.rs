//! Pairs of variables whose mutual information is known.

use super::draws::*;
use super::mixtures::mixtures;
use crate::Result;
use crate::information::student_information;
use crate::matrix::Rows;
use candle_core::Tensor;
use infomax_core::Key;
use std::sync::Arc;

type Draw = Arc<dyn Fn(Key, usize) -> Result<(Tensor, Tensor)> + Send + Sync>;

/// A pair of variables with its mutual information.
#[derive(Clone)]
pub struct Task {
    /// Its name; for those of `bmi`, the name there.
    pub name: String,
    /// Its family, such as `multinormal` or `student`.
    pub family: &'static str,
    /// The mutual information in nats.
    pub truth: f64,
    draw: Draw,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("name", &self.name).field("truth", &self.truth).finish_non_exhaustive()
    }
}

impl Task {
    /// A task of a sampler, which gives `n` rows `(n, D_x)` and `(n, D_y)` as a function of the key alone.
    pub fn new(
        name: impl Into<String>,
        family: &'static str,
        truth: f64,
        draw: impl Fn(Key, usize) -> Result<(Tensor, Tensor)> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), family, truth, draw: Arc::new(draw) }
    }

    pub(super) fn of_rows(
        name: impl Into<String>,
        family: &'static str,
        truth: f64,
        draw: impl Fn(Key, usize) -> (Rows, Rows) + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, family, truth, move |key, n| {
            let (x, y) = draw(key, n);
            Ok((x.tensor()?, y.tensor()?))
        })
    }

    /// `n` rows of both variables.
    ///
    /// # Errors
    /// Those of the sampler.
    pub fn draw(&self, key: Key, n: usize) -> Result<(Tensor, Tensor)> {
        (self.draw)(key, n)
    }
}

/// The closed-form families of `bmi`, 43 tasks; its 13 mixtures, whose truth is an integral; 2, 5 and 10 nats in normal
/// pairs and in the families of `mutinfo` (uniform, smoothed uniform, gamma-exponential and Student's pairs); and pairs without
/// information.
///
/// As there: correlation 0.75 in one column each; `dense`, all correlations 0.5; `2-pair`, two pairs of the correlation
/// 0.8, other columns being noise (`-ln 0.36` nats); Student's distribution with the identity as dispersion. Maps of
/// the columns (`normal_cdf`, `half_cube`, `wiggly`, `asinh`, `bimodal`) and of the space (`swissroll`, `spiral`)
/// leave the information as it is. Differences: spirals turn about the planes (0, 1) and (1, 2) one after the other on
/// the side of `x` alone.
pub fn tasks() -> Vec<Task> {
    let mut all = one_column();
    for nu_dims in [(1, 1, 1), (2, 2, 1), (2, 2, 2), (3, 3, 2), (3, 3, 3), (5, 5, 2), (5, 5, 3)] {
        let (dx, dy, nu) = nu_dims;
        let truth = student_information(dx, dy, nu as f64);
        let name = format!("student-identity-{dx}-{dy}-{nu}");
        all.push(Task::of_rows(&name, "student", truth, move |key, n| student(key, n, dx, dy, nu)));
        all.push(Task::of_rows(format!("asinh-{name}"), "student", truth, move |key, n| {
            let (x, y) = student(key, n, dx, dy, nu);
            (each(x, f64::asinh), each(y, f64::asinh))
        }));
    }
    for d in [2, 3, 5, 25, 50] {
        let truth = dense_information(d, d, 0.5);
        all.push(Task::of_rows(
            format!("multinormal-dense-{d}-{d}-0.5"),
            "multinormal",
            truth,
            move |key, n| dense(key, n, d, d, 0.5),
        ));
    }
    let truth = -0.36f64.ln();
    let two = |key: Key, n: usize, d: usize| paired(key, n, d, d, &[0.8, 0.8]);
    for d in [2, 3, 5, 25] {
        let name = format!("multinormal-sparse-{d}-{d}-2-2.0");
        all.push(Task::of_rows(name, "multinormal", truth, move |key, n| two(key, n, d)));
    }
    for d in [3, 5, 25] {
        let name = |map: &str| format!("{map}-multinormal-sparse-{d}-{d}-2-2.0");
        all.push(Task::of_rows(name("half_cube"), "transformed", truth, move |key, n| {
            let (x, y) = two(key, n, d);
            (each(x, half_cube), each(y, half_cube))
        }));
        all.push(Task::of_rows(name("spiral"), "spiral", truth, move |key, n| {
            let (x, y) = two(key, n, d);
            (spiral(x), y)
        }));
        all.push(Task::of_rows(name("normal_cdf"), "transformed", truth, move |key, n| {
            let (x, y) = two(key, n, d);
            (each(x, cdf), each(y, cdf))
        }));
        all.push(Task::of_rows(name("spiral-normal_cdf"), "spiral", truth, move |key, n| {
            let (x, y) = two(key, n, d);
            (spiral(each(x, cdf)), each(y, cdf))
        }));
    }
    all.extend(mixtures());
    all.extend(strong_and_none());
    all
}

/// One column on both sides, and the roll.
fn one_column() -> Vec<Task> {
    let truth = -0.5 * (1.0f64 - 0.5625).ln();
    let pair = |key: Key, n: usize| paired(key, n, 1, 1, &[0.75]);
    let mapped = |name: &'static str, f: fn(f64) -> f64, g: fn(f64) -> f64| {
        Task::of_rows(name, "transformed", truth, move |key, n| {
            let (x, y) = pair(key, n);
            (each(x, f), each(y, g))
        })
    };
    let additive = |e: f64| {
        let name = format!("1v1-additive-{e}");
        Task::of_rows(name, "additive", smoothed_information(e), move |key, n| smoothed(key, n, 1, e))
    };
    vec![
        Task::of_rows("1v1-normal-0.75", "multinormal", truth, pair),
        mapped("normal_cdf-1v1-normal-0.75", cdf, cdf),
        mapped("half_cube-1v1-normal-0.75", half_cube, half_cube),
        mapped(
            "wiggly-1v1-normal-0.75",
            |x| x + 0.4 * x.sin() + 0.2 * (1.7 * x + 1.0).sin() + 0.03 * (3.3 * x - 2.5).sin(),
            |y| y - 0.4 * (0.4 * y).sin() + 0.17 * (1.3 * y + 3.5).sin() + 0.02 * (4.3 * y - 2.5).sin(),
        ),
        mapped(
            "bimodal-1v1-normal-0.75",
            |x| bimodal(x, [0.3, 0.7], [0.0, 5.0], [1.0, 2.0]),
            |y| bimodal(y, [0.4, 0.6], [-1.0, 5.0], [1.0, 1.5]),
        ),
        additive(0.1),
        additive(0.75),
        Task::of_rows("swissroll_x-normal_cdf-1v1-normal-0.75", "swissroll", truth, move |key, n| {
            let (x, y) = pair(key, n);
            (swiss_roll(&each(x, cdf)), each(y, cdf))
        }),
    ]
}

/// Much information, and none.
fn strong_and_none() -> Vec<Task> {
    // d pairs of one correlation: -d / 2 ln(1 - rho^2).
    let correlation = |total: f64, d: usize| (1.0 - (-2.0 * total / d as f64).exp()).sqrt();
    let pairs = |total: f64, d: usize| {
        let rho = correlation(total, d);
        Task::of_rows(format!("pairs-{d}-{d}-{total}-nats"), "strong", total, move |key, n| {
            paired(key, n, d, d, &vec![rho; d])
        })
    };
    let none = |d: usize| {
        Task::of_rows(format!("independent-{d}-{d}"), "independent", 0.0, move |key, n| {
            paired(key, n, d, d, &[])
        })
    };
    let mut all: Vec<Task> =
        [(2.0, 1), (5.0, 1), (2.0, 4), (5.0, 4), (10.0, 4)].map(|(i, d)| pairs(i, d)).into();
    for total in [2.0, 5.0, 10.0] {
        let each_side = |name: &str| format!("{name}-2-2-{total}-nats");
        let half = 0.5 * total;
        let rho = correlation(total, 2);
        all.push(Task::of_rows(each_side("uniform"), "strong", total, move |key, n| {
            let (x, y) = paired(key, n, 2, 2, &[rho; 2]);
            (each(x, cdf), each(y, cdf))
        }));
        let noise = solve_falling(smoothed_information, half);
        all.push(Task::of_rows(each_side("smoothed-uniform"), "strong", total, move |key, n| {
            smoothed(key, n, 2, noise)
        }));
        let shape = solve_falling(gamma_exponential_information, half);
        all.push(Task::of_rows(each_side("log-gamma-exponential"), "strong", total, move |key, n| {
            log_gamma_exponential(key, n, 2, shape)
        }));
        let rho = correlation(total - student_information(2, 2, 4.0), 2);
        all.push(Task::of_rows(each_side("student-4"), "strong", total, move |key, n| {
            student_paired(key, n, [2, 2], 4, &[rho; 2])
        }));
    }
    all.extend([1, 5, 20].map(none));
    all.push(Task::of_rows("independent-student-5-5", "independent", 0.0, |key, n| {
        // Each with its own scale: heavy tails without information.
        (student(key.fold_in(7), n, 5, 5, 2).0, student(key.fold_in(8), n, 5, 5, 2).1)
    }));
    all
}
