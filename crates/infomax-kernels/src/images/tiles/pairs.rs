//! Elements in parts, and in the pairs that tiles multiply.

use super::Maps;
use half::bf16;
use infomax_simd::tiles::{COLUMNS, Factors};
use infomax_simd::{Arith, Task};

/// One part of some factors.
pub(super) struct Parts<'a> {
    pub(super) from: &'a [f32],
    pub(super) part: usize,
    pub(super) to: &'a mut [bf16],
}

impl Task for Parts<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        part_of(self.from, self.part, self.to);
    }
}

#[inline(always)]
fn part_of(from: &[f32], part: usize, to: &mut [bf16]) {
    for (to, x) in to.iter_mut().zip(from) {
        *to = Factors::part(*x, part);
    }
}

/// One part of rows that follow each other, `lanes` elements each, into rows of another layout.
#[inline(always)]
pub(super) fn rows<'a>(from: Maps<'_>, lanes: usize, part: usize, to: impl Iterator<Item = &'a mut [bf16]>) {
    match from {
        Maps::Rounded(from) if lanes == COLUMNS => {
            // A length that the compiler knows is a vector.
            to.zip(from.chunks_exact(COLUMNS)).for_each(|(to, from)| to[..COLUMNS].copy_from_slice(from));
        }
        Maps::Rounded(from) => {
            to.zip(from.chunks_exact(lanes)).for_each(|(to, from)| to.copy_from_slice(from));
        }
        Maps::Split(from) => to.zip(from.chunks_exact(lanes)).for_each(|(to, from)| part_of(from, part, to)),
    }
}

/// Brings the channels of a pixel into pairs, `[part][pair][lane][half]`, filled up with zeros.
pub(super) struct Zip<'a> {
    pub(super) from: Maps<'a>,
    pub(super) lanes: usize,
    pub(super) parts: usize,
    pub(super) to: &'a mut [bf16],
}

impl Task for Zip<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { from, lanes, parts, to } = self;
        let whole = to.len() / parts;
        match from {
            Maps::Rounded(from) => zip_lanes(from, lanes, to, |x| x),
            Maps::Split(from) => {
                for (part, to) in to.chunks_exact_mut(whole).enumerate() {
                    zip_lanes(from, lanes, to, |x| Factors::part(x, part));
                }
            }
        }
    }
}

#[inline(always)]
fn zip_lanes<T: Copy>(from: &[T], lanes: usize, to: &mut [bf16], part: impl Fn(T) -> bf16 + Copy) {
    // A length that the compiler knows is a vector.
    match lanes {
        COLUMNS => zip(from, COLUMNS, to, part),
        _ => zip(from, lanes, to, part),
    }
}

#[inline(always)]
fn zip<T: Copy>(from: &[T], lanes: usize, to: &mut [bf16], part: impl Fn(T) -> bf16 + Copy) {
    let both = from.chunks_exact(2 * lanes);
    let last = both.remainder();
    let mut to = to.chunks_exact_mut(2 * lanes);
    for (from, to) in both.zip(&mut to) {
        let (a, b) = from.split_at(lanes);
        for ((to, a), b) in to.chunks_exact_mut(2).zip(a).zip(b) {
            to[0] = part(*a);
            to[1] = part(*b);
        }
    }
    if let (false, Some(to)) = (last.is_empty(), to.next()) {
        for (to, a) in to.chunks_exact_mut(2).zip(last) {
            to[0] = part(*a);
            to[1] = bf16::ZERO;
        }
    }
    for to in to {
        to.fill(bf16::ZERO);
    }
}
