//! Batch statistics over processes that hold parts of one batch.

use std::fmt::Debug;

/// What a normalization needs of the other processes that hold parts of its batch: their numbers.
///
/// Moments are merged, and the two sums of the gradient added, in the order in which the processes come, in f64: all of
/// them get the same bits.
pub trait Peers: Debug + Send + Sync {
    /// The numbers of every process, in the order of processes, which is the same on all; each gives as many.
    ///
    /// # Errors
    /// A process that is gone.
    fn gather(&self, own: &[f64]) -> candle_core::Result<Vec<Vec<f64>>>;
}

/// The mean and the biased variance of each channel over all processes, from those over the `count` values of each
/// channel here; with the number of values everywhere. The parallel formula of Chan, Golub and LeVeque.
pub(crate) fn join_moments(
    peers: &dyn Peers,
    own: &[(f64, f64)],
    count: usize,
) -> candle_core::Result<(Vec<(f64, f64)>, usize)> {
    let mut message = vec![count as f64];
    message.extend(own.iter().flat_map(|(mean, var)| [*mean, *var]));
    let mut all = vec![(0.0, 0.0); own.len()];
    let mut total = 0.0;
    for part in peers.gather(&message)? {
        let Some((size, moments)) = part.split_first().filter(|(_, rest)| rest.len() == 2 * own.len()) else {
            return Err(unlike());
        };
        let sum = total + size;
        // A process without rows has no moments.
        if *size > 0.0 {
            for ((mean, m2), part) in all.iter_mut().zip(moments.as_chunks::<2>().0) {
                let delta = part[0] - *mean;
                *mean += delta * size / sum;
                *m2 += part[1] * size + delta * delta * total * size / sum;
            }
        }
        total = sum;
    }
    all.iter_mut().for_each(|(_, m2)| *m2 /= total);
    Ok((all, total as usize))
}

/// Two sums for each channel over all processes.
pub(crate) fn join_sums(peers: &dyn Peers, own: &[(f64, f64)]) -> candle_core::Result<Vec<(f64, f64)>> {
    let message: Vec<f64> = own.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let mut all = vec![(0.0, 0.0); own.len()];
    for part in peers.gather(&message)? {
        if part.len() != message.len() {
            return Err(unlike());
        }
        for (all, part) in all.iter_mut().zip(part.as_chunks::<2>().0) {
            *all = (all.0 + part[0], all.1 + part[1]);
        }
    }
    Ok(all)
}

fn unlike() -> candle_core::Error {
    candle_core::Error::Msg("batch norm: another process has another number of channels".into())
}
