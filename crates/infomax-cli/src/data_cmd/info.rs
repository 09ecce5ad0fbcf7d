//! `infomax data info`.

use super::InfoArgs;
use crate::table::table;
use crate::{Status, print};
use anyhow::Result;
use infomax_data::{Dataset, Mixing, OpenOptions, SizeRange};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is at a path.
#[derive(Debug, Serialize)]
struct Info {
    path: PathBuf,
    format: &'static str,
    parts: Vec<Part>,
    /// What was passed over, guessed or is ambiguous.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    images: usize,
    /// The least and the largest size, where it is known without decoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    sizes: Option<SizeRange>,
    /// The channels of the first image.
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
    unlabeled: usize,
    classes: Vec<Class>,
    damaged: Vec<DamagedFile>,
    /// How well an epoch mixes the samples, where it is not perfect.
    #[serde(skip_serializing_if = "Option::is_none")]
    mixing: Option<Mixing>,
}

#[derive(Debug, Serialize)]
struct Class {
    name: String,
    images: usize,
}

#[derive(Debug, Serialize)]
struct DamagedFile {
    path: String,
    reason: String,
}

pub(super) fn run(args: &InfoArgs) -> Result<Status> {
    let options = OpenOptions {
        verify: args.verify,
        strict: args.strict,
        image: args.image.clone(),
        label: args.label.clone(),
        ..OpenOptions::default()
    };
    let opened = infomax_data::open(&args.path, &options)?;
    let parts = opened.parts.iter().map(|(name, data)| part(name, &**data)).collect();
    let mut notes = opened.notes();
    notes.extend(
        opened.parts.iter().filter_map(|(name, data)| Some(format!("{name}: {}", Mixing::of(&**data)?))),
    );
    let info = Info { path: args.path.clone(), format: opened.format, parts, notes };
    if args.json {
        print(&serde_json::to_string_pretty(&info)?)?;
    } else {
        print(&text(&info, &args.path, args.list))?;
    }
    Ok(Status::Done)
}

fn part(name: &'static str, data: &dyn Dataset) -> Part {
    let mut counts = vec![0usize; data.classes().len()];
    let mut unlabeled = 0;
    for index in 0..data.len() {
        match data.label(index).and_then(|label| counts.get_mut(label as usize)) {
            Some(count) => *count += 1,
            None => unlabeled += 1,
        }
    }
    let classes =
        data.classes().iter().zip(counts).map(|(name, images)| Class { name: name.clone(), images });
    let damaged = data
        .skipped()
        .iter()
        .map(|s| DamagedFile { path: s.path.display().to_string(), reason: s.reason.clone() });
    Part {
        name,
        images: data.len(),
        sizes: data.sizes(),
        channels: data.image(0).ok().map(|image| image.channels()),
        unlabeled,
        classes: classes.collect(),
        damaged: damaged.collect(),
        mixing: Mixing::of(data),
    }
}

fn text(info: &Info, path: &Path, list: usize) -> String {
    let header = ["part", "images", "size", "classes", "images a class", "unlabeled", "damaged"];
    let mut rows = Vec::new();
    for part in &info.parts {
        let counts = part.classes.iter().map(|c| c.images);
        // Classes of other parts, or that a format declares, need not occur in this one.
        let missing = counts.clone().filter(|n| *n == 0).count();
        let classes = match missing {
            0 => part.classes.len().to_string(),
            n => format!("{} ({n} without images)", part.classes.len()),
        };
        let range = match (counts.clone().min(), counts.max()) {
            (Some(low), Some(high)) if low == high => low.to_string(),
            (Some(low), Some(high)) => format!("{low} to {high}"),
            _ => "-".into(),
        };
        let sizes = part.sizes.map_or_else(|| "not looked at".to_owned(), |s| s.to_string());
        let channels = part.channels.map_or_else(String::new, |c| format!(", {c} channels"));
        rows.push(vec![
            part.name.to_owned(),
            part.images.to_string(),
            format!("{sizes}{channels}"),
            classes,
            range,
            part.unlabeled.to_string(),
            part.damaged.len().to_string(),
        ]);
    }
    let mut out = format!("{}: {}\n{}", path.display(), info.format, table(&header, &rows));
    for note in &info.notes {
        out += &format!("\nnote: {note}");
    }
    for part in info.parts.iter().filter(|p| !p.damaged.is_empty()) {
        out += &format!("\n{} left out of {}:", part.damaged.len(), part.name);
        for file in part.damaged.iter().take(list) {
            out += &format!("\n  {}: {}", file.path, file.reason);
        }
        if part.damaged.len() > list {
            out += &format!("\n  ... and {} more (--list N, --json)", part.damaged.len() - list);
        }
    }
    out
}
