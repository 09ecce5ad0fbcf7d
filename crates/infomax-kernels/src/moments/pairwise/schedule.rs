//! Which pairs of blocks of rows are visited together.

/// Rounds of pairs `(i, j)`, `i > j`, of `blocks` blocks: every pair once, and no block twice in a round, so that
/// the pairs of a round may write to their own blocks at the same time. The order depends on `blocks` alone.
pub(super) fn rounds(blocks: usize) -> Vec<Vec<(usize, usize)>> {
    let even = blocks.next_multiple_of(2);
    if blocks < 2 {
        return Vec::new();
    }
    // The circle method: one seat is fixed, the others turn.
    let seats = even - 1;
    (0..seats)
        .map(|round| {
            let fixed = std::iter::once((even - 1, round));
            let turning = (1..even / 2).map(|k| ((round + k) % seats, (round + seats - k) % seats));
            let pairs = fixed.chain(turning).filter(|(i, j)| *i < blocks && *j < blocks);
            pairs.map(|(i, j)| (i.max(j), i.min(j))).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_pair_once_and_no_block_twice_in_a_round() {
        for blocks in 0..12 {
            let mut seen = std::collections::BTreeSet::new();
            for round in super::rounds(blocks) {
                let mut used = std::collections::BTreeSet::new();
                for (i, j) in round {
                    assert!(i > j && used.insert(i) && used.insert(j) && seen.insert((i, j)));
                }
            }
            assert_eq!(seen.len(), blocks * blocks.saturating_sub(1) / 2);
        }
    }
}
