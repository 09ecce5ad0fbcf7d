//! Embeddings from files, row by row, and tables of texts and numbers beside them.
//!
//! A file is read in pieces. Where it holds more than is wanted, rows are drawn by a seed, and what can be known of all
//! rows in one pass is counted on the way ([`Scan`]).

mod flat;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod scan;
mod table;
mod text;
#[cfg(feature = "parquet")]
mod write;

pub use scan::Scan;
pub use table::{Table, read_table};
#[cfg(feature = "parquet")]
pub use write::{Cells, parquet_bytes};

use crate::{Error, Result};
use candle_core::Tensor;
use infomax_core::Key;
use std::path::Path;

/// What is read of a file of embeddings.
#[derive(Clone, Debug, Default)]
pub struct VectorOptions {
    /// The column, field or tensor; found by its type and name if `None`.
    pub column: Option<String>,
    /// At most so many rows are kept, drawn by the seed; all if `None`.
    pub most_rows: Option<usize>,
    /// The largest size that is kept, in bytes of f32, if `most_rows` is `None`.
    pub most_bytes: Option<u64>,
    /// The seed of the draw.
    pub seed: u64,
}

/// Embeddings of a file with what stands beside them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Vectors {
    /// `(rows, features)`, f32, or f64 where the file holds f64.
    pub values: Tensor,
    /// The number of each row in the file, ascending, if rows were drawn.
    pub drawn: Option<Vec<usize>>,
    /// What is known of all rows of the file, if rows were drawn.
    pub scan: Option<Scan>,
    /// The other columns, for the rows of `values`.
    pub table: Table,
    /// What was guessed or left out.
    pub notes: Vec<String>,
}

/// Names of columns that hold embeddings, the likelier ones first.
const NAMES: [&str; 10] =
    ["embedding", "embeddings", "vector", "vectors", "emb", "features", "feature", "z", "values", "x"];

/// Reads embeddings: `.npy` and `.safetensors` (a matrix), `.jsonl` and `.ndjson` (an array of numbers in each line, or
/// in a field of each line), `.csv`, `.tsv` and `.txt` (a table of numbers, of which a first line of names or of the
/// numbers `0, 1, ..` of the columns, and an index without a name, are left out), and with the feature `parquet` `.parquet` (a column of lists of numbers, or else all columns
/// of floating point).
///
/// # Errors
/// [`Error::Io`]; [`Error::Decode`] with the row and what is wrong in it, or with the columns that there are if none, or
/// more than one, can be meant.
pub fn read_vectors(path: &Path, options: &VectorOptions) -> Result<Vectors> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    readable(path)?;
    let kind = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match kind.as_str() {
        "npy" | "safetensors" => flat::read(path, &kind, options),
        "jsonl" | "ndjson" => lines::read(path, options),
        "csv" | "tsv" | "txt" => text::read(path, options),
        #[cfg(feature = "parquet")]
        "parquet" | "pq" => parquet::read(path, options),
        #[cfg(not(feature = "parquet"))]
        "parquet" | "pq" => Err(damaged("this build has no parquet; the feature `parquet` has it".into())),
        _ => Err(damaged("no kind of embeddings that is read in pieces".into())),
    }
}

/// Refuses a file that is not there, a folder, and a file without a byte.
fn readable(path: &Path) -> Result<()> {
    let meta = std::fs::metadata(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let refuse = |reason: &str| Err(Error::Decode { path: path.to_path_buf(), reason: reason.to_owned() });
    match meta.is_dir() {
        true => refuse("a folder, not a file"),
        false if meta.is_file() && meta.len() == 0 => refuse("an empty file: it holds no byte"),
        false => Ok(()),
    }
}

/// The rows that are kept of `n` with `d` columns; `None` for all.
fn draw(n: usize, d: usize, options: &VectorOptions) -> Option<Vec<usize>> {
    let bytes = options.most_bytes.map(|bytes| (bytes / (4 * d.max(1) as u64)).max(2) as usize);
    let most = options.most_rows.or(bytes).unwrap_or(n);
    if most >= n {
        return None;
    }
    // Selection sampling: the smallest `most` of one random number a row, ascending.
    let key = Key::new(options.seed).fold_named("rows of a file");
    let mut all: Vec<(u64, u32)> = (0..n).map(|i| (key.fold_in(i as u64).words()[0], i as u32)).collect();
    all.select_nth_unstable(most);
    let mut rows: Vec<usize> = all[..most].iter().map(|(_, i)| *i as usize).collect();
    rows.sort_unstable();
    Some(rows)
}

/// The column that holds embeddings among those that could: the one that is asked for, the only one, or the one whose
/// name says so.
fn chosen(path: &Path, asked: Option<&str>, candidates: &[String], others: &[String]) -> Result<usize> {
    let refuse = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let listed = |names: &[String]| names.join(", ");
    if let Some(name) = asked {
        return candidates.iter().position(|c| c == name).ok_or_else(|| {
            let all = if candidates.is_empty() { "none".into() } else { listed(candidates) };
            refuse(format!("`{name}` is no column of lists of numbers; such columns: {all}"))
        });
    }
    if candidates.len() == 1 {
        return Ok(0);
    }
    let named = NAMES.iter().find_map(|name| candidates.iter().position(|c| c.eq_ignore_ascii_case(name)));
    named.ok_or_else(|| {
        refuse(match candidates.is_empty() {
            true => format!("no column holds lists of numbers; its columns: {}", listed(others)),
            false => format!(
                "{} columns hold lists of numbers; name one: FILE:{}",
                candidates.len(),
                candidates.join(" | ")
            ),
        })
    })
}

#[cfg(test)]
mod tests;
