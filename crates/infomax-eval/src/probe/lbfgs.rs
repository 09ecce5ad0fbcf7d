//! L-BFGS for smooth convex functions.

use crate::Result;
use std::collections::VecDeque;

/// Minimizes a convex function from `x`; `f` gives its value and gradient. Returns the steps taken.
///
/// Two-loop recursion with 10 pairs (Nocedal and Wright 2006, algorithm 7.4) and a backtracking line search
/// (Armijo, 1e-4). Stops when no element of the gradient exceeds `tolerance`, after `max_steps`, or when the
/// line search finds no decrease: then rounding hides it.
pub(crate) fn minimize(
    x: &mut Vec<f64>,
    max_steps: usize,
    tolerance: f64,
    mut f: impl FnMut(&[f64]) -> Result<(f64, Vec<f64>)>,
) -> Result<usize> {
    let (mut value, mut grad) = f(x)?;
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::with_capacity(10);
    for step in 0..max_steps {
        if grad.iter().all(|g| g.abs() <= tolerance) {
            return Ok(step);
        }
        let mut direction = direction(&grad, &pairs);
        let mut slope = dot(&grad, &direction);
        if slope >= 0.0 {
            pairs.clear();
            direction = grad.iter().map(|g| -g).collect();
            slope = dot(&grad, &direction);
        }
        // Before there is curvature, a step of length 1 at most.
        let mut scale = if pairs.is_empty() { (1.0 / dot(&grad, &grad).sqrt()).min(1.0) } else { 1.0 };
        let mut accepted = None;
        for _ in 0..30 {
            let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + scale * d).collect();
            let (v, g) = f(&next)?;
            if v <= value + 1e-4 * scale * slope {
                accepted = Some((next, v, g));
                break;
            }
            scale *= 0.5;
        }
        let Some((next, next_value, next_grad)) = accepted else { return Ok(step) };
        let s: Vec<f64> = next.iter().zip(x.iter()).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next_grad.iter().zip(&grad).map(|(a, b)| a - b).collect();
        let sy = dot(&s, &y);
        if sy > 1e-12 * dot(&y, &y) {
            if pairs.len() == 10 {
                pairs.pop_front();
            }
            pairs.push_back((s, y, sy));
        }
        (*x, value, grad) = (next, next_value, next_grad);
    }
    Ok(max_steps)
}

fn direction(grad: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut q: Vec<f64> = grad.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (s, y, sy) in pairs.iter().rev() {
        let alpha = dot(s, &q) / sy;
        q.iter_mut().zip(y).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some((_, y, sy)) = pairs.back() {
        let scale = sy / dot(y, y);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((s, y, sy), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(y, &q) / sy;
        q.iter_mut().zip(s).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_minimum_of_a_badly_scaled_quadratic() {
        let scales = [1.0, 10.0, 1e3, 0.1];
        let mut x = vec![3.0, -2.0, 5.0, 40.0];
        minimize(&mut x, 200, 1e-10, |x| {
            let value = x.iter().zip(scales).map(|(x, s)| 0.5 * s * (x - 1.0) * (x - 1.0)).sum();
            Ok((value, x.iter().zip(scales).map(|(x, s)| s * (x - 1.0)).collect()))
        })
        .unwrap();
        assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-8), "{x:?}");
    }
}
