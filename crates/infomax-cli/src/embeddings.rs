//! Embeddings with what stands beside them, from whatever holds them.

use crate::args::InspectArgs;
use crate::arrays;
use crate::labels::{self, LABELS, Labels};
use crate::progress::Progress;
use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Tensor};
use infomax_data::{Scan, Table, VectorOptions, read_table, read_vectors};
use infomax_run::{EmbedOptions, embed_run};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What `inspect` keeps in memory by default, in bytes of f32: what is computed of it takes about fifteen times as much.
pub(crate) const KEPT: u64 = 112 << 20;
/// Kinds of files that are read in pieces.
const PIECES: [&str; 6] = ["npy", "safetensors", "parquet", "pq", "jsonl", "ndjson"];
/// Tables of numbers as text.
const TEXTS: [&str; 3] = ["csv", "tsv", "txt"];
/// Kinds that are read, in words.
const KINDS: &str = ".npy, .npz, .safetensors, .pt and .pth (tensors), .parquet, .jsonl and .ndjson, .csv, .tsv and .txt \
                     (numbers), a folder or a quoted pattern of such files, or a run";
/// Kinds that a folder of shards may hold.
const SHARDS: [&str; 12] =
    ["npy", "npz", "safetensors", "pt", "pth", "csv", "tsv", "txt", "parquet", "pq", "jsonl", "ndjson"];
/// Embeddings, and what is known of their rows.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) z: Tensor,
    pub(crate) labels: Option<Labels>,
    pub(crate) table: Table,
    /// Where relative paths of the table start.
    pub(crate) folder: PathBuf,
    pub(crate) drawn: Option<Vec<usize>>,
    pub(crate) scan: Option<Scan>,
    pub(crate) notes: Vec<String>,
}

/// What is read of embeddings.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadOptions {
    /// Rows at most; of more, so many are drawn.
    pub(crate) rows: Option<usize>,
    /// The bytes of f32 that are kept, if `rows` is `None`; all if this is, too.
    pub(crate) kept: Option<u64>,
    /// The seed of that draw.
    pub(crate) seed: u64,
    /// Where the encoder of a run computes.
    pub(crate) device: Option<String>,
}

impl ReadOptions {
    pub(crate) fn of(args: &InspectArgs) -> Self {
        Self { rows: args.read_rows, kept: Some(KEPT), seed: args.seed, device: args.device.clone() }
    }
}

/// Reads a file, a folder or a pattern of shards, or embeds the test images of a run (those that it trained on, if it
/// has no others).
pub(crate) fn read(word: &str, wanted: &ReadOptions, progress: &mut Progress) -> Result<Loaded> {
    let path = Path::new(word);
    if path.is_dir() && !holds_shards(path) {
        is_run(path)?;
        return of_run(word, wanted.device.as_ref(), progress);
    }
    let files = files(word)?;
    let mut options = VectorOptions {
        most_rows: wanted.rows,
        most_bytes: wanted.kept.map(|kept| kept / files.len() as u64),
        seed: wanted.seed,
        ..VectorOptions::default()
    };
    if let Some(rows) = wanted.rows {
        if rows < 2 {
            bail!("--read-rows {rows}: at least 2 rows are needed");
        }
        options.most_rows = Some(rows.div_ceil(files.len()));
    }
    let parts = files.iter().map(|file| of_file(file, &options)).collect::<Result<Vec<_>>>()?;
    let mut whole = joined(parts, &files)?;
    if files.len() > 1 {
        whole.notes.insert(0, format!("{word}: {} files, their rows one after the other", files.len()));
    }
    if let (Some(drawn), Some(scan)) = (&whole.drawn, &whole.scan) {
        whole.notes.push(format!(
            "{word}: {} of {} rows were drawn with the seed {}; --read-rows sets how many",
            drawn.len(),
            scan.rows,
            wanted.seed
        ));
    }
    whole.notes.iter().for_each(|note| progress.note(note));
    Ok(whole)
}

/// Adds the table of `--columns`, and the labels of `--labels` or of a column.
pub(crate) fn with_arguments(loaded: &mut Loaded, args: &InspectArgs) -> Result<()> {
    let rows = loaded.z.dim(0)?;
    if let Some(path) = &args.columns {
        readable(path)?;
        let table = read_table(path)?;
        let all = loaded.scan.as_ref().map_or(rows, |scan| scan.rows);
        let table = match &loaded.drawn {
            _ if table.rows() == rows && loaded.drawn.is_none() => table,
            Some(drawn) if table.rows() == all => table.select(drawn),
            _ => bail!(
                "{} has {} rows, and there are {all} embeddings: row i of both is the same sample",
                path.display(),
                table.rows()
            ),
        };
        loaded.table.columns.retain(|(name, _)| table.column(&[name.as_str()]).is_none());
        loaded.table.columns.splice(0..0, table.columns);
        loaded.folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    }
    if let Some(path) = &args.labels {
        let all = loaded.scan.as_ref().map_or(rows, |scan| scan.rows);
        let (read, note) = labels::of_argument(&path.to_string_lossy(), all, &loaded.table)?;
        loaded.notes.extend(note);
        let mut labels = read.labels();
        if let (Some(drawn), Some(scan)) = (&loaded.drawn, &loaded.scan)
            && labels.classes.len() == scan.rows
            && loaded.z.dim(0)? != scan.rows
        {
            labels.classes = drawn.iter().map(|&i| labels.classes[i]).collect();
        }
        loaded.labels = Some(labels);
    } else if loaded.labels.is_none()
        && let Some((name, values)) = loaded.table.column(&LABELS)
    {
        let found = labels::Raw::of_column(values).labels();
        loaded.notes.push(format!("the labels are those of the column `{name}`"));
        loaded.labels = Some(found);
    }
    // Columns beside the labels: what they are called says nothing new.
    loaded.table.columns.retain(|(name, _)| !LABELS.contains(&name.to_lowercase().as_str()));
    Ok(())
}

fn of_run(word: &str, device: Option<&String>, progress: &mut Progress) -> Result<Loaded> {
    let of = infomax_run::UseOptions { device: device.cloned(), ..Default::default() };
    let options = EmbedOptions { of, ..EmbedOptions::default() };
    let embedded = embed_run(Path::new(word), &options, progress)?;
    let part = if embedded.rows.iter().any(|row| row.part == "test") { "test" } else { "train" };
    let of_part = || (0u32..).zip(&embedded.rows).filter(|(_, row)| row.part == part);
    let rows: Vec<u32> = of_part().map(|(i, _)| i).collect();
    let classes: Vec<Option<u32>> = of_part().map(|(_, row)| row.label).collect();
    let names = of_part().filter_map(|(_, row)| Some((row.label?, row.class.clone()?))).collect();
    let paths = of_part().map(|(_, row)| Some(row.place.clone()).filter(|p| !p.is_empty())).collect();
    let index = Tensor::new(rows, embedded.values.device())?;
    let labels = classes.iter().any(Option::is_some).then_some(Labels::named(classes, names));
    let note = format!("{word}: {} images of the part `{part}`", index.elem_count());
    progress.note(&note);
    Ok(Loaded {
        z: embedded.values.index_select(&index, 0)?,
        labels,
        table: Table { columns: vec![("path".into(), paths)], ..Table::default() },
        folder: PathBuf::new(),
        drawn: None,
        scan: None,
        notes: vec![note],
    })
}

/// Refuses a folder that holds neither a run nor arrays.
fn is_run(folder: &Path) -> Result<()> {
    let shown = folder.display();
    if folder.join("config.toml").exists() {
        return Ok(());
    }
    let inside = match std::fs::read_dir(folder).map(Iterator::count) {
        Ok(0) => "it is empty".to_owned(),
        Ok(count) => format!("none of the {count} things in it is one"),
        Err(e) => format!("it cannot be read: {e}"),
    };
    bail!(
        "{shown} is not a run: it has no config.toml; nor is it a folder of arrays ({}): {inside}",
        SHARDS.map(|kind| format!(".{kind}")).join(", ")
    )
}

/// A folder without the configuration of a run, in which there are arrays.
pub(crate) fn holds_shards(folder: &Path) -> bool {
    !folder.join("config.toml").exists() && !shards(folder).is_empty()
}

fn shards(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.is_file() && SHARDS.contains(&kind(path).as_str())).collect();
    files.sort();
    files
}

fn kind(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The files of a folder or a pattern; else the word itself.
pub(crate) fn files(word: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(word);
    let files = if path.is_dir() {
        shards(path)
    } else if !path.exists() && word.contains(['*', '?', '[']) {
        let found = glob::glob(word).with_context(|| format!("`{word}` is no pattern of files"))?;
        let mut files = found.collect::<Result<Vec<_>, _>>()?;
        files.sort();
        files
    } else {
        return Ok(vec![path.to_path_buf()]);
    };
    let Some(first) = files.first() else {
        let what =
            if path.is_dir() { "a folder without a file of a kind that is read" } else { "no file matches" };
        bail!("{word}: {what} ({})", SHARDS.map(|kind| format!(".{kind}")).join(", "))
    };
    let same = |a: &str, b: &str| a == b || [a, b].iter().all(|k| ["pt", "pth"].contains(k));
    if let Some(other) = files.iter().find(|file| !same(&kind(first), &kind(file))) {
        let text = "shards are of one kind; name them by a quoted pattern such as 'z-*.npy'";
        let run =
            if path.is_dir() { "is not a run: it has no config.toml; as a folder of shards it" } else { "" };
        bail!("{word} {run} holds {} and {}: {text}", first.display(), other.display());
    }
    Ok(files)
}

fn of_file(file: &Path, options: &VectorOptions) -> Result<Loaded> {
    let word = file.to_string_lossy();
    // FILE:NAME, where there is no file of that whole name.
    let (path, name) = match word.rsplit_once(':') {
        Some((path, name)) if !file.exists() && PIECES.contains(&kind(Path::new(path)).as_str()) => {
            (Path::new(path), Some(name.to_owned()))
        }
        _ => (file, None),
    };
    let shown = path.display();
    let own = kind(path);
    // FILE.npz:NAME and the like are read by their own readers.
    let place = match word.rsplit_once(':') {
        Some((place, _)) if !file.exists() && SHARDS.contains(&kind(Path::new(place)).as_str()) => {
            Path::new(place)
        }
        _ => path,
    };
    readable(place)?;
    if place == path && !SHARDS.contains(&own.as_str()) && !is_numpy(path) {
        bail!("{shown}: its kind is not read; {KINDS} are. From Python: numpy.save(\"z.npy\", z)");
    }
    let plain = ["npy", "safetensors"].contains(&own.as_str());
    let small = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= KEPT / 2);
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    if (!PIECES.contains(&own.as_str()) && !TEXTS.contains(&own.as_str()))
        || (plain && small && options.most_rows.is_none())
    {
        let z = arrays::tensor(&word)?;
        if z.rank() != 2 {
            let hint = match z.rank() {
                0 => "; a single number is none",
                1 => "; z.reshape(-1, 1) makes one column of it",
                _ => "; z.reshape(len(z), -1) makes one row a sample",
            };
            bail!("{word}: embeddings are a matrix (samples, features), not {:?}{hint}", z.dims());
        }
        return Ok(Loaded {
            z,
            labels: None,
            table: Table::default(),
            folder,
            drawn: None,
            scan: None,
            notes: Vec::new(),
        });
    }
    let read = read_vectors(path, &VectorOptions { column: name, ..options.clone() })?;
    let notes = read.notes.iter().map(|note| format!("{}: {note}", path.display())).collect();
    Ok(Loaded {
        z: read.values,
        labels: None,
        table: read.table,
        folder,
        drawn: read.drawn,
        scan: read.scan,
        notes,
    })
}

/// Refuses what is not there, and files without a byte.
pub(crate) fn readable(path: &Path) -> Result<()> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            bail!("cannot read {shown}: there is no such file")
        }
        Err(e) => bail!("cannot read {shown}: {e}"),
        Ok(meta) if meta.is_file() && meta.len() == 0 => bail!("{shown} is empty: it holds no byte"),
        Ok(_) => Ok(()),
    }
}

/// Whether a file begins as NumPy's do, whatever it is called.
fn is_numpy(path: &Path) -> bool {
    let mut start = [0u8; 6];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"\x93NUMPY"
}

/// The rows of all parts one after the other.
fn joined(mut parts: Vec<Loaded>, files: &[PathBuf]) -> Result<Loaded> {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    let width = |part: &Loaded| part.z.dims().get(1).copied();
    if let Some(at) = parts.iter().position(|part| part.z.rank() != 2 || width(part) != width(&parts[0])) {
        bail!(
            "{} has shape {:?}, but {} has {:?}: shards have the same columns",
            files[at].display(),
            parts[at].z.dims(),
            files[0].display(),
            parts[0].z.dims()
        );
    }
    let wide = parts.iter().any(|part| part.z.dtype() == DType::F64);
    let drawn = parts.iter().any(|part| part.drawn.is_some());
    let mut table = Table::default();
    let (mut rows, mut scan, mut notes, mut start) = (Vec::new(), Scan::default(), Vec::new(), 0);
    let names: Vec<String> = parts[0]
        .table
        .columns
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| parts.iter().all(|part| part.table.columns.iter().any(|(own, _)| own == name)))
        .collect();
    table.columns = names.iter().map(|name| (name.clone(), Vec::new())).collect();
    let mut whole = Vec::new();
    for part in &parts {
        let own = part.z.dim(0)?;
        let all = part.scan.as_ref().map_or(own, |scan| scan.rows);
        rows.extend((0..own).map(|i| start + part.drawn.as_ref().map_or(i, |drawn| drawn[i])));
        if let Some(other) = &part.scan {
            scan.join(other, start);
        } else if drawn {
            scan.rows += own;
            notes.push(
                "a shard that was read whole is not counted in the figures `file_...` but for its rows"
                    .to_owned(),
            );
        }
        table.texts.extend(part.table.texts.iter().cloned());
        for (name, values) in &mut table.columns {
            if let Some((_, more)) = part.table.columns.iter().find(|(own, _)| own == name) {
                values.extend(more.iter().cloned());
            }
        }
        notes.extend(part.notes.iter().cloned());
        whole.push(if wide { part.z.to_dtype(DType::F64)? } else { part.z.clone() });
        start += all;
    }
    notes.dedup();
    let z = Tensor::cat(&whole, 0)?;
    let folder = parts[0].folder.clone();
    let (drawn, scan) = if drawn { (Some(rows), Some(scan)) } else { (None, None) };
    Ok(Loaded { z, labels: None, table, folder, drawn, scan, notes })
}
