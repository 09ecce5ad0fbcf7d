//! Every source: written by the test, opened, read back; and damaged in every way that files are.
#![allow(clippy::unwrap_used, clippy::panic)]

use infomax_data::{Dataset, OpenOptions, Opened, open};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use tempfile::TempDir;

fn opened(path: &Path) -> Opened {
    open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn message(path: &Path) -> String {
    open(path, &OpenOptions::default()).unwrap_err().to_string()
}

fn strict(path: &Path) -> String {
    open(path, &OpenOptions { strict: true, ..OpenOptions::default() }).unwrap_err().to_string()
}

fn reasons(data: &dyn Dataset) -> Vec<String> {
    data.skipped().iter().map(|s| format!("{}: {}", s.path.display(), s.reason)).collect()
}

/// The value of channel `c` at column `x` of row `y` in image `i` of the synthetic sets.
fn value(i: usize, x: usize, y: usize, c: usize) -> u8 {
    (i * 31 + x * 7 + y * 3 + c * 101) as u8
}

/// Three planes.
fn planar(i: usize, side: usize) -> Vec<u8> {
    let at = |k: usize| value(i, k % side, k / side % side, k / (side * side));
    (0..3 * side * side).map(at).collect()
}

#[track_caller]
fn check(data: &dyn Dataset, index: usize, i: usize, channels: usize) {
    let image = data.image(index).unwrap();
    assert_eq!(image.channels(), channels);
    for (x, y) in [(0, 0), (1, 0), (0, 1), (5, 3), (image.width() - 1, image.height() - 1)] {
        let want: Vec<u8> = (0..channels).map(|c| value(i, x, y, c)).collect();
        assert_eq!(image.pixel(x, y), Some(&want[..]), "image {i} at {x}, {y}");
    }
}

fn cifar(labels: &[u8], ahead: &[u8], from: usize) -> Vec<u8> {
    let record = |(i, label): (usize, &u8)| [ahead, &[*label], &planar(from + i, 32)].concat();
    labels.iter().enumerate().flat_map(record).collect()
}

#[test]
fn cifar_10_binary() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("data_batch_1.bin"), cifar(&[3, 9], &[], 0)).unwrap();
    fs::write(folder.join("data_batch_2.bin"), cifar(&[0], &[], 2)).unwrap();
    fs::write(folder.join("test_batch.bin"), cifar(&[7], &[], 3)).unwrap();
    // The folder itself, and the one that the archive was unpacked into.
    for path in [&folder, dir.path()] {
        let data = opened(path);
        assert_eq!(data.format, "CIFAR-10 binary");
        let (train, test) = (data.train().unwrap(), data.held_out().unwrap());
        assert_eq!((train.len(), test.len(), train.classes().len()), (3, 1, 10));
        assert_eq!(train.classes()[3], "cat");
        assert_eq!((0..3).map(|i| train.label(i).unwrap()).collect::<Vec<_>>(), [3, 9, 0]);
        (0..3).for_each(|i| check(&**train, i, i, 3));
        check(&**test, 0, 3, 3);
        assert!(train.image(3).is_err());
        assert!(train.describe().contains("3 images of 32x32, 10 classes"), "{}", train.describe());
    }
    fs::write(folder.join("batches.meta.txt"), "a b c d e f g h i j\n").unwrap();
    assert_eq!(opened(&folder).train().unwrap().classes()[3], "d");
}

#[test]
fn cifar_damage_is_counted_and_named() {
    let dir = TempDir::new().unwrap();
    let mut bytes = cifar(&[1, 200, 2, 3], &[], 0);
    bytes.truncate(bytes.len() - 100);
    fs::write(dir.path().join("data_batch_1.bin"), &bytes).unwrap();
    let data = opened(dir.path());
    let train = data.train().unwrap();
    // Record 1 has a wrong label, record 3 is cut.
    assert_eq!((train.len(), train.label(0), train.label(1)), (2, Some(1), Some(2)));
    check(&**train, 1, 2, 3);
    let reasons = reasons(&**train);
    assert_eq!(reasons.len(), 2);
    assert!(reasons[0].contains("record 3: cut") && reasons[0].contains("data_batch_1.bin"), "{reasons:?}");
    assert!(reasons[1].contains("record 1") && reasons[1].contains("200 is not in 0..10"), "{reasons:?}");
    assert!(train.place(1).ends_with("data_batch_1.bin, record 2"), "{}", train.place(1));
    assert!(strict(dir.path()).contains("2 damaged"));
    fs::write(dir.path().join("data_batch_1.bin"), b"").unwrap();
    assert!(message(dir.path()).contains("no usable image"), "{}", message(dir.path()));
}

#[test]
fn cifar_100_binary_has_fine_labels() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("train.bin"), cifar(&[99, 42], &[7], 0)).unwrap();
    fs::write(dir.path().join("test.bin"), cifar(&[1], &[7], 2)).unwrap();
    let names: Vec<String> = (0..100).map(|i| format!("class_{i}")).collect();
    fs::write(dir.path().join("fine_label_names.txt"), names.join("\n")).unwrap();
    let data = opened(dir.path());
    assert_eq!(data.format, "CIFAR-100 binary");
    let train = data.train().unwrap();
    assert_eq!((train.label(0), train.label(1), &*train.classes()[42]), (Some(99), Some(42), "class_42"));
    check(&**train, 1, 1, 3);
}

/// A batch as Python 2 pickled it (protocol 2): a dictionary of an array of `uint8` and a list.
fn pickled(labels: &[u8], key: &str, from: usize) -> Vec<u8> {
    let text = |s: &str| [&[b'U', s.len() as u8][..], s.as_bytes()].concat();
    let pixels: Vec<u8> = (0..labels.len()).flat_map(|i| planar(from + i, 32)).collect();
    let mut out = b"\x80\x02}q\x01(".to_vec();
    out.extend(text("data"));
    out.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85");
    out.extend(text("b"));
    out.extend(b"\x87R(K\x01K");
    out.push(labels.len() as u8);
    out.extend(b"M\x00\x0c\x86cnumpy\ndtype\n");
    out.extend(text("u1"));
    out.extend(b"K\x00K\x01\x87R(K\x03");
    out.extend(text("|"));
    out.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
    out.extend((pixels.len() as u32).to_le_bytes());
    out.extend(&pixels);
    out.extend(b"tb");
    out.extend(text(key));
    out.extend(b"](");
    labels.iter().for_each(|l| out.extend([b'K', *l]));
    out.extend(b"eu.");
    out
}

#[test]
fn cifar_python_is_read_without_running_it() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("data_batch_1"), pickled(&[4, 5], "labels", 0)).unwrap();
    fs::write(dir.path().join("test_batch"), pickled(&[6], "labels", 2)).unwrap();
    let data = opened(dir.path());
    assert_eq!(data.format, "CIFAR-10 Python");
    let train = data.train().unwrap();
    assert_eq!((train.len(), train.label(1), &*train.classes()[4]), (2, Some(5), "deer"));
    check(&**train, 1, 1, 3);
    // A damaged batch among good ones is named.
    let good = pickled(&[1], "labels", 0);
    fs::write(dir.path().join("data_batch_2"), &good[..good.len() - 40]).unwrap();
    let data = opened(dir.path());
    assert_eq!(data.train().unwrap().len(), 2);
    assert!(reasons(&**data.train().unwrap())[0].contains("data_batch_2: damaged pickle"));

    let hundred = TempDir::new().unwrap();
    fs::write(hundred.path().join("train"), pickled(&[88], "fine_labels", 5)).unwrap();
    fs::write(hundred.path().join("meta"), b"}.").unwrap();
    let data = opened(hundred.path());
    assert_eq!((data.format, data.train().unwrap().label(0)), ("CIFAR-100 Python", Some(88)));
}

/// Written by CPython 3.11 with NumPy 2.4: `fixtures/make_pickle.py`.
#[test]
fn pickles_of_python_3_are_read_too() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("data_batch_1"), include_bytes!("fixtures/batch_protocol2.pickle")).unwrap();
    fs::write(dir.path().join("data_batch_2"), include_bytes!("fixtures/batch_protocol4.pickle")).unwrap();
    let data = opened(dir.path());
    let train = data.train().unwrap();
    assert_eq!((train.len(), reasons(&**train)), (4, Vec::new()));
    assert_eq!((0..4).map(|i| train.label(i).unwrap()).collect::<Vec<_>>(), [3, 8, 3, 8]);
    (0..4).for_each(|i| check(&**train, i, i % 2, 3));
}

#[test]
fn stl_10() {
    let dir = TempDir::new().unwrap();
    // Columns first.
    let image = |i: usize| -> Vec<u8> {
        let side = 96;
        (0..3 * side * side).map(|k| value(i, k / side % side, k % side, k / (side * side))).collect()
    };
    fs::write(dir.path().join("train_X.bin"), [image(0), image(1)].concat()).unwrap();
    fs::write(dir.path().join("train_y.bin"), [1, 10]).unwrap();
    fs::write(dir.path().join("test_X.bin"), image(2)).unwrap();
    fs::write(dir.path().join("test_y.bin"), [11]).unwrap();
    fs::write(dir.path().join("unlabeled_X.bin"), [image(3), image(4), vec![0; 99]].concat()).unwrap();
    fs::write(
        dir.path().join("class_names.txt"),
        "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n",
    )
    .unwrap();
    // The only test image has a label that does not exist, so that part is empty: an error that names it.
    let text = message(dir.path());
    assert!(text.contains("no usable image") && text.contains("the label 10 is not in 0..10"), "{text}");
    fs::write(dir.path().join("test_y.bin"), [3]).unwrap();
    let data = opened(dir.path());
    let (train, unlabeled) = (data.train().unwrap(), data.part("unlabeled").unwrap());
    assert_eq!((train.len(), unlabeled.len(), data.format), (2, 2, "STL-10 binary"));
    assert_eq!((train.label(0), train.label(1), unlabeled.label(0)), (Some(0), Some(9), None));
    check(&**train, 1, 1, 3);
    check(&**unlabeled, 0, 3, 3);
    assert!(reasons(&**unlabeled)[0].contains("record 2: cut, 99 of 27648 bytes"));
}

fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
    out.extend(data);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gray(i: usize, width: usize, height: usize) -> Vec<u8> {
    (0..width * height).map(|k| value(i, k % width, k / width, 0)).collect()
}

#[test]
fn idx_plain_and_compressed() {
    let dir = TempDir::new().unwrap();
    let images: Vec<u8> = (0..3).flat_map(|i| gray(i, 20, 28)).collect();
    fs::write(dir.path().join("train-images-idx3-ubyte.gz"), gzip(&idx(&[3, 28, 20], &images))).unwrap();
    fs::write(dir.path().join("train-labels-idx1-ubyte.gz"), gzip(&idx(&[3], &[5, 0, 4]))).unwrap();
    fs::write(dir.path().join("t10k-images-idx3-ubyte"), idx(&[2, 28, 20], &images[..2 * 560])).unwrap();
    fs::write(dir.path().join("t10k-labels-idx1-ubyte"), idx(&[2], &[1, 2])).unwrap();
    let data = opened(dir.path());
    let (train, test) = (data.train().unwrap(), data.part("test").unwrap());
    assert_eq!((data.format, train.len(), test.len()), ("IDX", 3, 2));
    // The numbers that occur in any part are the classes, with the same number in each part.
    assert_eq!(train.classes(), ["0", "1", "2", "4", "5"]);
    assert_eq!((train.label(2), test.label(1), test.classes()), (Some(3), Some(2), train.classes()));
    check(&**train, 2, 2, 1);
    check(&**test, 1, 1, 1);
    assert!(train.describe().contains("of 20x28"), "{}", train.describe());
    // One file alone.
    assert_eq!(opened(&dir.path().join("t10k-images-idx3-ubyte")).part("test").unwrap().len(), 2);
}

#[test]
fn idx_damage() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("train-images-idx3-ubyte");
    let images: Vec<u8> = (0..3).flat_map(|i| gray(i, 20, 28)).collect();
    let whole = idx(&[3, 28, 20], &images);
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let data = opened(&path);
    assert_eq!(data.train().unwrap().len(), 2);
    assert!(reasons(&**data.train().unwrap())[0].contains("cut: 2 of 3 images"));
    fs::write(dir.path().join("train-labels-idx1-ubyte"), idx(&[2], &[1, 2])).unwrap();
    assert!(message(&path).contains("labels of dimensions [2] for 3 images"), "{}", message(&path));
    fs::remove_file(dir.path().join("train-labels-idx1-ubyte")).unwrap();
    for (bytes, words) in [
        (&b""[..], "not an IDX file"),
        (&whole[..9], "within its header"),
        (&[0, 0, 10, 3, 0, 0, 0, 1][..], "type 0x0a"),
        (&idx(&[3, 0, 20], &[])[..], "hold no pixel"),
        (&idx(&[u32::MAX, u32::MAX, u32::MAX, 3], &[])[..], "too many"),
        (&idx(&[1, 60_000, 60_000], &[])[..], "max_pixels"),
        (b"PK\x03\x04 wrongly named", "not an IDX file"),
    ] {
        fs::write(&path, bytes).unwrap();
        assert!(message(&path).contains(words), "{words}: {}", message(&path));
    }
    // A compressed file that was cut, and one that promises more than there is.
    let packed = dir.path().join("test-images-idx3-ubyte.gz");
    let noise: Vec<u8> = (0..3 * 560u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
    let gz = gzip(&idx(&[3, 28, 20], &noise));
    fs::write(&packed, &gz[..gz.len() * 2 / 3]).unwrap();
    let data = opened(&packed);
    assert!((1..3).contains(&data.part("test").unwrap().len()));
    fs::write(&packed, gzip(&idx(&[u32::MAX, 65535, 65535], &[]))).unwrap();
    assert!(message(&packed).contains("limit of"), "{}", message(&packed));
    fs::write(&packed, &gz[..12]).unwrap();
    assert!(message(&packed).contains("gzip") || message(&packed).contains("IDX"), "{}", message(&packed));
}

fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let pad = 64 - (10 + dict.len() + 1) % 64;
    dict.push_str(&" ".repeat(pad));
    dict.push('\n');
    [&b"\x93NUMPY\x01\x00"[..], &(dict.len() as u16).to_le_bytes(), dict.as_bytes(), data].concat()
}

fn hwc(i: usize, width: usize, height: usize) -> Vec<u8> {
    (0..width * height * 3).map(|k| value(i, k / 3 % width, k / 3 / width, k % 3)).collect()
}

#[test]
fn npy_with_labels_beside() {
    let dir = TempDir::new().unwrap();
    let images: Vec<u8> = (0..3).flat_map(|i| hwc(i, 9, 7)).collect();
    let labels: Vec<u8> = [2i64, -1, 0].iter().flat_map(|l| l.to_le_bytes()).collect();
    fs::write(dir.path().join("images.npy"), npy("|u1", &[3, 7, 9, 3], &images)).unwrap();
    fs::write(dir.path().join("labels.npy"), npy("<i8", &[3], &labels)).unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("images.npy")] {
        let data = opened(&path);
        let train = data.train().unwrap();
        assert_eq!(
            (data.format, train.len(), train.classes()),
            ("NumPy .npy", 3, &["0".into(), "2".into()][..])
        );
        assert_eq!([train.label(0), train.label(1), train.label(2)], [Some(1), None, Some(0)]);
        check(&**train, 2, 2, 3);
    }
    // Another number of labels.
    fs::write(dir.path().join("labels.npy"), npy("<i8", &[2], &labels[..16])).unwrap();
    assert!(message(dir.path()).contains("3 images, but labels 2 labels"), "{}", message(dir.path()));
    // Labels out of range are left out and named.
    let wrong: Vec<u8> = [2i64, -7, -5_000_000].iter().flat_map(|l| l.to_le_bytes()).collect();
    fs::write(dir.path().join("labels.npy"), npy("<i8", &[3], &wrong)).unwrap();
    let data = opened(dir.path());
    assert_eq!(data.train().unwrap().len(), 1);
    let reasons = reasons(&**data.train().unwrap());
    assert!(reasons.iter().any(|r| r.contains("record 1: the label -7")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.contains("record 2: the label -5000000")), "{reasons:?}");
    // Cut.
    let whole = npy("|u1", &[3, 7, 9, 3], &images);
    fs::remove_file(dir.path().join("labels.npy")).unwrap();
    fs::write(dir.path().join("images.npy"), &whole[..whole.len() - 1]).unwrap();
    assert_eq!(opened(dir.path()).train().unwrap().len(), 2);
}

#[test]
fn floating_point_images_hold_zero_to_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.npy");
    let numbers = [0.0f32, 1.0, 0.5, 2.0 / 255.0];
    let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(&path, npy("<f4", &[1, 2, 2], &bytes)).unwrap();
    assert_eq!(opened(&path).train().unwrap().image(0).unwrap().data(), [0, 255, 128, 2]);
    for bad in [1.5f32, f32::NAN, -0.1] {
        let bytes: Vec<u8> = [0.0, bad, 0.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        fs::write(&path, npy("<f4", &[1, 2, 2], &bytes)).unwrap();
        let text = message(&path);
        assert!(text.contains("x.npy") && text.contains("0 to 1"), "{text}");
    }
}

/// A zip file, as NumPy writes it.
fn zip(members: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let packed = match deflate {
            false => bytes.clone(),
            true => {
                let mut encoder =
                    flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        };
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        // Version, flags, method, time, date, checksum, sizes, lengths of name and extra field.
        let mut head = vec![20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0x21, 0];
        head.extend(crc.sum().to_le_bytes());
        head.extend((packed.len() as u32).to_le_bytes());
        head.extend((bytes.len() as u32).to_le_bytes());
        head.extend((name.len() as u16).to_le_bytes());
        head.extend([0, 0]);
        let at = out.len() as u32;
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&head);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&head);
        out.extend(name.as_bytes());
        out.extend(packed);
    }
    let (at, count) = (out.len() as u32, members.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

#[test]
fn npz_stored_and_deflated() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("medmnist.npz");
    let planes: Vec<u8> = (0..2).flat_map(|i| planar(i, 8)).collect();
    for deflate in [false, true] {
        let members = [
            ("train_images.npy", npy("|u1", &[2, 3, 8, 8], &planes)),
            ("train_labels.npy", npy("|u1", &[2, 1], &[1, 0])),
            ("val_images.npy", npy("|u1", &[1, 3, 8, 8], &planes[..192])),
            ("val_labels.npy", npy("|u1", &[1, 1], &[1])),
            ("notes.npy", npy("|O", &[1], b"")),
        ];
        let bytes = zip(&members, deflate);
        fs::write(&path, &bytes).unwrap();
        let data = opened(&path);
        let (train, val) = (data.train().unwrap(), data.held_out().unwrap());
        assert_eq!((data.format, train.len(), val.len()), ("NumPy .npz", 2, 1));
        assert_eq!((train.label(0), train.label(1), val.label(0)), (Some(1), Some(0), Some(1)));
        check(&**train, 1, 1, 3);
    }
    let mut bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(message(&path).contains("damaged .npz"), "{}", message(&path));
    // A changed byte within a compressed member.
    bytes[150] ^= 0x55;
    fs::write(&path, &bytes).unwrap();
    assert!(message(&path).contains("damaged .npz: train_images.npy"), "{}", message(&path));
}

#[test]
fn safetensors_arrays() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data.safetensors");
    let images: Vec<u8> = (0..2).flat_map(|i| hwc(i, 8, 8)).collect();
    let labels: Vec<u8> = [1u32, 3].iter().flat_map(|l| l.to_le_bytes()).collect();
    let tensors = [
        ("images", TensorView::new(Dtype::U8, vec![2, 8, 8, 3], &images).unwrap()),
        ("labels", TensorView::new(Dtype::U32, vec![2], &labels).unwrap()),
    ];
    let bytes = serialize(tensors, None).unwrap();
    fs::write(&path, &bytes).unwrap();
    let data = opened(&path);
    let train = data.train().unwrap();
    assert_eq!(
        (data.format, train.len(), train.label(1), &*train.classes()[1]),
        ("safetensors", 2, Some(1), "3")
    );
    check(&**train, 1, 1, 3);
    fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    // The labels lie first in the file: the last image is cut.
    let data = opened(&path);
    assert_eq!(data.train().unwrap().len(), 1);
    assert!(reasons(&**data.train().unwrap())[0].contains("cut: 1 of 2"));
    fs::write(&path, [0xff; 20]).unwrap();
    assert!(message(&path).contains("a header of"), "{}", message(&path));
    fs::write(&path, b"abc").unwrap();
    assert!(message(&path).contains("within its header"), "{}", message(&path));
}

#[test]
fn arrays_without_images_say_what_there_is() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("x.npy"), npy("<f4", &[4], &[0; 16])).unwrap();
    let text = message(dir.path());
    assert!(text.contains("no array of images") && text.contains("x [4]"), "{text}");
}

#[test]
fn what_is_no_data_set_is_refused_with_a_list() {
    let dir = TempDir::new().unwrap();
    assert!(message(&dir.path().join("gone")).contains("no such file"));
    fs::write(dir.path().join("a.zip"), b"PK").unwrap();
    assert!(message(&dir.path().join("a.zip")).contains(".parquet"));
    assert!(message(dir.path()).contains("no usable image"));
}

/// Arrays in Fortran order and with the most significant byte first hold the same images and labels.
#[test]
fn npy_in_any_order() {
    let dir = TempDir::new().unwrap();
    let (n, h, w) = (3, 7, 9);
    let images: Vec<u8> = (0..n).flat_map(|i| hwc(i, w, h)).collect();
    let shape = [n, h, w, 3];
    let mut fortran = Vec::with_capacity(images.len());
    for c in 0..3 {
        for x in 0..w {
            for y in 0..h {
                fortran.extend((0..n).map(|i| images[((i * h + y) * w + x) * 3 + c]));
            }
        }
    }
    let file = npy("|u1", &shape, &fortran);
    let text = b"False";
    let at = file.windows(text.len()).position(|part| part == text).unwrap();
    let file = [&file[..at], b"True ", &file[at + 5..]].concat();
    fs::write(dir.path().join("images.npy"), file).unwrap();
    let labels: Vec<u8> = [2i64, 1, 0].iter().flat_map(|l| l.to_be_bytes()).collect();
    fs::write(dir.path().join("labels.npy"), npy(">i8", &[3], &labels)).unwrap();
    let data = opened(dir.path());
    let train = data.train().unwrap();
    assert_eq!([train.label(0), train.label(1), train.label(2)], [Some(2), Some(1), Some(0)]);
    check(&**train, 2, 2, 3);
}
