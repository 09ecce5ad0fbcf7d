//! The report on embeddings: what is in order, what is wrong, and where the right answer is "no".

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use infomax_core::Key;
use infomax_core::candle_core::{DType, Device, Tensor};
use infomax_run::inspect::{InspectConfig, InspectInput, Inspection, compare, compare_labeled, inspect};

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F32, &Device::Cpu).unwrap()
}

fn config() -> InspectConfig {
    let mut cfg = InspectConfig { max_rows: 400, ..InspectConfig::default() };
    cfg.resampling.draws = 10;
    cfg
}

fn report(z: &Tensor) -> Inspection {
    inspect(&InspectInput::new(z.clone()), &config()).unwrap()
}

fn warned(report: &Inspection) -> Vec<&str> {
    let figures = report.sections.iter().flat_map(|section| &section.figures);
    figures.filter(|figure| figure.warning.is_some()).map(|figure| figure.key).collect()
}

#[test]
fn a_spread_embedding_has_nothing_to_look_at() {
    let (n, d) = (600, 8);
    let report = report(&normal(1, n, d));
    assert!(warned(&report).is_empty(), "{:?}", warned(&report));
    let value = |key: &str| report.value(key).unwrap();
    assert!(value("rankme") > 7.5 && value("participation_ratio") > 7.5);
    assert!((value("intrinsic_dimension") - 8.0).abs() < 1.5, "{}", value("intrinsic_dimension"));
    // The entropy of the normal distribution is known.
    let truth = 0.5 * d as f64 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln();
    assert!((value("entropy_gaussian") - truth).abs() < 0.3, "{} {truth}", value("entropy_gaussian"));
    assert!(value("columns_not_normal") < 0.3);
    // More rows than are compared in pairs: the report says of how many.
    let notes: Vec<&String> = report.sections.iter().flat_map(|section| &section.notes).collect();
    assert!(notes.iter().any(|note| note.contains("400 of 600 rows")), "{notes:?}");
}

#[test]
fn what_is_wrong_is_named_with_its_rows() {
    let mut rows = normal(2, 300, 6).to_vec2::<f32>().unwrap();
    rows[7][3] = f32::NAN;
    rows[20] = rows[10].clone();
    rows[50] = vec![40.0; 6];
    rows.iter_mut().for_each(|row| row[4] = 1.5);
    let report = report(&Tensor::new(rows, &Device::Cpu).unwrap());
    let value = |key: &str| report.value(key).unwrap();
    for key in ["not_finite_rows", "constant_columns", "duplicate_rows"] {
        assert!(value(key) == 1.0 && warned(&report).contains(&key), "{key}: {}", value(key));
    }
    assert_eq!(value("duplicate_columns"), 0.0);
    let found = |row: usize, why: &str| report.rows.iter().any(|note| note.row == row && note.why == why);
    assert!(found(7, "not-finite") && found(20, "duplicate") && found(50, "outlier"), "{:?}", report.rows);
    // Density and normality are of the columns that vary, which is said.
    for (title, key) in [("entropy, in nats", "entropy_gaussian"), ("normality", "henze_zirkler")] {
        let section = report.sections.iter().find(|section| section.title == title).unwrap();
        assert!(section.notes.iter().any(|note| note.contains("1 constant column")), "{:?}", section.notes);
        assert!(section.figures.iter().any(|figure| figure.key == key), "{:?}", section.skipped);
    }
    // Where no column varies, it is said that there is none, and the rest is there.
    let flat = Tensor::ones((50, 3), DType::F32, &Device::Cpu).unwrap();
    let flat = inspect(&InspectInput::new(flat), &config()).unwrap();
    let skipped: Vec<&String> = flat.sections.iter().flat_map(|section| &section.skipped).collect();
    assert!(skipped.iter().any(|reason| reason.contains("constant")), "{skipped:?}");
    let (name, norms) = &report.columns[0];
    assert!(name == "norm" && norms.len() == 300 && norms[7].is_none() && norms[8].is_some());
}

#[test]
fn a_collapse_is_said() {
    let line = normal(3, 400, 1).matmul(&normal(4, 1, 32)).unwrap();
    let line = (line + (normal(5, 400, 32) * 1e-3).unwrap()).unwrap();
    let report = report(&line);
    assert!(warned(&report).contains(&"rankme") && warned(&report).contains(&"participation_ratio"));
}

#[test]
fn labels_are_read_where_the_embedding_has_them_and_not_elsewhere() {
    let n = 400;
    let z = normal(6, n, 5);
    // The class is the sign of the first column, moved apart; numbers have gaps, some are unknown, one is wrong.
    let mut rows = z.to_vec2::<f32>().unwrap();
    let mut labels: Vec<Option<u32>> = Vec::new();
    for row in &mut rows {
        let one = row[0] > 0.0;
        row[0] += if one { 6.0 } else { -6.0 };
        labels.push(Some(if one { 70_000 } else { 3 }));
    }
    labels[5] = None;
    labels[9] = labels[9].map(|class| if class == 3 { 70_000 } else { 3 });
    let z = Tensor::new(rows, &Device::Cpu).unwrap();
    let told =
        inspect(&InspectInput { labels: Some(labels), ..InspectInput::new(z.clone()) }, &config()).unwrap();
    let value = |key: &str| told.value(key).unwrap();
    assert!(value("linear") > 0.97 && value("knn") > 0.97 && value("ridge") > 0.97);
    assert!((value("label_information") - 2f64.ln()).abs() < 0.12, "{}", value("label_information"));
    let suspects: Vec<usize> =
        told.rows.iter().filter(|note| note.why == "label").map(|note| note.row).collect();
    assert_eq!(suspects, [9]);
    let notes = &told.sections.last().unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("1 rows have no label")), "{notes:?}");

    let chance: Vec<Option<u32>> =
        (0..n).map(|i| Some((Key::new(9).fold_in(i as u64).words()[0] % 2) as u32)).collect();
    let told =
        inspect(&InspectInput { labels: Some(chance), ..InspectInput::new(z.clone()) }, &config()).unwrap();
    let value = |key: &str| told.value(key).unwrap();
    assert!((value("linear") - 0.5).abs() < 0.15 && value("label_information") < 0.1);

    let one =
        inspect(&InspectInput { labels: Some(vec![Some(1); n]), ..InspectInput::new(z) }, &config()).unwrap();
    assert!(one.sections.last().unwrap().skipped[0].contains("at least 2 classes"));
    assert!(one.value("linear").is_none());
}

#[test]
fn two_embeddings_are_compared_up_to_rotation() {
    let a = normal(10, 300, 4);
    let (c, s) = (0.6f32, 0.8f32);
    let turn = [[c, s, 0., 0.], [-s, c, 0., 0.], [0., 0., c, -s], [0., 0., s, c]];
    let turned = a.matmul(&Tensor::new(&turn, &Device::Cpu).unwrap()).unwrap();
    let of = |b: &Tensor, key: &str| {
        let section = compare(&a, b, &config()).unwrap();
        section.figures.iter().find(|figure| figure.key == key).unwrap().value
    };
    assert!(of(&turned, "cka") > 0.999 && of(&turned, "neighbor_overlap") > 0.99);
    let other = normal(11, 300, 9);
    assert!(of(&other, "cka").abs() < 0.1 && of(&other, "neighbor_overlap") < 0.15);
    assert!(compare(&a, &normal(12, 30, 4), &config()).unwrap_err().to_string().contains("300 and 30 rows"));
}

#[test]
fn rows_that_are_not_finite_in_one_embedding_are_left_out_of_both() {
    let a = normal(20, 300, 4);
    // Twice as long: by ln 2 a column more entropy, and the same directions; rows 7 and 9 are unknown, each in one of them.
    let mut ours = a.to_vec2::<f32>().unwrap();
    let mut theirs = (&a * 2.0).unwrap().to_vec2::<f32>().unwrap();
    ours[7][1] = f32::NAN;
    theirs[9][0] = f32::INFINITY;
    // Row 30 has gone elsewhere.
    theirs[30].iter_mut().for_each(|v| *v = -*v);
    let (a, b) = (Tensor::new(ours, &Device::Cpu).unwrap(), Tensor::new(theirs, &Device::Cpu).unwrap());
    let labels: Vec<Option<u32>> = (0..300).map(|i| (i != 3).then_some(5 + i % 2)).collect();
    let section = compare_labeled(&a, &b, Some(&labels), None, &config()).unwrap();
    assert!(section.skipped.is_empty(), "{:?}", section.skipped);
    assert!(section.notes[0].starts_with("2 rows with values that are not finite"), "{:?}", section.notes);
    let changed = section.notes.iter().find(|note| note.contains("changed most")).unwrap();
    assert!(changed.contains("as the first: row 30 (0 of 10 in common)"), "{changed}");
    let figure = |key: &str| section.figures.iter().find(|figure| figure.key == key).unwrap();
    assert!(figure("cka").value > 0.95 && figure("neighbor_overlap").value > 0.9);
    let entropy = figure("entropy_difference");
    assert!((entropy.value - 4.0 * 2f64.ln()).abs() < 0.05, "{entropy:?}");
    // Rows are drawn in pairs: what both share cancels, and hardly anything is left to vary.
    let width = |key: &str| figure(key).interval.as_ref().map(|i| i.upper - i.lower).unwrap();
    assert!(width("entropy_difference") < 0.1, "{}", width("entropy_difference"));
    let information = figure("label_information_difference");
    assert!(information.value.abs() < 0.05 && width("rankme_difference") < 0.2, "{information:?}");
    let none = (a * f64::NAN).unwrap();
    assert!(compare(&none, &b, &config()).unwrap_err().to_string().contains("0 of 300 rows"));
}

#[test]
fn what_is_no_table_of_samples_is_refused() {
    let refused = |z: Tensor| inspect(&InspectInput::new(z), &config()).unwrap_err().to_string();
    assert!(refused(normal(1, 4, 4).reshape((2, 2, 4)).unwrap()).contains("[2, 2, 4]"));
    let nan = (normal(1, 4, 4) * f64::NAN).unwrap();
    assert!(refused(nan).contains("0 of 4 rows"));
    let few = InspectInput { labels: Some(vec![None; 3]), ..InspectInput::new(normal(1, 4, 4)) };
    assert!(inspect(&few, &config()).unwrap_err().to_string().contains("4 embeddings and 3 labels"));
}

#[test]
fn the_information_of_views_is_that_of_the_rule() {
    // Pairs of correlation 0.8 in 4 columns: -4/2 ln(1 - 0.64) = 2.04 nats, of which plain neighbors miss a part.
    let (n, d) = (1_000, 4);
    let z = normal(21, n, d);
    let views = ((&z * 0.8).unwrap() + (normal(22, n, d) * 0.6).unwrap()).unwrap();
    let truth = -0.5 * d as f64 * (1.0 - 0.64f64).ln();
    let cfg = InspectConfig { max_rows: 1_000, ..config() };
    let of = |views: Tensor| {
        let input = InspectInput { views: Some(views), ..InspectInput::new(z.clone()) };
        let report = inspect(&input, &cfg).unwrap();
        let figures = report.sections.iter().flat_map(|section| &section.figures);
        figures.into_iter().find(|f| f.key == "view_information").unwrap().clone()
    };
    // A row that is not finite in the views alone is left out of their section.
    let mut rows = views.to_vec2::<f32>().unwrap();
    rows[17][2] = f32::NAN;
    let found = of(Tensor::new(rows, &Device::Cpu).unwrap());
    let interval = found.interval.as_ref().unwrap();
    assert!(interval.lower < truth && truth < interval.upper, "{found:?}");
    assert!(found.meaning.contains("as `infomax mi` chooses"), "{}", found.meaning);
    let none = of(normal(23, n, d));
    assert!(none.value.abs() < 0.1, "{none:?}");
}

#[test]
fn the_blurred_entropy_says_that_it_is_not_that_of_the_density() {
    // Uniform on [0, 1]: h = 0, outside of the bounds of the mixture.
    let z = Key::new(24).uniform(0.0, 1.0, (600, 1), DType::F64, &Device::Cpu).unwrap();
    let report = report(&z);
    let entropy = report.sections.iter().find(|s| s.title.starts_with("entropy")).unwrap();
    let blurred = entropy.figures.iter().find(|f| f.key == "entropy_blurred").unwrap();
    assert!(blurred.meaning.starts_with("not h(Z)"), "{}", blurred.meaning);
    assert!(blurred.doubts.iter().any(|d| d.code == "not-the-density"));
    let neighbors = entropy.figures.iter().find(|f| f.key == "entropy_neighbors").unwrap();
    let interval = neighbors.interval.as_ref().unwrap();
    assert!(interval.lower < 0.0 && 0.0 < interval.upper, "{neighbors:?}");
}
