//! The emulation against f64 and against the machine, and whole products.

use super::*;
use crate::element::Stored as _;

/// Numbers of a sequence: a hash of the place.
fn hash(seed: u32, i: usize) -> u32 {
    (seed.wrapping_mul(0x9e37_79b9) ^ i as u32)
        .wrapping_mul(2_654_435_761)
        .rotate_left(13)
        .wrapping_mul(0x85eb_ca6b)
}

/// Between -1 and 1.
fn near(seed: u32, i: usize) -> f32 {
    (hash(seed, i) >> 8) as f32 / 8_388_608.0 - 1.0
}

fn bf16s(seed: u32, count: usize, of: impl Fn(u32, usize) -> bf16) -> Vec<bf16> {
    (0..count).map(|i| of(seed, i)).collect()
}

const PITCH: (usize, usize) = (2 * PAIRS, 2 * COLUMNS);

/// The four sums of `rounds` products of the same tiles.
fn run(isa: Isa, shape: Shape, a: [&[bf16]; 2], b: [&[bf16]; 2], rounds: usize) -> [[f32; SUMS]; 4] {
    let mut to = Sums([[f32::NAN; SUMS]; 4]);
    TileIsa::of(isa).unwrap().with(shape, |session| {
        session.zero();
        for _ in 0..rounds {
            // SAFETY: the tests give whole tiles.
            unsafe { session.add(a.map(<[bf16]>::as_ptr), b.map(<[bf16]>::as_ptr)) };
        }
        session.store(&mut to);
    });
    to.0
}

/// Every instruction set with tiles.
fn all() -> impl Iterator<Item = Isa> {
    Isa::tested().filter(|isa| TileIsa::of(*isa).is_some())
}

#[test]
fn the_unit_is_there_or_says_why_not() {
    assert_eq!(Isa::available().contains(&Isa::Amx), has_pairs() && unit().is_ok());
    if let Err(absent) = unit() {
        assert!(absent.to_string().contains("AMX"), "{absent}");
        assert!(TileIsa::of(Isa::Amx).is_none());
    }
    assert!(TileIsa::of(Isa::EmulatedAmx).is_some() && TileIsa::of(Isa::Portable).is_none());
}

fn has_pairs() -> bool {
    Isa::available().contains(&Isa::Avx512Bf16)
}

/// One element: pairs `(x0, y0, x1, y1)`, in one product or each in one of its own.
fn one(pairs: &[[f32; 4]], apart: bool) -> f32 {
    let (mut a, mut b) = (vec![bf16::ZERO; ROWS * PITCH.0], vec![bf16::ZERO; PAIRS * PITCH.1]);
    let mut to = Sums([[f32::NAN; SUMS]; 4]);
    let shape = Shape { pairs: if apart { 1 } else { pairs.len() }, columns: 1, pitch: PITCH };
    TileIsa::of(Isa::EmulatedAmx).unwrap().with(shape, |session| {
        session.zero();
        for (k, [x0, y0, x1, y1]) in pairs.iter().enumerate() {
            let k = if apart { 0 } else { k };
            (a[2 * k], a[2 * k + 1]) = (bf16::from_f32(*x0), bf16::from_f32(*x1));
            (b[k * PITCH.1], b[k * PITCH.1 + 1]) = (bf16::from_f32(*y0), bf16::from_f32(*y1));
            if apart || k + 1 == pairs.len() {
                // SAFETY: whole tiles.
                unsafe { session.add([a.as_ptr(); 2], [b.as_ptr(); 2]) };
            }
        }
        session.store(&mut to);
    });
    to.0[0][0]
}

#[test]
fn the_emulation_rounds_as_the_manual_says() {
    let tiny = 2f32.powi(-24);
    // Both halves together are a whole step; one after the other they would be two lost halves of one.
    assert_eq!(one(&[[1.0, 1.0, 0.0, 0.0], [tiny, 1.0, tiny, 1.0]], true), 1.0 + 2.0 * tiny);
    // In one product the lower halves have their own sum: 1 + tiny rounds to 1, and the upper sum comes after it.
    assert_eq!(one(&[[1.0, 1.0, 0.0, 0.0], [tiny, 1.0, tiny, 1.0]], false), 1.0);
    // In the order of the pairs: two halves of a step before the 1 are a whole one, after it they are lost.
    assert_eq!(
        one(&[[tiny, 1.0, 0.0, 0.0], [tiny, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]], false),
        1.0 + 2.0 * tiny
    );
    assert_eq!(one(&[[1.0, 1.0, 0.0, 0.0], [tiny, 1.0, 0.0, 0.0], [tiny, 1.0, 0.0, 0.0]], false), 1.0);
    // A product below the normal numbers still counts in a fused sum, as a sum of its own it is zero.
    let small = f32::MIN_POSITIVE;
    let step = 2f32.powi(-60);
    assert_eq!(one(&[[step, step / 128.0, 0.0, 0.0]], false), 0.0);
    // Subnormal operands and results are zeros; the smallest normal number is none.
    assert_eq!(one(&[[small / 2.0, 1e30, 0.0, 0.0]], false), 0.0);
    assert_eq!(one(&[[small, 0.5, 0.0, 0.0]], false), 0.0);
    assert_eq!(one(&[[-small, 0.5, 0.0, 0.0]], false), 0.0);
    assert_eq!(one(&[[small, 1.0, 0.0, 0.0]], false), small);
    // A difference of normal numbers below them.
    assert_eq!(one(&[[small, 1.5, -small, 1.0]], false), 0.0);
    assert!(one(&[[f32::INFINITY, 0.0, 0.0, 0.0]], false).is_nan());
    assert_eq!(one(&[[f32::INFINITY, -1.0, 1.0, 1.0]], false), f32::NEG_INFINITY);
    assert!(one(&[[f32::INFINITY, 1.0, f32::INFINITY, -1.0]], false).is_nan());
}

#[test]
fn tiles_of_all_sizes_are_within_the_roundings_of_f64() {
    for isa in all() {
        for (seed, (pairs, columns)) in
            [(16, 16), (1, 1), (7, 16), (16, 8), (5, 3), (16, 1)].into_iter().enumerate()
        {
            let seed = seed as u32;
            let of =
                |seed, i| bf16::from_f32(near(seed, i) * 2f32.powi((hash(seed + 50, i) % 20) as i32 - 10));
            let a = [bf16s(seed, ROWS * PITCH.0, of), bf16s(seed + 10, ROWS * PITCH.0, of)];
            let b = [bf16s(seed + 20, PAIRS * PITCH.1, of), bf16s(seed + 30, PAIRS * PITCH.1, of)];
            let shape = Shape { pairs, columns, pitch: PITCH };
            let rounds = 3;
            let got = run(isa, shape, [&a[0], &a[1]], [&b[0], &b[1]], rounds);
            for (tile, sums) in got.iter().enumerate() {
                let (a, b) = (&a[tile / 2], &b[tile % 2]);
                for m in 0..ROWS {
                    for n in 0..COLUMNS {
                        let got = sums[m * COLUMNS + n];
                        if n >= columns {
                            assert!(got.is_nan(), "{isa:?}: column {n} of {columns} was written");
                            continue;
                        }
                        let (mut sum, mut size) = (0f64, 0f64);
                        for k in 0..2 * pairs {
                            let (x, y) = (a[m * PITCH.0 + k], b[k / 2 * PITCH.1 + 2 * n + k % 2]);
                            let product = f64::from(x.wide()) * f64::from(y.wide());
                            (sum, size) = (sum + product, size + product.abs());
                        }
                        let (sum, size) = (sum * f64::from(rounds as u32), size * f64::from(rounds as u32));
                        let bound = (pairs + 2 * rounds + 1) as f64 * 2f64.powi(-24) * size;
                        assert!(
                            (f64::from(got) - sum).abs() <= bound,
                            "{isa:?} tile {tile} ({m}, {n}): {got:e} instead of {sum:e} +- {bound:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_machine_computes_as_the_emulation() {
    // Bits of all kinds: signs, exponents, subnormal numbers, infinities, NaN.
    let any = |seed, i| bf16::from_bits((hash(seed, i) >> 16) as u16);
    let close = |seed, i| bf16::from_f32(near(seed, i));
    for isa in all() {
        for seed in 0..if cfg!(miri) { 1 } else { 40 } {
            let of: &dyn Fn(u32, usize) -> bf16 = if seed % 2 == 0 { &any } else { &close };
            let side = |at: u32, len: usize| bf16s(seed + at, len, of);
            let a = [side(100, ROWS * PITCH.0), side(200, ROWS * PITCH.0)];
            let b = [side(300, PAIRS * PITCH.1), side(400, PAIRS * PITCH.1)];
            let shape = Shape { pairs: 1 + seed as usize % PAIRS, columns: COLUMNS, pitch: PITCH };
            let of = |isa| run(isa, shape, [&a[0], &a[1]], [&b[0], &b[1]], 2);
            let (got, expected) = (of(isa), of(Isa::EmulatedAmx));
            for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "{isa:?} {seed}: {got:e} instead of {expected:e}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "tiles inside of tiles")]
fn tiles_inside_of_tiles_are_refused() {
    let shape = Shape { pairs: 1, columns: 1, pitch: PITCH };
    let tiles = TileIsa::of(Isa::EmulatedAmx).unwrap();
    tiles.with(shape, |_| tiles.with(shape, |_| ()));
}

#[test]
fn tiles_are_free_again_after_a_panic() {
    let shape = Shape { pairs: 1, columns: 1, pitch: PITCH };
    let tiles = TileIsa::of(Isa::EmulatedAmx).unwrap();
    let caught = std::panic::catch_unwind(|| tiles.with(shape, |_| assert!(shape.pairs == 2, "on purpose")));
    assert!(caught.is_err());
    assert_eq!(tiles.with(shape, |_| 3), 3);
}

#[test]
fn a_split_factor_is_its_parts() {
    for i in 0..10_000 {
        let x = near(1, i) * 2f32.powi((hash(2, i) % 60) as i32 - 30);
        let (high, low) = (Factors::part(x, 0).wide(), Factors::part(x, 1).wide());
        let error = (f64::from(x) - f64::from(high) - f64::from(low)).abs();
        assert!(error <= f64::from(x.abs()) * 2f64.powi(-17), "{x:e} is not {high:e} + {low:e}");
    }
    assert_eq!(pieces(1), (1, 1));
    assert_eq!(pieces(32), (1, 16));
    assert_eq!(pieces(33), (2, 9));
    assert_eq!(pieces(64), (2, 16));
}

/// A product, and in f64 its elements and the sums of the absolute products.
fn products(isa: Isa, factors: Factors, (m, n, k): (usize, usize, usize), turned: (bool, bool)) -> f64 {
    let round = |x: f32| if factors == Factors::Rounded { bf16::narrow(x).wide() } else { x };
    let left: Vec<f32> = (0..m * k).map(|i| round(near(1, i))).collect();
    let right: Vec<f32> = (0..k * n).map(|i| round(near(2, i))).collect();
    let operand = |data, (rows, cols): (usize, usize), turned: bool| {
        let strides = if turned { (1, rows) } else { (cols, 1) };
        Operand { data, dims: (rows, cols), strides }
    };
    let (a, b) = (operand(&left, (m, k), turned.0), operand(&right, (k, n), turned.1));
    let got = product(TileIsa::of(isa).unwrap(), isa, factors, a, b);
    assert_eq!(got.len(), m * n);
    let value = |side: &Operand<'_>, i: usize, j: usize| {
        f64::from(side.data[i * side.strides.0 + j * side.strides.1])
    };
    let (mut worst, mut largest) = (0f64, 0f64);
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut size) = (0f64, 0f64);
            for p in 0..k {
                let product = value(&a, i, p) * value(&b, p, j);
                (sum, size) = (sum + product, size + product.abs());
            }
            let lost = if factors == Factors::Split { 2f64.powi(-15) } else { 0.0 };
            let error = (f64::from(got[i * n + j]) - sum).abs();
            let bound = (lost + (3 * k + 8) as f64 * 2f64.powi(-24)) * size;
            assert!(error <= bound, "{isa:?} {factors:?} {m}x{n}x{k} ({i}, {j}): {error:e} beyond {bound:e}");
            (worst, largest) = (worst.max(error), largest.max(sum.abs()));
        }
    }
    worst / largest
}

#[test]
fn products_of_all_shapes_are_those_of_f64() {
    for isa in all() {
        for (at, sizes) in
            [(1, 1, 1), (5, 3, 2), (32, 32, 32), (33, 31, 65), (16, 17, 31), (70, 40, 100), (1, 130, 7)]
                .into_iter()
                .enumerate()
        {
            let turned = (at % 2 == 1, at % 3 == 1);
            products(isa, Factors::Rounded, sizes, turned);
            let far = products(isa, Factors::Split, sizes, turned);
            // Relative to the largest result; of single products the bound in `products` is all that holds.
            assert!(far < 1e-5 || sizes.2 < 4, "{isa:?} {sizes:?}: {far:e}");
        }
    }
}

#[test]
fn products_have_the_same_bits_for_any_number_of_threads() {
    let (m, n, k) = (150, 140, 70);
    let left: Vec<f32> = (0..m * k).map(|i| near(1, i)).collect();
    let right: Vec<f32> = (0..k * n).map(|i| near(2, i)).collect();
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let a = Operand { data: &left, dims: (m, k), strides: (k, 1) };
        let b = Operand { data: &right, dims: (k, n), strides: (n, 1) };
        let isa = Isa::EmulatedAmx;
        pool.install(|| product(TileIsa::of(isa).unwrap(), isa, Factors::Split, a, b))
    };
    assert!(bits(1) == bits(3));
}

#[test]
fn an_empty_inner_dimension_is_a_sum_of_nothing() {
    let a = Operand { data: &[], dims: (2, 0), strides: (0, 1) };
    let b = Operand { data: &[], dims: (0, 3), strides: (3, 1) };
    let got = product(TileIsa::of(Isa::EmulatedAmx).unwrap(), Isa::Portable, Factors::Rounded, a, b);
    assert_eq!(got, [0.0; 6]);
}

#[test]
fn the_rule_takes_large_products_only() {
    assert!(product_pays((512, 512, 512), Factors::Rounded));
    assert!(product_pays((512, 512, 512), Factors::Split));
    // One row is a bandwidth, not an arithmetic; a narrow inner dimension is mostly packing.
    for factors in [Factors::Rounded, Factors::Split] {
        assert!(!product_pays((1, 512, 512), factors));
        assert!(!product_pays((512, 512, 1), factors));
        assert!(!product_pays((4, 4, 4), factors));
    }
    // What splitting pays for, rounding pays for.
    for size in [8, 16, 32, 64, 96, 128, 256, 1024] {
        assert!(
            !product_pays((size, size, size), Factors::Split)
                || product_pays((size, size, size), Factors::Rounded)
        );
    }
}

fn rounded(x: f32) -> f64 {
    f64::from(bf16::narrow(x).wide())
}

/// `(rows, n)` row by row as panels of `width` columns; columns beyond are `fill`.
fn panels(ys: &[f32], n: usize, width: usize, fill: f32) -> Vec<f32> {
    let rows = ys.len() / n;
    let of = |c: usize, r: usize| if c < n { ys[r * n + c] } else { fill };
    (0..n.next_multiple_of(width))
        .step_by(width)
        .flat_map(|first| (0..rows).flat_map(move |r| (first..first + width).map(move |c| of(c, r))))
        .collect()
}

/// Products of panels on tiles are sums of the rounded factors: rows and panels on either side, with bias and without.
#[test]
fn panels_on_tiles_are_products_of_rounded_factors() {
    use crate::gemm::{Left, Out, Panels, Source, across, multiply};
    for (rows, k, cols) in [(1, 1, 1), (33, 40, 37), (64, 96, 130), (70, 100, 16)] {
        let values = |seed: u32, len: usize| (0..len).map(|i| near(seed, i)).collect::<Vec<f32>>();
        let (a, b, bias, scale) =
            (values(1, rows * k), values(2, cols * k), values(3, cols), values(4, cols));
        let expected = |r: usize, c: usize| -> f64 {
            (0..k).map(|p| rounded(a[r * k + p]) * rounded(b[c * k + p] * scale[c])).sum::<f64>()
        };
        for isa in all() {
            let (tiles, width) = (TileIsa::of(isa), across::<f32>(isa));
            let padded = cols.next_multiple_of(width);
            let mut whole = bias.clone();
            whole.resize(padded, 0.0);
            let source = Source { data: &b, rows: cols, cols: k, transposed: true, scale: Some(&scale) };
            let in_panels = panels(&a, k, width, f32::NAN);
            // What fills the last panel of the left side is read as it is; a padded right side has zeros for it.
            let in_panels: Vec<f32> = in_panels.iter().map(|x| if x.is_nan() { 7.0 } else { *x }).collect();
            for left in [Left::Rows(&a), Left::Panels(&in_panels)] {
                let right = Panels::pack(isa, tiles, source, matches!(left, Left::Panels(_)));
                let close = |got: f32, expected: f64, at: &str| {
                    assert!(
                        (f64::from(got) - expected).abs() < 1e-5 * (k as f64).sqrt(),
                        "{at}: {got} {expected}"
                    );
                };
                let mut ys = vec![0.5f32; rows * cols];
                multiply(isa, rows, left, &right, None, Out::Rows(&mut ys, true));
                let mut zs = vec![f32::NAN; rows * padded];
                let mut seen = Vec::new();
                let mut done = |panel: usize, zs: &mut [f32]| {
                    assert_eq!(zs.len(), rows * width);
                    seen.push(panel);
                };
                multiply(isa, rows, left, &right, Some(&whole), Out::Panels(&mut zs, &mut done));
                assert_eq!(seen, (0..padded / width).collect::<Vec<_>>());
                for r in 0..rows {
                    for c in 0..padded {
                        let z = zs[(c / width * rows + r) * width + c % width];
                        if c >= cols {
                            assert!(z == 0.0, "{isa:?}: {z} beyond the columns");
                            continue;
                        }
                        close(ys[r * cols + c], 0.5 + expected(r, c), "rows");
                        close(z, f64::from(bias[c]) + expected(r, c), "panels");
                    }
                }
            }
        }
    }
}

/// Gradients of weights: `X^T Y` of groups of rows that come in any order.
#[test]
fn gathered_rows_are_products_of_rounded_factors() {
    use crate::gemm::{Left, across};
    for (rows, group, m, n) in [(1, 1, 1, 1), (70, 33, 37, 45), (640, 64, 32, 40), (1100, 195, 20, 130)] {
        let values = |seed: u32, len: usize| (0..len).map(|i| near(seed, i)).collect::<Vec<f32>>();
        let (xs, ys) = (values(5, rows * m), values(6, rows * n));
        let expected = |i: usize, j: usize| -> f64 {
            (0..rows).map(|r| rounded(xs[r * m + i]) * rounded(ys[r * n + j])).sum()
        };
        for isa in all() {
            let width = across::<f32>(isa);
            for in_panels in [false, true] {
                let of = |transposed: bool| {
                    let tiles = TileIsa::of(isa).unwrap();
                    let gathered = Gathered::new(tiles, isa, (rows, group), m, n);
                    assert_eq!(gathered.panels(), n.next_multiple_of(width));
                    for i in (0..rows.div_ceil(group)).rev() {
                        let own = group.min(rows - i * group);
                        let y = &ys[i * group * n..][..own * n];
                        let turned = panels(y, n, width, f32::NAN);
                        let right = if in_panels { Left::Panels(&turned[..]) } else { Left::Rows(y) };
                        // SAFETY: each group is given once.
                        unsafe {
                            gathered.left(i, &xs[i * group * m..][..own * m]);
                            gathered.right(i, own, right);
                        }
                    }
                    // SAFETY: all groups were given.
                    unsafe { gathered.product(transposed) }
                };
                let (straight, turned) = (of(false), of(true));
                for i in 0..m {
                    for j in 0..n {
                        let (got, expected) = (straight[i * n + j], expected(i, j));
                        let error = (f64::from(got) - expected).abs();
                        assert!(error < 1e-5 * (rows as f64).sqrt(), "{isa:?}: {got} {expected}");
                        assert_eq!(got.to_bits(), turned[j * m + i].to_bits());
                    }
                }
            }
        }
    }
}
