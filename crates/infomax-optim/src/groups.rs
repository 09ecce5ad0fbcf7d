//! Settings of their own for parameters that a pattern of names picks.

use crate::config::decays;
use crate::error::check;
use crate::{Error, Result};
use glob::Pattern;
use infomax_core::{Param, ParamKind, Params};

/// Settings of their own for the parameters whose name a pattern matches. In TOML:
///
/// ```toml
/// [[optim.groups]]
/// match = "encoder.*.bias"
/// weight_decay = 0.0
/// ```
///
/// What a group leaves out stays as it is. Where several groups match, the last one that has a setting decides on
/// it. A pattern that matches no trainable parameter is an error.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// The pattern of full names: `*` stands for any characters, dots included, `?` for one, `[ab]` for one of
    /// these.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The factor of the learning rate, at least 0; 0 freezes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_factor: Option<f64>,
    /// The weight decay, whatever the kind of the parameter, instead of the optimizer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Whether the rate is adapted by the trust ratio (LARS and LAMB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
}

impl ParamGroup {
    /// A group that changes nothing yet.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self { pattern: pattern.into(), lr_factor: None, weight_decay: None, trust: None }
    }
}

/// What holds for one parameter in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) lr: f64,
    pub(crate) decay: f64,
    pub(crate) trust: bool,
}

/// The groups of an optimizer with their patterns.
#[derive(Clone, Debug)]
pub(crate) struct Groups(Vec<(Pattern, ParamGroup)>);

impl Groups {
    /// `adapts` says whether the optimizer has a trust ratio at all.
    ///
    /// # Errors
    /// A pattern that is none, a value out of its range, a group without a setting, or trust where there is none.
    pub(crate) fn new(groups: &[ParamGroup], adapts: bool) -> Result<Self> {
        let patterns = groups.iter().map(|group| {
            let refuse = |reason| {
                let value = format!("[{{ match = \"{}\" }}]", group.pattern);
                Err(Error::Config { key: "groups".into(), value, reason })
            };
            if let Some(factor) = group.lr_factor {
                check(
                    "groups.lr_factor",
                    factor,
                    0.0..,
                    "the factor of the learning rate must be at least 0",
                )?;
            }
            if let Some(decay) = group.weight_decay {
                check("groups.weight_decay", decay, 0.0.., "the weight decay must be at least 0")?;
            }
            if group.trust.is_some() && !adapts {
                return refuse("`trust` is for LARS and LAMB: no other optimizer has a trust ratio");
            }
            if (group.lr_factor, group.weight_decay, group.trust) == (None, None, None) {
                return refuse("it sets nothing: add `lr_factor`, `weight_decay` or `trust`");
            }
            Ok((pattern("groups.match", &group.pattern)?, group.clone()))
        });
        Ok(Self(patterns.collect::<Result<_>>()?))
    }

    /// That each pattern matches a parameter.
    ///
    /// # Errors
    /// [`Error::NoMatch`] with names that there are.
    pub(crate) fn check(&self, params: &Params) -> Result<()> {
        self.0.iter().try_for_each(|(pattern, _)| matches("groups.match", pattern, params))
    }

    /// What holds for a parameter, from what holds without groups.
    pub(crate) fn of(
        &self,
        (name, param): (&str, &Param),
        lr: f64,
        weight_decay: f64,
        exclude: bool,
    ) -> Setting {
        let regular = decays(param.kind, exclude);
        let mut setting = Setting { lr, decay: if regular { weight_decay } else { 0.0 }, trust: regular };
        for (_, group) in self.0.iter().filter(|(pattern, _)| pattern.matches(name)) {
            setting.lr = group.lr_factor.map_or(setting.lr, |factor| lr * factor);
            setting.decay = group.weight_decay.unwrap_or(setting.decay);
            setting.trust = group.trust.unwrap_or(setting.trust);
        }
        setting
    }
}

/// Reads a pattern of names.
///
/// # Errors
/// A text that is none, with the reason.
pub(crate) fn pattern(key: &str, text: &str) -> Result<Pattern> {
    Pattern::new(text).map_err(|error| Error::Config {
        key: key.to_owned(),
        value: format!("\"{text}\""),
        // The reasons of the crate are static texts.
        reason: error.msg,
    })
}

/// That a pattern matches a trainable parameter.
///
/// # Errors
/// [`Error::NoMatch`] with names that there are.
pub(crate) fn matches(key: &'static str, pattern: &Pattern, params: &Params) -> Result<()> {
    let all = params.all();
    let mut trainable = all.iter().filter(|(_, param)| param.kind != ParamKind::Buffer);
    if trainable.any(|(name, _)| pattern.matches(name)) {
        return Ok(());
    }
    let buffers = all.iter().any(|(name, _)| pattern.matches(name));
    let names: Vec<String> =
        all.into_iter().filter(|(_, p)| p.kind != ParamKind::Buffer).map(|(name, _)| name).collect();
    let more = names.len().saturating_sub(12);
    let mut listed = names.iter().take(12).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if more > 0 {
        listed += &format!(" and {more} more");
    }
    if buffers {
        listed += " (it matches running statistics or a teacher, which no optimizer changes)";
    }
    Err(Error::NoMatch { key, pattern: pattern.as_str().to_owned(), names: listed })
}
