//! NumPy's `.npy` files: reading versions 1.0 to 3.0 in C and Fortran order, writing version 1.0.

use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// No header of an array that this program reads is longer; a damaged length must not ask for memory.
const MAX_HEADER: usize = 1 << 16;

/// Reads an array of floating-point numbers: a tensor of f32 or f64, in C order whatever the file's.
pub(crate) fn read(path: &Path) -> Result<Tensor> {
    parse(&bytes(path)?).with_context(|| format!("{} is not a readable .npy file", path.display()))
}

/// Reads a vector of whole numbers that are not negative, of any integer type.
pub(crate) fn read_labels(path: &Path) -> Result<Vec<u32>> {
    parse_labels(&bytes(path)?).with_context(|| format!("{} does not hold labels", path.display()))
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a tensor of f32 or f64: first beside the file, then renamed, so that no reader sees a part of it.
pub(crate) fn write(path: &Path, tensor: &Tensor) -> Result<()> {
    let mut out = header(tensor.dims(), tensor.dtype())?;
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    match tensor.dtype() {
        DType::F32 => out.extend(flat.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes())),
        _ => out.extend(flat.to_vec1::<f64>()?.iter().flat_map(|v| v.to_le_bytes())),
    }
    let name = path.file_name().and_then(|n| n.to_str()).context("a file name")?;
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
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn header(dims: &[usize], dtype: DType) -> Result<Vec<u8>> {
    let descr = match dtype {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        other => bail!("only f32 and f64 are written, not {other:?}"),
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
    let length = u16::try_from(text.len()).context("a header of version 1.0 is shorter than 64 KiB")?;
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend(length.to_le_bytes());
    out.extend(text.bytes());
    Ok(out)
}

struct Array<'a> {
    kind: char,
    size: usize,
    little: bool,
    fortran: bool,
    dims: Vec<usize>,
    data: &'a [u8],
}

impl<'a> Array<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() < 10 || &bytes[..6] != MAGIC {
            bail!("it does not begin with the signature of NumPy");
        }
        let (length, start) = match bytes[6] {
            1 => (usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), 10),
            2 | 3 if bytes.len() >= 12 => {
                (u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize, 12)
            }
            2 | 3 => bail!("the header is cut off"),
            other => bail!("version {other}.{} of the format is not known", bytes[7]),
        };
        if length > MAX_HEADER || bytes.len() < start + length {
            bail!("the header of {length} bytes is cut off or too long");
        }
        let text = std::str::from_utf8(&bytes[start..start + length]).context("the header is not text")?;
        let descr = quoted(text, "descr").context("the header has no simple `descr`")?;
        let order = descr.chars().next().unwrap_or('?');
        let kind = descr.chars().nth(1).unwrap_or('?');
        let size: usize = descr.get(2..).unwrap_or("").parse().unwrap_or(0);
        if !"<>|=".contains(order) || size == 0 {
            bail!("the element type `{descr}` is not a number");
        }
        let fortran = match value(text, "fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => bail!("`fortran_order` is neither True nor False"),
        };
        let shape = value(text, "shape")?;
        let inside = shape
            .strip_prefix('(')
            .and_then(|s| s.split_once(')'))
            .context("`shape` is not a tuple of numbers")?
            .0;
        let dims = inside
            .split(',')
            .map(str::trim)
            .filter(|d| !d.is_empty())
            .map(|d| d.parse::<usize>().context("`shape` is not a tuple of numbers"))
            .collect::<Result<Vec<_>>>()?;
        let expected =
            dims.iter().try_fold(size, |n, d| n.checked_mul(*d)).context("the shape is too large")?;
        let data = &bytes[start + length..];
        if data.len() != expected {
            bail!("{dims:?} elements of {size} bytes are {expected} bytes, but {} follow", data.len());
        }
        // On every machine that this program runs on, the native order is the little one.
        Ok(Self { kind, size, little: order != '>', fortran, dims, data })
    }

    /// The elements in C order, each as its bytes in little order.
    fn elements(&self) -> Vec<[u8; 8]> {
        let raw: Vec<[u8; 8]> = self
            .data
            .chunks_exact(self.size)
            .map(|chunk| {
                let mut bytes = [0u8; 8];
                for (i, b) in chunk.iter().enumerate().take(8) {
                    bytes[if self.little { i } else { self.size - 1 - i }] = *b;
                }
                bytes
            })
            .collect();
        if !self.fortran || self.dims.len() < 2 {
            return raw;
        }
        // The place in the file of the element at each place in C order.
        let mut strides = vec![1; self.dims.len()];
        for k in 1..self.dims.len() {
            strides[k] = strides[k - 1] * self.dims[k - 1];
        }
        let mut index = vec![0; self.dims.len()];
        let mut out = Vec::with_capacity(raw.len());
        for _ in 0..raw.len() {
            out.push(raw[index.iter().zip(&strides).map(|(i, s)| i * s).sum::<usize>()]);
            for k in (0..index.len()).rev() {
                index[k] += 1;
                if index[k] < self.dims[k] {
                    break;
                }
                index[k] = 0;
            }
        }
        out
    }
}

fn parse(bytes: &[u8]) -> Result<Tensor> {
    let array = Array::parse(bytes)?;
    let elements = array.elements();
    let dims = array.dims.clone();
    Ok(match (array.kind, array.size) {
        ('f', 4) => {
            let values: Vec<f32> =
                elements.iter().map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Tensor::from_vec(values, dims, &Device::Cpu)?
        }
        ('f', 8) => {
            let values: Vec<f64> = elements.iter().map(|b| f64::from_le_bytes(*b)).collect();
            Tensor::from_vec(values, dims, &Device::Cpu)?
        }
        (kind, size) => {
            bail!(
                "its elements are `{kind}{size}`; f4 (float32) or f8 (float64) are needed: z.astype(\"float32\")"
            )
        }
    })
}

fn parse_labels(bytes: &[u8]) -> Result<Vec<u32>> {
    let array = Array::parse(bytes)?;
    if array.dims.len() != 1 || !"iu".contains(array.kind) || array.size > 8 {
        bail!("a vector of integers is needed, not shape {:?} of `{}{}`", array.dims, array.kind, array.size);
    }
    let sign = array.kind == 'i';
    array
        .elements()
        .iter()
        .map(|b| {
            let unsigned = u64::from_le_bytes(*b);
            let negative = sign && (unsigned >> (8 * array.size - 1)) & 1 == 1;
            if negative {
                bail!("a label is negative");
            }
            u32::try_from(unsigned).context("a label is above 2^32 - 1")
        })
        .collect()
}

/// What follows `'key':` in the header.
fn value<'a>(text: &'a str, key: &str) -> Result<&'a str> {
    let at = [format!("'{key}':"), format!("\"{key}\":")];
    let found = at.iter().find_map(|k| text.split_once(k.as_str()));
    Ok(found.with_context(|| format!("the header has no `{key}`"))?.1.trim_start())
}

fn quoted<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = value(text, key).ok()?;
    let quote = value.chars().next().filter(|c| "'\"".contains(*c))?;
    value[1..].split_once(quote).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(version: u8, descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut out = MAGIC.to_vec();
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
        assert!(negative.to_string().contains("negative"));
        assert!(parse_labels(&file(1, "<f4", "False", "(1,)", &[0; 4])).is_err());
    }

    #[test]
    fn what_is_damaged_is_refused_with_a_reason() {
        let good = file(1, "<f4", "False", "(2,)", &[0; 8]);
        let message = |bytes: &[u8]| format!("{:#}", parse(bytes).unwrap_err());
        assert!(message(b"PK\x03\x04 something else").contains("signature"));
        assert!(message(&good[..good.len() - 1]).contains("7 follow"));
        assert!(message(&good[..20]).contains("cut off"));
        assert!(message(&file(9, "<f4", "False", "(2,)", &[0; 8])).contains("version 9"));
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
