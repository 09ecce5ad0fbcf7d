//! Collapse and rank.

use super::{Figure, InspectConfig, Section};
use candle_core::Tensor;
use infomax_eval::spectrum::{rank_estimates, spectrum};

pub(super) fn rank(z: &Tensor, cfg: &InspectConfig) -> Section {
    let mut section = Section::new("collapse and rank");
    let most = z.dims().iter().copied().min().unwrap_or(1) as f64;
    if let Some(ranks) = section.try_part("ranks", rank_estimates(z, &cfg.resampling)) {
        // Of few columns a tenth is less than the one direction that there always is.
        let low = ranks.rank_me.value < 0.1 * most || most >= 2.0 && ranks.rank_me.value < 1.05;
        section.figures.push(
            Figure::estimate(
                "rankme",
                ranks.rank_me,
                format!("RankMe, directions in use, of at most {most}; above a tenth of them is usual"),
            )
            .warn_if(low, "few directions carry the embedding: a dimensional collapse, or a narrow task"),
        );
        section.figures.push(Figure::estimate(
            "effective_rank",
            ranks.effective_rank,
            "exp of the entropy of the singular values",
        ));
        section.figures.push(Figure::estimate(
            "covariance_entropy_rank",
            ranks.covariance_entropy_rank,
            "exp of the entropy of the variances along principal axes, centered",
        ));
        let narrow = ranks.participation_ratio.value < 2.0;
        section.figures.push(
            Figure::estimate(
                "participation_ratio",
                ranks.participation_ratio,
                "how many principal axes share the variance; 1 is a line",
            )
            .warn_if(narrow, "nearly all variance lies on one axis"),
        );
        section.figures.push(Figure::estimate(
            "stable_rank",
            ranks.stable_rank,
            "all squared singular values by the largest",
        ));
    }
    if let Some(all) = section.try_part("spectrum", spectrum(z)) {
        match all.alpha_req {
            Some(alpha) => section.figures.push(
                Figure::plain(
                    "alpha_req",
                    alpha,
                    "the decay of the spectrum, lambda_i ~ i^-alpha; near 1 goes with good transfer",
                )
                .warn_if(
                    !(0.5..=2.0).contains(&alpha),
                    "far from 1: nearly white (below) or nearly low-rank (above)",
                ),
            ),
            None => section.skipped.push("alpha_req: needs 100 positive eigenvalues".into()),
        }
        if let Some(score) = all.iso_score {
            section.figures.push(Figure::plain("iso_score", score, "1: equal variances; 0: one direction"));
        }
    }
    section
}
