//! Statistics that several processes take together.

use candle_core::Result;
use std::sync::Arc;

/// The other processes of a run, for operations whose statistics are those of the batches of all of them.
///
/// Every process calls the same operations in the same order, backward passes included. This crate knows no
/// transport; whoever has one implements the two exchanges of numbers.
pub trait Peers: std::fmt::Debug + Send + Sync {
    /// Replaces numbers by their sums over all processes, the same bits on each.
    ///
    /// # Errors
    /// Those of the transport.
    fn sum(&self, values: &mut [f64]) -> Result<()>;

    /// What every process gives, in an order that is the same for all.
    ///
    /// # Errors
    /// Those of the transport.
    fn gather(&self, values: &[f64]) -> Result<Vec<Vec<f64>>>;

    /// The number of processes.
    fn size(&self) -> usize;
}

/// Makes the mean and biased variance of `count` values for each channel those of all processes, by the formula of
/// Chan et al.; returns the number of values of all of them. One message.
pub(crate) fn merge(
    peers: Option<&Arc<dyn Peers>>,
    moments: &mut [(f64, f64)],
    count: usize,
) -> Result<usize> {
    let Some(peers) = peers else { return Ok(count) };
    let mut message = vec![count as f64];
    message.extend(moments.iter().flat_map(|(mean, var)| [*mean, *var]));
    let all = peers.gather(&message)?;
    let mut total = 0.0;
    let mut merged = vec![(0.0, 0.0); moments.len()];
    for part in &all {
        if part.len() != message.len() {
            candle_core::bail!(
                "a norm of {} channels here and of {} on another process",
                moments.len(),
                part.len() / 2
            );
        }
        let (size, sum) = (part[0], total + part[0]);
        for ((mean, m2), part) in merged.iter_mut().zip(part[1..].chunks_exact(2)) {
            let delta = part[0] - *mean;
            *mean += delta * size / sum;
            *m2 += size * part[1] + delta * delta * total * size / sum;
        }
        total = sum;
    }
    for (to, (mean, m2)) in moments.iter_mut().zip(merged) {
        *to = (mean, m2 / total);
    }
    Ok(total as usize)
}

/// Makes pairs of sums those of all processes. One message.
pub(crate) fn add(peers: Option<&Arc<dyn Peers>>, sums: &mut [(f64, f64)]) -> Result<()> {
    let Some(peers) = peers else { return Ok(()) };
    let mut message: Vec<f64> = sums.iter().flat_map(|(a, b)| [*a, *b]).collect();
    peers.sum(&mut message)?;
    for (to, pair) in sums.iter_mut().zip(message.chunks_exact(2)) {
        *to = (pair[0], pair[1]);
    }
    Ok(())
}
