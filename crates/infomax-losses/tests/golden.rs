//! Values and gradients of the objectives against their reference implementations.

mod common;

use candle_core::Tensor;
use common::{check, total};
use infomax_losses::ObjectiveConfig;

const CASES: [&str; 2] = ["a_n32_d16", "c_n8_d4_collapsed"];

fn objective(record: &str, name: &str, convention: &str) {
    let objective = ObjectiveConfig::with_convention(name, convention).unwrap().build().unwrap();
    for case in CASES {
        pair("losses", case, record, 1.0, |z| total(objective.as_ref(), z));
    }
}

fn pair(group: &str, case: &str, record: &str, loosen: f64, f: impl Fn(&[Tensor]) -> Tensor) {
    let inputs = [format!("losses/{case}.z1.npy"), format!("losses/{case}.z2.npy")];
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    check(group, &format!("{case}.{record}"), &inputs, loosen, f);
}

#[test]
fn vicreg() {
    objective("vicreg_official", "vicreg", "official");
    objective("vicreg_solo", "vicreg", "solo-learn");
    objective("vicreg_lightly", "vicreg", "lightly");
}
