//! A resolved configuration with the origin of each value.

use super::schema::{Node, root};
use super::{Layers, RunConfig, SECTIONS};
use crate::{Error, Result};
use serde_json::Value as Schema;
use toml::{Table, Value};

/// The configuration as TOML: every value with its origin as a comment, and every key that is not set as a
/// comment of its own.
///
/// # Errors
/// A path that is not valid UTF-8.
pub fn show(config: &RunConfig, layers: &Layers) -> Result<String> {
    let value =
        Value::try_from(config).map_err(|e| Error::Config(format!("this configuration is no TOML: {e}")))?;
    let sections = Node::of(root()).keys;
    let mut lines: Vec<(String, String)> = Vec::new();
    if let Some(method) = &config.method {
        lines.push((format!("method = \"{method}\""), layers.origin("method").to_owned()));
    }
    for section in SECTIONS {
        if !lines.is_empty() {
            lines.push((String::new(), String::new()));
        }
        lines.push((format!("[{section}]"), String::new()));
        if let (Some(Value::Table(table)), Some(schema)) = (value.get(section), sections.get(section)) {
            leaves(table, schema, section, "", layers, &mut lines);
        }
    }
    let width = lines.iter().map(|(left, _)| left.chars().count()).filter(|w| *w < 70).max().unwrap_or(0);
    let text = lines.iter().map(|(left, origin)| match origin.as_str() {
        "" => left.clone(),
        origin => format!("{left:<width$}  # {origin}"),
    });
    Ok(text.collect::<Vec<_>>().join("\n"))
}

/// What [`RunConfig::settle`] fills in.
const FILLED_IN: [(&str, &str); 2] =
    [("augment.preset", "follows from the images"), ("augment.size", "follows from the images")];

/// Dotted keys keep every value on a line of its own, so that each can carry its origin.
fn leaves(
    table: &Table,
    schema: &Schema,
    section: &str,
    prefix: &str,
    layers: &Layers,
    lines: &mut Vec<(String, String)>,
) {
    let dotted = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    let valid = Node::of(schema).valid(|tag| table.get(tag)?.as_str().map(ToOwned::to_owned));
    for (key, value) in table {
        let dotted = dotted(key);
        match (value, valid.get(key)) {
            (Value::Table(inner), Some(schema)) if !inner.is_empty() => {
                leaves(inner, schema, section, &dotted, layers, lines);
            }
            (value, _) => {
                let path = format!("{section}.{dotted}");
                // What no layer has was filled in.
                let origin = match layers.has(&path) {
                    true => layers.origin(&path),
                    false => FILLED_IN.iter().find(|(key, _)| *key == path).map_or("default", |(_, why)| why),
                };
                lines.push((format!("{dotted} = {value}"), origin.to_owned()));
            }
        }
    }
    for key in valid.keys().filter(|key| !table.contains_key(*key)) {
        lines.push((format!("# {} = ...", dotted(key)), "unset".to_owned()));
    }
}
