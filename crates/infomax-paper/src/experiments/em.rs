//! Expectation-maximization on a mixture as a picture of self-supervised learning.

use super::Experiment;
use crate::ctx::Ctx;
use crate::finding::{Finding, Picture, Plot, Style, Table};
use crate::verdict::{self, Judgment, Side};
use crate::{Result, random};
use infomax_core::Key;
use std::f64::consts::PI;
use std::fmt::Write as _;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "em",
    claim: "Expectation-maximization on a mixture collapses with a fixed or a degenerate covariance; control of variance and \
            covariance prevents it.",
    needs: "nothing",
    statistic: "the share of starts that collapse: all means in one place, or a component of no width",
    revision: 1,
    small_minutes: 0.5,
    full: "1 minute",
    run,
};

type Point = [f64; 2];
/// A symmetric matrix: xx, xy, yy.
type Spread = [f64; 3];

/// What the M-step does with covariances.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Control {
    /// All are `s2 I` with a variance above that of the data.
    Fixed(f64),
    /// Those of maximum likelihood, whose likelihood has no bound.
    Free,
    /// Those of maximum likelihood drawn towards `s2 I` by so many pseudo-observations: variances have a floor, and
    /// correlations shrink.
    Regularized { s2: f64, weight: f64 },
}

const CONTROLS: [(&str, Control); 3] = [
    ("fixed covariance", Control::Fixed(12.0)),
    ("free covariance", Control::Free),
    ("variance and covariance control", Control::Regularized { s2: 0.25, weight: 4.0 }),
];

struct Fit {
    means: Vec<Point>,
    spreads: Vec<Spread>,
    weights: Vec<f64>,
    /// Means and spreads of some steps, for the animation.
    path: Vec<(Vec<Point>, Vec<Spread>)>,
    /// Whether a component lost all width, which ends the steps.
    degenerate: bool,
}

fn determinant(s: &Spread) -> f64 {
    s[0] * s[2] - s[1] * s[1]
}

fn smallest(s: &Spread) -> f64 {
    0.5 * (s[0] + s[2] - ((s[0] - s[2]).powi(2) + 4.0 * s[1] * s[1]).sqrt())
}

fn ln_normal(x: &Point, m: &Point, s: &Spread) -> f64 {
    let det = determinant(s);
    let (a, b) = (x[0] - m[0], x[1] - m[1]);
    -0.5 * ((s[2] * a * a - 2.0 * s[1] * a * b + s[0] * b * b) / det + det.ln()) - (2.0 * PI).ln()
}

/// A component narrower than this has lost its width: the data have the variance 1 around each of their centers / 4.
const NO_WIDTH: f64 = 1e-6;

fn fit(points: &[Point], k: usize, steps: usize, control: Control, key: Key) -> Fit {
    let starts = infomax_eval::choose(key, points.len(), k);
    let mut means: Vec<Point> = starts.iter().map(|i| points[*i]).collect();
    let mut spreads = vec![if let Control::Fixed(s2) = control { [s2, 0.0, s2] } else { [0.3, 0.0, 0.3] }; k];
    let mut weights = vec![1.0 / k as f64; k];
    let (mut path, mut degenerate) = (vec![(means.clone(), spreads.clone())], false);
    for step in 0..steps {
        let mut shares = vec![vec![0.0; points.len()]; k];
        for (i, x) in points.iter().enumerate() {
            let logs: Vec<f64> =
                (0..k).map(|j| weights[j].max(1e-300).ln() + ln_normal(x, &means[j], &spreads[j])).collect();
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logs.iter().map(|l| (l - most).exp()).sum();
            (0..k).for_each(|j| shares[j][i] = (logs[j] - most).exp() / sum);
        }
        for j in 0..k {
            let total: f64 = shares[j].iter().sum();
            if total < 1e-12 {
                continue;
            }
            weights[j] = total / points.len() as f64;
            let mean = |c: usize| shares[j].iter().zip(points).map(|(r, x)| r * x[c]).sum::<f64>() / total;
            means[j] = [mean(0), mean(1)];
            let moment = |a: usize, b: usize| {
                let of = |x: &Point| (x[a] - means[j][a]) * (x[b] - means[j][b]);
                shares[j].iter().zip(points).map(|(r, x)| r * of(x)).sum::<f64>()
            };
            match control {
                Control::Fixed(_) => {}
                Control::Free => {
                    spreads[j] = [moment(0, 0) / total, moment(0, 1) / total, moment(1, 1) / total]
                }
                Control::Regularized { s2, weight } => {
                    let n = total + weight;
                    spreads[j] = [
                        (moment(0, 0) + weight * s2) / n,
                        moment(0, 1) / n,
                        (moment(1, 1) + weight * s2) / n,
                    ];
                }
            }
            degenerate |= smallest(&spreads[j]) < NO_WIDTH;
        }
        if degenerate {
            break;
        }
        if step % (steps / 20).max(1) == 0 || step + 1 == steps {
            path.push((means.clone(), spreads.clone()));
        }
    }
    Fit { means, spreads, weights, path, degenerate }
}

/// The variance of the means, weighted, in parts of the variance of the data.
fn spread_of_means(fit: &Fit, points: &[Point]) -> f64 {
    let variance = |xs: &[Point], ws: &[f64]| {
        let total: f64 = ws.iter().sum();
        let mean = |c: usize| xs.iter().zip(ws).map(|(x, w)| w * x[c]).sum::<f64>() / total;
        let m = [mean(0), mean(1)];
        let square = |x: &Point| (x[0] - m[0]).powi(2) + (x[1] - m[1]).powi(2);
        xs.iter().zip(ws).map(|(x, w)| w * square(x)).sum::<f64>() / total
    };
    variance(&fit.means, &fit.weights) / variance(points, &vec![1.0; points.len()])
}

/// One start under one control.
struct Row {
    control: &'static str,
    spread: f64,
    width: f64,
    collapsed: bool,
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let (n, k, steps) = (60, 12, ctx.pick(100, 400, 1000));
    let mut numbers = Table::new(
        "starts",
        "where expectation-maximization ends from each start",
        &[
            "control",
            "start",
            "variance of the means [of the data]",
            "least variance of a component",
            "collapsed",
        ],
    );
    let mut rows = Vec::new();
    let mut animated = None;
    let mut plot =
        Plot::new("spread", "Do the means stay apart?", "step", "variance of the means, of the data")
            .caption(
                "The first start under each control; a curve that ends early has lost a component's width.",
            );
    for start in ctx.starts() {
        ctx.check()?;
        let key = Key::new(start).fold_named("em");
        let noise = random::normal(key.fold_in(0), n, 2)?;
        let points: Vec<Point> = noise
            .iter()
            .enumerate()
            .map(|(i, e)| {
                let angle = 2.0 * PI * (i % 4) as f64 / 4.0;
                [3.0 * angle.cos() + 0.5 * e[0], 3.0 * angle.sin() + 0.5 * e[1]]
            })
            .collect();
        let mut fits = Vec::new();
        for (name, control) in CONTROLS {
            let fit = fit(&points, k, steps, control, key.fold_in(1));
            let spread = spread_of_means(&fit, &points);
            let width = fit.spreads.iter().map(smallest).fold(f64::INFINITY, f64::min);
            let collapsed = fit.degenerate || spread < 0.01;
            numbers.row(vec![
                name.into(),
                (start as usize).into(),
                spread.into(),
                width.into(),
                if collapsed { "yes" } else { "no" }.into(),
            ]);
            rows.push(Row { control: name, spread, width, collapsed });
            if start == 0 {
                let every = (steps / 20).max(1) as f64;
                let at = |(i, (means, _)): (usize, &(Vec<Point>, Vec<Spread>))| {
                    let of = Fit {
                        means: means.clone(),
                        spreads: vec![],
                        weights: vec![1.0; k],
                        path: vec![],
                        degenerate: false,
                    };
                    (i as f64 * every, spread_of_means(&of, &points))
                };
                plot.add(name, Style::Line, fit.path.iter().enumerate().map(at));
            }
            fits.push((name, fit));
        }
        if start == 0 {
            animated = Some(animation(&points, &fits));
        }
    }
    let median = |name: &str, get: fn(&Row) -> f64| {
        crate::stats::median(&rows.iter().filter(|r| r.control == name).map(get).collect::<Vec<_>>())
    };
    let notes = vec![
        format!(
            "{n} points around 4 centers, {k} components started at points, {steps} steps. Collapsed: the means have less \
             than 1 % of the variance of the data, or a component has a variance below {NO_WIDTH}, where the likelihood \
             grows without bound. Fixed: a variance above that of the data, for which all means in one place is the only \
             fixed point."
        ),
        CONTROLS
            .iter()
            .map(|(name, _)| {
                format!(
                    "{name}: median variance of the means {:.3} of the data, median least variance {:.2e}",
                    median(name, |r| r.spread),
                    median(name, |r| r.width)
                )
            })
            .collect::<Vec<_>>()
            .join("; "),
    ];
    let picture = animated.map(|svg| Picture {
        name: "em".into(),
        caption: "Expectation-maximization from the first start: components as ellipses of one standard deviation. Left: \
                  fixed covariance; middle: free; right: with control."
            .into(),
        svg,
    });
    Ok(Finding {
        judgments: judge(&rows),
        tables: vec![numbers],
        plots: vec![plot],
        pictures: picture.into_iter().collect(),
        notes,
        ..Finding::default()
    })
}

fn judge(rows: &[Row]) -> Vec<Judgment> {
    let share = |claim: &str, name: &str, side: Side, threshold: f64| {
        let of: Vec<&Row> = rows.iter().filter(|r| r.control == name).collect();
        let hits = of.iter().filter(|r| r.collapsed).count();
        verdict::share_beyond(claim, "share of starts that collapse", hits, of.len(), side, threshold)
    };
    vec![
        share("With a fixed wide covariance the means collapse.", CONTROLS[0].0, Side::Above, 0.5),
        share("With a free covariance a component degenerates.", CONTROLS[1].0, Side::Above, 0.5),
        share("With control of variance and covariance nothing collapses.", CONTROLS[2].0, Side::Below, 0.2),
    ]
}

/// Three panels, animated without a script; a program that does not animate shows the end.
fn animation(points: &[Point], fits: &[(&str, Fit)]) -> String {
    const SIDE: f64 = 240.0;
    let scale = SIDE / 11.0;
    let place = |p: &Point| (SIDE / 2.0 + scale * p[0], SIDE / 2.0 - scale * p[1]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" \
         font-family=\"sans-serif\" font-size=\"12\"><rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>",
        SIDE * fits.len() as f64,
        SIDE + 24.0
    );
    for (panel, (name, fit)) in fits.iter().enumerate() {
        let _ = write!(svg, "<g transform=\"translate({},24)\">", SIDE * panel as f64);
        let _ = write!(svg, "<text x=\"8\" y=\"-8\" fill=\"#222\">{name}</text>");
        for p in points {
            let (x, y) = place(p);
            let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"#999\"/>");
        }
        for j in 0..fit.means.len() {
            let frames: Vec<(f64, f64, f64, f64, f64)> = fit
                .path
                .iter()
                .chain(std::iter::once(&(fit.means.clone(), fit.spreads.clone())))
                .map(|(means, spreads)| {
                    let (x, y) = place(&means[j]);
                    let s = &spreads[j];
                    let low = smallest(s).max(0.0);
                    let high = (s[0] + s[2] - low).max(0.0);
                    let angle = -0.5 * (2.0 * s[1]).atan2(s[0] - s[2]).to_degrees();
                    let radius = |v: f64| (scale * v.sqrt()).clamp(1.0, SIDE / 2.5);
                    (x, y, radius(high), radius(low), angle)
                })
                .collect();
            type Get = fn(&(f64, f64, f64, f64, f64)) -> f64;
            let values =
                |get: Get| frames.iter().map(|f| format!("{:.1}", get(f))).collect::<Vec<_>>().join(";");
            let Some(end) = frames.last() else { continue };
            let turn = frames.iter().map(|f| format!("{:.1}", f.4)).collect::<Vec<_>>().join(";");
            let shift = frames.iter().map(|f| format!("{:.1},{:.1}", f.0, f.1)).collect::<Vec<_>>().join(";");
            let _ = write!(
                svg,
                "<g transform=\"translate({:.1},{:.1})\"><animateTransform attributeName=\"transform\" type=\"translate\" \
                 values=\"{shift}\" dur=\"6s\" repeatCount=\"indefinite\"/><ellipse rx=\"{:.1}\" ry=\"{:.1}\" \
                 transform=\"rotate({:.1})\" fill=\"#2468b2\" fill-opacity=\"0.15\" stroke=\"#2468b2\"><animate \
                 attributeName=\"rx\" values=\"{}\" dur=\"6s\" repeatCount=\"indefinite\"/><animate attributeName=\"ry\" \
                 values=\"{}\" dur=\"6s\" repeatCount=\"indefinite\"/><animateTransform attributeName=\"transform\" \
                 type=\"rotate\" values=\"{turn}\" dur=\"6s\" repeatCount=\"indefinite\"/></ellipse></g>",
                end.0,
                end.1,
                end.2,
                end.3,
                end.4,
                values(|f| f.2),
                values(|f| f.3),
            );
        }
        svg += "</g>";
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn rows(collapsed: [bool; 3]) -> Vec<Row> {
        let one =
            |at: usize| Row { control: CONTROLS[at].0, spread: 0.5, width: 0.1, collapsed: collapsed[at] };
        (0..60).map(|i| one(i % 3)).collect()
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        let good = judge(&rows([true, true, false]));
        assert!(good.iter().all(|j| j.verdict == Verdict::Supported), "{good:?}");
        assert!(judge(&rows([false, false, true])).iter().all(|j| j.verdict == Verdict::NotSupported));
    }

    #[test]
    fn wide_components_meet_and_those_of_the_data_do_not() {
        let points: Vec<Point> = (0..40)
            .map(|i| {
                [if i % 2 == 0 { 3.0 } else { -3.0 } + 0.1 * (f64::from(i)).sin(), 0.1 * f64::from(i % 7)]
            })
            .collect();
        let wide = fit(&points, 4, 300, Control::Fixed(12.0), Key::new(0));
        assert!(spread_of_means(&wide, &points) < 0.01);
        let narrow = fit(&points, 4, 300, Control::Fixed(0.5), Key::new(0));
        assert!(spread_of_means(&narrow, &points) > 0.5);
        let controlled = fit(&points, 4, 300, CONTROLS[2].1, Key::new(0));
        assert!(!controlled.degenerate && controlled.spreads.iter().all(|s| smallest(s) > 0.01));
    }
}
