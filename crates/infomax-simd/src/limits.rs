//! What this machine could do at most.

use crate::isa::Isa;
use crate::vectors::{Float, Kernel, Simd};
use rayon::prelude::*;
use std::time::Instant;

/// The limits that no kernel can pass, measured with all threads of the current pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MachineLimits {
    /// Floating-point operations of f32 in a second, in 10^9: fused multiply-adds on registers alone.
    pub gflops: f64,
    /// Bytes of memory in a second, in 10^9, read and written: `a = b + c` over tensors beyond every cache.
    pub gigabytes: f64,
}

impl MachineLimits {
    /// Measures for about a second; takes 400 MiB meanwhile. The best of several runs.
    pub fn measure() -> Self {
        let threads = rayon::current_num_threads();
        let mut limits = Self { gflops: 0.0, gigabytes: 0.0 };
        for _ in 0..5 {
            let start = Instant::now();
            let work: f64 =
                (0..threads).into_par_iter().map(|_| f32::dispatch(Isa::detect(), Multiply)).sum();
            limits.gflops = limits.gflops.max(work / start.elapsed().as_secs_f64() * 1e-9);
        }
        const LEN: usize = 32 << 20;
        let (b, c) = (vec![1f32; LEN], vec![2f32; LEN]);
        let mut a = vec![0f32; LEN];
        for _ in 0..5 {
            let start = Instant::now();
            a.par_chunks_mut(1 << 16).zip(b.par_chunks(1 << 16)).zip(c.par_chunks(1 << 16)).for_each(
                |((a, b), c)| {
                    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                        *a = *b + *c;
                    }
                },
            );
            let bytes = (3 * LEN * size_of::<f32>()) as f64;
            limits.gigabytes = limits.gigabytes.max(bytes / start.elapsed().as_secs_f64() * 1e-9);
        }
        limits
    }
}

/// Multiply-adds in twelve chains, more than the latency of any processor needs; returns their number.
struct Multiply;

impl Kernel<f32> for Multiply {
    type Out = f64;

    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) -> f64 {
        const CHAINS: usize = 12;
        const ROUNDS: usize = 4 << 20;
        // SAFETY: arithmetic on registers, and a store to a local array of 16.
        unsafe {
            let (mut sums, factor) = ([S::splat(1.0); CHAINS], S::splat(0.999));
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = S::fma(*sum, factor, factor);
                }
            }
            let mut last = [0f32; 16];
            for sum in sums {
                S::store(last.as_mut_ptr(), sum);
                std::hint::black_box(&last);
            }
        }
        (2 * CHAINS * ROUNDS * S::LANES) as f64
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn limits_are_positive() {
        let limits = super::MachineLimits::measure();
        assert!(limits.gflops > 0.1 && limits.gigabytes > 0.1, "{limits:?}");
    }
}
