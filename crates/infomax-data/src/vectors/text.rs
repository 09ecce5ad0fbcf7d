//! Tables of numbers as text: comma, semicolon, tab or space between them.

use super::scan::Sink;
use super::{Table, VectorOptions, Vectors};
use crate::{Error, Result};
use std::path::Path;

/// Words that mean that a value is missing, beside an empty cell and `nan`.
const MISSING: [&str; 5] = ["na", "n/a", "null", "none", "<na>"];

/// What stands in a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    Number(f64),
    Missing,
    Word,
}

pub(super) fn read(path: &Path, options: &VectorOptions) -> Result<Vectors> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("no text in UTF-8".into()))?;
    let text = text.trim_start_matches('\u{feff}');
    let mut notes = Vec::new();
    let (mut width, mut index, mut empty, mut values) = (None, false, 0usize, Vec::new());
    // The names of the columns, until the first row tells which of them hold words; then which stand beside the numbers.
    let (mut names, mut beside, mut table) = (Vec::new(), None::<Vec<usize>>, Table::default());
    each(text, |line, cells| {
        let Some(width) = width else {
            width = Some(cells.len());
            if let Some(why) = header(cells) {
                index = cells.len() > 1 && cells[0].is_empty();
                names = cells.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
                notes.extend(why);
                return Ok(());
            }
            return numbers(line, cells, &[], &mut values, &mut empty);
        };
        if cells.len() != width {
            return Err(format!("line {line} has {} cells, the first has {width}", cells.len()));
        }
        let apart = beside.get_or_insert_with(|| {
            let own = others(&names, cells, index);
            table = Table::new(own.iter().map(|&j| names[j].clone()).collect());
            own
        });
        for (&j, (_, column)) in apart.iter().zip(&mut table.columns) {
            column.push(Some(cells[j].to_owned()).filter(|text| !text.is_empty()));
        }
        let mut skipped = apart.clone();
        skipped.extend(index.then_some(0));
        numbers(line, cells, &skipped, &mut values, &mut empty)
    })
    .map_err(damaged)?;
    if index {
        notes.push("the first column has no name: it is an index, and is left out".into());
    }
    if empty > 0 {
        notes.push(format!("{empty} cells are empty; they count as not finite"));
    }
    if !table.columns.is_empty() {
        let listed: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        notes.push(format!("columns of words or labels stand beside the numbers: {}", listed.join(", ")));
    }
    let d = width.unwrap_or(0) - usize::from(index) - table.columns.len();
    let n = values.len().checked_div(d).unwrap_or(0);
    let mut sink = Sink::new(n, d, true, options);
    values.chunks_exact(d.max(1)).for_each(|row| sink.push(row));
    let read = sink.finish(path, Table::default(), notes)?;
    let table = read.drawn.as_ref().map_or_else(|| table.clone(), |drawn| table.select(drawn));
    Ok(Vectors { table, ..read })
}

/// Names of columns that are labels or say which row it is, whatever they hold.
const BESIDE: [&str; 7] = ["label", "labels", "class", "target", "category", "id", "index"];

/// The columns with a name that are no part of the embedding: labels, and those whose first cell is a word.
fn others(names: &[String], cells: &[&str], index: bool) -> Vec<usize> {
    let apart = |j: &usize| {
        let name = names.get(*j).map_or("", String::as_str);
        !name.is_empty()
            && (BESIDE.iter().any(|label| name.eq_ignore_ascii_case(label)) || cell(cells[*j]) == Cell::Word)
    };
    (usize::from(index)..cells.len()).filter(apart).collect()
}

/// Calls back with the number and the cells of each line that is neither empty nor a remark.
fn each(text: &str, mut take: impl FnMut(usize, &[&str]) -> Result<(), String>) -> Result<(), String> {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let Some(delimiter) = ['\t', ';', ','].into_iter().find(|d| first.unwrap_or_default().contains(*d))
    else {
        for (i, line) in text.lines().enumerate() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                take(i + 1, &line.split_whitespace().collect::<Vec<_>>())?;
            }
        }
        return Ok(());
    };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter as u8)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    for record in reader.records() {
        let record = record.map_err(|e| e.to_string())?;
        let line = record.position().map_or(0, |p| p.line() as usize);
        take(line, &record.iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

fn cell(text: &str) -> Cell {
    match text.parse() {
        Ok(value) => Cell::Number(value),
        Err(_) if text.is_empty() || MISSING.iter().any(|w| text.eq_ignore_ascii_case(w)) => Cell::Missing,
        Err(_) => Cell::Word,
    }
}

/// Whether the first line has the names of columns, with what is to be said of it: words alone, or the numbers of the
/// columns from 0 as pandas writes them where they have no names. An index before them has no name.
fn header(cells: &[&str]) -> Option<Option<String>> {
    let own = if cells.len() > 1 && cells[0].is_empty() { &cells[1..] } else { cells };
    if own.iter().any(|c| cell(c) == Cell::Word) && own.iter().all(|c| !matches!(cell(c), Cell::Number(_))) {
        return Some(None);
    }
    // A single 0 is more likely a value, unless a name stands beside it: a column of labels that was added to the others.
    let counts: Vec<&&str> = own.iter().filter(|c| cell(c) != Cell::Word).collect();
    let named = counts.len() < own.len();
    let counted = (cells.len() > 1 || named) && counts.iter().enumerate().all(|(i, c)| **c == i.to_string());
    (counted && !counts.is_empty()).then(|| {
        let last = counts.len() - 1;
        Some(format!(
            "the first line, 0 to {last}, is taken for the names of the columns, as pandas writes them; if it is a row, \
             write it as 0.0"
        ))
    })
}

fn numbers(
    line: usize,
    cells: &[&str],
    skipped: &[usize],
    values: &mut Vec<f64>,
    empty: &mut usize,
) -> Result<(), String> {
    for (column, text) in cells.iter().enumerate().filter(|(column, _)| !skipped.contains(column)) {
        values.push(match cell(text) {
            Cell::Number(value) => value,
            Cell::Missing => {
                *empty += 1;
                f64::NAN
            }
            Cell::Word => {
                return Err(format!("line {line}, column {}: `{text}` is no number", column + 1));
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<(Vec<Vec<f64>>, Vec<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("z.csv");
        std::fs::write(&path, text).unwrap();
        let read = read(&path, &VectorOptions::default()).map_err(|e| e.to_string())?;
        Ok((read.values.to_vec2().unwrap(), read.notes))
    }

    #[test]
    fn what_pandas_writes_is_read_without_its_names_and_index() {
        let rows = [[1.5, 2.0], [3.0, 4.0]];
        for (text, said) in [
            ("0,1\n1.5,2\n3,4\n", Some("names of the columns")),
            (",0,1\n0,1.5,2\n1,3,4\n", Some("it is an index")),
            (",a,b\nr0,1.5,2\nr1,3,4\n", Some("it is an index")),
            (",0,1,label\n0,1.5,2,7\n1,3,4,8\n", Some("labels stand beside the numbers: label")),
            ("0,1,species\n1.5,2,emu\n3,4,fox\n", Some("names of the columns")),
            ("id,a,b\n10,1.5,2\n11,3,4\n", Some("stand beside the numbers: id")),
            ("a;b\n1.5;2\n3;4\n", None),
            ("# remark\n1.5 2\n\n3 4\n", None),
            ("\u{feff}1.5\t2\n3\t4\n", None),
        ] {
            let read = of(text);
            if text.contains("r0") {
                // Whatever the index holds, it is left out.
                assert!(read.is_ok(), "{text:?} {read:?}");
            }
            let (found, notes) = read.unwrap();
            assert_eq!(found, rows, "{text:?}");
            assert_eq!(said.is_some(), !notes.is_empty(), "{text:?} {notes:?}");
            assert!(said.is_none_or(|said| notes.iter().any(|n| n.contains(said))), "{notes:?}");
        }
        // Rows that only begin like a count are rows.
        assert_eq!(of("0,1.0\n5,6\n").unwrap().0.len(), 2);
        assert_eq!(of("0,2\n5,6\n").unwrap().0.len(), 2);
        assert_eq!(of("0\n5\n").unwrap().0.len(), 2);
    }

    #[test]
    fn columns_of_words_and_labels_stand_beside_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("z.csv");
        std::fs::write(&path, "a,species,b,label\n1,emu,2,0\n3,,4,1\n5,fox,6,0\n").unwrap();
        let found = read(&path, &VectorOptions::default()).unwrap();
        assert_eq!(found.values.to_vec2::<f64>().unwrap(), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        let names: Vec<&str> = found.table.columns.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["species", "label"]);
        assert_eq!(found.table.columns[0].1, [Some("emu".into()), None, Some("fox".into())]);
        assert!(found.notes[0].contains("species, label"), "{:?}", found.notes);
        // Rows that are drawn take their words along.
        let few = VectorOptions { most_rows: Some(2), ..VectorOptions::default() };
        let few = read(&path, &few).unwrap();
        let drawn = few.drawn.unwrap();
        let want: Vec<Option<String>> = drawn.iter().map(|&i| found.table.columns[0].1[i].clone()).collect();
        assert_eq!(few.table.columns[0].1, want);
    }

    #[test]
    fn empty_cells_are_not_finite_and_words_are_refused() {
        let (rows, notes) = of("a,b\n1,\nNA,4\n5,6\n").unwrap();
        assert!(rows[0][1].is_nan() && rows[1][0].is_nan() && rows[2] == [5.0, 6.0]);
        assert_eq!(notes, ["2 cells are empty; they count as not finite"]);
        for (text, why) in [
            ("1,2\n3,x\n", "line 2, column 2: `x` is no number"),
            ("1,2\n3\n", "line 2 has 1 cells, the first has 2"),
            ("a,b\n", "there are no embeddings"),
            ("", "there are no embeddings"),
        ] {
            let said = of(text).unwrap_err();
            assert!(said.contains(why), "{text:?}: {said}");
        }
    }
}
