//! The reference of all keys, as Markdown.

use super::schema::{Node, documentation, root, words};
use super::{RunConfig, SECTIONS};
use serde_json::Value;
use std::fmt::Write as _;
use toml::Table;

/// Every key of a configuration with its default and its meaning, as Markdown tables: what `docs/configuration.md`
/// holds below its introduction.
pub fn reference() -> String {
    let defaults = Table::try_from(RunConfig::default()).unwrap_or_default();
    let sections = Node::of(root()).keys;
    let mut out = String::new();
    if let Some(schema) = sections.get("method") {
        let _ = writeln!(out, "### Above all sections\n");
        table(&mut out, [(&"method".to_owned(), schema)].into_iter(), &Table::new(), true);
    }
    for section in SECTIONS {
        let Some(schema) = sections.get(section) else { continue };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "### `[{section}]`\n\n{}\n", documentation(schema));
        let table = defaults.get(section).and_then(toml::Value::as_table).cloned().unwrap_or_default();
        rows(&mut out, section, &Node::of(schema), &table);
    }
    let _ = writeln!(out, "### Defaults for folders\n\n{FOLDERS}\n\n| key | default |\n|---|---|");
    let changed =
        super::difference(&defaults, Table::try_from(RunConfig::default().for_folder()).unwrap_or_default());
    for (path, value) in super::leaves(&changed) {
        let _ = writeln!(out, "| `{path}` | `{value}` |");
    }
    out.trim_end().to_owned() + "\n"
}

/// What the list of other defaults says before it.
const FOLDERS: &str = "With `--data`, `data.path` or `data.source = \"folder\"` these defaults differ. \
    `augment.preset` and `augment.size` are unset then: they follow from the images, `vicreg-cifar` at 32 pixels where the \
    shorter side has at most 48 pixels, else `vicreg-imagenet` at 64 pixels.";

fn rows(out: &mut String, path: &str, node: &Node<'_>, defaults: &Table) {
    let chosen = |choice: &super::schema::Choice<'_>| {
        defaults.get(choice.tag).and_then(toml::Value::as_str) == Some(choice.value)
    };
    table(out, node.keys.iter(), defaults, true);
    for choice in &node.choices {
        let inner = Node::of(choice.schema);
        let keys = inner.keys.iter().filter(|(key, _)| *key != choice.tag);
        let _ = writeln!(
            out,
            "`{path}` with `{} = \"{}\"`{}: {}\n",
            choice.tag,
            choice.value,
            if chosen(choice) { " (the default)" } else { "" },
            documentation(choice.schema)
        );
        let none = Table::new();
        table(out, keys, if chosen(choice) { defaults } else { &none }, chosen(choice));
    }
    for (key, schema) in &node.keys {
        let inner = Node::of(schema);
        if inner.is_table() && words(schema).is_empty() {
            let path = format!("{path}.{key}");
            let _ = writeln!(out, "#### `[{path}]`\n\n{}\n", documentation(schema));
            let none = Table::new();
            let inside = defaults.get(key).and_then(toml::Value::as_table).unwrap_or(&none);
            rows(out, &path, &inner, inside);
        }
    }
}

fn table<'a>(
    out: &mut String,
    keys: impl Iterator<Item = (&'a String, &'a &'a Value)>,
    defaults: &Table,
    resolved: bool,
) {
    let mut lines = String::new();
    for (key, schema) in keys {
        let inner = Node::of(schema);
        if inner.is_table() && words(schema).is_empty() {
            continue;
        }
        let own = schema.get("default").filter(|value| !value.is_null()).map(ToString::to_string);
        let default = match defaults.get(key).map(ToString::to_string).or(own) {
            Some(value) => format!("`{value}`"),
            None if resolved => "unset".to_owned(),
            None => String::new(),
        };
        let words = words(schema);
        let words =
            if words.is_empty() { String::new() } else { format!(" One of `{}`.", words.join("`, `")) };
        let text = (documentation(schema) + &words).replace('|', "\\|");
        let _ = writeln!(lines, "| `{key}` | {default} | {text} |");
    }
    if !lines.is_empty() {
        let _ = writeln!(out, "| key | default | meaning |\n|---|---|---|\n{lines}");
    }
}
