//! Products of matrices whose right side is packed once for a whole call, one group of rows at a time.
//!
//! The right side lies in panels of as many columns as a register tile is wide; a panel stays in the
//! first-level cache while all rows of a group pass. The left side is read as it is: rows, or the panels that
//! an earlier product wrote. The order of each sum depends on the shapes alone.

use crate::gemm::micro::{ACROSS, outer};
use crate::isa::Isa;
use crate::lanes::Real;
use crate::tiles::{Operand, Right, TileIsa};
use crate::vectors::{Float, Kernel, Shared, Simd, filled, grow};
use rayon::prelude::*;

/// Vectors across of a register tile.
const NV: usize = ACROSS;
/// Inner elements of a block of panels: 16 KiB of f32, half of a first-level cache.
const DEPTH: usize = 256;
/// Rows of a group, about: with 256 inner elements they take 200 KiB of the second-level cache.
const GROUP: usize = 192;

/// Columns of a panel.
pub fn across<T: Float>(isa: Isa) -> usize {
    NV * T::lanes(isa)
}

/// Rows of a register tile.
pub fn tile_rows<T: Float>(isa: Isa) -> usize {
    if T::has_32_registers(isa) { 12 } else { 6 }
}

/// Rows of a group for `rows` of them: whole register tiles, and groups that a few threads share evenly.
pub fn group_rows<T: Float>(isa: Isa, rows: usize) -> usize {
    let groups = rows.div_ceil(GROUP).next_multiple_of(4);
    rows.div_ceil(groups).next_multiple_of(tile_rows::<T>(isa))
}

/// The right side of products, `(k, cols)`: blocks of the inner dimension, then panels, then rows.
#[derive(Debug)]
pub struct Panels<T> {
    data: Vec<T>,
    k: usize,
    cols: usize,
    across: usize,
    /// Inner elements of a block.
    depth: usize,
    /// The same for tiles, in the place of `data`.
    tiles: Option<Right>,
}

/// Where the elements of the right side come from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a, T> {
    /// Row by row.
    pub data: &'a [T],
    /// Rows of `data`.
    pub rows: usize,
    /// Columns of `data`.
    pub cols: usize,
    /// The right side is the transpose.
    pub transposed: bool,
    /// Factors of the rows of `data`.
    pub scale: Option<&'a [T]>,
}

impl<T: Real> Panels<T> {
    /// Packs a matrix; `padded` adds rows of zeros up to a whole panel, for a left side that lies in panels. With tiles,
    /// factors of f32 are rounded to bf16.
    pub fn pack(isa: Isa, tiles: Option<TileIsa>, source: Source<'_, T>, padded: bool) -> Self {
        assert!(source.data.len() >= source.rows * source.cols, "a matrix beyond its slice");
        let (have, cols) =
            if source.transposed { (source.cols, source.rows) } else { (source.rows, source.cols) };
        let across = across::<T>(isa);
        let k = if padded { have.next_multiple_of(across) } else { have };
        if let (Some(tiles), Some(data)) = (tiles, T::as_f32(source.data)) {
            let scaled: Vec<f32>;
            let data = match source.scale.and_then(T::as_f32) {
                Some(scale) => {
                    let mut own = data.to_vec();
                    let rows = own.par_chunks_exact_mut(source.cols).zip(scale);
                    rows.for_each(|(row, s)| row.iter_mut().for_each(|x| *x *= *s));
                    scaled = own;
                    &scaled
                }
                None => data,
            };
            let strides = if source.transposed { (1, source.cols) } else { (source.cols, 1) };
            let right = Right::pack(tiles, isa, Operand { data, dims: (have, cols), strides });
            return Self { data: Vec::new(), k, cols, across, depth: k, tiles: Some(right) };
        }
        let depth = k.div_ceil(k.div_ceil(DEPTH).max(1)).next_multiple_of(across);
        let panels = cols.div_ceil(across);
        let fill = |out: Shared<T>| {
            (0..panels).into_par_iter().for_each(|panel| {
                for from in (0..k).step_by(depth) {
                    let count = depth.min(k - from);
                    let at = from * panels * across + panel * count * across;
                    // SAFETY: the blocks of the panels are disjoint, and together all of the buffer.
                    let to = unsafe { std::slice::from_raw_parts_mut(out.get().add(at), count * across) };
                    T::dispatch(isa, Pack { source, have, from, first: panel * across, across, to });
                }
            });
        };
        // SAFETY: every block of every panel is written.
        let data = unsafe { filled(k * panels * across, fill) };
        Self { data, k, cols, across, depth, tiles: None }
    }

    fn panels(&self) -> usize {
        self.cols.div_ceil(self.across)
    }
}

/// Writes one block of one panel.
struct Pack<'a, T> {
    source: Source<'a, T>,
    /// Inner elements that the source has; beyond them are zeros.
    have: usize,
    from: usize,
    first: usize,
    across: usize,
    to: &'a mut [T],
}

impl<T: Real> Kernel<T> for Pack<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let Self { source, have, from, first, across, to } = self;
        let (width, data) = (source.cols, source.data);
        let cols = if source.transposed { source.rows } else { source.cols };
        let columns = across.min(cols - first);
        let count = (to.len() / across).min(have.saturating_sub(from));
        to[count * across..].fill(T::ZERO);
        if !source.transposed {
            for (p, row) in to.chunks_exact_mut(across).take(count).enumerate() {
                let x = &data[(from + p) * width + first..][..columns];
                let scale = source.scale.map_or(T::ONE, |s| s[from + p]);
                for (y, x) in row.iter_mut().zip(x) {
                    *y = *x * scale;
                }
                row[columns..].fill(T::ZERO);
            }
            return;
        }
        let lanes = S::LANES;
        let (whole, squares) = (columns / lanes * lanes, count / lanes * lanes);
        for c in (0..whole).step_by(lanes) {
            for p in (0..squares).step_by(lanes) {
                // SAFETY: a square of `lanes` rows and columns within the source and within the panel.
                unsafe {
                    let x = data.as_ptr().add((first + c) * width + from + p);
                    S::transpose(x, width, to.as_mut_ptr().add(p * across + c), across);
                }
            }
        }
        for c in 0..columns {
            let x = &data[(first + c) * width + from..][..count];
            for p in if c < whole { squares..count } else { 0..count } {
                to[p * across + c] = x[p];
            }
        }
        for row in to.chunks_exact_mut(across).take(count) {
            row[columns..].fill(T::ZERO);
            if let Some(scale) = source.scale {
                for (y, s) in row.iter_mut().zip(&scale[first..first + columns]) {
                    *y *= *s;
                }
            }
        }
    }
}

/// The left side of a product for a group of rows.
#[derive(Debug, Clone, Copy)]
pub enum Left<'a, T> {
    /// Row by row, `k` elements each.
    Rows(&'a [T]),
    /// Panels of `across` columns, each with all rows of the group.
    Panels(&'a [T]),
}

/// The result of a product for a group of rows.
pub enum Out<'a, T> {
    /// Row by row; added to what is there if the flag is set.
    Rows(&'a mut [T], bool),
    /// Panels; each is handed to the function as soon as it is there.
    Panels(&'a mut [T], &'a mut dyn FnMut(usize, &mut [T])),
}

impl<T> Out<'_, T> {
    fn len(&self) -> usize {
        match self {
            Self::Rows(ys, _) | Self::Panels(ys, _) => ys.len(),
        }
    }
}

impl<T> std::fmt::Debug for Out<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rows(..) => "Out::Rows",
            Self::Panels(..) => "Out::Panels",
        })
    }
}

/// `out = left b + bias` for a group of `rows`, on this thread; the bias has a whole number of panels.
pub fn multiply<T: Real>(
    isa: Isa,
    rows: usize,
    left: Left<'_, T>,
    b: &Panels<T>,
    bias: Option<&[T]>,
    out: Out<'_, T>,
) {
    let padded = b.panels() * b.across;
    let have = match left {
        Left::Rows(a) | Left::Panels(a) => a.len(),
    };
    assert!(have >= rows * b.k, "the left side of a product is too short");
    assert!(bias.is_none_or(|bias| bias.len() >= padded), "the bias of a product is too short");
    if let Left::Panels(_) = left {
        assert!(b.k.is_multiple_of(b.across), "panels on the left need a padded right side");
    }
    if let Some(right) = &b.tiles {
        let wanted = if let Out::Rows(..) = out { b.cols } else { padded };
        assert!(out.len() >= rows * wanted, "the result of a product is too short");
        return on_tiles(isa, rows, left, right, bias, out);
    }
    match out {
        Out::Rows(ys, add) => {
            assert!(ys.len() >= rows * b.cols, "the result of a product is too short");
            for from in (0..b.k).step_by(b.depth) {
                let add = add || from > 0;
                let bias = bias.filter(|_| from == 0);
                for panel in 0..b.panels() {
                    let first = panel * b.across;
                    let place = (b.cols, first, b.across.min(b.cols - first));
                    T::dispatch(isa, Strip { rows, left, b, from, panel, bias, add, out: ys, place });
                }
            }
        }
        Out::Panels(ys, done) => {
            assert!(ys.len() >= rows * padded, "the result of a product is too short");
            for (panel, ys) in ys.chunks_exact_mut(rows * b.across).take(b.panels()).enumerate() {
                for from in (0..b.k).step_by(b.depth) {
                    let (add, out) = (from > 0, &mut *ys);
                    let bias = bias.filter(|_| from == 0);
                    let place = (b.across, 0, b.across);
                    T::dispatch(isa, Strip { rows, left, b, from, panel, bias, add, out, place });
                }
                done(panel, ys);
            }
        }
    }
}

/// The product on tiles; the type is f32, as only that has a right side for them.
fn on_tiles<T: Real>(
    isa: Isa,
    rows: usize,
    left: Left<'_, T>,
    right: &Right,
    bias: Option<&[T]>,
    out: Out<'_, T>,
) {
    let left = match left {
        Left::Rows(a) => T::as_f32(a).map(Left::Rows),
        Left::Panels(a) => T::as_f32(a).map(Left::Panels),
    };
    let bias = bias.and_then(T::as_f32);
    match (left, out) {
        (Some(left), Out::Rows(ys, add)) => {
            if let Some(ys) = T::as_f32_mut(ys) {
                right.multiply(isa, rows, left, bias, Out::Rows(ys, add));
            }
        }
        (Some(left), Out::Panels(ys, done)) => {
            let mut done = |panel: usize, ys: &mut [f32]| {
                if let Some(ys) = T::of_f32_mut(ys) {
                    done(panel, ys);
                }
            };
            if let Some(ys) = T::as_f32_mut(ys) {
                right.multiply(isa, rows, left, bias, Out::Panels(ys, &mut done));
            }
        }
        // Another type has no right side for tiles.
        (None, _) => {}
    }
}

/// All rows of a group with one block of one panel.
struct Strip<'a, T> {
    rows: usize,
    left: Left<'a, T>,
    b: &'a Panels<T>,
    from: usize,
    panel: usize,
    bias: Option<&'a [T]>,
    add: bool,
    out: &'a mut [T],
    /// The distance of rows in `out`, where this panel begins in one, and its columns there.
    place: (usize, usize, usize),
}

impl<T: Real> Kernel<T> for Strip<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe { if S::WIDE { self.with::<S, 12>() } else { self.with::<S, 6>() } }
    }
}

impl<T: Real> Strip<'_, T> {
    /// # Safety
    /// The instruction set must be present; the bounds are those that `multiply` checks.
    #[inline(always)]
    unsafe fn with<S: Simd<T = T>, const MR: usize>(self) {
        let Self { rows, left, b, from, panel, bias, add, out, place: (pitch, offset, columns) } = self;
        let across = NV * S::LANES;
        let count = b.depth.min(b.k - from);
        let panels = b.panels();
        let at = from * panels * across + panel * count * across;
        let right = b.data[at..at + count * across].as_ptr();
        let first = panel * across;
        let strips = rows.div_ceil(MR);
        let lines = (count * across).div_ceil(strips);
        // SAFETY: the rows of the left side are clamped to the group; the panel holds `count` rows; the result
        // has room for whole vectors where a panel is whole, and else gets its columns one by one.
        unsafe {
            let bias = match bias {
                Some(bias) => {
                    let bias = bias[first..first + across].as_ptr();
                    [S::load(bias), S::load(bias.add(S::LANES))]
                }
                None => [S::splat(T::ZERO); NV],
            };
            for strip in 0..strips {
                let i = strip * MR;
                // The next panel is on its way to the cache meanwhile.
                prefetch(right.wrapping_add(count * across + strip * lines), lines);
                let mut acc = [bias; MR];
                match left {
                    Left::Rows(a) => {
                        let mut rows_at = [a.as_ptr(); MR];
                        for r in 0..MR {
                            rows_at[r] = a.as_ptr().add((i + r).min(rows - 1) * b.k + from);
                        }
                        acc = outer::<S, MR>(acc, count, rows_at, 1, right);
                    }
                    Left::Panels(a) => {
                        let mut offsets = [0; MR];
                        for r in 0..MR {
                            offsets[r] = (i + r).min(rows - 1) * across;
                        }
                        for q in (0..count).step_by(across) {
                            let a = a.as_ptr().add((from + q) * rows);
                            let mut rows_at = [a; MR];
                            for r in 0..MR {
                                rows_at[r] = a.add(offsets[r]);
                            }
                            acc = outer::<S, MR>(acc, across, rows_at, 1, right.add(q * across));
                        }
                    }
                }
                for r in 0..MR.min(rows - i) {
                    let to = out.as_mut_ptr().add((i + r) * pitch + offset);
                    store::<S>(to, acc[r], columns, add);
                }
            }
        }
    }
}

/// Stores the first `columns` of a row of a tile, or adds them.
///
/// # Safety
/// `to` must be valid for `columns` elements.
#[inline(always)]
unsafe fn store<S: Simd>(to: *mut S::T, acc: [S::V; NV], columns: usize, add: bool) {
    // SAFETY: by the caller; the array holds the widest tile.
    unsafe {
        if columns == NV * S::LANES {
            for v in 0..NV {
                let to = to.add(v * S::LANES);
                S::store(to, if add { S::add(S::load(to), acc[v]) } else { acc[v] });
            }
            return;
        }
        let mut lanes = [S::T::default(); NV * 16];
        for v in 0..NV {
            S::store(lanes.as_mut_ptr().add(v * S::LANES), acc[v]);
        }
        for (l, value) in lanes[..columns].iter().enumerate() {
            let to = to.add(l);
            *to = if add { *to + *value } else { *value };
        }
    }
}

/// Asks for the cache lines of `len` elements. The address need not be valid.
#[inline(always)]
fn prefetch<T>(at: *const T, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = 64 / size_of::<T>();
        for i in (0..len).step_by(line) {
            // SAFETY: a hint, which reads nothing; every x86-64 has it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(i).cast::<i8>()) };
        }
    }
    let _ = (at, len);
}

/// Packs `rows` rows of `m` elements into strips as wide as a register tile has rows, each with all rows: the
/// left side of [`Reduce`]. `to` must hold `rows` times `m`, rounded up to whole strips.
pub fn strips<T: Real>(isa: Isa, xs: &[T], m: usize, to: &mut [T]) {
    let (high, rows) = (tile_rows::<T>(isa), xs.len() / m);
    for (i, strip) in to.chunks_exact_mut(rows * high).take(m.div_ceil(high)).enumerate() {
        let own = high.min(m - i * high);
        for (row, x) in strip.chunks_exact_mut(high).zip(xs.chunks_exact(m)) {
            row[..own].copy_from_slice(&x[i * high..][..own]);
            row[own..].fill(T::ZERO);
        }
    }
}

/// Adds the columns of a panel to `sums`.
#[derive(Debug)]
pub struct PanelSums<'a, T>(pub &'a [T], pub &'a mut [T]);

impl<T: Real> Kernel<T> for PanelSums<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let across = NV * S::LANES;
        assert!(self.1.len() >= across, "the sums of a panel are too short");
        // SAFETY: whole rows of the panel, and a row of sums.
        unsafe {
            let to = self.1.as_mut_ptr();
            let (mut left, mut right) = (S::load(to), S::load(to.add(S::LANES)));
            for row in self.0.chunks_exact(across) {
                left = S::add(left, S::load(row.as_ptr()));
                right = S::add(right, S::load(row.as_ptr().add(S::LANES)));
            }
            S::store(to, left);
            S::store(to.add(S::LANES), right);
        }
    }
}

/// `X^T Y` for `X` `(rows, m)` in strips and `Y` `(rows, n)` in panels, both group by group.
#[derive(Debug, Clone, Copy)]
pub struct Reduce<'a, T> {
    /// `X`, packed by [`strips`].
    pub strips: &'a [T],
    /// `Y`, in panels.
    pub panels: &'a [T],
    /// Rows of both.
    pub rows: usize,
    /// Rows of a group; the last one may have fewer.
    pub group: usize,
    /// Columns of `X`.
    pub m: usize,
    /// Columns of `Y`.
    pub n: usize,
    /// The result is `(n, m)`.
    pub transposed: bool,
}

/// Panels and left columns of a task of [`Reduce`].
const PANELS: usize = 4;
const COLUMNS: usize = 192;

impl<T: Real> Reduce<'_, T> {
    /// On all threads; each element is a sum over the rows in order.
    pub fn run(self, isa: Isa) -> Vec<T> {
        let (across, high) = (across::<T>(isa), tile_rows::<T>(isa));
        let strips = self.m.next_multiple_of(high);
        let panels = self.n.next_multiple_of(across);
        assert!(self.strips.len() >= self.rows * strips, "the strips of a product are too short");
        assert!(self.panels.len() >= self.rows * panels, "the panels of a product are too short");
        let (down, along) = (self.m.div_ceil(COLUMNS), panels.div_ceil(PANELS * across));
        let fill = |out: Shared<T>| {
            (0..down * along).into_par_iter().for_each(|task| {
                let (first, last) = (task / along * COLUMNS, (task / along + 1) * COLUMNS);
                let left = (first, last.min(strips));
                let (first, last) = (task % along * PANELS * across, (task % along + 1) * PANELS * across);
                let right = (first, last.min(panels));
                T::with_scratch(|scratch| {
                    let len = (left.1 - left.0) * (right.1 - right.0);
                    let tile = &mut grow(&mut scratch.tile, len)[..len];
                    tile.fill(T::ZERO);
                    T::dispatch(isa, ReduceTask { all: self, left, right, tile, out });
                });
            });
        };
        // SAFETY: the tasks write all elements.
        unsafe { filled(self.m * self.n, fill) }
    }
}

/// Some columns of the left with some panels of the right side, over all rows.
struct ReduceTask<'a, T> {
    all: Reduce<'a, T>,
    left: (usize, usize),
    right: (usize, usize),
    tile: &'a mut [T],
    out: Shared<T>,
}

impl<T: Real> Kernel<T> for ReduceTask<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe { if S::WIDE { self.with::<S, 12>() } else { self.with::<S, 6>() } }
    }
}

impl<T: Real> ReduceTask<'_, T> {
    /// # Safety
    /// The instruction set must be present, and `MR` the rows of its tiles; the bounds are those that
    /// `Reduce::run` checks.
    #[inline(always)]
    unsafe fn with<S: Simd<T = T>, const MR: usize>(self) {
        let across = NV * S::LANES;
        let Reduce { strips, panels, rows, group, m, n, transposed } = self.all;
        let (tall, wide) = (m.next_multiple_of(MR), n.next_multiple_of(across));
        let height = self.left.1 - self.left.0;
        // SAFETY: the parts of each group lie within both sides; the tile holds all rows of all panels; the
        // elements of the result belong to this task.
        unsafe {
            for from in (0..rows).step_by(group) {
                let own = group.min(rows - from);
                for (q, col) in (self.right.0..self.right.1).step_by(across).enumerate() {
                    let right = panels.as_ptr().add(from * wide + col * own);
                    let lines = (own * across).div_ceil(height.div_ceil(MR));
                    for i in (0..height).step_by(MR) {
                        prefetch(right.wrapping_add(own * across + i / MR * lines), lines);
                        let left = strips.as_ptr().add(from * tall + (self.left.0 + i) * own);
                        let mut rows_at = [left; MR];
                        for r in 0..MR {
                            rows_at[r] = left.add(r);
                        }
                        let acc = outer::<S, MR>([[S::splat(T::ZERO); NV]; MR], own, rows_at, MR, right);
                        for r in 0..MR {
                            let to = self.tile.as_mut_ptr().add((q * height + i + r) * across);
                            store::<S>(to, acc[r], across, true);
                        }
                    }
                }
            }
            for (q, col) in (self.right.0..self.right.1).step_by(across).enumerate() {
                let columns = across.min(n - col);
                let tile = &self.tile[q * height * across..][..height * across];
                let own = height.min(m - self.left.0);
                if !transposed {
                    for (i, row) in tile.chunks_exact(across).take(own).enumerate() {
                        let to = self.out.get().add((self.left.0 + i) * n + col);
                        std::ptr::copy_nonoverlapping(row.as_ptr(), to, columns);
                    }
                    continue;
                }
                let lanes = S::LANES;
                let (squares, whole) = (own / lanes * lanes, columns / lanes * lanes);
                for i in (0..squares).step_by(lanes) {
                    for c in (0..whole).step_by(lanes) {
                        let to = self.out.get().add((col + c) * m + self.left.0 + i);
                        S::transpose(tile.as_ptr().add(i * across + c), across, to, m);
                    }
                }
                for c in 0..columns {
                    for i in if c < whole { squares..own } else { 0..own } {
                        *self.out.get().add((col + c) * m + self.left.0 + i) = tile[i * across + c];
                    }
                }
            }
        }
    }
}
