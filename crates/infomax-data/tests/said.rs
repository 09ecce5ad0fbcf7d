//! What is in a data set is said, counted and right: parts, classes, labels, ranges, what is passed over.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_data::{Dataset, Mixing, OpenOptions, Opened, open};
use std::fs;
use std::io::Cursor;
use std::path::Path;
use tempfile::TempDir;

fn opened(path: &Path) -> Opened {
    open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn message(path: &Path) -> String {
    open(path, &OpenOptions::default()).unwrap_err().to_string()
}

fn encoded(shade: u8, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(12, 10, |x, y| image::Rgb([shade, x as u8, y as u8]));
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(shade: u8) -> Vec<u8> {
    encoded(shade, image::ImageFormat::Png)
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `class:shade` of each sample of a part.
fn samples(opened: &Opened, part: &str) -> Vec<String> {
    let data = opened.part(part).unwrap_or_else(|| panic!("no part {part}"));
    let one = |i: usize| {
        let class = data.label(i).map_or("-", |l| &*data.classes()[l as usize]);
        format!("{class}:{}", data.image(i).unwrap().data()[0])
    };
    (0..data.len()).map(one).collect()
}

fn notes(opened: &Opened) -> String {
    opened.notes().join("\n")
}

fn skipped(opened: &Opened) -> String {
    opened.skipped().map(|s| format!("{}: {}\n", s.path.display(), s.reason)).collect()
}

#[test]
fn names_of_parts_in_any_case_are_no_classes() {
    let pairs = [
        ("Training", "Testing", "test"),
        ("TRAIN", "TEST", "test"),
        ("train", "Test", "test"),
        ("training", "validation", "val"),
        ("train", "dev", "val"),
        ("train", "eval", "test"),
        ("training_set", "test_set", "test"),
        ("seg_train", "seg_test", "test"),
    ];
    for (train, other, part) in pairs {
        for wrap in ["", "dataset/", "dataset/images/"] {
            let dir = TempDir::new().unwrap();
            for (name, shade) in [(train, 1), (other, 3)] {
                write(dir.path(), &format!("{wrap}{name}/cat/1.png"), &png(shade));
                write(dir.path(), &format!("{wrap}{name}/dog/1.png"), &png(shade + 1));
            }
            let data = opened(dir.path());
            assert_eq!(samples(&data, "train"), ["cat:1", "dog:2"], "{wrap}{train}");
            assert_eq!(samples(&data, part), ["cat:3", "dog:4"], "{wrap}{other}");
            assert_eq!(data.parts.len(), 2);
        }
    }
}

#[test]
fn parts_below_the_classes_and_folders_beside_parts() {
    let dir = TempDir::new().unwrap();
    for (name, shade) in
        [("cat/Train/1.png", 1), ("cat/Test/1.png", 2), ("dog/Train/1.png", 3), ("dog/Test/1.png", 4)]
    {
        write(dir.path(), name, &png(shade));
    }
    let data = opened(dir.path());
    assert_eq!(
        (samples(&data, "train"), samples(&data, "test")),
        (vec!["cat:1".into(), "dog:3".into()], vec!["cat:2".into(), "dog:4".into()])
    );

    let dir = TempDir::new().unwrap();
    for (name, shade) in [
        ("train/a/1.png", 1),
        ("train/b/1.png", 2),
        ("val/a/1.png", 3),
        ("Validation/b/1.png", 4),
        ("other/b/1.png", 5),
    ] {
        write(dir.path(), name, &png(shade));
    }
    write(dir.path(), "loose.png", &png(6));
    let data = opened(dir.path());
    assert_eq!(
        (samples(&data, "train"), samples(&data, "val")),
        (vec!["a:1".into(), "b:2".into()], vec!["a:3".into()])
    );
    let notes = notes(&data);
    for words in ["Validation is `val` as", "not used: other", "1 .png (loose.png)"] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
}

#[test]
fn a_class_that_is_called_like_a_part_is_said() {
    let dir = TempDir::new().unwrap();
    for name in ["train/1.png", "car/1.png", "bus/1.png"] {
        write(dir.path(), name, &png(1));
    }
    let data = opened(dir.path());
    assert_eq!(data.train().unwrap().classes(), ["bus", "car", "train"]);
    assert!(notes(&data).contains("`train` is named like a part"), "{}", notes(&data));
}

#[test]
fn wrappers_are_passed_through_and_the_system_is_counted() {
    let dir = TempDir::new().unwrap();
    for (name, shade) in [("dataset/images/cat/1.png", 1), ("dataset/images/dog/1.png", 2)] {
        write(dir.path(), name, &png(shade));
    }
    for name in ["__MACOSX/dataset/._1.png", "dataset/Thumbs.db", "dataset/images/cat/._1.png"] {
        write(dir.path(), name, b"clutter");
    }
    write(dir.path(), "dataset/README.md", b"text");
    let data = opened(dir.path());
    assert_eq!(samples(&data, "train"), ["cat:1", "dog:2"]);
    let text = notes(&data);
    assert!(
        text.contains("1 .md (dataset/README.md)") && text.contains("3 hidden or of the system"),
        "{text}"
    );
    // A stray image beside the wrapper has no class, and changes none.
    write(dir.path(), "dataset/cover.png", &png(9));
    assert_eq!(samples(&opened(dir.path()), "train"), ["-:9", "cat:1", "dog:2"]);
}

#[test]
fn classes_are_the_same_in_every_part() {
    let dir = TempDir::new().unwrap();
    for (name, shade) in [
        ("train/ant/1.png", 1),
        ("train/bee/1.png", 2),
        ("train/cow/1.png", 3),
        ("test/bee/1.png", 4),
        ("test/cow/1.png", 5),
        ("test/yak/1.png", 6),
    ] {
        write(dir.path(), name, &png(shade));
    }
    let data = opened(dir.path());
    assert_eq!(samples(&data, "test"), ["bee:4", "cow:5", "yak:6"]);
    let (train, test) = (data.part("train").unwrap(), data.part("test").unwrap());
    assert_eq!((train.classes(), test.label(0)), (test.classes(), Some(1)));
    assert_eq!(train.classes(), ["ant", "bee", "cow", "yak"]);
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn keys_of_shards_with_dots() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s.tar");
    let members = [
        ("v1.00000.jpg", encoded(1, image::ImageFormat::Png)),
        ("v1.00000.cls", b"7".to_vec()),
        ("v1.00001.jpg", png(2)),
        ("v1.00001.cls", b"3".to_vec()),
        ("2024.01.05.png", png(3)),
        ("2024.01.05.cls", b"7\n".to_vec()),
        ("v1.00002.jpg", png(4)),
    ];
    fs::write(&path, tar(&members)).unwrap();
    let data = opened(&path);
    assert_eq!(samples(&data, "train"), ["7:1", "3:2", "7:3", "-:4"]);
    // Two labels of one key.
    let twice = [("k.cls", b"1".to_vec()), ("k.png", png(1)), ("k.CLS", b"2".to_vec())];
    fs::write(&path, tar(&twice)).unwrap();
    let text = message(&path);
    assert!(text.contains("k.cls") && text.contains("k.CLS") && text.contains("two labels"), "{text}");
}

#[test]
fn one_image_a_sample() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s.tar");
    let members = [
        ("a.seg.png", png(1)),
        ("a.jpg", png(2)),
        ("a.cls", b"cat".to_vec()),
        ("b.jpg", png(3)),
        ("b.seg.png", png(4)),
        ("b.cls", b"dog".to_vec()),
        ("b.json", b"{}".to_vec()),
    ];
    fs::write(&path, tar(&members)).unwrap();
    let data = opened(&path);
    assert_eq!(samples(&data, "train"), ["cat:2", "dog:3"]);
    let text = notes(&data);
    assert!(text.contains("`jpg` is used, 2 others are not") && text.contains("a.seg.png"), "{text}");
    assert!(text.contains("1 .json (b.json)"), "{text}");
    let options = OpenOptions { image: Some("seg.png".into()), ..OpenOptions::default() };
    assert_eq!(samples(&open(&path, &options).unwrap(), "train"), ["cat:1", "dog:4"]);
}

#[test]
fn parts_and_links_and_what_is_not_read_in_tar_files() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s.tar");
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, link: Option<&str>, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_entry_type(kind);
        header.as_gnu_mut().unwrap().set_real_size(0);
        match link {
            Some(link) => builder.append_link(&mut header, name, link).unwrap(),
            None => builder.append_data(&mut header, name, bytes).unwrap(),
        }
    };
    let file = tar::EntryType::Regular;
    add("set/Train/cat/1.png", file, None, &png(1));
    add("set/Train/dog/1.png", tar::EntryType::Link, Some("set/Train/cat/1.png"), b"");
    add("set/Test/cat/2.png", tar::EntryType::Symlink, Some("../../Train/cat/1.png"), b"");
    add("set/Test/dog/3.webp", file, None, b"RIFF\0\0\0\0WEBP");
    add("set/Test/dog/4.png", file, None, &png(4));
    add("set/Test/dog/5.png", tar::EntryType::Link, Some("nowhere.png"), b"");
    add("set/Test/dog/6.png", tar::EntryType::GNUSparse, None, b"");
    add("set/Test/dog/7.heic", file, None, b"\0\0\0\x18ftypheic");
    add("__MACOSX/set/Train/cat/._1.png", file, None, b"x");
    fs::write(&path, builder.into_inner().unwrap()).unwrap();
    let data = opened(&path);
    assert_eq!(samples(&data, "train"), ["cat:1", "dog:1"]);
    assert_eq!(samples(&data, "test"), ["cat:1", "dog:4"]);
    let text = skipped(&data);
    for words in ["5.png: a link to nowhere.png", "3.webp", "7.heic: a HEIC file"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(notes(&data).contains("1 hidden or of the system"), "{}", notes(&data));
}

#[test]
fn two_sets_in_one_folder_are_refused_with_both_names() {
    let dir = TempDir::new().unwrap();
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 4][..], &[7; 40]].concat();
    for name in ["emnist-digits-train-images-idx3-ubyte", "emnist-letters-train-images-idx3-ubyte"] {
        write(dir.path(), name, &idx);
    }
    let text = message(dir.path());
    assert!(text.contains("digits") && text.contains("letters"), "{text}");
    assert_eq!(opened(&dir.path().join("emnist-letters-train-images-idx3-ubyte")).train().unwrap().len(), 2);
}

fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    [&b"\x93NUMPY\x01\x00"[..], &(dict.len() as u16).to_le_bytes(), dict.as_bytes(), data].concat()
}

#[test]
fn labels_of_every_type_in_arrays() {
    let dir = TempDir::new().unwrap();
    let images: Vec<u8> = (0..3u8).flat_map(|i| [i * 10 + 40; 16]).collect();
    write(dir.path(), "images.npy", &npy("|u1", false, "(3, 4, 4)", &images));
    let floats = |v: [f32; 3]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let text: Vec<u8> = "dogcatdog".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    for (descr, shape, data, want) in [
        ("<U3", "(3,)", text, ["dog", "cat", "dog"]),
        ("|S4", "(3,)", b"dog\0cat\0dog\0".to_vec(), ["dog", "cat", "dog"]),
        ("|b1", "(3,)", vec![1, 0, 1], ["1", "0", "1"]),
        ("<f4", "(3,)", floats([5.0, f32::NAN, 2e5]), ["5", "-", "200000"]),
        (">i4", "(3,)", [[0, 0, 0, 5], [0xff; 4], [0, 0, 1, 0]].concat(), ["5", "-", "256"]),
        ("|u1", "(3, 3)", vec![0, 0, 1, 1, 0, 0, 0, 0, 1], ["2", "0", "2"]),
        ("<f4", "(1, 3)", floats([1.0, 2.0, 1.0]), ["1", "2", "1"]),
    ] {
        write(dir.path(), "labels.npy", &npy(descr, false, shape, &data));
        let data = opened(dir.path());
        let classes: Vec<String> =
            samples(&data, "train").iter().map(|s| s.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(classes, want, "{descr} {shape}");
    }
    for (descr, shape, data, words) in [
        ("<f4", "(3,)", floats([0.5, 0.25, 1.5]), "no whole number"),
        ("|u1", "(3, 2)", vec![1, 1, 0, 1, 1, 0], "several labels a sample"),
        ("|O", "(3,)", vec![], "|O"),
    ] {
        write(dir.path(), "labels.npy", &npy(descr, false, shape, &data));
        let data = opened(dir.path());
        assert_eq!(data.train().unwrap().classes().len(), 0);
        assert!(notes(&data).contains("labels") && notes(&data).contains(words), "{words}: {}", notes(&data));
    }
}

#[test]
fn the_range_of_pixels_is_found_at_opening() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.npy");
    let floats = |v: &[f32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let first = |path: &Path| {
        let data = opened(path);
        (data.train().unwrap().image(0).unwrap().data().to_vec(), notes(&data))
    };
    let put = |descr: &str, data: &[u8]| fs::write(&path, npy(descr, false, "(1, 2, 2)", data)).unwrap();
    put("|b1", &[0, 1, 1, 0]);
    assert_eq!(first(&path), (vec![0, 255, 255, 0], String::new()));
    put("<f4", &floats(&[0.0, 127.6, 255.0, 3.0]));
    let (pixels, text) = first(&path);
    assert_eq!(pixels, [0, 128, 255, 3]);
    assert!(text.contains("from 0 to 255") && text.contains("gray levels 0 to 255"), "{text}");
    put("<i8", &[0u64, 255, 7, 1].map(u64::to_le_bytes).concat());
    assert_eq!(first(&path).0, [0, 255, 7, 1]);
    put(">u2", &[0u16, 65535, 257, 514].map(u16::to_be_bytes).concat());
    assert_eq!(first(&path).0, [0, 255, 1, 2]);
    let halves = [0.0f32, 1.0, 0.5, 0.25].map(|v| half::f16::from_f32(v).to_le_bytes()).concat();
    put("<f2", &halves);
    assert_eq!(first(&path).0, [0, 255, 128, 64]);
    put("|u1", &[0, 1, 1, 0]);
    assert!(first(&path).1.contains("black"), "{}", first(&path).1);
    for (data, words) in [
        ([-2.1, 2.6, 0.0, 1.0], "x * std + mean"),
        ([-1.0, 1.0, 0.0, 0.5], "(x + 1) / 2"),
        ([0.0, 300.5, 0.0, 0.0], "from 0 to 300.5"),
        ([f32::NAN; 4], "finite"),
    ] {
        put("<f4", &floats(&data));
        assert!(message(&path).contains(words) && message(&path).contains("x.npy"), "{}", message(&path));
    }
    // One record that does not fit the others is left out and named.
    let data: Vec<f32> = (0..20).map(|i| if i == 5 { -3.0 } else { 0.5 }).collect();
    fs::write(&path, npy("<f4", false, "(5, 2, 2)", &floats(&data))).unwrap();
    let data = opened(&path);
    assert_eq!(data.train().unwrap().len(), 4);
    assert!(skipped(&data).contains("record 1: pixels from -3 to 0.5"), "{}", skipped(&data));
}

#[test]
fn a_single_record_does_not_decide_the_range() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.npy");
    let put = |descr: &str, data: Vec<u8>| {
        fs::write(&path, npy(descr, false, "(24, 2, 2)", &data)).unwrap();
        let data = opened(&path);
        let train = data.train().unwrap();
        assert_eq!(train.len(), 23, "{}", skipped(&data));
        (train.image(0).unwrap().data()[0], notes(&data), skipped(&data))
    };
    let floats = |usual: f32, odd: f32| {
        (0..96).flat_map(|i| (if i == 33 { odd } else { usual }).to_le_bytes()).collect::<Vec<u8>>()
    };
    for odd in [200.0, -0.5, 10_000.0, f32::NAN] {
        let (pixel, said, left_out) = put("<f4", floats(0.5, odd));
        assert_eq!((pixel, said.as_str()), (128, ""), "{odd}");
        assert!(left_out.contains("record 8: pixels"), "{left_out}");
    }
    let (pixel, said, left_out) = put("<f4", floats(200.0, 10_000.0));
    assert_eq!(pixel, 200);
    assert!(said.contains("from 200 to 200, which are taken as gray levels 0 to 255"), "{said}");
    assert!(left_out.contains("record 8: pixels from 200 to 10000"), "{left_out}");
    let shorts = (0..96u16).flat_map(|i| (if i == 33 { 60_000u16 } else { 200 }).to_le_bytes()).collect();
    assert_eq!(put("<u2", shorts).0, 200);
}

#[test]
fn lists_as_tables() {
    let dir = TempDir::new().unwrap();
    for (name, shade) in [("a.png", 1), ("b, c.png", 2), ("d.png", 3)] {
        write(dir.path(), name, &png(shade));
    }
    let list = dir.path().join("list.csv");
    let read = |text: &str| {
        fs::write(&list, text).unwrap();
        samples(&opened(&list), "train")
    };
    assert_eq!(read("\u{feff}a.png,dog\n\"b, c.png\",cat\r\n"), ["dog:1", "cat:2"]);
    assert_eq!(read("image,label\na.png,10\n\"b, c.png\",9\nd.png,\n"), ["10:1", "9:2", "-:3"]);
    assert_eq!(opened(&list).train().unwrap().classes(), ["9", "10"]);
    assert_eq!(read("id;file;class\n1;a.png;x\n2;d.png;y\n"), ["x:1", "y:3"]);
    assert!(notes(&opened(&list)).contains("not used: `id`"), "{}", notes(&opened(&list)));
    assert_eq!(read("b, c.png,3\na.png,2.0\n"), ["3:2", "2:1"]);
    assert_eq!(read("label\tpath\n200000\ta.png\n5\td.png\n"), ["200000:1", "5:3"]);
    assert_eq!(read("path,label,split\na.png,0,Train\nd.png,1,TEST\n"), ["0:1"]);
    assert_eq!(samples(&opened(&list), "test"), ["1:3"]);
    assert_eq!(read("0\t7\ta.png\n1\t8\td.png\n").len(), 2);
}

#[test]
fn an_orientation_is_said_once_and_applied_if_asked_for() {
    let dir = TempDir::new().unwrap();
    let jpeg = encoded(100, image::ImageFormat::Jpeg);
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
    let app1 = [&[0xff, 0xe1, 0, exif.len() as u8 + 2][..], exif].concat();
    write(dir.path(), "a.jpg", &[&jpeg[..2], &app1, &jpeg[2..]].concat());
    write(dir.path(), "b.jpg", &jpeg);
    let data = opened(dir.path());
    let train = data.train().unwrap();
    assert_eq!((train.image(0).unwrap().width(), train.image(0).unwrap()), (12, train.image(1).unwrap()));
    assert!(notes(&data).contains("1 images have an EXIF orientation"), "{}", notes(&data));
    for cache_bytes in [0, 1 << 20] {
        let options = OpenOptions { exif_orientation: true, cache_bytes, ..OpenOptions::default() };
        let data = open(dir.path(), &options).unwrap();
        let train = data.train().unwrap();
        let (turned, plain) = (train.image(0).unwrap(), train.image(1).unwrap());
        assert_eq!((turned.width(), turned.height(), plain.width()), (10, 12, 12));
        assert_eq!(turned.pixel(0, 0), plain.pixel(0, 9));
        let part = train.image_part(0, &mut |w, h| {
            assert_eq!((w, h), (10, 12));
            Ok(infomax_augment::CropBox { x: 1, y: 2, width: 3, height: 4 })
        });
        let part = part.unwrap();
        assert_eq!(part.image.pixel(0, 0), turned.pixel(part.x, part.y));
        assert_eq!(notes(&data), "");
    }
}

#[cfg(feature = "formats")]
#[test]
fn webp_gif_bmp_and_tiff_are_read() {
    use image::ImageFormat;
    let dir = TempDir::new().unwrap();
    for (name, format) in [
        ("a.webp", ImageFormat::WebP),
        ("b.bmp", ImageFormat::Bmp),
        ("c.tiff", ImageFormat::Tiff),
        ("d.png", ImageFormat::Png),
    ] {
        write(dir.path(), name, &encoded(77, format));
    }
    let data = opened(dir.path());
    let train = data.train().unwrap();
    let all: Vec<_> = (0..4).map(|i| train.image(i).unwrap()).collect();
    assert!(all.windows(2).all(|w| w[0] == w[1]) && data.skipped().count() == 0);
    let mut gif = Vec::new();
    let frame = image::RgbaImage::from_pixel(12, 10, image::Rgba([255, 0, 0, 255]));
    image::codecs::gif::GifEncoder::new(&mut gif).encode_frame(image::Frame::new(frame)).unwrap();
    write(dir.path(), "e.gif", &gif);
    write(dir.path(), "f.avif", b"\0\0\0\x18ftypavif");
    write(dir.path(), "g.jp2", b"\0\0\0\x0cjP  \r\n\x87\n");
    let data = opened(dir.path());
    assert_eq!(data.train().unwrap().image(4).unwrap().pixel(3, 3), Some(&[255u8, 0, 0][..]));
    let text = skipped(&data);
    assert!(text.contains("f.avif: an AVIF file") && text.contains("g.jp2: a JPEG 2000 file"), "{text}");
}

#[test]
fn mixing_is_the_expectation_over_choices_of_blocks() {
    /// Blocks of two samples, each block of one class, as a sorted file has them.
    #[derive(Debug)]
    struct Sorted(Vec<usize>, Vec<String>);
    impl Dataset for Sorted {
        fn len(&self) -> usize {
            2 * self.0.len()
        }
        fn image(&self, _: usize) -> infomax_data::Result<infomax_augment::Image> {
            Ok(infomax_augment::Image::new(1, 1, 1, vec![0])?)
        }
        fn label(&self, index: usize) -> Option<u32> {
            Some((index / 20) as u32)
        }
        fn classes(&self) -> &[String] {
            &self.1
        }
        fn name(&self) -> String {
            "sorted".into()
        }
        fn blocks(&self) -> &[usize] {
            &self.0
        }
    }
    let data = Sorted((1..=100).map(|i| 2 * i).collect(), vec![String::new(); 10]);
    let mixing = Mixing::of(&data).unwrap();
    assert_eq!((mixing.mixed, mixing.blocks, mixing.classes), (8, 100, 10));
    // A class is missing with (90 choose 8) / (100 choose 8).
    let missing: f64 = (0..8).map(|i| f64::from(90 - i) / f64::from(100 - i)).product();
    assert!((mixing.classes_within - 10.0 * (1.0 - missing)).abs() < 1e-12);
    assert!(mixing.to_string().contains("8 of 100") && mixing.to_string().contains("sorted"), "{mixing}");
    let few = Sorted((1..=5).map(|i| 2 * i).collect(), vec![String::new(); 10]);
    assert_eq!(Mixing::of(&few), None);
}

#[test]
fn fields_and_labels_that_are_not_there_are_said() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.tar");
    let mut builder = tar::Builder::new(Vec::new());
    for i in 0..4u8 {
        for (field, bytes) in [
            ("png", png(i)),
            ("json", format!("{{\"label\": {}, \"kind\": \"k{}\"}}", i % 2, i % 3).into_bytes()),
            ("cls.txt", format!("{}", i % 3).into_bytes()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("v1.{i}.{field}"), &bytes[..]).unwrap();
        }
    }
    fs::write(&path, builder.into_inner().unwrap()).unwrap();
    let text = notes(&opened(&path));
    assert!(text.contains(".cls.txt, .json: data.label = \"cls.txt\" reads them"), "{text}");
    let labeled =
        |label: &str| open(&path, &OpenOptions { label: Some(label.into()), ..OpenOptions::default() });
    for (label, classes) in
        [("json", vec!["0", "1"]), ("cls.txt", vec!["0", "1", "2"]), ("json.kind", vec!["k0", "k1", "k2"])]
    {
        assert_eq!(labeled(label).unwrap().train().unwrap().classes(), classes, "{label}");
    }
    let text = labeled("foo").unwrap_err().to_string();
    assert!(
        text.contains("no member has the field `foo` for the labels; there are: cls.txt, json"),
        "{text}"
    );
    let text = labeled("json.foo").unwrap_err().to_string();
    assert!(
        text.contains("its JSON has no `foo`; there are: kind, label") && text.contains("3 more"),
        "{text}"
    );
    let options = OpenOptions { image: Some("foo.png".into()), ..OpenOptions::default() };
    let text = open(&path, &options).unwrap_err().to_string();
    assert!(text.contains("no member has the field `foo.png` for the images; there are: "), "{text}");
}

#[test]
fn a_list_with_spaces_may_have_a_header() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.png", &png(1));
    write(dir.path(), "b.png", &png(2));
    let path = dir.path().join("list.txt");
    fs::write(&path, "image label\na.png 3\nb.png 4\n").unwrap();
    let data = opened(&path);
    assert_eq!(
        (data.train().unwrap().classes(), skipped(&data).as_str()),
        (&["3".into(), "4".into()][..], "")
    );
    let options = OpenOptions { label: Some("foo".into()), ..OpenOptions::default() };
    let text = notes(&open(dir.path(), &options).unwrap());
    assert!(text.contains("data.label = \"foo\" is not used: the format image folder"), "{text}");
    fs::write(&path, "image label\nx.png 3\ny.png 4\n").unwrap();
    let text = message(&path);
    assert!(text.contains("no usable image: line 2: there is no file x.png; and 1 more"), "{text}");
}
