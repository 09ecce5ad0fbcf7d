//! Every named objective: value and gradients in f32 on the device against f64 on the CPU.
//!
//! A row holds within 1e-4, or within four times the error of f32 on the CPU where the objective itself is that
//! sensitive; both errors are printed. Where one breaks the context of the card, nothing after it can run: the program
//! then ends with the code 3, and `--skip N` starts behind it.

use crate::compare::{Report, Worst, draw, error, guarded};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Context, Embeddings, LocalMap, Views};
use infomax_losses::{ObjectiveConfig, names};

pub(crate) fn all(device: &Device, report: &mut Report) -> Result<()> {
    let mut number = 0;
    // Fewer rows than dimensions, and more: some terms work on the smaller Gram matrix.
    for (n, d) in [(24, 40), (64, 16)] {
        let views = (0..2).map(|v| Ok((draw(&[n, d], 200 + v)? * 1.3)?)).collect::<Result<Vec<_>>>()?;
        // The second view is near the first, as that of one image is.
        let views = [views[0].clone(), ((&views[0] * 0.8)? + (&views[1] * 0.4)?)?];
        let views = views.iter().map(|v| Ok(v.to_dtype(DType::F32)?)).collect::<Result<Vec<_>>>()?;
        for named in names() {
            // Whitening needs more rows than dimensions, and refuses others on every device.
            if named.name == "w-mse" && n <= d {
                continue;
            }
            for convention in named.conventions {
                number += 1;
                if number <= report.skip {
                    continue;
                }
                let name = format!("objective {} ({convention}) {n}x{d}", named.name);
                let result = guarded(|| {
                    let config = ObjectiveConfig::with_convention(named.name, convention)?;
                    let exact = evaluate(&config, &views, DType::F64, &Device::Cpu)?;
                    let host = evaluate(&config, &views, DType::F32, &Device::Cpu)?;
                    let there = evaluate(&config, &views, DType::F32, device)?;
                    let (host, there) = (worst(&host, &exact)?, worst(&there, &exact)?);
                    println!(
                        "   {name}: f32 on the CPU {:.1e}, on the device {:.1e}",
                        host.error, there.error
                    );
                    Ok((there, (4.0 * host.error).max(1e-4)))
                });
                match result {
                    Ok((worst, tolerance)) => report.row(&name, Ok(worst), tolerance),
                    Err(error) => report.failed(&name, &format!("{error:#}")),
                }
                if let Err(error) = device.synchronize() {
                    println!("the context is broken after {name}: {error}");
                    println!("{} passed, {} failed", report.passed, report.failed);
                    println!("RESUME {number}");
                    std::process::exit(3);
                }
            }
        }
    }
    Ok(())
}

/// The value and the gradients of the views.
fn evaluate(
    config: &ObjectiveConfig,
    views: &[Tensor],
    dtype: DType,
    device: &Device,
) -> Result<Vec<Tensor>> {
    let objective = config.build()?;
    let given = |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(dtype)?.to_device(device)?) };
    let vars = views.iter().map(|v| Ok(Var::from_tensor(&given(v)?)?)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let targets = views.iter().map(given).collect::<Result<Vec<_>>>()?;
    let maps = tensors
        .iter()
        .map(|z| Ok(LocalMap::new(Tensor::stack(&[z.clone(), (z * 0.7)?, (z * 0.4)?], 1)?, None)?))
        .collect::<Result<Vec<_>>>()?;
    let projections = Views::new(tensors.clone())?;
    let z = Embeddings {
        predictions: Some(projections.clone()),
        targets: Some(Views::new(targets)?),
        labels: Some((0..views[0].dim(0)? as u32).map(|i| i % 3).collect()),
        ..Embeddings::new(projections.with_local(maps)?)
    };
    let total = objective.evaluate(&z, &Context::standalone())?.total;
    let grads = total.backward()?;
    let mut out = vec![total.detach()];
    for t in &tensors {
        out.push(match grads.get(t) {
            Some(grad) => grad.clone(),
            None => t.zeros_like()?,
        });
    }
    Ok(out)
}

fn worst(got: &[Tensor], expected: &[Tensor]) -> Result<Worst> {
    let mut worst = Worst::none();
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let what = if i == 0 { "value".into() } else { format!("gradient {}", i - 1) };
        worst.take(&what, error(got, expected)?);
    }
    Ok(worst)
}
