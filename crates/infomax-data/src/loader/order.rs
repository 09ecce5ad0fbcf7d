//! The order in which an epoch visits the samples.

use rand::{Rng, RngExt as _};

/// A permutation of `0..len`: of all samples where there are no more blocks than are mixed with each other, else of
/// the blocks, and of the samples within each few of them.
pub(super) fn order(len: usize, blocks: &[usize], mixed: usize, rng: &mut impl Rng) -> Vec<u32> {
    let mut order: Vec<u32>;
    if blocks.len() <= mixed {
        order = (0..len as u32).collect();
        shuffle(&mut order, rng);
        return order;
    }
    let starts = std::iter::once(0).chain(blocks.iter().copied());
    let mut ranges: Vec<(usize, usize)> = starts.zip(blocks.iter().copied()).collect();
    shuffle(&mut ranges, rng);
    order = Vec::with_capacity(len);
    for few in ranges.chunks(mixed.max(1)) {
        let from = order.len();
        few.iter().for_each(|(start, end)| order.extend(*start as u32..*end as u32));
        shuffle(&mut order[from..], rng);
    }
    order
}

/// A number below `len`.
pub(super) fn below(len: usize, rng: &mut impl Rng) -> usize {
    rng.random_range(0..len.max(1) as u64) as usize
}

/// Fisher and Yates' shuffle.
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    crate::dataset::shuffle(items, rng);
}

#[cfg(test)]
mod tests {
    use super::*;
    use infomax_core::Key;

    #[test]
    fn every_sample_once_and_few_blocks_at_a_time() {
        let blocks: Vec<usize> = (1..=40).map(|i| i * 25).collect();
        const MIXED: usize = 8;
        let order = order(1000, &blocks, MIXED, &mut Key::new(3).rng());
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        for window in order.chunks(MIXED * 25) {
            let mut touched: Vec<u32> = window.iter().map(|i| i / 25).collect();
            touched.sort_unstable();
            touched.dedup();
            assert_eq!(touched.len(), MIXED);
        }
        assert_ne!(order[..25], (order[0]..order[0] + 25).collect::<Vec<_>>()[..]);
        assert_ne!(order, super::order(1000, &blocks, MIXED, &mut Key::new(4).rng()));
        // All of them, where they fit: as without blocks.
        let free = super::order(1000, &[], MIXED, &mut Key::new(4).rng());
        assert_eq!(super::order(1000, &blocks, 40, &mut Key::new(4).rng()), free);
    }
}
