//! `infomax embed`: the features of images, in files.

use crate::args::EmbedArgs;
use crate::progress::Progress;
use crate::{Status, print};
use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device, Tensor};
use infomax_run::{EmbedOptions, Embedded, Space, embed_run};
use infomax_train::RunDir;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

/// The file formats, by the ending of their names.
const FORMATS: [&str; 3] = ["npy", "npz", "safetensors"];

pub(crate) fn run(args: &EmbedArgs) -> Result<Status> {
    let format = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    // Before the work and not after it.
    if !FORMATS.contains(&format.as_str()) {
        bail!("--out {}: the name ends with .npy, .npz or .safetensors", args.out.display());
    }
    target(&args.out)?;
    let folder = crate::folder_of(&args.out)?;
    let mut progress = Progress::new(args.output.quiet).of("embed");
    let space = if args.projections { Space::Projections } else { Space::Features };
    let embedded = embed_run(&args.run, &EmbedOptions { of: args.of.options(), space }, &mut progress)?;
    let rows = args.out.with_extension("csv");
    write(&embedded, &format, &args.out, folder)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    write_rows(&embedded, &rows, folder).with_context(|| format!("cannot write {}", rows.display()))?;
    let (n, d) = embedded.values.dims2()?;
    if args.output.json {
        let json = serde_json::json!({
            "file": args.out, "rows_file": rows, "rows": n, "dim": d, "step": embedded.step,
            "space": if args.projections { "projections" } else { "features" },
            "left_out": embedded.left_out,
        });
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        print(&format!(
            "{}: {n} x {d}, f32, after {} steps; {}: what each row is",
            args.out.display(),
            embedded.step,
            rows.display()
        ))?;
    }
    Ok(Status::Done)
}

fn write(embedded: &Embedded, format: &str, path: &Path, folder: &Path) -> Result<()> {
    let z = embedded.values.to_dtype(DType::F32)?.contiguous()?;
    if format == "npy" {
        return Ok(infomax_data::npy::write(path, &z)?);
    }
    let temporary = beside(folder, format)?;
    let index: Vec<i64> = embedded.rows.iter().map(|row| row.index as i64).collect();
    let label: Vec<i64> = embedded.rows.iter().map(|row| row.label.map_or(-1, i64::from)).collect();
    let n = index.len();
    let column = |values: Vec<i64>| Tensor::from_vec(values, n, &Device::Cpu);
    let (index, label) = (column(index)?, column(label)?);
    match format {
        "npz" => Tensor::write_npz(&[("z", &z), ("index", &index), ("label", &label)], temporary.path())?,
        _ => candle_core::safetensors::save(
            &HashMap::from([("z", z), ("index", index), ("label", label)]),
            temporary.path(),
        )?,
    }
    persist(temporary, path)
}

fn write_rows(embedded: &Embedded, path: &Path, folder: &Path) -> Result<()> {
    let temporary = beside(folder, "csv")?;
    let mut table = csv::Writer::from_writer(temporary.as_file());
    table.write_record(["row", "part", "index", "label", "class", "place"])?;
    for (i, row) in embedded.rows.iter().enumerate() {
        let label = row.label.map_or(String::new(), |label| label.to_string());
        let class = row.class.as_deref().unwrap_or_default();
        table.write_record([&i.to_string(), row.part, &row.index.to_string(), &label, class, &row.place])?;
    }
    table.flush()?;
    drop(table);
    persist(temporary, path)
}

/// Writes a file as a whole; behind a link, the file that it leads to.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    target(path)?;
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let write = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("file");
        let mut temporary = beside(folder, ending)?;
        temporary.write_all(bytes)?;
        persist(temporary, path)
    };
    // The temporary file, which the error names, is none of the user's.
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Refuses what is there and is no file: a whole file cannot take the place of a folder, a device or a pipe; and what a
/// run consists of.
pub(crate) fn target(path: &Path) -> Result<()> {
    if let Some(run) = RunDir::of_file(path) {
        bail!(
            "{} belongs to the run {}, which could not be continued or read without it; choose another name",
            path.display(),
            run.display()
        );
    }
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            bail!(
                "{} is no file, and what is written takes the place of one; give the name of a file",
                path.display()
            )
        }
        _ => Ok(()),
    }
}

/// A file beside the one that is to be, with the rights that any new file has.
fn beside(folder: &Path, ending: &str) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    Ok(builder.prefix(".tmp-").suffix(&format!(".{ending}")).tempfile_in(folder)?)
}

/// Gives a whole file its last name: there is the old one or the new one.
fn persist(temporary: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(())
}
