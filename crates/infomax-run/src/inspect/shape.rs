//! Normality and geometry.

use super::{Figure, InspectConfig, LISTED, RowNote, Section};
use candle_core::Tensor;
use infomax_eval::geometry::{
    DimensionConfig, Metric, hubness, intrinsic_dimension, nearest_neighbors, uniformity_estimate,
};
use infomax_eval::normality::{ColumnTest, henze_zirkler, marginal_normality};

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
    section
}

type Columns = Vec<(String, Vec<Option<f64>>)>;

pub(super) fn geometry(z: &Tensor, cfg: &InspectConfig) -> (Section, Vec<RowNote>, Columns) {
    let mut section = Section::new("geometry");
    section.add(
        "uniformity",
        uniformity_estimate(z, 2.0, &cfg.resampling).map(|estimate| {
            Figure::estimate(
                "uniformity",
                estimate,
                "ln mean exp(-2 |u - v|^2) of directions; -4 is the least, 0 a collapse",
            )
        }),
    );
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let n = z.dims().first().copied().unwrap_or(0);
    let k = cfg.neighbors.min(n.saturating_sub(1));
    let Some(near) = section.try_part("neighbors", nearest_neighbors(z, k, Metric::Euclidean)) else {
        return (section, rows, columns);
    };
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
            .warn_if(
                strong,
                "a few rows are everybody's neighbor: normalize before searching, or look at them",
            ),
        );
        section.figures.push(Figure::estimate(
            "antihubs",
            hubs.antihubs.clone(),
            "the share of rows that are nobody's neighbor",
        ));
        rows.extend(hubs.hubs.iter().take(LISTED).map(|&row| RowNote {
            row,
            source: None,
            why: "hub",
            detail: format!("among the {k} nearest of {} rows", hubs.occurrences[row]),
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
