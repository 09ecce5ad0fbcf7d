//! The methods of `golden/methods` against their reference implementations, in value and gradient.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{check, json, number, tensor, total};
use infomax_core::{Context, Embeddings, LocalMap, Term as _, Views};
use infomax_losses::entropy::*;
use infomax_losses::{Entropy, InvarianceConfig, ObjectiveConfig};

const A: &str = "a_n32_d16";

fn pair(key: &str, loosen: f64, f: impl Fn(&[Tensor]) -> Tensor) {
    let inputs = [&format!("losses/{A}.z1.npy")[..], &format!("losses/{A}.z2.npy")[..]];
    check("methods", A, key, &inputs, loosen, f);
}

fn objective(key: &str, name: &str, convention: &str, loosen: f64) {
    let objective = ObjectiveConfig::with_convention(name, convention).unwrap().build().unwrap();
    pair(key, loosen, |z| total(objective.as_ref(), z));
}

#[test]
fn decoupled_contrast() {
    objective("dcl_lightly", "dcl", "official", 1.0);
    objective("dclw_lightly", "dclw", "official", 1.0);
}

/// A batch whose rows are nearly equal, in f64: f32 does not hold it.
#[test]
fn nearly_collapsed() {
    for (key, name) in [
        ("near_vicreg_lightly", "vicreg"),
        ("near_barlow_lightly", "barlow-twins"),
        ("near_ntxent_lightly", "simclr"),
        ("near_frossl_lightly", "frossl"),
    ] {
        let convention = if name == "frossl" { "official" } else { "lightly" };
        let objective = ObjectiveConfig::with_convention(name, convention).unwrap().build().unwrap();
        let inputs = [tensor("methods/near1.npy"), tensor("methods/near2.npy")];
        let (value, grads) = common::value_and_grads(&inputs, |z| total(objective.as_ref(), z));
        let golden = json("methods/methods.json")[A][key].clone();
        let expected = golden["value"].as_f64().unwrap();
        assert!((number(&value) - expected).abs() < 1e-9 * expected.abs(), "{key}: {value} {expected}");
        for (grad, name) in grads.iter().zip(["grad_z1", "grad_z2"]) {
            let file = tensor(golden[name].as_str().unwrap());
            common::assert_close(key, grad, &file, common::tolerance(DType::F64));
        }
    }
}

#[test]
fn manifold_capacity() {
    let lightly = ObjectiveConfig::with_convention("mmcr", "lightly").unwrap().build().unwrap();
    pair("mmcr_lightly", 1.0, |z| {
        // The package takes the views of a momentum teacher beside those of the student.
        let views = Views::new(z.to_vec()).unwrap();
        let teacher = Embeddings { targets: Some(views.clone()), ..Embeddings::new(views) };
        let student = lightly.evaluate(&teacher, &Context::standalone()).unwrap().total;
        // In the golden record both are the same tensor, and the gradient flows through both.
        let both = Embeddings::new(Views::new([z, z].concat()).unwrap());
        let value = lightly.evaluate(&both, &Context::standalone()).unwrap().total;
        assert!((number(&student) - number(&value)).abs() < 1e-4 * number(&value).abs());
        value
    });
    objective("mmcr_unit_rows", "mmcr", "official", 1.0);
}

#[test]
fn whitening_correlation_and_contrast() {
    objective("wmse_lightly", "w-mse", "official", 1.0);
    objective("vibcreg_solo_learn", "vibcreg", "solo-learn", 1.0);
    objective("tico_lightly_first_step", "tico", "official", 1.0);
}

#[test]
fn matrix_ssl() {
    let term = MatrixSsl::default();
    let spectral = |key: &str, f: &dyn Fn(&[Tensor]) -> Tensor| {
        let inputs = [&format!("losses/{A}.z1.npy")[..], &format!("losses/{A}.z2.npy")[..]];
        check("spectral", A, key, &inputs, 1.0, f);
    };
    spectral("matrixssl_uniformity", &|z| term.uniformity(&z[0], &z[1]).unwrap());
    spectral("matrixssl_alignment", &|z| term.alignment(&z[0], &z[1]).unwrap());
    // Two scripts have run MMCR of the package: they agree.
    let mmcr = json("spectral/spectral.json")[A]["mmcr_lightly(online=momentum=[z1,z2])"]["value"].clone();
    assert_eq!(mmcr, json("methods/methods.json")[A]["mmcr_lightly"]["value"]);
}

#[test]
fn swapped_assignments() {
    let prototypes = tensor("methods/prototypes.npy");
    let term = Swav { prototypes: 7, ..Swav::default() };
    pair("swav_lightly", 1.0, |z| {
        let prototypes = prototypes.to_dtype(z[0].dtype()).unwrap();
        term.parts(z, &prototypes).unwrap().sum_all().unwrap()
    });
}

#[test]
fn local_embeddings() {
    let term = Vicregl { matches_first: 4, matches_second: 2, ..Default::default() };
    let invariance: InvarianceConfig =
        toml::from_str("kind = \"mse\"\nweight = 18.75\npairing = \"global-pairs\"").unwrap();
    let objective = ObjectiveConfig::custom(invariance, infomax_losses::EntropyConfig::Vicregl(term));
    let objective = objective.build().unwrap();
    for (key, count) in [("vicregl_lightly_2", 2), ("vicregl_lightly_3", 3)] {
        let golden = json("methods/methods.json")[A][key].clone();
        for dtype in [DType::F64, DType::F32] {
            let load = |name: String| tensor(&name).to_dtype(dtype).unwrap();
            let maps: Vec<_> = (0..count).map(|v| load(format!("methods/map{v}.npy"))).collect();
            let pooled: Vec<_> = (0..count).map(|v| load(format!("methods/pooled{v}.npy"))).collect();
            let inputs = [maps, pooled].concat();
            let (value, grads) = common::value_and_grads(&inputs, |x| {
                let local = (0..count).map(|v| {
                    let places = tensor(&format!("methods/places{v}.npy"));
                    LocalMap::new(x[v].clone(), Some(places)).unwrap()
                });
                let views = Views::new(x[count..].to_vec()).unwrap().with_local(local.collect()).unwrap();
                objective.evaluate(&Embeddings::new(views), &Context::standalone()).unwrap().total
            });
            let expected = golden["value"].as_f64().unwrap();
            let tolerance = common::tolerance(dtype);
            assert!((number(&value) - expected).abs() < tolerance.rel * expected, "{key} {value} {expected}");
            for (i, grad) in grads.iter().enumerate() {
                let name = if i < count { format!("map{i}") } else { format!("pooled{}", i - count) };
                let file = tensor(golden[format!("grad_{name}")].as_str().unwrap());
                let file = file.reshape(grad.dims()).unwrap();
                let grad = grad.to_dtype(DType::F64).unwrap();
                common::assert_close(&format!("{key} {name}"), &grad, &file, tolerance);
            }
        }
    }
    let pooled = Embeddings::pair(tensor("methods/pooled0.npy"), tensor("methods/pooled1.npy")).unwrap();
    let message = objective.evaluate(&pooled, &Context::standalone()).unwrap_err().to_string();
    assert!(message.contains("local embeddings") && message.contains("entropy.alpha = 1"), "{message}");
}

#[test]
fn sliced_tests_of_normality() {
    for (key, statistic) in [
        ("cramer_von_mises", Statistic::CramerVonMises),
        ("anderson_darling", Statistic::AndersonDarling),
        ("moments", Statistic::Moments),
        ("epps_pulley", Statistic::EppsPulley),
    ] {
        check("methods", A, key, &["methods/y.npy"], 1.0, |y| {
            let column = y[0].reshape(((), 1)).unwrap();
            normality(&column, statistic).unwrap().sum_all().unwrap()
        });
    }
}

#[test]
fn full_covariances() {
    for (key, divergence, alpha) in [
        ("mixture_kl_0.5", Divergence::Kl, 0.5),
        ("mixture_chernoff_0.3", Divergence::Chernoff, 0.3),
        ("mixture_chernoff_0.5", Divergence::Bhattacharyya, 0.5),
        ("mixture_elk_0.5", Divergence::Elk, 0.5),
    ] {
        let golden = json("methods/methods.json")[A][key].clone();
        let inputs = [tensor("methods/means.npy"), tensor("methods/covariances.npy")];
        let (value, grads) =
            common::value_and_grads(&inputs, |x| mixture_bound(&x[0], &x[1], divergence, alpha).unwrap());
        let expected = golden["value"].as_f64().unwrap();
        assert!((number(&value) - expected).abs() < 1e-10, "{key} {value} {expected}");
        for (grad, name) in grads.iter().zip(["m", "s"]) {
            let file = tensor(golden[format!("grad_{name}")].as_str().unwrap());
            // Autograd of a general matrix; ours is the gradient of a symmetric one.
            let file = if name == "s" { ((&file + file.t().unwrap()).unwrap() * 0.5).unwrap() } else { file };
            common::assert_close(&format!("{key} {name}"), grad, &file, common::tolerance(DType::F64));
        }
    }
    // Two components far enough apart in the mean of the sum that only the pair counts: by quadrature.
    let means = Tensor::new(&[[0f64], [1.0]], &candle_core::Device::Cpu).unwrap();
    let covariances = Tensor::new(&[[[1f64]], [[4.0]]], &candle_core::Device::Cpu).unwrap();
    let h = number(&mixture_bound(&means, &covariances, Divergence::Chernoff, 0.3).unwrap());
    let quadrature = json("methods/methods.json")[A]["chernoff_quadrature_0.3"]["value"].as_f64().unwrap();
    let own = 0.5 * ((2.0 * std::f64::consts::PI * std::f64::consts::E).ln() + 0.5 * 4f64.ln());
    // D(p_1 || p_2) is the quadrature; D(p_2 || p_1) is C at 0.7 of the first orientation, in closed form.
    let m = 0.7 * 4.0 + 0.3f64;
    let other = 0.5 * 0.21 / m + 0.5 * (m.ln() - 0.7 * 4f64.ln());
    let expected =
        own - 0.5 * ((0.5 * (1.0 + (-quadrature).exp())).ln() + (0.5 * (1.0 + (-other).exp())).ln());
    assert!((h - expected).abs() < 1e-9, "{h} {expected}");
}

#[test]
fn equal_isotropic_components_are_those_of_pairdist() {
    let x = tensor("pairdist/x_n24_d4.npy").to_dtype(DType::F64).unwrap();
    let eye = Tensor::eye(4, DType::F64, x.device()).unwrap();
    let s = (eye * 0.7).unwrap().unsqueeze(0).unwrap().repeat((24, 1, 1)).unwrap();
    for divergence in [Divergence::Kl, Divergence::Bhattacharyya, Divergence::Chernoff, Divergence::Elk] {
        let full = number(&mixture_bound(&x, &s, divergence, 0.3).unwrap());
        let shared = PairDist { divergence, alpha: 0.3, variance: 0.7, ..Default::default() };
        assert!((full - shared.estimate(&x).unwrap().nats).abs() < 1e-10, "{divergence:?}");
    }
}

#[test]
fn hyperspherical_densities() {
    let golden = json("sphere/sphere.json");
    let stacked = tensor("sphere/views_n40_v3_p8.npy").to_dtype(DType::F64).unwrap();
    let views: Vec<Tensor> = (0..3).map(|v| stacked.narrow(1, v, 1).unwrap().squeeze(1).unwrap()).collect();
    for kappa in [1, 5, 20] {
        for (suffix, leave_one_out) in [("incl", false), ("excl", true)] {
            let term = Hydes { kappa: f64::from(kappa), leave_one_out, ..Default::default() };
            let got = term.entropies(&views).unwrap().to_vec1::<f64>().unwrap();
            let record = &golden[format!("vmf_kde_kappa{kappa}")];
            for (value, key) in got.iter().zip(["global", "local"]) {
                let expected = record[format!("H_{key}_{suffix}_self")].as_f64().unwrap();
                assert!((value - expected).abs() < 1e-6, "kappa {kappa} {key} {suffix}: {value} {expected}");
            }
        }
    }
}

#[test]
fn rate_reduction_of_given_and_of_own_classes() {
    let raw = Mcr2 { eps: 0.25, normalize: false, ..Default::default() };
    let labels: Vec<u32> = (0..32).map(|i| i % 3).collect();
    let inputs = [&format!("losses/{A}.z1.npy")[..]];
    check("spectral", A, "mcr2_deltaR", &inputs, 1.0, |z| {
        let rates = raw.rates(z, Some(&labels)).unwrap();
        (rates.get(0).unwrap() - rates.get(1).unwrap()).unwrap()
    });
    // The views of a sample as a class, by elimination, is the rate of those labels.
    let z: Vec<Tensor> =
        [1, 2].map(|v| tensor(&format!("losses/{A}.z{v}.npy")).to_dtype(DType::F64).unwrap()).to_vec();
    let views = [z[0].clone(), z[1].clone(), (&z[0] * 0.5).unwrap()];
    let own = raw.rates(&views, None).unwrap().to_vec1::<f64>().unwrap();
    let single: Vec<u32> = (0..32).collect();
    let given = raw.rates(&views, Some(&single)).unwrap().to_vec1::<f64>().unwrap();
    assert!(own.iter().zip(&given).all(|(a, b)| (a - b).abs() < 1e-10), "{own:?} {given:?}");

    // As a term: the labels of the batch are looked at only where that is asked for.
    let value = |supervised, labels: Option<&[u32]>| {
        let z = Embeddings::pair(z[0].clone(), z[1].clone()).unwrap();
        let z = Embeddings { labels: labels.map(<[u32]>::to_vec), ..z };
        Mcr2 { supervised, ..raw.clone() }.evaluate(&z, &Context::standalone())
    };
    let number = |parts: Vec<infomax_core::Part>| parts[0].value.to_scalar::<f64>().unwrap();
    assert_eq!(number(value(false, Some(&labels)).unwrap()), number(value(false, None).unwrap()));
    assert_ne!(number(value(true, Some(&labels)).unwrap()), number(value(false, None).unwrap()));
    let message = value(true, None).unwrap_err().to_string();
    assert!(message.contains("`labels`") && message.contains("supervised"), "{message}");
}

/// Supervised contrast against the official code, with labels and with a label of its own for each sample, where it is
/// NT-Xent; and against the definition over pairs on classes of unequal size.
#[test]
fn supervised_contrast() {
    let supcon = |z: &[Tensor], labels: &[u32]| {
        let z =
            Embeddings { labels: Some(labels.to_vec()), ..Embeddings::new(Views::new(z.to_vec()).unwrap()) };
        let objective = ObjectiveConfig::named("supcon").unwrap().build().unwrap();
        objective.evaluate(&z, &Context::standalone()).unwrap().total
    };
    let inputs = [&format!("losses/{A}.z1.npy")[..], &format!("losses/{A}.z2.npy")[..]];
    let five: Vec<u32> = (0..32).map(|i| i % 5).collect();
    let own: Vec<u32> = (0..32).map(|i| 1000 - 7 * i).collect();
    check("supcon", A, "labels=i%5", &inputs, 10.0, |z| supcon(z, &five));
    check("supcon", A, "no_labels", &inputs, 10.0, |z| supcon(z, &own));

    let views: Vec<Tensor> = (0..3).map(|v| infomax_testing::spread(&[7, 4], 60 + v, 1.0)).collect();
    let labels = [4, 4, 9, 4, 0, 9, 4];
    let rows: Vec<(u32, Vec<f64>)> = views
        .iter()
        .flat_map(|view| labels.iter().copied().zip(view.to_vec2::<f64>().unwrap()))
        .map(|(label, row)| {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            (label, row.iter().map(|v| v / norm).collect())
        })
        .collect();
    let mut expected = 0.0;
    for (i, (label, row)) in rows.iter().enumerate() {
        let score = |j: usize| row.iter().zip(&rows[j].1).map(|(a, b)| a * b).sum::<f64>() / 0.1;
        let others: Vec<usize> = (0..rows.len()).filter(|j| *j != i).collect();
        let log_sum = others.iter().map(|j| score(*j).exp()).sum::<f64>().ln();
        let positives: Vec<usize> = others.iter().copied().filter(|j| rows[*j].0 == *label).collect();
        let mean = positives.iter().map(|j| score(*j)).sum::<f64>() / positives.len() as f64;
        expected += (log_sum - mean) / rows.len() as f64;
    }
    let got = number(&supcon(&views, &labels));
    assert!((got - expected).abs() < 1e-11 * expected.abs(), "{got} {expected}");

    let term = infomax_losses::invariance::ClassCosine::default();
    let z = Embeddings::new(Views::new(views).unwrap());
    let message = term.evaluate(&z, &Context::standalone()).unwrap_err().to_string();
    assert!(message.contains("`labels`") && message.contains("a data set with labels"), "{message}");
    let short = Embeddings { labels: Some(vec![0; 3]), ..z };
    let message = term.evaluate(&short, &Context::standalone()).unwrap_err().to_string();
    assert!(message.contains("one label a row"), "{message}");
}

#[test]
fn the_grid_of_sigreg_tends_to_the_closed_form() {
    let y = tensor("methods/y.npy").reshape(((), 1)).unwrap();
    let closed = normality(&y, Statistic::EppsPulley).unwrap().to_vec1::<f64>().unwrap()[0];
    let grid = epps_pulley(&y, 201, 10.0).unwrap().to_vec1::<f64>().unwrap()[0];
    assert!((closed - grid).abs() < 1e-9 * closed, "{closed} {grid}");
    let golden = json("sigreg/sigreg.json")["gauss_n64_d8"].clone();
    let load = |name: &str| tensor(&format!("sigreg/gauss_n64_d8.{name}.npy")).to_dtype(DType::F64).unwrap();
    let slices = load("x").matmul(&load("A")).unwrap();
    let mean = number(&normality(&slices, Statistic::EppsPulley).unwrap().mean_all().unwrap());
    let expected = golden["closed_form_infinite_range_mean"].as_f64().unwrap();
    assert!((mean - expected).abs() < 1e-9 * expected, "{mean} {expected}");
}

/// SimDINO by an in-test reference: the determinant by elimination, cosines by loops.
#[test]
fn simdino() {
    let (n, d) = (7, 4);
    let rows = |seed| infomax_testing::spread(&[n, d], seed, 1.0);
    let (students, teachers) = ([rows(1), rows(2), rows(3)], [rows(4), rows(5)]);
    let unit = |z: &Tensor| -> Vec<Vec<f64>> {
        let z = z.to_vec2::<f64>().unwrap();
        let norm = |row: &Vec<f64>| row.iter().map(|v| v * v).sum::<f64>().sqrt();
        z.iter().map(|row| row.iter().map(|v| v / norm(row)).collect()).collect()
    };
    let (s, t): (Vec<_>, Vec<_>) = (students.iter().map(unit).collect(), teachers.iter().map(unit).collect());
    let mut cosines = 0.0;
    for (j, teacher) in t.iter().enumerate() {
        for (_, student) in s.iter().enumerate().filter(|(i, _)| *i != j) {
            let products = student.iter().flatten().zip(teacher.iter().flatten()).map(|(a, b)| a * b);
            cosines += products.sum::<f64>() / n as f64;
        }
    }
    // Two teachers, three students, without the pairs of one view.
    cosines /= 4.0;
    let rate = |view: usize, smooth: bool| {
        let mut matrix = vec![vec![0.0; d]; d];
        for i in 0..n {
            let row: Vec<f64> = (0..d)
                .map(|k| if smooth { 0.5 * (s[view][i][k] + t[view][i][k]) } else { s[view][i][k] })
                .collect();
            for (a, line) in matrix.iter_mut().enumerate() {
                for (b, entry) in line.iter_mut().enumerate() {
                    *entry += d as f64 / (n as f64 * 0.5) * row[a] * row[b];
                }
            }
        }
        (0..d).for_each(|k| matrix[k][k] += 1.0);
        let mut log_det = 0.0;
        for k in 0..d {
            log_det += matrix[k][k].ln();
            for i in k + 1..d {
                let factor = matrix[i][k] / matrix[k][k];
                for j in k..d {
                    matrix[i][j] -= factor * matrix[k][j];
                }
            }
        }
        0.5 * log_det * (d + n) as f64 / (d * n) as f64
    };
    let config = ObjectiveConfig::named("simdino").unwrap();
    let embeddings = Embeddings {
        targets: Some(Views::new(teachers.to_vec()).unwrap()),
        globals: Some(2),
        ..Embeddings::new(Views::new(students.to_vec()).unwrap())
    };
    let total = |embeddings: &Embeddings| {
        number(&config.build().unwrap().evaluate(embeddings, &Context::standalone()).unwrap().total)
    };
    let expected = -cosines - 0.5 * (rate(0, true) + rate(1, true));
    assert!((total(&embeddings) - expected).abs() < 1e-10, "{} {expected}", total(&embeddings));
    // A collapsed student and teacher: the largest cosine, and the smaller rate costs more than it gains.
    let same = Tensor::ones((n, d), DType::F64, &Device::Cpu).unwrap();
    let collapsed = Embeddings {
        targets: Some(Views::pair(same.clone(), same.clone()).unwrap()),
        ..Embeddings::new(Views::new(vec![same; 3]).unwrap())
    };
    assert!((total(&collapsed) - (-1.0 - 0.5 * (1.0f64 + 8.0).ln() * 11.0 / 28.0)).abs() < 1e-10);
    // Without a teacher nothing is smoothed, and the invariance says what it lacks.
    let alone = infomax_losses::entropy::Expansion::default().entropy(&students[0], None).unwrap();
    assert!((number(&alone) - rate(0, false)).abs() < 1e-10);
    let lacking = Embeddings { targets: None, ..embeddings };
    let message = config.build().unwrap().evaluate(&lacking, &Context::standalone()).unwrap_err().to_string();
    assert!(message.contains("momentum teacher"), "{message}");
}
