//! Optimizers, a whole network, and the memory after many steps.

use crate::compare::{Report, Worst, draw, error, guarded};
use crate::network::{Backend, ResNet, images, loss};
use anyhow::{Result, anyhow};
use candle_core::{DType, Device, Tensor, Var};
use infomax_cuda::{AdamW, Images, Math, Options, Search, Sgd, Slot, adamw_step, sgd_step, squared_norms};

/// f32 on the device.
fn there(device: &Device, t: &Tensor) -> Result<Tensor> {
    Ok(t.to_dtype(DType::F32)?.to_device(device)?)
}

pub(crate) fn optimizers(device: &Device, report: &mut Report) -> Result<()> {
    let shapes: [&[usize]; 4] = [&[1], &[37], &[129, 130], &[64, 64, 3, 3]];
    let make = |base: u64| -> Result<Vec<Tensor>> {
        shapes
            .iter()
            .enumerate()
            .map(|(i, s)| Ok(draw(s, base + i as u64)?.to_dtype(DType::F32)?.to_dtype(DType::F64)?))
            .collect()
    };
    for kind in ["sgd", "nesterov", "adamw"] {
        let worst = guarded(|| {
            let (mut p, g, mut m, mut v) = (make(30)?, make(40)?, make(50)?, make(60)?);
            for v in &mut v {
                *v = v.sqr()?;
            }
            let on = |all: &[Tensor]| all.iter().map(|t| there(device, t)).collect::<Result<Vec<_>>>();
            let (pd, gd, md, vd) = (on(&p)?, on(&g)?, on(&m)?, on(&v)?);
            let (lr, mu) = (0.1, 0.9);
            let (b1, b2, eps) = (0.9, 0.99, 1e-3);
            for step in 1..=3u64 {
                let slots: Vec<Slot<'_>> = (0..shapes.len())
                    .map(|i| Slot {
                        param: &pd[i],
                        grad: &gd[i],
                        first: &md[i],
                        second: Some(&vd[i]),
                        decay: 0.01 * i as f64,
                        scale: 1.0 - 0.2 * i as f64,
                        step,
                    })
                    .collect();
                match kind {
                    "adamw" => adamw_step(&slots, AdamW { lr, beta1: b1, beta2: b2, eps })?,
                    _ => sgd_step(&slots, Sgd { lr, momentum: mu, nesterov: kind == "nesterov" })?,
                }
                for i in 0..shapes.len() {
                    let (decay, scale, t) = (0.01 * i as f64, 1.0 - 0.2 * i as f64, step as f64);
                    if kind == "adamw" {
                        m[i] = ((&m[i] * b1)? + (&g[i] * (1.0 - b1))?)?;
                        v[i] = ((&v[i] * b2)? + (g[i].sqr()? * (1.0 - b2))?)?;
                        let root = ((v[i].sqrt()? / (1.0 - b2.powf(t)).sqrt())? + eps)?;
                        let update = (m[i].div(&root)? * (lr / (1.0 - b1.powf(t))))?;
                        p[i] = ((&p[i] * (1.0 - lr * decay))? - update)?;
                    } else {
                        let d = ((&g[i] + (&p[i] * decay)?)? * scale)?;
                        m[i] = ((&m[i] * mu)? + &d)?;
                        let move_by = if kind == "nesterov" { (d + (&m[i] * mu)?)? } else { m[i].clone() };
                        p[i] = (&p[i] - (move_by * lr)?)?;
                    }
                }
            }
            let mut worst = Worst::none();
            for i in 0..shapes.len() {
                worst.take(&format!("parameter {i}"), error(&pd[i], &p[i])?);
                worst.take(&format!("first moment {i}"), error(&md[i], &m[i])?);
                worst.take(&format!("second moment {i}"), error(&vd[i], &v[i])?);
            }
            Ok(worst)
        });
        report.row(&format!("{kind}, three steps of four parameters"), worst, 1e-5);
    }
    let worst = guarded(|| {
        let (p, g) = (make(70)?, make(80)?);
        let on = |all: &[Tensor]| all.iter().map(|t| there(device, t)).collect::<Result<Vec<_>>>();
        let (pd, gd) = (on(&p)?, on(&g)?);
        let slot = |i: usize| Slot {
            param: &pd[i],
            grad: &gd[i],
            first: &pd[i],
            second: None,
            decay: 0.0,
            scale: 1.0,
            step: 1,
        };
        let norms = squared_norms(&(0..shapes.len()).map(slot).collect::<Vec<_>>())?;
        let mut worst = Worst::none();
        for (i, got) in norms.iter().enumerate() {
            let expected = [p[i].sqr()?, g[i].sqr()?, (&p[i] * &g[i])?];
            let expected =
                expected.iter().map(|t| Ok(t.sum_all()?.to_scalar::<f64>()?)).collect::<Result<Vec<_>>>()?;
            let (got, expected) =
                (Tensor::new(got.as_slice(), &Device::Cpu)?, Tensor::new(expected.as_slice(), &Device::Cpu)?);
            worst.take(&format!("norms {i}"), error(&got, &expected)?);
        }
        Ok(worst)
    });
    report.row("norms of four parameters", worst, 1e-6);
    lamb(device, report);
    Ok(())
}

pub(crate) fn network(device: &Device, report: &mut Report) -> Result<()> {
    // Masks of ReLU flip under rounding. In f64 on the CPU, rounding each feature map and weight to bf16 moves these
    // gradients by 36 percent (the features by 2.6); TF32 has three more bits.
    let width = 8;
    let slow = ResNet::new(&Device::Cpu, width)?;
    let features =
        slow.forward(&images(&Device::Cpu, [6, 16, 16], Backend::Reference)?, Backend::Reference)?;
    let expected = (loss(&features)? * 1.0)?.backward()?;
    let f32s = |images, math, search| Backend::Cuda(Options { math, search, images }, DType::F32);
    let bf16 = |images| {
        Backend::Cuda(Options { math: Math::Tf32, search: Search::Deterministic, images }, DType::BF16)
    };
    let (first, last, fixed) = (Images::ChannelsFirst, Images::ChannelsLast, Search::Deterministic);
    let fused = |backend| match backend {
        Backend::Cuda(options, dtype) => Backend::Fused(options, dtype),
        other => other,
    };
    let backends = [
        ("f32 first", f32s(first, Math::F32, fixed), 1e-3),
        ("f32 last", f32s(last, Math::F32, fixed), 1e-3),
        ("tf32 first", f32s(first, Math::Tf32, fixed), 0.15),
        ("tf32 last", f32s(last, Math::Tf32, fixed), 0.15),
        ("bf16 first", bf16(first), 0.7),
        ("bf16 last", bf16(last), 0.7),
        ("f32 first fused", fused(f32s(first, Math::F32, fixed)), 1e-3),
        ("f32 last fused", fused(f32s(last, Math::F32, fixed)), 1e-3),
        ("bf16 last fused", fused(bf16(last)), 0.7),
    ];
    for (name, backend, tolerance) in backends {
        let worst = guarded(|| {
            let fast = ResNet::new(device, width)?;
            let got = fast.forward(&images(device, [6, 16, 16], backend)?, backend)?;
            let grads = loss(&got)?.backward()?;
            let mut worst = Worst::none();
            worst.take("features", error(&got, &features)?);
            // All weights of convolutions as one vector.
            let (mut square, mut total) = (0.0, 0.0);
            for (a, b) in fast.parameters().into_iter().zip(slow.parameters()).step_by(3) {
                let got = grads.get(a).ok_or_else(|| anyhow!("a weight without a gradient"))?;
                let expected = expected.get(b).ok_or_else(|| anyhow!("a reference without a gradient"))?;
                let size = expected.sqr()?.sum_all()?.to_scalar::<f64>()?;
                square += error(got, expected)?.powi(2) * size;
                total += size;
            }
            worst.take("gradients of weights", (square / total).sqrt());
            Ok(worst)
        });
        report.row(&format!("ResNet-18 of width {width}, {name}"), worst, tolerance);
    }
    Ok(())
}

pub(crate) fn memory(device: &Device, report: &mut Report) -> Result<()> {
    for (name, dtype, images_) in
        [("f32 first", DType::F32, Images::ChannelsFirst), ("bf16 last", DType::BF16, Images::ChannelsLast)]
    {
        let worst = guarded(|| {
            let options = Options { math: Math::Tf32, search: Search::Heuristic, images: images_ };
            let backend = Backend::Cuda(options, dtype);
            let net = ResNet::new(device, 16)?;
            let xs = images(device, [16, 32, 32], backend)?;
            let rows = Var::from_tensor(&there(device, &draw(&[512, 64], 90)?)?)?;
            let step = || -> Result<()> {
                let grads = loss(&net.forward(&xs, backend)?)?.backward()?;
                std::hint::black_box(&grads);
                let unit = infomax_cuda::l2_normalize(&rows, 1e-8)?;
                let lse = infomax_cuda::row_log_sum_exp(
                    &unit,
                    infomax_cuda::Score::Dot(2.0),
                    infomax_cuda::Exclude::Own,
                )?;
                lse.mean_all()?.backward()?;
                Ok(())
            };
            for _ in 0..3 {
                step()?;
            }
            let before = infomax_cuda::memory_use(device)?.current;
            for _ in 0..100 {
                step()?;
            }
            let after = infomax_cuda::memory_use(device)?.current;
            println!("memory {name}: {before} bytes before, {after} after 100 steps");
            let mut worst = Worst::none();
            worst.take("bytes left behind", after.abs_diff(before) as f64);
            Ok(worst)
        });
        report.row(&format!("memory after 100 steps, {name}"), worst, 0.0);
    }
    Ok(())
}

/// Steps of LAMB on the device, by two launches, beside those on the CPU in f64.
fn lamb(device: &Device, report: &mut Report) {
    use infomax_kernels::update;
    let shapes: [&[usize]; 4] = [&[1], &[37], &[129, 130], &[64, 64, 3, 3]];
    let adapt = [false, true, true, true];
    // Parameters, first and second moments after three steps.
    let run = |device: &Device, dtype: DType| -> Result<Vec<Tensor>> {
        let make = |base: u64, positive: bool| -> Result<Vec<Tensor>> {
            let one = |(i, s): (usize, &&[usize])| {
                let x = draw(s, base + i as u64)?.to_dtype(DType::F32)?;
                let x = if positive { x.sqr()? } else { x };
                Ok(x.to_dtype(dtype)?.to_device(device)?)
            };
            shapes.iter().enumerate().map(one).collect()
        };
        let (p, g, m, v) = (make(30, false)?, make(40, false)?, make(50, false)?, make(60, true)?);
        for step in 1..=3 {
            let slots: Vec<update::Slot<'_>> = (0..shapes.len())
                .map(|i| update::Slot {
                    param: &p[i],
                    grad: &g[i],
                    first: &m[i],
                    second: Some(&v[i]),
                    lr: if i == 3 { 0.03 } else { 0.1 },
                    decay: 0.01 * i as f64,
                    scale: 1.0,
                    step,
                })
                .collect();
            let cfg = update::Lamb { betas: (0.9, 0.99), eps: 1e-3, max_trust: Some(1.5) };
            update::lamb_step(&slots, &adapt, cfg)?;
        }
        Ok([p, m, v].concat())
    };
    let worst = guarded(|| {
        let (got, expected) = (run(device, DType::F32)?, run(&Device::Cpu, DType::F64)?);
        let mut worst = Worst::none();
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            worst.take(&format!("tensor {i}"), error(got, expected)?);
        }
        Ok(worst)
    });
    report.row("lamb, three steps", worst, 1e-5);
}
