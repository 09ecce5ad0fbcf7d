//! Second moments, distances, characteristic functions, cross-entropy and the orthogonalization of Muon: values and
//! gradients at odd shapes, and times.

use crate::compare::{Report, Worst, draw, error, guarded, inputs, versus};
use crate::times::{median, random, row};
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use infomax_cuda::{Exclude, Products, Score, memory_use, reset_peak_memory};
use infomax_kernels::{pairwise as cpu, reference};

/// The ways to multiply, with the tolerance of each.
const PRODUCTS: [(Products, f64); 3] =
    [(Products::F32, 1e-4), (Products::Tf32, 5e-3), (Products::SplitTf32, 1e-4)];

pub(crate) fn moments(device: &Device, report: &mut Report) -> Result<()> {
    for (n, d, mean, spread) in [
        (2, 7, 0.0, 1.0),
        (24, 70, 5.0, 0.9),
        (70, 33, 30.0, 1.1),
        (130, 257, 0.0, 3.0),
        (257, 130, -2.0, 0.5),
    ] {
        let at = format!("{n}x{d} mean {mean} spread {spread}");
        let xs = inputs(DType::F32, &[((draw(&[n, d], 400)? * spread)? + mean)?]);
        let worst =
            versus(device, &xs, |x| Ok(infomax_cuda::center(&x[0])?), |x| Ok(reference::center(&x[0])?));
        report.row(&format!("center {at}"), worst, 1e-5);
        for (products, tolerance) in PRODUCTS {
            for rows in [true, false] {
                let worst = versus(
                    device,
                    &xs,
                    |x| Ok(infomax_cuda::gram(&x[0], rows, products)?),
                    |x| Ok(if rows { reference::gram(&x[0])? } else { reference::second_moment(&x[0])? }),
                );
                report.row(&format!("gram {at} rows {rows} {products:?}"), worst, tolerance);
                let worst = versus(
                    device,
                    &xs,
                    |x| Ok(infomax_cuda::variance_covariance(&x[0], 1.0, 1e-4, rows, products)?),
                    |x| Ok(reference::variance_covariance(&x[0], 1.0, 1e-4)?),
                );
                report.row(&format!("variance_covariance {at} rows {rows} {products:?}"), worst, tolerance);
            }
        }
    }
    // Not in order, and within a larger matrix.
    let xs = inputs(DType::F32, &[draw(&[40, 33], 401)?]);
    let part = |x: &Tensor| -> Result<Tensor> { Ok(x.t()?.narrow(0, 3, 20)?) };
    let worst = versus(
        device,
        &xs,
        |x| Ok(infomax_cuda::variance_covariance(&part(&x[0])?, 1.0, 1e-4, true, Products::F32)?),
        |x| Ok(reference::variance_covariance(&part(&x[0])?, 1.0, 1e-4)?),
    );
    report.row("variance_covariance of a part of a transposed matrix", worst, 1e-4);
    for count in [1, 1003, 40_000] {
        // Near tensors far from the origin.
        let a = (draw(&[count], 402)? + 100.0)?;
        let b = (&a + (draw(&[count], 403)? * 0.1)?)?;
        let worst = versus(
            device,
            &inputs(DType::F32, &[a, b]),
            |x| Ok(infomax_cuda::squared_error(&x[0], &x[1])?),
            |x| Ok(reference::squared_error(&x[0], &x[1])?),
        );
        report.row(&format!("squared_error {count}"), worst, 1e-5);
    }
    Ok(())
}

/// Rows of which some are equal and some near, under a shift.
fn near_rows(n: usize, d: usize, seed: u64) -> Result<Tensor> {
    let x = ((draw(&[n, d], seed)? * 0.3)? + 20.0)?;
    let half = x.narrow(0, 0, n / 2)?;
    let near = (&half.narrow(0, 0, n - n / 2 - 1)? + (draw(&[n - n / 2 - 1, d], seed + 1)? * 1e-3)?)?;
    Ok(Tensor::cat(&[&half, &half.narrow(0, 0, 1)?, &near], 0)?)
}

pub(crate) fn distances(device: &Device, report: &mut Report) -> Result<()> {
    for (n, d) in [(1, 5), (37, 3), (64, 129), (300, 17)] {
        for near in [false, true] {
            if near && n < 4 {
                continue;
            }
            let x = if near { near_rows(n, d, 410)? } else { (draw(&[n, d], 412)? + 3.0)? };
            let xs = inputs(DType::F32, &[x]);
            for (products, tolerance) in PRODUCTS {
                let worst = versus(
                    device,
                    &xs,
                    |x| Ok(infomax_cuda::squared_distances(&x[0], products)?),
                    |x| Ok(reference::squared_distances(&x[0])?),
                );
                report.row(&format!("squared_distances {n}x{d} near {near} {products:?}"), worst, tolerance);
            }
        }
    }
    // Equal rows have the distance 0, and a near pair its own digits.
    let bits = guarded(|| {
        let x = near_rows(20, 40, 414)?.to_dtype(DType::F32)?;
        let there = infomax_cuda::squared_distances(&x.to_device(device)?, Products::F32)?;
        let there = there.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
        let exact = reference::squared_distances(&x.to_dtype(DType::F64)?)?.to_vec2::<f64>()?;
        let mut worst = Worst::none();
        worst.take("equal rows", f64::from(there[0][10]));
        for i in 0..9 {
            let (got, expected) = (f64::from(there[i][i + 11]), exact[i][i + 11]);
            worst.take("near rows", (got - expected).abs() / expected);
        }
        Ok(worst)
    });
    report.row("squared_distances of equal and of near rows", bits, 1e-5);
    let (score, slow) = (Score::Distance(30.0), cpu::Score::Distance(30.0));
    let xs = inputs(DType::F32, &[near_rows(40, 9, 416)?]);
    let worst = versus(
        device,
        &xs,
        |x| Ok(infomax_cuda::row_log_sum_exp_blocked(&x[0], score, Exclude::Own, 16)?),
        |x| Ok(reference::row_log_sum_exp(&x[0], slow, cpu::Exclude::Own)?),
    );
    report.row("row_log_sum_exp of distances of near rows", worst, 1e-3);
    Ok(())
}

/// The grid of SIGReg: its step, targets and weights.
fn grid(knots: usize) -> (f64, Vec<f64>, Vec<f64>) {
    let step = 3.0 / (knots - 1) as f64;
    let targets: Vec<f64> = (0..knots).map(|q| (-0.5 * (q as f64 * step).powi(2)).exp()).collect();
    let weight = |q: usize| step * targets[q] * if q == 0 || q + 1 == knots { 1.0 } else { 2.0 };
    let weights = (0..knots).map(weight).collect();
    (step, targets, weights)
}

pub(crate) fn characteristic(device: &Device, report: &mut Report) -> Result<()> {
    for (n, m, knots, spread) in [(1, 1, 2, 1.0), (37, 33, 17, 1.0), (300, 70, 17, 1.4), (65, 5, 60, 3.0)] {
        let (step, targets, weights) = grid(knots);
        let xs = inputs(DType::F32, &[((draw(&[n, m], 420)? * spread)? + 0.3)?]);
        let worst = versus(
            device,
            &xs,
            |y| Ok(infomax_cuda::characteristic_error(&y[0], step, &targets, &weights)?),
            |y| Ok(reference::characteristic_error(&y[0], step, &targets, &weights)?),
        );
        report.row(&format!("characteristic_error {n}x{m} of {knots} points"), worst, 1e-4);
    }
    Ok(())
}

pub(crate) fn cross_entropy(device: &Device, report: &mut Report) -> Result<()> {
    for (n, k) in [(1, 2), (37, 10), (5, 3001)] {
        let x = ((draw(&[n, k], 430)? * 2.0)? + 50.0)?;
        let labels: Vec<u32> = (0..n).map(|i| ((i * 7 + 1) % k) as u32).collect();
        let xs = inputs(DType::F32, std::slice::from_ref(&x));
        for smoothing in [0.0, 0.1] {
            let worst = versus(
                device,
                &xs,
                |x| Ok(infomax_cuda::cross_entropy(&x[0], &labels, smoothing)?),
                |x| Ok(reference::cross_entropy(&x[0], &labels, smoothing)?),
            );
            report.row(&format!("cross_entropy {n}x{k} smoothing {smoothing}"), worst, 1e-4);
        }
        let targets = draw(&[n, k], 431)?.abs()?;
        let worst = versus(
            device,
            &inputs(DType::F32, &[x, targets]),
            |x| Ok(infomax_cuda::cross_entropy_soft(&x[0], &x[1])?),
            |x| Ok(reference::cross_entropy_soft(&x[0], &x[1])?),
        );
        report.row(&format!("cross_entropy_soft {n}x{k}"), worst, 1e-4);
    }
    Ok(())
}

/// Muon's coefficients.
const MUON: [f64; 3] = [3.4445, -4.7750, 2.0315];

pub(crate) fn newton_schulz(device: &Device, report: &mut Report) -> Result<()> {
    for (rows, columns) in [(3, 3), (40, 33), (17, 129)] {
        for (products, tolerance) in [(Products::F32, 1e-3), (Products::SplitTf32, 1e-3)] {
            let worst = guarded(|| {
                let g = draw(&[rows, columns], 440)?.to_dtype(DType::F32)?;
                let there = infomax_cuda::newton_schulz(&g.to_device(device)?, 5, MUON, products)?;
                let exact = infomax_kernels::update::newton_schulz(&g.to_dtype(DType::F64)?, 5, MUON)?;
                let mut worst = Worst::none();
                worst.take("value", error(&there, &exact)?);
                Ok(worst)
            });
            report.row(&format!("newton_schulz {rows}x{columns} {products:?}"), worst, tolerance);
        }
    }
    Ok(())
}

pub(crate) fn times(device: &Device, report: &mut Report) -> Result<()> {
    let (n, d) = (4096, 8192);
    for (products, _) in PRODUCTS {
        row(report, &format!("VICReg's terms, n {n}, d {d}, forward and backward, {products:?}"), || {
            let make = |_| Ok(Var::from_tensor(&random(device, &[n, d], DType::F32)?)?);
            let views = (0..2).map(make).collect::<Result<Vec<Var>>>()?;
            reset_peak_memory(device)?;
            let ms = median(device, || {
                let error = infomax_cuda::squared_error(&views[0], &views[1])?;
                let mut total = (error * (25.0 / (n * d) as f64))?;
                for view in &views {
                    let parts = infomax_cuda::variance_covariance(view, 1.0, 1e-4, n < d, products)?;
                    total = ((total + (parts.get(0)? * 12.5)?)? + parts.get(1)?)?;
                }
                Ok(infomax_kernels::backward(&total)?)
            })?;
            Ok(format!("{ms:.2} ms, peak {:.2} GB", memory_use(device)?.peak as f64 / 1e9))
        });
    }
    let (step, targets, weights) = grid(17);
    row(report, "characteristic functions, n 4096, 1024 slices, 17 points, forward and backward", || {
        let y = Var::from_tensor(&random(device, &[4096, 1024], DType::F32)?)?;
        let ms = median(device, || {
            let errors = infomax_cuda::characteristic_error(&y, step, &targets, &weights)?;
            Ok(infomax_kernels::backward(&errors.sum_all()?)?)
        })?;
        Ok(format!("{ms:.3} ms"))
    });
    row(report, "squared distances, n 4096, d 512, forward and backward", || {
        let x = Var::from_tensor(&random(device, &[4096, 512], DType::F32)?)?;
        let ms = median(device, || {
            let all = infomax_cuda::squared_distances(&x, Products::F32)?;
            Ok(infomax_kernels::backward(&all.sum_all()?)?)
        })?;
        Ok(format!("{ms:.2} ms"))
    });
    row(report, "cross-entropy, n 4096, 8192 classes, forward and backward", || {
        let x = Var::from_tensor(&random(device, &[4096, 8192], DType::F32)?)?;
        let labels: Vec<u32> = (0..4096).collect();
        let ms = median(device, || {
            Ok(infomax_kernels::backward(&infomax_cuda::cross_entropy(&x, &labels, 0.0)?)?)
        })?;
        Ok(format!("{ms:.3} ms"))
    });
    for (products, _) in PRODUCTS {
        row(report, &format!("Muon, 5 iterations on 2048x2048, {products:?}"), || {
            let g = random(device, &[2048, 2048], DType::F32)?;
            let ms = median(device, || Ok(infomax_cuda::newton_schulz(&g, 5, MUON, products)?))?;
            Ok(format!("{ms:.2} ms"))
        });
    }
    Ok(())
}
