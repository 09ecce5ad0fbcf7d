//! What the tests of engines compare.
#![allow(unreachable_pub)] // A module of several tests.

use infomax_ranks::candle_core::{DType, Device, Tensor};
use infomax_ranks::infomax_core::{Collective, Key, replicas};

/// Numbers of very different size, so that another order of sums has other bits.
pub fn values(rank: usize, count: usize, dtype: DType) -> Tensor {
    let key = Key::new(7).fold_in(rank as u64);
    let x = key.normal(0.0, 1.0, count, DType::F64, &Device::Cpu).unwrap();
    let scale = (key.fold_in(1).normal(0.0, 3.0, count, DType::F64, &Device::Cpu).unwrap()).exp().unwrap();
    let x = (x * scale).unwrap();
    match dtype {
        DType::U32 => x.abs().unwrap().to_dtype(DType::U32).unwrap(),
        dtype => x.to_dtype(dtype).unwrap(),
    }
}

/// All bits of a tensor, with its shape and type.
pub fn bytes(x: &Tensor) -> Vec<u8> {
    let flat = x.flatten_all().unwrap();
    let mut out = format!("{:?} {:?} ", x.dims(), x.dtype()).into_bytes();
    // Every half number is an f32, to the bit.
    match x.dtype() {
        DType::F64 => {
            out.extend(flat.to_vec1::<f64>().unwrap().iter().flat_map(|x| x.to_bits().to_le_bytes()));
        }
        DType::U32 => out.extend(flat.to_vec1::<u32>().unwrap().iter().flat_map(|x| x.to_le_bytes())),
        _ => {
            let flat = flat.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            out.extend(flat.iter().flat_map(|x| x.to_bits().to_le_bytes()));
        }
    }
    out
}

/// Everything that a collective gives, as bytes.
pub fn all_of_it(ranks: &dyn Collective) -> Vec<Vec<u8>> {
    let rank = ranks.rank();
    let mut out = Vec::new();
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16, DType::U32] {
        for count in [0, 1, 5, 4096, 5000] {
            out.push(bytes(&ranks.sum(&values(rank, count, dtype)).unwrap()));
        }
    }
    let rows = values(rank, 3 * (rank + 1), DType::F32).reshape((rank + 1, 3)).unwrap();
    out.extend(ranks.gather(&rows).unwrap().iter().map(bytes));
    let many = values(rank, 3000 * rank, DType::F64);
    out.extend(ranks.gather(&many).unwrap().iter().map(bytes));
    let scalar = Tensor::new(rank as f64, &Device::Cpu).unwrap();
    out.extend(ranks.gather(&scalar).unwrap().iter().map(bytes));
    for root in 0..ranks.size() {
        out.push(bytes(&ranks.broadcast(&values(rank, 4000, DType::F32), root).unwrap()));
    }
    ranks.barrier().unwrap();
    out.push(ranks.agree(1 << rank).unwrap().to_le_bytes().to_vec());
    let narrow = values(rank, 40, DType::F32).reshape((5, 8)).unwrap().narrow(1, 2, 3).unwrap();
    let mut bucket =
        [values(rank, 2000, DType::F32), values(rank, 7, DType::F64), values(rank, 3000, DType::F32), narrow];
    ranks.sum_in_place(&mut bucket).unwrap();
    out.extend(bucket.iter().map(bytes));
    out
}

/// What [`all_of_it`] gives on ranks in threads.
pub fn of_replicas(size: usize) -> Vec<Vec<Vec<u8>>> {
    std::thread::scope(|scope| {
        let ranks = replicas(size).into_iter().map(|rank| scope.spawn(move || all_of_it(&rank)));
        ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}
