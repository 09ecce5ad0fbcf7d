//! Named objectives against values and gradients of their reference implementations.

use crate::compare::{Report, Worst, error, guarded};
use anyhow::{Context as _, Result, anyhow};
use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Context, Embeddings, Views};
use infomax_losses::ObjectiveConfig;
use std::path::{Path, PathBuf};

/// Records of the golden files, with the objective and the convention that they are of.
const RECORDS: [(&str, &str, &str); 9] = [
    ("vicreg_official", "vicreg", "official"),
    ("vicreg_solo", "vicreg", "solo-learn"),
    ("vicreg_lightly", "vicreg", "lightly"),
    ("barlow_official", "barlow-twins", "official"),
    ("barlow_lightly", "barlow-twins", "lightly"),
    ("barlow_solo", "barlow-twins", "solo-learn"),
    ("ntxent_lightly_t0.5", "simclr", "lightly"),
    ("hypersphere_lightly_t1", "align-uniform", "lightly"),
    ("frossl_lightly", "frossl", "official"),
];

/// Random embeddings. (The other golden case, with an exactly constant feature, is for f64: its gradients amplify roundings.)
const CASE: &str = "a_n32_d16";

/// The folder of the golden files: beside the program, as in the archive, or in the repository.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let beside = program.parent().map(|folder| folder.join("golden"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/infomax-losses/tests/golden/losses");
    let all = beside.into_iter().chain([here]);
    all.into_iter()
        .find(|folder| folder.join("losses.json").is_file())
        .context("no folder `golden` with losses.json beside the program")
}

pub(crate) fn objectives(device: &Device, report: &mut Report) -> Result<()> {
    let folder = folder()?;
    let text = std::fs::read_to_string(folder.join("losses.json"))?;
    let index: serde_json::Value = serde_json::from_str(&text)?;
    let array = |name: &str| -> Result<Tensor> {
        let path = folder.join(name.rsplit('/').next().unwrap_or(name));
        Ok(infomax_data::npy::read(&path)?.to_dtype(DType::F64)?)
    };
    for (record, name, convention) in RECORDS {
        let worst = guarded(|| {
            let golden = &index[CASE][record];
            let value = golden["value"].as_f64().ok_or_else(|| anyhow!("no value of {record}"))?;
            let make = |view: &str| -> Result<Var> {
                let values = array(&format!("{CASE}.{view}.npy"))?.to_dtype(DType::F32)?;
                Ok(Var::from_tensor(&values.to_device(device)?)?)
            };
            let views = [make("z1")?, make("z2")?];
            let objective = ObjectiveConfig::with_convention(name, convention)?.build()?;
            let given = Views::new(views.iter().map(|v| v.as_tensor().clone()).collect())?;
            let total = objective.evaluate(&Embeddings::new(given), &Context::standalone())?.total;
            let grads = total.backward()?;
            let mut worst = Worst::none();
            let got = f64::from(total.to_dtype(DType::F32)?.to_scalar::<f32>()?);
            worst.take("value", (got - value).abs() / value.abs().max(1e-6));
            for (view, key) in views.iter().zip(["grad_z1", "grad_z2"]) {
                let file = golden[key].as_str().ok_or_else(|| anyhow!("no {key} of {record}"))?;
                let got = grads.get(view).ok_or_else(|| anyhow!("no gradient"))?;
                worst.take(key, error(got, &array(file)?)?);
            }
            Ok(worst)
        });
        report.row(&format!("golden: {name} ({convention})"), worst, 1e-4);
    }
    Ok(())
}
