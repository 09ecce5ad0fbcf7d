//! Layered configuration: defaults, then a file, then the command line; with the origin of each value.

use anyhow::{Context as _, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// A configuration as a table, with the place that each leaf came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    table: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// Lays a table over what is there. Tables are merged key by key, anything else is replaced.
    ///
    /// A table of the objective or of the model whose `kind` or `name` changes is replaced as a whole, since
    /// its other keys belong to the old choice.
    pub(crate) fn over(&mut self, upper: Table, origin: &str) {
        merge(&mut self.table, upper, "", origin, &mut self.origins);
    }

    /// Lays a TOML file over what is there.
    pub(crate) fn over_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| anyhow!("{} is not valid TOML:\n{e}", path.display()))?;
        self.over(table, &path.display().to_string());
        Ok(())
    }

    /// Lays one `section.key=value` over what is there. The value is TOML; a bare word is a string.
    pub(crate) fn over_assignment(&mut self, assignment: &str, origin: &str) -> Result<()> {
        let Some((path, value)) = assignment.split_once('=') else {
            bail!("`--set {assignment}` is not of the form section.key=value, for example train.epochs=20");
        };
        let keys: Vec<&str> = path.trim().split('.').map(str::trim).collect();
        if keys.len() < 2 || keys.iter().any(|key| key.is_empty()) {
            bail!("`--set {assignment}`: the key needs a section, for example train.epochs=20");
        }
        let mut table = Table::new();
        let (last, parents) = keys.split_last().context("a key")?;
        table.insert((*last).to_owned(), parse_value(value.trim()));
        for key in parents.iter().rev() {
            table = Table::from_iter([((*key).to_owned(), Value::Table(table))]);
        }
        self.over(table, origin);
        Ok(())
    }

    /// Lays other layers over these, with their origins.
    pub(crate) fn over_layers(&mut self, upper: Self) {
        let Self { table, origins } = upper;
        let mut mine = std::mem::take(&mut self.origins);
        merge(&mut self.table, table, "", "", &mut mine);
        for (path, origin) in mine.iter_mut().filter(|(_, origin)| origin.is_empty()) {
            *origin = origins.get(path).cloned().unwrap_or_else(|| "default".to_owned());
        }
        self.origins = mine;
    }

    /// One section alone.
    pub(crate) fn only(&self, section: &str) -> Self {
        let table = self.table.get(section).map(|value| (section.to_owned(), value.clone()));
        Self { table: Table::from_iter(table), origins: self.origins.clone() }
    }

    /// The merged table.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Where the value at a dotted path came from.
    pub(crate) fn origin(&self, path: &str) -> &str {
        let mut at = path;
        loop {
            if let Some(origin) = self.origins.get(at) {
                return origin;
            }
            match at.rsplit_once('.') {
                Some((parent, _)) => at = parent,
                None => return "default",
            }
        }
    }

    /// Reads one section into its type; errors name the key, its origin, and the nearest valid key.
    pub(crate) fn section<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let table = match self.table.get(name) {
            Some(Value::Table(table)) => table.clone(),
            None => Table::new(),
            Some(other) => bail!("`{name}` must be a section [{name}], not {}", other.type_str()),
        };
        T::deserialize(Value::Table(table)).map_err(|e| self.explain(name, e.message(), &[]))
    }

    /// Reads one section into two types: the keys `first` into one, all others into the other.
    ///
    /// (`serde(flatten)` would do so too, but then no unknown key is an error.)
    pub(crate) fn split_section<A, B>(&self, name: &str, first: &[&str]) -> Result<(A, B)>
    where
        A: serde::de::DeserializeOwned,
        B: serde::de::DeserializeOwned,
    {
        let all: Table = self.section(name)?;
        let (own, rest): (Table, Table) = all.into_iter().partition(|(key, _)| first.contains(&key.as_str()));
        let a = A::deserialize(Value::Table(own)).map_err(|e| self.explain(name, e.message(), &[]))?;
        let b = B::deserialize(Value::Table(rest)).map_err(|e| self.explain(name, e.message(), first))?;
        Ok((a, b))
    }

    /// Refuses sections that are not in `known`.
    pub(crate) fn check_sections(&self, known: &[&str]) -> Result<()> {
        for name in self.table.keys() {
            if !known.contains(&name.as_str()) {
                bail!(
                    "unknown section [{name}] (from {}){}; valid sections: {}",
                    self.origin(name),
                    suggestion(name, known.iter().copied()),
                    known.join(", ")
                );
            }
        }
        Ok(())
    }

    /// The keys of the table at a dotted path; none where there is no table.
    fn keys_at(&self, path: &str) -> impl Iterator<Item = &str> {
        let mut parts = path.split('.');
        let first = parts.next().and_then(|part| self.table.get(part));
        let found = parts.fold(first, |value, part| value?.as_table()?.get(part));
        found.and_then(Value::as_table).into_iter().flat_map(|table| table.keys().map(String::as_str))
    }

    fn explain(&self, section: &str, message: &str, more: &[&str]) -> anyhow::Error {
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if let (true, Some((&unknown, valid))) =
            (message.contains("unknown field") || message.contains("unknown variant"), quoted.split_first())
        {
            let valid: Vec<&str> = more.iter().chain(valid).copied().collect();
            let inside = format!("{section}.");
            let paths = || self.origins.keys().filter(|path| path.starts_with(&inside));
            // Which path holds the key: serde tells its name only. Its siblings are valid ones.
            let path = paths().find(|path| {
                let parts: Vec<&str> = path.split('.').collect();
                let Some(at) = parts.iter().position(|part| *part == unknown) else { return false };
                let parent = parts[..at].join(".");
                self.keys_at(&parent).all(|key| key == unknown || valid.contains(&key))
            });
            let path = path.or_else(|| paths().find(|path| path.split('.').any(|part| part == unknown)));
            let origin = path.and_then(|path| self.origins.get(path)).map_or("default", String::as_str);
            let holder =
                path.and_then(|path| path.split_once(&format!(".{unknown}"))).map_or(section, |p| p.0);
            // A key that belongs one level deeper is named with its place.
            let deeper: Vec<String> = valid
                .iter()
                .filter(|key| self.keys_at(&format!("{holder}.{key}")).any(|inner| inner == unknown))
                .map(|key| format!("{key}.{unknown}"))
                .collect();
            let what = if message.contains("unknown variant") { "value" } else { "key" };
            let hint = match deeper.first() {
                Some(place) => format!(" - did you mean `{place}`?"),
                None => suggestion(unknown, valid.iter().copied()),
            };
            return anyhow!(
                "unknown {what} `{unknown}` in [{holder}] (from {origin}){hint}; valid: {}",
                valid.join(", ")
            );
        }
        anyhow!("[{section}]: {}", message.trim())
    }
}

/// ` - did you mean X?` for the nearest candidate, or nothing when none is near.
pub(crate) fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    candidates
        .into_iter()
        .map(|c| (distance(word, c), c))
        .min()
        .filter(|(d, c)| *d <= 1 + c.len().max(word.len()) / 2)
        .map_or(String::new(), |(_, c)| format!(" - did you mean `{c}`?"))
}

fn parse_value(text: &str) -> Value {
    let wrapped = format!("v = {text}");
    match wrapped.parse::<Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("v").unwrap_or(Value::String(text.to_owned())),
        _ => Value::String(text.to_owned()),
    }
}

fn merge(
    lower: &mut Table,
    upper: Table,
    prefix: &str,
    origin: &str,
    origins: &mut BTreeMap<String, String>,
) {
    if prefix.starts_with("objective") || prefix.starts_with("model") {
        let changes_choice = ["kind", "name"]
            .iter()
            .any(|tag| upper.get(*tag).is_some_and(|new| lower.get(*tag).is_some_and(|old| old != new)));
        if changes_choice {
            lower.clear();
            let inside = format!("{prefix}.");
            origins.retain(|path, _| !path.starts_with(&inside));
        }
    }
    for (key, value) in upper {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above, &path, origin, origins),
            (_, Value::Table(above)) => {
                let mut fresh = Table::new();
                merge(&mut fresh, above, &path, origin, origins);
                if fresh.is_empty() {
                    origins.insert(path, origin.to_owned());
                }
                lower.insert(key, Value::Table(fresh));
            }
            (_, value) => {
                origins.insert(path, origin.to_owned());
                lower.insert(key, value);
            }
        }
    }
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Train {
        epochs: u32,
        batch: usize,
    }

    fn layers() -> Layers {
        let mut layers = Layers::default();
        layers.over("[train]\nepochs = 1\nbatch = 2".parse().unwrap(), "default");
        layers
    }

    #[test]
    fn the_upper_layer_wins_and_is_named() {
        let mut l = layers();
        l.over_assignment("train.epochs=7", "--set").unwrap();
        let train: Train = l.section("train").unwrap();
        assert_eq!((train.epochs, train.batch), (7, 2));
        assert_eq!((l.origin("train.epochs"), l.origin("train.batch")), ("--set", "default"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let mut l = layers();
        l.over_assignment("train.epoch=7", "--set").unwrap();
        let message = l.section::<Train>("train").unwrap_err().to_string();
        assert!(
            message.contains("`epoch`")
                && message.contains("did you mean `epochs`")
                && message.contains("--set"),
            "{message}"
        );
    }

    #[test]
    fn changing_a_kind_drops_the_keys_of_the_old_one() {
        let mut l = Layers::default();
        l.over("[objective.entropy]\nkind = 'vicreg'\nvariance = 25.0".parse().unwrap(), "default");
        l.over("[objective.entropy]\nkind = 'logdet'".parse().unwrap(), "file");
        let entropy = l.table()["objective"]["entropy"].as_table().unwrap();
        assert_eq!(entropy.len(), 1);
    }

    #[test]
    fn a_key_of_a_deeper_table_is_named_with_its_place() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Objective {
            name: String,
            entropy: Table,
        }
        let mut l = Layers::default();
        let preset = "[objective]\nname = 'vicreg'\n[objective.entropy]\nkind = 'vicreg'\nvariance = 25.0";
        l.over(preset.parse().unwrap(), "preset");
        l.over_assignment("objective.variance=10", "--set").unwrap();
        let message = l.section::<Objective>("objective").unwrap_err().to_string();
        assert!(message.contains("`variance` in [objective] (from --set)"), "{message}");
        assert!(message.contains("did you mean `entropy.variance`?"), "{message}");
    }

    #[test]
    fn values_are_toml_or_words() {
        assert_eq!(parse_value("3"), Value::Integer(3));
        assert_eq!(parse_value("[1, 2]"), Value::Array(vec![Value::Integer(1), Value::Integer(2)]));
        assert_eq!(parse_value("lars"), Value::String("lars".into()));
        assert_eq!(parse_value("a/b c"), Value::String("a/b c".into()));
    }

    #[test]
    fn malformed_assignments_are_refused() {
        assert!(layers().over_assignment("epochs", "--set").is_err());
        assert!(layers().over_assignment("epochs=3", "--set").is_err());
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
