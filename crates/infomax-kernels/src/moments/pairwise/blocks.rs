//! The work on one block of the score matrix.

use super::{Exclude, Score};
use infomax_simd::Arith;
use infomax_simd::elementary::{Elementary, exp_shifted, sum};
use infomax_simd::gemm::{ACROSS, DOTS, Map, dots, outer, pack_columns, pack_rows, zeros};
use infomax_simd::{Kernel, Shared, Simd, grow};

/// Columns of the inner dimension that are packed at once.
const INNER: usize = 384;
/// The largest block.
pub(super) const LARGEST: usize = 144;
/// Two rows are close when their squared distance is below this part of the sum of their squares: there
/// `|x|^2 + |y|^2 - 2 x y` has lost more than six bits, and the differences themselves are taken.
pub(super) const CLOSE: f64 = 1.0 / 64.0;

/// The rows, mapped on the way, and what is asked of them.
pub(super) struct Rows<'a, T> {
    pub(super) x: &'a [T],
    pub(super) n: usize,
    pub(super) d: usize,
    pub(super) map: &'a Map<T>,
    pub(super) squares: &'a [T],
    pub(super) score: Score,
    pub(super) exclude: Exclude,
}

/// A block: rows `i` against rows `j`, with the buffers of its thread.
pub(super) struct Block<'a, T> {
    pub(super) rows: &'a Rows<'a, T>,
    pub(super) i: (usize, usize),
    pub(super) j: (usize, usize),
    pub(super) a: &'a mut Vec<T>,
    pub(super) b: &'a mut Vec<T>,
    pub(super) s: &'a mut Vec<T>,
    /// The pairs of the block that are close, as places in it; of a diagonal block both `(r, c)` and `(c, r)`.
    pub(super) close: Vec<(usize, usize)>,
}

impl<T: Elementary> Block<'_, T> {
    pub(super) fn diagonal(&self) -> bool {
        self.i == self.j
    }

    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.i.1 - self.i.0, self.j.1 - self.j.0)
    }

    /// [`Block::scores`] with the register tiles of the instruction set.
    ///
    /// # Safety
    /// The instruction set of `S` is present.
    #[inline(always)]
    pub(super) unsafe fn scored<S: Simd<T = T>>(&mut self) {
        // SAFETY: that of the caller.
        unsafe { if S::WIDE { self.scores::<S, 8>() } else { self.scores::<S, 4>() } }
    }

    /// Fills the first `LARGEST x LARGEST` elements of `s` with the scores, excluded ones minus infinity.
    #[inline(always)]
    unsafe fn scores<S: Simd<T = T>, const MR: usize>(&mut self) {
        let (rows, (ni, nj), same) = (self.rows, self.sizes(), self.diagonal());
        let s = grow(self.s, LARGEST * LARGEST);
        // An even split of the inner dimension, at whole vectors.
        let parts = rows.d.div_ceil(INNER);
        let step = rows.d.div_ceil(parts).next_multiple_of(S::LANES);
        for from in (0..rows.d).step_by(step) {
            let k = step.min(rows.d - from);
            let padded = k.next_multiple_of(S::LANES);
            let inner = (from, k);
            pack_rows(rows.x, rows.d, self.i, inner, padded, rows.map, grow(self.a, LARGEST * padded));
            if !same {
                pack_rows(rows.x, rows.d, self.j, inner, padded, rows.map, grow(self.b, LARGEST * padded));
            }
            let (a, b) = (self.a.as_ptr(), if same { self.a.as_ptr() } else { self.b.as_ptr() });
            for i in (0..ni).step_by(MR) {
                for j in (0..nj).step_by(DOTS) {
                    // SAFETY: row indices are clamped to the packed rows of `padded` elements.
                    let values = unsafe {
                        let (mut left, mut right) = ([a; MR], [b; DOTS]);
                        for r in 0..MR {
                            left[r] = a.add((i + r).min(ni - 1) * padded);
                        }
                        for c in 0..DOTS {
                            right[c] = b.add((j + c).min(nj - 1) * padded);
                        }
                        dots::<S, MR>(padded, left, right)
                    };
                    for r in 0..MR {
                        let row = &mut s[(i + r) * LARGEST + j..][..DOTS];
                        for c in 0..DOTS {
                            row[c] = if from == 0 { values[r][c] } else { row[c] + values[r][c] };
                        }
                    }
                }
            }
        }
        let minus_infinity = T::of(f64::NEG_INFINITY);
        for r in 0..ni {
            let (i, row) = (self.i.0 + r, &mut s[r * LARGEST..][..nj]);
            match rows.score {
                Score::Dot(c) => {
                    let c = T::of(c);
                    for v in row.iter_mut() {
                        *v *= c;
                    }
                }
                Score::Distance(c) => {
                    let squares = &rows.squares[self.j.0..][..nj];
                    let own = rows.squares[i];
                    if same {
                        // Its distance is set below; so it does not count as close.
                        row[r] = T::default();
                    }
                    if nearest_part(row, squares, own) < T::default() {
                        let first = self.close.len();
                        let near = |v: T, q: T| above_close(v, own, q) < T::default();
                        let places = (0..nj).filter(|j| near(row[*j], squares[*j]));
                        self.close.extend(places.map(|j| (r, j)));
                        distances(row, squares, own, T::of(c));
                        for (_, j) in &self.close[first..] {
                            row[*j] = T::of(-c * rows.squared_distance(i, self.j.0 + j));
                        }
                    } else {
                        distances(row, squares, own, T::of(c));
                    }
                    if same {
                        row[r] = T::default();
                    }
                }
            }
            match rows.exclude {
                Exclude::Nothing => {}
                Exclude::Own => {
                    if same {
                        row[r] = minus_infinity;
                    }
                }
                Exclude::Sample(batch) => {
                    let first = (i % batch + batch - self.j.0 % batch) % batch;
                    row.iter_mut().skip(first).step_by(batch).for_each(|v| *v = minus_infinity);
                }
            }
        }
    }
}

impl<T: Elementary> Rows<'_, T> {
    #[inline(always)]
    fn squared_distance(&self, i: usize, j: usize) -> f64 {
        squared_distance(&self.x[i * self.d..][..self.d], &self.x[j * self.d..][..self.d])
    }

    /// Takes `w (x_i - x_j)` from row `i` of `out`, and for `both` its negative from row `j`.
    ///
    /// # Safety
    /// `out` holds the rows, and both are the caller's alone.
    #[inline(always)]
    unsafe fn pull(&self, out: Shared<T>, (i, j): (usize, usize), w: T, both: bool) {
        for c in 0..self.d {
            let step = w * (self.x[i * self.d + c] - self.x[j * self.d + c]);
            // SAFETY: that of the caller.
            unsafe {
                *out.get().add(i * self.d + c) += T::default() - step;
                if both {
                    *out.get().add(j * self.d + c) += step;
                }
            }
        }
    }
}

/// `|x - y|^2` by the differences of the elements, which no shift of the columns changes.
#[inline(always)]
pub(super) fn squared_distance<T: Elementary>(x: &[T], y: &[T]) -> f64 {
    let square = |a: T, b: T| (a.f64() - b.f64()) * (a.f64() - b.f64());
    let mut lanes = [0f64; 16];
    let (xs, ys) = (x.chunks_exact(16), y.chunks_exact(16));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| square(*a, *b)).sum();
    for (a, b) in xs.zip(ys) {
        for l in 0..16 {
            lanes[l] += square(a[l], b[l]);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// `|x|^2 + |y|^2 - 2 x y` above what is close, from the product and the squares.
#[inline(always)]
fn above_close<T: Elementary>(product: T, own: T, other: T) -> T {
    T::of(1.0 - CLOSE) * (own + other) - T::of(2.0) * product
}

/// The least of [`above_close`] over a row of products.
#[inline(always)]
fn nearest_part<T: Elementary>(row: &[T], squares: &[T], own: T) -> T {
    let mut lanes = [T::of(f64::INFINITY); 16];
    for (products, squares) in row.chunks(16).zip(squares.chunks(16)) {
        for ((l, v), q) in lanes.iter_mut().zip(products).zip(squares) {
            let above = above_close(*v, own, *q);
            *l = if above < *l { above } else { *l };
        }
    }
    lanes.iter().fold(lanes[0], |m, v| if *v < m { *v } else { m })
}

/// The largest score of a row.
#[inline(always)]
pub(super) fn maximum<T: Elementary>(row: &[T]) -> T {
    let mut lanes = [T::of(f64::NEG_INFINITY); 16];
    for chunk in row.chunks(16) {
        for (l, v) in lanes.iter_mut().zip(chunk) {
            *l = if *v > *l { *v } else { *l };
        }
    }
    lanes.iter().fold(lanes[0], |m, v| if *v > m { *v } else { m })
}

/// The largest scores of the columns of a block, which are the rows of the mirrored one.
#[inline(always)]
pub(super) fn column_maxima<T: Elementary>(s: &[T], (ni, nj): (usize, usize)) -> [T; LARGEST] {
    let mut top = [T::of(f64::NEG_INFINITY); LARGEST];
    for r in 0..ni {
        for (t, v) in top[..nj].iter_mut().zip(&s[r * LARGEST..][..nj]) {
            *t = if *v > *t { *v } else { *t };
        }
    }
    top
}

/// Products into scores, `-c` times the squared distance and never above 0.
#[inline(always)]
fn distances<T: Elementary>(row: &mut [T], squares: &[T], own: T, c: T) {
    let two = T::of(2.0);
    for (v, q) in row.iter_mut().zip(squares) {
        let s = c * (two * *v - own - *q);
        *v = if s > T::default() { T::default() } else { s };
    }
}

/// The running maximum and the sum of exponentials below it, of every row.
pub(super) struct Forward<'a, T> {
    pub(super) block: Block<'a, T>,
    /// `max_j s_ij` so far, `(n)`; this block's rows on both sides are its own.
    pub(super) max: Shared<T>,
    /// `sum_j e^(s_ij - max_i)` so far; null if only the maxima are asked for.
    pub(super) total: Shared<f64>,
}

impl<T: Elementary> Kernel<T> for Forward<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(mut self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe {
            self.block.scored::<S>();
            self.reduce::<S::Arith>()
        }
    }
}

impl<T: Elementary> Forward<'_, T> {
    #[inline(always)]
    unsafe fn reduce<A: Arith>(self) {
        let ((ni, nj), same) = (self.block.sizes(), self.block.diagonal());
        let (i0, j0) = (self.block.i.0, self.block.j.0);
        let s = &self.block.s[..LARGEST * LARGEST];
        let sums = !self.total.get().is_null();
        // SAFETY: the blocks of rows `i` and `j` are this task's alone.
        let (max_i, max_j) = unsafe {
            (
                std::slice::from_raw_parts_mut(self.max.get().add(i0), ni),
                if same { &mut [] } else { std::slice::from_raw_parts_mut(self.max.get().add(j0), nj) },
            )
        };
        let (mut total_i, mut total_j): (&mut [f64], &mut [f64]) = (&mut [], &mut []);
        if sums {
            // SAFETY: `total` holds an element for each row, as `max` does, and rows `i` and `j` are this task's alone.
            unsafe {
                total_i = std::slice::from_raw_parts_mut(self.total.get().add(i0), ni);
                if !same {
                    total_j = std::slice::from_raw_parts_mut(self.total.get().add(j0), nj);
                }
            }
        }
        if !same {
            let top = column_maxima(s, (ni, nj));
            for j in 0..nj {
                raise::<T>(&mut max_j[j], total_j.get_mut(j), top[j]);
            }
        }
        let mut columns = [T::default(); LARGEST];
        let mut e = [T::default(); LARGEST];
        // A row that has left out everything so far has no finite maximum: any shift gives zeros.
        let mut shifts = [T::default(); LARGEST];
        for (shift, max) in shifts.iter_mut().zip(max_j.iter()) {
            *shift = finite(*max);
        }
        for r in 0..ni {
            let row = &s[r * LARGEST..][..nj];
            let top = maximum(row);
            raise::<T>(&mut max_i[r], total_i.get_mut(r), top);
            if !sums {
                continue;
            }
            let shift = finite(max_i[r]);
            exp_shifted::<T, A>(row, |_| shift, &mut e[..nj]);
            total_i[r] += sum(&e[..nj]).f64();
            if !same {
                exp_shifted::<T, A>(row, |j| shifts[j], &mut e[..nj]);
                for (c, v) in columns[..nj].iter_mut().zip(&e) {
                    *c += *v;
                }
            }
        }
        if sums && !same {
            for (t, c) in total_j.iter_mut().zip(&columns) {
                *t += c.f64();
            }
        }
    }
}

fn finite<T: Elementary>(max: T) -> T {
    if max > T::of(f64::NEG_INFINITY) { max } else { T::default() }
}

/// Takes a new maximum in, and rescales the sum.
#[inline(always)]
fn raise<T: Elementary>(max: &mut T, total: Option<&mut f64>, top: T) {
    if top > *max {
        if let Some(total) = total
            && *total > 0.0
        {
            *total *= (max.f64() - top.f64()).exp();
        }
        *max = top;
    }
}

/// Adds `W X` of the block and of its mirror image to the gradient, `w_ij = e^(s_ij) (g_i e^(-l_i) + g_j e^(-l_j))`.
///
/// For distances, where `(W 1) x - W X` follows, a row's weight of itself stands on both sides of that difference
/// and is left out; and the pairs that are close add `w_ij (x_i - x_j)` by themselves.
pub(super) struct Backward<'a, T> {
    pub(super) block: Block<'a, T>,
    /// `l_i`, plus infinity for a row that left out everything.
    pub(super) log_sums: &'a [T],
    /// `g_i`.
    pub(super) g: &'a [T],
    /// `W X`, `(n, d)`; the block's rows on both sides are its own.
    pub(super) out: Shared<T>,
    /// `W 1`, `(n)`.
    pub(super) weights: Shared<f64>,
}

impl<T: Elementary> Kernel<T> for Backward<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(mut self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe {
            self.block.scored::<S>();
            self.weigh::<S::Arith>();
            if S::WIDE { self.products::<S, 12>() } else { self.products::<S, 6>() }
        }
    }
}

impl<T: Elementary> Backward<'_, T> {
    #[inline(always)]
    unsafe fn weigh<A: Arith>(&mut self) {
        let ((ni, nj), same) = (self.block.sizes(), self.block.diagonal());
        let (i0, j0) = (self.block.i.0, self.block.j.0);
        let s = &mut self.block.s[..LARGEST * LARGEST];
        let (mut own, mut other) = ([T::default(); LARGEST], [T::default(); LARGEST]);
        let mut columns = [T::default(); LARGEST];
        let (shifts, gj) = (&self.log_sums[j0..][..nj], &self.g[j0..][..nj]);
        let rows = self.block.rows;
        let apart = matches!(rows.score, Score::Distance(_));
        let mut close = self.block.close.iter().peekable();
        for r in 0..ni {
            let row = &mut s[r * LARGEST..][..nj];
            let (shift, gi) = (self.log_sums[i0 + r], self.g[i0 + r]);
            exp_shifted::<T, A>(row, |_| shift, &mut own[..nj]);
            exp_shifted::<T, A>(row, |j| shifts[j], &mut other[..nj]);
            if apart && same {
                (own[r], other[r]) = (T::default(), T::default());
            }
            while let Some((_, j)) = close.next_if(|pair| pair.0 == r) {
                let w = gi * own[*j] + gj[*j] * other[*j];
                (own[*j], other[*j]) = (T::default(), T::default());
                // SAFETY: the rows of both sides are this task's alone.
                unsafe { rows.pull(self.out, (i0 + r, j0 + j), w, !same) };
            }
            for j in 0..nj {
                let w = gi * own[j] + gj[j] * other[j];
                row[j] = w;
                columns[j] += w;
            }
            // SAFETY: the rows are this task's alone.
            unsafe { *self.weights.get().add(i0 + r) += sum(row).f64() };
        }
        if !same {
            for (j, c) in columns[..nj].iter().enumerate() {
                // SAFETY: the columns are the rows `j` of the mirrored block, which are this task's alone too.
                unsafe { *self.weights.get().add(j0 + j) += c.f64() };
            }
        }
    }

    #[inline(always)]
    unsafe fn products<S: Simd<T = T>, const MR: usize>(self) {
        let block = self.block;
        let (rows, (ni, nj), same) = (block.rows, block.sizes(), block.diagonal());
        let w = block.s.as_ptr();
        let across = ACROSS * S::LANES;
        // W X_j into the rows i, and W^T X_i into the rows j: the strides of W change places.
        let ahead = (block.i.0, ni, block.j, nj, LARGEST, 1);
        let back = (block.j.0, nj, block.i, ni, 1, LARGEST);
        for (first, count, source, k, row_step, step) in
            [ahead, back].into_iter().take(if same { 1 } else { 2 })
        {
            for from in (0..rows.d).step_by(across) {
                let cols = (from, (from + across).min(rows.d));
                let panel = grow(block.b, LARGEST * across);
                pack_columns(rows.x, rows.d, source, cols, across, Some(rows.map), panel);
                for i in (0..count).step_by(MR) {
                    // SAFETY: rows of the block are clamped; the rows of `out` are this task's alone.
                    unsafe {
                        let mut left = [w; MR];
                        for r in 0..MR {
                            left[r] = w.add((i + r).min(count - 1) * row_step);
                        }
                        let acc = outer::<S, MR>(zeros::<S, MR>(), k, left, step, panel.as_ptr());
                        for r in 0..MR.min(count - i) {
                            let out = self.out.get().add((first + i + r) * rows.d + from);
                            if cols.1 - cols.0 == across {
                                for v in 0..ACROSS {
                                    let at = out.add(v * S::LANES);
                                    S::store(at, S::add(S::load(at), acc[r][v]));
                                }
                            } else {
                                let mut lanes = [T::default(); ACROSS * 16];
                                for v in 0..ACROSS {
                                    S::store(lanes.as_mut_ptr().add(v * S::LANES), acc[r][v]);
                                }
                                for (l, value) in lanes[..cols.1 - cols.0].iter().enumerate() {
                                    *out.add(l) += *value;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
