//! Jacobians and propagated noise against closed forms, differences and samples.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::propagation::*;
use infomax_eval::{Error, Result};

fn normal(seed: u64, shape: (usize, usize), scale: f64) -> Tensor {
    Key::new(seed).normal(0.0, scale, shape, DType::F64, &Device::Cpu).unwrap()
}

/// `relu(x W1 + 1) W2`, and the pattern of its units.
struct Net {
    w1: Tensor,
    w2: Tensor,
}

impl Net {
    fn new(inputs: usize, hidden: usize, outputs: usize) -> Self {
        Self { w1: normal(1, (inputs, hidden), 0.5), w2: normal(2, (hidden, outputs), 0.5) }
    }

    fn hidden(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x.flatten_from(1)?.matmul(&self.w1)? + 1.0)?)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.hidden(x)?.relu()?.matmul(&self.w2)?)
    }

    fn pattern(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.hidden(x)?.gt(0.0)?)
    }
}

fn largest(a: &Tensor) -> f64 {
    a.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn the_jacobian_is_that_of_central_differences_whatever_the_rows_a_pass() {
    let net = Net::new(6, 20, 5);
    let x = normal(3, (2, 3), 1.0); // An image of one row of pixels: (2, 3).
    let smooth = |x: &Tensor| Ok(net.forward(x)?.tanh()?);
    let a = jacobian(smooth, &x, 3).unwrap();
    assert_eq!(a.dims(), [5, 6]);
    for rows in [1, 2, 64] {
        assert!(largest(&(&a - jacobian(smooth, &x, rows).unwrap()).unwrap()) < 1e-14);
    }
    let flat = x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for i in 0..6 {
        let moved = |h: f64| {
            let mut v = flat.clone();
            v[i] += h;
            smooth(&Tensor::from_vec(v, (1, 2, 3), &Device::Cpu).unwrap()).unwrap()
        };
        let difference = ((moved(1e-5) - moved(-1e-5)).unwrap() / 2e-5).unwrap().squeeze(0).unwrap();
        let column = a.narrow(1, i, 1).unwrap().squeeze(1).unwrap();
        assert!(largest(&(column - difference).unwrap()) < 1e-8);
    }
}

#[test]
fn the_theorem_is_exact_for_a_linear_encoder_and_fails_with_large_noise_on_a_network() {
    let w = normal(5, (4, 3), 1.0);
    let x = normal(6, (1, 4), 1.0).squeeze(0).unwrap();
    let linear = |x: &Tensor| Ok(x.matmul(&w)?);
    let factor = normal(7, (4, 2), 0.7);
    let cfg = MonteCarloConfig { draws: 20_000, batch: 1_000, seed: 1 };
    for noise in [Noise::Isotropic(0.3), Noise::Factor(factor)] {
        let a = jacobian(linear, &x, 8).unwrap();
        let predicted = noise.propagate(&a).unwrap();
        let sampled = monte_carlo(linear, &x, &noise, &cfg).unwrap();
        let same = agreement(&predicted, &sampled.covariance, cfg.draws, 1).unwrap();
        assert!(same.relative_frobenius < 4.0 * same.by_chance, "{same:?}");
        assert!(same.largest_angle < 0.1 && (same.trace_ratio - 1.0).abs() < 0.05, "{same:?}");
        let center = linear(&x.unsqueeze(0).unwrap()).unwrap().squeeze(0).unwrap();
        assert!(largest(&(sampled.mean - center).unwrap()) < 0.1);
    }
    let net = Net::new(4, 30, 3);
    let forward = |x: &Tensor| net.forward(x);
    let pattern = |x: &Tensor| net.pattern(x);
    let a = jacobian(forward, &x, 8).unwrap();
    let error = |variance: f64| {
        let noise = Noise::Isotropic(variance);
        let c = monte_carlo(forward, &x, &noise, &cfg).unwrap().covariance;
        let found = agreement(&noise.propagate(&a).unwrap(), &c, cfg.draws, 1).unwrap();
        (found, region_shares(pattern, &x, &noise, &cfg).unwrap())
    };
    let (small, stayed) = error(1e-10);
    assert!(small.relative_frobenius < 4.0 * small.by_chance && stayed.left < 0.01, "{small:?} {stayed:?}");
    let (large, left) = error(4.0);
    assert!(large.relative_frobenius > 10.0 * large.by_chance && left.left > 0.9, "{large:?} {left:?}");
    assert!(left.switched < left.left && left.units == 30);
}

#[test]
fn entropy_of_full_and_of_deficient_rank() {
    let c = Tensor::new(&[[2.0f64, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]], &Device::Cpu).unwrap();
    // The number of the three by three matrix of docs and literature: 1/2 ln det(2 pi e C).
    let det = 2.0 * (1.0 * 0.5 - 0.04) - 0.6 * (0.6 * 0.5 + 0.06) - 0.3 * (0.12 + 0.3);
    let e = support_entropy(&c, 1e-12).unwrap();
    let unit = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln();
    assert!((e.nats - 3.0 * unit - 0.5 * f64::ln(det)).abs() < 1e-12 && e.rank == 3 && e.full() == e.nats);
    let v = Tensor::new(&[[1.0f64, 2.0, 2.0]], &Device::Cpu).unwrap();
    let flat = v.t().unwrap().matmul(&v).unwrap();
    let e = support_entropy(&flat, 1e-12).unwrap();
    assert!((e.nats - unit - 9f64.ln() * 0.5).abs() < 1e-10 && e.rank == 1, "{e:?}");
    assert_eq!(e.full(), f64::NEG_INFINITY);
    let zeros = support_entropy(&(flat * 0.0).unwrap(), 1e-12);
    assert!(matches!(zeros, Err(Error::Singular { .. })));
}

#[test]
fn wrong_encoders_and_noise_are_named() {
    let x = normal(1, (1, 4), 1.0).squeeze(0).unwrap();
    let constant = |x: &Tensor| Ok(Tensor::ones((x.dim(0)?, 2), DType::F64, &Device::Cpu)?);
    assert!(jacobian(constant, &x, 4).unwrap_err().to_string().contains("differentiable"));
    let wrong = jacobian(|x: &Tensor| Ok(x.sum_all()?.reshape(1)?), &x, 4).unwrap_err().to_string();
    assert!(wrong.contains("the encoder's output"), "{wrong}");
    let noise = Noise::Factor(normal(1, (3, 2), 1.0));
    assert!(noise.propagate(&normal(1, (2, 4), 1.0)).unwrap_err().to_string().contains("(4, R)"));
    assert!(Noise::Isotropic(-1.0).propagate(&normal(1, (2, 4), 1.0)).is_err());
}
