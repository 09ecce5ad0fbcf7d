//! Tensors of images, views and features.

use crate::ctx::Ctx;
use crate::encoders::images;
use crate::stats::mean;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_augment::{Augmenter, EvalTransform, Scratch};
use infomax_core::Key;
use infomax_data::{Dataset, Subset, eval_tensors};
use infomax_kernels::linalg;
use std::sync::Arc;

/// Images as tensors, with their classes.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) xs: Tensor,
    pub(crate) labels: Vec<u32>,
}

/// The training and the held-out images of the session with their labels, at most so many, as evaluation sees them.
pub(crate) fn labeled(ctx: &mut Ctx<'_>, train: usize, test: usize) -> Result<(Batch, Batch)> {
    let (config, images) = images(ctx)?;
    if let Some(reason) = images.no_probe() {
        return Err(Error::Config(reason));
    }
    let transform = EvalTransform::for_recipe(&config.augment.resolve()?)?;
    let held_out = images.test.clone().ok_or_else(|| Error::Config("there are no held-out images".into()))?;
    Ok((batch(&images.labeled, &transform, train)?, batch(&held_out, &transform, test)?))
}

/// The first images of each class, spread over the data set, that have a label.
fn batch(data: &Arc<dyn Dataset>, transform: &EvalTransform, most: usize) -> Result<Batch> {
    let known: Vec<usize> = (0..data.len()).filter(|i| data.label(*i).is_some()).collect();
    let chosen = spread(&known, most);
    let (xs, labels) = eval_tensors(Arc::new(Subset::new(data.clone(), chosen)?), transform)?;
    Ok(Batch { xs, labels: labels.into_iter().flatten().collect() })
}

/// At most so many, drawn with a fixed seed, in order.
fn spread(all: &[usize], most: usize) -> Vec<usize> {
    let count = most.min(all.len());
    infomax_eval::choose(Key::new(0).fold_named("images"), all.len(), count)
        .into_iter()
        .map(|i| all[i])
        .collect()
}

/// Training images without labels, at most so many: raw values in 0..1 (`raw`), or normalized as evaluation does.
pub(crate) fn plain(ctx: &mut Ctx<'_>, most: usize, raw: bool) -> Result<Tensor> {
    let (config, images) = images(ctx)?;
    let recipe = config.augment.resolve()?;
    let mut transform = EvalTransform::for_recipe(&recipe)?;
    if raw {
        let channels = recipe.mean.len();
        // As large as the images are, up to 64 pixels: distances of raw images.
        let side = images.train.image(0)?;
        let side = side.width().min(side.height()).min(64);
        transform = EvalTransform::new(side, &vec![0.0; channels], &vec![1.0; channels])?;
    }
    let all: Vec<usize> = (0..images.train.len()).collect();
    let data: Arc<dyn Dataset> = Arc::new(Subset::new(images.train.clone(), spread(&all, most))?);
    Ok(eval_tensors(data, &transform)?.0)
}

/// Two views of each of so many training images, with their labels where all of them are known.
pub(crate) fn views(ctx: &mut Ctx<'_>, most: usize) -> Result<(Tensor, Tensor, Option<Vec<u32>>)> {
    let (config, images) = images(ctx)?;
    let augmenter = Augmenter::new(&config.augment.resolve()?)?;
    let shape = augmenter.output(0);
    if augmenter.views() < 2 || augmenter.output(1) != shape {
        return Err(Error::Config("pairs of views need a recipe whose first two views have one size".into()));
    }
    let all: Vec<usize> = (0..images.train.len()).collect();
    let key = Key::new(0).fold_named("pairs");
    let mut scratch = Scratch::default();
    let chosen = spread(&all, most);
    let length = shape.0 * shape.1 * shape.2;
    let mut values = [Vec::new(), Vec::new()];
    let mut labels = Vec::new();
    for index in &chosen {
        let image = images.train.image(*index)?;
        let image = if image.channels() == shape.0 { image } else { image.to_channels(shape.0)? };
        for (v, values) in values.iter_mut().enumerate() {
            let mut out = vec![0f32; length];
            let mut rng = key.fold_in(*index as u64).fold_in(v as u64).rng();
            augmenter.apply(v, &image, &mut rng, &mut scratch, &mut out)?;
            values.append(&mut out);
        }
        labels.extend(images.train.label(*index));
    }
    let [a, b] = values.map(|v| Tensor::from_vec(v, (chosen.len(), shape.0, shape.1, shape.2), &Device::Cpu));
    Ok((a?, b?, (labels.len() == chosen.len()).then_some(labels)))
}

/// A function of batches over many rows.
pub(crate) fn in_batches(xs: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    const ROWS: usize = 250;
    let n = xs.dim(0)?;
    let parts: Vec<Tensor> = (0..n)
        .step_by(ROWS)
        .map(|at| Ok(f(&xs.narrow(0, at, ROWS.min(n - at))?)?.detach().to_dtype(DType::F64)?))
        .collect::<Result<_>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Rows of a matrix in f64.
pub(crate) fn rows(z: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(z.to_dtype(DType::F64)?.to_vec2::<f64>()?)
}

/// The coordinates on the leading principal directions of `z`, of `z` and of other matrices, each divided by the
/// deviation of the first direction of `z`, so that scale does not matter.
pub(crate) fn principal(z: &Tensor, others: &[&Tensor], most: usize) -> Result<Vec<Tensor>> {
    let center = z.mean_keepdim(0)?;
    let centered = z.broadcast_sub(&center)?;
    let n = centered.dim(0)? as f64;
    let (values, vectors) = linalg::eigh(&(centered.t()?.contiguous()?.matmul(&centered)? / (n - 1.0))?)?;
    let values = values.to_vec1::<f64>()?;
    let d = values.len();
    let largest = values.last().copied().unwrap_or(0.0);
    // Directions without variance have no entropy.
    let rank = values.iter().filter(|v| **v > 1e-8 * largest).count().max(1);
    let k = most.min(rank);
    let leading = vectors.narrow(1, d - k, k)?.contiguous()?;
    let scale = if largest > 0.0 { 1.0 / largest.sqrt() } else { 1.0 };
    std::iter::once(&z)
        .chain(others)
        .map(|m| Ok((m.broadcast_sub(&center)?.matmul(&leading)? * scale)?))
        .collect()
}

/// The loss of the least-squares classifier of smallest norm, without an intercept, of one-hot labels: the mean of
/// `|W f(x) - y|` on test rows, and its accuracy there.
pub(crate) fn least_squares(
    train: (&Tensor, &[u32]),
    test: (&Tensor, &[u32]),
    classes: usize,
) -> Result<(f64, f64)> {
    let one_hot = |labels: &[u32]| {
        let mut y = vec![0f64; labels.len() * classes];
        labels.iter().enumerate().for_each(|(i, l)| y[i * classes + *l as usize] = 1.0);
        Tensor::from_vec(y, (labels.len(), classes), &Device::Cpu)
    };
    let (u, s, v) = linalg::svd(train.0)?;
    let values = s.to_vec1::<f64>()?;
    let limit = 1e-8 * values.first().copied().unwrap_or(0.0);
    let inverse: Vec<f64> = values.iter().map(|v| if *v > limit { 1.0 / v } else { 0.0 }).collect();
    let inverse = Tensor::from_vec(inverse, (values.len(), 1), &Device::Cpu)?;
    let projected = u.t()?.contiguous()?.matmul(&one_hot(train.1)?)?;
    let weights = v.matmul(&projected.broadcast_mul(&inverse)?)?;
    let predicted = rows(&test.0.matmul(&weights)?)?;
    let mut losses = Vec::with_capacity(predicted.len());
    let mut hits = 0usize;
    for (p, label) in predicted.iter().zip(test.1) {
        let square: f64 =
            p.iter().enumerate().map(|(c, v)| (v - f64::from(c == *label as usize)).powi(2)).sum();
        losses.push(square.sqrt());
        let best = p.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(c, _)| c);
        hits += usize::from(best == Some(*label as usize));
    }
    Ok((mean(&losses), hits as f64 / predicted.len().max(1) as f64))
}

/// The number of classes of some labels.
pub(crate) fn classes(all: &[&[u32]]) -> usize {
    all.iter().flat_map(|labels| labels.iter()).max().map_or(0, |l| *l as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_fits_what_is_linear() {
        let x = Key::new(0).normal(0.0, 1.0, (60, 5), DType::F64, &Device::Cpu).unwrap();
        let labels: Vec<u32> = rows(&x).unwrap().iter().map(|r| u32::from(r[0] > 0.0)).collect();
        let (loss, accuracy) = least_squares((&x, &labels), (&x, &labels), 2).unwrap();
        assert!(accuracy > 0.7 && loss > 0.3 && loss < 1.1, "{loss} {accuracy}");
        let own = Tensor::new(&[[1f64, 0.0], [0.0, 1.0], [1.0, 0.0]], &Device::Cpu).unwrap();
        let (loss, accuracy) = least_squares((&own, &[0, 1, 0]), (&own, &[0, 1, 0]), 2).unwrap();
        assert!(loss < 1e-12 && accuracy == 1.0);
    }

    #[test]
    fn principal_coordinates_have_unit_first_variance() {
        let x = Key::new(1).normal(3.0, 5.0, (200, 4), DType::F64, &Device::Cpu).unwrap();
        let p = principal(&x, &[&x], 2).unwrap();
        assert_eq!(p[0].dims(), [200, 2]);
        let last: Vec<f64> = rows(&p[1]).unwrap().iter().map(|r| r[1]).collect();
        assert!((crate::stats::deviation(&last) - 1.0).abs() < 1e-9);
    }
}
