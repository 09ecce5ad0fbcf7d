//! Many encoded images in few files: tar shards and parquet shards.

#[cfg(feature = "parquet")]
mod columns;
mod keys;
#[cfg(feature = "parquet")]
mod parquet;
mod tar;
mod unpack;

#[cfg(feature = "parquet")]
pub(crate) use columns::class_names;
#[cfg(feature = "parquet")]
pub use parquet::ParquetShards;
#[cfg(feature = "parquet")]
pub(crate) use parquet::{AtPlace, spread};
pub use tar::TarShards;
pub(crate) use unpack::{Packing, packing, refused};
