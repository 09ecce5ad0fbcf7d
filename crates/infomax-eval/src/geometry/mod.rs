//! The shape of the cloud: pairs, neighbors, dimension, clusters, and two clouds beside each other.

mod uniformity;

pub use uniformity::{alignment, uniformity, uniformity_estimate};
