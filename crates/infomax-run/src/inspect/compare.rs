//! Two embeddings of the same samples side by side.

use super::{Figure, InspectConfig, SHOWN, Section, select, subset};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::geometry::{Metric, linear_cka, nearest_neighbors, neighbor_overlap};
use infomax_eval::information::{gaussian_entropy, mixed_mutual_information};
use infomax_eval::spectrum::spectrum;
use infomax_eval::{Interval, Resampling, choose};
use std::collections::BTreeMap;

/// What two embeddings of the same rows share: similarity, neighborhoods, and the differences of their ranks and
/// entropies. Their widths may differ. Rows with values that are not finite in either are left out of both.
///
/// # Errors
/// No matrices, or other numbers of rows; fewer than 2 rows that are finite in both.
pub fn compare(a: &Tensor, b: &Tensor, cfg: &InspectConfig) -> Result<Section> {
    compare_labeled(a, b, None, None, cfg)
}

/// [`compare`], and with labels the difference of what the embeddings tell of them. `drawn` has the number of each row
/// in its file, if rows were drawn from a larger one.
///
/// # Errors
/// Those of [`compare`]; labels or numbers of another number of rows.
pub fn compare_labeled(
    a: &Tensor,
    b: &Tensor,
    labels: Option<&[Option<u32>]>,
    drawn: Option<&[usize]>,
    cfg: &InspectConfig,
) -> Result<Section> {
    let ((n, _), (m, _)) = (a.dims2()?, b.dims2()?);
    if n != m {
        return Err(Error::Config(format!("{n} and {m} rows: row i of both is the same sample")));
    }
    let beside = [("labels", labels.map(<[_]>::len)), ("numbers of rows", drawn.map(<[_]>::len))];
    if let Some((what, Some(rows))) = beside.into_iter().find(|(_, rows)| rows.is_some_and(|r| r != n)) {
        return Err(Error::Config(format!("{n} rows and {rows} {what}: row i of both is the same sample")));
    }
    let (ours, theirs) = (finite(a)?, finite(b)?);
    let kept: Vec<usize> = (0..n).filter(|&i| ours[i] && theirs[i]).collect();
    if kept.len() < 2 {
        return Err(Error::Config(format!(
            "{} of {n} rows have finite values only in both embeddings; at least 2 are needed to compare them",
            kept.len()
        )));
    }
    let some: Vec<usize> = subset(kept.len(), cfg.max_rows, cfg.seed).into_iter().map(|i| kept[i]).collect();
    let (a, b) = (select(a, &some)?, select(b, &some)?);
    let note = format!("of {} of {} rows, drawn with the seed {}", some.len(), kept.len(), cfg.seed);
    let left_out = format!(
        "{} rows with values that are not finite in one of the two are left out of both",
        n - kept.len()
    );
    let mut section = Section::new("the two beside each other")
        .noted((kept.len() < n).then_some(left_out))
        .noted((some.len() < kept.len()).then_some(note));
    if let Some(cka) = section.try_part("cka", linear_cka(&a, &b, &cfg.resampling)) {
        section.figures.push(Figure::estimate(
            "cka",
            cka.debiased,
            "linear CKA, debiased; 1: equal up to rotation",
        ));
    }
    let number = |row: usize| drawn.map_or(some[row], |drawn| drawn[some[row]]);
    neighborhoods(&mut section, &a, &b, &number, cfg);
    let rank = |z: &Tensor| Ok(spectrum(z)?.rank_me);
    difference(&mut section, "rankme_difference", "RankMe", [&a, &b], cfg, &|z, _| rank(z));
    let entropy = |z: &Tensor| Ok(gaussian_entropy(z, &Resampling::none())?.ledoit_wolf.value);
    let text = "entropy_gaussian in nats, which grows with the scale and the number of the columns,";
    difference(&mut section, "entropy_difference", text, [&a, &b], cfg, &|z, _| entropy(z));
    if let Some(labels) = labels {
        information(&mut section, &a, &b, labels, &some, cfg);
    }
    Ok(section)
}

/// Which rows hold finite values only.
pub(super) fn finite(z: &Tensor) -> Result<Vec<bool>> {
    let rows = z.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    Ok(rows.iter().map(|row| row.iter().all(|v| v.is_finite())).collect())
}

/// The share of neighbors in common, and the rows that keep fewest of them.
fn neighborhoods(
    section: &mut Section,
    a: &Tensor,
    b: &Tensor,
    number: &dyn Fn(usize) -> usize,
    cfg: &InspectConfig,
) {
    let k = cfg.neighbors.min(a.dims().first().map_or(0, |n| n.saturating_sub(1)));
    let near = nearest_neighbors(a, k, Metric::Cosine)
        .and_then(|x| Ok((x, nearest_neighbors(b, k, Metric::Cosine)?)))
        .and_then(|(x, y)| neighbor_overlap(&x, &y, &cfg.resampling));
    let Some(overlap) = section.try_part("neighbor_overlap", near) else { return };
    let text = format!("the share of {k} nearest rows in common; {:.4} by chance", overlap.chance);
    section.figures.push(Figure::estimate("neighbor_overlap", overlap.share.clone(), text));
    let mut order: Vec<usize> = (0..overlap.rows.len()).filter(|&i| overlap.rows[i] < 1.0).collect();
    order.sort_by(|x, y| overlap.rows[*x].total_cmp(&overlap.rows[*y]).then(x.cmp(y)));
    let common = |row: usize| (overlap.rows[row] * k as f64).round();
    let listed: Vec<String> = order
        .iter()
        .take(SHOWN)
        .map(|&row| format!("row {} ({} of {k} in common)", number(row), common(row)))
        .collect();
    if let Some(first) = order.first() {
        let alike = order.iter().filter(|row| common(**row) == common(*first)).count();
        section.notes.push(format!(
            "rows whose neighbors changed most, {alike} of them as much as the first: {}",
            listed.join(", ")
        ));
    }
}

type Measure<'a> = &'a (dyn Fn(&Tensor, &[usize]) -> Result<f64> + Sync);

/// A figure of the second less that of the first, with an interval from subsamples of rows that are the same in both, so
/// that what both share cancels. Their deviations are scaled by `sqrt(m / (n - m))` (Politis and Romano 1994).
fn difference(
    section: &mut Section,
    key: &'static str,
    text: &str,
    both: [&Tensor; 2],
    cfg: &InspectConfig,
    measure: Measure<'_>,
) {
    let found = (|| -> Result<Figure> {
        let n = both[0].dims().first().copied().unwrap_or(0);
        let all: Vec<usize> = (0..n).collect();
        let (x, y) = (measure(both[0], &all)?, measure(both[1], &all)?);
        let figure = Figure::plain(
            key,
            y - x,
            format!("{text} of the second less that of the first: {y:.4} and {x:.4}"),
        );
        let m = (n / 2).min(cfg.resampling.max_rows);
        let draws = cfg.resampling.draws;
        // Fewer rows could have no such figure.
        if draws < 2 || m < 8 {
            return Ok(figure);
        }
        let drawn = Key::new(cfg.resampling.seed).fold_named("paired subsample");
        let mut values = Vec::with_capacity(draws);
        for draw in 0..draws as u64 {
            let rows = choose(drawn.fold_in(draw), n, m);
            let of = |z: &Tensor| measure(&select(z, &rows)?, &rows);
            // Where a subsample has none, an interval of the others would be too narrow.
            let (Ok(x), Ok(y)) = (of(both[0]), of(both[1])) else { return Ok(figure) };
            values.push(y - x);
        }
        let mean = values.iter().sum::<f64>() / draws as f64;
        // The distance from their mean that the share `level` of the draws keeps.
        values.iter_mut().for_each(|v| *v = (*v - mean).abs());
        values.sort_by(f64::total_cmp);
        let at = (cfg.resampling.level * draws as f64).ceil() as usize;
        let far = values.get(at.clamp(1, draws) - 1).copied().unwrap_or(f64::NAN);
        let half = far * (m as f64 / (n - m) as f64).sqrt();
        let interval = Interval {
            lower: figure.value - half,
            upper: figure.value + half,
            level: cfg.resampling.level,
            method: format!(
                "{draws} subsamples of {m} of {n} rows, the same in both, quantile of their deviations"
            ),
        };
        Ok(Figure { interval: half.is_finite().then_some(interval), ..figure })
    })();
    section.add(key, found);
}

/// What the second tells of the labels less what the first does.
fn information(
    section: &mut Section,
    a: &Tensor,
    b: &Tensor,
    labels: &[Option<u32>],
    some: &[usize],
    cfg: &InspectConfig,
) {
    const KEY: &str = "label_information_difference";
    // Whatever numbers the classes have, they are counted from 0; classes of few rows have no neighbors within.
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, &i) in some.iter().enumerate() {
        if let Some(label) = labels[i] {
            members.entry(label).or_default().push(row);
        }
    }
    members.retain(|_, rows| rows.len() >= 8);
    if members.len() < 2 {
        section.skipped.push(format!("{KEY}: at least 2 classes of 8 rows are needed"));
        return;
    }
    let mut known: Vec<(usize, u32)> = members
        .values()
        .zip(0u32..)
        .flat_map(|(rows, class)| rows.iter().map(move |row| (*row, class)))
        .collect();
    known.sort_unstable();
    let rows: Vec<usize> = known.iter().map(|(row, _)| *row).collect();
    let classes: Vec<u32> = known.iter().map(|(_, class)| *class).collect();
    let (Some(a), Some(b)) =
        (section.try_part(KEY, select(a, &rows)), section.try_part(KEY, select(b, &rows)))
    else {
        return;
    };
    let text = "I(Z; Y) in nats by neighbors (Ross)";
    difference(section, KEY, text, [&a, &b], cfg, &|z, rows| {
        let own: Vec<u32> = rows.iter().map(|&i| classes[i]).collect();
        Ok(mixed_mutual_information(z, &own, 3, &Resampling::none())?.value)
    });
}
