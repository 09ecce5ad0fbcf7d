//! What is known of each row, as a table.

use crate::embeddings::Loaded;
use anyhow::Result;
use candle_core::DType;
use infomax_data::{Cells, parquet_bytes};
use infomax_run::inspect::Inspection;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes a line for each row: CSV, or parquet by the ending of the name, which then holds the embeddings, too.
pub(super) fn write(report: &Inspection, loaded: &Loaded, path: &Path) -> Result<()> {
    let mut why: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    report.rows.iter().for_each(|note| why.entry(note.row).or_default().push(note.why));
    let mut columns = vec![("row".to_owned(), Cells::Whole((0..report.n as i64).collect()))];
    for (name, values) in &report.columns {
        columns.push((name.clone(), Cells::Numbers(values.clone())));
    }
    if let Some(labels) = &loaded.labels {
        let name = |class: &u32| labels.names.get(class).cloned().unwrap_or_else(|| class.to_string());
        let numbers = || labels.classes.iter().map(|c| c.map(i64::from)).collect();
        let cells = match labels.names.is_empty() {
            true => Cells::SomeWhole(numbers()),
            false => Cells::Texts(labels.classes.iter().map(|c| c.as_ref().map(name)).collect()),
        };
        columns.push(("label".into(), cells));
    }
    let look = (0..report.n).map(|row| why.get(&row).map(|all| all.join(";"))).collect();
    columns.push(("look_at".into(), Cells::Texts(look)));
    for (own, values) in &loaded.table.columns {
        // A column of the input that is called as one of ours keeps its name with a mark.
        let taken = columns.iter().any(|(name, _)| name == own);
        let name = if taken { format!("input_{own}") } else { own.clone() };
        // A .csv has no types: what all its cells are is what the column is.
        let cells = match loaded.table.texts.contains(own) {
            true => Cells::Texts(values.clone()),
            false => Cells::typed(values),
        };
        columns.push((name, cells));
    }
    let parquet = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
    let bytes = if parquet {
        let d = report.d;
        let values = loaded.z.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        columns.push(("embedding".into(), Cells::Lists(d, values)));
        parquet_bytes(path, &columns)?
    } else {
        csv(&columns)?
    };
    crate::embed::replace(path, &bytes)
}

fn csv(columns: &[(String, Cells)]) -> Result<Vec<u8>> {
    let mut out = ::csv::WriterBuilder::new().from_writer(Vec::new());
    out.write_record(columns.iter().map(|(name, _)| name))?;
    let rows = columns.first().map_or(0, |(_, cells)| match cells {
        Cells::Whole(v) => v.len(),
        _ => 0,
    });
    for row in 0..rows {
        out.write_record(columns.iter().map(|(_, cells)| match cells {
            Cells::Whole(v) => v[row].to_string(),
            Cells::Numbers(v) => v[row].map(|v| v.to_string()).unwrap_or_default(),
            Cells::SomeWhole(v) => v[row].map(|v| v.to_string()).unwrap_or_default(),
            Cells::Truths(v) => v[row].map(|v| v.to_string()).unwrap_or_default(),
            Cells::Texts(v) => v[row].clone().unwrap_or_default(),
            _ => String::new(),
        }))?;
    }
    Ok(out.into_inner()?)
}
