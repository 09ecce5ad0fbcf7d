//! Files that are passed over: which ones count as images, which belong to the system, and how they are counted.

use std::collections::BTreeMap;

/// Extensions of images, of those that are read and of others, which are then listed as left out with the reason.
const IMAGES: [&str; 37] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "dib", "tif", "tiff", "webp", "apng", "ppm", "pgm",
    "pbm", "pnm", "heic", "heif", "avif", "jp2", "j2k", "jpf", "jpx", "jxl", "svg", "tga", "ico", "psd",
    "exr", "hdr", "dds", "cr2", "nef", "arw", "dng", "raw", "qoi",
];

/// Whether an extension is one of an image.
pub(crate) fn is_image_extension(extension: &str) -> bool {
    IMAGES.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether a file or folder belongs to the system and not to the data: hidden ones, what macOS puts into archives,
/// thumbnails.
pub(crate) fn is_clutter(name: &[u8]) -> bool {
    const NAMES: [&str; 9] = [
        "__MACOSX",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eaDir",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "Icon\r",
    ];
    name.starts_with(b".") || NAMES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// Counts of what was passed over, by extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passed {
    /// Files of the system.
    clutter: usize,
    kinds: BTreeMap<String, (usize, String)>,
}

impl Passed {
    pub(crate) fn clutter(&mut self) {
        self.clutter += 1;
    }

    /// A file, by its name.
    pub(crate) fn file(&mut self, name: &str) {
        let last = name.rsplit('/').next().unwrap_or(name);
        let kind = match last.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() && extension.len() <= 12 => {
                format!(".{}", extension.to_lowercase())
            }
            _ => "without an extension".to_owned(),
        };
        let entry = self.kinds.entry(kind).or_insert_with(|| (0, name.to_owned()));
        entry.0 += 1;
    }

    /// One sentence, if there is anything.
    pub(crate) fn note(&self, what: &str) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        for (kind, (count, first)) in self.kinds.iter().take(8) {
            let example = if *count == 1 { format!(" ({first})") } else { format!(" (the first: {first})") };
            parts.push(format!("{count} {kind}{example}"));
        }
        let more: usize = self.kinds.values().skip(8).map(|(count, _)| count).sum();
        if more > 0 {
            parts.push(format!("{more} others"));
        }
        if self.clutter > 0 {
            parts.push(format!("{} hidden or of the system", self.clutter));
        }
        (!parts.is_empty()).then(|| format!("{what} passed over: {}", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_is_counted() {
        let mut passed = Passed::default();
        assert_eq!(passed.note("files"), None);
        for name in ["a/notes.TXT", "b.txt", "README"] {
            passed.file(name);
        }
        passed.clutter();
        assert_eq!(
            passed.note("files").as_deref(),
            Some(
                "files passed over: 2 .txt (the first: a/notes.TXT), 1 without an extension (README), 1 hidden or of \
                 the system"
            )
        );
        assert!(
            is_clutter(b"._x.jpg")
                && is_clutter(b"thumbs.DB")
                && is_clutter(b"__MACOSX")
                && !is_clutter(b"x")
        );
    }
}
