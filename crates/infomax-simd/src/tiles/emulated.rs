//! The instruction in plain arithmetic: the same sums in the same order with the same roundings.

use super::{COLUMNS, PAIRS, ROWS, SUMS, Shape};
use crate::element::Stored as _;
use crate::isa::Isa;
use crate::lanes::{Arith, Task, run};
use half::bf16;

/// Zero, with its sign, for a subnormal number. (A result just below 2^-126 that rounds up to it is kept.)
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x }
}

/// `sums += a b` as the head of the module above states.
///
/// # Safety
/// `a` and `b` must be valid for the rows of `shape`.
pub(super) unsafe fn add(shape: Shape, a: *const bf16, b: *const bf16, sums: &mut [f32; SUMS]) {
    let Shape { pairs, columns, pitch } = shape;
    // The halves of the pairs, widened and flushed.
    let mut left = [[[0f32; PAIRS]; ROWS]; 2];
    let mut right = [[[0f32; COLUMNS]; PAIRS]; 2];
    for half in 0..2 {
        for k in 0..pairs {
            for m in 0..ROWS {
                // SAFETY: row `m` has `pairs` pairs, by the caller.
                left[half][m][k] = flush(unsafe { *a.add(m * pitch.0 + 2 * k + half) }.wide());
            }
            for n in 0..columns {
                // SAFETY: row `k` has `columns` pairs, by the caller.
                right[half][k][n] = flush(unsafe { *b.add(k * pitch.1 + 2 * n + half) }.wide());
            }
        }
    }
    run(Isa::detect(), Sums { pairs, columns, left: &left, right: &right, sums });
}

struct Sums<'a> {
    pairs: usize,
    columns: usize,
    left: &'a [[[f32; PAIRS]; ROWS]; 2],
    right: &'a [[[f32; COLUMNS]; PAIRS]; 2],
    sums: &'a mut [f32; SUMS],
}

impl Task for Sums<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for (m, c) in self.sums.chunks_exact_mut(COLUMNS).enumerate() {
            let mut halves = [[0f32; COLUMNS]; 2];
            for half in 0..2 {
                for k in 0..self.pairs {
                    let (x, ys) = (self.left[half][m][k], &self.right[half][k]);
                    for n in 0..COLUMNS {
                        // One rounding, also where it takes a function call.
                        halves[half][n] = flush(x.mul_add(ys[n], halves[half][n]));
                    }
                }
            }
            for n in 0..self.columns {
                c[n] = flush(flush(c[n]) + flush(halves[0][n] + halves[1][n]));
            }
        }
    }
}
