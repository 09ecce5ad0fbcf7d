//! Tests of normality against SciPy and pingouin, and their level where the answer is "no".

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::normality::*;
use infomax_eval::{Error, Result};
use serde_json::Value;

type Test = fn(&[f64]) -> Result<NormalityTest>;

fn golden(name: &str) -> Tensor {
    let dir = env!("CARGO_MANIFEST_DIR");
    let x = infomax_testing::read_npy(format!("{dir}/tests/golden/normality/{name}.npy")).unwrap();
    x.to_dtype(DType::F64).unwrap()
}

fn column(name: &str) -> Vec<f64> {
    golden(name).flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(got: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= tolerance * expected.abs(), "{got} instead of {expected}");
}

#[test]
fn columns_equal_scipy() {
    let all: Value = serde_json::from_str(include_str!("golden/normality/univariate.json")).unwrap();
    for name in ["normal_n20", "normal_n100", "uniform_n200", "expon_n50"] {
        let (x, expected) = (column(name), &all[name]);
        for (test, key) in [
            (dagostino_pearson as Test, "normaltest"),
            (jarque_bera, "jarque_bera"),
            (shapiro_wilk, "shapiro"),
        ] {
            let t = test(&x).unwrap();
            close(t.statistic, &expected[key]["statistic"], 1e-9);
            // SciPy's tail of the normal distribution in `shapiro` is that of AS 66, good to 1e-6.
            close(t.p_value, &expected[key]["pvalue"], if key == "shapiro" { 1e-5 } else { 1e-9 });
        }
        let a = anderson_darling(&x).unwrap();
        close(a.statistic, &expected["anderson_ours_case3"], 1e-9);
        let e = epps_pulley(&x).unwrap();
        close(e.statistic, &expected["epps_pulley_bhep_beta1_closed"], 1e-9);
        // The five agree on which of the sets are normal.
        let normal = name.starts_with("normal");
        assert!((a.p_value > 0.05) == normal && (e.p_value > 0.05) == normal, "{name} {a:?} {e:?}");
        // Shift and scale mean nothing.
        let moved: Vec<f64> = x.iter().map(|v| v * 1e-30 - 3e-30).collect();
        let again = anderson_darling(&moved).unwrap();
        assert!((again.statistic - a.statistic).abs() < 1e-9);
    }
}

#[test]
fn the_critical_values_of_anderson_and_darling_are_met() {
    // D'Agostino and Stephens (1986), case 3: 0.752 at 0.05 and 1.035 at 0.01, of the modified statistic.
    let mut below = 0;
    for seed in 0..200 {
        let x = Key::new(seed).normal(0.0, 1.0, 60, DType::F64, &Device::Cpu).unwrap().to_vec1().unwrap();
        let t = anderson_darling(&x).unwrap();
        let modified = t.statistic * (1.0 + 0.75 / 60.0 + 2.25 / 3600.0);
        assert_eq!(modified > 0.752, t.p_value < 0.0501, "{t:?}");
        below += usize::from(t.p_value < 0.05);
    }
    assert!(below < 24, "{below} of 200");
}

#[test]
fn all_columns_equal_pingouin_and_numpy() {
    let all: Value = serde_json::from_str(include_str!("golden/normality/multivariate.json")).unwrap();
    for name in ["mvn_n100_d3", "unif_n80_d2"] {
        let z = golden(name);
        let hz = henze_zirkler(&z).unwrap();
        close(hz.statistic, &all[name]["henze_zirkler(pingouin)"]["hz"], 1e-9);
        close(hz.p_value, &all[name]["henze_zirkler(pingouin)"]["pval"], 1e-9);
        let (m, expected) = (mardia(&z).unwrap(), &all[name]["mardia(numpy, biased S)"]);
        close(m.b1, &expected["b1p"], 1e-9);
        close(m.b2, &expected["b2p"], 1e-9);
        close(m.skewness.p_value, &expected["skew_p"], 1e-9);
        close(m.skewness_small_sample.statistic, &expected["skew_stat_small_sample"], 1e-9);
        close(m.skewness_small_sample.p_value, &expected["skew_p_small_sample"], 1e-9);
        close(m.kurtosis.statistic, &expected["kurt_z"], 1e-9);
        close(m.kurtosis.p_value, &expected["kurt_p"], 1e-9);
        // Any invertible map of the columns leaves both as they are.
        let (_, d) = z.dims2().unwrap();
        let scales = Tensor::from_vec(
            (0..d).map(|j| 10f64.powi(7 * j as i32 - 7)).collect::<Vec<_>>(),
            (1, d),
            &Device::Cpu,
        );
        let moved = (z.broadcast_mul(&scales.unwrap()).unwrap() + 3.0).unwrap();
        assert!((henze_zirkler(&moved).unwrap().statistic - hz.statistic).abs() < 1e-6);
    }
}

#[test]
fn normal_values_are_rejected_as_often_as_the_level_says() {
    let tests: [Test; 5] = [dagostino_pearson, jarque_bera, anderson_darling, shapiro_wilk, epps_pulley];
    let mut rejected = [0; 5];
    for seed in 0..400 {
        let x = Key::new(seed).normal(5.0, 3.0, 200, DType::F64, &Device::Cpu).unwrap().to_vec1().unwrap();
        for (count, test) in rejected.iter_mut().zip(tests) {
            *count += usize::from(test(&x).unwrap().p_value < 0.05);
        }
    }
    // 20 of 400; five deviations are 22. Jarque-Bera rejects too seldom for few values.
    assert!(rejected.iter().all(|r| (3..=42).contains(r)), "{rejected:?}");
}

#[test]
fn many_columns_are_corrected_for() {
    let z = Key::new(3).normal(0.0, 1.0, (300, 40), DType::F64, &Device::Cpu).unwrap();
    for test in [
        ColumnTest::DagostinoPearson,
        ColumnTest::JarqueBera,
        ColumnTest::AndersonDarling,
        ColumnTest::ShapiroWilk,
        ColumnTest::EppsPulley,
    ] {
        let m = marginal_normality(&z, test, 0.05).unwrap();
        assert!(m.rejected < 0.06 && m.constant.is_empty(), "{test:?} {}", m.rejected);
        assert!(m.holm.iter().zip(&m.benjamini_hochberg).all(|(h, b)| h >= b));
        // Cubes are not normal; a constant column is not tested.
        let flat = Tensor::ones((300, 1), DType::F64, &Device::Cpu).unwrap();
        let cubes = Tensor::cat(&[&z.powf(2.0).unwrap(), &flat], 1).unwrap();
        let m = marginal_normality(&cubes, test, 0.05).unwrap();
        assert_eq!((m.rejected, m.constant), (1.0, vec![40]));
        assert!(m.columns[40].is_none() && m.holm[40].is_nan());
    }
}

#[test]
fn what_cannot_be_tested_is_refused_with_its_reason() {
    assert!(matches!(dagostino_pearson(&[1.0; 7]), Err(Error::TooFew { needed: 8, .. })));
    assert!(matches!(shapiro_wilk(&[0.1; 30]), Err(Error::Constant { .. })));
    assert!(matches!(
        jarque_bera(&[1.0, f64::NAN, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        Err(Error::NonFinite { .. })
    ));
    let z = Key::new(1).normal(0.0, 1.0, (50, 3), DType::F64, &Device::Cpu).unwrap();
    let dependent = Tensor::cat(&[&z, &z.sum_keepdim(1).unwrap()], 1).unwrap();
    assert!(matches!(mardia(&dependent), Err(Error::Singular { rows: 50, columns: 4, .. })));
    assert!(henze_zirkler(&z.narrow(0, 0, 8).unwrap()).is_ok());
    assert!(matches!(henze_zirkler(&z.t().unwrap()), Err(Error::TooFew { needed: 51, .. })));
    let rounded: Vec<f64> = (0..100).map(|i| f64::from(i % 5)).collect();
    assert!(dagostino_pearson(&rounded).unwrap().doubts.iter().any(|d| d.code == "ties"));
}
