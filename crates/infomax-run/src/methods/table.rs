//! The table of methods.

use super::{Method, Rule, Sizes, Views};

const fn same<T: Copy>(value: T) -> Sizes<T> {
    Sizes { small: value, large: value }
}

const fn lars(lr: f64, weight_decay: f64) -> Rule {
    Rule::ClippedLars { lr, weight_decay }
}

/// Two views of the embedded images, and two presets.
const fn two(small: &'static str, large: &'static str) -> Views {
    Views { embedded: "vicreg-shapes", small, large }
}

const VICREG: Method = Method {
    name: "vicreg",
    settings: "solo-learn, CIFAR; official, ImageNet",
    note: "",
    projector: Sizes { small: &[2048, 2048, 2048], large: &[8192, 8192, 8192] },
    predictor: &[],
    local_projector: &[],
    teacher_momentum: None,
    views: two("vicreg-cifar", "vicreg-imagenet"),
    optimizer: Sizes { small: lars(0.3, 1e-4), large: Rule::Lars { lr: 0.2, weight_decay: 1e-6 } },
    epochs: None,
    unit_rows: false,
};

const SIMCLR: Method = Method {
    name: "simclr",
    settings: "solo-learn, CIFAR; the paper, ImageNet",
    projector: Sizes { small: &[2048, 256], large: &[2048, 128] },
    views: two("simclr-cifar", "simclr-imagenet"),
    optimizer: Sizes { small: lars(0.4, 1e-5), large: Rule::Lars { lr: 0.3, weight_decay: 1e-6 } },
    ..VICREG
};

const BYOL: Method = Method {
    name: "byol",
    settings: "solo-learn, CIFAR; the paper, ImageNet",
    projector: same(&[4096, 256]),
    predictor: &[4096],
    teacher_momentum: Some(Sizes { small: 0.99, large: 0.996 }),
    views: two("byol-cifar", "byol-imagenet"),
    optimizer: Sizes { small: lars(1.0, 1e-5), large: Rule::Lars { lr: 0.2, weight_decay: 1.5e-6 } },
    ..VICREG
};

const LEJEPA: Method = Method {
    name: "lejepa",
    settings: "LeJEPA, MINIMAL.md and README",
    projector: same(&[2048, 2048, 16]),
    views: Views { embedded: "four-views-shapes", small: "lejepa-minimal", large: "lejepa-imagenet" },
    optimizer: same(Rule::AdamW { lr: 2e-3, weight_decay: 5e-4 }),
    ..VICREG
};

const EMP_SSL: Method = Method {
    name: "emp-ssl",
    settings: "official",
    note: "20 patches a sample: few epochs, as its authors train one",
    projector: same(&[4096, 1024]),
    views: Views { embedded: "emp-ssl-shapes", small: "emp-ssl-cifar", large: "emp-ssl-cifar" },
    optimizer: same(lars(0.3, 1e-4)),
    epochs: Some(2),
    ..VICREG
};

/// Alphabetical.
pub(super) const METHODS: &[Method] = &[
    Method {
        name: "align-uniform",
        settings: "the paper (rate, decay); heads of SimCLR",
        optimizer: same(Rule::Sgd { lr: 0.12, weight_decay: 1e-4 }),
        ..SIMCLR
    },
    Method { name: "barlow-twins", views: two("barlow-twins-cifar", "barlow-twins-imagenet"), ..VICREG },
    BYOL,
    Method { name: "byol-logdet", settings: "byol; arXiv 2303.00633", ..BYOL },
    Method { name: "byol-pairdist", settings: "byol; arXiv 2303.00633", ..BYOL },
    Method {
        name: "corinfomax",
        settings: "official, CIFAR-10",
        projector: same(&[2048, 2048, 64]),
        optimizer: same(Rule::Sgd { lr: 0.25, weight_decay: 1e-4 }),
        unit_rows: true,
        ..VICREG
    },
    Method {
        name: "dcl",
        settings: "heads and views of SimCLR; rate of the paper",
        optimizer: same(Rule::Sgd { lr: 0.03, weight_decay: 1e-4 }),
        ..SIMCLR
    },
    Method {
        name: "dclw",
        settings: "heads and views of SimCLR; rate of the paper",
        optimizer: same(Rule::Sgd { lr: 0.03, weight_decay: 1e-4 }),
        ..SIMCLR
    },
    Method {
        name: "e2mc",
        settings: "vicreg",
        note: "meant to continue a trained encoder (`--init`)",
        ..VICREG
    },
    EMP_SSL,
    Method {
        name: "frossl",
        settings: "vicreg; widths of the paper",
        projector: same(&[1024, 1024, 1024]),
        ..VICREG
    },
    Method { name: "hydes", settings: "simclr", ..SIMCLR },
    Method { name: "kerjepa", settings: "lejepa", ..LEJEPA },
    Method { name: "koleo", settings: "simclr", ..SIMCLR },
    LEJEPA,
    Method {
        name: "matrix-ssl",
        settings: "views of byol, optimizer of vicreg",
        note: "256 dimensions: the logarithm of a matrix of 2048 rows takes many seconds on a CPU",
        projector: same(&[2048, 2048, 256]),
        views: two("byol-cifar", "byol-imagenet"),
        ..VICREG
    },
    Method {
        name: "mcr2",
        settings: "official (rate, decay, 128 dimensions)",
        note: "the views of a sample are its class; `--set objective.entropy.supervised=true` takes the labels",
        projector: same(&[512, 128]),
        optimizer: same(Rule::Sgd { lr: 0.01, weight_decay: 5e-4 }),
        ..VICREG
    },
    Method { name: "mec", settings: "heads of vicreg, as of its official code", ..VICREG },
    Method {
        name: "mmcr",
        settings: "official",
        note: "four views; its authors take up to 40 of small images",
        projector: Sizes { small: &[512, 128], large: &[8192, 8192, 512] },
        views: Views { embedded: "four-views-shapes", small: "lejepa-minimal", large: "lejepa-minimal" },
        optimizer: same(Rule::AdamW { lr: 1e-3, weight_decay: 1e-6 }),
        ..VICREG
    },
    Method { name: "radial-vicreg", settings: "vicreg", ..VICREG },
    Method {
        name: "rectified-lpjepa",
        settings: "official widths (MINIMAL.md); views and optimizer of vicreg",
        note: "the term rectifies the projections: the projector has no ReLU at its end",
        projector: same(&[512, 512, 512]),
        ..VICREG
    },
    SIMCLR,
    Method { name: "simclr-logdet", settings: "simclr; arXiv 2303.00633", ..SIMCLR },
    Method { name: "simclr-pairdist", settings: "simclr; arXiv 2303.00633", ..SIMCLR },
    Method {
        name: "simdino",
        settings: "official (head, teacher, rate, decay), views of its multi-crop",
        note: "the authors train transformers",
        projector: same(&[2048, 2048, 256]),
        teacher_momentum: Some(same(0.996)),
        views: Views {
            embedded: "multicrop-shapes",
            small: "swav-multicrop-cifar",
            large: "multicrop-imagenet",
        },
        optimizer: same(Rule::AdamW { lr: 5e-4, weight_decay: 0.04 }),
        ..VICREG
    },
    Method {
        name: "simsiam",
        settings: "official (heads, rate), views of solo-learn",
        note: "without the normalization at the projector's end",
        projector: same(&[2048, 2048, 2048]),
        predictor: &[512],
        views: two("symmetric-weak-cifar", "symmetric-weak-imagenet"),
        optimizer: Sizes {
            small: Rule::Sgd { lr: 0.03, weight_decay: 5e-4 },
            large: Rule::Sgd { lr: 0.05, weight_decay: 1e-4 },
        },
        ..VICREG
    },
    Method {
        name: "supcon",
        settings: "official (head, rate, decay), views of simclr",
        note: "learns from labels",
        projector: same(&[2048, 128]),
        optimizer: same(Rule::Sgd { lr: 0.125, weight_decay: 1e-4 }),
        ..SIMCLR
    },
    Method {
        name: "swav",
        settings: "solo-learn",
        note: "without a queue",
        projector: same(&[2048, 128]),
        views: Views {
            embedded: "multicrop-shapes",
            small: "swav-multicrop-cifar",
            large: "multicrop-imagenet",
        },
        optimizer: same(lars(0.6, 1e-6)),
        ..VICREG
    },
    Method {
        name: "tico",
        settings: "heads and views of byol",
        note: "without its momentum teacher",
        projector: same(&[4096, 256]),
        views: two("byol-cifar", "byol-imagenet"),
        ..VICREG
    },
    Method { name: "vcreg", settings: "vicreg", note: "no invariance: a regularization", ..VICREG },
    Method { name: "vibcreg", settings: "solo-learn", ..VICREG },
    VICREG,
    Method { name: "vicreg-logdet", settings: "vicreg; arXiv 2303.00633", ..VICREG },
    Method { name: "vicreg-pairdist-bd", settings: "vicreg; arXiv 2303.00633", ..VICREG },
    Method { name: "vicreg-pairdist-kl", settings: "vicreg; arXiv 2303.00633", ..VICREG },
    Method {
        name: "vicregl",
        settings: "vicreg; local head and views of the paper",
        note: "local embeddings of six views: many times the time of vicreg on a CPU",
        projector: Sizes { small: &[2048, 2048, 2048], large: &[8192, 8192, 8192] },
        local_projector: &[512, 512, 512],
        views: Views { embedded: "multicrop-shapes", small: "vicregl-imagenet", large: "vicregl-imagenet" },
        ..VICREG
    },
    Method { name: "visreg", settings: "lejepa", ..LEJEPA },
    Method {
        name: "w-mse",
        settings: "solo-learn, CIFAR",
        projector: same(&[1024, 64]),
        views: two("w-mse-cifar", "simclr-imagenet"),
        optimizer: same(Rule::AdamW { lr: 2e-3, weight_decay: 1e-6 }),
        ..VICREG
    },
];
