//! Archives of PyTorch: a zip file with the pickle of what was saved, and a file for each storage. Nothing in it is executed.

use candle_core::pickle::{Object, Stack, TensorInfo};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use zip::ZipArchive;

type Result<T> = std::result::Result<T, String>;

/// How to save what can be read.
const SAVE: &str = "save its tensors in Python by torch.save(model.state_dict(), \"weights.pt\")";

/// The names of tensors, or of tables of them, that a training script keeps beside other things.
const STATES: [&str; 2] = ["state_dict", "model"];

/// Whether a file is one of `torch.save` from before PyTorch 1.6: pickles one after the other.
pub(super) fn is_old(bytes: &[u8]) -> bool {
    // The first of them is a number that all have.
    bytes.starts_with(&[0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20])
}

/// The tensors of an archive by name: those of a state dict, or of one below `state_dict` or `model`; of any other table of
/// tables all, with the names of the tables in front. Strides may be any (`channels_last`).
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let damaged = |e: &dyn std::fmt::Display| {
        format!("it is cut off or damaged ({}); copy or download it again", first_line(e))
    };
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(&e))?;
    let names = zip.file_names().map(|name| name.map(|name| name.into_owned()));
    let names: Vec<String> = names.collect::<std::result::Result<_, _>>().map_err(|e| damaged(&e))?;
    let Some(pickle) = names.iter().find(|name| name.ends_with("data.pkl")) else {
        return Err("it is a zip file without a data.pkl, and no archive of PyTorch".to_owned());
    };
    let folder = pickle.trim_end_matches(".pkl");
    let mut stack = Stack::empty();
    let entry = zip.by_name(pickle).map_err(|e| damaged(&e))?;
    let read = stack.read_loop(&mut BufReader::new(entry)).and_then(|()| stack.finalize());
    let top =
        read.map_err(|e| format!("what was saved is more than tensors ({}); {SAVE}", first_line(&e)))?;
    let Some(top) = table(top) else {
        return Err(format!("it is no table of tensors: a whole module was pickled, perhaps; {SAVE}"));
    };
    let mut found = Vec::new();
    let nested = |key: &str| {
        top.iter().find_map(|(name, value)| match (name, value) {
            (Object::Unicode(name), Object::Dict(entries)) if name == key => Some(entries),
            _ => None,
        })
    };
    collect(&top, "", Path::new(folder), false, &mut found);
    for key in STATES {
        if let (true, Some(entries)) = (found.is_empty(), nested(key)) {
            collect(entries, "", Path::new(folder), true, &mut found);
        }
    }
    if found.is_empty() {
        collect(&top, "", Path::new(folder), true, &mut found);
    }
    if found.is_empty() {
        return Err(format!("it holds no tensor under a name; {SAVE}"));
    }
    found
        .into_iter()
        .map(|(name, info)| {
            let tensor =
                tensor(&mut zip, &info).map_err(|e| format!("its tensor `{name}` cannot be read: {e}"))?;
            Ok((name, tensor))
        })
        .collect()
}

/// The entries of a dict, or of the attributes of a TorchScript module.
fn table(object: Object) -> Option<Vec<(Object, Object)>> {
    match object {
        Object::Dict(entries) => Some(entries),
        Object::Build { callable, args } => match (*callable, *args) {
            (Object::Reduce { callable, .. }, Object::Dict(entries)) => match *callable {
                Object::Class { module_name, class_name }
                    if module_name == "__torch__" && class_name == "Module" =>
                {
                    Some(entries)
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The tensors of a table, and with `deep` of the tables in it.
fn collect(
    entries: &[(Object, Object)],
    prefix: &str,
    folder: &Path,
    deep: bool,
    found: &mut Vec<(String, TensorInfo)>,
) {
    for (key, value) in entries {
        let Object::Unicode(key) = key else { continue };
        let name = format!("{prefix}{key}");
        match value {
            Object::Dict(entries) if deep => collect(entries, &format!("{name}."), folder, deep, found),
            Object::Dict(_) => {}
            value => {
                // Anything else than a tensor, and one of a type that no weight has, is passed over.
                if let Ok(Some(info)) = value.clone().into_tensor_info(Object::Unicode(name.clone()), folder)
                {
                    found.push((name, info));
                }
            }
        }
    }
}

/// Reads a tensor with any strides.
fn tensor(zip: &mut ZipArchive<Cursor<&[u8]>>, info: &TensorInfo) -> Result<Tensor> {
    let said = |e: &dyn std::fmt::Display| first_line(e);
    let mut storage = Vec::new();
    let mut entry = zip.by_name(&info.path).map_err(|e| said(&e))?;
    entry.read_to_end(&mut storage).map_err(|e| said(&e))?;
    let size = info.dtype.size_in_bytes();
    // Candle keeps the offset in bytes.
    let own = storage.get(info.layout.start_offset()..).unwrap_or_default();
    let (dims, strides) = (info.layout.dims(), info.layout.stride());
    let last = dims.iter().zip(strides).map(|(dim, stride)| dim.saturating_sub(1) * stride).sum::<usize>();
    let count = info.layout.shape().elem_count();
    if count > 0 && (last + 1) * size > own.len() {
        return Err("its storage is too short".to_owned());
    }
    let mut values = Vec::with_capacity(count * size);
    let mut at = vec![0usize; dims.len()];
    for _ in 0..count {
        let place = at.iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>() * size;
        values.extend_from_slice(&own[place..place + size]);
        // The next place, the last dimension first.
        for (i, dim) in at.iter_mut().zip(dims).rev() {
            *i += 1;
            if *i < *dim {
                break;
            }
            *i = 0;
        }
    }
    Tensor::from_raw_buffer(&values, info.dtype, dims, &Device::Cpu).map_err(|e| said(&e))
}

/// An error without the backtrace that Candle writes behind it.
fn first_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        read(bytes).map(drop).unwrap_err()
    }

    #[test]
    fn tensors_have_any_strides() {
        let found = read(include_bytes!("../../tests/golden/strides.pth")).unwrap();
        let whole: Vec<f64> = (0..48).map(f64::from).collect();
        for name in ["plain", "channels_last", "reversed"] {
            assert_eq!(
                (found[name].dims(), values(&found[name])),
                (&[2, 3, 2, 4][..], whole.clone()),
                "{name}"
            );
        }
        let part: Vec<f64> = (10..34).step_by(2).map(f64::from).collect();
        assert_eq!((found["part"].dims(), values(&found["part"])), (&[3, 4][..], part));
        let plain = found["plain"].transpose(0, 1).unwrap();
        assert_eq!((found["half"].dims(), values(&found["half"])), (plain.dims(), values(&plain)));
        assert_eq!(found["half"].dtype(), candle_core::DType::BF16);
        assert_eq!((found["scalar"].dims(), values(&found["scalar"])), (&[][..], vec![7.0]));
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn tables_in_tables_are_looked_into() {
        let found = read(include_bytes!("../../tests/golden/nested.pth")).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["student.w", "teacher.w"]);
        assert_eq!(values(&found["teacher.w"])[5], -5.0);
        // What lies beside a state dict is not part of it.
        let found = read(include_bytes!("../../tests/golden/checkpoint.pth")).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["w"]);
    }

    #[test]
    fn what_holds_no_table_of_tensors_says_what_to_do() {
        assert!(refusal(include_bytes!("../../tests/golden/module.pth")).contains("whole module"));
        let old = include_bytes!("../../tests/golden/old.pth");
        let whole = include_bytes!("../../tests/golden/strides.pth");
        assert!(is_old(old) && !is_old(whole));
        for cut in [10, whole.len() / 2, whole.len() - 1] {
            let said = refusal(&whole[..cut]);
            assert!(said.contains("cut off") && said.lines().count() == 1, "{cut}: {said}");
        }
    }
}
