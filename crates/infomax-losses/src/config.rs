//! An objective as data: what a configuration file says, and what it builds.

use crate::entropy::IntoTerm as _;
use crate::{Entropy, Error, Result, entropy, invariance, tagged};
use infomax_core::{Objective, Term};

/// An objective as data: an invariance term and an entropy term.
///
/// ```
/// use infomax_losses::ObjectiveConfig;
/// let config = ObjectiveConfig::named("vicreg")?;
/// assert_eq!(config.build()?.name(), "vicreg");
/// # Ok::<(), infomax_losses::Error>(())
/// ```
///
/// In a file, `name` and `convention` choose a preset (see [`crate::named`]) and the tables replace its
/// terms; without a name both tables are needed. What is serialized is resolved: it has every value.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ObjectiveConfig {
    /// The name of the preset, or `custom`.
    pub name: String,
    /// Whose conventions the preset follows: `official`, `solo-learn`, `lightly` or `original`.
    pub convention: String,
    /// The temperature of both terms of a contrastive method (`simclr`, `dcl`, `dclw`, `supcon`): that of the entropy term,
    /// and 1 over the weight of the invariance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// What pulls the views together.
    pub invariance: InvarianceConfig,
    /// What keeps the embeddings spread.
    pub entropy: EntropyConfig,
}

impl ObjectiveConfig {
    /// The preset of a name, in its official convention.
    ///
    /// # Errors
    /// An unknown name, with the nearest valid ones.
    pub fn named(name: &str) -> Result<Self> {
        crate::named::find(name, None, &|_| None)
    }

    /// The preset of a name, in a convention (`None`: its first), beside values that are set: those of its other
    /// values that follow from one of them follow.
    ///
    /// `given` answers with the number that was set at a key of the objective, for example `entropy.temperature`;
    /// that number itself is not taken over, but for `temperature`. What follows is the weight of the invariance:
    /// from the temperature of `simclr`, `dcl`, `dclw` and `supcon`, from `entropy.weight` of `lejepa` (together 1), and from
    /// `entropy.alpha` of `vicregl`.
    ///
    /// # Errors
    /// An unknown name or convention, with the valid ones; a `temperature` that is not above 0, or of a method
    /// without one.
    pub fn beside(name: &str, convention: Option<&str>, given: &dyn Fn(&str) -> Option<f64>) -> Result<Self> {
        crate::named::find(name, convention, given)
    }

    /// The preset of a name in a convention.
    ///
    /// # Errors
    /// An unknown name or convention, with the valid ones.
    pub fn with_convention(name: &str, convention: &str) -> Result<Self> {
        crate::named::find(name, Some(convention), &|_| None)
    }

    /// An objective of two chosen terms.
    pub fn custom(invariance: InvarianceConfig, entropy: EntropyConfig) -> Self {
        let (name, convention) = ("custom".into(), "official".into());
        Self { name, convention, temperature: None, invariance, entropy }
    }

    /// Builds the objective.
    ///
    /// # Errors
    /// Settings outside of their range or in contradiction, or an objective without any term.
    pub fn build(&self) -> Result<Box<dyn Objective>> {
        if matches!((&self.invariance, &self.entropy), (InvarianceConfig::None(_), EntropyConfig::None(_))) {
            return Err(Error::Config {
                term: "objective",
                key: "kind",
                value: "none".into(),
                reason: "at least one of invariance and entropy must be there",
            });
        }
        let invariance = self.invariance.build().map_err(|e| e.of_table("invariance"))?;
        let entropy = self.entropy.build().map_err(|e| e.of_table("entropy"))?;
        let entropy = entropy.map(|term| term as Box<dyn Term>);
        crate::named::agree(self)?;
        let composed = crate::Composed::new(&self.name, invariance.into_iter().chain(entropy).collect())?;
        Ok(Box::new(composed.with_config(self.clone())))
    }
}

impl<'de> serde::Deserialize<'de> for ObjectiveConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            name: Option<String>,
            convention: Option<String>,
            temperature: Option<f64>,
            invariance: Option<InvarianceConfig>,
            entropy: Option<EntropyConfig>,
        }
        use serde::de::Error as _;
        let Written { name, convention, temperature, invariance, entropy } =
            Written::deserialize(deserializer)?;
        let preset = match name.as_deref() {
            Some("custom") | None => None,
            Some(name) => {
                let shared = |key: &str| match (key, &entropy) {
                    ("temperature", _) => temperature,
                    ("entropy.temperature", Some(EntropyConfig::Contrastive(c))) => Some(c.temperature),
                    ("entropy.weight", Some(EntropyConfig::SigReg(c))) => Some(c.weight),
                    ("entropy.alpha", Some(EntropyConfig::Vicregl(c))) => Some(c.alpha),
                    _ => None,
                };
                let preset = Self::beside(name, convention.as_deref(), &shared);
                Some(preset.map_err(D::Error::custom)?)
            }
        };
        match (preset, invariance, entropy) {
            (Some(preset), invariance, entropy) => Ok(Self {
                invariance: invariance.unwrap_or(preset.invariance),
                entropy: entropy.unwrap_or(preset.entropy),
                ..preset
            }),
            (None, Some(invariance), Some(entropy)) => Ok(Self {
                convention: convention.unwrap_or_else(|| "official".into()),
                temperature,
                ..Self::custom(invariance, entropy)
            }),
            (None, _, _) => Err(D::Error::custom(
                "an objective needs a `name`, or both [objective.invariance] and [objective.entropy]; \
                 use kind = \"none\" for a term that is not wanted",
            )),
        }
    }
}

macro_rules! kinds {
    ($($kind:literal => $variant:ident),* $(,)?) => {
        /// An entropy term, as data.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(tag = "kind")]
        #[allow(missing_docs)] // The variants are documented at their types.
        #[non_exhaustive]
        pub enum EntropyConfig {
            /// No entropy term.
            #[serde(rename = "none")]
            None(NoEntropy),
            $(#[serde(rename = $kind)] $variant(entropy::$variant),)*
        }

        impl EntropyConfig {
            /// The kinds, as written in a configuration.
            pub const KINDS: &'static [&'static str] = &["none", $($kind),*];

            /// The kind, as written in a configuration.
            pub fn kind(&self) -> &'static str {
                match self {
                    Self::None(_) => "none",
                    $(Self::$variant(_) => $kind,)*
                }
            }

            /// Builds the estimator; `None` for [`EntropyConfig::None`].
            ///
            /// # Errors
            /// Settings outside of their range.
            pub fn build(&self) -> Result<Option<Box<dyn Entropy>>> {
                Ok(match self {
                    Self::None(_) => None,
                    $(Self::$variant(c) => {
                        let term = c.clone().into_term();
                        term.check()?;
                        Some(term)
                    })*
                })
            }

            /// The estimator of a kind, with the defaults of its paper.
            ///
            /// # Errors
            /// An unknown kind, with the nearest valid ones.
            pub fn of_kind(kind: &str) -> Result<Self> {
                Ok(match kind {
                    "none" => Self::None(NoEntropy {}),
                    $($kind => Self::$variant(entropy::$variant::default()),)*
                    _ => return Err(Error::unknown("entropy kind", kind, Self::KINDS)),
                })
            }
        }

        impl<'de> serde::Deserialize<'de> for EntropyConfig {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let (kind, rest) = tagged::read::<D>(deserializer, "entropy kind", Self::KINDS)?;
                match kind.as_str() {
                    $($kind => tagged::finish(rest).map(Self::$variant),)*
                    _ => tagged::finish(rest).map(Self::None),
                }
            }
        }
    };
}

kinds! {
    "vicreg" => Vicreg,
    "gaussian" => Gaussian,
    "hadamard" => Hadamard,
    "logdet" => LogDet,
    "coding-rate" => CodingRate,
    "pairdist" => PairDist,
    "kde" => Kde,
    "uniformity" => Uniformity,
    "vmf" => Vmf,
    "contrastive" => Contrastive,
    "kozachenko-leonenko" => KozachenkoLeonenko,
    "koleo" => KoLeo,
    "renyi" => Renyi,
    "frossl" => Frossl,
    "mec" => Mec,
    "barlow" => Barlow,
    "corinfomax" => CorInfoMax,
    "tico" => Tico,
    "m-spacing" => MSpacing,
    "sigreg" => SigReg,
    "visreg" => VisReg,
    "sliced-normality" => SlicedNormality,
    "total-correlation" => TotalCorrelation,
    "pairdist-full" => PairDistFull,
    "vibcreg" => Vibcreg,
    "vicregl" => Vicregl,
    "mcr2" => Mcr2,
    "mmcr" => Mmcr,
    "matrix-ssl" => MatrixSsl,
    "hydes" => Hydes,
    "swav" => Swav,
    "expansion" => Expansion,
    "radial" => Radial,
    "kernel-discrepancy" => KernelDiscrepancy,
    "rectified" => Rectified,
}

/// The absent entropy term.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NoEntropy {}

/// An invariance term, as data.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InvarianceConfig {
    /// Mean squared error.
    Mse(invariance::Mse),
    /// Negative cosine similarity.
    Cosine(invariance::Cosine),
    /// Huber's error of unit transition.
    SmoothL1(invariance::SmoothL1),
    /// Cosine similarity with weights on the pairs.
    WeightedCosine(invariance::WeightedCosine),
    /// Cosine similarity after whitening.
    Whitened(invariance::Whitened),
    /// Cosine similarity of samples with the same label.
    ClassCosine(invariance::ClassCosine),
    /// No invariance term: regularization alone.
    None(NoInvariance),
}

/// The absent invariance term.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NoInvariance {}

impl InvarianceConfig {
    /// The kinds, as written in a configuration.
    pub const KINDS: &'static [&'static str] =
        &["none", "mse", "cosine", "smooth-l1", "weighted-cosine", "whitened", "class-cosine"];

    /// The kind, as written in a configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mse(_) => "mse",
            Self::Cosine(_) => "cosine",
            Self::SmoothL1(_) => "smooth-l1",
            Self::WeightedCosine(_) => "weighted-cosine",
            Self::Whitened(_) => "whitened",
            Self::ClassCosine(_) => "class-cosine",
            Self::None(_) => "none",
        }
    }

    /// Builds the term; `None` for [`InvarianceConfig::None`].
    ///
    /// # Errors
    /// Settings outside of their range.
    pub fn build(&self) -> Result<Option<Box<dyn Term>>> {
        macro_rules! checked {
            ($config:expr) => {{
                $config.check()?;
                Box::new($config.clone()) as Box<dyn Term>
            }};
        }
        Ok(Some(match self {
            Self::Mse(c) => checked!(c),
            Self::Cosine(c) => checked!(c),
            Self::SmoothL1(c) => checked!(c),
            Self::WeightedCosine(c) => checked!(c),
            Self::Whitened(c) => checked!(c),
            Self::ClassCosine(c) => checked!(c),
            Self::None(_) => return Ok(None),
        }))
    }

    /// Whether it compares views of one network with each other, so that without an entropy term it is least for a
    /// constant: no teacher, no stopped gradient, no whitening.
    pub fn pulls_alone(&self) -> bool {
        let none = invariance::Teacher::None;
        match self {
            Self::Mse(c) => c.teacher == none,
            Self::Cosine(c) => c.teacher == none,
            Self::SmoothL1(c) => c.teacher == none,
            Self::WeightedCosine(_) => true,
            Self::ClassCosine(_) | Self::Whitened(_) | Self::None(_) => false,
        }
    }

    /// The factor in the total.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Mse(c) => c.weight,
            Self::Cosine(c) => c.weight,
            Self::SmoothL1(c) => c.weight,
            Self::WeightedCosine(c) => c.weight,
            Self::Whitened(c) => c.weight,
            Self::ClassCosine(c) => c.weight,
            Self::None(_) => 0.0,
        }
    }
}

impl<'de> serde::Deserialize<'de> for InvarianceConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, rest) = tagged::read::<D>(deserializer, "invariance kind", Self::KINDS)?;
        match kind.as_str() {
            "mse" => tagged::finish::<invariance::Mse, _>(rest).map(Self::Mse),
            "cosine" => tagged::finish(rest).map(Self::Cosine),
            "smooth-l1" => tagged::finish(rest).map(Self::SmoothL1),
            "weighted-cosine" => tagged::finish(rest).map(Self::WeightedCosine),
            "whitened" => tagged::finish(rest).map(Self::Whitened),
            "class-cosine" => tagged::finish(rest).map(Self::ClassCosine),
            _ => tagged::finish(rest).map(Self::None),
        }
    }
}
