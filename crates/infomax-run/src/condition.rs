//! Conditions on figures, for machines that judge: `rankme < 0.1 * d`.

use crate::config::suggestion;
use crate::inspect::Inspection;
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
        Self::parse_like(text, "`rankme < 0.1 * d` or `hubness > 3`")
    }

    /// The same for `train.stop_if`, whose figures have other names than those of a report.
    pub(crate) fn of_run(text: &str) -> Result<Self> {
        let examples = "`rank < 0.1 * d` or `std_min < 0.01`";
        let condition = Self::parse_like(text, examples)?;
        if condition.names().next().is_none() {
            let why = format!("`{text}` compares no figure; a condition is like {examples}");
            return Err(Error::Config(why));
        }
        Ok(condition)
    }

    fn parse_like(text: &str, examples: &str) -> Result<Self> {
        let refuse = |why: &str| Error::Config(format!("`{text}`: {why}; a condition is like {examples}"));
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

    /// The names of the figures that it compares.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.left.iter().chain(&self.right).filter_map(|factor| match &factor.atom {
            Atom::Name(name) => Some(name.as_str()),
            Atom::Number(_) => None,
        })
    }

    /// That each figure is one of these.
    ///
    /// # Errors
    /// The first name that is none of them, with the nearest and the list.
    pub fn check(&self, known: &[&str], of: &str) -> Result<()> {
        match self.names().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let hint = suggestion(name, known.iter().copied());
                let text = &self.text;
                Err(Error::Config(format!(
                    "`{text}`: no figure `{name}`{hint}; {of} has {}",
                    known.join(", ")
                )))
            }
        }
    }

    /// Whether the condition holds for a report, with the numbers of both sides.
    ///
    /// # Errors
    /// A name that the report has not, with the nearest, or a figure without a value.
    pub fn holds(&self, report: &Inspection) -> Result<Option<String>> {
        self.check(&report.names(), "this report")?;
        match self.holds_for(|name| report.value(name)) {
            Some(held) => Ok(held),
            None => Err(Error::Config(format!("`{}`: a figure of it has no value", self.text))),
        }
    }

    /// Whether the condition holds for figures, with the numbers of both sides; `None` where a figure has no value, or
    /// one that is not a number.
    pub fn holds_for(&self, figure: impl Fn(&str) -> Option<f64>) -> Option<Option<String>> {
        let side = |factors: &[Factor]| {
            factors.iter().try_fold(1.0, |product, factor| {
                let value = match &factor.atom {
                    Atom::Number(value) => *value,
                    Atom::Name(name) => figure(name).filter(|value| !value.is_nan())?,
                };
                Some(if factor.divide { product / value } else { product * value })
            })
        };
        let (left, right) = (side(&self.left)?, side(&self.right)?);
        let holds = match self.comparison {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        };
        Some(holds.then(|| format!("{}: {left:.6} against {right:.6}", self.text)))
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn product(text: &str) -> Result<Vec<Factor>, String> {
    let mut factors = Vec::new();
    let (mut divide, mut rest) = (false, text);
    loop {
        let end = rest.find(['*', '/']).unwrap_or(rest.len());
        let word = rest[..end].trim();
        let name = |word: &str| {
            let plain = word.starts_with(|c: char| c.is_ascii_alphabetic())
                && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            // A part of an objective has the name that its term gives it, which may have hyphens and spaces.
            plain || word.strip_prefix("parts.").is_some_and(|part| !part.is_empty())
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
    use super::*;

    /// Figures with `rankme` of 100 rows in 40 dimensions.
    fn figures(rankme: f64) -> impl Fn(&str) -> Option<f64> {
        move |name| match name {
            "rankme" => Some(rankme),
            "n" => Some(100.0),
            "d" => Some(40.0),
            _ => None,
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
            let found = Condition::parse(text).unwrap().holds_for(figures(rankme)).unwrap();
            assert_eq!(found.is_some(), holds, "{text} {rankme}");
        }
        let held = Condition::parse(" rankme < 0.1 * d").unwrap().holds_for(figures(3.0)).unwrap();
        assert_eq!(held.as_deref(), Some("rankme < 0.1 * d: 3.000000 against 4.000000"));
    }

    #[test]
    fn other_texts_are_refused_with_an_example() {
        for text in ["rankme", "rankme = 3", "< 3", "rankme < ", "rankme < 3 *", "a b < 3", "rankme < inf"] {
            assert!(Condition::parse(text).unwrap_err().to_string().contains("rankme < 0.1 * d"), "{text}");
        }
    }

    #[test]
    fn unknown_names_and_figures_without_a_value_are_told_apart() {
        let condition = Condition::parse("rank_me < 0.1 * d").unwrap();
        assert_eq!(condition.names().collect::<Vec<_>>(), ["rank_me", "d"]);
        let message = condition.check(&["d", "rankme"], "this report").unwrap_err().to_string();
        for part in ["no figure `rank_me`", "did you mean `rankme`", "this report has d, rankme"] {
            assert!(message.contains(part), "{message}");
        }
        let condition = Condition::parse("rankme < 3").unwrap();
        condition.check(&["d", "rankme"], "this report").unwrap();
        assert_eq!(condition.holds_for(figures(f64::NAN)), None);
        assert_eq!(condition.holds_for(|_| None), None);
    }
}
