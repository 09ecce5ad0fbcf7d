//! Vectors of floats behind one trait, and the kernels that are compiled for each of them.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for each instruction set: everything from
//! [`Kernel::run`] down is `inline(always)`, so that the bodies land inside of the functions with
//! `target_feature` below. NEON, which every aarch64 has, needs none.

use crate::element::Stored;
use crate::isa::Isa;
#[allow(unused_imports)] // Which of the two, the target decides.
use crate::lanes::{Arith, Fused, Plain};
use half::bf16;

/// A vector of `LANES` floats.
///
/// # Safety
/// The methods may only be called where the instruction set is present; pointers must be valid for `LANES`
/// elements, aligned to one element.
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Simd: Copy + 'static {
    /// The element.
    type T: Float;
    /// The register.
    type V: Copy;
    /// Elements of a register.
    const LANES: usize;
    /// How scalar code beside these vectors computes `a * b + c`.
    type Arith: Arith;
    /// True if there are 32 registers: it decides the size of the register tiles.
    const WIDE: bool;
    /// The same value in all lanes.
    unsafe fn splat(x: Self::T) -> Self::V;
    /// Reads `LANES` elements.
    unsafe fn load(p: *const Self::T) -> Self::V;
    /// Writes `LANES` elements.
    unsafe fn store(p: *mut Self::T, v: Self::V);
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// Writes the square of `LANES` rows at `from` as columns at `to`; rows are `from_pitch` and `to_pitch`
    /// apart, and both squares must be valid.
    #[inline(always)]
    unsafe fn transpose(from: *const Self::T, from_pitch: usize, to: *mut Self::T, to_pitch: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: within the squares.
                unsafe { *to.add(j * to_pitch + i) = *from.add(i * from_pitch + j) };
            }
        }
    }
    /// `x` where `x > 0` or NaN, else 0.
    unsafe fn relu(x: Self::V) -> Self::V;
    /// `x` where `y > 0`, else 0.
    unsafe fn keep_positive(x: Self::V, y: Self::V) -> Self::V;
    /// The sum of the lanes, in a fixed order.
    unsafe fn sum(v: Self::V) -> Self::T;
    /// Widens; only vectors of f32 are used so, and others go one by one.
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self::V {
        let mut values = [Self::T::default(); 16];
        // SAFETY: LANES elements of both, 16 at most.
        unsafe {
            for (i, value) in values.iter_mut().enumerate().take(Self::LANES) {
                *value = Self::T::of(f64::from(*p.add(i)));
            }
            Self::load(values.as_ptr())
        }
    }
    /// Rounds to the nearest bf16, ties to even; NaN stays NaN.
    #[inline(always)]
    unsafe fn store_bf16(p: *mut bf16, v: Self::V) {
        let mut values = [Self::T::default(); 16];
        // SAFETY: the caller may write LANES elements through `p`; `values` holds 16, and LANES is 16 at most.
        unsafe {
            Self::store(values.as_mut_ptr(), v);
            for (i, value) in values.iter().enumerate().take(Self::LANES) {
                *p.add(i) = bf16::from_f64(value.f64());
            }
        }
    }
    /// What [`Simd::store_bf16`] and [`Simd::load_bf16`] make of a vector.
    #[inline(always)]
    unsafe fn round_bf16(v: Self::V) -> Self::V {
        let mut values = [bf16::ZERO; 16];
        // SAFETY: `values` holds 16 elements, LANES is 16 at most, and the store has written what the load reads.
        unsafe {
            Self::store_bf16(values.as_mut_ptr(), v);
            Self::load_bf16(values.as_ptr())
        }
    }
}

/// The work of one task, compiled for each instruction set.
pub trait Kernel<T> {
    /// What it returns.
    type Out;
    /// # Safety
    /// The instruction set of `S` must be present. The implementation must be `inline(always)`.
    unsafe fn run<S: Simd<T = T>>(self) -> Self::Out;
}

/// f32 or f64.
pub trait Float:
    Stored<Real = Self>
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + 'static
{
    /// The nearest value of this type.
    fn of(x: f64) -> Self;
    /// The value in f64.
    fn f64(self) -> f64;
    /// Runs a kernel with the vectors of `isa`, or of the best below it that this machine has.
    fn dispatch<K: Kernel<Self>>(isa: Isa, kernel: K) -> K::Out;
    /// The number of lanes of an instruction set.
    fn lanes(isa: Isa) -> usize;
    /// [`Simd::WIDE`] of an instruction set: what the rows of register tiles follow from.
    fn has_32_registers(isa: Isa) -> bool;
    /// The buffers of this thread, kept between calls.
    fn with_scratch<R>(f: impl FnOnce(&mut Scratch<Self>) -> R) -> R;
}

/// The buffers that a task fills and forgets; kept by each thread, so that their pages stay mapped.
#[derive(Debug, Default)]
pub struct Scratch<T> {
    /// The first buffer.
    pub stage: Vec<T>,
    /// The second buffer.
    pub panel: Vec<T>,
    /// The third buffer.
    pub tile: Vec<T>,
}

/// A slice of at least `len` elements with any contents.
pub fn grow<T: Float>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    buffer
}

/// Elements that [`lined`] may need beside those that are asked for.
pub const fn line_room<T>() -> usize {
    LINE / size_of::<T>()
}

/// Bytes of a line of the cache.
pub const LINE: usize = 64;

/// `len` elements of `buffer` from the next line of the cache on: rows of tiles and vectors that lie on two lines cost
/// twice as much. The buffer needs [`line_room`] more.
pub fn lined<T: Stored>(buffer: &mut [T], len: usize) -> &mut [T] {
    let skipped = buffer.as_ptr().align_offset(LINE);
    // Nothing says that there is an offset, as under Miri; then any place is right.
    let skipped = if skipped > line_room::<T>() { 0 } else { skipped };
    &mut buffer[skipped..skipped + len]
}

macro_rules! float {
    ($t:ty, $portable:ty, $neon:ident, $avx2:ident, $avx512:ident, $emulated:ty) => {
        impl Float for $t {
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }

            #[inline(always)]
            fn f64(self) -> f64 {
                self as f64
            }

            fn dispatch<K: Kernel<Self>>(isa: Isa, kernel: K) -> K::Out {
                #[cfg(any(test, feature = "emulated"))]
                if isa == Isa::EmulatedBf16 {
                    // SAFETY: plain arithmetic.
                    return unsafe { kernel.run::<$emulated>() };
                }
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx2,fma")]
                    unsafe fn avx2<K: Kernel<$t>>(kernel: K) -> K::Out {
                        // SAFETY: AVX2 and FMA are enabled here.
                        unsafe { kernel.run::<x86::$avx2>() }
                    }
                    #[target_feature(enable = "avx2,fma,avx512f")]
                    unsafe fn avx512<K: Kernel<$t>>(kernel: K) -> K::Out {
                        // SAFETY: AVX-512F is enabled here.
                        unsafe { kernel.run::<x86::$avx512>() }
                    }
                    let available = Isa::available();
                    let wide = matches!(isa, Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx);
                    #[cfg(any(test, feature = "emulated"))]
                    let wide = wide || isa == Isa::EmulatedAmx;
                    if wide && available.contains(&Isa::Avx512) {
                        // SAFETY: the features were just detected.
                        return unsafe { avx512(kernel) };
                    }
                    if isa != Isa::Portable && available.contains(&Isa::Avx2) {
                        // SAFETY: the features were just detected.
                        return unsafe { avx2(kernel) };
                    }
                }
                #[cfg(target_arch = "aarch64")]
                if isa != Isa::Portable {
                    // SAFETY: every aarch64 has NEON.
                    return unsafe { kernel.run::<crate::neon::$neon>() };
                }
                let _ = isa;
                // SAFETY: the portable form needs no feature.
                unsafe { kernel.run::<$portable>() }
            }

            fn lanes(isa: Isa) -> usize {
                struct Lanes;
                impl Kernel<$t> for Lanes {
                    type Out = usize;
                    #[inline(always)]
                    unsafe fn run<S: Simd<T = $t>>(self) -> usize {
                        S::LANES
                    }
                }
                Self::dispatch(isa, Lanes)
            }

            fn has_32_registers(isa: Isa) -> bool {
                struct Wide;
                impl Kernel<$t> for Wide {
                    type Out = bool;
                    #[inline(always)]
                    unsafe fn run<S: Simd<T = $t>>(self) -> bool {
                        S::WIDE
                    }
                }
                Self::dispatch(isa, Wide)
            }

            fn with_scratch<R>(f: impl FnOnce(&mut Scratch<Self>) -> R) -> R {
                thread_local! {
                    static SCRATCH: std::cell::RefCell<Scratch<$t>> = const {
                        std::cell::RefCell::new(Scratch { stage: Vec::new(), panel: Vec::new(), tile: Vec::new() })
                    };
                }
                SCRATCH.with(|cell| match cell.try_borrow_mut() {
                    Ok(mut scratch) => f(&mut scratch),
                    // A task that was stolen while another one of this thread waits.
                    Err(_) => f(&mut Scratch::default()),
                })
            }
        }
    };
}

float!(f32, Portable<f32, 4>, F32x4, F32x8, F32x16, crate::pairs::Emulated);
float!(f64, Portable<f64, 2>, F64x2, F64x4, F64x8, Portable<f64, 2>);

/// An array, for the compiler to vectorize.
#[derive(Clone, Copy, Debug)]
pub struct Portable<T, const N: usize>(std::marker::PhantomData<T>);

macro_rules! portable {
    ($t:ty, $n:literal) => {
        // SAFETY: plain arithmetic; pointers are used as the trait allows.
        unsafe impl Simd for Portable<$t, $n> {
            type T = $t;
            type V = [$t; $n];
            const LANES: usize = $n;
            // Every aarch64 has the instruction; elsewhere `mul_add` would be a call for each element.
            #[cfg(target_arch = "aarch64")]
            type Arith = Fused;
            #[cfg(not(target_arch = "aarch64"))]
            type Arith = Plain;
            const WIDE: bool = cfg!(target_arch = "aarch64");
            #[inline(always)]
            unsafe fn splat(x: $t) -> Self::V {
                [x; $n]
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> Self::V {
                // SAFETY: the caller's pointer is valid for LANES elements.
                unsafe { p.cast::<Self::V>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store(p: *mut $t, v: Self::V) {
                // SAFETY: the caller's pointer is valid for LANES elements.
                unsafe { p.cast::<Self::V>().write_unaligned(v) }
            }
            #[inline(always)]
            unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // `mul_add` is a library call where there is no instruction.
                if cfg!(target_arch = "aarch64") {
                    std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
                } else {
                    std::array::from_fn(|i| a[i] * b[i] + c[i])
                }
            }
            #[inline(always)]
            unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| a[i] + b[i])
            }
            #[inline(always)]
            unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| a[i] - b[i])
            }
            #[inline(always)]
            unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
                std::array::from_fn(|i| a[i] * b[i])
            }
            #[inline(always)]
            unsafe fn relu(x: Self::V) -> Self::V {
                std::array::from_fn(|i| if x[i] <= 0.0 { 0.0 } else { x[i] })
            }
            #[inline(always)]
            unsafe fn keep_positive(x: Self::V, y: Self::V) -> Self::V {
                std::array::from_fn(|i| if y[i] > 0.0 { x[i] } else { 0.0 })
            }
            #[inline(always)]
            unsafe fn sum(v: Self::V) -> $t {
                let mut sum = v[0];
                for x in &v[1..] {
                    sum += x;
                }
                sum
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const bf16) -> Self::V {
                // SAFETY: the caller's pointer is valid for LANES elements.
                std::array::from_fn(|i| unsafe { (*p.add(i)).wide() } as $t)
            }
            #[inline(always)]
            unsafe fn store_bf16(p: *mut bf16, v: Self::V) {
                for (i, x) in v.into_iter().enumerate() {
                    // SAFETY: the caller may write LANES elements through `p`, and `i` is below LANES.
                    unsafe { *p.add(i) = bf16::narrow(x as f32) };
                }
            }
            #[inline(always)]
            unsafe fn round_bf16(v: Self::V) -> Self::V {
                std::array::from_fn(|i| bf16::narrow(v[i] as f32).wide() as $t)
            }
        }
    };
}

portable!(f32, 4);
portable!(f64, 2);

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    //! The vectors of x86-64.

    use super::{Fused, Simd, bf16};
    use crate::x86::avx512::*;
    use crate::x86::bf16::*;
    use std::arch::x86_64::*;

    macro_rules! vector {
        ($name:ident, $t:ty, $v:ty, $lanes:literal, $wide:literal, $splat:ident, $load:ident, $store:ident,
         $fma:ident, $add:ident, $sub:ident, $mul:ident, |$rx:ident| $relu:expr, |$kx:ident, $ky:ident| $keep:expr,
         |$sx:ident| $sum:expr $(, $transpose:ident)? $(; $load_bf16:ident, $store_bf16:ident, $round_bf16:ident)?) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name;

            // SAFETY: the intrinsics need the feature that callers of the trait must have; pointers are used
            // unaligned, for LANES elements.
            unsafe impl Simd for $name {
                type T = $t;
                type V = $v;
                const LANES: usize = $lanes;
                type Arith = Fused;
                const WIDE: bool = $wide;
                #[inline(always)]
                unsafe fn splat(x: $t) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(p: *const $t) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(p: *mut $t, v: $v) {
                    // SAFETY: as for the whole implementation.
                    unsafe { $store(p, v) }
                }
                #[inline(always)]
                unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $fma(a, b, c) }
                }
                #[inline(always)]
                unsafe fn add(a: $v, b: $v) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn sub(a: $v, b: $v) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $sub(a, b) }
                }
                #[inline(always)]
                unsafe fn mul(a: $v, b: $v) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $mul(a, b) }
                }
                $(
                    #[inline(always)]
                    unsafe fn transpose(from: *const $t, from_pitch: usize, to: *mut $t, to_pitch: usize) {
                        // SAFETY: as for the whole implementation; the squares are the caller's.
                        unsafe { $transpose(from, from_pitch, to, to_pitch) }
                    }
                )?
                #[inline(always)]
                unsafe fn relu($rx: $v) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $relu }
                }
                #[inline(always)]
                unsafe fn keep_positive($kx: $v, $ky: $v) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $keep }
                }
                #[inline(always)]
                unsafe fn sum($sx: $v) -> $t {
                    // SAFETY: as for the whole implementation.
                    unsafe { $sum }
                }
                $(
                    #[inline(always)]
                    unsafe fn load_bf16(p: *const bf16) -> $v {
                        // SAFETY: as for the whole implementation.
                        unsafe { $load_bf16(p.cast()) }
                    }
                    #[inline(always)]
                    unsafe fn store_bf16(p: *mut bf16, v: $v) {
                        // SAFETY: as for the whole implementation.
                        unsafe { $store_bf16(p.cast(), v) }
                    }
                    #[inline(always)]
                    unsafe fn round_bf16(v: $v) -> $v {
                        // SAFETY: as for the whole implementation.
                        unsafe { $round_bf16(v) }
                    }
                )?
            }
        };
    }

    /// A square of 8 floats: pairs, quadruples, halves.
    ///
    /// # Safety
    /// AVX; rows of 8 floats at both places.
    #[inline(always)]
    unsafe fn transpose8(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        // SAFETY: as the function requires.
        unsafe {
            let mut r = [_mm256_setzero_ps(); 8];
            // The halves of rows i and i + 4 side by side: the last step of the usual network comes first,
            // as a load.
            for i in 0..4 {
                let (low, high) = (from.add(i * from_pitch), from.add((i + 4) * from_pitch));
                let half = |p: *const f32| _mm256_castps128_ps256(_mm_loadu_ps(p));
                r[i] = _mm256_insertf128_ps::<1>(half(low), _mm_loadu_ps(high));
                r[i + 4] = _mm256_insertf128_ps::<1>(half(low.add(4)), _mm_loadu_ps(high.add(4)));
            }
            for h in [0, 4] {
                let (a, b) = (_mm256_unpacklo_ps(r[h], r[h + 1]), _mm256_unpackhi_ps(r[h], r[h + 1]));
                let (c, d) = (_mm256_unpacklo_ps(r[h + 2], r[h + 3]), _mm256_unpackhi_ps(r[h + 2], r[h + 3]));
                let lines = [
                    _mm256_shuffle_ps::<0x44>(a, c),
                    _mm256_shuffle_ps::<0xee>(a, c),
                    _mm256_shuffle_ps::<0x44>(b, d),
                    _mm256_shuffle_ps::<0xee>(b, d),
                ];
                for (i, line) in lines.into_iter().enumerate() {
                    _mm256_storeu_ps(to.add((h + i) * to_pitch), line);
                }
            }
        }
    }

    /// A square of 16 floats: four of 8.
    ///
    /// # Safety
    /// AVX; rows of 16 floats at both places.
    #[inline(always)]
    unsafe fn transpose16(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            // SAFETY: squares within the caller's.
            unsafe {
                transpose8(from.add(i * from_pitch + j), from_pitch, to.add(j * to_pitch + i), to_pitch);
            }
        }
    }

    // `max(0, x)` returns its second operand when one is NaN, so NaN stays.
    vector!(
        F32x16,
        f32,
        __m512,
        16,
        true,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        |x| relu16(x),
        |x, y| _mm512_maskz_mov_ps(positive16(y), x),
        |x| _mm512_reduce_add_ps(x),
        transpose16;
        load_bf16x16, store_bf16x16, round_bf16x16
    );
    vector!(
        F64x8,
        f64,
        __m512d,
        8,
        true,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd,
        _mm512_sub_pd,
        _mm512_mul_pd,
        |x| relu8(x),
        |x, y| _mm512_maskz_mov_pd(positive8(y), x),
        |x| _mm512_reduce_add_pd(x)
    );
    vector!(
        F32x8,
        f32,
        __m256,
        8,
        false,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        |x| _mm256_max_ps(_mm256_setzero_ps(), x),
        |x, y| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(y, _mm256_setzero_ps()), x),
        |x| {
            let q = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let d = _mm_add_ps(q, _mm_movehl_ps(q, q));
            _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)))
        },
        transpose8;
        load_bf16x8, store_bf16x8, round_bf16x8
    );
    vector!(
        F64x4,
        f64,
        __m256d,
        4,
        false,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        |x| _mm256_max_pd(_mm256_setzero_pd(), x),
        |x, y| _mm256_and_pd(_mm256_cmp_pd::<_CMP_GT_OQ>(y, _mm256_setzero_pd()), x),
        |x| {
            let d = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
            _mm_cvtsd_f64(_mm_add_sd(d, _mm_unpackhi_pd(d, d)))
        }
    );
}

/// A pointer that tasks share; each task writes its own elements only.
#[derive(Debug)]
pub struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: the tasks that share it write disjoint elements, which each user states at its unsafe block.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: a shared reference gives only a copy of the pointer; what holds of `Send` holds of each use of it.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Shares a pointer.
    pub fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    /// The pointer.
    pub fn get(self) -> *mut T {
        self.0
    }
}

/// A vector of `len` elements that `fill` writes, all of them, through the pointer.
///
/// # Safety
/// `fill` must write every element.
pub unsafe fn filled<T>(len: usize, fill: impl FnOnce(Shared<T>)) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    fill(Shared::new(values.as_mut_ptr()));
    // SAFETY: the capacity is `len` and the caller promises that all of it is written.
    unsafe { values.set_len(len) };
    values
}
