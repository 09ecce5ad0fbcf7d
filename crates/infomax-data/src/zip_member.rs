//! The contents of a member of a zip file.

use flate2::{Crc, read::DeflateDecoder};
use std::io::{Read, Seek, Write};
use zip::ZipArchive;
use zip::read::ZipFile;

/// Whether a member is stored as it is.
pub(crate) fn is_stored<R: Read>(member: &ZipFile<'_, R>) -> bool {
    member.compression() == zip::CompressionMethod::Stored
}

/// Writes the first `most` bytes of a member to `out`, stored or deflated, and returns how many came. When the
/// whole member is read, its checksum is compared.
///
/// # Errors
/// Another kind of compression, encryption, damage; with the reason in words.
pub fn read_member<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    index: usize,
    most: u64,
    out: &mut dyn Write,
) -> Result<u64, String> {
    let mut member = archive.by_index_raw(index).map_err(|e| e.to_string())?;
    if member.encrypted() {
        return Err("the member is encrypted".into());
    }
    let (size, sum, method) = (member.size(), member.crc32(), member.compression());
    let mut source: Box<dyn Read + '_> = match method {
        zip::CompressionMethod::Stored => Box::new(&mut member),
        zip::CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(&mut member)),
        other => return Err(format!("compression by {other} is not read")),
    };
    let (mut crc, mut count, mut buffer) = (Crc::new(), 0u64, vec![0; 1 << 16]);
    while count < most {
        let room = (most - count).min(buffer.len() as u64) as usize;
        let n = source.read(&mut buffer[..room]).map_err(|e| e.to_string())?;
        if n == 0 {
            break;
        }
        crc.update(&buffer[..n]);
        out.write_all(&buffer[..n]).map_err(|e| e.to_string())?;
        count += n as u64;
    }
    if most >= size && (count != size || crc.sum() != sum) {
        return Err("size or checksum are not those that the archive states".into());
    }
    Ok(count)
}
