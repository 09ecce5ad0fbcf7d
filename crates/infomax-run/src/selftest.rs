//! Tasks of mutual information on images: how much two sets of pictures share is set exactly, and an encoder of ours,
//! at its random start, stands between the pictures and the estimator.

use crate::{Error, Result};
use infomax_core::{Encoder, Key, Params, Pass};
use infomax_data::{Dataset as _, Shapes, ShapesConfig};
use infomax_eval::candle_core::{DType, Device, Tensor};
use infomax_eval::selftest::Task;
use infomax_models::{EncoderConfig, Precision, ResNetConfig, Scope};
use std::sync::Arc;

/// Images of each of the two classes on each side: enough for 4,000 rows.
const POOL: usize = 2_300;
/// Images of each class that the readout is fitted to.
const FIT: usize = 600;
/// The classes of a bit of 0 and of 1: circle and cross.
const CLASSES: [usize; 2] = [0, 5];

/// Readouts of images, by side (x, y) and class.
type Pool = [[Vec<f64>; 2]; 2];

/// Pairs of `b` pictures a side (Lee and Rhee, arXiv:2410.10924, with the shapes of this program): picture `j` of `x`
/// shows a circle or a cross, by a fair bit, and picture `j` of `y` the same bit after a binary symmetric channel that
/// flips it with the probability `p`. Position, size, rotation and colors are drawn by themselves, so that the pictures
/// share `b (ln 2 - h(p))` nats: 0, 0.5, 1, 2, 5 and 10 bits.
///
/// Each picture, its colors forgotten (the distance of each pixel from the color of a corner), goes through a residual network with random weights, and its features through the least-squares readout
/// of the class on other pictures: `x` and `y` have a column a picture. A readout is a function of the picture, so that
/// no more than the stated information is in them; what the encoder does not tell is missing.
///
/// # Errors
/// Those of the data set and of the encoder.
pub fn image_tasks(seed: u64) -> Result<Vec<Task>> {
    let pool = Arc::new(pool(seed)?);
    let bits = |p: f64| if p > 0.0 { 1.0 + p * p.log2() + (1.0 - p) * (1.0 - p).log2() } else { 1.0 };
    let half = 0.110_027_864_438; // A channel of half a bit.
    let settings = [(1, 0.5), (1, half), (1, 0.0), (2, 0.0), (10, half), (10, 0.0)];
    let task = |(pictures, flip): (usize, f64)| {
        let total = pictures as f64 * bits(flip);
        let pool = pool.clone();
        let name = format!("images-{pictures}-a-side-{total:.1}-bits");
        Task::new(name, "images", total * std::f64::consts::LN_2, move |key, n| {
            draw(&pool, key, n, pictures, flip)
        })
    };
    Ok(settings.into_iter().map(task).collect())
}

fn draw(
    pool: &Pool,
    key: Key,
    n: usize,
    pictures: usize,
    flip: f64,
) -> infomax_eval::Result<(Tensor, Tensor)> {
    let uniform = |key: Key, count: usize| -> infomax_eval::Result<Vec<f64>> {
        Ok(key.uniform(0.0, 1.0, count, DType::F64, &Device::Cpu)?.to_vec1::<f64>()?)
    };
    let mut sides = [vec![0.0; n * pictures], vec![0.0; n * pictures]];
    for picture in 0..pictures {
        let key = key.fold_in(picture as u64);
        let (fair, noise) = (uniform(key.fold_in(0), n)?, uniform(key.fold_in(1), n)?);
        for (side, values) in sides.iter_mut().enumerate() {
            // No picture is there twice in a column: each class is gone through in an order of its own.
            let mut next = [0usize; 2];
            let mut orders = Vec::with_capacity(2);
            for class in 0..2u64 {
                let draws = uniform(key.fold_named("order").fold_in(2 * side as u64 + class), POOL)?;
                let mut order: Vec<usize> = (0..POOL).collect();
                order.sort_by(|&a, &b| draws[a].total_cmp(&draws[b]));
                orders.push(order);
            }
            for i in 0..n {
                let flipped = side == 1 && noise[i] < flip;
                let class = usize::from((fair[i] < 0.5) != flipped);
                let Some(&at) = orders[class].get(next[class]) else {
                    return Err(infomax_eval::Error::Config {
                        key: "n",
                        value: n.to_string(),
                        reason: "the tasks of images have at most 4000 rows",
                    });
                };
                next[class] += 1;
                values[i * pictures + picture] = pool[side][class][at];
            }
        }
    }
    let [x, y] = sides;
    let tensor = |v: Vec<f64>| Tensor::from_vec(v, (n, pictures), &Device::Cpu);
    Ok((tensor(x)?, tensor(y)?))
}

/// Draws all pictures, embeds them, and reads the class out.
fn pool(seed: u64) -> Result<Pool> {
    let per_class = FIT + 2 * POOL;
    // Plain shapes: what they show, and not whether it can be seen, is the question here.
    let plain = ShapesConfig {
        seed,
        len: 10 * per_class,
        texture: 0.0,
        clutter: (0, 0),
        noise: 0.02,
        cache_bytes: 0,
        ..ShapesConfig::default()
    };
    let shapes = Shapes::new(plain)?;
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(seed).fold_named("image-tasks"));
    let encoder = ResNetConfig { blocks: vec![1, 1, 1], width: 16, ..ResNetConfig::default() };
    let encoder = EncoderConfig::ResNet(encoder).build(Precision::F32, Scope::from(params.root()))?;
    let mut features = Vec::with_capacity(2);
    for class in CLASSES {
        features.push(embed(&shapes, encoder.as_ref(), class, per_class)?);
    }
    let fit: Vec<Tensor> =
        features.iter().map(|f| f.narrow(0, 0, FIT)).collect::<Result<_, _>>().map_err(failed)?;
    let direction = readout(&Tensor::cat(&fit, 0).map_err(failed)?).map_err(failed)?;
    let mut pool: Pool = Default::default();
    for (class, features) in features.iter().enumerate() {
        for (side, part) in pool.iter_mut().enumerate() {
            let rows = features.narrow(0, FIT + side * POOL, POOL).map_err(failed)?;
            let values = rows.matmul(&direction).and_then(|v| v.flatten_all()?.to_vec1::<f64>());
            part[class] = values.map_err(failed)?;
        }
    }
    Ok(pool)
}

fn failed(error: infomax_eval::candle_core::Error) -> Error {
    Error::from(infomax_eval::Error::from(error))
}

/// The features of the first images of a class, in f64.
fn embed(shapes: &Shapes, encoder: &dyn Encoder, class: usize, count: usize) -> Result<Tensor> {
    let size = shapes.config().size;
    let mut features = Vec::new();
    for start in (0..count).step_by(128) {
        let rows = 128.min(count - start);
        let mut values = Vec::with_capacity(rows * 3 * size * size);
        for i in start..start + rows {
            let image = shapes.image(10 * i + class)?;
            let plane = outline(image.data());
            values.extend((0..3).flat_map(|_| plane.iter().copied()));
        }
        let batch = Tensor::from_vec(values, (rows, 3, size, size), &Device::Cpu).map_err(failed)?;
        let z = encoder.forward(&batch, &Pass::eval())?.detach();
        features.push(z.to_dtype(DType::F64).map_err(failed)?);
    }
    Tensor::cat(&features, 0).map_err(failed)
}

/// How far the color of each pixel is from that of the first one, a corner, from -1 for not at all to 1 for the farthest:
/// what is left of a picture when its colors are forgotten.
fn outline(data: &[u8]) -> Vec<f32> {
    let corner = data.get(..3).unwrap_or_default();
    let far =
        |pixel: &[u8]| pixel.iter().zip(corner).map(|(a, b)| f32::from(a.abs_diff(*b))).fold(0.0, f32::max);
    let distances: Vec<f32> = data.chunks_exact(3).map(far).collect();
    let largest = distances.iter().copied().fold(1.0, f32::max);
    distances.iter().map(|v| 2.0 * v / largest - 1.0).collect()
}

/// The direction `w` of `min |(X - mean) w - y|^2 / n + l |w|^2` with `y` of -1 for the first half of the rows and 1 for
/// the second, and `l` a millionth of the mean square: by conjugate gradients, `(D, 1)`.
fn readout(x: &Tensor) -> infomax_eval::candle_core::Result<Tensor> {
    let (n, d) = x.dims2()?;
    let x = x.broadcast_sub(&x.mean_keepdim(0)?)?;
    let y: Vec<f64> = (0..n).map(|i| if 2 * i < n { -1.0 } else { 1.0 }).collect();
    let y = Tensor::from_vec(y, (n, 1), x.device())?;
    let gram = (x.t()?.contiguous()?.matmul(&x)? / n as f64)?;
    let ridge = 1e-6 * x.sqr()?.mean_all()?.to_scalar::<f64>()?;
    let gram = (gram + (Tensor::eye(d, DType::F64, x.device())? * ridge)?)?;
    let mut residual = (x.t()?.contiguous()?.matmul(&y)? / n as f64)?;
    let mut w = residual.zeros_like()?;
    let mut direction = residual.clone();
    let square = |t: &Tensor| t.sqr()?.sum_all()?.to_scalar::<f64>();
    let mut length = square(&residual)?;
    let first = length;
    for _ in 0..4 * d {
        if length <= 1e-24 * first {
            break;
        }
        let moved = gram.matmul(&direction)?;
        let step = length / (&direction * &moved)?.sum_all()?.to_scalar::<f64>()?;
        w = (w + (&direction * step)?)?;
        residual = (residual - (moved * step)?)?;
        let next = square(&residual)?;
        direction = (&residual + (direction * (next / length))?)?;
        length = next;
    }
    Ok(w)
}
