//! The products of [`crate::gemm`]'s panels on tiles: factors are rounded to bf16, sums are f32.
//!
//! The right side is packed once for a whole call; the left side of a group of rows is rounded and laid out when the group
//! comes, and lies in the second-level cache while the panels of the right side pass. The order of each sum depends on
//! the shapes alone.

use super::product::{BLOCK, Line, Operand, elements, elements_mut};
use super::{COLUMNS, PAIRS, ROWS, Shape, Sums, TileIsa};
use crate::gemm::{Left, Out, across};
use crate::isa::Isa;
use crate::lanes::{Arith, Task, run};
use crate::vectors::{Float as _, Kernel, Shared, Simd, filled};
use half::bf16;
use rayon::prelude::*;
use std::cell::RefCell;

/// Inner elements of a piece: a tile at its full depth.
const DEPTH: usize = 2 * PAIRS;
/// Elements of two tiles of one piece: 32 rows of the left side, or as many columns of the right one.
const PIECE: usize = 2 * ROWS * DEPTH;
const SHAPE: Shape = Shape { pairs: PAIRS, columns: COLUMNS, pitch: (DEPTH, 2 * COLUMNS) };

/// Both tiles of a piece.
#[inline(always)]
fn halves(piece: &[bf16]) -> [*const bf16; 2] {
    [piece.as_ptr(), piece[PIECE / 2..].as_ptr()]
}

/// Lines that hold so many elements.
fn lines(elements: usize) -> usize {
    elements.div_ceil(size_of::<Line>() / size_of::<bf16>())
}

/// The right side of products, `(k, cols)`: blocks of 32 columns, and in each of them the pieces of the inner dimension.
#[derive(Debug)]
pub(crate) struct Right {
    tiles: TileIsa,
    data: Vec<Line>,
    k: usize,
    pieces: usize,
    cols: usize,
}

impl Right {
    /// Packs a matrix of `(k, cols)`.
    pub(crate) fn pack(tiles: TileIsa, isa: Isa, side: Operand<'_>) -> Self {
        let (k, cols) = side.dims;
        let pieces = k.div_ceil(DEPTH).max(1);
        let len = pieces * PIECE;
        let fill = |out: Shared<Line>| {
            (0..cols.div_ceil(BLOCK)).into_par_iter().for_each(|block| {
                // SAFETY: a block is a whole number of lines, and belongs to this task, which writes all of it.
                let to =
                    unsafe { std::slice::from_raw_parts_mut(out.get().cast::<bf16>().add(block * len), len) };
                f32::dispatch(isa, Weights { side, first: block * BLOCK, to });
            });
        };
        // SAFETY: the tasks write all blocks.
        let data = unsafe { filled(lines(cols.div_ceil(BLOCK) * len), fill) };
        Self { tiles, data, k, pieces, cols }
    }

    /// `out = left b + bias` for a group of `rows`, on this thread, as [`crate::gemm::multiply`]. The sizes were checked.
    pub(crate) fn multiply(
        &self,
        isa: Isa,
        rows: usize,
        left: Left<'_, f32>,
        bias: Option<&[f32]>,
        mut out: Out<'_, f32>,
    ) {
        let (tall, width) = (rows.next_multiple_of(BLOCK), across::<f32>(isa));
        with_lines(lines(self.pieces * tall * DEPTH), |buffer| {
            let a = elements_mut(buffer);
            f32::dispatch(isa, Round { left, rows, k: self.k, width, tall, to: a });
            let a = &*a;
            for block in 0..self.cols.div_ceil(BLOCK) {
                let columns = BLOCK.min(self.cols - block * BLOCK);
                let bias = bias.map(|bias| &bias[block * BLOCK..]);
                let b = &elements(&self.data)[block * self.pieces * PIECE..][..self.pieces * PIECE];
                self.tiles.with(SHAPE, |session| {
                    let mut sums = Sums::default();
                    for (i, from) in (0..rows).step_by(BLOCK).enumerate() {
                        session.zero();
                        for (piece, b) in b.chunks_exact(PIECE).enumerate() {
                            let a = &a[(piece * tall + from) * DEPTH..][..PIECE];
                            // SAFETY: two whole tiles on either side.
                            unsafe { session.add(halves(a), halves(b)) };
                        }
                        session.store(&mut sums);
                        let own = BLOCK.min(rows - i * BLOCK);
                        match &mut out {
                            Out::Rows(ys, add) => {
                                let to = &mut ys[from * self.cols + block * BLOCK..];
                                let place = (self.cols, own, 0, columns);
                                f32::dispatch(isa, Write { sums: &sums, bias, add: *add, to, place });
                            }
                            // A block is one panel of 16 lanes, and several narrow ones.
                            Out::Panels(ys, _) => {
                                for first in (0..columns).step_by(width) {
                                    let panel = (block * BLOCK + first) / width;
                                    let to = &mut ys[(panel * rows + from) * width..];
                                    let (bias, place) =
                                        (bias.map(|b| &b[first..]), (width, own, first, width));
                                    f32::dispatch(isa, Write { sums: &sums, bias, add: false, to, place });
                                }
                            }
                        }
                    }
                });
                if let Out::Panels(ys, done) = &mut out {
                    for first in (0..columns).step_by(width) {
                        let panel = (block * BLOCK + first) / width;
                        done(panel, &mut ys[panel * rows * width..][..rows * width]);
                    }
                }
            }
        });
    }
}

/// Tiles of a block of the right side, piece by piece.
struct Weights<'a> {
    side: Operand<'a>,
    /// The first column.
    first: usize,
    to: &'a mut [bf16],
}

impl Kernel<f32> for Weights<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) {
        let Self { side: Operand { data, dims: (k, cols), strides: (down, along) }, first, to } = self;
        for (at, to) in to.chunks_exact_mut(PIECE / 2).enumerate() {
            let (begin, first) = (at / 2 * DEPTH, first + at % 2 * COLUMNS);
            let (have, columns) = (DEPTH.min(k - begin), COLUMNS.min(cols.saturating_sub(first)));
            if along == 1 && columns > 0 {
                pairs(&data[begin * down + first..], down, (have, columns), to);
                continue;
            }
            // Columns that lie row by row: rounded, and pairs turned as what takes as many bits.
            let mut stage = [bf16::ZERO; PIECE / 2];
            for c in 0..columns {
                let from = &data[(first + c) * along + begin * down..];
                let to = &mut stage[c * DEPTH..][..DEPTH];
                if down == 1 {
                    // SAFETY: by the caller.
                    unsafe { round::<S>(&from[..have], to) };
                } else {
                    let mut row = [0f32; DEPTH];
                    for (p, x) in row.iter_mut().enumerate().take(have) {
                        *x = from[p * down];
                    }
                    // SAFETY: by the caller.
                    unsafe { round::<S>(&row, to) };
                }
            }
            for c in (0..COLUMNS).step_by(S::LANES) {
                for p in (0..PAIRS).step_by(S::LANES) {
                    // SAFETY: squares within both, of four bytes an element.
                    unsafe {
                        let from = stage.as_ptr().cast::<f32>().add(c * PAIRS + p);
                        S::transpose(
                            from,
                            PAIRS,
                            to.as_mut_ptr().cast::<f32>().add(p * COLUMNS + c),
                            COLUMNS,
                        );
                    }
                }
            }
        }
    }
}

/// A tile of the right side from `rows` and `columns` at most that begin at `from` and lie `pitch` apart: pairs of rows
/// together, zeros beyond them.
#[inline(always)]
fn pairs(from: &[f32], pitch: usize, (rows, columns): (usize, usize), to: &mut [bf16]) {
    use crate::element::Stored as _;
    let none = [0f32; COLUMNS];
    for (pair, to) in to.chunks_exact_mut(2 * COLUMNS).enumerate() {
        let row = |r: usize| {
            let mut row = none;
            if r < rows {
                match <&[f32; COLUMNS]>::try_from(&from[r * pitch..][..columns]) {
                    Ok(whole) => row = *whole,
                    Err(_) => row[..columns].copy_from_slice(&from[r * pitch..][..columns]),
                }
            }
            row
        };
        let (x, y) = (row(2 * pair), row(2 * pair + 1));
        for c in 0..COLUMNS {
            to[2 * c] = bf16::narrow(x[c]);
            to[2 * c + 1] = bf16::narrow(y[c]);
        }
    }
}

/// Runs `f` with a buffer of this thread that is kept between calls.
fn with_lines<R>(len: usize, f: impl FnOnce(&mut [Line]) -> R) -> R {
    thread_local! {
        static BUFFER: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out, so that a task which this thread takes over meanwhile finds an empty one.
    let mut buffer = BUFFER.with(|cell| std::mem::take(&mut *cell.borrow_mut()));
    if buffer.len() < len {
        buffer.resize(len, Line::ZERO);
    }
    let result = f(&mut buffer[..len]);
    BUFFER.with(|cell| *cell.borrow_mut() = buffer);
    result
}

/// Rounds the left side of a group: pieces, and in each all rows with 32 inner elements, zeros beyond those that there are.
struct Round<'a> {
    left: Left<'a, f32>,
    rows: usize,
    k: usize,
    /// Columns of a panel of the left side.
    width: usize,
    /// Rows of a piece.
    tall: usize,
    to: &'a mut [bf16],
}

impl Kernel<f32> for Round<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) {
        let Self { left, rows, k, width, tall, to } = self;
        for (piece, to) in to.chunks_exact_mut(tall * DEPTH).enumerate() {
            to[rows * DEPTH..].fill(bf16::ZERO);
            let to = &mut to[..rows * DEPTH];
            match left {
                Left::Rows(a) => {
                    let have = DEPTH.min(k - piece * DEPTH);
                    for (to, x) in to.chunks_exact_mut(DEPTH).zip(a.chunks_exact(k)) {
                        // SAFETY: by the caller.
                        unsafe { round::<S>(&x[piece * DEPTH..][..have], to) };
                    }
                }
                Left::Panels(a) if width == DEPTH => {
                    let own = &a[piece * rows * DEPTH..][..rows * DEPTH];
                    // SAFETY: by the caller.
                    unsafe { round::<S>(own, to) };
                }
                Left::Panels(a) => {
                    for (to, row) in to.chunks_exact_mut(DEPTH).zip(0..) {
                        for (at, to) in to.chunks_exact_mut(width).enumerate() {
                            let panel = (piece * DEPTH) / width + at;
                            let own = if panel * width < k {
                                &a[(panel * rows + row) * width..][..width]
                            } else {
                                &[]
                            };
                            // SAFETY: by the caller.
                            unsafe { round::<S>(own, to) };
                        }
                    }
                }
            }
        }
    }
}

/// Rounds elements, and puts zeros behind them.
///
/// # Safety
/// The instruction set of `S` must be present.
#[inline(always)]
unsafe fn round<S: Simd<T = f32>>(from: &[f32], to: &mut [bf16]) {
    use crate::element::Stored as _;
    let len = from.len().min(to.len());
    let whole = len / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: whole vectors of both.
        unsafe { S::store_bf16(to.as_mut_ptr().add(i), S::load(from.as_ptr().add(i))) };
    }
    for i in whole..len {
        to[i] = bf16::narrow(from[i]);
    }
    to[len..].fill(bf16::ZERO);
}

/// Writes what the result has of a block of sums.
struct Write<'a> {
    sums: &'a Sums,
    /// From the first column of the block on.
    bias: Option<&'a [f32]>,
    /// To what is there.
    add: bool,
    to: &'a mut [f32],
    /// The distance of rows, the number of rows, the first column of the block, and the number of columns.
    place: (usize, usize, usize, usize),
}

impl Kernel<f32> for Write<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) {
        let Self { sums, bias, add, to, place: (pitch, rows, first, columns) } = self;
        for (r, to) in to.chunks_mut(pitch).take(rows).enumerate() {
            let at = |c: usize| &sums.0[r / ROWS * 2 + c / COLUMNS][r % ROWS * COLUMNS + c % COLUMNS..];
            let whole = columns / S::LANES * S::LANES;
            for c in (0..whole).step_by(S::LANES) {
                let (from, to) = (&at(first + c)[..S::LANES], &mut to[c..][..S::LANES]);
                // SAFETY: whole vectors of each.
                unsafe {
                    let mut v = S::load(from.as_ptr());
                    if let Some(bias) = bias {
                        v = S::add(v, S::load(bias[c..][..S::LANES].as_ptr()));
                    }
                    if add {
                        v = S::add(S::load(to.as_ptr()), v);
                    }
                    S::store(to.as_mut_ptr(), v);
                }
            }
            for c in whole..columns {
                let own = at(first + c)[0] + bias.map_or(0.0, |bias| bias[c]);
                to[c] = if add { to[c] + own } else { own };
            }
        }
    }
}

/// `X^T Y` for `X` `(rows, m)` and `Y` `(rows, n)` that come group by group, in any order: each is rounded when it comes.
#[derive(Debug)]
pub struct Gathered {
    tiles: TileIsa,
    isa: Isa,
    rows: usize,
    group: usize,
    m: usize,
    n: usize,
    left: Vec<Line>,
    right: Vec<Line>,
    /// Where both begin.
    to: [Shared<bf16>; 2],
}

/// Pieces of rows whose products are added before the sums go to memory and others come.
const CHUNK: usize = 8;
/// Blocks of a task, down and across.
const TASK: (usize, usize) = (6, 4);
/// Tasks that there are at least, where the rows allow it.
const TASKS: usize = 8;
/// Pieces of rows that are worth a task of their own.
const LEAST: usize = 2 * CHUNK;

impl Gathered {
    /// Room for `rows` rows in groups of `group`.
    pub fn new(tiles: TileIsa, isa: Isa, (rows, group): (usize, usize), m: usize, n: usize) -> Self {
        let pieces = pieces(rows, group);
        let side =
            |columns: usize| Vec::<Line>::with_capacity(lines(pieces * columns.div_ceil(BLOCK) * PIECE));
        let (mut left, mut right) = (side(m), side(n));
        let to = [left.as_mut_ptr(), right.as_mut_ptr()].map(|line| Shared::new(line.cast()));
        Self { tiles, isa, rows, group, m, n, left, right, to }
    }

    /// Columns of the panels of `Y`, with those that fill the last one.
    pub fn panels(&self) -> usize {
        self.n.next_multiple_of(across::<f32>(self.isa))
    }

    /// Pieces of a whole group.
    fn each(&self) -> usize {
        self.group.div_ceil(DEPTH)
    }

    /// Takes group `i` of `X`, row by row.
    ///
    /// # Safety
    /// Each group is given once, and no two calls for the same one run at the same time.
    pub unsafe fn left(&self, i: usize, xs: &[f32]) {
        let (rows, blocks) = (xs.len() / self.m, self.m.div_ceil(BLOCK));
        assert!(i * self.group + rows <= self.rows && rows <= self.group, "a group beyond the rows");
        let len = rows.div_ceil(DEPTH) * blocks * PIECE;
        // SAFETY: the place of this group in the capacity, which no other call writes.
        let to = unsafe {
            let first = self.to[0].get().add(i * self.each() * blocks * PIECE);
            std::slice::from_raw_parts_mut(first, len)
        };
        f32::dispatch(self.isa, Turn { xs, m: self.m, to });
    }

    /// Takes group `i` of `Y`: row by row, or in panels.
    ///
    /// # Safety
    /// As [`Gathered::left`].
    pub unsafe fn right(&self, i: usize, rows: usize, ys: Left<'_, f32>) {
        assert!(i * self.group + rows <= self.rows && rows <= self.group, "a group beyond the rows");
        let blocks = self.n.div_ceil(BLOCK);
        let len = rows.div_ceil(DEPTH) * blocks * PIECE;
        // SAFETY: the place of this group in the capacity, which no other call writes.
        let to = unsafe {
            let first = self.to[1].get().add(i * self.each() * blocks * PIECE);
            std::slice::from_raw_parts_mut(first, len)
        };
        let width = across::<f32>(self.isa);
        run(self.isa, Pairs { ys, rows, n: self.n, width, to });
    }

    /// The product `(m, n)`, or its transpose, on all threads.
    ///
    /// # Safety
    /// Every group of both sides was given.
    pub unsafe fn product(mut self, transposed: bool) -> Vec<f32> {
        let (down, along) = (self.m.div_ceil(BLOCK), self.n.div_ceil(BLOCK));
        let pieces = pieces(self.rows, self.group);
        // SAFETY: by the caller all of it is written.
        unsafe {
            self.left.set_len(lines(pieces * down * PIECE));
            self.right.set_len(lines(pieces * along * PIECE));
        }
        let (tall, wide) = (down.div_ceil(TASK.0), along.div_ceil(TASK.1));
        // Parts of the rows, so that there is work for several threads; a function of the shape.
        let parts = TASKS.div_ceil(tall * wide).min(pieces / LEAST).max(1);
        let share = pieces.div_ceil(parts);
        let (left, right) = (elements(&self.left), elements(&self.right));
        let fill = |out: Shared<Sums>| {
            (0..parts * tall * wide).into_par_iter().for_each(|task| {
                let (part, i, j) = (task / (tall * wide), task / wide % tall * TASK.0, task % wide * TASK.1);
                let blocks = || {
                    let columns = j..(j + TASK.1).min(along);
                    columns.flat_map(|j| (i..(i + TASK.0).min(down)).map(move |i| (i, j)))
                };
                let own = part * share..((part + 1) * share).min(pieces);
                // SAFETY: the sums of these blocks and this part belong to this task, which begins with zeros.
                let sums = |i: usize, j: usize| unsafe { &mut *out.get().add((part * down + i) * along + j) };
                for (i, j) in blocks() {
                    // SAFETY: as above; the place is written before anything reads it.
                    unsafe { out.get().add((part * down + i) * along + j).write(Sums::default()) };
                }
                self.tiles.with(SHAPE, |session| {
                    for from in own.clone().step_by(CHUNK) {
                        for (i, j) in blocks() {
                            session.load(sums(i, j));
                            for piece in from..(from + CHUNK).min(own.end) {
                                let a = &left[(piece * down + i) * PIECE..][..PIECE];
                                let b = &right[(piece * along + j) * PIECE..][..PIECE];
                                // SAFETY: two whole tiles on either side.
                                unsafe { session.add(halves(a), halves(b)) };
                            }
                            session.store(sums(i, j));
                        }
                    }
                });
            });
        };
        // SAFETY: the tasks write the sums of all blocks and parts.
        let sums = unsafe { filled(parts * down * along, fill) };
        let (m, n) = (self.m, self.n);
        let (height, width) = if transposed { (n, m) } else { (m, n) };
        let mut result = vec![0f32; m * n];
        result.par_chunks_mut(BLOCK * width).enumerate().for_each(|(block, rows)| {
            for other in 0..width.div_ceil(BLOCK) {
                let (i, j) = if transposed { (other, block) } else { (block, other) };
                let mut own = sums[i * along + j].clone();
                for part in 1..parts {
                    let more = &sums[(part * down + i) * along + j];
                    own.0
                        .as_flattened_mut()
                        .iter_mut()
                        .zip(more.0.as_flattened())
                        .for_each(|(x, y)| *x += *y);
                }
                let columns = BLOCK.min(width - other * BLOCK);
                for (r, row) in rows.chunks_exact_mut(width).enumerate().take(height - block * BLOCK) {
                    for (half, to) in row[other * BLOCK..][..columns].chunks_mut(COLUMNS).enumerate() {
                        if transposed {
                            let from = &own.0[half * 2 + r / COLUMNS][r % COLUMNS..];
                            to.iter_mut().zip(from.iter().step_by(COLUMNS)).for_each(|(to, x)| *to = *x);
                        } else {
                            let from = &own.0[r / ROWS * 2 + half][r % ROWS * COLUMNS..];
                            to.copy_from_slice(&from[..to.len()]);
                        }
                    }
                }
            }
        });
        result
    }
}

/// Pieces of rows in groups.
fn pieces(rows: usize, group: usize) -> usize {
    let whole = rows / group;
    whole * group.div_ceil(DEPTH) + (rows - whole * group).div_ceil(DEPTH)
}

/// Tiles of the left side of `X^T Y`: pieces of 32 rows, and in each the blocks of 32 columns, a column after the other.
struct Turn<'a> {
    xs: &'a [f32],
    m: usize,
    to: &'a mut [bf16],
}

impl Kernel<f32> for Turn<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) {
        let Self { xs, m, to } = self;
        let (rows, blocks) = (xs.len() / m, m.div_ceil(BLOCK));
        let mut stage = [[0f32; DEPTH]; ROWS];
        for (at, to) in to.chunks_exact_mut(PIECE / 2).enumerate() {
            let (piece, first) = (at / 2 / blocks, at / 2 % blocks * BLOCK + at % 2 * ROWS);
            let begin = piece * DEPTH;
            let (columns, own) = (ROWS.min(m.saturating_sub(first)), DEPTH.min(rows - begin));
            if columns < ROWS || own < DEPTH {
                stage = [[0f32; DEPTH]; ROWS];
            }
            let lanes = S::LANES;
            let (whole, squares) = (columns / lanes * lanes, own / lanes * lanes);
            for c in (0..whole).step_by(lanes) {
                for r in (0..squares).step_by(lanes) {
                    // SAFETY: a square of `lanes` rows and columns within the group and within the stage.
                    unsafe {
                        let from = xs.as_ptr().add((begin + r) * m + first + c);
                        S::transpose(from, m, stage[c].as_mut_ptr().add(r), DEPTH);
                    }
                }
            }
            for (c, to) in stage.iter_mut().enumerate().take(columns) {
                for r in if c < whole { squares..own } else { 0..own } {
                    to[r] = xs[(begin + r) * m + first + c];
                }
            }
            // SAFETY: by the caller.
            unsafe { round::<S>(stage.as_flattened(), to) };
        }
    }
}

/// Tiles of the right side of `X^T Y`: pieces of 32 rows, and in each the blocks of 32 columns, pairs of rows together.
struct Pairs<'a> {
    ys: Left<'a, f32>,
    rows: usize,
    n: usize,
    /// Columns of a panel.
    width: usize,
    to: &'a mut [bf16],
}

impl Task for Pairs<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { ys, rows, n, width, to } = self;
        let blocks = n.div_ceil(BLOCK);
        for (at, to) in to.chunks_exact_mut(PIECE / 2).enumerate() {
            let (piece, first) = (at / 2 / blocks, at / 2 % blocks * BLOCK + at % 2 * COLUMNS);
            let columns = COLUMNS.min(n.saturating_sub(first));
            if columns == 0 {
                to.fill(bf16::ZERO);
                continue;
            }
            let (begin, own) = (piece * DEPTH, DEPTH.min(rows - piece * DEPTH));
            match ys {
                Left::Rows(ys) => pairs(&ys[begin * n + first..], n, (own, columns), to),
                Left::Panels(ys) if width % COLUMNS == 0 => {
                    let at = (first / width * rows + begin) * width + first % width;
                    pairs(&ys[at..], width, (own, columns), to);
                }
                // Narrow panels: several make a tile.
                Left::Panels(ys) => {
                    let mut stage = [[0f32; COLUMNS]; DEPTH];
                    for (r, row) in stage.iter_mut().enumerate().take(own) {
                        for (to, c) in row[..columns].chunks_mut(width).zip((first..).step_by(width)) {
                            let from = (c / width * rows + begin + r) * width + c % width;
                            to.copy_from_slice(&ys[from..][..to.len()]);
                        }
                    }
                    pairs(stage.as_flattened(), COLUMNS, (own, columns), to);
                }
            }
        }
    }
}
