//! Products of tiles of bf16 with sums in f32: the instruction `tdpbf16ps` of AMX, with its exact emulation.
//!
//! A tile `C` of 16 rows and 16 columns of f32 gains `A B`, for `A` of 16 rows of up to 16 pairs of bf16 and `B` of as
//! many rows of 16 pairs: `C_mn += sum_k A_mk0 B_kn0 + A_mk1 B_kn1`. Intel's manual (Software Developer's Manual, volume
//! 2, `TDPBF16PS`, section "Operation") adds the lower and the upper halves of the pairs up apart, each from zero and in
//! the order of `k` by fused multiply-adds, then both sums, and their sum to `C`:
//!
//! ```text
//! even = odd = 0
//! for k: even = flush(fma(flush(A_mk0), flush(B_kn0), even)); odd = flush(fma(flush(A_mk1), flush(B_kn1), odd))
//! C_mn = flush(flush(C_mn) + flush(even + odd))
//! ```
//!
//! Every step rounds once, to the nearest f32 with ties to even, whatever the modes of the thread are. `flush` makes zeros,
//! with their sign, of subnormal numbers (below 2^-126), of operands and of results. Infinities and NaN are those of f32.
//!
//! [`TileIsa::begin`] configures the tiles of the present thread until its session is dropped: four sums in two rows and two
//! columns of tiles, and two tiles of each operand, so that four products share four loads. [`product`] is a whole matrix
//! product, and [`Factors`] says how f32 is rounded or split on the way in.

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
mod amx;
#[cfg(any(test, feature = "emulated"))]
mod emulated;
mod panels;
mod product;
#[cfg(test)]
mod tests;

pub use panels::Gathered;
pub(crate) use panels::Right;
pub use product::{Operand, product, product_pays};

use crate::isa::Isa;
use half::bf16;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// Rows of a tile of sums and of the left operand.
pub const ROWS: usize = 16;
/// Columns of a tile of sums at most.
pub const COLUMNS: usize = 16;
/// Pairs of bf16 in a row of the left operand at most.
pub const PAIRS: usize = 16;
/// Elements of a tile of sums.
pub const SUMS: usize = ROWS * COLUMNS;

/// Four tiles of sums, each of them 16 rows of 16 columns; rows of a tile lie on one line of the cache.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Sums(pub [[f32; SUMS]; 4]);

impl Default for Sums {
    fn default() -> Self {
        Self([[0.0; SUMS]; 4])
    }
}

/// Why there are no tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Absent {
    /// The processor has no AMX, or none for bf16.
    Processor,
    /// The operating system does not keep the tiles of a thread (bits 17 and 18 of XCR0), or is none that this crate asks.
    System,
    /// Linux refused the permission (`arch_prctl(ARCH_REQ_XCOMP_PERM)`), with this error number.
    Refused(i64),
    /// The processor has tiles of another size than 8 of 16 rows of 64 bytes.
    Size,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processor => f.write_str("the processor has no AMX for bf16"),
            Self::System => f.write_str("the operating system does not keep the tiles of AMX"),
            Self::Refused(number) => {
                write!(f, "the operating system refuses the tiles of AMX (arch_prctl: error {number})")
            }
            Self::Size => f.write_str("the tiles of this AMX have another size"),
        }
    }
}

/// Whether this process may use the tiles of AMX. The first call asks the processor and the operating system, which
/// permits them for all threads of the process; the answer stays.
///
/// # Errors
/// The reason why not.
pub fn unit() -> Result<(), Absent> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    {
        static FOUND: std::sync::OnceLock<Result<(), Absent>> = std::sync::OnceLock::new();
        *FOUND.get_or_init(amx::ask)
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
    Err(if cfg!(target_arch = "x86_64") { Absent::System } else { Absent::Processor })
}

/// Tiles, which are present.
#[derive(Clone, Copy, Debug)]
pub struct TileIsa(Which);

#[derive(Clone, Copy, Debug)]
enum Which {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    Amx,
    #[cfg(any(test, feature = "emulated"))]
    Emulated,
}

/// The sizes of the operands of a run of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pairs of bf16 in a row of `A`, and rows of `B`: 1 to 16.
    pub pairs: usize,
    /// Columns of `B` and of the sums: 1 to 16.
    pub columns: usize,
    /// Elements of bf16 between the rows of `A`, and between those of `B`.
    pub pitch: (usize, usize),
}

thread_local! {
    /// Whether the tiles of this thread are in use.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

impl TileIsa {
    /// Those of `isa`, if it has tiles on this machine.
    pub fn of(isa: Isa) -> Option<Self> {
        match isa {
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
            Isa::Amx if unit().is_ok() => Some(Self(Which::Amx)),
            #[cfg(any(test, feature = "emulated"))]
            Isa::EmulatedAmx => Some(Self(Which::Emulated)),
            _ => None,
        }
    }

    /// Configures the tiles of this thread, until the session is dropped, also where its owner unwinds. Its owner must not
    /// wait for other threads meanwhile: a thread that waits may be given work with tiles of its own.
    ///
    /// # Panics
    /// For sizes beyond a tile, and while this thread has a session.
    pub fn begin(self, shape: Shape) -> Session {
        assert!((1..=PAIRS).contains(&shape.pairs) && (1..=COLUMNS).contains(&shape.columns));
        Session::new(self.0, shape)
    }

    /// Runs `work` with the tiles of this thread, as [`TileIsa::begin`].
    ///
    /// # Panics
    /// As there.
    pub fn with<R>(self, shape: Shape, work: impl FnOnce(&mut Session) -> R) -> R {
        work(&mut self.begin(shape))
    }
}

/// The tiles of this thread, configured; released when dropped.
#[derive(Debug)]
pub struct Session {
    which: Which,
    shape: Shape,
    #[cfg(any(test, feature = "emulated"))]
    sums: Option<Box<[[f32; SUMS]; 4]>>,
    /// Not for other threads.
    here: PhantomData<*mut ()>,
}

#[allow(unused_variables)] // On machines without tiles there is no session.
impl Session {
    fn new(which: Which, shape: Shape) -> Self {
        assert!(!BUSY.replace(true), "tiles inside of tiles, on one thread");
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
        #[allow(irrefutable_let_patterns)] // Builds for tests know one more.
        if let Which::Amx = which {
            // SAFETY: AMX is present, as the value says; the sizes were checked.
            unsafe { amx::configure(shape) };
        }
        Self {
            which,
            shape,
            #[cfg(any(test, feature = "emulated"))]
            sums: matches!(which, Which::Emulated).then(|| Box::new([[0.0; SUMS]; 4])),
            here: PhantomData,
        }
    }

    /// Sets the four tiles of sums to zero.
    #[inline(always)]
    pub fn zero(&mut self) {
        match self.which {
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
            // SAFETY: the tiles of this thread are configured while `self` lives.
            Which::Amx => unsafe { amx::zero() },
            #[cfg(any(test, feature = "emulated"))]
            Which::Emulated => {
                if let Some(sums) = &mut self.sums {
                    **sums = [[0.0; SUMS]; 4];
                }
            }
        }
    }

    /// Adds the products of two left and two right tiles: tile `2 i + j` of the sums gains `A_i B_j`.
    ///
    /// # Safety
    /// `a` must be valid for 16 rows of `pairs` pairs, `b` for `pairs` rows of `columns` pairs, with the distances of
    /// [`Shape::pitch`].
    #[inline(always)]
    pub unsafe fn add(&mut self, a: [*const bf16; 2], b: [*const bf16; 2]) {
        match self.which {
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
            // SAFETY: the tiles are configured for the shape, and the pointers are valid for it.
            Which::Amx => unsafe { amx::add(a, b, self.shape.pitch) },
            #[cfg(any(test, feature = "emulated"))]
            Which::Emulated => {
                if let Some(sums) = &mut self.sums {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: by the caller.
                        unsafe { emulated::add(self.shape, a[i / 2], b[i % 2], sums) };
                    }
                }
            }
        }
    }

    /// Takes up four tiles of sums that were stored, to add to them.
    #[inline(always)]
    pub fn load(&mut self, from: &Sums) {
        match self.which {
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
            // SAFETY: the tiles are configured; the arrays have all rows.
            Which::Amx => unsafe { amx::load(&from.0) },
            #[cfg(any(test, feature = "emulated"))]
            Which::Emulated => {
                let columns = self.shape.columns;
                for (to, from) in self.sums.iter_mut().flat_map(|sums| sums.iter_mut()).zip(&from.0) {
                    for (to, from) in to.chunks_exact_mut(COLUMNS).zip(from.chunks_exact(COLUMNS)) {
                        to[..columns].copy_from_slice(&from[..columns]);
                    }
                }
            }
        }
    }

    /// Stores the sums: four tiles, rows of 16 columns, of which those beyond [`Shape::columns`] keep what they hold.
    #[inline(always)]
    pub fn store(&mut self, to: &mut Sums) {
        match self.which {
            #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
            // SAFETY: the tiles are configured; the arrays have room for all rows.
            Which::Amx => unsafe { amx::store(&mut to.0) },
            #[cfg(any(test, feature = "emulated"))]
            Which::Emulated => {
                let columns = self.shape.columns;
                for (to, from) in to.0.iter_mut().zip(self.sums.iter().flat_map(|sums| sums.iter())) {
                    for (to, from) in to.chunks_exact_mut(COLUMNS).zip(from.chunks_exact(COLUMNS)) {
                        to[..columns].copy_from_slice(&from[..columns]);
                    }
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
        #[allow(irrefutable_let_patterns)] // Builds for tests know one more.
        if let Which::Amx = self.which {
            // SAFETY: AMX is present, and the tiles of this thread are those of `self`.
            unsafe { amx::release() };
        }
        BUSY.set(false);
    }
}

/// What becomes of a factor in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// It is rounded to bf16, ties to even: one product for one.
    Rounded,
    /// It is the sum of two bf16, `x = high + low` with an error of at most 2^-17 of `x`, and `x y` is
    /// `high high' + high low' + low high'`: three products for one (`bf16x3`). What is left out (2^-16) and what both
    /// roundings lose is at most 2^-15 (3.1e-5) of the sum of the absolute products, if all were the worst and of one sign;
    /// of sums of many products it is mostly below 1e-5 of the largest. Infinities become NaN, and what is below 2^-118
    /// loses its lower part.
    Split,
}

impl Factors {
    /// The bf16 that a factor becomes.
    pub fn parts(self) -> usize {
        match self {
            Self::Rounded => 1,
            Self::Split => 2,
        }
    }

    /// The parts of the left and of the right factor that are multiplied, in this order.
    pub fn terms(self) -> &'static [(usize, usize)] {
        match self {
            Self::Rounded => &[(0, 0)],
            Self::Split => &[(0, 0), (0, 1), (1, 0)],
        }
    }

    /// Part `part` of `x`.
    #[inline(always)]
    pub fn part(x: f32, part: usize) -> bf16 {
        use crate::element::Stored as _;
        let high = bf16::narrow(x);
        if part == 0 { high } else { bf16::narrow(x - high.wide()) }
    }
}

/// `(pieces, pairs of each)` of an inner dimension of `len` elements: as few pieces as tiles allow, of equal depth.
pub fn pieces(len: usize) -> (usize, usize) {
    let count = len.div_ceil(2 * PAIRS).max(1);
    (count, len.div_ceil(2 * count).max(1))
}

/// Nanoseconds of one core for an amount of work, by arithmetic alone: what the choice between tiles and f32 goes by.
///
/// Fitted to the convolutions of `examples/arithmetic` of `infomax-kernels` on two cores of an Intel Xeon with 3.6
/// TFLOP/s of `tdpbf16ps` in registers each: tiles that are fed from the second cache reach 2,000 GFLOP/s of a core, an
/// element that is brought into their layout costs 0.6 ns with the result that is brought back, and convolutions in f32
/// reach 165 GFLOP/s. Only the ratios matter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Instructions: products of two tiles, at their full depth or not.
    pub tiles: f64,
    /// Elements of bf16 that are written for them.
    pub packed: f64,
}

impl Cost {
    /// GFLOP/s of one core: f32.
    pub const F32: f64 = 165.0;
    /// GFLOP/s of one core: tiles.
    pub const TILES: f64 = 2000.0;

    /// Nanoseconds of tiles.
    pub fn nanoseconds(self) -> f64 {
        let flop = (2 * SUMS * 2 * PAIRS) as f64;
        self.tiles * flop / Self::TILES + 0.6 * self.packed
    }

    /// Whether tiles take less time than f32: `flop` floating-point operations, of which Winograd's form saves a factor, and
    /// `moved` nanoseconds beside them.
    pub fn beats(self, flop: f64, saved: f64, moved: f64) -> bool {
        self.nanoseconds() < flop / (Self::F32 * saved) + moved
    }
}
