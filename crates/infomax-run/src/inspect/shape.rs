//! Normality and geometry.

use super::{Figure, InspectConfig, LISTED, RowNote, Section};
use candle_core::Tensor;
use infomax_eval::Doubt;
use infomax_eval::geometry::{
    DimensionConfig, Metric, hubness, intrinsic_dimension, nearest_neighbors, uniformity_estimate,
};
use infomax_eval::normality::{ColumnTest, henze_zirkler, mardia_kurtosis, marginal_normality};

pub(super) fn normality(z: &Tensor, sample: &Tensor) -> Section {
    let mut section = Section::new("normality");
    section.add(
        "columns_not_normal",
        marginal_normality(z, ColumnTest::DagostinoPearson, 0.05).map(|all| {
            let tested = all.columns.iter().flatten().count();
            Figure::plain(
                "columns_not_normal",
                all.rejected,
                format!(
                    "the share of {tested} columns that are not normal (D'Agostino-Pearson, Benjamini-Hochberg at \
                     0.05); with many rows every real embedding is rejected"
                ),
            )
        }),
    );
    section.add(
        "henze_zirkler",
        henze_zirkler(sample).map(|test| {
            let doubts = test.doubts.clone();
            Figure {
                doubts,
                ..Figure::plain(
                    "henze_zirkler",
                    test.statistic,
                    match test.p_value {
                        0.0 => "the distance to a normal cloud of all columns together; p below 1e-300"
                            .to_owned(),
                        p => format!("the distance to a normal cloud of all columns together; p = {p:.2e}"),
                    },
                )
            }
        }),
    );
    section.add(
        "mardia_kurtosis",
        mardia_kurtosis(sample).map(|test| {
            // b / p (p + 2), which is 1 for normal rows and (nu - 2) / (nu - 4) for Student's of nu degrees of freedom.
            let p = sample.dims().get(1).copied().unwrap_or(0) as f64;
            let ratio = 1.0 + test.statistic * (8.0 / (test.n as f64 * p * (p + 2.0))).sqrt();
            let heavy = test.statistic > SURE && ratio > TAILS;
            Figure::plain(
                "mardia_kurtosis",
                test.statistic,
                format!(
                    "Mardia's kurtosis of all columns together in standard deviations from that of a normal cloud, of which it is \
                     {ratio:.3} times; above 0 tails are heavier, below 0 lighter; p = {:.2e}",
                    test.p_value
                ),
            )
            .doubting(test.doubts)
            .warn_if(heavy, "heavy tails: means, covariances and what is made of them follow a few rows")
        }),
    );
    section
}

/// Mardia's kurtosis, as a multiple of that of normal rows, from which tails are said to be heavy: that of Student's distribution with
/// eight degrees of freedom; and the standard deviations from which that is no chance.
const TAILS: f64 = 1.5;
const SURE: f64 = 4.0;
/// The share of rows with neighbors that only their order decides, from which on hubs are said to be theirs.
const TIED: f64 = 0.05;

type Columns = Vec<(String, Vec<Option<f64>>)>;

pub(super) fn geometry(z: &Tensor, cfg: &InspectConfig) -> (Section, Vec<RowNote>, Columns) {
    let mut section = Section::new("geometry");
    section.add(
        "uniformity",
        uniformity_estimate(z, 2.0, &cfg.resampling).map(|estimate| {
            Figure::estimate(
                "uniformity",
                estimate,
                "ln mean exp(-2 |u - v|^2) of directions; about -4 is the least in many columns, 0 a collapse",
            )
        }),
    );
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let n = z.dims().first().copied().unwrap_or(0);
    let k = cfg.neighbors.min(n.saturating_sub(1));
    // One more, which says whether the last of them is decided by distances.
    let more = (k + 1).min(n.saturating_sub(1));
    let Some(wider) = section.try_part("neighbors", nearest_neighbors(z, more, Metric::Euclidean)) else {
        return (section, rows, columns);
    };
    let undecided = if more > k { wider.undecided() } else { vec![false; n] };
    let near = wider.nearest(k);
    let tied = undecided.iter().filter(|tied| **tied).count();
    let ties = (tied as f64 > TIED * n as f64).then(|| Doubt {
        code: "ties",
        message: format!(
            "for {tied} of {n} rows the {k}-th neighbor and the next are equally far (equal rows, or values of a grid): which one \
             counts is decided by their order, so that hubs and antihubs can be artifacts of it"
        ),
    });
    if let Some(dimension) = section.try_part(
        "intrinsic dimension",
        intrinsic_dimension(&near, &DimensionConfig::default(), &cfg.resampling),
    ) {
        section.figures.push(Figure::estimate(
            "intrinsic_dimension",
            dimension.two_nn_likelihood,
            "how many directions a small piece of the cloud has (TwoNN)",
        ));
    }
    if let Some(hubs) = section.try_part("hubness", hubness(&near, &cfg.resampling)) {
        let strong = hubs.skewness.value > 2.0;
        section.figures.push(
            Figure::estimate(
                "hubness",
                hubs.skewness.clone(),
                format!("the skewness of how often a row is among the {k} nearest; above 1 there are hubs"),
            )
            .doubting(ties.clone())
            .warn_if(
                strong && ties.is_none(),
                "a few rows are everybody's neighbor: normalize before searching, or look at them",
            ),
        );
        section.figures.push(
            Figure::estimate(
                "antihubs",
                hubs.antihubs.clone(),
                "the share of rows that are nobody's neighbor",
            )
            .doubting(ties.clone()),
        );
        // How often a row is taken as the last of equally near ones.
        let mut by_order = vec![0u32; n];
        for row in (0..n).filter(|row| undecided[*row]) {
            let distances = near.distances_of(row);
            let last = distances.last();
            let equally = near.of(row).iter().zip(distances).filter(|(_, d)| Some(*d) == last);
            equally.for_each(|(other, _)| by_order[*other as usize] += 1);
        }
        rows.extend(hubs.hubs.iter().take(LISTED).map(|&row| {
            let (all, tied) = (hubs.occurrences[row], by_order[row]);
            let more = if 2 * tied > all {
                format!(", of {tied} of them only because it comes before others that are as near: no hub by distance")
            } else {
                String::new()
            };
            let detail = format!("among the {k} nearest of {all} rows{more}");
            RowNote { row, source: None, why: "hub", detail }
        }));
        columns.push(("occurrences".into(), hubs.occurrences.iter().map(|c| Some(f64::from(*c))).collect()));
    }
    // Far from its neighbors: beyond the upper quartile by three times the quartile range (Tukey's far out).
    let far: Vec<f64> =
        (0..near.n).map(|row| near.distances_of(row).last().copied().unwrap_or(0.0)).collect();
    let mut sorted = far.clone();
    sorted.sort_by(f64::total_cmp);
    let quartile = |p: f64| sorted[((sorted.len() - 1) as f64 * p) as usize];
    let fence = quartile(0.75) + 3.0 * (quartile(0.75) - quartile(0.25));
    let mut outliers: Vec<usize> = (0..near.n).filter(|&row| far[row] > fence).collect();
    outliers.sort_by(|a, b| far[*b].total_cmp(&far[*a]));
    section.figures.push(Figure::plain(
        "outliers",
        outliers.len() as f64,
        format!("rows whose {k}-th neighbor is far out (three quartile ranges above the third quartile)"),
    ));
    rows.extend(outliers.iter().take(LISTED).map(|&row| RowNote {
        row,
        source: None,
        why: "outlier",
        detail: format!("its {k}-th neighbor is at {:.4}; the median is {:.4}", far[row], quartile(0.5)),
    }));
    columns.push((format!("distance_to_neighbor_{k}"), far.into_iter().map(Some).collect()));
    (section, rows, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use infomax_core::Key;

    fn find<'a>(section: &'a Section, key: &str) -> &'a Figure {
        section.figures.iter().find(|f| f.key == key).unwrap()
    }

    #[test]
    fn hubs_of_ties_are_said_to_be_such_and_true_ones_are_not() {
        let cfg = InspectConfig::default();
        let cloud = Key::new(1).normal(0.0, 1.0, (300, 30), DType::F64, &Device::Cpu).unwrap();
        let (section, rows, _) = geometry(&cloud, &cfg);
        assert!(find(&section, "hubness").doubts.iter().all(|d| d.code != "ties"));
        assert!(
            rows.iter().any(|r| r.why == "hub") && rows.iter().all(|r| !r.detail.contains("comes before"))
        );
        // Twelve places of 25 rows each: the first ten rows of a place are everybody's neighbors there.
        let places = Key::new(2).normal(0.0, 1.0, (12, 4), DType::F64, &Device::Cpu).unwrap();
        let index =
            Tensor::from_vec((0..300u32).map(|i| i % 12).collect::<Vec<_>>(), 300, &Device::Cpu).unwrap();
        let (section, rows, _) = geometry(&places.index_select(&index, 0).unwrap(), &cfg);
        let hubness = find(&section, "hubness");
        assert!(hubness.doubts.iter().any(|d| d.code == "ties") && hubness.warning.is_none(), "{hubness:?}");
        let hubs: Vec<_> = rows.iter().filter(|r| r.why == "hub").collect();
        assert!(hubs.iter().all(|r| r.detail.contains("comes before others")), "{hubs:?}");
    }

    #[test]
    fn heavy_tails_are_said_and_normal_ones_are_not() {
        let normal = Key::new(3).normal(0.0, 1.0, (600, 3), DType::F64, &Device::Cpu).unwrap();
        let section = self::normality(&normal, &normal);
        let figure = find(&section, "mardia_kurtosis");
        assert!(figure.value.abs() < 4.0 && figure.warning.is_none(), "{figure:?}");
        let cubes = normal.powf(3.0).unwrap();
        let section = self::normality(&cubes, &cubes);
        assert!(find(&section, "mardia_kurtosis").warning.is_some());
    }
}
