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
    /// Whose conventions the preset follows: `official`, `solo-learn` or `lightly`.
    pub convention: String,
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
        crate::named::find(name, None)
    }

    /// The preset of a name in a convention.
    ///
    /// # Errors
    /// An unknown name or convention, with the valid ones.
    pub fn with_convention(name: &str, convention: &str) -> Result<Self> {
        crate::named::find(name, Some(convention))
    }

    /// An objective of two chosen terms.
    pub fn custom(invariance: InvarianceConfig, entropy: EntropyConfig) -> Self {
        Self { name: "custom".into(), convention: "official".into(), invariance, entropy }
    }

    /// Builds the objective.
    ///
    /// # Errors
    /// Settings outside of their range, or an objective without any term.
    pub fn build(&self) -> Result<Box<dyn Objective>> {
        if matches!((&self.invariance, &self.entropy), (InvarianceConfig::None(_), EntropyConfig::None(_))) {
            return Err(Error::Config {
                term: "objective",
                key: "kind",
                value: "none".into(),
                reason: "at least one of invariance and entropy must be there",
            });
        }
        let invariance = self.invariance.build()?;
        let entropy = self.entropy.build()?.map(|term| term as Box<dyn Term>);
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
            invariance: Option<InvarianceConfig>,
            entropy: Option<EntropyConfig>,
        }
        use serde::de::Error as _;
        let written = Written::deserialize(deserializer)?;
        let preset = match written.name.as_deref() {
            Some("custom") | None => None,
            Some(name) => {
                Some(crate::named::find(name, written.convention.as_deref()).map_err(D::Error::custom)?)
            }
        };
        match (preset, written.invariance, written.entropy) {
            (Some(preset), invariance, entropy) => Ok(Self {
                invariance: invariance.unwrap_or(preset.invariance),
                entropy: entropy.unwrap_or(preset.entropy),
                ..preset
            }),
            (None, Some(invariance), Some(entropy)) => Ok(Self {
                convention: written.convention.unwrap_or_else(|| "official".into()),
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
        &["none", "mse", "cosine", "smooth-l1", "weighted-cosine", "whitened"];

    /// Builds the term; `None` for [`InvarianceConfig::None`].
    ///
    /// # Errors
    /// Settings outside of their range.
    pub fn build(&self) -> Result<Option<Box<dyn Term>>> {
        Ok(Some(match self {
            Self::Mse(c) => Box::new(c.clone()),
            Self::Cosine(c) => Box::new(c.clone()),
            Self::SmoothL1(c) => {
                entropy::positive("smooth-l1", "beta", c.beta)?;
                Box::new(c.clone())
            }
            Self::WeightedCosine(c) => {
                entropy::positive("weighted-cosine", "sigma", c.sigma)?;
                Box::new(c.clone())
            }
            Self::Whitened(c) => Box::new(c.clone()),
            Self::None(_) => return Ok(None),
        }))
    }

    /// The factor in the total.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Mse(c) => c.weight,
            Self::Cosine(c) => c.weight,
            Self::SmoothL1(c) => c.weight,
            Self::WeightedCosine(c) => c.weight,
            Self::Whitened(c) => c.weight,
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
            _ => tagged::finish(rest).map(Self::None),
        }
    }
}
