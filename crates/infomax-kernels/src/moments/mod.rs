//! What objectives are made of: second moments, scores and distances of all pairs, log-determinants,
//! characteristic functions.

#[allow(unsafe_code)]
pub(crate) mod characteristic;
#[allow(unsafe_code)]
pub mod columns;
pub(crate) mod log_det;
#[allow(unsafe_code)]
pub mod pairwise;
