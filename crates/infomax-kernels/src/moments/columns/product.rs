//! Gram matrices and products with matrices of mapped columns.
//!
//! Every element is the sum of a fixed sequence of partial sums, so that results have the same bits for any
//! number of threads.

use infomax_simd::gemm::{ACROSS, BLOCK, DOTS, Map, dots, outer, pack_columns, pack_rows, zeros};
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, filled, grow};
use rayon::prelude::*;

/// Elements of the inner dimension between two sums in f64, where it lies along the rows.
const INNER: usize = 512;
/// The same, where it lies across the rows.
const DEPTH: usize = 192;
/// Rows of a block of the products with a square matrix on the right.
const ROWS: usize = 192;
/// Columns of such a block, and the inner dimension of the packed part.
const COLUMNS: usize = 384;
const PACKED: usize = 256;
// The tiles of every instruction set divide the blocks.
const _: () =
    assert!(BLOCK.is_multiple_of(ACROSS * 16) && BLOCK.is_multiple_of(24) && BLOCK.is_multiple_of(DOTS));
/// Tasks into which a small product is split along its inner dimension.
const TASKS: usize = 16;

/// A row-major matrix `(n, d)` whose columns are mapped on the way.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, Z, T> {
    pub(crate) z: &'a [Z],
    pub(crate) n: usize,
    pub(crate) d: usize,
    pub(crate) map: &'a Map<T>,
}

/// Which of the two symmetric products is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `X X^T`.
    Rows,
    /// `X^T X`.
    Columns,
}

/// `X X^T` or `X^T X`, both halves: only the lower blocks are computed. Partial sums are added in f64.
pub(crate) fn symmetric<Z: Float, T: Float, O: Float>(x: Matrix<'_, Z, T>, side: Side, isa: Isa) -> Vec<O> {
    let (size, inner) = match side {
        Side::Rows => (x.n, x.d),
        Side::Columns => (x.d, x.n),
    };
    let blocks = size.div_ceil(BLOCK);
    let tiles: Vec<(usize, usize)> = (0..blocks).flat_map(|i| (0..=i).map(move |j| (i, j))).collect();
    let unit = if side == Side::Rows { INNER } else { DEPTH };
    let chunks = TASKS.div_ceil(tiles.len()).min(inner.div_ceil(unit));
    let chunk = inner.div_ceil(chunks).next_multiple_of(unit);
    let chunks = inner.div_ceil(chunk);
    let form = |(i, j): (usize, usize), c: usize, tile: &mut [f64]| {
        T::with_scratch(|scratch| {
            let tile = Tile {
                x,
                rows: (i * BLOCK, ((i + 1) * BLOCK).min(size)),
                cols: (j * BLOCK, ((j + 1) * BLOCK).min(size)),
                inner: (c * chunk, ((c + 1) * chunk).min(inner)),
                a: &mut scratch.stage,
                b: &mut scratch.panel,
                tile,
            };
            match side {
                Side::Rows => T::dispatch(isa, AlongRows(tile)),
                Side::Columns => T::dispatch(isa, AcrossRows(tile)),
            }
        });
    };
    let spread = |(i, j): (usize, usize), tile: &[f64], out: Shared<O>| {
        for r in 0..BLOCK.min(size - i * BLOCK) {
            for c in 0..BLOCK.min(size - j * BLOCK) {
                let (row, col) = (i * BLOCK + r, j * BLOCK + c);
                if row >= col {
                    let value = O::of(tile[r * BLOCK + c]);
                    // SAFETY: both lie within the matrix, and no other tile has these elements.
                    unsafe {
                        *out.get().add(row * size + col) = value;
                        *out.get().add(col * size + row) = value;
                    }
                }
            }
        }
    };
    // SAFETY: the tiles at and below the diagonal, with their mirror images, are all elements.
    unsafe {
        filled(size * size, |out: Shared<O>| {
            if chunks == 1 {
                tiles.par_iter().for_each(|at| {
                    let mut tile = vec![0f64; BLOCK * BLOCK];
                    form(*at, 0, &mut tile);
                    spread(*at, &tile, out);
                });
                return;
            }
            let parts: Vec<Vec<f64>> = (0..tiles.len() * chunks)
                .into_par_iter()
                .map(|task| {
                    let mut tile = vec![0f64; BLOCK * BLOCK];
                    form(tiles[task / chunks], task % chunks, &mut tile);
                    tile
                })
                .collect();
            tiles.par_iter().zip(parts.par_chunks(chunks)).for_each(|(at, parts)| {
                let mut sum = vec![0f64; BLOCK * BLOCK];
                for part in parts {
                    for (s, p) in sum.iter_mut().zip(part) {
                        *s += p;
                    }
                }
                spread(*at, &sum, out);
            });
        })
    }
}

/// One block of a symmetric product, for a part of the inner dimension.
struct Tile<'a, Z, T> {
    x: Matrix<'a, Z, T>,
    rows: (usize, usize),
    cols: (usize, usize),
    inner: (usize, usize),
    a: &'a mut Vec<T>,
    b: &'a mut Vec<T>,
    /// `BLOCK x BLOCK`; the sums are added to it.
    tile: &'a mut [f64],
}

struct AlongRows<'a, Z, T>(Tile<'a, Z, T>);

impl<Z: Float, T: Float> Kernel<T> for AlongRows<'_, Z, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe { if S::WIDE { self.0.along::<S, 8>() } else { self.0.along::<S, 4>() } }
    }
}

struct AcrossRows<'a, Z, T>(Tile<'a, Z, T>);

impl<Z: Float, T: Float> Kernel<T> for AcrossRows<'_, Z, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe { if S::WIDE { self.0.across::<S, 12>() } else { self.0.across::<S, 6>() } }
    }
}

impl<Z: Float, T: Float> Tile<'_, Z, T> {
    /// Scalar products of rows.
    #[inline(always)]
    unsafe fn along<S: Simd<T = T>, const MR: usize>(self) {
        let same = self.rows == self.cols;
        let d = self.x.d;
        for from in (self.inner.0..self.inner.1).step_by(INNER) {
            let k = INNER.min(self.inner.1 - from);
            let padded = k.next_multiple_of(S::LANES);
            let inner = (from, k);
            pack_rows(self.x.z, d, self.rows, inner, padded, self.x.map, grow(self.a, BLOCK * padded));
            if !same {
                pack_rows(self.x.z, d, self.cols, inner, padded, self.x.map, grow(self.b, BLOCK * padded));
            }
            let (a, b) = (self.a.as_ptr(), if same { self.a.as_ptr() } else { self.b.as_ptr() });
            let (rows, cols) = (self.rows.1 - self.rows.0, self.cols.1 - self.cols.0);
            for i in (0..rows).step_by(MR) {
                for j in (0..cols).step_by(DOTS) {
                    if same && j >= i + MR {
                        break;
                    }
                    // SAFETY: both buffers hold their rows of `padded` elements; row indices are clamped.
                    let sums = unsafe {
                        let (mut left, mut right) = ([a; MR], [b; DOTS]);
                        for r in 0..MR {
                            left[r] = a.add((i + r).min(rows - 1) * padded);
                        }
                        for c in 0..DOTS {
                            right[c] = b.add((j + c).min(cols - 1) * padded);
                        }
                        dots::<S, MR>(padded, left, right)
                    };
                    for r in 0..MR {
                        let row = &mut self.tile[(i + r) * BLOCK + j..][..DOTS];
                        for c in 0..DOTS {
                            row[c] += sums[r][c].f64();
                        }
                    }
                }
            }
        }
    }

    /// Scalar products of columns.
    #[inline(always)]
    unsafe fn across<S: Simd<T = T>, const MR: usize>(self) {
        let across = ACROSS * S::LANES;
        let same = self.rows == self.cols;
        for from in (self.inner.0..self.inner.1).step_by(DEPTH) {
            let to = (from + DEPTH).min(self.inner.1);
            let k = to - from;
            let (z, d, map) = (self.x.z, self.x.d, Some(self.x.map));
            pack_columns(z, d, (from, to), self.rows, across, map, grow(self.a, BLOCK * k));
            if !same {
                pack_columns(z, d, (from, to), self.cols, across, map, grow(self.b, BLOCK * k));
            }
            let (a, b) = (self.a.as_ptr(), if same { self.a.as_ptr() } else { self.b.as_ptr() });
            let (rows, cols) = (self.rows.1 - self.rows.0, self.cols.1 - self.cols.0);
            for j in (0..cols).step_by(across) {
                for i in (0..rows).step_by(MR) {
                    if same && j >= i + MR {
                        continue;
                    }
                    // SAFETY: the panels hold all columns of the block; the row indices are clamped to them.
                    unsafe {
                        let mut left = [a; MR];
                        for r in 0..MR {
                            let row = (i + r).min(rows - 1);
                            left[r] = a.add(row / across * k * across + row % across);
                        }
                        let acc = outer::<S, MR>(zeros::<S, MR>(), k, left, across, b.add(j * k));
                        let mut lanes = [T::default(); 16];
                        for r in 0..MR {
                            for v in 0..ACROSS {
                                S::store(lanes.as_mut_ptr(), acc[r][v]);
                                let at = (i + r) * BLOCK + j + v * S::LANES;
                                for (t, l) in self.tile[at..at + S::LANES].iter_mut().zip(&lanes) {
                                    *t += l.f64();
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is done to a product `Y` before it is stored:
/// `y = alpha y + add_j w_ij`, then `y -= x_ij project_j sum_i x_ij y_ij`, then `y *= post_j`.
pub(crate) struct Finish<'a, Z, T> {
    pub(crate) alpha: f64,
    /// The matrix `W` of the shape of the result, and its factors by column.
    pub(crate) add: Option<(Matrix<'a, Z, T>, &'a [T])>,
    pub(crate) project: Option<&'a [f64]>,
    pub(crate) post: Option<&'a [T]>,
}

/// `M X` for a row-major `M` `(rows, n)` and `X` `(n, d)`, finished.
pub(crate) fn left<Z: Float, T: Float>(
    m: &[T],
    rows: usize,
    x: Matrix<'_, Z, T>,
    finish: &Finish<'_, Z, T>,
    isa: Isa,
) -> Vec<Z> {
    // SAFETY: the tasks write all columns.
    unsafe {
        filled(rows * x.d, |out: Shared<Z>| {
            (0..x.d.div_ceil(BLOCK)).into_par_iter().for_each(|block| {
                let cols = (block * BLOCK, ((block + 1) * BLOCK).min(x.d));
                T::with_scratch(|scratch| {
                    let (panel, tile) = (&mut scratch.panel, &mut scratch.tile);
                    T::dispatch(isa, Left { m, rows, x, cols, panel, tile, finish, out: out.get() });
                });
            });
        })
    }
}

struct Left<'a, Z, T> {
    m: &'a [T],
    rows: usize,
    x: Matrix<'a, Z, T>,
    cols: (usize, usize),
    panel: &'a mut Vec<T>,
    tile: &'a mut Vec<T>,
    finish: &'a Finish<'a, Z, T>,
    out: *mut Z,
}

impl<Z: Float, T: Float> Kernel<T> for Left<'_, Z, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe { if S::WIDE { self.with::<S, 12>() } else { self.with::<S, 6>() } }
    }
}

impl<Z: Float, T: Float> Left<'_, Z, T> {
    #[inline(always)]
    unsafe fn with<S: Simd<T = T>, const MR: usize>(self) {
        let across = ACROSS * S::LANES;
        let room = BLOCK;
        let n = self.x.n;
        let tile = grow(self.tile, self.rows * room);
        for from in (0..n).step_by(PACKED) {
            let to = (from + PACKED).min(n);
            let k = to - from;
            let packed = grow(self.panel, room * k);
            let count =
                pack_columns(self.x.z, self.x.d, (from, to), self.cols, across, Some(self.x.map), packed);
            for i in (0..self.rows).step_by(MR) {
                for panel in 0..count {
                    // SAFETY: rows of `m` are clamped; the panels and the tile have room for whole vectors.
                    unsafe {
                        let mut left = [self.m.as_ptr(); MR];
                        for r in 0..MR {
                            left[r] = left[r].add((i + r).min(self.rows - 1) * n + from);
                        }
                        let acc = outer::<S, MR>(
                            zeros::<S, MR>(),
                            k,
                            left,
                            1,
                            packed.as_ptr().add(panel * k * across),
                        );
                        for r in 0..MR.min(self.rows - i) {
                            let row = tile.as_mut_ptr().add((i + r) * room + panel * across);
                            store::<S>(row, acc[r], from > 0);
                        }
                    }
                }
            }
        }
        // SAFETY: the tile holds the columns, which are this task's alone in the output.
        unsafe {
            Finished { tile, room, rows: (0, self.rows), cols: self.cols, finish: self.finish, own: self.x }
                .store(self.out);
        }
    }
}

#[inline(always)]
unsafe fn store<S: Simd>(row: *mut S::T, acc: [S::V; ACROSS], add: bool) {
    // SAFETY: the caller has room for the vectors.
    unsafe {
        for v in 0..ACROSS {
            let at = row.add(v * S::LANES);
            S::store(at, if add { S::add(S::load(at), acc[v]) } else { acc[v] });
        }
    }
}

/// `X M` for `X` `(n, d)` and a row-major `M` `(d, m)`; `project` must be `None`.
pub(crate) fn right<Z: Float, T: Float>(
    x: Matrix<'_, Z, T>,
    m: &[T],
    width: usize,
    finish: &Finish<'_, Z, T>,
    isa: Isa,
) -> Vec<Z> {
    let (rows, cols) = (x.n.div_ceil(ROWS), width.div_ceil(COLUMNS));
    // SAFETY: the tasks write all blocks.
    unsafe {
        filled(x.n * width, |out: Shared<Z>| {
            (0..rows * cols).into_par_iter().for_each(|task| {
                let (i, j) = (task / cols * ROWS, task % cols * COLUMNS);
                T::with_scratch(|scratch| {
                    let right = Right {
                        x,
                        m,
                        width,
                        rows: (i, (i + ROWS).min(x.n)),
                        cols: (j, (j + COLUMNS).min(width)),
                        stage: &mut scratch.stage,
                        panel: &mut scratch.panel,
                        tile: &mut scratch.tile,
                        finish,
                        out: out.get(),
                    };
                    T::dispatch(isa, right);
                });
            });
        })
    }
}

struct Right<'a, Z, T> {
    x: Matrix<'a, Z, T>,
    m: &'a [T],
    width: usize,
    rows: (usize, usize),
    cols: (usize, usize),
    stage: &'a mut Vec<T>,
    panel: &'a mut Vec<T>,
    tile: &'a mut Vec<T>,
    finish: &'a Finish<'a, Z, T>,
    out: *mut Z,
}

impl<Z: Float, T: Float> Kernel<T> for Right<'_, Z, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe { if S::WIDE { self.with::<S, 12>() } else { self.with::<S, 6>() } }
    }
}

impl<Z: Float, T: Float> Right<'_, Z, T> {
    #[inline(always)]
    unsafe fn with<S: Simd<T = T>, const MR: usize>(self) {
        let across = ACROSS * S::LANES;
        let (rows, width) = (self.rows.1 - self.rows.0, self.cols.1 - self.cols.0);
        let room = width.next_multiple_of(across);
        let tile = grow(self.tile, rows * room);
        let d = self.x.d;
        for from in (0..d).step_by(PACKED) {
            let to = (from + PACKED).min(d);
            let k = to - from;
            let a = grow(self.stage, rows * k);
            pack_rows(self.x.z, d, self.rows, (from, k), k, self.x.map, a);
            let b = grow(self.panel, across * k);
            for first in (0..width).step_by(across) {
                let cols = (self.cols.0 + first, (self.cols.0 + first + across).min(self.cols.1));
                pack_columns(self.m, self.width, (from, to), cols, across, None, b);
                for i in (0..rows).step_by(MR) {
                    // SAFETY: rows are clamped; the panel and the tile have room for whole vectors.
                    unsafe {
                        let mut left = [a.as_ptr(); MR];
                        for r in 0..MR {
                            left[r] = left[r].add((i + r).min(rows - 1) * k);
                        }
                        let acc = outer::<S, MR>(zeros::<S, MR>(), k, left, 1, b.as_ptr());
                        for r in 0..MR.min(rows - i) {
                            store::<S>(tile.as_mut_ptr().add((i + r) * room + first), acc[r], from > 0);
                        }
                    }
                }
            }
        }
        // SAFETY: the block is this task's alone in the output.
        unsafe {
            Finished { tile, room, rows: self.rows, cols: self.cols, finish: self.finish, own: self.x }
                .store_wide(self.out, self.width);
        }
    }
}

/// A product that waits for its last steps.
struct Finished<'a, Z, T> {
    tile: &'a mut [T],
    room: usize,
    rows: (usize, usize),
    cols: (usize, usize),
    finish: &'a Finish<'a, Z, T>,
    /// The matrix of the projection.
    own: Matrix<'a, Z, T>,
}

impl<Z: Float, T: Float> Finished<'_, Z, T> {
    #[inline(always)]
    unsafe fn store(self, out: *mut Z) {
        let width = self.own.d;
        // SAFETY: as promised by the caller.
        unsafe { self.store_wide(out, width) }
    }

    #[inline(always)]
    unsafe fn store_wide(self, out: *mut Z, width: usize) {
        let (from, count) = (self.cols.0, self.cols.1 - self.cols.0);
        let alpha = T::of(self.finish.alpha);
        let mut x = [T::default(); COLUMNS];
        let mut sums = [0f64; COLUMNS];
        let project = self.finish.project.is_some();
        for (r, i) in (self.rows.0..self.rows.1).enumerate() {
            let row = &mut self.tile[r * self.room..][..count];
            for y in row.iter_mut() {
                *y = alpha * *y;
            }
            if let Some((w, factors)) = &self.finish.add {
                w.map.row(from, &w.z[i * w.d + from..][..count], &mut x[..count]);
                for ((y, x), f) in row.iter_mut().zip(&x).zip(&factors[from..]) {
                    *y += *f * *x;
                }
            }
            if project {
                let own = &self.own;
                own.map.row(from, &own.z[i * own.d + from..][..count], &mut x[..count]);
                for ((s, y), x) in sums.iter_mut().zip(row.iter()).zip(&x) {
                    *s += y.f64() * x.f64();
                }
            }
        }
        if let Some(project) = self.finish.project {
            for (s, p) in sums[..count].iter_mut().zip(&project[from..]) {
                *s *= p;
            }
        }
        for (r, i) in (self.rows.0..self.rows.1).enumerate() {
            let row = &mut self.tile[r * self.room..][..count];
            if project {
                let own = &self.own;
                own.map.row(from, &own.z[i * own.d + from..][..count], &mut x[..count]);
                for ((y, x), s) in row.iter_mut().zip(&x).zip(&sums) {
                    *y -= *x * T::of(*s);
                }
            }
            if let Some(post) = self.finish.post {
                for (y, p) in row.iter_mut().zip(&post[from..]) {
                    *y *= *p;
                }
            }
            // SAFETY: the caller's output has rows of `width` elements, and these are this task's.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(i * width + from), count) };
            for (o, y) in out.iter_mut().zip(row.iter()) {
                *o = Z::of(y.f64());
            }
        }
    }
}
