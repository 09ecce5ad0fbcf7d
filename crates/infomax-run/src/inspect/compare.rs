//! Two embeddings of the same samples side by side.

use super::{Figure, InspectConfig, Section, select, subset};
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_eval::geometry::{Metric, linear_cka, nearest_neighbors, neighbor_overlap};
use infomax_eval::spectrum::spectrum;

/// What two embeddings of the same rows share: similarity, neighborhoods, and the difference of their ranks. Their
/// widths may differ.
///
/// # Errors
/// No matrices, or other numbers of rows.
pub fn compare(a: &Tensor, b: &Tensor, cfg: &InspectConfig) -> Result<Section> {
    let ((n, _), (m, _)) = (a.dims2()?, b.dims2()?);
    if n != m {
        return Err(Error::Config(format!("{n} and {m} rows: row i of both is the same sample")));
    }
    let some = subset(n, cfg.max_rows, cfg.seed);
    let (a, b) = (select(a, &some)?, select(b, &some)?);
    let note = format!("of {} of {n} rows, drawn with the seed {}", some.len(), cfg.seed);
    let mut section = Section::new("the two beside each other").noted((some.len() < n).then_some(note));
    if let Some(cka) = section.try_part("cka", linear_cka(&a, &b, &cfg.resampling)) {
        section.figures.push(Figure::estimate(
            "cka",
            cka.debiased,
            "linear CKA, debiased; 1: equal up to rotation",
        ));
    }
    let k = cfg.neighbors.min(some.len().saturating_sub(1));
    let near = nearest_neighbors(&a, k, Metric::Cosine)
        .and_then(|x| Ok((x, nearest_neighbors(&b, k, Metric::Cosine)?)))
        .and_then(|(x, y)| neighbor_overlap(&x, &y, &cfg.resampling));
    section.add(
        "neighbor_overlap",
        near.map(|overlap| {
            let text = format!("the share of {k} nearest rows in common; {:.4} by chance", overlap.chance);
            Figure::estimate("neighbor_overlap", overlap.share, text)
        }),
    );
    let ranks = spectrum(&a).and_then(|x| Ok((x, spectrum(&b)?)));
    if let Some((x, y)) = section.try_part("ranks", ranks) {
        let text = format!("RankMe of the second less the first: {:.2} and {:.2}", y.rank_me, x.rank_me);
        section.figures.push(Figure::plain("rankme_difference", y.rank_me - x.rank_me, text));
    }
    Ok(section)
}
