//! What products are taken with, on the CPU and on CUDA: one choice for the process, as that of the instruction set.

use crate::{Error, Result};
use infomax_simd::Isa;
use infomax_simd::pairs::PairIsa;
use infomax_simd::tiles::{self, TileIsa};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static ARITHMETIC: AtomicU8 = AtomicU8::new(Arithmetic::Auto as u8);
static SINGLE: AtomicU8 = AtomicU8::new(Single::Exact as u8);

/// What multiplies factors in bf16 on the CPU: those of maps in bf16, and the parts of split f32. Sums are f32 with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// By shape, from what this machine has: tiles where they are expected to be faster, else pairs on processors where these
    /// are faster than f32 and Winograd's form does not suit, else f32.
    #[default]
    Auto,
    /// Multiply-adds in f32, with Winograd's form where it suits.
    F32,
    /// Dot products of pairs of bf16 (AVX512_BF16) for all convolutions of blocks of 16 images in bf16; the rest in f32.
    Pairs,
    /// Products of tiles of bf16 (AMX) for all convolutions of blocks of images in bf16 and all products that they know.
    Tiles,
}

/// What becomes of the factors of products of f32 on the CPU, where tiles (AMX) are there and a shape is expected to be
/// faster by them; elsewhere they stay f32, which is more exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Single {
    /// They stay f32 everywhere.
    #[default]
    Exact,
    /// The products are sums of three products of bf16: convolutions of blocks of images and linear layers
    /// ([`linear`](crate::linear)), forward and backward. The error is mostly below 1e-5 of the largest result and at most
    /// 2^-15 (3.1e-5) of the sum of the absolute products.
    Split,
    /// They are rounded to bf16, as PyTorch's autocast does it, and added up in f32: linear layers, and the halves of
    /// transformer layers and of ConvNeXt blocks ([`feed_forward`](crate::feed_forward),
    /// [`self_attention`](crate::self_attention), but for the products of queries, keys and values), forward and backward.
    /// Each factor is off by at most 2^-9 (2e-3) of itself. Convolutions stay f32.
    Rounded,
}

/// How products of bf16 and f32 are taken on the CPU.
///
/// The default chooses the arithmetic of bf16 by shape, and takes products of f32 in f32. With a fixed arithmetic and with
/// each choice, the bits of a result are a function of the machine alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuProducts {
    /// What multiplies bf16.
    pub arithmetic: Arithmetic,
    /// What becomes of factors in f32.
    pub single: Single,
}

impl CpuProducts {
    /// What the process computes with now.
    pub fn current() -> Self {
        let arithmetic = match ARITHMETIC.load(Ordering::Relaxed) {
            1 => Arithmetic::F32,
            2 => Arithmetic::Pairs,
            3 => Arithmetic::Tiles,
            _ => Arithmetic::Auto,
        };
        let single = match SINGLE.load(Ordering::Relaxed) {
            1 => Single::Split,
            2 => Single::Rounded,
            _ => Single::Exact,
        };
        Self { arithmetic, single }
    }

    /// Makes this the choice of the process, for all operations that start from now on; one keeps its choice for its backward
    /// pass.
    ///
    /// # Errors
    /// An arithmetic that this machine does not have; nothing changes then.
    pub fn apply(self) -> Result<()> {
        let missing = match self.arithmetic {
            Arithmetic::Pairs if PairIsa::of(Isa::detect()).is_none() => Some((
                "pairs",
                "the processor, or the instruction set that is allowed, has no AVX512_BF16".to_owned(),
            )),
            Arithmetic::Tiles if TileIsa::of(Isa::detect()).is_none() => Some(("tiles", no_tiles())),
            _ => None,
        };
        if let Some((arithmetic, reason)) = missing {
            return Err(Error::Arithmetic { arithmetic, reason });
        }
        ARITHMETIC.store(self.arithmetic as u8, Ordering::Relaxed);
        SINGLE.store(self.single as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Why products of f32 stay f32, or `None` where tiles take them.
    pub fn why_exact(self) -> Option<String> {
        match self.arithmetic {
            _ if self.single == Single::Exact => Some("it was not asked for".to_owned()),
            Arithmetic::F32 => Some("the arithmetic is fixed to f32".to_owned()),
            Arithmetic::Pairs => Some("the arithmetic is fixed to pairs".to_owned()),
            _ if TileIsa::of(Isa::detect()).is_none() => Some(no_tiles()),
            _ => None,
        }
    }

    /// What multiplies bf16 on this machine, and why, in words.
    pub fn in_words(self) -> String {
        let isa = Isa::detect();
        let (tiles, pairs) = (TileIsa::of(isa).is_some(), PairIsa::of(isa));
        match (self.arithmetic, tiles, pairs) {
            (Arithmetic::F32, ..) => "f32 registers, as was asked".to_owned(),
            (Arithmetic::Pairs, ..) => "pairs (AVX512_BF16) in blocks of 16 images, as was asked".to_owned(),
            (Arithmetic::Tiles, ..) => "tiles (AMX), as was asked".to_owned(),
            (Arithmetic::Auto, true, _) => {
                "tiles (AMX) where a shape is expected to be faster by them, else f32 registers".to_owned()
            }
            (Arithmetic::Auto, false, Some(pairs)) if pairs.pay() => format!(
                "pairs (AVX512_BF16) in blocks of 16 images, and f32 registers for 3x3 convolutions of stride 1, which \
                 Winograd's form suits; {}",
                no_tiles()
            ),
            (Arithmetic::Auto, false, Some(_)) => {
                format!("f32 registers: on this maker's processors pairs of bf16 are slower; {}", no_tiles())
            }
            (Arithmetic::Auto, false, None) => {
                "f32 registers: there are no instructions for bf16 here, or they are switched off".to_owned()
            }
        }
    }
}

/// Why there are no tiles.
fn no_tiles() -> String {
    tiles::unit()
        .err()
        .map_or_else(|| "the tiles of AMX are switched off".to_owned(), |absent| absent.to_string())
}

/// Why this process multiplies nothing by the tiles of AMX, in words; `None` where it can.
pub fn no_amx() -> Option<String> {
    TileIsa::of(Isa::detect()).is_none().then(no_tiles)
}

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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_lacks_is_refused_and_changes_nothing() {
        for (arithmetic, there) in [
            (Arithmetic::Pairs, PairIsa::of(Isa::detect()).is_some()),
            (Arithmetic::Tiles, TileIsa::of(Isa::detect()).is_some()),
        ] {
            let choice = CpuProducts { arithmetic, ..Default::default() };
            if there {
                assert!(choice.in_words().contains("as was asked"));
                continue;
            }
            let message = choice.apply().unwrap_err().to_string();
            assert!(
                message.contains(if arithmetic == Arithmetic::Tiles { "tiles" } else { "pairs" }),
                "{message}"
            );
            assert_eq!(CpuProducts::current(), CpuProducts::default());
        }
        let split = CpuProducts { single: Single::Split, ..Default::default() };
        assert_eq!(split.why_exact().is_none(), TileIsa::of(Isa::detect()).is_some());
        assert!(CpuProducts { arithmetic: Arithmetic::F32, ..split }.why_exact().unwrap().contains("f32"));
    }

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
