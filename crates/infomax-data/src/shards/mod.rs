//! Many encoded images in few files: tar shards and parquet shards.

#[cfg(feature = "parquet")]
mod columns;
mod keys;
#[cfg(feature = "parquet")]
mod parquet;
mod tar;
mod unpack;

#[cfg(feature = "parquet")]
pub use parquet::ParquetShards;
pub use tar::TarShards;
pub(crate) use unpack::{Packing, packing, refused};
