//! Arrays of numbers from files, whatever wrote them: NumPy, safetensors, PyTorch, text.

use anyhow::{Context as _, Result, anyhow, bail};
use candle_core::pickle::{Object, Stack, TensorInfo};
use candle_core::{DType, Device, Tensor};
use infomax_data::{VectorOptions, npy, read_member, read_vectors};
use std::io::Cursor;
use std::path::Path;
use zip::ZipArchive;

/// What can be read, in words.
pub(crate) const FORMATS: &str = ".npy, .npz, .safetensors, .pt and .pth (tensors), .parquet and .jsonl (a column of lists), .csv, .tsv and .txt (numbers)";
/// Extensions whose files hold several arrays.
const NAMED: [&str; 8] = ["safetensors", "npz", "pt", "pth", "parquet", "pq", "jsonl", "ndjson"];
/// The most that is unpacked of one member of an archive.
const LARGEST: u64 = 8 << 30;

/// Whether a word looks like one of these files.
pub(crate) fn is_file(word: &str) -> bool {
    let known = NAMED.iter().chain(&["npy", "csv", "tsv", "txt"]);
    let extension = extension(split(word).0);
    Path::new(word).is_file() || known.into_iter().any(|e| *e == extension)
}

/// The floating-point array of a file; of one with several arrays, `FILE:NAME` (the name may be left out if it
/// holds one).
pub(crate) fn tensor(file: &str) -> Result<Tensor> {
    let (path, name) = split(file);
    let path = Path::new(path);
    let kind = extension(path.to_str().unwrap_or_default());
    let bytes = || std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let tensor = match kind.as_str() {
        "npy" => npy::read(path)?,
        "safetensors" => {
            let tensors = candle_core::safetensors::load_buffer(&bytes()?, &Device::Cpu).map_err(|e| {
                anyhow!("{} is not a readable safetensors file: {}", path.display(), first_line(&e))
            })?;
            chosen(path, name, tensors.into_iter().map(|(name, tensor)| (name, Ok(tensor))).collect())?
        }
        "npz" => npz(path, name, bytes()?)?,
        "pt" | "pth" => torch(path, name, bytes()?)?,
        "parquet" | "pq" | "jsonl" | "ndjson" => {
            let options = VectorOptions { column: name.map(ToOwned::to_owned), ..VectorOptions::default() };
            let read = read_vectors(path, &options)?;
            read.notes.iter().for_each(|note| crate::say!("{}: {note}", path.display()));
            read.values
        }
        "csv" | "tsv" | "txt" => text(path, &bytes()?)?,
        _ if std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x93NUMPY")) => npy::read(path)?,
        _ if !path.exists() => bail!("cannot read {}: there is no such file", path.display()),
        _ => bail!(
            "{}: its kind is not read; {FORMATS} are. From Python: numpy.save(\"z.npy\", z)",
            path.display()
        ),
    };
    // Maps of one pixel, (samples, dim, 1, 1), are what an average pooling leaves of a batch.
    let mut dims = tensor.dims().to_vec();
    if dims.len() > 3 {
        while dims.len() > 2 && dims.last() == Some(&1) {
            dims.pop();
        }
    }
    let tensor = tensor.reshape(dims)?;
    Ok(match tensor.dtype() {
        DType::F64 => tensor,
        // Whole numbers: wide, so that none changes.
        DType::I64 | DType::U32 => tensor.to_dtype(DType::F64)?,
        _ => tensor.to_dtype(DType::F32)?,
    })
}

/// The views of files: a matrix each, or one array (views, samples, dim).
pub(crate) fn views(files: &[String], dtype: Option<DType>) -> Result<Vec<Tensor>> {
    let mut views: Vec<(String, Tensor)> = Vec::new();
    for file in files {
        let read = tensor(file)?;
        if read.elem_count() == 0 {
            let what = if read.dims().first() == Some(&0) { "sample" } else { "column" };
            bail!("{file} has shape {:?}: there is no {what} in it", read.dims());
        }
        match read.rank() {
            2 => views.push((file.clone(), read)),
            3 => {
                for v in 0..read.dim(0)? {
                    views.push((format!("{file}[{v}]"), read.get(v)?.contiguous()?));
                }
            }
            _ => bail!(
                "{file}: embeddings are a matrix (samples, dim), or an array (views, samples, dim), not {:?}",
                read.dims()
            ),
        }
    }
    let Some((first, shape)) = views.first().map(|(file, t)| (file.clone(), t.dims().to_vec())) else {
        bail!(
            "no file of embeddings was given: one a view, of {FORMATS}; FILE:NAME where it holds several arrays"
        );
    };
    // The widest type of all files, so that no digit is lost.
    let wide = views.iter().any(|(_, t)| t.dtype() == DType::F64);
    let dtype = dtype.unwrap_or(if wide { DType::F64 } else { DType::F32 });
    views
        .into_iter()
        .map(|(file, tensor)| {
            if tensor.dims() != shape {
                bail!(
                    "{file} has shape {:?}, but {first} has {shape:?}: the rows of all views are the same samples",
                    tensor.dims()
                );
            }
            finite(&file, &tensor)?;
            Ok(tensor.to_dtype(dtype)?)
        })
        .collect()
}

/// Refuses elements that are not finite, and names their rows.
pub(crate) fn finite(file: &str, tensor: &Tensor) -> Result<()> {
    let rows = damaged(tensor)?;
    if rows.is_empty() {
        return Ok(());
    }
    bail!("{file} holds numbers that are not finite in {}; leave them out or repair them", listed(&rows))
}

/// The rows, from 0, with elements that are not finite.
pub(crate) fn damaged(tensor: &Tensor) -> Result<Vec<usize>> {
    let n = tensor.dims().first().copied().unwrap_or(1).max(1);
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let width = (values.len() / n).max(1);
    let rows = values.chunks(width).enumerate();
    Ok(rows.filter(|(_, row)| row.iter().any(|v| !v.is_finite())).map(|(i, _)| i).collect())
}

/// "3 rows: 2, 7, 19 (the first is 0)", cut after ten.
pub(crate) fn listed(rows: &[usize]) -> String {
    let shown: Vec<String> = rows.iter().take(10).map(usize::to_string).collect();
    let (plural, more) = (if rows.len() == 1 { "" } else { "s" }, if rows.len() > 10 { ", ..." } else { "" });
    format!("{} row{plural}: {}{more} (the first row is 0)", rows.len(), shown.join(", "))
}

/// The path and the name of `FILE:NAME`.
pub(crate) fn split(file: &str) -> (&str, Option<&str>) {
    match file.rsplit_once(':') {
        Some((path, name)) if NAMED.contains(&extension(path).as_str()) => (path, Some(name)),
        _ => (file, None),
    }
}

fn extension(path: &str) -> String {
    Path::new(path).extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The first line of an error of Candle, whose others are a trace of the program.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The array of a name among those of a file.
fn chosen<T>(path: &Path, name: Option<&str>, mut arrays: Vec<(String, Result<T>)>) -> Result<T> {
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
    let path = path.display();
    let name = match (name, names.as_slice()) {
        (_, []) => bail!("{path} holds no array"),
        (Some(name), _) => name.to_owned(),
        (None, [only]) => (*only).to_owned(),
        (None, _) => {
            bail!("{path} holds {} tensors; name one: {path}:{}", names.len(), names.join(" | "))
        }
    };
    let listed = names.join(", ");
    let found = arrays.into_iter().find(|(other, _)| *other == name);
    found.with_context(|| format!("{path} has no tensor `{name}`; it has: {listed}"))?.1
}

fn archive(path: &Path, bytes: Vec<u8>) -> Result<ZipArchive<Cursor<Vec<u8>>>> {
    let what = "is no archive, or a damaged one";
    ZipArchive::new(Cursor::new(bytes)).map_err(|e| anyhow!("{} {what}: {e}", path.display()))
}

fn members(archive: &ZipArchive<Cursor<Vec<u8>>>) -> Result<Vec<String>> {
    Ok(archive.file_names().map(|name| name.map(std::borrow::Cow::into_owned)).collect::<Result<_, _>>()?)
}

/// The whole contents of a member.
fn member(path: &Path, archive: &mut ZipArchive<Cursor<Vec<u8>>>, name: &str) -> Result<Vec<u8>> {
    let damaged = |reason: String| anyhow!("{}: {name}: {reason}", path.display());
    let index = archive.index_for_name(name).ok_or_else(|| damaged("is not in the archive".into()))?;
    let size = archive.by_index_raw(index).map_err(|e| damaged(e.to_string()))?.size();
    if size > LARGEST {
        return Err(damaged(format!("{size} bytes unpacked; the limit is {LARGEST}")));
    }
    let mut out = Vec::new();
    read_member(archive, index, size, &mut out).map_err(damaged)?;
    Ok(out)
}

fn npz(path: &Path, name: Option<&str>, bytes: Vec<u8>) -> Result<Tensor> {
    let (place, bytes) = npz_member(path, name, bytes)?;
    Ok(npy::decode(Path::new(&place), &bytes)?)
}

/// What an array of an .npz is called, and its bytes as those of an .npy file.
pub(crate) fn npz_array(path: &Path, name: Option<&str>) -> Result<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    npz_member(path, name, bytes)
}

fn npz_member(path: &Path, name: Option<&str>, bytes: Vec<u8>) -> Result<(String, Vec<u8>)> {
    let mut archive = archive(path, bytes)?;
    let all = members(&archive)?;
    let arrays = all.iter().filter_map(|m| m.strip_suffix(".npy"));
    let place = chosen(path, name, arrays.map(|name| (name.to_owned(), Ok(name.to_owned()))).collect())?;
    let bytes = member(path, &mut archive, &format!("{place}.npy"))?;
    Ok((format!("{}:{place}", path.display()), bytes))
}

/// The tensors of `torch.save`: one, a list of them, or a dictionary, which may be in others.
fn torch(path: &Path, name: Option<&str>, bytes: Vec<u8>) -> Result<Tensor> {
    let shown = path.display();
    if !bytes.starts_with(b"PK") {
        bail!("{shown} is not a file of torch.save since version 1.6; save it again, or use numpy.save");
    }
    let mut archive = archive(path, bytes)?;
    let all = members(&archive)?;
    let Some(pickle) = all.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl")) else {
        bail!("{shown} is not a file of torch.save: it has no data.pkl");
    };
    let folder = pickle.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    if all.contains(&format!("{folder}byteorder"))
        && member(path, &mut archive, &format!("{folder}byteorder"))?.starts_with(b"big")
    {
        bail!("{shown} was written on a big-endian machine; save it with numpy.save");
    }
    let bytes = member(path, &mut archive, pickle)?;
    let need = "only tensors are read, in lists and dictionaries: torch.save({\"z\": z}, FILE)";
    let unread = |e: candle_core::Error| anyhow!("{shown}: {need} ({})", first_line(&e));
    let mut stack = Stack::empty();
    stack.read_loop(&mut Cursor::new(bytes)).map_err(unread)?;
    let object = stack.finalize().map_err(unread)?;
    let mut found = Vec::new();
    collect(object, "", Path::new(&format!("{folder}data")), &mut found);
    if found.is_empty() {
        bail!("{shown}: {need}");
    }
    let info = chosen(path, name, found)?;
    let data = member(path, &mut archive, &info.path.replace("/./", "/"))?;
    strided(&info, &data).with_context(|| format!("{shown}: the tensor `{}`", info.name))
}

fn collect(object: Object, name: &str, folder: &Path, found: &mut Vec<(String, Result<TensorInfo>)>) {
    let inside = |key: String| if name.is_empty() { key } else { format!("{name}.{key}") };
    match object {
        Object::Dict(entries) => {
            for (key, value) in entries {
                let key = match key {
                    Object::Unicode(key) => key,
                    Object::Int(key) => key.to_string(),
                    _ => continue,
                };
                collect(value, &inside(key), folder, found);
            }
        }
        Object::List(values) | Object::Tuple(values) => {
            for (i, value) in values.into_iter().enumerate() {
                collect(value, &inside(i.to_string()), folder, found);
            }
        }
        Object::Reduce { callable, args } => match (*callable, *args) {
            // An ordered dictionary is built of no arguments, or of pairs.
            (Object::Class { class_name, .. }, Object::Tuple(pairs)) if class_name == "OrderedDict" => {
                for pair in pairs {
                    collect(pair, name, folder, found);
                }
            }
            (callable, args) => {
                let whole = Object::Reduce { callable: Box::new(callable), args: Box::new(args) };
                let name = if name.is_empty() { "z" } else { name };
                match whole.into_tensor_info(Object::Unicode(name.to_owned()), folder) {
                    Ok(Some(info)) => found.push((name.to_owned(), Ok(info))),
                    Ok(None) => {}
                    Err(e) => found.push((name.to_owned(), Err(anyhow!("`{name}`: {}", first_line(&e))))),
                }
            }
        },
        _ => {}
    }
}

/// The elements of a storage in the order of the tensor.
fn strided(info: &TensorInfo, data: &[u8]) -> Result<Tensor> {
    let size = info.dtype.size_in_bytes();
    let mut bytes = Vec::with_capacity(info.layout.shape().elem_count() * size);
    let (dims, strides) = (info.layout.dims(), info.layout.stride());
    let mut index = vec![0; dims.len()];
    for _ in 0..info.layout.shape().elem_count() {
        // Candle's reader holds the offset in bytes, and the strides in elements.
        let at =
            info.layout.start_offset() + size * index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
        let element = data.get(at..at + size);
        bytes.extend_from_slice(element.context("its storage is shorter than its shape")?);
        for k in (0..dims.len()).rev() {
            index[k] += 1;
            if index[k] < dims[k] {
                break;
            }
            index[k] = 0;
        }
    }
    Ok(Tensor::from_raw_buffer(&bytes, info.dtype, info.layout.dims(), &Device::Cpu)?)
}

/// A table of numbers in f64, separated by commas, semicolons, tabs or spaces; one header line may be there.
fn text(path: &Path, bytes: &[u8]) -> Result<Tensor> {
    let shown = path.display();
    let text = std::str::from_utf8(bytes).with_context(|| format!("{shown} is no text in UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}');
    let first =
        text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let delimiter = ['\t', ';', ','].into_iter().find(|d| first.contains(*d));
    let rows: Vec<(usize, Vec<String>)> = match delimiter {
        Some(delimiter) => csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter as u8)
            .comment(Some(b'#'))
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes())
            .records()
            .map(|record| {
                let record = record.with_context(|| shown.to_string())?;
                let line = record.position().map_or(0, |p| p.line() as usize);
                Ok((line, record.iter().map(ToOwned::to_owned).collect()))
            })
            .collect::<Result<_>>()?,
        None => text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|(i, line)| (i + 1, line.split_whitespace().map(ToOwned::to_owned).collect()))
            .collect(),
    };
    // A line of names, none of which is a number.
    let header = rows.first().is_some_and(|(_, cells)| cells.iter().all(|c| c.parse::<f64>().is_err()));
    if header && rows[0].1.first().is_some_and(String::is_empty) {
        bail!("{shown}: its first column has no name, as an index; write it without (to_csv(index=False))");
    }
    let rows = &rows[usize::from(header)..];
    let width = rows.first().map_or(0, |(_, cells)| cells.len());
    let mut values = Vec::with_capacity(rows.len() * width);
    for (line, cells) in rows {
        if cells.len() != width {
            bail!("{shown}: line {line} has {} numbers, the first has {width}", cells.len());
        }
        for (column, cell) in cells.iter().enumerate() {
            let value = cell.parse::<f64>();
            values.push(value.map_err(|_| {
                anyhow!("{shown}: line {line}, column {}: `{cell}` is no number", column + 1)
            })?);
        }
    }
    Ok(Tensor::from_vec(values, (rows.len(), width), &Device::Cpu)?)
}
