//! How much entropy the embeddings hold, and how much their views tell of each other.

use super::{Figure, InspectConfig, Section};
use candle_core::Tensor;
use infomax_eval::geometry::alignment;
use infomax_eval::information::{
    KsgConfig, MixtureConfig, Norm, gaussian_entropy, kozachenko_leonenko, mixture_entropy,
    mutual_information,
};

pub(super) fn entropy(z: &Tensor, cfg: &InspectConfig) -> Section {
    let mut section = Section::new("entropy, in nats");
    let mixture = mixture_entropy(z, &MixtureConfig { seed: cfg.seed, ..MixtureConfig::default() });
    section.add(
        "entropy_blurred",
        mixture.map(|bracket| {
            Figure::bracket(
                "entropy_blurred",
                bracket,
                "the entropy of the rows blurred by noise as long as the distance to the nearest row",
            )
        }),
    );
    if let Some(gaussian) = section.try_part("entropy_gaussian", gaussian_entropy(z, &cfg.resampling)) {
        section.figures.push(Figure::estimate(
            "entropy_gaussian",
            gaussian.ledoit_wolf,
            "the normal distribution of the same covariance (Ledoit-Wolf): no density of that covariance has more",
        ));
        section.figures.push(Figure::estimate(
            "entropy_independent",
            gaussian.diagonal,
            "the same if columns were independent; what it has more is total correlation",
        ));
    }
    let neighbors = kozachenko_leonenko(z, 3, Norm::Euclidean, &cfg.resampling);
    section.add(
        "entropy_neighbors",
        neighbors.map(|estimate| {
            Figure::estimate(
                "entropy_neighbors",
                estimate,
                "Kozachenko-Leonenko, k = 3: no model of the density",
            )
        }),
    );
    section
}

pub(super) fn views(z: &Tensor, views: &Tensor, cfg: &InspectConfig) -> Section {
    let mut section = Section::new("what views tell of each other");
    section.add(
        "alignment",
        alignment(z, views, 2.0, &cfg.resampling).map(|estimate| {
            Figure::estimate(
                "alignment",
                estimate,
                "mean squared distance of the directions of two views; 0 is best",
            )
        }),
    );
    section.add(
        "view_information",
        mutual_information(z, views, &KsgConfig::default(), &cfg.resampling).map(|estimate| {
            Figure::estimate("view_information", estimate, "I(Z; Z') in nats by nearest neighbors (KSG)")
        }),
    );
    section
}
