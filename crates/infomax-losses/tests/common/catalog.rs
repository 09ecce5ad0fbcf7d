//! Every objective, estimator and invariance term in all its settings, and the batches to try them on.

use super::*;
use infomax_core::{LocalMap, TermState, Views};
use infomax_losses::{EntropyConfig, InvarianceConfig, ObjectiveConfig, names};
use infomax_testing::spread;

/// One objective with what it needs to be held against finite differences.
pub struct Case {
    pub name: String,
    pub config: ObjectiveConfig,
}

/// Settings that a default does not reach: `kind` and more keys of the entropy table.
const ENTROPIES: &[&str] = &[
    "kind = \"gaussian\"\neps = 0.3",
    "kind = \"gaussian\"\ncorrected = true",
    "kind = \"logdet\"\nmoment = \"pearson\"",
    "kind = \"logdet\"\nbeta = 100.0\nbeta_per_dim = true",
    "kind = \"logdet\"\npath = \"gram\"",
    "kind = \"logdet\"\npath = \"features\"",
    "kind = \"coding-rate\"\nnormalize = false",
    "kind = \"pairdist\"\ndivergence = \"bhattacharyya\"",
    "kind = \"pairdist\"\ndivergence = \"chernoff\"\nalpha = 0.3\nvariance = 0.4",
    "kind = \"pairdist\"\ndivergence = \"elk\"",
    "kind = \"pairdist\"\nnormalize = true",
    "kind = \"pairdist-full\"\ndivergence = \"chernoff\"\nalpha = 0.3",
    "kind = \"pairdist-full\"\ndivergence = \"elk\"",
    "kind = \"kde\"\nleave_one_out = true\nvariance = 0.5",
    "kind = \"uniformity\"\nnormalize = false",
    "kind = \"vmf\"\nleave_one_out = false",
    "kind = \"contrastive\"\ndecoupled = true",
    "kind = \"kozachenko-leonenko\"\nk = 1\nmetric = \"chebyshev\"",
    "kind = \"renyi\"\nalpha = 0.5",
    "kind = \"renyi\"\nalpha = 1.0",
    "kind = \"renyi\"\nalpha = 1.01\nsigma = 2.0",
    "kind = \"mec\"\norder = 0",
    "kind = \"mec\"\norder = 2",
    "kind = \"barlow\"\npath = \"gram\"",
    "kind = \"barlow\"\npath = \"features\"",
    "kind = \"vicreg\"\npath = \"gram\"\nvariance_views = \"sum\"",
    "kind = \"vicreg\"\npath = \"features\"",
    "kind = \"m-spacing\"\nsquash = \"none\"",
    "kind = \"m-spacing\"\nsquash = \"gauss-cdf\"\ncovariance = 1.0",
    "kind = \"sliced-normality\"\nstatistic = \"epps-pulley\"",
    "kind = \"sliced-normality\"\nstatistic = \"anderson-darling\"",
    "kind = \"sliced-normality\"\nstatistic = \"moments\"",
    "kind = \"total-correlation\"\ndiagonal = 0.0",
    "kind = \"hydes\"\nleave_one_out = false",
    "kind = \"mmcr\"\nnormalize = false\nlambda = 0.5",
    "kind = \"matrix-ssl\"\norder = 2",
    "kind = \"mcr2\"\nnormalize = false",
    "kind = \"corinfomax\"\nnormalize = true",
    "kind = \"expansion\"\nsmooth = false\neps = 0.2",
    "kind = \"rectified\"\nprior = \"normal\"\nmu = -0.5",
    "kind = \"radial\"\nvariance = 0.0\ncovariance = 0.0\nm = 1",
    "kind = \"kernel-discrepancy\"\nkernel = \"gaussian\"\nbandwidth = 1.5",
    "kind = \"kernel-discrepancy\"\ndiscrepancy = \"mmd\"\nkernel = \"gaussian\"",
];

const INVARIANCES: &[&str] = &[
    "kind = \"mse\"\npairing = \"mean\"",
    "kind = \"mse\"\npairing = \"globals\"\nnormalize = true\nsum_dims = true",
    "kind = \"mse\"\npairing = \"global-pairs\"",
    "kind = \"mse\"\nteacher = \"momentum\"",
    "kind = \"mse\"\nrectify = true\nnormalize = true",
    "kind = \"cosine\"\npairing = \"mean\"",
    "kind = \"cosine\"\nteacher = \"stop-gradient\"",
    "kind = \"cosine\"\nteacher = \"momentum\"\npairing = \"mean\"",
    "kind = \"cosine\"\nteacher = \"momentum-direct\"",
    "kind = \"smooth-l1\"\npairing = \"globals\"\nbeta = 0.7",
    "kind = \"smooth-l1\"\nteacher = \"momentum\"",
    "kind = \"whitened\"\neps = 0.2",
    "kind = \"whitened\"\neps = 0.2\nsub_batch = 3\niterations = 2",
];

/// All of them, small enough to be quick.
pub fn catalog() -> Vec<Case> {
    let none: InvarianceConfig = toml::from_str("kind = \"none\"").unwrap();
    let mut cases = Vec::new();
    for named in names() {
        for convention in named.conventions {
            let config = ObjectiveConfig::with_convention(named.name, convention).unwrap();
            cases.push(Case { name: format!("{} ({convention})", named.name), config });
        }
    }
    let kinds = EntropyConfig::KINDS.iter().filter(|k| **k != "none").map(|k| format!("kind = \"{k}\""));
    for text in kinds.chain(ENTROPIES.iter().map(|t| (*t).to_owned())) {
        let entropy: EntropyConfig = toml::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        cases.push(Case {
            name: text.replace('\n', ", "),
            config: ObjectiveConfig::custom(none.clone(), entropy),
        });
    }
    let kinds = InvarianceConfig::KINDS.iter().filter(|k| **k != "none").map(|k| format!("kind = \"{k}\""));
    for text in kinds.chain(INVARIANCES.iter().map(|t| (*t).to_owned())) {
        let invariance: InvarianceConfig = toml::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let entropy = EntropyConfig::of_kind("none").unwrap();
        cases.push(Case {
            name: text.replace('\n', ", "),
            config: ObjectiveConfig::custom(invariance, entropy),
        });
    }
    for case in &mut cases {
        quick(&mut case.config);
    }
    cases
}

/// Few slices and prototypes, so that the tests stay quick.
pub fn quick(config: &mut ObjectiveConfig) {
    match &mut config.entropy {
        EntropyConfig::SigReg(c) => c.slices = 8,
        EntropyConfig::VisReg(c) => c.slices = 8,
        EntropyConfig::SlicedNormality(c) => c.slices = 8,
        EntropyConfig::Rectified(c) => c.slices = 8,
        EntropyConfig::Swav(c) => c.prototypes = 5,
        _ => {}
    }
}

/// The objective with what it holds constant in its gradient made a constant of the value too, so that
/// differences see what the gradient sees. The constants themselves are held by golden values and by their
/// own tests.
pub fn frozen(config: &ObjectiveConfig, d: usize) -> Box<dyn Objective> {
    let mut config = config.clone();
    let mut state = TermState::new();
    match &mut config.entropy {
        EntropyConfig::PairDist(c) => c.adaptive = false,
        EntropyConfig::VisReg(c) => c.shape = 0.0,
        // Uniform codes.
        EntropyConfig::Swav(c) => c.epsilon = 1e9,
        EntropyConfig::Tico(c) => {
            // All of the past, nothing of the batch.
            c.beta = 1.0;
            let root = spread(&[d, d], 91, 1.0);
            state.insert("tico.moment".into(), root.matmul(&root.t().unwrap()).unwrap());
        }
        _ => {}
    }
    if let InvarianceConfig::WeightedCosine(c) = &mut config.invariance {
        // Equal weights.
        c.sigma = 1e9;
    }
    let mut objective = config.build().unwrap();
    if !state.is_empty() {
        objective.load_state(&state).unwrap();
    }
    objective
}

/// Embeddings with everything that any objective asks for. `constant` are the views behind a stop-gradient.
pub fn embeddings(views: &[Tensor], constant: &[Tensor]) -> Embeddings {
    let maps = views.iter().map(|z| {
        // Widened first, as a model would give them; no two patches are at equal distances.
        let z = if z.dtype().size_in_bytes() < 4 { z.to_dtype(DType::F32).unwrap() } else { z.clone() };
        let values = Tensor::stack(&[z.clone(), (&z * 0.7).unwrap(), (&z * 0.4).unwrap()], 1).unwrap();
        LocalMap::new(values, None).unwrap()
    });
    let projections = Views::new(views.to_vec()).unwrap();
    Embeddings {
        predictions: Some(projections.clone()),
        targets: Some(Views::new(constant.to_vec()).unwrap()),
        labels: Some((0..views[0].dims()[0] as u32).map(|i| i % 3).collect()),
        ..Embeddings::new(projections.with_local(maps.collect()).unwrap())
    }
}

/// The batches of a shape: a name and the views.
pub fn batches(views: usize, n: usize, d: usize) -> Vec<(&'static str, Vec<Tensor>)> {
    let base: Vec<Tensor> = (0..views).map(|v| spread(&[n, d], 40 + v as u64, 1.3)).collect();
    let map = |f: &dyn Fn(&Tensor) -> Tensor| base.iter().map(f).collect::<Vec<_>>();
    let order: Vec<u32> = (0..n as u32).map(|i| i / 2).collect();
    let order = Tensor::from_vec(order, n, &Device::Cpu).unwrap();
    let mut batches = vec![
        ("ordinary", base.clone()),
        ("nearly collapsed", map(&|z| ((z * 1e-3).unwrap() + 0.6).unwrap())),
        ("duplicated rows", map(&|z| z.index_select(&order, 0).unwrap())),
        ("offset 1e3", map(&|z| (z + 1e3).unwrap())),
        ("scale 1e-4", map(&|z| (z * 1e-4).unwrap())),
        ("scale 1e4", map(&|z| (z * 1e4).unwrap())),
    ];
    if n > d {
        batches.push(("whitened", map(&|z| infomax_losses::whiten(z, 0.0).unwrap())));
    }
    batches
}
