//! Layered configuration: defaults, then a file, then the command line; with the origin of each value.

use super::schema::{self, Node, root};
use super::{RunConfig, values};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// A configuration as a table, with the place that each leaf came from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    table: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// Lays a table over what is there. Tables are merged key by key, anything else is replaced.
    ///
    /// A table of the objective or of the model whose `kind` or `name` changes is replaced as a whole, since
    /// its other keys belong to the old choice.
    pub fn over(&mut self, upper: Table, origin: &str) {
        merge(&mut self.table, upper, "", origin, &mut self.origins);
    }

    /// Lays a TOML file over what is there.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML.
    pub fn over_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the configuration", path, e))?;
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            Error::Config(format!("{} is not valid TOML:\n{e}", path.display()))
        })?;
        self.over(table, &path.display().to_string());
        Ok(())
    }

    /// Lays one `section.key=value` over what is there. The value is TOML; a bare word is a string.
    ///
    /// # Errors
    /// A text that is not of this form.
    pub fn over_assignment(&mut self, assignment: &str, origin: &str) -> Result<()> {
        let refuse = |problem: &str| {
            Err(Error::Config(format!("`--set {assignment}`{problem}, for example train.epochs=20")))
        };
        let Some((path, value)) = assignment.split_once('=') else {
            return refuse(" is not of the form section.key=value");
        };
        let keys: Vec<&str> = path.trim().split('.').map(str::trim).collect();
        let (Some((last, parents)), false) = (keys.split_last(), keys.iter().any(|key| key.is_empty()))
        else {
            return refuse(": a key is empty");
        };
        if parents.is_empty() && *last != "method" {
            return refuse(": the key needs a section");
        }
        let mut table = Table::new();
        let value = values::parse(value.trim())
            .map_err(|problem| Error::Config(format!("`--set {assignment}`: {problem}")))?;
        table.insert((*last).to_owned(), value);
        for key in parents.iter().rev() {
            table = Table::from_iter([((*key).to_owned(), Value::Table(table))]);
        }
        self.over(table, origin);
        Ok(())
    }

    /// Lays other layers over these, with their origins.
    pub fn over_layers(&mut self, upper: Self) {
        let Self { table, origins } = upper;
        let mut mine = std::mem::take(&mut self.origins);
        merge(&mut self.table, table, "", "", &mut mine);
        for (path, origin) in mine.iter_mut().filter(|(_, origin)| origin.is_empty()) {
            *origin = origins.get(path).cloned().unwrap_or_else(|| "default".to_owned());
        }
        self.origins = mine;
    }

    /// One section alone.
    pub fn only(&self, section: &str) -> Self {
        let table = self.table.get(section).map(|value| (section.to_owned(), value.clone()));
        Self { table: Table::from_iter(table), origins: self.origins.clone() }
    }

    /// The merged table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The method that is named, if one is.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is no word.
    pub fn method(&self) -> Result<Option<String>> {
        match self.table.get("method") {
            None => Ok(None),
            Some(Value::String(name)) => Ok(Some(name.clone())),
            Some(other) => Err(Error::Config(format!(
                "method (from {}): a word is wanted, for example method = \"byol\", not {}",
                self.origin("method"),
                other.type_str()
            ))),
        }
    }

    /// Whether a layer has a value at a dotted path.
    pub fn has(&self, path: &str) -> bool {
        values::at(&self.table, path).is_some()
    }

    /// One section, to be changed.
    pub(super) fn section_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.table.get_mut(name)
    }

    /// Where the value at a dotted path came from; for a table, the first origin that is no default.
    pub fn origin(&self, path: &str) -> &str {
        if let Some(origin) = self.origins.get(path) {
            return origin;
        }
        let inside = format!("{path}.");
        let mut below = self.origins.range(inside.clone()..).take_while(|(key, _)| key.starts_with(&inside));
        if let Some((_, first)) = below.clone().next() {
            return below
                .find(|(_, origin)| !origin.starts_with("default"))
                .map_or(first, |(_, origin)| origin);
        }
        match path.rsplit_once('.') {
            Some((parent, _)) => self.origins.get(parent).map_or("default", String::as_str),
            None => "default",
        }
    }

    /// Reads one section into its type; errors name the key, its origin, and the valid values.
    ///
    /// # Errors
    /// [`Error::Config`] for a value of another type or out of its range.
    pub fn section<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let table = match self.table.get(name) {
            Some(Value::Table(table)) => table.clone(),
            None => Table::new(),
            Some(other) => {
                let found = other.type_str();
                return Err(Error::Config(format!("`{name}` must be a section [{name}], not {found}")));
            }
        };
        serde_path_to_error::deserialize(Value::Table(table.clone())).map_err(|e| {
            let (path, message) = (e.path().to_string(), e.inner().message());
            let path = values::culprit::<T>(&table, if path == "." { "" } else { &path }, message);
            let path = if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") };
            self.explain(&path, message)
        })
    }

    /// Removes defaults that belong to another choice than the one that was made, and refuses every key that no
    /// table of the configuration has.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, its place and origin, and the nearest valid key.
    pub fn check(&mut self) -> Result<()> {
        let mut table = std::mem::take(&mut self.table);
        let checked = self.check_table(&mut table, root(), "");
        self.table = table;
        checked
    }

    fn check_table(&self, table: &mut Table, schema: &serde_json::Value, path: &str) -> Result<()> {
        let node = Node::of(schema);
        let valid = node.valid(|tag| table.get(tag)?.as_str().map(ToOwned::to_owned));
        let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        table.retain(|key, _| valid.contains_key(key) || !self.origin(&inside(key)).starts_with("default"));
        for (key, value) in table.iter_mut() {
            let place = inside(key);
            let Some(schema) = valid.get(key) else {
                return Err(self.unknown(key, path, valid.keys().map(String::as_str), |inner| {
                    valid.get(inner).is_some_and(|schema| {
                        let deeper = Node::of(schema);
                        deeper.is_table() && deeper.valid(|_| None).contains_key(key)
                    })
                }));
            };
            match value {
                Value::Table(inner) if Node::of(schema).is_table() => {
                    self.check_table(inner, schema, &place)?
                }
                _ if path.is_empty() && Node::of(schema).is_table() => {
                    let found = value.type_str();
                    return Err(Error::Config(format!("`{key}` must be a section [{key}], not {found}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unknown<'a>(
        &self,
        key: &str,
        path: &str,
        valid: impl Iterator<Item = &'a str> + Clone,
        deeper: impl Fn(&str) -> bool,
    ) -> Error {
        let place = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let origin = self.origin(&place);
        if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == place) {
            return Error::Config(format!("{place} (from {origin}) is written otherwise now: {now}"));
        }
        let list = valid.clone().collect::<Vec<_>>().join(", ");
        if path.is_empty() {
            let hint = suggestion(key, valid);
            return Error::Config(format!(
                "unknown section [{key}] (from {origin}){hint}; valid sections: {list}"
            ));
        }
        // What another choice calls it, then a key that belongs one level deeper, then the nearest.
        let other = SYNONYMS.iter().find(|(word, own)| *word == place && valid.clone().any(|v| v == *own));
        let hint = match (other, valid.clone().find(|inner| deeper(inner))) {
            (Some((_, own)), _) => format!(" - here it is called `{own}`"),
            (None, Some(inner)) => format!(" - did you mean `{inner}.{key}`?"),
            (None, None) => suggestion(key, valid),
        };
        Error::Config(format!("unknown key `{key}` in [{path}] (from {origin}){hint}; valid: {list}"))
    }

    fn explain(&self, path: &str, message: &str) -> Error {
        let choice = schema::choice_without_word(path, &self.table);
        let path = choice.as_deref().unwrap_or(path);
        // An element of a list came with its list.
        let origin = self.origin(path.split('[').next().unwrap_or(path));
        // Where one of a few words is wanted, serde has terms of its own for everything else.
        let value = values::at(&self.table, path);
        if let (Some(value), Some(words)) = (value, schema::words_at(path, &self.table))
            && !value.is_str()
        {
            return Error::Config(format!(
                "{path} = {value} (from {origin}): one of these words is wanted: {}",
                words.join(", ")
            ));
        }
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if let (true, Some((unknown, valid))) = (message.contains("unknown variant"), quoted.split_first()) {
            return Error::Config(format!(
                "{path} = \"{unknown}\" (from {origin}): unknown{}; valid: {}",
                suggestion(unknown, valid.iter().copied()),
                valid.join(", ")
            ));
        }
        let defaults = Table::try_from(RunConfig::default()).unwrap_or_default();
        let example = match (message.starts_with("invalid"), values::at(&defaults, path)) {
            (true, Some(value)) if !value.is_table() && value.as_array().is_none_or(|a| !a.is_empty()) => {
                format!("; for example {path} = {value}")
            }
            _ => String::new(),
        };
        Error::Config(format!("{path} (from {origin}): {}{example}", values::plain(message.trim())))
    }
}

/// Keys that had another name, and what to write now.
const RENAMED: &[(&str, &str)] = &[
    ("eval.knn_k", "write eval.knn.k"),
    ("eval.knn_temperature", "write eval.knn.temperature"),
    ("model.arch", "write [model.encoder] with kind = \"resnet\", \"vit\" or \"convnext\""),
    ("model.encoder.arch", "write kind = \"resnet\", \"vit\" or \"convnext\""),
    ("model.resnet", "put the keys into [model.encoder] with kind = \"resnet\""),
    ("model.vit", "put the keys into [model.encoder] with kind = \"vit\""),
    ("model.convnext", "put the keys into [model.encoder] with kind = \"convnext\""),
];

/// Keys of one choice, and what they are called where another was made.
const SYNONYMS: &[(&str, &str)] = &[
    ("optim.momentum", "beta1"),
    ("optim.beta1", "momentum"),
    ("optim.betas", "beta1"),
    ("optim.wd", "weight_decay"),
    ("optim.learning_rate", "lr"),
];

/// ` - did you mean X?` for the nearest candidate, or nothing when none is near.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        .min()
        .filter(|(d, c)| *d <= 1 + c.len().max(word.len()) / 3)
        .map_or(String::new(), |(_, c)| format!(" - did you mean `{c}`?"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        let mut layers = Layers::default();
        layers.over("[train]\nepochs = 1\nbatch = 2".parse().unwrap(), "default");
        layers
    }

    #[test]
    fn the_upper_layer_wins_and_is_named() {
        let mut l = layers();
        l.over_assignment("train.epochs=7", "--set").unwrap();
        let train: super::super::TrainSection = l.section("train").unwrap();
        assert_eq!((train.run.epochs, train.batch), (7, 2));
        assert_eq!((l.origin("train.epochs"), l.origin("train.batch")), ("--set", "default"));
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
    fn defaults_of_another_choice_are_dropped_and_what_was_written_is_not() {
        let adamw = "[optim]\nname = 'adamw'\nlr = 0.1\nbeta1 = 0.8\nweight_decay = 1e-4";
        let mut l = Layers::default();
        l.over(adamw.parse().unwrap(), "default");
        l.over_assignment("optim.name=lars", "--set").unwrap();
        l.check().unwrap();
        let optim: super::super::OptimSection = l.section("optim").unwrap();
        assert_eq!(optim.schedule.lr, 0.1);
        let infomax_optim::OptimConfig::Lars(lars) = optim.optimizer else { panic!("{optim:?}") };
        assert_eq!(lars.weight_decay, 1e-4);
        let mut l = Layers::default();
        l.over(adamw.parse().unwrap(), "file.toml");
        l.over_assignment("optim.name=lars", "--set").unwrap();
        let message = l.check().unwrap_err().to_string();
        assert!(message.contains("`beta1`") && message.contains("file.toml"), "{message}");
    }

    #[test]
    fn malformed_assignments_are_refused() {
        for text in ["epochs", "epochs=3", "train.=3", ".epochs=3"] {
            let message = layers().over_assignment(text, "--set").unwrap_err().to_string();
            assert!(message.contains(text) && message.contains("train.epochs=20"), "{message}");
        }
    }
}
