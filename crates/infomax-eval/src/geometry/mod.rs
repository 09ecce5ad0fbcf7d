//! The shape of the cloud: pairs, neighbors, dimension, clusters, and two clouds beside each other.

mod dimension;
mod hubs;
mod map;
mod neighbors;
mod silhouette;
mod similarity;
mod uniformity;

pub use dimension::{DimensionConfig, IntrinsicDimension, intrinsic_dimension};
pub use hubs::{Hubness, Overlap, hubness, neighbor_overlap};
pub use map::{Map, NeighborMapConfig, neighbor_map, principal_map};
pub use neighbors::{Metric, Neighbors, nearest_neighbors};
pub(crate) use neighbors::{nearest, smallest};
pub use silhouette::{Silhouette, silhouette};
pub use similarity::{LinearCka, linear_cka};
pub use uniformity::{alignment, uniformity, uniformity_estimate};
