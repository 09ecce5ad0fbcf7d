//! The keys of a configuration, read from the schema of its structs: nothing is listed a second time.

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One table of a configuration: its keys, and the choice that adds further ones, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Node<'a> {
    /// The schema of each key.
    pub(super) keys: BTreeMap<String, &'a Value>,
    /// The kinds that a tag chooses between.
    pub(super) choices: Vec<Choice<'a>>,
}

/// One kind of a tagged choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    /// The key that chooses.
    pub(super) tag: &'a str,
    /// Its value for this kind.
    pub(super) value: &'a str,
    /// The schema of the kind.
    pub(super) schema: &'a Value,
}

/// The schema of the whole configuration.
pub(super) fn root() -> &'static Value {
    static ROOT: OnceLock<Value> = OnceLock::new();
    ROOT.get_or_init(|| schemars::schema_for!(super::RunConfig).to_value())
}

impl<'a> Node<'a> {
    /// The table that a schema describes.
    pub(super) fn of(schema: &'a Value) -> Self {
        let mut node = Self::default();
        node.collect(schema);
        node
    }

    /// Whether this is a table at all.
    pub(super) fn is_table(&self) -> bool {
        !self.keys.is_empty() || !self.choices.is_empty()
    }

    /// The keys that are valid beside the given tags: with those of the chosen kind, or of every kind where none
    /// is chosen.
    pub(super) fn valid(&self, tag: impl Fn(&str) -> Option<String>) -> BTreeMap<String, &'a Value> {
        let mut keys = self.keys.clone();
        let chosen = |c: &&Choice<'a>| tag(c.tag).as_deref() == Some(c.value);
        match self.choices.iter().find(chosen) {
            Some(choice) => keys.extend(Node::of(choice.schema).keys),
            None => self.choices.iter().for_each(|choice| keys.extend(Node::of(choice.schema).keys)),
        }
        keys
    }

    fn collect(&mut self, schema: &'a Value) {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        if let Some(target) = target.and_then(|pointer| root().pointer(pointer)) {
            self.collect(target);
        }
        for (key, value) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.keys.insert(key.clone(), value);
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.collect(part);
        }
        for name in ["oneOf", "anyOf"] {
            for alternative in schema.get(name).and_then(Value::as_array).into_iter().flatten() {
                match tag(alternative) {
                    Some((tag, value)) => self.choices.push(Choice { tag, value, schema: alternative }),
                    // `Option<T>` is an alternative of `T` and null.
                    None => self.collect(alternative),
                }
            }
        }
    }
}

/// The key and value that an alternative is chosen by.
fn tag(alternative: &Value) -> Option<(&str, &str)> {
    let keys = alternative.get("properties")?.as_object()?;
    keys.iter().find_map(|(key, schema)| Some((key.as_str(), schema.get("const")?.as_str()?)))
}

/// The documentation of a key: its own, or that of its type.
pub(super) fn documentation(schema: &Value) -> String {
    let own = schema.get("description").and_then(Value::as_str);
    let target = schema.get("$ref").and_then(Value::as_str);
    let target = target.and_then(|t| t.strip_prefix('#')).and_then(|pointer| root().pointer(pointer));
    let text = own.or_else(|| target?.get("description")?.as_str()).unwrap_or_default();
    // The first paragraph, on one line.
    let line = text.split("\n\n").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    // Links of rustdoc lead nowhere here.
    line.replace("[`", "`").replace("`]", "`")
}

/// The words that a key may hold, where it holds one of a few.
pub(super) fn words(schema: &Value) -> Vec<String> {
    let target = schema.get("$ref").and_then(Value::as_str);
    let target = target.and_then(|t| t.strip_prefix('#')).and_then(|pointer| root().pointer(pointer));
    let schema = target.unwrap_or(schema);
    // `Option<T>` is an alternative of `T` and null.
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array) {
        return alternatives.iter().flat_map(words).collect();
    }
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let single =
        schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().flat_map(|alternative| {
            let listed = alternative.get("enum").and_then(Value::as_array).into_iter().flatten();
            alternative.get("const").into_iter().chain(listed)
        });
    listed.chain(single).filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// The words that the key at a dotted path of a configuration may hold, `None` if it holds anything else; places in lists
/// (`[1]`) stand for their elements.
pub(super) fn words_at(path: &str, table: &toml::Table) -> Option<Vec<String>> {
    let (parent, key) = path.rsplit_once('.')?;
    let (node, inner) = at(parent, table)?;
    // The key that chooses between kinds.
    let kinds: Vec<String> =
        node.choices.iter().filter(|choice| choice.tag == key).map(|c| c.value.to_owned()).collect();
    let (name, element) = key.split_once('[').map_or((key, false), |(name, _)| (name, true));
    let found = if kinds.is_empty() {
        let tag = |tag: &str| inner?.get(tag)?.as_str().map(ToOwned::to_owned);
        let schema = node.valid(tag).remove(name)?;
        words(if element { schema.get("items")? } else { schema })
    } else {
        kinds
    };
    Some(found).filter(|words| !words.is_empty())
}

/// The dotted path of a key, at or below `path`, that chooses between kinds and holds no word.
pub(super) fn choice_without_word(path: &str, table: &toml::Table) -> Option<String> {
    let (node, inner) = at(path, table)?;
    let inner = inner?;
    if let Some(choice) =
        node.choices.iter().find(|choice| inner.get(choice.tag).is_some_and(|v| !v.is_str()))
    {
        return Some(format!("{path}.{}", choice.tag));
    }
    let tables = inner.iter().filter(|(_, value)| value.is_table());
    tables.filter_map(|(key, _)| choice_without_word(&format!("{path}.{key}"), table)).next()
}

/// The table of the schema at a dotted path, with that of a configuration where it has one.
fn at<'t>(path: &str, table: &'t toml::Table) -> Option<(Node<'static>, Option<&'t toml::Table>)> {
    let (mut node, mut inner) = (Node::of(root()), Some(table));
    for key in path.split('.') {
        let tag = |tag: &str| inner?.get(tag)?.as_str().map(ToOwned::to_owned);
        node = Node::of(node.valid(tag).remove(key)?);
        inner = inner.and_then(|inner| inner.get(key)?.as_table());
    }
    Some((node, inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_defaults_is_in_the_schema_with_documentation() {
        fn walk(table: &toml::Table, schema: &Value, path: &str, seen: &mut usize) {
            let node = Node::of(schema);
            let valid = node.valid(|tag| table.get(tag)?.as_str().map(ToOwned::to_owned));
            for (key, value) in table {
                let schema = valid.get(key).unwrap_or_else(|| panic!("{path}.{key} is not in the schema"));
                let is_tag = node.choices.iter().any(|choice| choice.tag == key);
                assert!(is_tag || !documentation(schema).is_empty(), "{path}.{key} has no documentation");
                *seen += 1;
                if let toml::Value::Table(inner) = value {
                    walk(inner, schema, &format!("{path}.{key}"), seen);
                }
            }
        }
        let defaults = toml::Table::try_from(super::super::RunConfig::default()).unwrap();
        let mut seen = 0;
        walk(&defaults, root(), "", &mut seen);
        assert!(seen > 80, "{seen} keys");
    }
}
