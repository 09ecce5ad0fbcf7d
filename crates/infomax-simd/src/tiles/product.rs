//! A matrix product on tiles: both sides are packed once, edges with zeros, and multiplied in blocks of 32 by 32.

use super::{COLUMNS, Cost, Factors, PAIRS, ROWS, Shape, Sums, TileIsa, pieces};
use crate::isa::Isa;
use crate::lanes::{Arith, Task, run};
use crate::vectors::{LINE, Shared, filled};
use half::bf16;
use rayon::prelude::*;

/// Rows and columns of a block of four tiles.
pub(super) const BLOCK: usize = 2 * ROWS;
/// Blocks of a task, down and across: the packed sides of a task of 512 inner elements take 256 KiB.
const TASK: usize = 4;

/// Elements of a line of the cache.
const LANES: usize = LINE / size_of::<bf16>();

/// A line of the cache: a buffer of them starts on one, and rows of tiles that lie on two lines cost twice as much.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line([bf16; LANES]);

impl Line {
    pub(super) const ZERO: Self = Self([bf16::ZERO; LANES]);
}

pub(super) fn elements(lines: &[Line]) -> &[bf16] {
    // SAFETY: the lines hold nothing else.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
}

pub(super) fn elements_mut(lines: &mut [Line]) -> &mut [bf16] {
    // SAFETY: the lines hold nothing else.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

/// A matrix in a slice, with any strides.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Rows and columns.
    pub dims: (usize, usize),
    /// Elements between rows, and between columns.
    pub strides: (usize, usize),
}

impl Operand<'_> {
    fn check(&self) {
        let ((rows, cols), (down, along)) = (self.dims, self.strides);
        assert!(
            rows == 0 || cols == 0 || (rows - 1) * down + (cols - 1) * along < self.data.len(),
            "a matrix beyond its slice"
        );
    }
}

/// Whether tiles are expected to multiply `(m, k)` by `(k, n)` faster than f32: a function of the sizes alone, by
/// [`Cost`].
pub fn product_pays((m, n, k): (usize, usize, usize), factors: Factors) -> bool {
    let (count, _) = pieces(k);
    let blocks = (m.div_ceil(BLOCK) * n.div_ceil(BLOCK)) as f64;
    let packed = ((m.next_multiple_of(BLOCK) + n.next_multiple_of(BLOCK)) * k * factors.parts()) as f64;
    let cost = Cost { tiles: 4.0 * blocks * (count * factors.terms().len()) as f64, packed };
    cost.beats(2.0 * (m * n * k) as f64, 1.0, 0.0)
}

/// `a b` for `a` `(m, k)` and `b` `(k, n)`, row by row, on all threads of the pool; sums in f32. Each element is one sum in
/// an order that depends on `k` alone, so that the bits do not depend on the number of threads.
///
/// # Panics
/// For inner sizes that differ, and matrices beyond their slices.
pub fn product(tiles: TileIsa, isa: Isa, factors: Factors, a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
    a.check();
    b.check();
    let ((m, k), (inner, n)) = (a.dims, b.dims);
    assert_eq!(k, inner, "the inner sizes of a product");
    if k == 0 || m * n == 0 {
        return vec![0.0; m * n];
    }
    let (count, pairs) = pieces(k);
    // Elements of a tile of each operand, of all parts and pieces of a block.
    let (left, right) = (ROWS * 2 * pairs, COLUMNS * 2 * pairs);
    let (left_block, right_block) = (factors.parts() * count * 2 * left, factors.parts() * count * 2 * right);
    let (down, across) = (m.div_ceil(BLOCK), n.div_ceil(BLOCK));
    let packed = |blocks: usize, len: usize, side: Operand<'_>, rows: bool| {
        let fill = |out: Shared<Line>| {
            (0..blocks).into_par_iter().for_each(|block| {
                // SAFETY: a block is a whole number of lines, and belongs to this task, which writes all of it.
                let to =
                    unsafe { std::slice::from_raw_parts_mut(out.get().cast::<bf16>().add(block * len), len) };
                run(isa, Pack { side, rows, first: block * BLOCK, count, pairs, to });
            });
        };
        // SAFETY: the tasks write all blocks.
        unsafe { filled(blocks * len / LANES, fill) }
    };
    // The right side is packed as the left one, by columns instead of rows and with the pairs of a row apart.
    let (lefts, rights) = (packed(down, left_block, a, true), packed(across, right_block, b, false));
    let (lefts, rights) = (elements(&lefts), elements(&rights));
    let steps: Vec<(usize, usize)> = (0..count)
        .flat_map(|piece| {
            let at = move |part: usize, tile: usize| (part * count + piece) * 2 * tile;
            factors.terms().iter().map(move |(x, y)| (at(*x, left), at(*y, right)))
        })
        .collect();
    let (tall, wide) = (down.div_ceil(TASK), across.div_ceil(TASK));
    let shape = Shape { pairs, columns: COLUMNS, pitch: (2 * pairs, 2 * COLUMNS) };
    let fill = |out: Shared<f32>| {
        (0..tall * wide).into_par_iter().for_each(|task| {
            let (i, j) = (task / wide * TASK, task % wide * TASK);
            tiles.with(shape, |session| {
                let mut sums = Sums::default();
                for j in j..(j + TASK).min(across) {
                    for i in i..(i + TASK).min(down) {
                        // SAFETY: the packed tiles of the blocks; the elements of the result belong to this task.
                        unsafe {
                            let x = lefts.as_ptr().add(i * left_block);
                            let y = rights.as_ptr().add(j * right_block);
                            session.zero();
                            for (a, b) in &steps {
                                session.add([x.add(*a), x.add(a + left)], [y.add(*b), y.add(b + right)]);
                            }
                            session.store(&mut sums);
                            write(&sums, (i * BLOCK, j * BLOCK), (m, n), out);
                        }
                    }
                }
            });
        });
    };
    // SAFETY: the tasks write all elements.
    unsafe { filled(m * n, fill) }
}

/// Copies what a block has of the result.
///
/// # Safety
/// `out` must be valid for the whole result, and its rows and columns in this block belong to the caller.
unsafe fn write(sums: &Sums, (i, j): (usize, usize), (m, n): (usize, usize), out: Shared<f32>) {
    for (tile, sums) in sums.0.iter().enumerate() {
        let (i, j) = (i + tile / 2 * ROWS, j + tile % 2 * COLUMNS);
        let columns = COLUMNS.min(n.saturating_sub(j));
        for (r, row) in sums.chunks_exact(COLUMNS).enumerate().take(m.saturating_sub(i)) {
            if columns > 0 {
                // SAFETY: row `i + r` and columns from `j` on are inside of the result.
                unsafe {
                    let to = out.get().add((i + r) * n + j);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), to, columns);
                }
            }
        }
    }
}

/// Packs a block of one side: `[part][piece][tile of two]`, and in a tile of the left side `[row][inner element]`, of the
/// right side `[pair][column][half]`.
struct Pack<'a> {
    side: Operand<'a>,
    /// The left side.
    rows: bool,
    first: usize,
    count: usize,
    pairs: usize,
    to: &'a mut [bf16],
}

impl Task for Pack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { side, rows, first, count, pairs, to } = self;
        // Outer elements (rows of the left, columns of the right side) and inner ones, with their distances.
        let ((outers, inners), (outer_step, inner_step)) = match rows {
            true => (side.dims, side.strides),
            false => ((side.dims.1, side.dims.0), (side.strides.1, side.strides.0)),
        };
        let depth = 2 * pairs;
        for (at, to) in to.chunks_exact_mut(ROWS * depth).enumerate() {
            let (part, piece, first) = (at / 2 / count, at / 2 % count, first + at % 2 * ROWS);
            let begin = piece * depth;
            let (own, have) =
                (ROWS.min(outers.saturating_sub(first)), depth.min(inners.saturating_sub(begin)));
            let from = |outer: usize, inner: usize| {
                &side.data[(first + outer) * outer_step + (begin + inner) * inner_step..]
            };
            let mut stage = [[0f32; 2 * PAIRS]; ROWS];
            if inner_step == 1 && have > 0 {
                for outer in 0..own {
                    stage[outer][..have].copy_from_slice(&from(outer, 0)[..have]);
                }
            } else {
                for inner in 0..have {
                    for outer in 0..own {
                        stage[outer][inner] = from(outer, inner)[0];
                    }
                }
            }
            if rows {
                for (to, row) in to.chunks_exact_mut(depth).zip(&stage) {
                    for (to, x) in to.iter_mut().zip(row) {
                        *to = Factors::part(*x, part);
                    }
                }
            } else {
                for (pair, to) in to.chunks_exact_mut(2 * COLUMNS).enumerate() {
                    for outer in 0..COLUMNS {
                        to[2 * outer] = Factors::part(stage[outer][2 * pair], part);
                        to[2 * outer + 1] = Factors::part(stage[outer][2 * pair + 1], part);
                    }
                }
            }
        }
    }
}
