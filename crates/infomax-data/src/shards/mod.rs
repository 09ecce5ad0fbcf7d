//! Many encoded images in few files: tar shards and parquet shards.

#[cfg(feature = "parquet")]
mod parquet;
mod tar;

#[cfg(feature = "parquet")]
pub use parquet::ParquetShards;
pub use tar::TarShards;
pub(crate) use tar::{compressed, is_compressed};
