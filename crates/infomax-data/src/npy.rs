//! NumPy's `.npy` files: reading versions 1.0 to 3.0 in C and Fortran order and either byte order, writing 1.0.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use crate::labels::{NONE, Value, number};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// Reads an array of floating-point numbers: a tensor of f32 or f64 (f16 is widened), in C order whatever the
/// file's.
///
/// # Errors
/// [`Error::Io`], or [`Error::Decode`] with what is damaged or what the elements are instead.
pub fn read(path: &Path) -> Result<Tensor> {
    parse(&bytes(path)?).map_err(|reason| damaged(path, reason))
}

/// The array of [`read`] out of the bytes of a file, for example those of a member of an archive; `path` is what
/// errors name.
///
/// # Errors
/// [`Error::Decode`] with what is damaged or what the elements are instead.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Tensor> {
    parse(bytes).map_err(|reason| damaged(path, reason))
}

/// Reads the labels of samples: whole numbers from 0 below `2^32 - 1`, of any type of integers or floating point or
/// boolean; names, which are numbered in the order of the alphabet; or a one-hot matrix.
///
/// # Errors
/// As [`read`]; a sample without a label, and an array that holds no labels.
pub fn read_labels(path: &Path) -> Result<Vec<u32>> {
    parse_labels(&bytes(path)?).map_err(|reason| damaged(path, format!("it does not hold labels: {reason}")))
}

/// The labels of [`read_labels`], of which some may be missing: negative numbers, NaN, empty texts.
///
/// # Errors
/// As [`read`], and an array that holds no labels.
pub fn read_some_labels(path: &Path) -> Result<Vec<Option<u32>>> {
    Ok(read_named_labels(path)?.0)
}

/// The labels of [`read_some_labels`], and the names of the classes by number, where the array holds names; else no
/// names.
///
/// # Errors
/// As [`read`], and an array that holds no labels.
pub fn read_named_labels(path: &Path) -> Result<(Vec<Option<u32>>, Vec<String>)> {
    decode_named_labels(path, &bytes(path)?)
}

/// [`read_named_labels`] of the bytes of such a file; `path` is what errors name.
///
/// # Errors
/// As [`read_named_labels`].
pub fn decode_named_labels(path: &Path, bytes: &[u8]) -> Result<(Vec<Option<u32>>, Vec<String>)> {
    let labels = (|| {
        let (header, data) = whole(bytes)?;
        let values = label_values(header.number, &header.shape, &data)?;
        if values.iter().any(|value| matches!(value, Value::Text(_))) {
            let numbered = number(&values, &[]);
            let labels = numbered.labels.into_iter();
            let labels: Result<Vec<Option<u32>>, String> =
                labels.map(|label| label.map(|label| Some(label).filter(|l| *l != NONE))).collect();
            return Ok::<_, String>((labels?, numbered.classes));
        }
        let label = |(i, value): (usize, Value)| match value {
            Value::Number(label) if label < 0 => Ok(None),
            Value::Number(label) => u32::try_from(label)
                .ok()
                .filter(|label| *label != NONE)
                .map(Some)
                .ok_or_else(|| format!("the label {label} of sample {i} is above 2^32 - 2")),
            Value::Wrong(reason) => Err(format!("sample {i}: {reason}")),
            _ => Ok(None),
        };
        let labels = values.into_iter().enumerate().map(label).collect::<Result<Vec<_>, String>>()?;
        Ok((labels, Vec::new()))
    })();
    labels.map_err(|reason| damaged(path, format!("it does not hold labels: {reason}")))
}

/// Writes a tensor of f32 or f64: first beside the file, then renamed, so that no reader sees a part of it.
///
/// # Errors
/// Another type; [`Error::Io`].
pub fn write(path: &Path, tensor: &Tensor) -> Result<()> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut out = text(tensor.dims(), tensor.dtype()).map_err(|reason| damaged(path, reason))?;
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    match tensor.dtype() {
        DType::F32 => out.extend(flat.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes())),
        _ => out.extend(flat.to_vec1::<f64>()?.iter().flat_map(|v| v.to_le_bytes())),
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = std::fs::File::create(&beside)?;
        std::io::Write::write_all(&mut file, &out)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        std::fs::remove_file(&beside).ok();
    }
    written.map_err(io)
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Decode { path: path.to_path_buf(), reason }
}

/// The type of the numbers of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    /// In safetensors only; NumPy has no such type.
    Bf16,
    F32,
    F64,
    /// Bytes, filled up with zeros to this length.
    Bytes(u32),
    /// Characters of four bytes each, filled up with zeros to this number.
    Text(u32),
}

impl Number {
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Bytes(length) => u64::from(length),
            Self::Text(length) => 4 * u64::from(length),
        }
    }

    /// The bytes of what a byte order applies to.
    fn word(self) -> usize {
        match self {
            Self::Bytes(_) => 1,
            Self::Text(_) => 4,
            other => other.size() as usize,
        }
    }

    /// One number of floating point, little-endian.
    pub(crate) fn float(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Self::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
            (Self::Bf16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f64(),
            (Self::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
            (Self::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => self.whole(bytes) as f64,
        }
    }

    /// One element, little-endian, as a label.
    pub(crate) fn value(self, bytes: &[u8]) -> Value {
        match self {
            Self::Bytes(_) => Value::of_text(&String::from_utf8_lossy(bytes)),
            Self::Text(_) => {
                let character = |b: &[u8; 4]| char::from_u32(u32::from_le_bytes(*b)).unwrap_or('?');
                Value::of_text(&bytes.as_chunks::<4>().0.iter().map(character).collect::<String>())
            }
            _ if self.is_float() => Value::of_float(self.float(bytes)),
            _ => Value::of_number(self.whole(bytes)),
        }
    }

    /// One whole number, little-endian.
    pub(crate) fn whole(self, bytes: &[u8]) -> i64 {
        let bits = bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        match self {
            Self::Bool => i64::from(bits != 0),
            Self::U8 | Self::U16 | Self::U32 => bits as i64,
            Self::I8 => i64::from(bits as u8 as i8),
            Self::I16 => i64::from(bits as u16 as i16),
            Self::I32 => i64::from(bits as u32 as i32),
            Self::U64 => i64::try_from(bits).unwrap_or(i64::MAX),
            Self::I64 => bits as i64,
            _ => i64::MIN,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Bytes(_) | Self::Text(_))
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NpyHeader {
    pub(crate) number: Number,
    pub(crate) shape: Vec<u64>,
    /// Where the data start.
    pub(crate) offset: u64,
    /// Whether the first index runs fastest.
    pub(crate) fortran: bool,
    /// Whether the most significant byte comes first.
    pub(crate) big: bool,
}

impl NpyHeader {
    /// Whether the data are in C order and little-endian as they lie.
    pub(crate) fn is_plain(&self) -> bool {
        !self.big && (!self.fortran || self.shape.len() < 2)
    }

    /// The bytes of all elements; `None` if they are too many to count.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.number.size(), |n, d| n.checked_mul(*d))
    }

    /// The data in C order, little-endian.
    pub(crate) fn arrange(&self, data: Vec<u8>) -> Vec<u8> {
        let size = self.number.size() as usize;
        let mut data = data;
        if self.big {
            data.chunks_exact_mut(self.number.word().max(1)).for_each(<[u8]>::reverse);
        }
        if !self.fortran || self.shape.len() < 2 {
            return data;
        }
        // The place in the file of the element at each place in C order.
        let dims: Vec<usize> = self.shape.iter().map(|d| *d as usize).collect();
        let mut strides = vec![size; dims.len()];
        for k in 1..dims.len() {
            strides[k] = strides[k - 1] * dims[k - 1];
        }
        let mut index = vec![0; dims.len()];
        let mut out = Vec::with_capacity(data.len());
        for _ in 0..data.len() / size.max(1) {
            let at: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
            out.extend_from_slice(&data[at..at + size]);
            for k in (0..index.len()).rev() {
                index[k] += 1;
                if index[k] < dims[k] {
                    break;
                }
                index[k] = 0;
            }
        }
        out
    }
}

/// The longest header that is read.
pub(crate) const MAX_HEADER: u64 = 1 << 16;

/// Reads a header out of the first bytes of a file.
pub(crate) fn header(bytes: &[u8]) -> Result<NpyHeader, String> {
    const CUT: &str = "damaged .npy: it ends within its header";
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not a .npy file")?;
    let (start, length) = match rest {
        [1, _, a, b, ..] => (10, usize::from(*b) << 8 | usize::from(*a)),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        [0 | 4.., ..] => return Err(".npy of an unknown version".into()),
        _ => return Err(CUT.into()),
    };
    if length as u64 > MAX_HEADER {
        return Err(format!(".npy with a header of {length} bytes; the limit is {MAX_HEADER}"));
    }
    let text = bytes.get(start..start + length).ok_or(CUT)?;
    let text = std::str::from_utf8(text).map_err(|_| "damaged .npy: its header is no text")?;
    let descr = entry(text, "descr").ok_or("damaged .npy: no `descr`")?;
    let descr = descr.trim().strip_prefix(['\'', '"']).and_then(|d| d.split(['\'', '"']).next());
    let descr = descr.ok_or("a .npy of records; only plain arrays are read")?;
    // On every machine that this is built for, the native order is the little one.
    let big = descr.starts_with('>');
    let number = match descr.trim_start_matches(['<', '>', '|', '=']) {
        "b1" => Number::Bool,
        "u1" => Number::U8,
        "i1" => Number::I8,
        "u2" => Number::U16,
        "i2" => Number::I16,
        "u4" => Number::U32,
        "i4" => Number::I32,
        "u8" => Number::U64,
        "i8" => Number::I64,
        "f2" => Number::F16,
        "f4" => Number::F32,
        "f8" => Number::F64,
        "V2" => {
            let need = "NumPy writes bfloat16 so, without its name; save z.astype(\"float32\")";
            return Err(format!("a .npy of type `{descr}`: {need}"));
        }
        other => match (other.split_at_checked(1), other.get(1..).and_then(|n| n.parse().ok())) {
            (Some(("S" | "a", _)), Some(length @ 1..=4096)) => Number::Bytes(length),
            (Some(("U", _)), Some(length @ 1..=4096)) => Number::Text(length),
            _ => {
                let need = match other.starts_with('O') {
                    true => {
                        "objects are not read: .astype(str) makes labels of them, .astype(\"float32\") numbers"
                    }
                    false => {
                        "booleans, integers, text, f2, f4 (float32) and f8 (float64) are read: \
                         z.astype(\"float32\")"
                    }
                };
                return Err(format!("a .npy of type `{descr}`; {need}"));
            }
        },
    };
    let order = entry(text, "fortran_order").ok_or("damaged .npy: no `fortran_order`")?.trim_start();
    let fortran = order.starts_with("True");
    if !fortran && !order.starts_with("False") {
        return Err("damaged .npy: its `fortran_order` is neither True nor False".into());
    }
    let shape = entry(text, "shape").ok_or("damaged .npy: no `shape`")?;
    let inner = shape.trim_start().strip_prefix('(').and_then(|s| s.split_once(')'));
    let (inner, _) = inner.ok_or("damaged .npy: its `shape` is no tuple")?;
    let shape: Result<Vec<u64>, _> =
        inner.split(',').map(str::trim).filter(|d| !d.is_empty()).map(str::parse).collect();
    let shape = shape.map_err(|_| "damaged .npy: its `shape` holds something else than numbers")?;
    Ok(NpyHeader { number, shape, offset: (start + length) as u64, fortran, big })
}

/// What follows the key of a dictionary that is written as Python does.
fn entry<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let at = text.find(&format!("'{key}'")).or_else(|| text.find(&format!("\"{key}\"")))?;
    text[at + key.len() + 2..].trim_start().strip_prefix(':')
}

/// A whole file: its header and its data in C order, little-endian.
fn whole(bytes: &[u8]) -> Result<(NpyHeader, Vec<u8>), String> {
    let header = header(bytes)?;
    let data = &bytes[header.offset as usize..];
    let expected = header.bytes().ok_or("damaged .npy: its shape is too large")?;
    if data.len() as u64 != expected {
        let (shape, size) = (&header.shape, header.number.size());
        let found = data.len();
        return Err(format!(
            "damaged .npy: {shape:?} elements of {size} bytes are {expected} bytes, but {found} follow"
        ));
    }
    let data = header.arrange(data.to_vec());
    Ok((header, data))
}

fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let (header, data) = whole(bytes)?;
    let dims: Vec<usize> = header.shape.iter().map(|d| *d as usize).collect();
    let dtype = match header.number {
        Number::F16 => DType::F16,
        Number::F32 => DType::F32,
        Number::F64 => DType::F64,
        other if other.is_text() => {
            let need = "numbers are needed: z.astype(\"float32\")";
            return Err(format!("its elements are `{other:?}`; {need}"));
        }
        other => {
            // Whole numbers and booleans: wide, so that up to 2^53 none changes.
            let size = other.size() as usize;
            let values: Vec<f64> = data.chunks_exact(size.max(1)).map(|b| other.float(b)).collect();
            return Tensor::from_vec(values, dims, &Device::Cpu).map_err(|e| e.to_string());
        }
    };
    let tensor = Tensor::from_raw_buffer(&data, dtype, &dims, &Device::Cpu).map_err(|e| e.to_string())?;
    let wide = if dtype == DType::F16 { DType::F32 } else { dtype };
    tensor.to_dtype(wide).map_err(|e| e.to_string())
}

fn parse_labels(bytes: &[u8]) -> Result<Vec<u32>, String> {
    let (header, data) = whole(bytes)?;
    let values = label_values(header.number, &header.shape, &data)?;
    if values.iter().any(|value| matches!(value, Value::Text(_))) {
        let label = |(i, label): (usize, Result<u32, String>)| match label {
            Ok(NONE) => Err(format!("sample {i} has no label")),
            label => label,
        };
        return number(&values, &[]).labels.into_iter().enumerate().map(label).collect();
    }
    let label = |(i, value): (usize, Value)| match value {
        Value::Number(label) => u32::try_from(label)
            .ok()
            .filter(|label| *label != NONE)
            .ok_or_else(|| format!("the label {label} of sample {i} is above 2^32 - 2")),
        Value::Wrong(reason) => Err(format!("sample {i}: {reason}")),
        _ => Err(format!("sample {i} has no label (-1 or NaN; a negative number is none)")),
    };
    values.into_iter().enumerate().map(label).collect()
}

/// The labels of an array whose first axis is that of the samples: one element each, or a one-hot row.
pub(crate) fn label_values(number: Number, shape: &[u64], data: &[u8]) -> Result<Vec<Value>, String> {
    let Some((samples, inner)) = shape.split_first() else {
        return Err("a vector of labels is needed, not a single number".into());
    };
    let width = inner.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).unwrap_or(0);
    let size = number.size() as usize;
    if width == 1 || (*samples == 1 && inner.len() == 1) {
        return Ok(data.chunks_exact(size.max(1)).map(|b| number.value(b)).collect());
    }
    if width == 0 || inner.len() != 1 || number.is_text() {
        return Err(format!("a vector, or a one-hot matrix of numbers, is needed, not the shape {shape:?}"));
    }
    let row = |(i, row): (usize, &[u8])| {
        let numbers: Vec<f64> = row.chunks_exact(size).map(|b| number.float(b)).collect();
        if let Some(other) = numbers.iter().find(|v| **v != 0.0 && **v != 1.0) {
            return Err(format!("a matrix {shape:?} that is not one-hot: row {i} holds {other}"));
        }
        let mut ones = numbers.iter().zip(0i64..).filter(|(v, _)| **v == 1.0).map(|(_, at)| at);
        match (ones.next(), ones.count()) {
            (None, _) => Ok(Value::Missing),
            (Some(at), 0) => Ok(Value::Number(at)),
            (Some(_), more) => Err(format!(
                "row {i} of a matrix {shape:?} has {} ones; several labels a sample are not read",
                more + 1
            )),
        }
    };
    data.chunks_exact(size * width as usize).enumerate().map(row).collect()
}

/// The header of version 1.0.
fn text(dims: &[usize], dtype: DType) -> Result<Vec<u8>, String> {
    const MAGIC: &[u8; 6] = b"\x93NUMPY";
    let descr = match dtype {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        other => return Err(format!("only f32 and f64 are written, not {other:?}")),
    };
    let shape: Vec<String> = dims.iter().map(ToString::to_string).collect();
    let comma = if dims.len() == 1 { "," } else { "" };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", shape.join(", "));
    // Magic, version, length and text fill a multiple of 64 bytes; the text ends with a newline.
    while !(MAGIC.len() + 4 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).map_err(|_| "a header of version 1.0 is shorter than 64 KiB")?;
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend(length.to_le_bytes());
    out.extend(text.bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn npy(version: u8, dict: &str) -> Vec<u8> {
        let mut out = b"\x93NUMPY".to_vec();
        out.extend([version, 0]);
        match version {
            1 => out.extend((dict.len() as u16).to_le_bytes()),
            _ => out.extend((dict.len() as u32).to_le_bytes()),
        }
        out.extend(dict.as_bytes());
        out
    }

    #[test]
    fn reads_both_versions() {
        let dict = "{'descr': '|u1', 'fortran_order': False, 'shape': (60000, 28, 28), }\n";
        let one = header(&npy(1, dict)).unwrap();
        assert_eq!((one.number, &one.shape[..], one.offset), (Number::U8, &[60000, 28, 28][..], 79));
        assert_eq!(header(&npy(2, dict)).unwrap().offset, 81);
        let scalar = header(&npy(1, "{'descr': '<i8', 'fortran_order': False, 'shape': (), }")).unwrap();
        assert_eq!((scalar.number, scalar.shape.len()), (Number::I64, 0));
    }

    #[test]
    fn refuses_what_it_does_not_read() {
        let message = |dict: &str| header(&npy(1, dict)).unwrap_err();
        assert!(
            message("{'descr': '|u1', 'fortran_order': Maybe, 'shape': (2,), }").contains("fortran_order")
        );
        assert!(message("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }").contains("|O"));
        assert!(
            message("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}").contains("records")
        );
        assert!(message("{'descr': '|u1', 'fortran_order': False, 'shape': (-2,), }").contains("shape"));
        assert!(header(b"\x93NUMPY\x01\x00\xff\xff{").unwrap_err().contains("within its header"));
        assert!(header(b"PK").is_err());
    }

    #[test]
    fn labels_of_every_type() {
        assert_eq!(Number::U8.value(&[255]), Value::Number(255));
        assert_eq!(Number::I8.value(&[255]), Value::Missing);
        assert!(matches!(Number::I32.value(&(-7i32).to_le_bytes()), Value::Wrong(_)));
        assert_eq!(Number::U64.whole(&u64::MAX.to_le_bytes()), i64::MAX);
        assert_eq!(Number::F16.value(&half::f16::from_f32(3.0).to_le_bytes()), Value::Number(3));
        assert_eq!(Number::Bf16.value(&half::bf16::from_f32(2.0).to_le_bytes()), Value::Number(2));
        assert_eq!(Number::F64.value(&f64::NAN.to_le_bytes()), Value::Missing);
        assert_eq!(Number::Bool.value(&[1]), Value::Number(1));
        assert_eq!(Number::Bytes(4).value(b"cat\0"), Value::Text("cat".into()));
        assert_eq!(Number::Text(2).value(&[104, 0, 0, 0, 0xe9, 0, 0, 0]), Value::Text("hé".into()));
    }

    #[test]
    fn one_hot_rows_are_labels() {
        let values = |rows: &[u8], width| label_values(Number::U8, &[rows.len() as u64 / width, width], rows);
        let (one, two) = (Value::Number(1), Value::Number(2));
        assert_eq!(values(&[0, 1, 0, 0, 0, 1, 0, 0, 0], 3).unwrap(), [one, two, Value::Missing]);
        assert!(values(&[0, 1, 1, 1], 2).unwrap_err().contains("2 ones"));
        assert!(values(&[0, 1, 0, 7], 2).unwrap_err().contains("row 1 holds 7"));
    }

    fn file(version: u8, descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut out = b"\x93NUMPY".to_vec();
        out.extend([version, 0]);
        if version == 1 {
            out.extend((text.len() as u16).to_le_bytes());
        } else {
            out.extend((text.len() as u32).to_le_bytes());
        }
        out.extend(text.bytes());
        out.extend(data);
        out
    }

    #[test]
    fn orders_versions_and_byte_orders_give_the_same() {
        let c: Vec<f32> = (0..6).map(|v| v as f32).collect(); // [[0, 1, 2], [3, 4, 5]]
        let f = [0f32, 3., 1., 4., 2., 5.];
        let little = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let big = c.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
        for version in [1, 2, 3] {
            for bytes in [
                file(version, "<f4", "False", "(2, 3)", &little(&c)),
                file(version, "<f4", "True", "(2, 3)", &little(&f)),
                file(version, ">f4", "False", "(2, 3)", &big),
            ] {
                let tensor = parse(&bytes).unwrap();
                assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[0., 1., 2.], [3., 4., 5.]]);
            }
        }
    }

    #[test]
    fn labels_of_any_integer_type() {
        let bytes = |v: &[i64]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(parse_labels(&file(1, "<i8", "False", "(3,)", &bytes(&[2, 0, 7]))).unwrap(), [2, 0, 7]);
        assert_eq!(parse_labels(&file(1, "|u1", "False", "(2,)", &[200, 1])).unwrap(), [200, 1]);
        let negative = parse_labels(&file(1, "<i8", "False", "(1,)", &bytes(&[-1]))).unwrap_err();
        assert!(negative.contains("negative"));
        assert_eq!(parse_labels(&file(1, "<f4", "False", "(1,)", &[0; 4])).unwrap(), [0]);
        assert!(parse_labels(&file(1, "<f4", "False", "(1,)", &0.5f32.to_le_bytes())).is_err());
        assert_eq!(parse_labels(&file(1, "|S3", "False", "(3,)", b"dogcatdog")).unwrap(), [1, 0, 1]);
        assert_eq!(parse_labels(&file(1, "|b1", "False", "(2, 2)", &[0, 1, 1, 0])).unwrap(), [1, 0]);
        assert_eq!(parse_labels(&file(1, ">i2", "True", "(2, 1)", &[0, 3, 0, 1])).unwrap(), [3, 1]);
    }

    #[test]
    fn names_of_classes_are_kept_and_numbers_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("y.npy");
        std::fs::write(&path, file(1, "|S3", "False", "(4,)", b"dogcat\0\0\0dog")).unwrap();
        let (labels, names) = read_named_labels(&path).unwrap();
        assert_eq!(
            (labels, names),
            (vec![Some(1), Some(0), None, Some(1)], vec!["cat".into(), "dog".into()])
        );
        std::fs::write(&path, file(1, "|u1", "False", "(2,)", &[4, 0])).unwrap();
        assert_eq!(read_named_labels(&path).unwrap(), (vec![Some(4), Some(0)], Vec::new()));
    }

    #[test]
    fn what_is_damaged_is_refused_with_a_reason() {
        let good = file(1, "<f4", "False", "(2,)", &[0; 8]);
        let message = |bytes: &[u8]| parse(bytes).unwrap_err();
        assert!(message(b"PK\x03\x04 something else").contains("not a .npy"));
        assert!(message(&good[..good.len() - 1]).contains("7 follow"));
        assert!(message(&good[..20]).contains("within its header"));
        assert!(message(&file(9, "<f4", "False", "(2,)", &[0; 8])).contains("unknown version"));
        assert!(message(&file(1, "<c8", "False", "(1,)", &[0; 8])).contains("float32"));
        assert!(message(&file(1, "<f4", "Maybe", "(2,)", &[0; 8])).contains("fortran_order"));
        assert!(message(&file(1, "<f4", "False", "(99999999999, 99999999999)", &[0; 8])).contains("large"));
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for (dims, dtype) in [(vec![3, 4], DType::F32), (vec![5], DType::F64), (vec![2, 3, 4], DType::F64)] {
            let count: usize = dims.iter().product();
            let tensor =
                Tensor::arange(0f64, count as f64, &Device::Cpu).unwrap().reshape(dims.clone()).unwrap();
            let tensor = tensor.to_dtype(dtype).unwrap();
            let path = dir.path().join("z.npy");
            write(&path, &tensor).unwrap();
            let again = read(&path).unwrap();
            assert_eq!((again.dims(), again.dtype()), (&dims[..], dtype));
            let theirs = Tensor::read_npy(&path).unwrap();
            for other in [again, theirs] {
                let difference =
                    (other.to_dtype(DType::F64).unwrap() - tensor.to_dtype(DType::F64).unwrap()).unwrap();
                assert_eq!(difference.abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap(), 0.0);
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside");
    }
}
