//! Random numbers that depend on a key and on nothing else.

use crate::Result;
use candle_core::{DType, Device, Shape, Tensor};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// A seeded, counter-based source of random numbers.
///
/// A key is a value: folding data into it gives an independent key, and the numbers drawn from it never
/// depend on what else was drawn, on the order of work, or on the number of threads. So the augmentation
/// of sample `i`, view `v` in epoch `e` is `key.fold_in(e).fold_in(i).fold_in(v)`, whoever computes it.
///
/// The numbers come from ChaCha8 (Bernstein 2008) with the 128 bits of the key as its seed.
///
/// ```
/// use infomax_core::Key;
/// let key = Key::new(7).fold_named("augment");
/// assert_eq!(key.fold_in(3), key.fold_in(3));
/// assert_ne!(key.fold_in(3), key.fold_in(4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Key([u64; 2]);

impl Key {
    /// The key of a seed.
    pub fn new(seed: u64) -> Self {
        Self([mix(seed ^ 0x9e37_79b9_7f4a_7c15), mix(seed.rotate_left(32) ^ 0xd1b5_4a32_d192_ed03)])
    }

    /// The key of `data` under this key: a pseudo-random function of both.
    pub fn fold_in(self, data: u64) -> Self {
        let [a, b] = self.0;
        let x = mix(a ^ mix(data.wrapping_add(0x9e37_79b9_7f4a_7c15)));
        let y = mix(b.wrapping_add(x).rotate_left(23) ^ mix(data ^ 0xbf58_476d_1ce4_e5b9));
        Self([x, y])
    }

    /// The key of a name under this key (FNV-1a of its bytes, folded in with its length).
    pub fn fold_named(self, name: &str) -> Self {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.fold_in(hash).fold_in(name.len() as u64)
    }

    /// The generator of this key, at its start.
    pub fn rng(self) -> ChaCha8Rng {
        let mut seed = [0u8; 32];
        for (i, word) in [self.0[0], self.0[1], !self.0[0], self.0[1].rotate_left(17)].into_iter().enumerate()
        {
            seed[8 * i..8 * (i + 1)].copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(seed)
    }

    /// The two words of the key.
    pub fn words(self) -> [u64; 2] {
        self.0
    }

    /// A tensor of independent draws from `N(mean, std^2)`; the numbers are the same on every device.
    pub fn normal(
        self,
        mean: f64,
        std: f64,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut rng = self.rng();
        self.fill(shape.into(), dtype, device, || mean + std * rng.sample::<f64, _>(StandardNormal))
    }

    /// A tensor of independent draws from the uniform distribution on `[low, high)`.
    pub fn uniform(
        self,
        low: f64,
        high: f64,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut rng = self.rng();
        self.fill(shape.into(), dtype, device, || low + (high - low) * rng.random::<f64>())
    }

    fn fill(
        self,
        shape: Shape,
        dtype: DType,
        device: &Device,
        mut draw: impl FnMut() -> f64,
    ) -> Result<Tensor> {
        let values: Vec<f64> = (0..shape.elem_count()).map(|_| draw()).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }
}

/// 64 bits of a row of numbers, taken one after the other: equal rows have equal hashes, and rows that differ have unequal ones but
/// for one pair in `2^64`. Of zeros both signs are equal.
///
/// ```
/// use infomax_core::ValueHash;
/// assert_eq!(ValueHash::of(&[0.0, 1.5]), ValueHash::of(&[-0.0, 1.5]));
/// assert_ne!(ValueHash::of(&[0.0, 1.5]), ValueHash::of(&[1.5, 0.0]));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ValueHash(u64);

impl ValueHash {
    /// The hash of a whole row.
    pub fn of(values: &[f64]) -> Self {
        let mut hash = Self::default();
        values.iter().for_each(|v| hash.push(*v));
        hash
    }

    /// The next number.
    pub fn push(&mut self, value: f64) {
        // What was there is moved, so that the order counts.
        self.0 = mix(self.0.rotate_left(17).wrapping_add(0x9e37_79b9_7f4a_7c15) ^ (value + 0.0).to_bits());
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection with full avalanche.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn folding_gives_distinct_keys() {
        let keys: HashSet<_> = (0..100u64)
            .flat_map(|seed| (0..100).map(move |i| Key::new(seed).fold_in(i)))
            .chain((0..100).map(|i| Key::new(0).fold_in(1).fold_in(i)))
            .collect();
        assert_eq!(keys.len(), 10_100);
    }

    #[test]
    fn rows_of_values_have_hashes_of_their_own() {
        let rows = (0..60).flat_map(|a| (0..60).map(move |b| [f64::from(a), f64::from(b) * 0.5, -1.0]));
        let hashes: HashSet<ValueHash> = rows.map(|row| ValueHash::of(&row)).collect();
        assert_eq!(hashes.len(), 3_600);
        assert_ne!(ValueHash::of(&[0.0]), ValueHash::of(&[0.0, 0.0]), "lengths differ");
    }

    #[test]
    fn order_of_folding_matters() {
        assert_ne!(Key::new(1).fold_in(2).fold_in(3), Key::new(1).fold_in(3).fold_in(2));
        assert_ne!(Key::new(1).fold_named("ab"), Key::new(1).fold_named("ba"));
    }

    #[test]
    fn draws_have_the_asked_moments() {
        let x = Key::new(3).normal(1.0, 2.0, 100_000, DType::F64, &Device::Cpu).unwrap();
        let x = x.to_vec1::<f64>().unwrap();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
        assert!((mean - 1.0).abs() < 0.03 && (var - 4.0).abs() < 0.08, "{mean} {var}");
        let u = Key::new(3).uniform(-1.0, 1.0, 100_000, DType::F64, &Device::Cpu).unwrap();
        let u = u.to_vec1::<f64>().unwrap();
        assert!(u.iter().all(|v| (-1.0..1.0).contains(v)));
        assert!((u.iter().map(|v| v * v).sum::<f64>() / u.len() as f64 - 1.0 / 3.0).abs() < 0.01);
    }
}
