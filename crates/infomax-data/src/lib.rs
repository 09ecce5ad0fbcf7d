//! Image data sets, decoding, sampling and prefetching loaders.
//!
//! | item | what it is |
//! |---|---|
//! | [`Dataset`] | images by index, with labels where they are known |
//! | [`open`] | recognizes what lies at a path and opens it, whatever the format |
//! | [`Shapes`] | a procedural data set that needs no file: shapes under random pose, color, texture, clutter |
//! | [`ImageFolder`] | image files below a folder, labeled by sub-folder |
//! | [`ArrayImages`] | CIFAR, STL-10, MNIST's IDX, NumPy and safetensors arrays, read by position |
//! | [`TarShards`], `ParquetShards` | WebDataset and Hugging Face shards (feature `parquet`), with random access |
//! | [`Subset`] | a seeded, class-balanced choice of another data set |
//! | [`Loader`] | shuffled, augmented batches, made in parallel ahead of their use: an [`infomax_core::BatchSource`] |
//! | [`EvalLoader`], [`eval_tensors`] | every image once, in order, without randomness |
//!
//! The batch at a position depends on the key and the position alone: not on the number of workers, on
//! what was asked before, or on time.
//!
//! ```
//! use infomax_augment::{Augmenter, Recipe};
//! use infomax_core::BatchSource as _;
//! use infomax_data::{Loader, LoaderConfig, Shapes, ShapesConfig};
//! use std::sync::Arc;
//!
//! let data = Arc::new(Shapes::new(ShapesConfig { len: 64, ..ShapesConfig::default() })?);
//! let augmenter = Augmenter::new(&Recipe::preset("vicreg-cifar").expect("a preset"))?;
//! let mut loader = Loader::new(data, augmenter, LoaderConfig { batch: 16, ..LoaderConfig::default() })?;
//! let batch = loader.next_batch()?;
//! assert_eq!(batch.views[1].values.dims(), [16, 3, 32, 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arrays;
mod cache;
mod dataset;
mod decode;
mod encoded;
mod error;
mod eval;
mod folder;
mod labels;
mod loader;
mod mixing;
pub mod npy;
mod open;
mod options;
mod passed;
mod relabeled;
mod shapes;
mod shards;
mod split;
mod vectors;
mod verify;
mod zip_member;

pub use arrays::ArrayImages;
pub use dataset::{Dataset, Part, SizeRange, Subset};
pub use decode::{Format, Header, Limits, decode, decode_part, probe};
pub use error::{Error, Result};
pub use eval::{EvalBatch, EvalLoader, eval_tensors};
pub use folder::ImageFolder;
pub use loader::{Damaged, DamagedSamples, Loader, LoaderConfig, Renderer};
pub use mixing::Mixing;
pub use open::{Opened, open};
pub use options::{FolderOptions, Labels, OpenOptions, Skipped, Verify};
pub use shapes::{Shape, Shapes, ShapesConfig, Split};
#[cfg(feature = "parquet")]
pub use shards::ParquetShards;
pub use shards::TarShards;
#[cfg(feature = "parquet")]
pub use vectors::{Cells, parquet_bytes};
pub use vectors::{Scan, Table, VectorOptions, Vectors, read_table, read_vectors};
pub use zip_member::read_member;
pub use {candle_core, infomax_augment, infomax_core};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
