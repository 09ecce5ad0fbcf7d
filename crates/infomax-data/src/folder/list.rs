//! Images named by a text file or a table.

use super::walk::Walked;
use super::{Files, open_error};
use crate::labels::{NONE, Value, number};
use crate::options::{OpenOptions, Skipped};
use crate::passed::is_image_extension;
use crate::split::{PARTS, split_of};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The text of a file, with a readable error where it is not UTF-8. A byte order mark is no part of it.
fn text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| open_error(path, e))?;
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let text = String::from_utf8(bytes).map_err(|_| {
        let kind = if utf16 { "UTF-16; save it as UTF-8" } else { "UTF-8" };
        Error::Decode {
            path: path.to_path_buf(),
            reason: format!("not a text file in {kind}; a list holds one image a line"),
        }
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// What a list holds: a line each.
#[derive(Debug)]
pub(super) struct Listed {
    folder: PathBuf,
    lines: Vec<Line>,
    classes: Vec<String>,
    skipped: Vec<Skipped>,
    notes: Vec<String>,
    seen: usize,
}

#[derive(Debug)]
struct Line {
    file: String,
    label: u32,
    part: Option<&'static str>,
}

impl Listed {
    fn of(&self, lines: impl Iterator<Item = usize>) -> Walked {
        let mut found = Walked { classes: self.classes.clone(), seen: self.seen, ..Walked::default() };
        found.store.enter(self.folder.clone());
        for line in lines.filter_map(|i| self.lines.get(i)) {
            let label = Some(line.label).filter(|label| *label != NONE);
            found.store.push(Path::new(&line.file).as_os_str().into(), label);
        }
        found
    }

    /// All lines.
    pub(super) fn whole(self) -> Walked {
        let found = self.of(0..self.lines.len());
        Walked { unreadable: self.skipped, notes: self.notes, ..found }
    }

    /// The lines of each part that the list tells; `None` for a list that tells none.
    pub(super) fn parts(self) -> Vec<(Option<&'static str>, Walked)> {
        if self.lines.iter().all(|line| line.part.is_none()) {
            return vec![(None, self.whole())];
        }
        let mut parts = Vec::new();
        for part in PARTS {
            // A line without a part is trained on, as everything that no word tells.
            let mine: Vec<usize> =
                (0..self.lines.len()).filter(|i| self.lines[*i].part.unwrap_or("train") == part).collect();
            if !mine.is_empty() {
                parts.push((Some(part), self.of(mine.into_iter())));
            }
        }
        if let Some((_, first)) = parts.first_mut() {
            (first.unreadable, first.notes) = (self.skipped, self.notes);
        }
        parts
    }
}

/// The columns of a table.
#[derive(Debug, Default)]
struct Columns {
    path: usize,
    label: Option<usize>,
    split: Option<usize>,
}

pub(super) fn read(path: &Path, options: &OpenOptions) -> Result<Listed> {
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let text = text(path)?;
    let mut rows = rows(path, &text)?;
    let (mut notes, mut skipped) = (Vec::new(), Vec::new());
    let header = match rows.first() {
        Some((_, row)) if is_header(&folder, row) => Some(rows.remove(0).1),
        _ => None,
    };
    let width = rows.iter().map(|(_, row)| row.len()).max().unwrap_or(0);
    let columns = columns(path, &folder, header.as_deref(), &rows, width, options, &mut notes)?;
    let seen = rows.len();
    let (mut files, mut values) = (Vec::new(), Vec::new());
    for (number, row) in &rows {
        let (file, label) = resolve(&folder, row, &columns);
        let value = label.as_deref().map_or(Value::Missing, Value::of_text);
        match (file, value) {
            (_, Value::Wrong(reason)) => skipped.push(Skipped::new(path, format!("line {number}: {reason}"))),
            (Err(file), _) => {
                skipped.push(Skipped::new(path, format!("line {number}: there is no file {file}")));
            }
            (Ok(file), value) => {
                let part = columns.split.and_then(|c| split_of(row.get(c)?));
                files.push((file, part));
                values.push(value);
            }
        }
    }
    let numbered = number(&values, &[]);
    let labels = numbered.labels.into_iter().map(|label| label.unwrap_or(NONE));
    let lines =
        files.into_iter().zip(labels).map(|((file, part), label)| Line { file, label, part }).collect();
    Ok(Listed { folder, lines, classes: numbered.classes, skipped, notes, seen })
}

type Row = Vec<String>;

/// The records with the number of their line.
fn rows(path: &Path, text: &str) -> Result<Vec<(u64, Row)>> {
    let visible = || text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    let some = |c: char| visible().take(100).filter(|l| l.contains(c)).count();
    let lines = visible().take(100).count();
    // The delimiter that most lines have; a comma or semicolon may be a part of few names.
    let delimiter = [('\t', 1), (',', 2), (';', 2)]
        .into_iter()
        .find(|(c, least)| some(*c) > 0 && some(*c) * least >= lines)
        .map(|(c, _)| c)
        .or_else(|| ['\t', ',', ';'].into_iter().find(|c| some(*c) > 0));
    let mut rows = Vec::new();
    let Some(delimiter) = delimiter else {
        for (i, line) in text.lines().enumerate() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                let row = match rows.is_empty() {
                    true => spaced_header(line).unwrap_or_else(|| spaced(line.trim())),
                    false => spaced(line.trim()),
                };
                rows.push((i as u64 + 1, row));
            }
        }
        return Ok(rows);
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter as u8)
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    for record in reader.records() {
        let record = record
            .map_err(|e| Error::Decode { path: path.to_path_buf(), reason: format!("damaged table: {e}") })?;
        let mut row: Row = record.iter().map(str::to_owned).collect();
        if let [only] = &row[..] {
            row = spaced(only);
        }
        // The position is the one before lines that are passed over.
        let (at, line) = record.position().map_or((0, 0), |p| (p.byte() as usize, p.line()));
        let before = text.get(at..).unwrap_or_default().lines();
        let before = before.take_while(|l| l.trim().is_empty() || l.starts_with('#')).count() as u64;
        let number = line + before;
        if row.iter().any(|field| !field.is_empty()) {
            rows.push((number, row));
        }
    }
    Ok(rows)
}

/// A line without a delimiter: a path, and behind a space a label that is a whole number.
fn spaced(line: &str) -> Row {
    match line.rsplit_once(char::is_whitespace) {
        Some((file, label)) if label.parse::<i64>().is_ok() => vec![file.trim().to_owned(), label.to_owned()],
        _ => vec![line.to_owned()],
    }
}

/// A first line `image label`, without a delimiter: two words, both of which name columns.
fn spaced_header(line: &str) -> Option<Row> {
    let row: Row = line.split_whitespace().map(str::to_owned).collect();
    let known = |field: &str, names: &[&str]| names.contains(&field.to_lowercase().as_str());
    let is_header = matches!(&row[..], [path, label] if known(path, &PATHS) && known(label, &LABELS));
    is_header.then_some(row)
}

const PATHS: [&str; 17] = [
    "path",
    "paths",
    "file",
    "files",
    "filename",
    "file_name",
    "filenames",
    "filepath",
    "file_path",
    "image",
    "images",
    "image_path",
    "image_name",
    "img",
    "img_path",
    "name",
    "image_id",
];
const LABELS: [&str; 17] = [
    "label",
    "labels",
    "class",
    "classes",
    "class_name",
    "classname",
    "category",
    "target",
    "targets",
    "y",
    "cls",
    "label_id",
    "class_id",
    "category_id",
    "species",
    "breed",
    "tag",
];
const SPLITS: [&str; 6] = ["split", "set", "subset", "part", "partition", "fold"];

/// Whether the first line names the columns: none of its fields is an image, and one is a word for a column.
fn is_header(folder: &Path, row: &[String]) -> bool {
    let image = |field: &String| {
        let extension = Path::new(field).extension().and_then(|e| e.to_str());
        extension.is_some_and(is_image_extension) || (!field.is_empty() && folder.join(field).is_file())
    };
    let known = |field: &String| {
        let field = field.to_lowercase().replace([' ', '-'], "_");
        PATHS.contains(&field.as_str()) || LABELS.contains(&field.as_str())
    };
    !row.iter().any(image) && row.iter().any(known)
}

fn columns(
    path: &Path,
    folder: &Path,
    header: Option<&[String]>,
    rows: &[(u64, Row)],
    width: usize,
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<Columns> {
    let simple = |name: &str| name.to_lowercase().replace([' ', '-'], "_");
    let find = |names: &[&str], but: &[usize]| {
        let header: Vec<String> = header.unwrap_or_default().iter().map(|name| simple(name)).collect();
        names.iter().find_map(|name| header.iter().position(|h| h == name).filter(|at| !but.contains(at)))
    };
    // The column that names the most files, as far as can be told from the first lines.
    let files = |column: usize| {
        let field = |row: &Row| row.get(column).is_some_and(|f| !f.is_empty() && exists(folder, f).is_some());
        rows.iter().take(50).filter(|(_, row)| field(row)).count()
    };
    let named = find(&PATHS, &[]).filter(|at| files(*at) > 0);
    let most = (0..width).max_by_key(|c| (files(*c), width - c)).unwrap_or(0);
    let image = named.unwrap_or(if files(most) > 0 { most } else { find(&PATHS, &[]).unwrap_or(0) });
    let split = find(&SPLITS, &[image])
        .filter(|at| rows.iter().any(|(_, row)| row.get(*at).is_some_and(|field| split_of(field).is_some())));
    let taken: Vec<usize> = [Some(image), split].into_iter().flatten().collect();
    let asked = match &options.label {
        None => None,
        Some(name) => {
            let header = header.unwrap_or_default();
            let at = header.iter().position(|h| h == name).ok_or_else(|| Error::Decode {
                path: path.to_path_buf(),
                reason: format!(
                    "there is no column `{name}` for the labels; there are: {}",
                    header.join(", ")
                ),
            })?;
            Some(at)
        }
    };
    let others: Vec<usize> = (0..width).filter(|c| !taken.contains(c)).collect();
    let label = asked.or_else(|| find(&LABELS, &taken)).or(match (&others[..], header) {
        // Without names the label stands behind the path, or, where the path is last, before it.
        ([only], None) => Some(*only),
        (_, None) => others.iter().copied().find(|c| *c > image).or(others.last().copied()),
        ([only], Some(_)) => Some(*only),
        (_, Some(_)) => None,
    });
    let unused: Vec<String> = others
        .iter()
        .filter(|c| Some(**c) != label)
        .map(|c| {
            header.and_then(|h| h.get(*c)).map_or_else(|| format!("{}", c + 1), |name| format!("`{name}`"))
        })
        .collect();
    if !unused.is_empty() {
        let used = match (label, header) {
            (Some(label), Some(header)) => {
                format!("labels are those of the column `{}`", header[label.min(header.len() - 1)])
            }
            (Some(label), None) => format!("labels are those of column {}", label + 1),
            (None, _) => {
                "no column is called `label`, so there are no labels (data.label names another one)".into()
            }
        };
        notes.push(format!("{used}; columns that are not used: {}", unused.join(", ")));
    }
    Ok(Columns { path: image, label, split })
}

/// A file that a field names: as it stands, or with the separators of Windows.
fn exists(folder: &Path, field: &str) -> Option<String> {
    if folder.join(field).is_file() {
        return Some(field.to_owned());
    }
    let turned = field.replace('\\', "/");
    (turned != field && folder.join(&turned).is_file()).then_some(turned)
}

/// The file of a line, or the name that leads to none, and its label. Where a name has a delimiter in it and no
/// quotes, it is joined again.
fn resolve(folder: &Path, row: &[String], columns: &Columns) -> (Result<String, String>, Option<String>) {
    let field = |c: usize| row.get(c).cloned();
    let name = row.get(columns.path).map_or("", String::as_str);
    if let Some(file) = exists(folder, name).filter(|_| !name.is_empty()) {
        return (Ok(file), columns.label.and_then(field));
    }
    if columns.path == 0 && columns.split.is_none() {
        for end in (2..=row.len()).rev() {
            for glue in [",", ", ", ";", "; "] {
                if let Some(file) = exists(folder, &row[..end].join(glue)) {
                    return (Ok(file), row.get(end).cloned());
                }
                if let [file, label] = &spaced(&row[..end].join(glue))[..]
                    && let Some(file) = exists(folder, file)
                {
                    return (Ok(file), Some(label.clone()));
                }
            }
        }
    }
    (Err(name.to_owned()), columns.label.and_then(field))
}

/// Tiny-ImageNet's `val_annotations.txt`: file, class, box, separated by tabs.
pub(super) fn annotations(root: &Path, classes: &[String]) -> Result<Walked> {
    let path = root.join("val_annotations.txt");
    let text = text(&path)?;
    let labels: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let mut found = Walked { store: Files::default(), classes: classes.to_vec(), ..Walked::default() };
    found.store.enter(root.join("images"));
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        found.seen += 1;
        let mut fields = line.split('\t');
        let (file, class) = (fields.next().unwrap_or(""), fields.next().unwrap_or("").trim());
        match labels.get(class) {
            Some(label) => found.store.push(Path::new(file).as_os_str().into(), Some(*label)),
            None => {
                let reason = format!("line {}: `{class}` is not a class of the training set", number + 1);
                found.unreadable.push(Skipped::new(&path, reason));
            }
        }
    }
    Ok(found)
}
