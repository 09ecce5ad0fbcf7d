//! Single values: how a text becomes one, and where a wrong one stands.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// A text as a TOML value; a bare word is a string.
///
/// # Errors
/// What starts as a list, a table, a quoted string or a number and is none, with the reason.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let problem = match format!("v = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => {
            return Ok(table.remove("v").unwrap_or_else(|| Value::String(text.to_owned())));
        }
        Ok(_) => "it holds more than one value".to_owned(),
        Err(error) => error.message().trim().to_owned(),
    };
    let digits = text.trim_start_matches(['+', '-']);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{text} is beyond 2^63 - 1, the largest whole number that TOML has"));
    }
    if text.starts_with(['[', '{', '"', '\'']) {
        return Err(format!("{text} is not a TOML value: {problem}"));
    }
    // TOML wants a digit on either side of a point.
    if text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && let Ok(number) = text.parse::<f64>()
    {
        return Ok(Value::Float(number));
    }
    Ok(Value::String(text.to_owned()))
}

/// The value at a dotted path.
pub(super) fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first)?, rest) {
        (value, None) => Some(value),
        (Value::Table(inner), Some(rest)) => at(inner, rest),
        _ => None,
    }
}

/// The dotted path of the value that makes a table unreadable as a `T`, at or below the place that serde names.
///
/// Tables that are joined, and those whose kind is a key of their own, are read into a buffer first, and serde
/// loses the place in them. It is the value without which the table can be read, or else the word that the message
/// calls unknown.
pub(super) fn culprit<T: DeserializeOwned>(table: &Table, named: &str, message: &str) -> String {
    let mut leaves = Vec::new();
    let below = if named.is_empty() { None } else { at(table, named) };
    match (named.is_empty(), below) {
        (true, _) => collect(table, "", &mut leaves),
        (false, Some(Value::Table(inner))) => collect(inner, named, &mut leaves),
        _ => return named.to_owned(),
    }
    let readable = |leaf: &&String| T::deserialize(Value::Table(without(table, leaf))).is_ok();
    if let Some(leaf) = leaves.iter().find(readable) {
        return leaf.clone();
    }
    let word = message.strip_prefix("unknown variant `").and_then(|rest| rest.split('`').next());
    let says = |leaf: &&String| {
        word.is_some_and(|word| at(table, leaf).is_some_and(|value| value.as_str() == Some(word)))
    };
    leaves.iter().find(says).cloned().unwrap_or_else(|| named.to_owned())
}

/// A message of serde in words of a configuration.
pub(super) fn plain(message: &str) -> String {
    let mut text = message.to_owned();
    for (theirs, ours) in [
        ("expected a tuple of size", "expected a list of length"),
        ("expected tuple struct", "expected the value of"),
        ("expected u64", "expected a whole number of at least 0"),
        ("expected u32", "expected a whole number of at least 0"),
        ("expected usize", "expected a whole number of at least 0"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a section"),
    ] {
        text = text.replace(theirs, ours);
    }
    text
}

/// The dotted paths of all values that are no tables, with the values.
pub(crate) fn leaves(table: &Table) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                found.extend(leaves(inner).into_iter().map(|(path, value)| (format!("{key}.{path}"), value)));
            }
            value => found.push((key.clone(), value)),
        }
    }
    found
}

/// The dotted paths of all values, those inside of a table before the table itself.
fn collect(table: &Table, prefix: &str, leaves: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => {
                collect(inner, &path, leaves);
                // A table where none is wanted.
                leaves.push(path);
            }
            _ => leaves.push(path),
        }
    }
}

/// The table without the value at a dotted path.
fn without(table: &Table, path: &str) -> Table {
    let mut table = table.clone();
    match path.split_once('.') {
        None => {
            table.remove(path);
        }
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                *inner = without(inner, rest);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_words() {
        assert_eq!(parse("3"), Ok(Value::Integer(3)));
        assert_eq!(parse("[1, 2]"), Ok(Value::Array(vec![Value::Integer(1), Value::Integer(2)])));
        assert_eq!(parse("lars"), Ok(Value::String("lars".into())));
        assert_eq!(parse("a/b c"), Ok(Value::String("a/b c".into())));
        assert_eq!((parse(".1"), parse("-2.")), (Ok(Value::Float(0.1)), Ok(Value::Float(-2.0))));
        assert_eq!(parse("1e"), Ok(Value::String("1e".into())));
        assert_eq!(parse("2026-11-28x"), Ok(Value::String("2026-11-28x".into())));
    }

    #[test]
    fn half_written_values_are_no_words() {
        for text in ["[1, 2", "{a = 1", "\"photos", "'photos"] {
            assert!(parse(text).unwrap_err().contains(text), "{text}");
        }
        assert!(parse("18446744073709551615").unwrap_err().contains("2^63 - 1"));
    }
}
