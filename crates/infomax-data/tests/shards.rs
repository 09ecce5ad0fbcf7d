//! Tar and parquet shards, lists, folders with parts.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_data::{Dataset, Error, OpenOptions, Opened, TarShards, Verify, open};
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;
use tempfile::TempDir;

fn opened(path: &Path) -> Opened {
    open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(12, 10, |x, y| image::Rgb([shade, x as u8, y as u8]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn shade(data: &dyn Dataset, index: usize) -> u8 {
    data.image(index).unwrap().data()[0]
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn webdataset_shards() {
    let dir = TempDir::new().unwrap();
    let long = format!("{}/000003", "deep/".repeat(40));
    let shard = tar(&[
        ("000000.png", png(10)),
        ("000000.cls", b"3".to_vec()),
        ("000000.json", b"{}".to_vec()),
        ("000001.cls", b"0\n".to_vec()),
        ("000001.png", png(11)),
        ("000002.png", png(12)),
        (&format!("{long}.png"), png(13)),
        (&format!("{long}.cls"), b"1".to_vec()),
    ]);
    fs::write(dir.path().join("train-000.tar"), &shard).unwrap();
    fs::write(dir.path().join("train-001.tar"), tar(&[("a.png", png(20)), ("a.cls", b"2".to_vec())]))
        .unwrap();
    fs::write(dir.path().join("val-000.tar"), tar(&[("b.png", png(30)), ("b.cls", b"0".to_vec())])).unwrap();
    let data = opened(dir.path());
    let (train, val) = (data.train().unwrap(), data.held_out().unwrap());
    assert_eq!((data.format, train.len(), val.len(), train.classes().len()), ("tar shards", 5, 1, 4));
    assert_eq!((0..5).map(|i| shade(&**train, i)).collect::<Vec<_>>(), [10, 11, 12, 13, 20]);
    let labels: Vec<_> = (0..5).map(|i| train.label(i)).collect();
    assert_eq!(labels, [Some(3), Some(0), None, Some(1), Some(2)]);
    assert!(train.place(4).ends_with("train-001.tar/a.png"), "{}", train.place(4));
}

#[test]
fn folders_in_a_tar_are_classes() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pets.tar");
    fs::write(&path, tar(&[("./dog/1.png", png(1)), ("./cat/1.png", png(2)), ("./dog/2.png", png(3))]))
        .unwrap();
    let data = opened(&path);
    let train = data.train().unwrap();
    assert_eq!(train.classes(), ["cat", "dog"]);
    assert_eq!((0..3).map(|i| train.label(i).unwrap()).collect::<Vec<_>>(), [1, 0, 1]);
}

#[test]
fn tar_damage_is_counted_and_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s.tar");
    let members = [
        ("0.png", png(1)),
        ("0.cls", b"1".to_vec()),
        ("1.png", png(2)),
        ("1.cls", b"-4".to_vec()),
        ("2.png", vec![]),
        ("3.png", png(4)),
    ];
    let whole = tar(&members);
    fs::write(&path, &whole).unwrap();
    let data = opened(&path);
    let train = data.train().unwrap();
    // 1 has a wrong label, 2 is empty.
    assert_eq!((train.len(), shade(&**train, 0), shade(&**train, 1)), (2, 1, 4));
    let text = format!("{:?}", train.skipped());
    assert!(
        text.contains("the label -4 is negative") && text.contains("2.png") && text.contains("empty"),
        "{text}"
    );
    let strict = OpenOptions { strict: true, ..OpenOptions::default() };
    assert!(open(&path, &strict).unwrap_err().to_string().contains("2 damaged"));
    // Cut in the data of the last member, and at every other place: what is whole is used.
    let last = whole.len() - 1024 - 512 - 100;
    for cut in (600..whole.len() - 1024).step_by(97).chain([last]) {
        fs::write(&path, &whole[..cut]).unwrap();
        match open(&path, &OpenOptions::default()) {
            Ok(data) => {
                let train = data.train().unwrap();
                assert!((0..train.len()).all(|i| train.image(i).is_ok()), "cut at {cut}");
                assert!(train.len() == 2 || !train.skipped().is_empty(), "cut at {cut}");
            }
            Err(Error::Empty { .. }) => assert!(cut < 512 + members[0].1.len(), "cut at {cut}"),
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
    // Compressed, whatever its name says, and cut within its header.
    fs::write(&path, [0x1f, 0x8b, 8, 0, 0, 0, 0]).unwrap();
    assert!(open(&path, &OpenOptions::default()).unwrap_err().to_string().contains("compressed tar"));
    fs::write(&path, b"").unwrap();
    assert!(open(&path, &OpenOptions::default()).is_err());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The hidden files of a folder.
fn hidden(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
    names.sort();
    names
}

#[test]
fn compressed_shards_are_unpacked_once() {
    let dir = TempDir::new().unwrap();
    let shard = |shade: u8| {
        tar(&[
            ("a.png", png(shade)),
            ("a.cls", b"1".to_vec()),
            ("b.png", png(shade + 1)),
            ("b.cls", b"0".to_vec()),
        ])
    };
    fs::write(dir.path().join("train-0.tar.gz"), gzip(&shard(10))).unwrap();
    // Two streams, one behind the other, as pigz and others write them.
    let (first, second) = (shard(20), shard(20));
    fs::write(dir.path().join("train-1.TGZ"), [gzip(&first[..700]), gzip(&second[700..])].concat()).unwrap();
    fs::write(dir.path().join("val-0.tgz"), gzip(&shard(30))).unwrap();
    let shades = |data: &dyn Dataset| (0..data.len()).map(|i| shade(data, i)).collect::<Vec<_>>();
    let check = || {
        let data = opened(dir.path());
        let (train, val) = (data.train().unwrap(), data.held_out().unwrap());
        assert_eq!(
            (data.format, shades(&**train), shades(&**val)),
            ("tar shards", vec![10, 11, 20, 21], vec![30, 31])
        );
        assert_eq!((train.label(0), train.label(3)), (Some(1), Some(0)));
        assert!(train.place(0).ends_with("train-0.tar.gz/a.png"), "{}", train.place(0));
    };
    check();
    let names = [".train-0.tar.gz.unpacked", ".train-1.TGZ.unpacked", ".val-0.tgz.unpacked"];
    assert_eq!(hidden(dir.path()), names);
    // What is there is used again: a changed byte of it shows.
    let cache = dir.path().join(names[0]);
    let times = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let made = times(&cache);
    check();
    assert_eq!(times(&cache), made);
    fs::write(&cache, shard(50)).unwrap();
    fs::File::options().append(true).open(&cache).unwrap().set_modified(made).unwrap();
    assert_eq!(shade(&**opened(dir.path()).train().unwrap(), 0), 50);
    // A changed archive is unpacked anew.
    let path = dir.path().join("train-0.tar.gz");
    fs::write(&path, gzip(&shard(60))).unwrap();
    let later = made + std::time::Duration::from_secs(9);
    fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(shade(&**opened(&path).train().unwrap(), 0), 60);
    assert_eq!(hidden(dir.path()), names);
    // Beside images, as a download leaves it, an archive is not looked at.
    fs::write(dir.path().join("a.png"), png(0)).unwrap();
    assert_eq!(opened(dir.path()).train().unwrap().len(), 1);
}

#[test]
fn damaged_and_cut_compressed_shards_are_named_and_leave_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("train-0.tar.gz");
    let members: Vec<(String, Vec<u8>)> = (0..40).map(|i| (format!("{i}.png"), png(i))).collect();
    let members: Vec<(&str, Vec<u8>)> = members.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let whole = gzip(&tar(&members));
    let fails = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let message = open(&path, &OpenOptions::default()).unwrap_err().to_string();
        assert!(message.contains("train-0.tar.gz") && message.contains("damaged or cut"), "{message}");
        assert!(hidden(dir.path()).is_empty(), "{:?}", hidden(dir.path()));
    };
    for cut in (3..whole.len()).step_by(101).chain([whole.len() - 1]) {
        fails(&whole[..cut]);
    }
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 0x55;
    fails(&changed);
    fs::write(&path, &whole).unwrap();
    assert_eq!(opened(&path).train().unwrap().len(), 40);
}

#[test]
fn bombs_and_other_compressions_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.tar.gz");
    let bomb = gzip(&vec![0; 40 << 20]);
    fs::write(&path, &bomb).unwrap();
    let message = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains("x.tar.gz") && message.contains("bomb"), "{message}");
    assert!(hidden(dir.path()).is_empty());
    fs::remove_file(&path).unwrap();
    for name in ["train-0.tar.bz2", "x.TAR.xz"] {
        let path = dir.path().join(name);
        fs::write(&path, b"BZh9").unwrap();
        for place in [path.as_path(), dir.path()] {
            let message = open(place, &OpenOptions::default()).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("bunzip2"), "{message}");
        }
        fs::remove_file(&path).unwrap();
    }
}

#[cfg(feature = "zstd")]
#[test]
fn zstd_shards() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("train-0.tar.zst");
    let whole = zstd::encode_all(&tar(&[("a.png", png(7)), ("b.png", png(8))])[..], 3).unwrap();
    for cut in (1..whole.len()).step_by(17) {
        fs::write(&path, &whole[..cut]).unwrap();
        let message = open(&path, &OpenOptions::default()).unwrap_err().to_string();
        assert!(message.contains("train-0.tar.zst"), "cut at {cut}: {message}");
        assert!(hidden(dir.path()).is_empty());
    }
    fs::write(&path, &whole).unwrap();
    for place in [path.as_path(), dir.path()] {
        assert_eq!(shade(&**opened(place).train().unwrap(), 1), 8);
    }
}

#[test]
fn shards_are_read_by_many_threads() {
    use rayon::prelude::*;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("many.tar");
    let names: Vec<String> = (0..200).map(|i| format!("{i:03}.png")).collect();
    let members: Vec<_> = names.iter().zip(0u8..).map(|(n, i)| (n.as_str(), png(i))).collect();
    fs::write(&path, tar(&members)).unwrap();
    let options = OpenOptions { cache_bytes: 0, verify: Verify::Never, ..OpenOptions::default() };
    let data = TarShards::open(&path, std::slice::from_ref(&path), &options).unwrap();
    let wrong =
        (0..2000usize).into_par_iter().filter(|i| shade(&data, i * 7 % 200) != (i * 7 % 200) as u8).count();
    assert_eq!(wrong, 0);
}

#[test]
fn lists() {
    let dir = TempDir::new().unwrap();
    for (name, s) in [("x one.png", 1), ("b.png", 2), ("c.png", 3)] {
        fs::write(dir.path().join(name), png(s)).unwrap();
    }
    let list = dir.path().join("train.txt");
    fs::write(&list, "# images\nx one.png 1\n\nb.png 0\r\nc.png\t4\ngone.png 2\nb.png -3\n").unwrap();
    let data = opened(&list);
    let train = data.train().unwrap();
    assert_eq!((data.format, train.len(), train.classes().len()), ("image list", 3, 3));
    assert_eq!(
        (0..3).map(|i| (shade(&**train, i), train.label(i).unwrap())).collect::<Vec<_>>(),
        [(1, 1), (2, 0), (3, 2)]
    );
    let text = format!("{:?}", train.skipped());
    assert!(
        text.contains("line 6: there is no file gone.png") && text.contains("line 7: the label -3"),
        "{text}"
    );
    fs::write(&list, "b.png,dog\nc.png,cat\nx one.png,dog\n").unwrap();
    let data = opened(&list);
    assert_eq!(data.train().unwrap().classes(), ["cat", "dog"]);
    assert_eq!(data.train().unwrap().label(0), Some(1));
    fs::write(&list, "x one.png\nb.png\n").unwrap();
    let data = opened(&list);
    assert_eq!((data.train().unwrap().len(), data.train().unwrap().label(0)), (2, None));
    fs::write(&list, [0xff, 0xfe, 0x00]).unwrap();
    assert!(open(&list, &OpenOptions::default()).unwrap_err().to_string().contains("not a text file"));
}

#[test]
fn tiny_imagenet() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("wnids.txt", b"n02\nn01\n");
    write("words.txt", b"n01\tgoldfish, Carassius auratus\nn02\tbullfrog\n");
    write("train/n02/images/n02_0.JPEG", &png(1));
    write("train/n01/images/n01_0.JPEG", &png(2));
    write("train/n01/n01_boxes.txt", b"n01_0.JPEG\t0\t0\t3\t3\n");
    write("val/images/val_0.JPEG", &png(3));
    write("val/images/val_1.JPEG", &png(4));
    write(
        "val/val_annotations.txt",
        b"val_0.JPEG\tn02\t0\t0\t5\t5\nval_1.JPEG\tn01\t0\t0\t5\t5\nval_2.JPEG\tn99\t0\t0\t5\t5\n",
    );
    write("test/images/test_0.JPEG", &png(5));
    let data = opened(dir.path());
    let (train, val) = (data.train().unwrap(), data.held_out().unwrap());
    assert_eq!((data.format, train.len(), val.len()), ("Tiny-ImageNet", 2, 2));
    assert_eq!(train.classes(), ["goldfish, Carassius auratus", "bullfrog"]);
    assert_eq!(train.classes(), val.classes());
    assert_eq!((val.label(0), val.label(1)), (Some(1), Some(0)));
    assert!(val.skipped()[0].reason.contains("`n99` is not a class"), "{:?}", val.skipped());
}

#[test]
fn folders_with_parts_and_a_class_called_train() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, s: u8| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(s)).unwrap();
    };
    write("set/train/a/1.png", 1);
    write("set/train/b/1.png", 2);
    write("set/val/a/1.png", 3);
    let data = opened(&dir.path().join("set"));
    assert_eq!((data.train().unwrap().len(), data.held_out().unwrap().len()), (2, 1));
    write("vehicles/train/1.png", 1);
    write("vehicles/car/1.png", 2);
    let data = opened(&dir.path().join("vehicles"));
    assert_eq!(data.train().unwrap().classes(), ["car", "train"]);
    // Shards within parts.
    fs::create_dir_all(dir.path().join("wds/train")).unwrap();
    fs::write(dir.path().join("wds/train/0.tar"), tar(&[("0.png", png(9))])).unwrap();
    let data = opened(&dir.path().join("wds"));
    assert_eq!((data.format, shade(&**data.train().unwrap(), 0)), ("tar shards", 9));
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_end() {
    let dir = TempDir::new().unwrap();
    std::os::unix::fs::symlink(".", dir.path().join("train")).unwrap();
    let message = open(dir.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains("no usable image"), "{message}");
    let outer = TempDir::new().unwrap();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
    assert!(open(&inner, &OpenOptions::default()).is_err());
    std::os::unix::fs::symlink(".", inner.join("self")).unwrap();
    assert!(open(&inner, &OpenOptions::default()).is_err());
}

#[cfg(feature = "parquet")]
mod parquet_shards {
    use super::*;
    use infomax_data::ParquetShards;
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    const SCHEMA: &str = "message schema { OPTIONAL group image { OPTIONAL BINARY bytes; OPTIONAL BINARY path (UTF8); } OPTIONAL INT64 label; }";

    type Rows = Vec<(Option<Vec<u8>>, i64)>;

    /// Rows of (image, label) in groups, as `datasets` writes them; an image may be null.
    fn write(path: &Path, groups: &[Rows], compression: Compression) {
        let names = r#"{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}}}}"#;
        let metadata = vec![KeyValue::new("huggingface".to_owned(), names.to_owned())];
        let properties =
            WriterProperties::builder().set_compression(compression).set_key_value_metadata(Some(metadata));
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let file = fs::File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
        for rows in groups {
            let mut group = writer.next_row_group().unwrap();
            let levels: Vec<i16> = rows.iter().map(|r| if r.0.is_some() { 2 } else { 1 }).collect();
            let images: Vec<ByteArray> =
                rows.iter().filter_map(|r| r.0.clone()).map(ByteArray::from).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows.len()]), None).unwrap();
            column.close().unwrap();
            let labels: Vec<i64> = rows.iter().map(|r| r.1).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn rows(range: std::ops::Range<u8>) -> Rows {
        range.map(|i| (Some(png(i)), i64::from(i % 3))).collect()
    }

    #[test]
    fn hugging_face_shards() {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let path = |name: &str| dir.path().join("data").join(name);
        write(&path("train-00000-of-00002.parquet"), &[rows(0..5), rows(5..7)], Compression::SNAPPY);
        write(&path("train-00001-of-00002.parquet"), &[rows(7..9)], Compression::UNCOMPRESSED);
        write(&path("test-00000-of-00001.parquet"), &[rows(9..10)], Compression::SNAPPY);
        let data = opened(dir.path());
        let (train, test) = (data.train().unwrap(), data.held_out().unwrap());
        assert_eq!((data.format, train.len(), test.len()), ("parquet shards", 9, 1));
        assert_eq!(train.classes(), ["ant", "bee", "cow"]);
        assert_eq!(train.blocks(), [5, 7, 9]);
        for i in [8usize, 0, 5, 4, 6, 7] {
            assert_eq!((shade(&**train, i), train.label(i)), (i as u8, Some(i as u32 % 3)), "row {i}");
        }
        assert!(
            train.place(6).ends_with("train-00000-of-00002.parquet, row group 1, row 1"),
            "{}",
            train.place(6)
        );
    }

    #[test]
    fn every_compression_of_a_shard() {
        let dir = TempDir::new().unwrap();
        let all = [
            Compression::GZIP(Default::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
            Compression::ZSTD(Default::default()),
            Compression::BROTLI(Default::default()),
        ];
        for (i, compression) in all.into_iter().enumerate() {
            let path = dir.path().join(format!("{i}.parquet"));
            write(&path, &[rows(0..3), rows(3..6)], compression);
            let data = opened(&path);
            let train = data.train().unwrap();
            let shades: Vec<_> = (0..train.len()).map(|i| shade(&**train, i)).collect();
            assert_eq!(shades, [0, 1, 2, 3, 4, 5], "{compression:?}");
        }
    }

    #[test]
    fn damage_is_counted_and_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let mut bad = rows(0..4);
        bad[1].0 = None;
        bad[2].1 = -9;
        bad[3].0 = Some(b"no image".to_vec());
        write(&path, &[bad, rows(4..6)], Compression::SNAPPY);
        let data = opened(&path);
        let train = data.train().unwrap();
        assert_eq!((0..train.len()).map(|i| shade(&**train, i)).collect::<Vec<_>>(), [0, 4, 5]);
        assert_eq!(train.blocks(), [1, 3]);
        let text = format!("{:?}", train.skipped());
        for words in
            ["row 1", "the row has no image", "row 2: the label -9", "row 3", "neither a JPEG nor a PNG"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        // A shard that was cut beside a good one.
        let bytes = fs::read(&path).unwrap();
        fs::write(dir.path().join("b.parquet"), &bytes[..bytes.len() / 2]).unwrap();
        let data = opened(dir.path());
        assert_eq!(data.train().unwrap().len(), 3);
        let text = format!("{:?}", data.train().unwrap().skipped());
        assert!(text.contains("b.parquet") && text.contains("damaged parquet"), "{text}");
        fs::remove_file(&path).unwrap();
        assert!(open(dir.path(), &OpenOptions::default()).is_err());
    }

    #[test]
    fn many_threads_and_little_memory() {
        use rayon::prelude::*;
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let groups: Vec<_> = (0..20u8).map(|g| rows(g * 10..g * 10 + 10)).collect();
        write(&path, &groups, Compression::SNAPPY);
        let options = OpenOptions { cache_bytes: 0, verify: Verify::Never, ..OpenOptions::default() };
        let data = ParquetShards::open(&path, std::slice::from_ref(&path), &options).unwrap();
        let wrong = (0..2000usize)
            .into_par_iter()
            .filter(|i| shade(&data, i * 37 % 200) != (i * 37 % 200) as u8)
            .count();
        assert_eq!(wrong, 0);
    }

    /// A file with images and one column of labels, written by `labels` as it likes.
    fn labeled(
        path: &Path,
        column: &str,
        labels: impl Fn(&mut parquet::file::writer::SerializedColumnWriter<'_>),
    ) {
        let schema = format!("message schema {{ REQUIRED BINARY image; REQUIRED BINARY caption; {column} }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut writer =
            SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for text in [false, true] {
            let bytes = (0..4u8).map(|i| ByteArray::from(if text { vec![b'x'] } else { png(i) }));
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&bytes.collect::<Vec<_>>(), None, None).unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        labels(&mut column);
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn labels_of_every_type() {
        use parquet::data_type::{BoolType, DoubleType, Int32Type};
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let read = || {
            let data = opened(&path);
            let train = data.train().unwrap();
            let class =
                |i| train.label(i).map_or("-".to_owned(), |l: u32| train.classes()[l as usize].clone());
            ((0..train.len()).map(class).collect::<Vec<_>>().join(" "), data.notes().join("\n"))
        };
        let text = |v: &[&str]| v.iter().map(|t| ByteArray::from(t.as_bytes().to_vec())).collect::<Vec<_>>();
        labeled(&path, "OPTIONAL BINARY label (UTF8);", |c| {
            c.typed::<ByteArrayType>()
                .write_batch(&text(&["dog", "cat", "dog"]), Some(&[1, 1, 0, 1]), None)
                .unwrap();
        });
        let (classes, notes) = read();
        assert_eq!(classes, "dog cat - dog");
        assert!(notes.contains("not used: caption"), "{notes}");
        labeled(&path, "REQUIRED BOOLEAN target;", |c| {
            c.typed::<BoolType>().write_batch(&[true, false, true, true], None, None).unwrap();
        });
        assert_eq!(read().0, "1 0 1 1");
        labeled(&path, "REQUIRED DOUBLE Label;", |c| {
            c.typed::<DoubleType>().write_batch(&[5.0, f64::NAN, -1.0, 200_000.0], None, None).unwrap();
        });
        assert_eq!(read().0, "5 - - 200000");
        labeled(&path, "REQUIRED DOUBLE label;", |c| {
            c.typed::<DoubleType>().write_batch(&[0.5, 0.25, 1.0, 0.75], None, None).unwrap();
        });
        let (classes, notes) = read();
        assert!(
            classes == "- - - -" && notes.contains("`label` is not read") && notes.contains("whole"),
            "{notes}"
        );
        let one_hot = |values: &[i32], path: &Path| {
            labeled(
                path,
                "OPTIONAL group labels (LIST) { REPEATED group list { REQUIRED INT32 element; } }",
                |c| {
                    let levels = [2; 12];
                    let repeats = [0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1];
                    c.typed::<Int32Type>().write_batch(values, Some(&levels), Some(&repeats)).unwrap();
                },
            );
        };
        one_hot(&[0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0], &path);
        assert_eq!(read().0, "1 2 - 0");
        one_hot(&[0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0], &path);
        assert!(read().1.contains("several labels a sample"), "{}", read().1);
        labeled(&path, "REQUIRED INT64 price;", |c| {
            c.typed::<Int64Type>().write_batch(&[7, 7, 9, 9], None, None).unwrap();
        });
        let (classes, notes) = read();
        assert!(classes == "- - - -" && notes.contains("price; no column is called `label`"), "{notes}");
        let options = OpenOptions { label: Some("price".into()), ..OpenOptions::default() };
        assert_eq!(open(&path, &options).unwrap().train().unwrap().classes(), ["7", "9"]);
        labeled(&path, "REQUIRED BINARY split (UTF8);", |c| {
            let values = text(&["train", "test", "train", "test"]);
            c.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        });
        assert!(read().1.contains("the column `split` is not used: the rows of all"), "{}", read().1);
        labeled(&path, "REQUIRED INT64 price;", |c| {
            c.typed::<Int64Type>().write_batch(&[7, 7, 9, 9], None, None).unwrap();
        });
        let options = OpenOptions { label: Some("nope".into()), ..OpenOptions::default() };
        let text = open(&path, &options).unwrap_err().to_string();
        assert!(
            text.ends_with("a.parquet: no column `nope` for the labels; there are: image, caption, price"),
            "{text}"
        );
    }

    #[test]
    fn labels_of_half_floats_decimals_and_times() {
        use parquet::data_type::{FixedLenByteArray, FixedLenByteArrayType, Int32Type};
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let read = || {
            let data = opened(&path);
            let train = data.train().unwrap();
            let class =
                |i| train.label(i).map_or("-".to_owned(), |l: u32| train.classes()[l as usize].clone());
            ((0..train.len()).map(class).collect::<Vec<_>>().join(" "), data.notes().join("\n"))
        };
        let fixed = |kind: &str, values: [Vec<u8>; 4]| {
            let schema = format!("REQUIRED FIXED_LEN_BYTE_ARRAY ({}) label {kind};", values[0].len());
            labeled(&path, &schema, |c| {
                let values: Vec<FixedLenByteArray> =
                    values.iter().map(|v| ByteArray::from(v.clone()).into()).collect();
                c.typed::<FixedLenByteArrayType>().write_batch(&values, None, None).unwrap();
            });
        };
        fixed("(FLOAT16)", [0x0000u16, 0x3c00, 0x4000, 0x7e00].map(|v| v.to_le_bytes().to_vec()));
        assert_eq!(read().0, "0 1 2 -");
        fixed("(DECIMAL(9, 2))", [0i32, 100, 300, -100].map(|v| v.to_be_bytes().to_vec()));
        assert_eq!(read().0, "0 1 3 -");
        fixed("(DECIMAL(9, 2))", [50i32, 125, 75, 100].map(|v| v.to_be_bytes().to_vec()));
        let (classes, notes) = read();
        assert!(classes == "- - - -" && notes.contains("50e-2 is no whole number"), "{notes}");
        fixed("", [0u16, 1, 2, 0].map(|v| v.to_le_bytes().to_vec()));
        let (classes, notes) = read();
        assert!(
            classes == "- - - -" && notes.contains("`label` is not read as labels: it holds bytes"),
            "{notes}"
        );
        fixed("", ["cat", "dog", "cat", "ant"].map(|v| v.as_bytes().to_vec()));
        assert_eq!(read().0, "cat dog cat ant");
        for (kind, expected) in [("DECIMAL(9, 1)", "0 1 2 0"), ("DATE", "- - - -")] {
            labeled(&path, &format!("REQUIRED INT32 label ({kind});"), |c| {
                c.typed::<Int32Type>().write_batch(&[0, 10, 20, 0], None, None).unwrap();
            });
            let (classes, notes) = read();
            assert_eq!(classes, expected, "{kind}: {notes}");
            assert_eq!(notes.contains("`label` is not read as labels: it holds times"), kind == "DATE");
        }
    }

    #[test]
    fn as_many_groups_are_mixed_as_are_kept() {
        use infomax_data::Mixing;
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let groups: Vec<_> = (0..40u8).map(|g| rows(g * 5..g * 5 + 5)).collect();
        write(&path, &groups, Compression::SNAPPY);
        let data = opened(&path);
        let train = data.train().unwrap();
        assert_eq!(train.blocks().len(), 40);
        assert!(train.mixed_blocks() >= 40, "{}", train.mixed_blocks());
        assert_eq!(Mixing::of(&**train), None);
    }

    #[test]
    fn a_file_without_images_says_what_it_has() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let schema = Arc::new(
            parse_message_type("message schema { REQUIRED INT64 id; REQUIRED BINARY text; }").unwrap(),
        );
        let writer =
            SerializedFileWriter::new(fs::File::create(&path).unwrap(), schema, Arc::default()).unwrap();
        writer.close().unwrap();
        let text = open(&path, &OpenOptions::default()).unwrap_err().to_string();
        assert!(text.contains("no column of images; there are: id, text"), "{text}");
    }
}
