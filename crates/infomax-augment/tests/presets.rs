//! Every preset against the table of the parameters of the published code.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_augment::{Filter, Recipe};

/// Count, size, least and largest area, jitter (p, brightness, contrast, saturation, hue), p of gray, of
/// blur, of solarize.
type Row = (usize, usize, [f64; 2], [f64; 5], f64, f64, f64);

const fn row(
    count: usize,
    size: usize,
    area: [f64; 2],
    [b, c, s, h]: [f64; 4],
    blur: f64,
    solarize: f64,
) -> Row {
    (count, size, area, [0.8, b, c, s, h], 0.2, blur, solarize)
}

const MODERATE: [f64; 4] = [0.4, 0.4, 0.2, 0.1];
const EVEN: [f64; 4] = [0.4, 0.4, 0.4, 0.1];
const STRONG: [f64; 4] = [0.8, 0.8, 0.8, 0.2];
const FULL: [f64; 2] = [0.08, 1.0];
const PART: [f64; 2] = [0.2, 1.0];

/// The published parameters, written out again and not taken from the crate.
fn table() -> Vec<(&'static str, Filter, Vec<Row>)> {
    use Filter::{Bicubic, Bilinear};
    let always = |(count, size, area, [_, b, c, s, h], gray, blur, solarize): Row| {
        (count, size, area, [1.0, b, c, s, h], gray, blur, solarize)
    };
    let pale = |(count, size, area, jitter, _, blur, solarize): Row| {
        (count, size, area, jitter, 0.1, blur, solarize)
    };
    let asymmetric = |size, blur: [f64; 2]| {
        vec![row(1, size, FULL, MODERATE, blur[0], 0.0), row(1, size, FULL, MODERATE, blur[1], 0.2)]
    };
    let mut rows = vec![
        ("vicreg-cifar", Bicubic, vec![row(2, 32, PART, MODERATE, 0.0, 0.1)]),
        ("vicreg-tiny-imagenet", Bicubic, vec![row(2, 64, PART, MODERATE, 0.0, 0.1)]),
        ("vicreg-stl10", Bicubic, vec![row(2, 96, PART, MODERATE, 0.5, 0.1)]),
        ("vicreg-imagenet", Bicubic, asymmetric(224, [1.0, 0.1])),
        ("vicreg-imagenet-symmetric", Bicubic, vec![row(2, 224, PART, MODERATE, 0.5, 0.1)]),
        ("w-mse-cifar", Bicubic, vec![row(2, 32, PART, STRONG, 0.0, 0.0)]),
        ("symmetric-weak-cifar", Bicubic, vec![row(2, 32, FULL, EVEN, 0.5, 0.0)]),
        ("symmetric-weak-imagenet", Bicubic, vec![row(2, 224, FULL, EVEN, 0.5, 0.0)]),
        (
            "swav-multicrop-cifar",
            Bicubic,
            vec![
                row(1, 32, PART, [0.6, 0.6, 0.6, 0.2], 0.0, 0.0),
                row(1, 32, PART, [0.6, 0.6, 0.6, 0.2], 0.0, 0.2),
                row(6, 18, [0.08, 0.5], STRONG, 0.1, 0.1),
            ],
        ),
        (
            "multicrop-imagenet",
            Bicubic,
            vec![row(2, 224, FULL, STRONG, 0.5, 0.0), row(6, 96, FULL, STRONG, 0.0, 0.0)],
        ),
        (
            "vicregl-imagenet",
            Bicubic,
            vec![
                always(row(2, 224, PART, MODERATE, 0.5, 0.0)),
                always(row(6, 96, [0.05, 0.2], MODERATE, 0.1, 0.2)),
            ],
        ),
        (
            "lejepa-imagenet",
            Bicubic,
            vec![row(2, 224, [0.3, 1.0], MODERATE, 0.5, 0.2), row(6, 98, [0.05, 0.3], MODERATE, 0.5, 0.2)],
        ),
        ("lejepa-minimal", Bilinear, vec![row(4, 128, FULL, STRONG, 0.5, 0.2)]),
        ("lightly-vicreg", Bilinear, vec![row(2, 224, FULL, MODERATE, 0.5, 0.1)]),
        ("lightly-simclr", Bilinear, vec![row(2, 224, FULL, STRONG, 0.5, 0.0)]),
        ("lightly-simclr-cifar", Bilinear, vec![row(2, 32, FULL, EVEN, 0.0, 0.0)]),
        ("lightly-byol", Bilinear, asymmetric(224, [1.0, 0.1])),
        ("lightly-w-mse", Bilinear, vec![pale(row(2, 224, PART, EVEN, 0.5, 0.0))]),
        (
            "lightly-swav",
            Bilinear,
            vec![row(2, 224, [0.14, 1.0], STRONG, 0.5, 0.0), row(6, 96, [0.05, 0.14], STRONG, 0.5, 0.0)],
        ),
        ("spt-vicreg-cifar", Bilinear, vec![row(2, 32, FULL, MODERATE, 0.0, 0.0)]),
        (
            "spt-barlow-twins-cifar",
            Bilinear,
            vec![row(1, 32, PART, MODERATE, 0.0, 0.0), row(1, 32, FULL, MODERATE, 0.0, 0.0)],
        ),
        ("spt-vicreg-imagenet100", Bilinear, asymmetric(224, [1.0, 0.1])),
    ];
    let simclr = |size| vec![row(2, size, FULL, STRONG, 0.5, 0.0)];
    rows.extend([("simclr-cifar", Bicubic, simclr(32)), ("simclr-tiny-imagenet", Bicubic, simclr(64))]);
    rows.extend([("simclr-stl10", Bicubic, simclr(96)), ("simclr-imagenet", Bicubic, simclr(224))]);
    for names in [
        ["byol-cifar", "byol-tiny-imagenet", "byol-stl10", "byol-imagenet"],
        ["barlow-twins-cifar", "barlow-twins-tiny-imagenet", "barlow-twins-stl10", "barlow-twins-imagenet"],
    ] {
        for (name, size) in names.into_iter().zip([32, 64, 96, 224]) {
            rows.push((name, Bicubic, asymmetric(size, if size < 96 { [0.0, 0.0] } else { [1.0, 0.1] })));
        }
    }
    rows
}

#[test]
fn every_preset_has_the_published_parameters() {
    let table = table();
    let own = |name: &&&str| name.ends_with("-shapes") || ["none", "emp-ssl-cifar"].contains(name);
    for name in Recipe::preset_names().iter().filter(|name| !own(name)) {
        assert!(table.iter().any(|(row, ..)| row == name), "{name} is not in the table");
    }
    for (name, filter, rows) in table {
        let recipe = Recipe::preset(name).unwrap();
        assert_eq!(recipe.views.len(), rows.len(), "{name}");
        for (view, (count, size, area, jitter, gray, blur, solarize)) in recipe.views.iter().zip(rows) {
            let (crop, j) = (view.crop.unwrap(), view.jitter.unwrap());
            assert_eq!((view.count, view.size, view.filter), (count, size, filter), "{name}");
            assert_eq!((crop.scale, crop.ratio), ((area[0], area[1]), (0.75, 4.0 / 3.0)), "{name}");
            assert_eq!([j.p, j.brightness, j.contrast, j.saturation, j.hue], jitter, "{name}");
            assert_eq!((view.flip, view.grayscale), (0.5, gray), "{name}");
            assert_eq!(view.blur.map_or(0.0, |b| b.p), blur, "{name}");
            assert!(view.blur.is_none_or(|b| b.sigma == (0.1, 2.0)), "{name}");
            assert_eq!(view.solarize.map_or(0.0, |s| s.p), solarize, "{name}");
            assert!(view.solarize.is_none_or(|s| s.threshold == 128), "{name}");
        }
    }
}

#[test]
fn presets_are_normalized_by_their_data() {
    let mean = |name: &str| Recipe::preset(name).unwrap().mean[0];
    for (suffix, want) in
        [("cifar", 0.4914), ("tiny-imagenet", 0.4802), ("stl10", 0.485), ("imagenet", 0.485)]
    {
        for method in ["vicreg", "simclr", "byol", "barlow-twins"] {
            assert_eq!(mean(&format!("{method}-{suffix}")), want, "{method}-{suffix}");
        }
    }
    assert_eq!(mean("lightly-simclr-cifar"), 0.485);
}

/// Twenty square patches of a quarter of the image, each resized to the whole (EMP-SSL, official code).
#[test]
fn patches_of_emp_ssl() {
    let recipe = Recipe::preset("emp-ssl-cifar").unwrap();
    let [view] = recipe.views.as_slice() else { panic!("{:?}", recipe.views) };
    let (crop, jitter) = (view.crop.unwrap(), view.jitter.unwrap());
    assert_eq!((view.count, view.size, view.local), (20, 32, false));
    assert_eq!((crop.scale, crop.ratio), ((0.25, 0.25), (1.0, 1.0)));
    let strengths = [jitter.p, jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue];
    assert_eq!(strengths, [0.8, 0.4, 0.4, 0.4, 0.2]);
    assert_eq!((view.flip, view.grayscale), (0.5, 0.2));
    assert_eq!((view.blur.unwrap().p, view.solarize.unwrap().p), (0.1, 0.1));
}

/// The views of the embedded images differ in number, size and area alone.
#[test]
fn views_of_the_embedded_images_are_of_one_kind() {
    let base = Recipe::preset("vicreg-shapes").unwrap().views[0].clone();
    for (name, counts) in [
        ("four-views-shapes", &[(4, 24, false)][..]),
        ("multicrop-shapes", &[(2, 24, false), (4, 16, true)]),
        ("emp-ssl-shapes", &[(20, 16, false)]),
    ] {
        let views = Recipe::preset(name).unwrap().views;
        let found: Vec<_> = views.iter().map(|view| (view.count, view.size, view.local)).collect();
        assert_eq!(found, counts, "{name}");
        for view in views {
            let same =
                infomax_augment::ViewConfig { count: 2, size: 32, local: false, crop: base.crop, ..view };
            assert_eq!(same, base, "{name}");
        }
    }
}
