//! Labels as they stand in files, and the classes that they name.
//!
//! One rule for every format. Whole numbers from 0, of any type (also `2.0` and `true`), are numbers of classes;
//! -1, null, NaN and an empty text mean that a sample has no label; a text is a name. If any label is a name, all
//! of them are. Only classes that occur are counted, unless a file declares the names of its classes.

use std::collections::{BTreeMap, BTreeSet};

/// The label of a sample without a class.
pub(crate) const NONE: u32 = u32::MAX;

/// A label as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Missing,
    Number(i64),
    Text(String),
    /// Something that means no class, and why: the sample is left out and named.
    Wrong(String),
}

impl Value {
    /// A number, -1 for none.
    pub(crate) fn of_number(value: i64) -> Self {
        match value {
            -1 => Self::Missing,
            0.. => Self::Number(value),
            _ => Self::Wrong(format!(
                "the label {value} is negative; labels are whole numbers from 0, or -1 for none"
            )),
        }
    }

    /// A number below `classes`.
    pub(crate) fn below(value: i64, classes: usize) -> Self {
        match usize::try_from(value) {
            Ok(label) if label < classes => Self::Number(value),
            _ => Self::Wrong(format!("the label {value} is not in 0..{classes}")),
        }
    }

    /// A number of floating point: whole, or NaN for none.
    pub(crate) fn of_float(value: f64) -> Self {
        if value.is_nan() {
            Self::Missing
        } else if value.fract() == 0.0 && value.abs() < 9e15 {
            Self::of_number(value as i64)
        } else {
            Self::Wrong(format!("the label {value} is no whole number"))
        }
    }

    /// A word of a text file, or of a column of texts.
    pub(crate) fn of_text(text: &str) -> Self {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if text.is_empty() || text.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("null") {
            return Self::Missing;
        }
        if let Ok(number) = text.parse::<i64>() {
            return Self::of_number(number);
        }
        // A table with gaps writes its whole numbers as `3.0`.
        let digits =
            text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
        match text.parse::<f64>() {
            Ok(number) if digits && number.fract() == 0.0 => Self::of_float(number),
            _ => Self::Text(text.to_owned()),
        }
    }
}

/// Labels by sample, and the names of the classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// The class of each sample, [`NONE`] without one, or why the sample is left out.
    pub(crate) labels: Vec<Result<u32, String>>,
    pub(crate) classes: Vec<String>,
}

/// Numbers the classes: the declared ones as they are, others in the order of their numbers, or of their names.
pub(crate) fn number(values: &[Value], declared: &[String]) -> Numbered {
    let named = values.iter().any(|value| matches!(value, Value::Text(_)));
    if named {
        let text = |value: &Value| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let texts: BTreeSet<String> = values.iter().filter_map(text).collect();
        let known: BTreeSet<&String> = declared.iter().collect();
        let mut others: Vec<String> = texts.into_iter().filter(|name| !known.contains(name)).collect();
        others.sort_by(|a, b| natural(a, b));
        let classes: Vec<String> = declared.iter().cloned().chain(others).collect();
        let numbers: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let label = |value: &Value| match value {
            Value::Wrong(reason) => Err(reason.clone()),
            other => Ok(text(other).and_then(|name| numbers.get(name.as_str()).copied()).unwrap_or(NONE)),
        };
        let labels = values.iter().map(label).collect();
        return Numbered { labels, classes };
    }
    let occurring = values.iter().filter_map(|value| match value {
        Value::Number(number) => Some(*number),
        _ => None,
    });
    let first = declared.len() as i64;
    let others: BTreeSet<i64> = occurring.filter(|number| *number >= first).collect();
    let numbers: BTreeMap<i64, u32> = others.iter().copied().zip(declared.len() as u32..).collect();
    let label = |value: &Value| match value {
        Value::Wrong(reason) => Err(reason.clone()),
        Value::Number(number) if *number < first => Ok(*number as u32),
        Value::Number(number) => Ok(numbers.get(number).copied().unwrap_or(NONE)),
        _ => Ok(NONE),
    };
    let labels = values.iter().map(label).collect();
    let classes = declared.iter().cloned().chain(others.iter().map(ToString::to_string)).collect();
    Numbered { labels, classes }
}

/// Numbers by their value and before all texts, which are in the order of the alphabet.
pub(crate) fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<i64>(), b.parse::<i64>()) {
        (Ok(x), Ok(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

/// What is said of classes that are called like parts of a data set.
pub(crate) fn warn_of_parts(classes: &[String]) -> Option<String> {
    let like: Vec<&str> =
        classes.iter().map(String::as_str).filter(|name| crate::split::is_part_name(name)).collect();
    (!like.is_empty()).then(|| {
        format!(
            "of the {} classes, {} {} named like a part of a data set (train, test, val); if it is one, put the \
             parts side by side in a folder that holds nothing else",
            classes.len(),
            like.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            if like.len() == 1 { "is" } else { "are" },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_classes_that_occur_are_counted() {
        let values: Vec<Value> = [5, 200_000, -1, 5].map(Value::of_number).into();
        let Numbered { labels, classes } = number(&values, &[]);
        assert_eq!(classes, ["5", "200000"]);
        assert_eq!(labels, [Ok(0), Ok(1), Ok(NONE), Ok(0)]);
        let declared = ["ant", "bee", "cow"].map(str::to_owned);
        let Numbered { labels, classes } = number(&[1, 7, 0].map(Value::of_number), &declared);
        assert_eq!(classes, ["ant", "bee", "cow", "7"]);
        assert_eq!(labels, [Ok(1), Ok(3), Ok(0)]);
    }

    #[test]
    fn numbers_are_numbers_and_one_name_makes_all_of_them_names() {
        let read = |texts: &[&str]| number(&texts.iter().map(|t| Value::of_text(t)).collect::<Vec<_>>(), &[]);
        assert_eq!(read(&["10", "9", "2.0", ""]).classes, ["2", "9", "10"]);
        assert_eq!(read(&["10", "9", "x"]).classes, ["9", "10", "x"]);
        assert_eq!(read(&["dog", "", "cat", "NaN"]).labels, [Ok(1), Ok(NONE), Ok(0), Ok(NONE)]);
        assert!(read(&["-3"]).labels[0].is_err());
        assert_eq!(Value::of_text("inf"), Value::Text("inf".into()));
        assert!(matches!(Value::of_float(0.5), Value::Wrong(_)));
        assert_eq!((Value::of_float(3.0), Value::of_float(f64::NAN)), (Value::Number(3), Value::Missing));
    }
}
