//! A loss of three terms, one of them defined here, trains a model of plain Candle variables.
//!
//! Everything comes from `infomax-losses`, which re-exports the `candle_core` and the `infomax_core` that it is built
//! with. Run it with `cargo run` in this folder.

use infomax_losses::candle_core::{DType, Device, Tensor, Var};
use infomax_losses::infomax_core::{
    Bound, Context, Embeddings, Key, Objective as _, Part, Result, Role, Term,
};
use infomax_losses::{Composed, entropy::IntoTerm as _, entropy::LogDet, invariance::Mse};

/// `mean_i (|z_i|^2 / d - 1)^2`: rows keep the length that they have under a standard normal distribution.
#[derive(Debug)]
struct UnitEnergy {
    weight: f64,
}

impl Term for UnitEnergy {
    fn name(&self) -> &str {
        "unit-energy"
    }

    fn role(&self) -> Role {
        Role::Auxiliary
    }

    fn bound(&self) -> Option<Bound> {
        None
    }

    fn evaluate(&self, z: &Embeddings, _: &Context<'_>) -> Result<Vec<Part>> {
        let mut values = Vec::new();
        for view in z.projections.iter() {
            let energy = (view.sqr()?.sum(1)? / z.projections.dim() as f64)?;
            values.push((energy - 1.0)?.sqr()?.mean_all()?);
        }
        let value = Tensor::stack(&values, 0)?.mean_all()?;
        Ok(vec![Part { name: "unit-energy".into(), role: Role::Auxiliary, weight: self.weight, value }])
    }
}

/// `tanh(x W1) W2`, of variables that no `VarMap` holds.
struct Mlp {
    w1: Var,
    w2: Var,
}

impl Mlp {
    fn new(key: Key) -> Result<Self> {
        let draw = |name: &str, shape: (usize, usize)| -> Result<Var> {
            let std = 1.0 / (shape.0 as f64).sqrt();
            Ok(Var::from_tensor(&key.fold_named(name).normal(0.0, std, shape, DType::F32, &Device::Cpu)?)?)
        };
        Ok(Self { w1: draw("w1", (16, 64))?, w2: draw("w2", (64, 8))? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.w1)?.tanh()?.matmul(&self.w2)?)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let entropy: Box<dyn Term> = LogDet::default().into_term();
    let objective = Composed::new(
        "mine",
        vec![Box::new(Mse { weight: 25.0, ..Mse::default() }), entropy, Box::new(UnitEnergy { weight: 5.0 })],
    )?;
    let model = Mlp::new(Key::new(0))?;
    let key = Key::new(1);
    let (mut first, mut last) = (0.0, 0.0);
    for step in 0..200 {
        // Two noisy views of each of 128 samples.
        let draws = key.fold_in(step);
        let x = draws.fold_named("x").normal(0.0, 1.0, (128, 16), DType::F32, &Device::Cpu)?;
        let view = |v| -> Result<Tensor> {
            Ok((&x + draws.fold_in(v).normal(0.0, 0.3, (128, 16), DType::F32, &Device::Cpu)?)?)
        };
        let z = Embeddings::pair(model.forward(&view(0)?)?, model.forward(&view(1)?)?)?;
        let report = objective.evaluate(&z, &Context { step, key: draws, ..Context::standalone() })?;
        let total = report.total.to_scalar::<f32>()?;
        if step == 0 {
            first = total;
        }
        last = total;
        if step % 40 == 0 {
            let parts: Vec<String> = report
                .parts
                .iter()
                .map(|p| Ok(format!("{} {:.3}", p.name, p.weight * f64::from(p.value.to_scalar::<f32>()?))))
                .collect::<Result<_>>()?;
            println!("step {step:3}: {total:.3} = {}", parts.join(" + "));
        }
        let grads = report.total.backward()?;
        for var in [&model.w1, &model.w2] {
            if let Some(grad) = grads.get(var) {
                var.set(&(var.as_tensor() - (grad * 0.02)?)?)?;
            }
        }
    }
    println!("from {first:.3} to {last:.3}");
    if last < first - 0.5 { Ok(()) } else { Err("the loss did not fall".into()) }
}
