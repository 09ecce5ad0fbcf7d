//! Folders of images: formats, damage, labels, order.
#![allow(clippy::unwrap_used, clippy::panic)]

use image::{DynamicImage, ImageFormat, RgbImage};
use infomax_core::Key;
use infomax_data::{
    Dataset, Error, FolderOptions, ImageFolder, Labels, Limits, Subset, Verify, decode, probe,
};
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

fn picture(width: u32, height: u32, shade: u8) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([shade, (x * 8) as u8, (y * 8) as u8])).into()
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn jpeg(shade: u8) -> Vec<u8> {
    encode(&picture(16, 12, shade), ImageFormat::Jpeg)
}

fn open(dir: &TempDir) -> ImageFolder {
    ImageFolder::open(dir.path(), &FolderOptions::default()).unwrap()
}

#[test]
fn classes_are_sub_folders_in_order_of_name() {
    let dir = TempDir::new().unwrap();
    for (name, shade) in [("dog/b.jpg", 10), ("dog/a/deep/x.JPEG", 20), ("cat/1.jpg", 30), ("ant/z.png", 40)]
    {
        let format = if name.ends_with("png") { ImageFormat::Png } else { ImageFormat::Jpeg };
        write(dir.path(), name, &encode(&picture(16, 12, shade), format));
    }
    write(dir.path(), "cat/notes.txt", b"no image, passed over");
    write(dir.path(), "cat/.hidden.jpg", b"passed over");
    fs::create_dir(dir.path().join("empty")).unwrap();
    let data = open(&dir);
    assert_eq!(data.classes(), ["ant", "cat", "dog"]);
    let paths: Vec<_> = (0..data.len())
        .map(|i| data.path(i).unwrap().strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths, ["ant/z.png", "cat/1.jpg", "dog/b.jpg", "dog/a/deep/x.JPEG"]);
    assert_eq!((0..4).map(|i| data.label(i)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(2)]);
    assert!(data.skipped().is_empty());
    let notes = data.notes().join("\n");
    assert!(notes.contains("1 .txt (cat/notes.txt)") && notes.contains("1 hidden"), "{notes}");
    assert_eq!(data.image(0).unwrap().pixel(3, 2), Some(&[40u8, 24, 16][..]));
    assert!(matches!(data.image(4), Err(Error::Index { index: 4, len: 4, .. })));
    assert!(data.describe().contains("4 images of 16x12, 3 classes"), "{}", data.describe());
}

#[test]
fn flat_folders_have_no_labels() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "b.jpg", &jpeg(1));
    write(dir.path(), "a.jpg", &jpeg(2));
    let data = open(&dir);
    assert_eq!((data.len(), data.classes().len(), data.label(0)), (2, 0, None));
    assert!(data.path(0).unwrap().ends_with("a.jpg"));
    write(dir.path(), "sub/c.jpg", &jpeg(3));
    let options = FolderOptions { labels: Labels::None, ..FolderOptions::default() };
    let data = ImageFolder::open(dir.path(), &options).unwrap();
    assert_eq!((data.len(), data.classes().len(), data.label(2)), (3, 0, None));
}

#[test]
fn damaged_files_are_left_out_and_named() {
    let dir = TempDir::new().unwrap();
    let good = encode(&picture(64, 48, 7), ImageFormat::Jpeg);
    let png = encode(&picture(64, 48, 7), ImageFormat::Png);
    write(dir.path(), "a/good.jpg", &good);
    write(dir.path(), "a/good.png", &png);
    write(dir.path(), "a/cut.jpg", &good[..good.len() / 2]);
    write(dir.path(), "a/cut.png", &png[..png.len() / 2]);
    write(dir.path(), "a/zero.jpg", b"");
    write(dir.path(), "a/text.jpg", b"this is a text file");
    write(dir.path(), "a/head.jpg", &good[..10]);
    write(dir.path(), "a/anim.gif", b"GIF89a....");
    for verify in [Verify::Auto, Verify::Decode] {
        let data =
            ImageFolder::open(dir.path(), &FolderOptions { verify, ..FolderOptions::default() }).unwrap();
        let skipped: Vec<_> =
            data.skipped().iter().map(|s| s.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(skipped, ["anim.gif", "cut.jpg", "cut.png", "head.jpg", "text.jpg", "zero.jpg"]);
        assert_eq!(data.len(), 2);
        assert!(data.describe().contains("6 damaged files left out"), "{}", data.describe());
        let reason = |name: &str| {
            data.skipped()
                .iter()
                .find(|s| s.path.ends_with(name))
                .map(|s| s.reason.clone())
                .unwrap_or_default()
        };
        assert!(reason("zero.jpg").contains("empty"));
        assert!(reason("anim.gif").to_uppercase().contains("GIF"));
        assert!(reason("text.jpg").contains("neither"));
        assert_eq!(data.image(0).unwrap().width(), 64);
    }
    let strict = FolderOptions { strict: true, ..FolderOptions::default() };
    let message = ImageFolder::open(dir.path(), &strict).unwrap_err().to_string();
    assert!(message.contains("6 damaged files") && message.contains("cut.jpg"), "{message}");

    // Without a check, the error comes with the image and names the file.
    let never = FolderOptions { verify: Verify::Never, ..FolderOptions::default() };
    let data = ImageFolder::open(dir.path(), &never).unwrap();
    assert_eq!(data.len(), 8);
    let message = data.image(1).unwrap_err().to_string();
    assert!(message.contains("cut.jpg"), "{message}");
}

#[test]
fn every_mode_becomes_rgb() {
    let limits = Limits::default();
    let source = picture(16, 12, 200);
    let png = |image: DynamicImage| decode(&encode(&image, ImageFormat::Png), limits).unwrap();
    let rgb = png(source.clone());
    assert_eq!(rgb.data(), source.as_bytes());
    assert_eq!(png(source.to_rgba8().into()), rgb);
    assert_eq!(png(source.to_rgb16().into()), rgb);
    assert_eq!(png(source.to_rgba16().into()), rgb);
    let gray = source.to_luma8();
    let repeated: Vec<u8> = gray.as_raw().iter().flat_map(|v| [*v; 3]).collect();
    assert_eq!(png(gray.clone().into()).data(), repeated);
    assert_eq!(png(source.to_luma_alpha8().into()).data(), repeated);
    assert_eq!(png(DynamicImage::from(source.to_luma8()).to_luma16().into()).data(), repeated);

    let flat = image::GrayImage::from_pixel(16, 16, image::Luma([90]));
    let jpeg = decode(&encode(&flat.into(), ImageFormat::Jpeg), limits).unwrap();
    assert!(jpeg.data().iter().all(|v| v.abs_diff(90) <= 1), "{:?}", jpeg.pixel(0, 0));
}

#[test]
fn cmyk_jpeg_becomes_rgb() {
    // Quarters of cyan, magenta, yellow and black ink, written by Pillow (fixtures/make_cmyk.py).
    let image = decode(include_bytes!("fixtures/cmyk.jpg"), Limits::default()).unwrap();
    for ((x, y), want) in
        [((8, 8), [0u8, 255, 255]), ((24, 8), [255, 0, 255]), ((8, 24), [255, 255, 0]), ((24, 24), [0, 0, 0])]
    {
        let got = image.pixel(x, y).unwrap();
        assert!(got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 3), "{x} {y}: {got:?}, not {want:?}");
    }
}

#[test]
fn palettes_are_expanded() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Four);
    encoder.set_palette(vec![1, 2, 3, 200, 100, 50]);
    encoder.write_header().unwrap().write_image_data(&[0b0001_0000]).unwrap();
    assert_eq!(decode(&bytes, Limits::default()).unwrap().data(), [200, 100, 50, 1, 2, 3]);
}

#[test]
fn bombs_are_refused_before_memory_is_taken() {
    // A PNG header that promises 10^9 pixels, without data.
    let mut bytes = Vec::new();
    let encoder = png::Encoder::new(&mut bytes, 40_000, 25_000);
    drop(encoder.write_header().unwrap());
    let message = probe(&bytes, Limits::default()).unwrap_err();
    assert!(message.contains("40000x25000") && message.contains("max_pixels"), "{message}");
    assert!(decode(&bytes, Limits::default()).is_err());
    assert!(decode(&jpeg(3), Limits { max_pixels: 100 }).unwrap_err().contains("16x12"));
    assert_eq!(probe(&jpeg(3), Limits::default()).unwrap().width, 16);
}

#[test]
fn missing_and_empty_folders_say_what_to_do() {
    let dir = TempDir::new().unwrap();
    let message = |path: &Path| ImageFolder::open(path, &FolderOptions::default()).unwrap_err().to_string();
    let gone = message(&dir.path().join("gone"));
    assert!(gone.contains("gone") && gone.contains("no such file or folder"), "{gone}");
    let empty = message(dir.path());
    assert!(empty.contains("no usable image among 0 files"), "{empty}");
    write(dir.path(), "x.txt", b"text");
    write(dir.path(), "y.jpg", b"");
    let bad = message(dir.path());
    assert!(bad.contains("no usable image: ") && bad.contains("y.jpg: the file is empty"), "{bad}");
    assert!(message(&dir.path().join("x.txt")).contains("not a folder"));
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_and_odd_names_are_survived() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a/x.jpg", &jpeg(1));
    std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("a/dead.jpg")).unwrap();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"b\xff"));
    // Some file systems refuse such names; then only the links are tested.
    let odd = fs::create_dir(&odd)
        .and_then(|()| fs::write(odd.join(std::ffi::OsStr::from_bytes(b"\xfe.jpg")), jpeg(2)))
        .is_ok();
    let data = open(&dir);
    assert_eq!(data.len(), 1 + usize::from(odd));
    assert_eq!(data.skipped().len(), 2, "{:?}", data.skipped());
    assert!(data.skipped().iter().any(|s| s.reason.contains("contains it")));
    assert!((0..data.len()).all(|i| data.image(i).is_ok()));
}

#[test]
fn the_cache_changes_nothing() {
    let dir = TempDir::new().unwrap();
    for i in 0..6 {
        write(dir.path(), &format!("{i}.jpg"), &jpeg(40 * i));
    }
    let folder = |cache_bytes| {
        ImageFolder::open(dir.path(), &FolderOptions { cache_bytes, ..FolderOptions::default() }).unwrap()
    };
    // Room for all, for two images and a half, for none.
    let [all, some, none] = [1 << 20, 16 * 12 * 3 * 5 / 2, 0].map(folder);
    for i in (0..6).chain(0..6) {
        assert_eq!(all.image(i).unwrap(), none.image(i).unwrap());
        assert_eq!(some.image(i).unwrap(), none.image(i).unwrap());
    }
    fs::remove_file(dir.path().join("0.jpg")).unwrap();
    assert!(all.image(0).is_ok());
    assert!(matches!(none.image(0), Err(Error::Io { .. })));
}

#[test]
fn a_balanced_subset_has_equal_classes() {
    let dir = TempDir::new().unwrap();
    for (class, count) in [("a", 9), ("b", 6), ("c", 2)] {
        for i in 0..count {
            write(dir.path(), &format!("{class}/{i}.jpg"), &jpeg(i));
        }
    }
    let data: Arc<dyn Dataset> = Arc::new(open(&dir));
    let subset = Subset::balanced(Arc::clone(&data), 10, Key::new(1)).unwrap();
    let mut counts = [0; 3];
    (0..10).for_each(|i| counts[subset.label(i).unwrap() as usize] += 1);
    assert_eq!(counts, [4, 4, 2]);
    let again = Subset::balanced(Arc::clone(&data), 10, Key::new(1)).unwrap();
    assert_eq!(subset.indices(), again.indices());
    assert_ne!(subset.indices(), Subset::balanced(Arc::clone(&data), 10, Key::new(2)).unwrap().indices());
    let message = Subset::balanced(Arc::clone(&data), 18, Key::new(1)).unwrap_err().to_string();
    assert!(message.contains("18") && message.contains("17"), "{message}");
    assert!(Subset::new(data, vec![17]).is_err());
}
