//! Conditions on figures, for machines that judge: `rankme < 0.1 * d`.

use super::Inspection;
use crate::config::suggestion;
use crate::{Error, Result};

/// A comparison of two products of numbers and figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    left: Vec<Factor>,
    comparison: Comparison,
    right: Vec<Factor>,
}

#[derive(Clone, Debug, PartialEq)]
struct Factor {
    divide: bool,
    atom: Atom,
}

#[derive(Clone, Debug, PartialEq)]
enum Atom {
    Number(f64),
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads `PRODUCT < PRODUCT`, with `<`, `<=`, `>` or `>=`; a product is numbers and names of figures joined by `*`
    /// and `/`.
    ///
    /// # Errors
    /// A text of another form.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::Config(format!("`{text}`: {why}; a condition is like `rankme < 0.1 * d` or `hubness > 3`"))
        };
        let at = text.find(['<', '>']).ok_or_else(|| refuse("there is no <, <=, > or >="))?;
        let (left, rest) = text.split_at(at);
        let equal = rest[1..].starts_with('=');
        let comparison = match (rest.starts_with('<'), equal) {
            (true, false) => Comparison::Less,
            (true, true) => Comparison::LessOrEqual,
            (false, false) => Comparison::Greater,
            (false, true) => Comparison::GreaterOrEqual,
        };
        let right = &rest[1 + usize::from(equal)..];
        let (left, right) = (product(left).map_err(|e| refuse(&e))?, product(right).map_err(|e| refuse(&e))?);
        Ok(Self { text: text.trim().to_owned(), left, comparison, right })
    }

    /// Whether the condition holds, with the numbers of both sides.
    ///
    /// # Errors
    /// A name that the report has not, with the nearest, or a figure without a value.
    pub fn holds(&self, report: &Inspection) -> Result<Option<String>> {
        let (left, right) = (self.side(&self.left, report)?, self.side(&self.right, report)?);
        let holds = match self.comparison {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        };
        Ok(holds.then(|| format!("{}: {left:.6} against {right:.6}", self.text)))
    }

    fn side(&self, factors: &[Factor], report: &Inspection) -> Result<f64> {
        factors.iter().try_fold(1.0, |product, factor| {
            let value = match &factor.atom {
                Atom::Number(value) => *value,
                Atom::Name(name) => report.value(name).ok_or_else(|| {
                    let names = report.names();
                    let hint = suggestion(name, names.iter().copied());
                    let known = names.join(", ");
                    Error::Config(format!(
                        "`{}`: no figure `{name}`{hint}; this report has {known}",
                        self.text
                    ))
                })?,
            };
            if value.is_nan() {
                return Err(Error::Config(format!("`{}`: a figure of it has no value", self.text)));
            }
            Ok(if factor.divide { product / value } else { product * value })
        })
    }
}

fn product(text: &str) -> Result<Vec<Factor>, String> {
    let mut factors = Vec::new();
    let (mut divide, mut rest) = (false, text);
    loop {
        let end = rest.find(['*', '/']).unwrap_or(rest.len());
        let word = rest[..end].trim();
        let name = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_alphabetic())
                && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let atom = match word.parse::<f64>() {
            _ if word.is_empty() => return Err("a side or a factor is empty".into()),
            Ok(value) if value.is_finite() => Atom::Number(value),
            Ok(_) => return Err(format!("`{word}` is no finite number")),
            _ if name(word) => Atom::Name(word.to_owned()),
            _ => return Err(format!("`{word}` is neither a number nor the name of a figure")),
        };
        factors.push(Factor { divide, atom });
        if end == rest.len() {
            return Ok(factors);
        }
        divide = rest[end..].starts_with('/');
        rest = &rest[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Figure, Section};
    use super::*;

    fn report(rankme: f64) -> Inspection {
        let mut section = Section::new("rank");
        section.figures.push(Figure::plain("rankme", rankme, ""));
        let (n, d, finite_rows) = (100, 40, 100);
        Inspection {
            n,
            d,
            finite_rows,
            sections: vec![section],
            rows: Vec::new(),
            columns: Vec::new(),
            plots: None,
        }
    }

    #[test]
    fn conditions_compare_products_of_figures_and_numbers() {
        for (text, rankme, holds) in [
            ("rankme < 0.1 * d", 3.9, true),
            ("rankme < 0.1 * d", 4.1, false),
            ("rankme<=4", 4.0, true),
            ("d / 10 > rankme", 3.0, true),
            ("rankme / d >= 1e-1", 4.0, true),
            ("2 * rankme * n > d", 0.1, false),
        ] {
            let found = Condition::parse(text).unwrap().holds(&report(rankme)).unwrap();
            assert_eq!(found.is_some(), holds, "{text} {rankme}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_an_example() {
        for text in ["rankme", "rankme = 3", "< 3", "rankme < ", "rankme < 3 *", "a b < 3", "rankme < inf"] {
            assert!(Condition::parse(text).unwrap_err().to_string().contains("rankme < 0.1 * d"), "{text}");
        }
        let message = Condition::parse("rank_me < 3").unwrap().holds(&report(1.0)).unwrap_err().to_string();
        assert!(message.contains("did you mean `rankme`"), "{message}");
        assert!(Condition::parse("rankme < 3").unwrap().holds(&report(f64::NAN)).is_err());
    }
}
