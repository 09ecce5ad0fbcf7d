//! Position embeddings for another grid of patches than the one that they were made for.

use crate::Result;
use candle_core::Tensor;

/// Interpolates position embeddings `(1, old^2, D)` of a square grid to `(1, rows columns, D)`.
///
/// Bicubic with anti-aliasing, as `torch.nn.functional.interpolate(mode="bicubic", antialias=True)` does it
/// and timm's `resample_abs_pos_embed` by default: Keys' cubic with `a = -0.5`, widened where the grid shrinks,
/// weights normalized at the border. It is one product with a constant matrix, so that positions learn from views
/// of every size. A grid of the same size is passed through with its bits.
pub(crate) fn resample(positions: &Tensor, old: usize, (rows, columns): (usize, usize)) -> Result<Tensor> {
    if (rows, columns) == (old, old) {
        return Ok(positions.clone());
    }
    let (down, across) = (weights(old, rows), weights(old, columns));
    // The Kronecker product of both directions.
    let mut matrix = Vec::with_capacity(rows * columns * old * old);
    for from_rows in &down {
        for from_columns in &across {
            for wy in from_rows {
                matrix.extend(from_columns.iter().map(|wx| wy * wx));
            }
        }
    }
    let device = positions.device();
    let matrix = Tensor::from_vec(matrix, (rows * columns, old * old), &candle_core::Device::Cpu)?;
    let matrix = matrix.to_dtype(positions.dtype())?.to_device(device)?;
    Ok(matrix.matmul(&positions.squeeze(0)?.contiguous()?)?.unsqueeze(0)?)
}

/// The weights of the `old` places in each of `new` ones; each row sums to 1.
fn weights(old: usize, new: usize) -> Vec<Vec<f64>> {
    let scale = old as f64 / new as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let row = |i: usize| {
        let center = scale * (i as f64 + 0.5);
        // PyTorch's cut of the window to whole places.
        let first = ((center - support + 0.5).max(0.0)) as usize;
        let end = ((center + support + 0.5) as usize).min(old);
        let mut row = vec![0.0; old];
        for (j, weight) in row.iter_mut().enumerate().take(end).skip(first) {
            *weight = cubic((j as f64 - center + 0.5) / stretch);
        }
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|weight| *weight /= sum);
        row
    };
    (0..new).map(row).collect()
}

/// Keys' cubic convolution kernel with `a = -0.5` (IEEE ASSP 29, 1981).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use serde_json::Value;

    /// `tests/golden/positions.json` is written by `tests/golden/make_positions.py`.
    #[test]
    fn positions_are_those_of_the_reference() {
        let golden: Value = serde_json::from_str(include_str!("../tests/golden/positions.json")).unwrap();
        let numbers =
            |v: &Value| v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        let old = golden["grid"].as_u64().unwrap() as usize;
        let dim = golden["dim"].as_u64().unwrap() as usize;
        let positions =
            Tensor::from_vec(numbers(&golden["positions"]), (1, old * old, dim), &Device::Cpu).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let size = |i: usize| case["size"][i].as_u64().unwrap() as usize;
            let got = resample(&positions, old, (size(0), size(1))).unwrap();
            assert_eq!(got.dims(), [1, size(0) * size(1), dim]);
            let got = got.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (got, expected) in got.iter().zip(numbers(&case["values"])) {
                assert!((got - expected).abs() < 1e-12, "{:?}: {got} instead of {expected}", case["size"]);
            }
        }
    }

    #[test]
    fn constants_stay_and_the_own_grid_keeps_its_bits() {
        let ones = Tensor::ones((1, 16, 3), DType::F64, &Device::Cpu).unwrap();
        for size in [(1, 1), (2, 7), (9, 3), (5, 5)] {
            let ys = resample(&ones, 4, size).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(ys.iter().all(|y| (y - 1.0).abs() < 1e-14), "{size:?}");
        }
        let xs = infomax_testing::spread(&[1, 16, 3], 1, 1.0).to_dtype(DType::F32).unwrap();
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bits(&resample(&xs, 4, (4, 4)).unwrap()), bits(&xs));
    }
}
