//! Prints a resolved configuration with the origin of each value.

use super::{Layers, RunConfig, SECTIONS};
use anyhow::Result;
use toml::Value;

/// The configuration as TOML, with the origin of each value as a comment.
pub(crate) fn show(config: &RunConfig, layers: &Layers) -> Result<String> {
    let value = Value::try_from(config)?;
    let mut lines: Vec<(String, String)> = Vec::new();
    for section in SECTIONS {
        if !lines.is_empty() {
            lines.push((String::new(), String::new()));
        }
        lines.push((format!("[{section}]"), String::new()));
        if let Some(Value::Table(table)) = value.get(section) {
            leaves(table, section, "", layers, &mut lines);
        }
    }
    let width = lines.iter().map(|(left, _)| left.chars().count()).filter(|w| *w < 70).max().unwrap_or(0);
    let text = lines.iter().map(|(left, origin)| match origin.as_str() {
        "" => left.clone(),
        origin => format!("{left:<width$}  # {origin}"),
    });
    Ok(text.collect::<Vec<_>>().join("\n"))
}

/// Dotted keys keep every value on a line of its own, so that each can carry its origin.
fn leaves(
    table: &toml::Table,
    section: &str,
    prefix: &str,
    layers: &Layers,
    lines: &mut Vec<(String, String)>,
) {
    for (key, value) in table {
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => leaves(inner, section, &dotted, layers, lines),
            value => lines.push((
                format!("{dotted} = {value}"),
                layers.origin(&format!("{section}.{dotted}")).to_owned(),
            )),
        }
    }
}
