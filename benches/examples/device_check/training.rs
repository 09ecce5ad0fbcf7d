//! What a run does on the device, by the crates that a run uses: operations of `infomax-kernels`, a residual network of
//! `infomax-models`, an objective, an optimizer; beside the CPU.

use crate::compare::{Report, Worst, draw, error, guarded, inputs, versus};
use anyhow::{Result, anyhow};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Context, Embeddings, Encoder as _, Init, Key, ParamKind, Params, Pass, Views};
use infomax_kernels::{
    Activation, AttentionConfig, Conv2dConfig, Elementwise, FeedForward, Normalize, Pool2dConfig,
    SelfAttention,
};
use infomax_losses::ObjectiveConfig;
use infomax_models::{Precision, Projector, ProjectorConfig, ResNet, ResNetConfig};
use infomax_optim::{Gradients, Optimizer as _, Sgd, SgdConfig};

/// Every operation through the function that models and objectives call.
pub(crate) fn kernels(device: &Device, report: &mut Report) -> Result<()> {
    type Op = fn(&[Tensor]) -> Result<Tensor>;
    let conv = |t: &[Tensor]| -> Result<Tensor> {
        let cfg = Conv2dConfig { stride: 2, padding: 1, ..Default::default() };
        Ok(infomax_kernels::conv2d(&t[0], &t[1], Some(&t[2]), cfg)?)
    };
    let conv_norm = |t: &[Tensor]| -> Result<Tensor> {
        let cfg = Conv2dConfig { padding: 1, ..Default::default() };
        let parameters = [&t[1], &t[2], &t[2]];
        Ok(infomax_kernels::conv_norm_train(&t[0], parameters, None, cfg, 1e-5, Activation::Relu)?.ys)
    };
    let norm = |t: &[Tensor]| -> Result<Tensor> {
        Ok(infomax_kernels::batch_norm_train(&t[0], Some(&t[1]), Some(&t[1]), None, 1e-5, Activation::Relu)?
            .ys)
    };
    let rows = |t: &[Tensor]| -> Result<Tensor> {
        let ys = infomax_kernels::layer_norm(&t[0], Some(&t[1]), Some(&t[1]), 1e-5)?;
        let ys = (infomax_kernels::gelu(&ys)? + infomax_kernels::log_softmax(&ys)?)?;
        Ok((infomax_kernels::l2_normalize(&ys, 1e-8)? + infomax_kernels::softmax(&ys)?)?)
    };
    let pools = |t: &[Tensor]| -> Result<Tensor> {
        let cfg = Pool2dConfig { kernel: 3, stride: 2, padding: 1 };
        let ys = infomax_kernels::max_pool2d(&t[0], cfg)?;
        Ok(infomax_kernels::global_avg_pool(&(infomax_kernels::avg_pool2d(&t[0], cfg)? + ys)?)?)
    };
    let attention = |t: &[Tensor]| -> Result<Tensor> {
        Ok(infomax_kernels::attention(&t[0], &t[1], &t[2], AttentionConfig { causal: true, scale: None })?)
    };
    let layer = |t: &[Tensor]| -> Result<Tensor> {
        let heads = SelfAttention {
            norm_weight: &t[1],
            norm_bias: &t[1],
            eps: 1e-5,
            heads: 2,
            qkv_weight: &t[2],
            qkv_bias: &t[3],
            out_weight: &t[4],
            out_bias: &t[1],
            scale: None,
        };
        let ys = infomax_kernels::self_attention(&t[0], &heads)?;
        let half = FeedForward {
            norm_weight: &t[1],
            norm_bias: &t[1],
            eps: 1e-5,
            in_weight: &t[2],
            in_bias: &t[3],
            act: Elementwise::Gelu,
            out_weight: &t[2].t()?.contiguous()?,
            out_bias: &t[1],
            scale: None,
        };
        Ok(infomax_kernels::feed_forward(&ys, &half, None)?)
    };
    let moments = |t: &[Tensor]| -> Result<Tensor> {
        let z = infomax_kernels::columns::center(&t[0])?;
        let gram = infomax_kernels::columns::gram(&z)?.sqr()?.mean_all()?;
        let scatter = infomax_kernels::columns::second_moment(&z)?.sqr()?.mean_all()?;
        let log_det = infomax_kernels::half_log_det_gram(&t[0], 0.7, Normalize::Center, true)?;
        Ok((((gram + scatter)? * 1e-2)? + log_det)?)
    };
    let pairs = |t: &[Tensor]| -> Result<Tensor> {
        use infomax_kernels::pairwise::{Exclude, Score, row_log_sum_exp, squared_distances};
        let sums = row_log_sum_exp(&t[0], Score::Dot(0.5), Exclude::Own)?;
        Ok(((squared_distances(&t[0])?.mean(1)? * 0.1)? + sums)?)
    };
    let images: &[usize] = &[3, 4, 9, 7];
    let all: [(&str, Op, &[&[usize]]); 9] = [
        ("convolution", conv, &[images, &[6, 4, 3, 3], &[6]]),
        ("convolution and norm", conv_norm, &[images, &[6, 4, 3, 3], &[6]]),
        ("batch norm", norm, &[images, &[4]]),
        ("functions of rows", rows, &[&[5, 33], &[33]]),
        ("pooling", pools, &[images]),
        ("attention", attention, &[&[2, 3, 11, 8], &[2, 3, 11, 8], &[2, 3, 11, 8]]),
        ("transformer layer", layer, &[&[2, 5, 12], &[12], &[36, 12], &[36], &[12, 12]]),
        ("moments", moments, &[&[9, 21]]),
        ("pairs of rows", pairs, &[&[19, 7]]),
    ];
    for (name, op, shapes) in all {
        let values =
            shapes.iter().enumerate().map(|(i, s)| draw(s, 500 + i as u64)).collect::<Result<Vec<_>>>()?;
        let worst = guarded(|| versus(device, &inputs(DType::F32, &values), op, op));
        report.row(&format!("kernels: {name}, f32"), worst, 1e-4);
    }
    Ok(())
}

/// A residual network with a head, and what trains it.
struct Student {
    params: Params,
    encoder: ResNet,
    head: Projector,
    optimizer: Sgd,
}

impl Student {
    fn new(device: &Device, precision: Precision) -> Result<Self> {
        let params = Params::new(DType::F32, device, Key::new(7));
        let config = ResNetConfig { blocks: vec![1, 1], width: 16, ..ResNetConfig::default() };
        let encoder = ResNet::with_precision(&config, precision, params.root().pp("encoder"))?;
        let config = ProjectorConfig { dims: vec![64, 64], last_bias: false, norm: true };
        let head = Projector::new(encoder.feature_dim(), &config, params.root().pp("head"))?;
        let optimizer = Sgd::new(SgdConfig { momentum: 0.9, ..SgdConfig::default() })?;
        Ok(Self { params, encoder, head, optimizer })
    }

    /// The loss of a step of VICReg on two views of 64 small images, whose pixels are a function of the step.
    fn step(&mut self, device: &Device, step: u64) -> Result<f64> {
        let base = draw(&[64, 3, 32, 32], 900 + step % 10)?;
        let pass = Pass::train(Key::new(step));
        let mut views = Vec::new();
        for view in 0..2 {
            let noise = (draw(&[64, 3, 32, 32], 1000 + 2 * step + view)? * 0.5)?;
            let xs = (&base + noise)?.to_dtype(DType::F32)?.to_device(device)?;
            views.push(self.head.forward(&self.encoder.forward(&xs, &pass)?, &pass)?);
        }
        let objective = ObjectiveConfig::named("vicreg")?.build()?;
        let total = objective.evaluate(&Embeddings::new(Views::new(views)?), &Context::standalone())?.total;
        let grads = Gradients::of(&self.params, &infomax_kernels::backward(&total)?)?;
        self.optimizer.step(&self.params, &grads, 1e-3)?;
        Ok(f64::from(total.to_dtype(DType::F32)?.to_scalar::<f32>()?))
    }
}

/// 50 steps with the same weights and batches on both; each loss within a part of the first that grows with the steps, as
/// roundings do.
pub(crate) fn beside_the_cpu(device: &Device, report: &mut Report) -> Result<()> {
    for (name, precision, tolerance) in [("f32", Precision::F32, 0.01), ("bf16", Precision::Bf16, 0.05)] {
        let worst = guarded(|| {
            let (mut here, mut there) =
                (Student::new(&Device::Cpu, Precision::F32)?, Student::new(device, precision)?);
            let (mut curve, mut worst, mut first) = (Vec::new(), Worst::none(), None);
            for step in 0..50 {
                let (a, b) = (here.step(&Device::Cpu, step)?, there.step(device, step)?);
                worst.take(&format!("step {step}"), (a - b).abs() / *first.get_or_insert(a));
                if step % 7 == 0 {
                    curve.push(format!("{a:.4}/{b:.4}"));
                }
            }
            println!("losses every 7 steps, CPU/device, {name}: {}", curve.join(" "));
            Ok(worst)
        });
        report.row(&format!("50 steps of training beside the CPU, {name}"), worst, tolerance);
    }
    Ok(())
}

/// The memory of the device after 100 steps is that before them.
pub(crate) fn memory(device: &Device, report: &mut Report) -> Result<()> {
    for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        let worst = guarded(|| {
            let mut student = Student::new(device, precision)?;
            for step in 0..3 {
                student.step(device, step)?;
            }
            let before = infomax_cuda::memory_use(device)?.current;
            for step in 3..103 {
                student.step(device, step)?;
            }
            let after = infomax_cuda::memory_use(device)?.current;
            println!("memory of training, {name}: {before} bytes before, {after} after 100 steps");
            let mut worst = Worst::none();
            worst.take("bytes left behind", after.abs_diff(before) as f64);
            Ok(worst)
        });
        report.row(&format!("memory after 100 steps of training, {name}"), worst, 0.0);
    }
    // A weight that is used twice gets one gradient, the sum.
    let worst = guarded(|| {
        let params = Params::new(DType::F32, device, Key::new(1));
        let w = params.root().get("w", (8, 8), ParamKind::Weight, Init::Normal { mean: 0.0, std: 0.3 })?;
        let xs = draw(&[5, 8], 1)?.to_dtype(DType::F32)?.to_device(device)?;
        let twice = |backward: fn(&Tensor) -> candle_core::Result<candle_core::backprop::GradStore>| {
            let ys = infomax_kernels::layer_norm(&xs.matmul(&w)?, Some(&w.get(0)?), None, 1e-5)?;
            let ys =
                infomax_kernels::l2_normalize(&(ys.matmul(&w)? + w.as_tensor().narrow(0, 0, 5)?)?, 1e-8)?;
            let grads = backward(&ys.sum_all()?)?;
            grads.get(&w).cloned().ok_or_else(|| anyhow!("no gradient"))
        };
        let (ours, candles) = (twice(infomax_kernels::backward)?, twice(Tensor::backward)?);
        let mut worst = Worst::none();
        let host = candles.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        worst.take("gradient", error(&ours, &host)?);
        Ok(worst)
    });
    report.row("gradients that are handed over are Candle's", worst, 1e-6);
    Ok(())
}
