//! The named objectives: constructors of an invariance and an entropy term.

use crate::config::EntropyConfig as Entropy;
use crate::entropy::{self, Divergence};
use crate::invariance::{ClassCosine, Cosine, Mse, Pairing, Teacher, WeightedCosine, Whitened};
use crate::settings::positive;
use crate::{Error, InvarianceConfig, NoEntropy, NoInvariance, ObjectiveConfig, Reduce, Result};

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub struct NamedObjective {
    /// The name, as in a configuration.
    pub name: &'static str,
    /// Its terms, in words.
    pub composition: &'static str,
    /// The conventions it has; the first is the default.
    pub conventions: &'static [&'static str],
    /// The paper.
    pub source: &'static str,
    preset: fn(&str, &Given) -> (InvarianceConfig, Entropy),
}

/// All named objectives, by name.
pub fn names() -> &'static [NamedObjective] {
    NAMED
}

/// Numbers that are set beside a preset, which others of its numbers follow.
type Given<'a> = dyn Fn(&str) -> Option<f64> + 'a;

/// The methods whose two terms have one temperature.
const TEMPERED: [&str; 4] = ["simclr", "dcl", "dclw", "supcon"];

pub(crate) fn find(name: &str, convention: Option<&str>, given: &Given) -> Result<ObjectiveConfig> {
    let Some(named) = NAMED.iter().find(|named| named.name == name) else {
        return Err(unknown(name));
    };
    let convention = convention.unwrap_or(named.conventions[0]);
    if !named.conventions.contains(&convention) {
        return Err(Error::unknown("convention", convention, named.conventions));
    }
    let temperature = given("temperature");
    if let Some(t) = temperature {
        positive("objective", "temperature", t)?;
        if !TEMPERED.contains(&name) {
            return Err(without_temperature(name));
        }
    }
    let (invariance, entropy) = (named.preset)(convention, given);
    Ok(ObjectiveConfig { name: name.into(), convention: convention.into(), temperature, invariance, entropy })
}

/// What a name that is none is near to: another name, or a kind of a term.
fn unknown(name: &str) -> Error {
    let all: Vec<&str> = NAMED.iter().map(|named| named.name).collect();
    let word = name.to_lowercase();
    let table = if Entropy::KINDS.contains(&word.as_str()) {
        "entropy"
    } else if InvarianceConfig::KINDS.contains(&word.as_str()) {
        "invariance"
    } else {
        return Error::unknown("objective", name, &all);
    };
    let has = |named: &&NamedObjective| {
        let (invariance, entropy) = (named.preset)(named.conventions[0], &|_| None);
        word == if table == "entropy" { entropy.kind() } else { invariance.kind() }
    };
    let with = NAMED.iter().filter(has).take(4).map(|named| format!("`{}`", named.name));
    let custom = format!("`custom` with {table}.kind = \"{word}\", which is a kind of term");
    let nearest = with.chain([custom]).collect::<Vec<_>>().join(", ");
    Error::Unknown { what: "objective", name: name.to_owned(), nearest, all: all.join(", ") }
}

fn without_temperature(name: &str) -> Error {
    Error::Contradiction(format!(
        "temperature: `{name}` has no temperature that its terms share; {} have one",
        TEMPERED.map(|name| format!("`{name}`")).join(", ")
    ))
}

/// Refuses the terms of a contrastive method with two temperatures.
pub(crate) fn agree(config: &ObjectiveConfig) -> Result<()> {
    let name = config.name.as_str();
    if let ("lejepa", InvarianceConfig::Mse(invariance), Entropy::SigReg(entropy)) =
        (name, &config.invariance, &config.entropy)
        && (invariance.weight + entropy.weight - 1.0).abs() > 1e-6
    {
        return Err(Error::Contradiction(format!(
            "invariance.weight = {} and entropy.weight = {}: they are 1 - lambda and lambda of `lejepa`; set \
             entropy.weight alone, or name = \"custom\" with both kinds for weights of their own",
            invariance.weight, entropy.weight
        )));
    }
    if !TEMPERED.contains(&name) {
        return config.temperature.map_or(Ok(()), |_| Err(without_temperature(name)));
    }
    let Entropy::Contrastive(entropy) = &config.entropy else {
        return config.temperature.map_or(Ok(()), |_| Err(without_temperature("custom")));
    };
    let t = entropy.temperature;
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    if let Some(shared) = config.temperature.filter(|shared| !near(*shared, t)) {
        return Err(Error::Contradiction(format!(
            "temperature = {shared}, but entropy.temperature = {t}: `{name}` has one temperature; set \
             objective.temperature alone"
        )));
    }
    let slope = match &config.invariance {
        InvarianceConfig::Cosine(c) => c.weight * c.scale,
        InvarianceConfig::WeightedCosine(c) => c.weight,
        InvarianceConfig::ClassCosine(c) => c.weight,
        _ => return Ok(()),
    };
    if near(slope * t, entropy.weight) {
        return Ok(());
    }
    Err(Error::Contradiction(format!(
        "invariance.weight = {slope}, but 1 / temperature = {}: the two terms of `{name}` share a temperature; set \
         objective.temperature = {} for this weight, or name = \"custom\" with both kinds for terms that do not",
        entropy.weight / t,
        entropy.weight / slope
    )))
}

const OFFICIAL: &[&str] = &["official"];

const NAMED: &[NamedObjective] = &[
    NamedObjective {
        name: "align-uniform",
        composition: "mse of unit rows + uniformity",
        conventions: &["official", "lightly"],
        source: "arXiv 2005.10242",
        preset: |convention, _| {
            let t = if convention == "lightly" { 1.0 } else { 2.0 };
            let alignment = Mse { normalize: true, sum_dims: true, ..Default::default() };
            (
                InvarianceConfig::Mse(alignment),
                Entropy::Uniformity(entropy::Uniformity { t, ..Default::default() }),
            )
        },
    },
    NamedObjective {
        name: "barlow-twins",
        composition: "on-diagonal + lambda off-diagonal of the cross-correlation",
        conventions: &["official", "lightly", "solo-learn"],
        source: "arXiv 2103.03230",
        preset: |convention, _| {
            let lambda = if convention == "official" { 0.0051 } else { 0.005 };
            let scale = if convention == "solo-learn" { 0.025 } else { 1.0 };
            (none(), Entropy::Barlow(entropy::Barlow { lambda, scale, ..Default::default() }))
        },
    },
    NamedObjective {
        name: "byol",
        composition: "2 - 2 cos to a momentum teacher, both directions; no entropy term",
        conventions: OFFICIAL,
        source: "arXiv 2006.07733",
        preset: |_, _| (byol(), Entropy::None(NoEntropy {})),
    },
    NamedObjective {
        name: "byol-logdet",
        composition: "byol + logdet",
        conventions: OFFICIAL,
        source: "arXiv 2303.00633",
        preset: |_, _| (byol(), logdet()),
    },
    NamedObjective {
        name: "byol-pairdist",
        composition: "byol + pairdist (KL)",
        conventions: OFFICIAL,
        source: "arXiv 2303.00633",
        preset: |_, _| (byol(), pairdist(Divergence::Kl, false)),
    },
    NamedObjective {
        name: "corinfomax",
        composition: "250 mse + log-det of running covariances",
        conventions: OFFICIAL,
        source: "arXiv 2209.07999",
        preset: |_, _| (mse(250.0), Entropy::CorInfoMax(Default::default())),
    },
    NamedObjective {
        name: "dcl",
        composition: "cosine / 0.1 + log-sum-exp without the positives",
        conventions: OFFICIAL,
        source: "arXiv 2110.06848",
        preset: |_, given| {
            let temperature = shared(given).unwrap_or(0.1);
            let entropy = entropy::Contrastive { temperature, decoupled: true, ..Default::default() };
            (cosine(1.0 / temperature), Entropy::Contrastive(entropy))
        },
    },
    NamedObjective {
        name: "dclw",
        composition: "weighted cosine / 0.1 + log-sum-exp without the positives",
        conventions: OFFICIAL,
        source: "arXiv 2110.06848",
        preset: |_, given| {
            let temperature = shared(given).unwrap_or(0.1);
            let entropy = entropy::Contrastive { temperature, decoupled: true, ..Default::default() };
            let invariance = WeightedCosine { weight: 1.0 / temperature, ..Default::default() };
            (InvarianceConfig::WeightedCosine(invariance), Entropy::Contrastive(entropy))
        },
    },
    NamedObjective {
        name: "e2mc",
        composition: "25 mse + 10 m-spacing entropy with 1 hyper-covariance",
        conventions: OFFICIAL,
        source: "github.com/deepc94/e2mc",
        preset: |_, _| {
            // The covariance is inside of the entropy part, whose weight multiplies it.
            let entropy = entropy::MSpacing { weight: 10.0, covariance: 0.1, ..Default::default() };
            (mse(25.0), Entropy::MSpacing(entropy))
        },
    },
    NamedObjective {
        name: "emp-ssl",
        composition: "200 cosine to the mean view + minus the coding rate",
        conventions: OFFICIAL,
        source: "arXiv 2304.03977",
        preset: |_, _| {
            let invariance = Cosine { weight: 200.0, pairing: Pairing::Mean, ..Default::default() };
            let entropy = entropy::CodingRate { normalize: false, ..Default::default() };
            (InvarianceConfig::Cosine(invariance), Entropy::CodingRate(entropy))
        },
    },
    NamedObjective {
        name: "frossl",
        composition: "squared error to the mean view + log of the Frobenius norm, on unit columns",
        conventions: &["official", "original"],
        source: "arXiv 2310.02903",
        preset: |convention, _| {
            // The loss of the paper, for two views, has centered columns; the code for more has not.
            let center = convention == "original";
            (none(), Entropy::Frossl(entropy::Frossl { center, ..Default::default() }))
        },
    },
    NamedObjective {
        name: "hydes",
        composition: "local minus global entropy of von Mises-Fisher kernels",
        conventions: OFFICIAL,
        source: "arXiv 2604.24498",
        preset: |_, _| (none(), Entropy::Hydes(Default::default())),
    },
    NamedObjective {
        name: "kerjepa",
        composition: "mse + 4 times Stein's discrepancy of an inverse multiquadric from N(0, I)",
        conventions: OFFICIAL,
        source: "arXiv 2512.19605; weights and bandwidth are ours",
        preset: |_, _| {
            let entropy = entropy::KernelDiscrepancy { weight: 4.0, ..Default::default() };
            (mse(1.0), Entropy::KernelDiscrepancy(entropy))
        },
    },
    NamedObjective {
        name: "koleo",
        composition: "cosine + 0.1 koleo",
        conventions: OFFICIAL,
        source: "arXiv 1806.03198",
        preset: |_, _| (cosine(1.0), Entropy::KoLeo(entropy::KoLeo { weight: 0.1, ..Default::default() })),
    },
    NamedObjective {
        name: "lejepa",
        composition: "(1 - lambda) squared error to the center of the global views + lambda sigreg",
        conventions: &["official", "lightly"],
        source: "arXiv 2511.08544",
        preset: |convention, given| {
            let lambda = if convention == "lightly" { 0.05 } else { 0.02 };
            let lambda = given("entropy.weight").filter(|l| (0.0..=1.0).contains(l)).unwrap_or(lambda);
            let invariance = Mse { weight: 1.0 - lambda, pairing: Pairing::Globals, ..Default::default() };
            let entropy = entropy::SigReg { weight: lambda, ..Default::default() };
            (InvarianceConfig::Mse(invariance), Entropy::SigReg(entropy))
        },
    },
    NamedObjective {
        name: "matrix-ssl",
        composition: "matrix cross-entropy of auto-covariances + minus the log-determinant of the cross-covariance",
        conventions: OFFICIAL,
        source: "arXiv 2305.17326",
        preset: |_, _| (none(), Entropy::MatrixSsl(Default::default())),
    },
    NamedObjective {
        name: "mcr2",
        composition: "coding rate within classes (a sample's views, or labels) + minus the coding rate",
        conventions: OFFICIAL,
        source: "arXiv 2006.08558",
        preset: |_, _| (none(), Entropy::Mcr2(Default::default())),
    },
    NamedObjective {
        name: "mec",
        composition: "maximum entropy coding of pairs of views, order 4",
        conventions: OFFICIAL,
        source: "arXiv 2210.11464",
        preset: |_, _| (none(), Entropy::Mec(Default::default())),
    },
    NamedObjective {
        name: "mmcr",
        composition: "minus the nuclear norm of the centroids + 0.005 that of each sample's views",
        conventions: &["official", "lightly"],
        source: "arXiv 2303.03307",
        preset: |convention, _| {
            // The package leaves unit rows to the caller.
            let normalize = convention == "official";
            (none(), Entropy::Mmcr(entropy::Mmcr { normalize, ..Default::default() }))
        },
    },
    NamedObjective {
        name: "radial-vicreg",
        composition: "25 mse + 25 variance hinge + 1 covariance + divergence of the norms from chi",
        conventions: OFFICIAL,
        source: "arXiv 2602.14272; the weight of the divergence is ours",
        preset: |_, _| (mse(25.0), Entropy::Radial(Default::default())),
    },
    NamedObjective {
        name: "rectified-lpjepa",
        composition: "25 mse + 250 sliced Wasserstein distance to a rectified Laplace distribution, of max(z, 0)",
        conventions: OFFICIAL,
        source: "arXiv 2602.01456",
        preset: |_, _| {
            let invariance = Mse { weight: 25.0, rectify: true, ..Default::default() };
            (InvarianceConfig::Mse(invariance), Entropy::Rectified(Default::default()))
        },
    },
    NamedObjective {
        name: "simclr",
        composition: "cosine / t + log-sum-exp: NT-Xent",
        conventions: &["official", "lightly", "solo-learn"],
        source: "arXiv 2002.05709",
        preset: |convention, given| {
            let t = shared(given).unwrap_or(if convention == "solo-learn" { 0.2 } else { 0.5 });
            let entropy = entropy::Contrastive { temperature: t, ..Default::default() };
            (cosine(1.0 / t), Entropy::Contrastive(entropy))
        },
    },
    NamedObjective {
        name: "simclr-logdet",
        composition: "cosine / 0.5 + logdet",
        conventions: OFFICIAL,
        source: "arXiv 2303.00633",
        preset: |_, _| (cosine(2.0), logdet()),
    },
    NamedObjective {
        name: "simclr-pairdist",
        composition: "cosine / 0.5 + pairdist (KL) of unit rows",
        conventions: OFFICIAL,
        source: "arXiv 2303.00633",
        preset: |_, _| (cosine(2.0), pairdist(Divergence::Kl, true)),
    },
    NamedObjective {
        name: "simdino",
        composition: "negative cosine to a momentum teacher + minus the scaled coding rate of the global views",
        conventions: OFFICIAL,
        source: "arXiv 2502.10385",
        preset: |_, _| {
            let invariance = Cosine { teacher: Teacher::MomentumDirect, ..Default::default() };
            (InvarianceConfig::Cosine(invariance), Entropy::Expansion(Default::default()))
        },
    },
    NamedObjective {
        name: "simsiam",
        composition: "negative cosine of predictions to projections without gradient; no entropy term",
        conventions: OFFICIAL,
        source: "arXiv 2011.10566",
        preset: |_, _| {
            let invariance = Cosine { teacher: Teacher::StopGradient, ..Default::default() };
            (InvarianceConfig::Cosine(invariance), Entropy::None(NoEntropy {}))
        },
    },
    NamedObjective {
        name: "supcon",
        composition: "cosine to the samples of the same label / 0.1 + log-sum-exp",
        conventions: OFFICIAL,
        source: "arXiv 2004.11362",
        preset: |_, given| {
            let temperature = shared(given).unwrap_or(0.1);
            let entropy = entropy::Contrastive { temperature, ..Default::default() };
            let invariance = ClassCosine { weight: 1.0 / temperature };
            (InvarianceConfig::ClassCosine(invariance), Entropy::Contrastive(entropy))
        },
    },
    NamedObjective {
        name: "swav",
        composition: "swapped prediction of balanced codes: assignment + log-sum-exp over prototypes",
        conventions: OFFICIAL,
        source: "arXiv 2006.09882",
        preset: |_, _| (none(), Entropy::Swav(Default::default())),
    },
    NamedObjective {
        name: "tico",
        composition: "1 - cos + 8 covariance contrast",
        conventions: OFFICIAL,
        source: "arXiv 2206.10698",
        preset: |_, _| {
            let invariance = Cosine { offset: 1.0, ..Default::default() };
            (InvarianceConfig::Cosine(invariance), Entropy::Tico(Default::default()))
        },
    },
    NamedObjective {
        name: "vcreg",
        composition: "25 variance hinge + 1 covariance, no pairs",
        conventions: OFFICIAL,
        source: "arXiv 2306.13292",
        preset: |_, _| (none(), Entropy::Vicreg(Default::default())),
    },
    NamedObjective {
        name: "vibcreg",
        composition: "25 mse + 25 variance hinge + 200 squared correlations",
        conventions: &["solo-learn"],
        source: "arXiv 2109.00783",
        preset: |_, _| (mse(25.0), Entropy::Vibcreg(Default::default())),
    },
    NamedObjective {
        name: "vicreg",
        composition: "25 mse + 25 variance hinge + 1 covariance",
        conventions: &["official", "solo-learn", "lightly"],
        source: "arXiv 2105.04906",
        preset: |convention, _| {
            let variance_views = if convention == "solo-learn" { Reduce::Sum } else { Reduce::Mean };
            (mse(25.0), Entropy::Vicreg(entropy::Vicreg { variance_views, ..Default::default() }))
        },
    },
    NamedObjective {
        name: "vicreg-logdet",
        composition: "25 mse + logdet",
        conventions: OFFICIAL,
        source: "arXiv 2303.00633",
        preset: |_, _| (mse(25.0), logdet()),
    },
    NamedObjective {
        name: "vicreg-pairdist-bd",
        composition: "25 mse + pairdist (Bhattacharyya, lower bound)",
        conventions: OFFICIAL,
        source: "arXiv 2303.00633",
        preset: |_, _| (mse(25.0), pairdist(Divergence::Bhattacharyya, false)),
    },
    NamedObjective {
        name: "vicreg-pairdist-kl",
        composition: "25 mse + pairdist (Kullback-Leibler, upper bound)",
        conventions: OFFICIAL,
        source: "arXiv 2303.00633",
        preset: |_, _| (mse(25.0), pairdist(Divergence::Kl, false)),
    },
    NamedObjective {
        name: "vicregl",
        composition: "0.75 (25 mse + 25 variance + 1 covariance) + 0.25 of the same on matched local embeddings",
        conventions: OFFICIAL,
        source: "arXiv 2210.01571",
        preset: |_, given| {
            let entropy = entropy::Vicregl::default();
            let alpha = given("entropy.alpha").filter(|a| (0.0..=1.0).contains(a));
            let weight = alpha.unwrap_or(entropy.alpha) * 25.0;
            let invariance = Mse { weight, pairing: Pairing::GlobalPairs, ..Default::default() };
            (InvarianceConfig::Mse(invariance), Entropy::Vicregl(entropy))
        },
    },
    NamedObjective {
        name: "visreg",
        composition: "0.1 squared error to the center of the global views + 0.9 (scale + shape + center)",
        conventions: OFFICIAL,
        source: "arXiv 2606.02572",
        preset: |_, _| {
            let invariance = Mse { weight: 0.1, pairing: Pairing::Globals, ..Default::default() };
            (InvarianceConfig::Mse(invariance), Entropy::VisReg(Default::default()))
        },
    },
    NamedObjective {
        name: "w-mse",
        composition: "2 - 2 cos of whitened views; whitening is the entropy constraint",
        conventions: OFFICIAL,
        source: "arXiv 2007.06346",
        preset: |_, _| (InvarianceConfig::Whitened(Whitened::default()), Entropy::None(NoEntropy {})),
    },
];

/// The temperature of both terms that is set, for the objective or in the entropy term; what is out of range is left
/// to the check of that setting.
fn shared(given: &Given) -> Option<f64> {
    given("temperature").or_else(|| given("entropy.temperature")).filter(|t| *t > 0.0 && t.is_finite())
}

fn none() -> InvarianceConfig {
    InvarianceConfig::None(NoInvariance {})
}

fn mse(weight: f64) -> InvarianceConfig {
    InvarianceConfig::Mse(Mse { weight, ..Default::default() })
}

fn cosine(weight: f64) -> InvarianceConfig {
    InvarianceConfig::Cosine(Cosine { weight, ..Default::default() })
}

/// The mean over both directions, doubled: the official loss is their sum.
fn byol() -> InvarianceConfig {
    let teacher = Teacher::Momentum;
    InvarianceConfig::Cosine(Cosine { weight: 2.0, offset: 2.0, scale: 2.0, teacher, ..Default::default() })
}

fn logdet() -> Entropy {
    Entropy::LogDet(Default::default())
}

fn pairdist(divergence: Divergence, normalize: bool) -> Entropy {
    // A component as wide as the distance to the next one, whatever the dimension: gradients do not vanish.
    Entropy::PairDist(entropy::PairDist { divergence, normalize, adaptive: true, ..Default::default() })
}
