//! The header of `.npy` files.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

/// The type of the numbers of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Number {
    pub(super) fn size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// One number, little-endian, as a label.
    pub(super) fn label(self, bytes: &[u8]) -> i64 {
        let bits = bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        match self {
            Self::U8 | Self::U16 | Self::U32 => bits as i64,
            Self::I8 => i64::from(bits as u8 as i8),
            Self::I16 => i64::from(bits as u16 as i16),
            Self::I32 => i64::from(bits as u32 as i32),
            Self::U64 => i64::try_from(bits).unwrap_or(i64::MAX),
            Self::I64 => bits as i64,
            Self::F32 | Self::F64 => i64::MIN,
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NpyHeader {
    pub(super) number: Number,
    pub(super) shape: Vec<u64>,
    /// Where the data start.
    pub(super) offset: u64,
}

/// The longest header that is read.
pub(super) const MAX_HEADER: u64 = 1 << 16;

/// Reads a header out of the first bytes of a file.
pub(super) fn header(bytes: &[u8]) -> Result<NpyHeader, String> {
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
    let number = match descr.ok_or("a .npy of records; only plain arrays are read")? {
        "|u1" | "<u1" | "u1" | "|b1" => Number::U8,
        "|i1" | "<i1" => Number::I8,
        "<u2" => Number::U16,
        "<i2" => Number::I16,
        "<u4" => Number::U32,
        "<i4" => Number::I32,
        "<u8" => Number::U64,
        "<i8" => Number::I64,
        "<f4" => Number::F32,
        "<f8" => Number::F64,
        other => return Err(format!("a .npy of type `{other}`; read are little-endian integers, f4 and f8")),
    };
    let fortran = entry(text, "fortran_order").ok_or("damaged .npy: no `fortran_order`")?;
    if fortran.trim_start().starts_with("True") {
        return Err("a .npy in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let shape = entry(text, "shape").ok_or("damaged .npy: no `shape`")?;
    let inner = shape.trim_start().strip_prefix('(').and_then(|s| s.split_once(')'));
    let (inner, _) = inner.ok_or("damaged .npy: its `shape` is no tuple")?;
    let shape: Result<Vec<u64>, _> =
        inner.split(',').map(str::trim).filter(|d| !d.is_empty()).map(str::parse).collect();
    let shape = shape.map_err(|_| "damaged .npy: its `shape` holds something else than numbers")?;
    Ok(NpyHeader { number, shape, offset: (start + length) as u64 })
}

/// What follows the key of a dictionary that is written as Python does.
fn entry<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let at = text.find(&format!("'{key}'")).or_else(|| text.find(&format!("\"{key}\"")))?;
    text[at + key.len() + 2..].trim_start().strip_prefix(':')
}

#[cfg(test)]
mod tests {
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
        assert!(message("{'descr': '|u1', 'fortran_order': True, 'shape': (2,), }").contains("Fortran"));
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
        assert_eq!(Number::U8.label(&[255]), 255);
        assert_eq!(Number::I8.label(&[255]), -1);
        assert_eq!(Number::I32.label(&(-7i32).to_le_bytes()), -7);
        assert_eq!(Number::I64.label(&i64::MIN.to_le_bytes()), i64::MIN);
        assert_eq!(Number::U64.label(&u64::MAX.to_le_bytes()), i64::MAX);
    }
}
