//! What CUDA computes with: one choice for the process, as that of the instruction set.

use std::sync::atomic::{AtomicBool, Ordering};

static TF32: AtomicBool = AtomicBool::new(false);
static ANY_ORDER: AtomicBool = AtomicBool::new(false);

/// How products are taken on CUDA devices; elsewhere it has no effect.
///
/// The default is f32 products and algorithms whose sums have a fixed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaProducts {
    /// The factors of f32 convolutions and matrix products are rounded to 10 bits of mantissa (TF32); sums stay f32.
    pub tf32: bool,
    /// cuDNN's algorithms are only those whose sums have a fixed order: the same bits in every run on one card with
    /// one cuDNN. Without it the first in cuDNN's own order is taken, which may be faster and add in any order.
    pub deterministic: bool,
}

impl Default for CudaProducts {
    fn default() -> Self {
        Self { tf32: false, deterministic: true }
    }
}

impl CudaProducts {
    /// What the process computes with now.
    pub fn current() -> Self {
        Self { tf32: TF32.load(Ordering::Relaxed), deterministic: !ANY_ORDER.load(Ordering::Relaxed) }
    }

    /// Makes this the choice of the process, for all that is computed from now on.
    pub fn apply(self) {
        TF32.store(self.tf32, Ordering::Relaxed);
        ANY_ORDER.store(!self.deterministic, Ordering::Relaxed);
        #[cfg(feature = "cuda")]
        candle_core::cuda::set_gemm_reduced_precision_f32(self.tf32);
    }
}

/// The choice as cuDNN's convolutions take it.
#[cfg(feature = "cudnn")]
pub(crate) fn options() -> infomax_cuda::Options {
    use infomax_cuda::{Images, Math, Options, Search};
    let CudaProducts { tf32, deterministic } = CudaProducts::current();
    Options {
        math: if tf32 { Math::Tf32 } else { Math::F32 },
        search: if deterministic { Search::Deterministic } else { Search::Heuristic },
        images: Images::ChannelsFirst,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_holds_until_the_next_one() {
        assert_eq!(CudaProducts::current(), CudaProducts::default());
        let other = CudaProducts { tf32: true, deterministic: false };
        other.apply();
        assert_eq!(CudaProducts::current(), other);
        CudaProducts::default().apply();
        assert_eq!(CudaProducts::current(), CudaProducts::default());
    }
}
