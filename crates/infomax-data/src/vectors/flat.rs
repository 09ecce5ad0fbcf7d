//! One matrix that lies in a file as it is: NumPy in C order, safetensors.

use super::scan::Sink;
use super::{Table, VectorOptions, Vectors};
use crate::arrays::Place;
use crate::npy::{MAX_HEADER, NpyHeader, Number, header};
use crate::{Error, Result, npy};
use candle_core::DType;
use safetensors::tensor::Metadata;
use std::path::Path;

/// Bytes that are read at once.
const CHUNK: usize = 8 << 20;

pub(super) fn read(path: &Path, kind: &str, options: &VectorOptions) -> Result<Vectors> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let place = Place::open(path)?;
    let header = match kind {
        "npy" => {
            let start = place.take(0, place.len().min(MAX_HEADER + 12)).map_err(io)?;
            header(&start).map_err(damaged)?
        }
        _ => tensor(path, &place, options.column.as_deref())?,
    };
    let (n, d) = match *header.shape.as_slice() {
        [n, d] => (n as usize, d as usize),
        [n, d, ref rest @ ..] if rest.iter().all(|one| *one == 1) => (n as usize, d as usize),
        ref other => {
            return Err(damaged(format!("embeddings are a matrix (samples, features), not {other:?}")));
        }
    };
    let size = header.number.size() as usize;
    let whole = header.bytes().and_then(|b| b.checked_add(header.offset));
    if header.number.is_text() || whole.is_none_or(|end| end > place.len()) {
        return Err(damaged("its data are shorter than its shape says, or are no numbers".into()));
    }
    let wide = matches!(header.number, Number::F64 | Number::I64 | Number::U64);
    let mut sink = Sink::new(n, d, wide, options);
    if !header.is_plain() {
        // Columns lie apart: the whole file is needed for any row.
        let values = npy::read(path)?.reshape((n, d))?;
        for i in 0..n {
            sink.push(&values.get(i)?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
        }
        return sink.finish(path, Table::default(), Vec::new());
    }
    let rows = (CHUNK / (d * size).max(1)).max(1);
    let mut row = Vec::with_capacity(d);
    for start in (0..n).step_by(rows) {
        let count = rows.min(n - start);
        let at = header.offset + (start * d * size) as u64;
        let bytes = place.take(at, (count * d * size) as u64).map_err(io)?;
        for own in bytes.chunks_exact((d * size).max(1)) {
            row.clear();
            row.extend(own.chunks_exact(size).map(|b| header.number.float(b)));
            sink.push(&row);
        }
    }
    sink.finish(path, Table::default(), Vec::new())
}

/// Where a tensor of a safetensors file lies.
fn tensor(path: &Path, place: &Place, name: Option<&str>) -> Result<NpyHeader> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let length = place.take(0, 8).map_err(io)?;
    let length = length.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    if length > (100 << 20) || length + 8 > place.len() {
        return Err(damaged("not a readable safetensors file: its header has no possible length".into()));
    }
    // `SafeTensors::read_metadata` wants the whole file in memory.
    let head = place.take(8, length).map_err(io)?;
    let all: Metadata = serde_json::from_slice(&head)
        .map_err(|e| damaged(format!("not a readable safetensors file: {e}")))?;
    let tensors = all.tensors();
    let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    names.sort_unstable();
    let name = match (name, names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, all) => {
            return Err(damaged(format!(
                "it holds {} tensors; name one: FILE:{}",
                all.len(),
                all.join(" | ")
            )));
        }
    };
    let Some(info) = tensors.get(name) else {
        return Err(damaged(format!("no tensor `{name}`; it has: {}", names.join(", "))));
    };
    let number = crate::arrays::tensors::number(info.dtype)
        .ok_or_else(|| damaged(format!("the tensor `{name}` is of type {:?}; save it as f32", info.dtype)))?;
    let shape = info.shape.iter().map(|d| *d as u64).collect();
    let offset = 8 + length + info.data_offsets.0 as u64;
    Ok(NpyHeader { number, shape, offset, fortran: false, big: false })
}
