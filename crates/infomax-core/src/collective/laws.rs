//! What an engine must hold to.

use super::Collective;
use crate::{Error, Key, Result};
use candle_core::{DType, Device, Tensor, Var};

/// Holds a collective against its laws, with small tensors on the CPU; all ranks call it together.
///
/// - Gathers give every rank's tensor in the order of ranks, whatever the numbers of rows, in f32, f64 and u32.
/// - A sum is the sum of what is gathered, with the same bits on every rank; also of a scalar and of a bucket.
/// - A broadcast gives the tensor of its root, whichever that is; words are joined by `or`.
/// - The gradient of a sum and of a gather is the adjoint under the sum over the ranks:
///   `sum_r <y_r, A(x)_r> = sum_r <x_r, A^T(y)_r>`.
/// - Where all ranks make the same number, the forms without a message have that gradient too.
///
/// Every rank sees the outcome of its own comparisons: an engine is right if all ranks return `Ok`.
///
/// # Errors
/// The errors of the collective; [`Error::Collective`] with the law that does not hold.
pub fn check_collective(ranks: &dyn Collective) -> Result<()> {
    let (rank, size) = (ranks.rank(), ranks.size());
    let hold = |right: bool, law: &str| match right {
        true => Ok(()),
        false => Err(Error::Collective { rank, problem: format!("the law `{law}` does not hold") }),
    };
    hold(rank < size, "0 <= rank < size")?;
    let handle = ranks.handle();
    hold((handle.rank(), handle.size()) == (rank, size), "a handle is the same rank")?;
    ranks.barrier()?;

    // Every rank knows what the others hold.
    for rows in [|_: usize| 3, |rank: usize| 1 + (rank * 2) % 3] {
        let of = |r: usize| drawn(r, rows(r));
        for dtype in [DType::F64, DType::F32, DType::U32] {
            let all = ranks.gather(&of(rank)?.to_dtype(dtype)?)?;
            let mut right = all.len() == size;
            for (r, part) in all.iter().enumerate() {
                right &= same(part, &of(r)?.to_dtype(dtype)?)?;
            }
            hold(right, "a gather holds every rank's tensor in the order of ranks")?;
        }
        let parts = (0..size).map(of).collect::<Result<Vec<_>>>()?;
        let joined = ranks.all_gather(&of(rank)?)?;
        hold(same(&joined, &Tensor::cat(&parts, 0)?)?, "all_gather puts the rows below each other")?;
    }
    for dtype in [DType::F64, DType::F32] {
        let own = drawn(rank, 3)?.to_dtype(dtype)?;
        let mut expected = own.zeros_like()?;
        for part in ranks.gather(&own)? {
            expected = (expected + part)?;
        }
        let sum = ranks.sum(&own)?;
        let tolerance = if dtype == DType::F64 { 1e-12 } else { 1e-4 };
        hold(near(&sum, &expected, tolerance)?, "a sum is the sum of what is gathered")?;
        for other in ranks.gather(&sum)? {
            hold(same(&other, &sum)?, "a sum has the same bits on every rank")?;
        }
        let mut bucket = [own.clone(), (&own * 2.0)?, own.get(0)?];
        ranks.sum_in_place(&mut bucket)?;
        let right = near(&bucket[0], &expected, tolerance)?
            && near(&bucket[1], &(&expected * 2.0)?, tolerance)?
            && near(&bucket[2], &expected.get(0)?, tolerance)?;
        hold(right, "a bucket holds the sums of its tensors")?;
    }
    let scalar = ranks.sum(&Tensor::new(rank as f64 + 1.0, &Device::Cpu)?)?;
    let right = scalar.rank() == 0 && scalar.to_scalar::<f64>()? == (size * (size + 1) / 2) as f64;
    hold(right, "the sum of scalars is a scalar")?;
    for root in 0..size {
        hold(
            same(&ranks.broadcast(&drawn(rank, 3)?, root)?, &drawn(root, 3)?)?,
            "a broadcast is its root's",
        )?;
    }
    hold(ranks.broadcast(&drawn(rank, 3)?, size).is_err(), "a root that is no rank is refused")?;
    let word = (0..size.min(64)).fold(0, |word, r| word | 1 << r);
    hold(ranks.agree(1 << rank.min(63))? == word, "words are joined by or")?;

    adjoint(ranks, "all_reduce_sum", 3, |x| ranks.all_reduce_sum(x))
        .and_then(|right| hold(right, "the gradient of all_reduce_sum is its adjoint"))?;
    adjoint(ranks, "all_gather", 1 + (rank * 2) % 3, |x| ranks.all_gather(x))
        .and_then(|right| hold(right, "the gradient of all_gather is its adjoint"))?;

    // The same number on every rank: the two forms have one gradient.
    let x = Var::from_tensor(&drawn(rank, 1 + rank % 2)?)?;
    let cubes = |x: &Tensor| -> Result<Tensor> { Ok((x.sqr()? * x)?.sum_all()?) };
    let columns = x.as_tensor().sum(0)?;
    for (one, other) in [
        (cubes(&ranks.all_gather(&x)?)?, cubes(&ranks.all_gather_same(&x)?)?),
        (cubes(&ranks.all_reduce_sum(&columns)?)?, cubes(&ranks.all_reduce_same(&columns)?)?),
    ] {
        let (value, again) = (one.to_scalar::<f64>()?, other.to_scalar::<f64>()?);
        let (one, other) = (one.backward()?, other.backward()?);
        let right = match (one.get(&x), other.get(&x)) {
            (Some(a), Some(b)) => value == again && near(a, b, 1e-12)?,
            _ => false,
        };
        hold(right, "the forms without a message have the gradient of the others")?;
    }
    ranks.barrier()
}

/// `sum_r <y_r, A(x)_r> = sum_r <x_r, A^T(y)_r>` for other `y` on each rank.
fn adjoint(
    ranks: &dyn Collective,
    name: &str,
    rows: usize,
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<bool> {
    let x = Var::from_tensor(&drawn(ranks.rank(), rows)?)?;
    let value = f(&x)?;
    let key = Key::new(11).fold_named(name).fold_in(ranks.rank() as u64);
    let y = key.uniform(-1.0, 1.0, value.dims(), DType::F64, &Device::Cpu)?;
    let product = (value * &y)?.sum_all()?;
    let grads = product.backward()?;
    let Some(back) = grads.get(&x) else { return Ok(false) };
    let other = (x.as_tensor() * back)?.sum_all()?;
    let both = ranks.sum(&Tensor::stack(&[product.detach(), other.detach()], 0)?)?.to_vec1::<f64>()?;
    Ok((both[0] - both[1]).abs() <= 1e-10 * (1.0 + both[0].abs()))
}

/// What a rank holds: `(rows, 2)` in `[1, 100)`, so that it has bits to lose and stays apart from 0 as a whole number.
fn drawn(rank: usize, rows: usize) -> Result<Tensor> {
    Key::new(7).fold_in(rank as u64).uniform(1.0, 100.0, (rows, 2), DType::F64, &Device::Cpu)
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn same(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(a.dims() == b.dims() && a.dtype() == b.dtype() && values(a)? == values(b)?)
}

fn near(a: &Tensor, b: &Tensor, tolerance: f64) -> Result<bool> {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * (1.0 + b.abs());
    Ok(a.dims() == b.dims() && a.dtype() == b.dtype() && values(a)?.iter().zip(values(b)?.iter()).all(close))
}
