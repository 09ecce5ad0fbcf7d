//! Values and gradients against the reference implementations (see `golden/manifest.json`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::Tensor;
use common::{check, json, number, tensor, total};
use infomax_core::Embeddings;
use infomax_losses::bounds;
use infomax_losses::entropy::*;
use infomax_losses::invariance::{cosine, mse, normalize_rows};
use infomax_losses::{Entropy, ObjectiveConfig, special};

const A: &str = "a_n32_d16";
/// Two equal views whose first feature is constant; `golden/losses/recover_collapsed.py` tells of its inputs.
const COLLAPSED: &str = "c_n8_d4_collapsed";
const CASES: [&str; 2] = [A, COLLAPSED];

fn pair(group: &str, case: &str, record: &str, loosen: f64, f: impl Fn(&[Tensor]) -> Tensor) {
    let inputs = [format!("losses/{case}.z1.npy"), format!("losses/{case}.z2.npy")];
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    check(group, case, record, &inputs, loosen, f);
}

fn objective(record: &str, name: &str, convention: &str) {
    let objective = ObjectiveConfig::with_convention(name, convention).unwrap().build().unwrap();
    for case in CASES {
        pair("losses", case, record, 1.0, |z| total(objective.as_ref(), z));
    }
}

fn spectral(record: &str, loosen: f64, f: impl Fn(&[Tensor]) -> Tensor) {
    pair("spectral", A, record, loosen, f);
}

#[test]
fn vicreg() {
    objective("vicreg_official", "vicreg", "official");
    objective("vicreg_solo", "vicreg", "solo-learn");
    objective("vicreg_lightly", "vicreg", "lightly");
}

#[test]
fn barlow_twins() {
    objective("barlow_official", "barlow-twins", "official");
    objective("barlow_lightly", "barlow-twins", "lightly");
    objective("barlow_solo", "barlow-twins", "solo-learn");
}

#[test]
fn nt_xent() {
    objective("ntxent_lightly_t0.5", "simclr", "lightly");
    let text = "[invariance]\nkind = \"cosine\"\nweight = 10.0\n[entropy]\nkind = \"contrastive\"\ntemperature = 0.1";
    let config: ObjectiveConfig = toml::from_str(text).unwrap();
    let objective = config.build().unwrap();
    for case in CASES {
        pair("losses", case, "ntxent_lightly_t0.1", 1.0, |z| total(objective.as_ref(), z));
        pair("losses", case, "simclr_solo_t0.1", 1.0, |z| total(objective.as_ref(), z));
    }
}

#[test]
fn cosine_terms() {
    for case in CASES {
        pair("losses", case, "byol_solo(p=z1,z=z2)", 1.0, |z| {
            cosine(&z[0], &z[1].detach(), 1e-12).unwrap().affine(-2.0, 2.0).unwrap()
        });
        pair("losses", case, "negcos_lightly(p=z1,z=z2.detach)", 1.0, |z| {
            cosine(&z[0], &z[1].detach(), 1e-12).unwrap().neg().unwrap()
        });
        pair("losses", case, "align_wang_isola_alpha2", 1.0, |z| {
            let unit = |z: &Tensor| normalize_rows(z, 1e-12).unwrap();
            (mse(&unit(&z[0]), &unit(&z[1])).unwrap() * z[0].dim(1).unwrap() as f64).unwrap()
        });
        pair("losses", case, "uniform_wang_isola_t2(z1)", 1.0, |z| {
            Uniformity::default().entropy(&z[0]).unwrap().neg().unwrap()
        });
    }
    objective("hypersphere_lightly_t1", "align-uniform", "lightly");
}

#[test]
fn frossl() {
    objective("frossl_lightly", "frossl", "official");
    let objective = ObjectiveConfig::named("frossl").unwrap().build().unwrap();
    spectral("frossl_ofskean_multiview[z1,z2]", 1.0, |z| total(objective.as_ref(), z));
    // The two-view loss of the paper, whose columns are centered.
    let objective = ObjectiveConfig::with_convention("frossl", "original").unwrap().build().unwrap();
    spectral("frossl_ofskean_original", 1.0, |z| total(objective.as_ref(), z));
}

#[test]
fn koleo() {
    pair("losses", A, "koleo_lightly(z1)", 1.0, |z| KoLeo::default().entropy(&z[0]).unwrap().neg().unwrap());
}

#[test]
fn log_determinants() {
    let logdet = |beta: f64, moment| LogDet { beta, moment, ..Default::default() };
    let cov = Moment::Covariance;
    spectral("logdet_cov_beta1", 1.0, |z| logdet(1.0, cov).entropy(&z[0]).unwrap());
    spectral("logdet_cov_beta100d", 1.0, |z| logdet(1600.0, cov).entropy(&z[0]).unwrap());
    spectral("logdet_mi_cov_beta100(2d)", 1.0, |z| {
        logdet(3200.0, cov).mutual_information(&z[0], &z[1]).unwrap()
    });
    let gaussian = Gaussian { eps: 1e-4, ..Default::default() };
    spectral("gauss_bound_eps0.0001", 1.0, |z| gaussian.entropy(&z[0]).unwrap());
    spectral("hadamard_bound_eps0.0001", 1.0, |z| Hadamard::default().entropy(&z[0]).unwrap());
    spectral("tcr_empssl_official_eps0.2(normalized rows)", 1.0, |z| {
        CodingRate::default().entropy(&z[0]).unwrap().neg().unwrap()
    });
    let rate = CodingRate { eps: 0.25, normalize: false, ..Default::default() };
    let labels: Vec<u32> = (0..32).map(|i| i % 3).collect();
    spectral("mcr2_R_eps2=0.25(raw rows)", 1.0, |z| rate.entropy(&z[0]).unwrap());
    spectral("mcr2_Rc_eps2=0.25_labels=i%3", 1.0, |z| rate.conditional(&z[0], &labels).unwrap());
    spectral("mcr2_deltaR", 1.0, |z| {
        (rate.entropy(&z[0]).unwrap() - rate.conditional(&z[0], &labels).unwrap()).unwrap()
    });
}

#[test]
fn log_determinant_of_the_correlation() {
    // The reference adds 1e-8 to the product of the deviations, here it is added to the variances: the
    // values differ by about that.
    let golden = json("spectral/spectral.json")[A]["logdet_pearson_beta1"]["value"].as_f64().unwrap();
    let logdet = LogDet { moment: Moment::Pearson, ..Default::default() };
    let z = tensor("losses/a_n32_d16.z1.npy").to_dtype(candle_core::DType::F64).unwrap();
    let got = number(&logdet.entropy(&z).unwrap());
    assert!((got - golden).abs() < 1e-6, "{got} {golden}");
}

#[test]
fn maximum_entropy_coding() {
    let mec = |order| Mec { order, ..Default::default() };
    spectral("mec_trace_order1_eps64", 1.0, |z| mec(1).log_det(&z[0], &z[1]).unwrap());
    spectral("mec_trace_order2_eps64", 1.0, |z| mec(2).log_det(&z[0], &z[1]).unwrap());
    spectral("mec_trace_order4_eps64", 1.0, |z| mec(4).log_det(&z[0], &z[1]).unwrap());
    spectral("mec_exact_logdet_eps64", 1.0, |z| mec(0).log_det(&z[0], &z[1]).unwrap());
}

#[test]
fn matrix_renyi() {
    let renyi = |alpha| Renyi { alpha, ..Default::default() };
    spectral("renyi_alpha1.01_gauss_sigma_sqrt_half_d", 1.0, |z| renyi(1.01).entropy(&z[0]).unwrap());
    spectral("renyi_alpha2_gauss_sigma_sqrt_half_d", 1.0, |z| renyi(2.0).entropy(&z[0]).unwrap());
    spectral("renyi_alpha0.5_gauss_sigma_sqrt_half_d", 1.0, |z| renyi(0.5).entropy(&z[0]).unwrap());
    spectral("vonneumann_gauss", 1.0, |z| renyi(1.0).entropy(&z[0]).unwrap());
    spectral("renyi2_joint", 1.0, |z| renyi(2.0).joint(&z[0], &z[1]).unwrap());
    spectral("renyi2_mi", 1.0, |z| renyi(2.0).mutual_information(&z[0], &z[1]).unwrap());
    spectral("renyi1.01_mi", 1.0, |z| renyi(1.01).mutual_information(&z[0], &z[1]).unwrap());
}

#[test]
fn corinfomax() {
    let term = CorInfoMax::default().into_term();
    spectral("corinfomax_cov_first_step(la=.01,eps=1e-8)", 1.0, |z| {
        let z = Embeddings::pair(z[0].clone(), z[1].clone()).unwrap();
        term.evaluate(&z, &infomax_core::Context::standalone()).unwrap()[0].value.clone()
    });
}

#[test]
fn m_spacing() {
    let m = |squash| MSpacing { squash, ..Default::default() };
    spectral("e2mc_mean_marginal_entropy_sigmoid", 1.0, |z| m(Squash::Sigmoid).entropy(&z[0]).unwrap());
    spectral("e2mc_mean_marginal_entropy_gausscdf", 1.0, |z| m(Squash::GaussCdf).entropy(&z[0]).unwrap());
    spectral("e2mc_hypercov_sigmoid", 1.0, |z| {
        let with = MSpacing { covariance: 1.0, ..Default::default() }.entropy(&z[0]).unwrap();
        (m(Squash::Sigmoid).entropy(&z[0]).unwrap() - with).unwrap()
    });
}

#[test]
fn pairwise_distances() {
    let golden = json("pairdist/pairdist.json")["x_n24_d4"].clone();
    let x = tensor("pairdist/x_n24_d4.npy").to_dtype(candle_core::DType::F64).unwrap();
    for (key, variance) in [("var0.1", 0.1), ("var1.0", 1.0)] {
        for (name, grad, divergence) in [
            ("H_KL_upper", Some("gradKL"), Divergence::Kl),
            ("H_BD_lower", Some("gradBD"), Divergence::Bhattacharyya),
            ("H_BD_lower", Some("gradBD"), Divergence::Chernoff),
            ("H_ELK_lower", None, Divergence::Elk),
        ] {
            let estimator = PairDist { divergence, variance, ..Default::default() };
            let (value, grads) =
                common::value_and_grads(std::slice::from_ref(&x), |x| estimator.entropy(&x[0]).unwrap());
            let expected = golden[key][name].as_f64().unwrap();
            assert!((number(&value) - expected).abs() < 1e-9, "{key} {name}");
            if let Some(grad) = grad {
                let grad = tensor(&format!("pairdist/x_n24_d4.{key}.{grad}.npy"));
                common::assert_close(name, &grads[0], &grad, common::tolerance(candle_core::DType::F64));
            }
        }
        let conditional = PairDist { variance, ..Default::default() }.conditional(&x).unwrap();
        assert!((conditional - golden[key]["H_cond"].as_f64().unwrap()).abs() < 1e-12);
    }
}

#[test]
fn differential_entropies() {
    let golden = json("entropy/entropy.json");
    for (case, record) in golden.as_object().unwrap() {
        let x = tensor(&format!("entropy/{case}.npy")).to_dtype(candle_core::DType::F64).unwrap();
        let expect = |key: &str, nats: f64, tolerance: f64| {
            let expected = record[key].as_f64().unwrap();
            assert!(
                (nats - expected).abs() < tolerance * (1.0 + expected.abs()),
                "{case} {key}: {nats} {expected}"
            );
        };
        for k in [1, 3, 5] {
            for (name, metric) in [("chebyshev", Metric::Chebyshev), ("euclidean", Metric::Euclidean)] {
                let h = KozachenkoLeonenko { k, metric, weight: 1.0 }.estimate(&x).unwrap().nats;
                expect(&format!("kl_{name}_k{k}"), h, 1e-12);
            }
        }
        let gaussian = Gaussian { eps: 0.0, ..Default::default() };
        expect("gaussian_bound_cov_ddof1", gaussian.estimate(&x).unwrap().nats, 1e-10);
        let hadamard = Hadamard { eps: 0.0, ..Default::default() };
        expect("hadamard_diag_bound_ddof1", hadamard.estimate(&x).unwrap().nats, 1e-10);
        let kde = |leave_one_out| Kde { leave_one_out, ..Default::default() }.estimate(&x).unwrap().nats;
        expect("kde_resub_incl_self_var0.1", kde(false), 1e-10);
        expect("kde_leave_one_out_var0.1", kde(true), 1e-10);
    }
}

#[test]
fn sliced_normality() {
    let golden = json("sigreg/sigreg.json");
    for case in ["gauss_n64_d8", "collapsed_n32_d4"] {
        let f64 = candle_core::DType::F64;
        let load = |name: &str| tensor(&format!("sigreg/{case}.{name}.npy")).to_dtype(f64).unwrap();
        let (x, a) = (load("x"), load("A"));
        // The files hold the directions as columns.
        let project = |x: &Tensor| x.matmul(&a).unwrap();
        let slices = epps_pulley(&project(&x), 17, 3.0).unwrap();
        common::assert_close(case, &slices, &load("per_slice_f64"), common::tolerance(f64));
        let (value, grads) = common::value_and_grads(std::slice::from_ref(&x), |x| {
            epps_pulley(&project(&x[0]), 17, 3.0).unwrap().mean_all().unwrap()
        });
        let expected = golden[case]["mean_f64"].as_f64().unwrap();
        assert!((number(&value) - expected).abs() < 1e-9 * expected, "{case}");
        common::assert_close(case, &grads[0], &load("grad_f64"), common::tolerance(f64));
    }
    let floor = golden["expected_null_mean"]["t_max3_T17"].as_f64().unwrap();
    assert!((SigReg::default().floor() - floor).abs() < 1e-14);
}

#[test]
fn mutual_information_bounds() {
    let golden = json("bounds/bounds.json");
    let f64 = candle_core::DType::F64;
    let scores = tensor("bounds/scores.npy").to_dtype(f64).unwrap();
    let log_q = tensor("bounds/club_logq.npy").to_dtype(f64).unwrap();
    let with_grad = |key: &str, f: &dyn Fn(&Tensor) -> Tensor| {
        let (value, grads) = common::value_and_grads(std::slice::from_ref(&scores), |s| f(&s[0]));
        let expected = golden[key]["value"].as_f64().unwrap();
        // The reference of InfoNCE takes ln n in f32.
        let tolerance = if key == "infonce" { 2e-7 } else { 1e-10 };
        let error = number(&value) - expected;
        assert!(error.abs() < tolerance, "{key}: {expected}, error {error:e}");
        let grad = tensor(&format!("bounds/{key}.grad.npy"));
        common::assert_close(key, &grads[0], &grad, common::tolerance(f64));
    };
    with_grad("infonce", &|s| bounds::info_nce(s).unwrap());
    with_grad("nwj", &|s| bounds::nwj(s).unwrap());
    with_grad("nwj", &|s| bounds::tuba(s, 1.0).unwrap());
    with_grad("dv", &|s| bounds::donsker_varadhan(s).unwrap());
    with_grad("js_fgan", &|s| bounds::jensen_shannon(s).unwrap());
    with_grad("js_plus_nwj", &|s| bounds::jensen_shannon_nwj(s).unwrap());
    with_grad("smile_clip1.0", &|s| bounds::smile_trained(s, Some(1.0)).unwrap());
    with_grad("smile_clip5.0", &|s| bounds::smile_trained(s, Some(5.0)).unwrap());
    with_grad("smile_clipNone", &|s| bounds::smile_trained(s, None).unwrap());
    // The record has the entropy of Y, E[-ln p(y)], in it: its difference to the conditional part.
    let conditional = number(&bounds::barber_agakov(&log_q, 0.0).unwrap());
    let ba = golden["ba_lower"]["value"].as_f64().unwrap();
    let got = number(&bounds::barber_agakov(&log_q, ba - conditional).unwrap());
    assert!((got - ba).abs() < 1e-12 && (ba - conditional - 4.2).abs() < 0.6, "{ba} {conditional}");
    let value = |key: &str, got: Tensor| {
        let expected = golden[key]["value"].as_f64().unwrap();
        assert!((number(&got) - expected).abs() < 1e-10, "{key}: {got} {expected}");
    };
    // The gradient of the references below is that of the Jensen-Shannon objective.
    value("smile_clipNone", bounds::smile(&scores, None).unwrap());
    value("smile_clip1.0", bounds::smile(&scores, Some(1.0)).unwrap());
    value("smile_clip5.0", bounds::smile(&scores, Some(5.0)).unwrap());
    value("club_true_conditional", bounds::club(&log_q).unwrap());
    value("l1out", bounds::leave_one_out(&log_q).unwrap());
}

#[test]
fn von_mises_fisher() {
    let golden = json("sphere/sphere.json");
    for record in golden["vmf_entropy"].as_array().unwrap() {
        let (p, kappa) = (record["p"].as_u64().unwrap() as usize, record["kappa"].as_f64().unwrap());
        let entropy = special::vmf_entropy(p, kappa);
        let expected = record["entropy_scipy"].as_f64().unwrap();
        assert!((entropy - expected).abs() < 1e-10, "p {p} kappa {kappa}: {entropy} {expected}");
        let log_c = special::vmf_ln_normalizer(p, kappa);
        assert!((log_c - record["log_C"].as_f64().unwrap()).abs() < 1e-10, "p {p} kappa {kappa}");
    }
    for (p, area) in golden["log_area_S^{p-1}"].as_object().unwrap() {
        let got = special::vmf_entropy(p.parse().unwrap(), 0.0);
        assert!((got - area.as_f64().unwrap()).abs() < 1e-9, "{p}: {got} {area}");
    }
    let views = tensor("sphere/views_n40_v3_p8.npy").to_dtype(candle_core::DType::F64).unwrap();
    let all = views.reshape(((), views.dim(candle_core::D::Minus1).unwrap())).unwrap();
    for kappa in [1, 5, 20] {
        for (key, leave_one_out) in [("H_global_incl_self", false), ("H_global_excl_self", true)] {
            let vmf = Vmf { kappa: f64::from(kappa), leave_one_out, weight: 1.0 };
            let expected = golden[format!("vmf_kde_kappa{kappa}")][key].as_f64().unwrap();
            let got = vmf.estimate(&all).unwrap().nats;
            // The rows of the file have unit length up to f32; here they are scaled to it in f64.
            assert!((got - expected).abs() < 1e-6, "kappa {kappa} {key}: {got} {expected}");
        }
    }
}

/// The package lightly adds the coding rate where the paper subtracts it: with the sign of the paper, the
/// loss is its value minus twice the rate.
#[test]
fn emp_ssl_has_the_sign_of_the_paper() {
    let objective = ObjectiveConfig::named("emp-ssl").unwrap().build().unwrap();
    let rate = CodingRate { normalize: false, ..Default::default() };
    for case in CASES {
        let record = json("losses/losses.json")[case].clone();
        let lightly = record["empssl_lightly(SIGN: minimizes +TCR, see notes)"]["value"].as_f64().unwrap();
        let view = |v| tensor(&format!("losses/{case}.z{v}.npy")).to_dtype(candle_core::DType::F64).unwrap();
        let z = [view(1), view(2)];
        let rates = z.iter().map(|z| rate.estimate(z).unwrap().nats).sum::<f64>() / 2.0;
        let got = number(&total(objective.as_ref(), &z));
        assert!((got - (lightly - 2.0 * rates)).abs() < 1e-8, "{case}: {got} {lightly} {rates}");
    }
}
