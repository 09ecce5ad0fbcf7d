//! The two register tiles that every convolution of this layout runs through.
//!
//! Both keep `MR` rows times `NV` vectors of sums in registers. In [`sweep`] a vector holds images and the
//! sum runs over channels (and taps); in [`outer`] a vector holds channels and the sum runs over images (and
//! pixels). The order of each sum depends on the shape alone.

use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Kernel, Simd};

/// The instruction set for blocks of `lanes` images: a vector never holds more than one pixel.
pub(super) fn fit<T: Float>(isa: Isa, lanes: usize) -> Isa {
    if lanes.is_multiple_of(T::lanes(isa)) { isa } else { Isa::Avx2 }
}

/// Rows of a register tile: output channels of [`sweep`], input channels of [`outer`].
pub(super) const fn rows(wide: bool) -> usize {
    if wide { 12 } else { 6 }
}

/// Vectors of a register tile.
pub(super) const NV: usize = 2;

/// `(rows, channels in the vectors of an outer tile)` of an instruction set.
pub(super) fn geometry<T: Float>(isa: Isa) -> (usize, usize) {
    struct Geometry;
    impl<T: Float> Kernel<T> for Geometry {
        type Out = (usize, usize);
        #[inline(always)]
        unsafe fn run<S: Simd<T = T>>(self) -> (usize, usize) {
            (rows(S::WIDE), NV * S::LANES)
        }
    }
    T::dispatch(isa, Geometry)
}

/// One summand block of a tile: `len` channels of [`NV`] vectors of pixels, and the weights of this tap.
#[derive(Clone, Copy)]
pub(super) struct Seg<E> {
    /// The first channel of each vector; channels follow at the number of lanes of the layout.
    pub(super) xs: [*const E; NV],
    /// The offset of the weights within a panel.
    pub(super) weight: usize,
}

/// One register tile: its summands `segs[from..to]`, and where its first channel goes.
#[derive(Clone, Copy)]
pub(super) struct Cell<E> {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) outs: [*mut E; NV],
}

/// `out[k] (+)= sum over segments and channels of weight[k, channel] * x[channel]` for all `outputs` of all
/// cells.
pub(super) struct Sweep<'a, E: Stored, W = <E as Stored>::Real> {
    pub(super) segs: &'a [Seg<E>],
    pub(super) cells: &'a [Cell<E>],
    /// Channels of one segment.
    pub(super) channels: usize,
    /// Panels of `rows` outputs, `panel` elements each: `[tap][channel][row]`.
    pub(super) weights: *const W,
    pub(super) panel: usize,
    /// The outputs, from a multiple of the rows of a tile on.
    pub(super) first: usize,
    pub(super) outputs: usize,
    /// The lanes of the layout: the distance of channels in sources and results.
    pub(super) lanes: usize,
    /// Add to what is there.
    pub(super) add: bool,
}

/// Runs a [`Sweep`].
///
/// # Safety
/// Each segment must point at `channels * lanes` elements, with a whole vector at each channel; the weights
/// must hold the panels; the results of all outputs must be writable and belong to this call.
#[inline(always)]
pub(super) unsafe fn sweep<S: Simd, E: Stored<Real = S::T>>(s: &Sweep<'_, E>) {
    // SAFETY: passed on.
    unsafe { if S::WIDE { panels::<S, E, 12>(s) } else { panels::<S, E, 6>(s) } }
}

#[inline(always)]
unsafe fn panels<S: Simd, E: Stored<Real = S::T>, const MR: usize>(s: &Sweep<'_, E>) {
    let mut k = s.first;
    let end = s.first + s.outputs;
    while k < end {
        let rows = MR.min(end - k);
        // SAFETY: the panel of output `k`, as the caller promises.
        unsafe {
            let weights = s.weights.add(k / MR * s.panel);
            for cell in s.cells {
                let zero = S::splat(S::T::default());
                let (mut left, mut right) = ([zero; MR], [zero; MR]);
                for seg in &s.segs[cell.from..cell.to] {
                    let mut weight = weights.add(seg.weight);
                    let [mut x, mut y] = seg.xs;
                    for _ in 0..s.channels {
                        let (a, b) = (E::load::<S>(x), E::load::<S>(y));
                        for i in 0..MR {
                            let w = S::splat(*weight.add(i));
                            left[i] = S::fma(w, a, left[i]);
                            right[i] = S::fma(w, b, right[i]);
                        }
                        weight = weight.add(MR);
                        x = x.wrapping_add(s.lanes);
                        y = y.wrapping_add(s.lanes);
                    }
                }
                for i in 0..MR {
                    if i < rows {
                        for (j, acc) in [left[i], right[i]].into_iter().enumerate() {
                            let to = cell.outs[j].add((k + i) * s.lanes);
                            E::store::<S>(to, if s.add { S::add(E::load::<S>(to), acc) } else { acc });
                        }
                    }
                }
            }
        }
        k += MR;
    }
}

/// A pair of blocks that [`outer`] multiplies.
#[derive(Clone, Copy)]
pub(super) struct Pair<T> {
    /// Channels `[c][lane]`.
    pub(super) xs: *const T,
    /// Gradients `[lane][k]`, of which the tile reads its vectors.
    pub(super) grad: *const T,
}

/// `out[c, k] (+)= sum over pairs and lanes of x[c, lane] * grad[lane, k]` for some channels `c` and the
/// `NV` vectors of one panel of `k`.
pub(super) struct Outer<'a, T> {
    pub(super) pairs: &'a [Pair<T>],
    /// Channels from `first` on.
    pub(super) first: usize,
    pub(super) channels: usize,
    pub(super) lanes: usize,
    /// The result of channel 0, and the distance of channels.
    pub(super) out: *mut T,
    pub(super) pitch: usize,
    pub(super) add: bool,
}

/// Runs an [`Outer`].
///
/// # Safety
/// Each pair must point at all channels and at `lanes` rows of `NV` vectors; the result must be writable,
/// `NV` vectors for each channel, and belong to this call.
#[inline(always)]
pub(super) unsafe fn outer<S: Simd>(o: &Outer<'_, S::T>) {
    for (i, pairs) in o.pairs.chunks(PAIRS).enumerate() {
        let part = Outer { pairs, add: o.add || i > 0, ..*o };
        // SAFETY: passed on.
        unsafe { if S::WIDE { outer_rows::<S, 12>(&part) } else { outer_rows::<S, 6>(&part) } }
    }
}

/// Pairs whose gradients stay in the first-level cache while all channels pass: 16 KiB for 16 images.
pub(super) const PAIRS: usize = 16;

#[inline(always)]
unsafe fn outer_rows<S: Simd, const MR: usize>(o: &Outer<'_, S::T>) {
    let mut c = o.first;
    let end = o.first + o.channels;
    while c < end {
        let rows = MR.min(end - c);
        // SAFETY: channels below `end`; the last one again where there is none.
        unsafe {
            let zero = S::splat(S::T::default());
            let (mut left, mut right) = ([zero; MR], [zero; MR]);
            let mut offsets = [0; MR];
            for i in 0..MR {
                offsets[i] = (c + i).min(end - 1) * o.lanes;
            }
            for pair in o.pairs {
                let mut xs = [pair.xs; MR];
                for i in 0..MR {
                    xs[i] = pair.xs.add(offsets[i]);
                }
                let mut grad = pair.grad;
                for lane in 0..o.lanes {
                    let (a, b) = (S::load(grad), S::load(grad.add(S::LANES)));
                    for i in 0..MR {
                        let x = S::splat(*xs[i].add(lane));
                        left[i] = S::fma(x, a, left[i]);
                        right[i] = S::fma(x, b, right[i]);
                    }
                    grad = grad.add(NV * S::LANES);
                }
            }
            for i in 0..MR {
                if i < rows {
                    for (j, acc) in [left[i], right[i]].into_iter().enumerate() {
                        let to = o.out.add((c + i) * o.pitch + j * S::LANES);
                        S::store(to, if o.add { S::add(S::load(to), acc) } else { acc });
                    }
                }
            }
        }
        c += MR;
    }
}
