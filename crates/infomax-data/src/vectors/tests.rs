//! Files are written here, whole and damaged, and read back.

use super::*;
use candle_core::{DType, Device};
use std::collections::HashMap;
use std::fs;

fn matrix(n: usize, d: usize) -> Vec<f32> {
    (0..n * d).map(|k| ((k * 7919) % 1009) as f32 / 1009.0 - 0.5).collect()
}

fn some(rows: usize) -> VectorOptions {
    VectorOptions { most_rows: Some(rows), seed: 3, ..VectorOptions::default() }
}

fn said(result: Result<Vectors>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn drawn_rows_are_those_of_the_file_and_all_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (n, d) = (500, 6);
    let mut values = matrix(n, d);
    values[7 * d + 2] = f32::NAN;
    values.copy_within(10 * d..11 * d, 20 * d);
    values[30 * d..31 * d].fill(0.0);
    values.iter_mut().skip(4).step_by(d).for_each(|v| *v = 0.0);
    let z = Tensor::from_vec(values.clone(), (n, d), &Device::Cpu).unwrap();
    let (npy, safe) = (dir.path().join("z.npy"), dir.path().join("z.safetensors"));
    z.write_npy(&npy).unwrap();
    candle_core::safetensors::save(&HashMap::from([("z", z.clone())]), &safe).unwrap();
    for path in [&npy, &safe] {
        let all = read_vectors(path, &VectorOptions::default()).unwrap();
        assert!(all.drawn.is_none() && all.scan.is_none());
        assert_eq!(all.values.to_vec2::<f32>().unwrap()[499], values[499 * d..]);
        let part = read_vectors(path, &some(50)).unwrap();
        let (rows, scan) = (part.drawn.unwrap(), part.scan.unwrap());
        assert!(rows.len() == 50 && rows.windows(2).all(|w| w[0] < w[1]));
        let read = part.values.to_vec2::<f32>().unwrap();
        for (row, own) in rows.iter().zip(&read) {
            let want = &values[row * d..(row + 1) * d];
            assert!(own.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits()), "row {row}");
        }
        assert_eq!((scan.rows, scan.not_finite, scan.first_not_finite.as_slice()), (n, 1, &[7usize][..]));
        assert_eq!((scan.zero, scan.duplicates, scan.constant_columns), (1, 1, 1));
        let finite = (0..n).filter(|i| *i != 7).map(|i| f64::from(values[i * d]));
        let mean = finite.clone().sum::<f64>() / 499.0;
        let variance = finite.map(|v| (v - mean) * (v - mean)).sum::<f64>() / 498.0;
        assert!((scan.means[0] - mean).abs() < 1e-12 && (scan.variances[0] - variance).abs() < 1e-12);
    }
    // The same seed, the same rows; another, others.
    let rows = |seed: u64| read_vectors(&npy, &VectorOptions { seed, ..some(50) }).unwrap().drawn;
    assert!(rows(1) == rows(1) && rows(1) != rows(2));
    let bytes = VectorOptions { most_bytes: Some(100 * 6 * 4), ..VectorOptions::default() };
    assert_eq!(read_vectors(&npy, &bytes).unwrap().values.dims(), [100, 6]);
}

#[test]
fn parts_that_are_joined_count_as_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (n, d) = (300, 4);
    let values = matrix(n, d);
    let scan = |from: usize, to: usize| {
        let path = dir.path().join("z.npy");
        let part = values[from * d..to * d].to_vec();
        Tensor::from_vec(part, (to - from, d), &Device::Cpu).unwrap().write_npy(&path).unwrap();
        read_vectors(&path, &some(10)).unwrap().scan.unwrap()
    };
    let whole = scan(0, n);
    let mut joined = Scan::default();
    for (from, to) in [(0, 50), (50, 220), (220, n)] {
        joined.join(&scan(from, to), from);
    }
    assert_eq!((joined.rows, joined.not_finite, joined.constant_columns), (n, 0, 0));
    for j in 0..d {
        assert!((joined.means[j] - whole.means[j]).abs() < 1e-12);
        assert!((joined.variances[j] - whole.variances[j]).abs() < 1e-12);
    }
}

#[test]
fn lines_of_json_have_an_array_and_fields_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("z.jsonl");
    fs::write(&path, "{\"id\":\"a\",\"embedding\":[1,2.5],\"box\":[1,2,3],\"label\":3}\n\n{\"id\":null,\"embedding\":[null,4],\"label\":\"x\"}\n").unwrap();
    let read = read_vectors(&path, &VectorOptions::default()).unwrap();
    let rows = read.values.to_vec2::<f64>().unwrap();
    assert!(rows[0] == [1.0, 2.5] && rows[1][0].is_nan() && rows[1][1] == 4.0);
    assert_eq!(read.table.column(&["LABEL"]).unwrap().1, [Some("3".into()), Some("x".into())]);
    assert_eq!(read.table.column(&["id"]).unwrap().1, [Some("a".to_owned()), None]);
    let other = VectorOptions { column: Some("box".into()), ..VectorOptions::default() };
    let read = read_vectors(&path, &other).unwrap();
    assert!(read.values.to_vec2::<f64>().unwrap()[1].iter().all(|v| v.is_nan()));
    assert_eq!(read.notes, ["1 rows have no embedding; they count as not finite"]);
    fs::write(&path, "[1,2]\n[3,4]\n").unwrap();
    assert_eq!(read_vectors(&path, &VectorOptions::default()).unwrap().values.dims(), [2, 2]);
    for (text, why) in [
        ("", "an empty file"),
        ("\n\n", "no line holds an embedding"),
        ("null\n", "no line holds an embedding"),
        ("{\"z\":[1]}\n{\"z\":\"x\"}\n", "line 2 has no array of numbers `z`"),
        ("{\"z\":[1]}\n[1]\n", "line 2 is no object with a field `z`"),
        ("{\"a\":1}\n", "no column holds lists of numbers; its columns: a"),
        ("{\"p\":[1],\"q\":[2]}\n", "2 columns hold lists of numbers; name one: FILE:p | q"),
        ("[1,2]\n[3]\n", "line 2 has 1 numbers, the first has 2"),
        ("[1,2]\n[3,NaN]\n", "write null"),
        ("7\n", "neither an object nor an array"),
    ] {
        fs::write(&path, text).unwrap();
        let message = said(read_vectors(&path, &VectorOptions::default()));
        assert!(message.contains(why), "{text}: {message}");
    }
}

#[test]
fn lines_without_an_embedding_count_as_not_finite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("z.jsonl");
    for text in [
        "{\"z\":null,\"id\":1}\n{\"z\":[1,2],\"id\":2}\n{\"id\":3}\nnull\n{\"z\":[],\"id\":5}\n{\"z\":[3,4],\"id\":6}\n",
        "null\n[1,2]\n[]\nnull\nnull\n[3,4]\n",
        // What the first line has is not what the others mean.
        "{\"embedding\":null,\"box\":[1,2,3],\"id\":1}\n{\"embedding\":[1,2],\"box\":[1]}\n{}\n{}\n{}\n{\"embedding\":[3,4]}\n",
    ] {
        fs::write(&path, text).unwrap();
        let read = read_vectors(&path, &VectorOptions::default()).unwrap();
        let rows = read.values.to_vec2::<f64>().unwrap();
        assert_eq!(rows.len(), 6, "{text}");
        for (i, row) in rows.iter().enumerate() {
            match i {
                1 => assert_eq!(row, &[1.0, 2.0]),
                5 => assert_eq!(row, &[3.0, 4.0]),
                _ => assert!(row.iter().all(|v| v.is_nan()), "{text} {i}"),
            }
        }
        assert_eq!(read.notes, ["4 rows have no embedding; they count as not finite"]);
        assert!(read.table.column(&["z", "embedding"]).is_none());
        let part = read_vectors(&path, &some(3)).unwrap();
        assert_eq!(part.scan.unwrap().not_finite, 4);
    }
}

#[test]
fn a_table_has_the_same_cells_from_each_kind_of_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("t.csv"), "\u{feff}name,group\na b,1\n\"c,d\",\n").unwrap();
    fs::write(path("t.tsv"), "name\tgroup\na b\t1\nc,d\t\n").unwrap();
    fs::write(path("t.jsonl"), "{\"name\":\"a b\",\"group\":1}\n{\"name\":\"c,d\"}\n").unwrap();
    let table = read_table(&path("t.csv")).unwrap();
    assert_eq!(table.column(&["group"]).unwrap().1, [Some("1".to_owned()), None]);
    assert_eq!(table.column(&["name"]).unwrap().1[1].as_deref(), Some("c,d"));
    assert_eq!(table.select(&[1, 9]).column(&["name"]).unwrap().1, [Some("c,d".to_owned()), None]);
    let sorted = |name: &str| {
        let mut table = read_table(&path(name)).unwrap();
        table.columns.sort();
        table
    };
    assert_eq!(sorted("t.csv"), sorted("t.tsv"));
    // A line of JSON says which of its values are texts; a table of text does not.
    let (plain, typed) = (sorted("t.csv"), sorted("t.jsonl"));
    assert_eq!(plain.columns, typed.columns);
    assert!(plain.texts.is_empty() && typed.texts.iter().eq(["name"]), "{:?}", typed.texts);
    fs::write(path("bad.csv"), "a,b\n1\n").unwrap();
    assert!(read_table(&path("bad.csv")).is_err() && read_table(&path("t.png")).is_err());
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("z.parquet");
    let (n, d) = (5_000, 3);
    let values = matrix(n, d);
    let text = |i: usize| (!i.is_multiple_of(5)).then(|| format!("name {i}"));
    let columns = vec![
        ("row".to_owned(), Cells::Whole((0..n as i64).collect())),
        (
            "score".to_owned(),
            Cells::Numbers((0..n).map(|i| i.is_multiple_of(3).then_some(i as f64 / 4.0)).collect()),
        ),
        ("name".to_owned(), Cells::Texts((0..n).map(text).collect())),
        ("vector".to_owned(), Cells::Lists(d, values.clone())),
    ];
    fs::write(&path, parquet_bytes(&path, &columns).unwrap()).unwrap();
    let read = read_vectors(&path, &VectorOptions::default()).unwrap();
    assert_eq!((read.values.dims(), read.values.dtype()), (&[n, d][..], DType::F32));
    assert_eq!(read.values.flatten_all().unwrap().to_vec1::<f32>().unwrap(), values);
    assert_eq!(read.table.column(&["name"]).unwrap().1, (0..n).map(text).collect::<Vec<_>>());
    assert_eq!(
        read.table.column(&["score"]).unwrap().1[..4],
        [Some("0".into()), None, None, Some("0.75".into())]
    );
    // Drawn rows keep what stands beside them.
    let part = read_vectors(&path, &some(40)).unwrap();
    let rows = part.drawn.unwrap();
    assert_eq!(
        part.table.column(&["row"]).unwrap().1,
        rows.iter().map(|r| Some(r.to_string())).collect::<Vec<_>>()
    );
    assert_eq!(part.values.get(7).unwrap().to_vec1::<f32>().unwrap(), values[rows[7] * d..(rows[7] + 1) * d]);
    assert_eq!(read_table(&path).unwrap().columns.len(), 3);
    // Columns of numbers alone are a matrix.
    let wide = vec![
        ("a".to_owned(), Cells::Numbers(vec![Some(1.0), None])),
        ("b".to_owned(), Cells::Numbers(vec![Some(2.0), Some(3.0)])),
    ];
    fs::write(&path, parquet_bytes(&path, &wide).unwrap()).unwrap();
    let read = read_vectors(&path, &VectorOptions::default()).unwrap();
    let rows = read.values.to_vec2::<f64>().unwrap();
    assert!(
        rows[0] == [1.0, 2.0] && rows[1][0].is_nan() && read.notes[0].contains("2 columns of floating point")
    );
    let unequal = vec![wide[0].clone(), ("c".to_owned(), Cells::Whole(vec![1]))];
    assert!(parquet_bytes(&path, &unequal).is_err());
}

#[test]
fn damage_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["z.npy", "z.safetensors", "z.parquet", "z.jsonl"] {
        let path = dir.path().join(name);
        assert!(read_vectors(&path, &VectorOptions::default()).is_err(), "no file");
        for bytes in [&b""[..], b"\x93NUMPY", b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"PAR1 damaged PAR1"] {
            fs::write(&path, bytes).unwrap();
            assert!(read_vectors(&path, &VectorOptions::default()).is_err(), "{name} {bytes:?}");
        }
    }
    let path = dir.path().join("cut.npy");
    Tensor::from_vec(matrix(10, 3), (10, 3), &Device::Cpu).unwrap().write_npy(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(said(read_vectors(&path, &VectorOptions::default())).contains("shorter than its shape"));
}
