//! What a run is made of, in words: what its checkpoints say of it.

use crate::{Images, Result, RunConfig};
use infomax_data::Dataset;
use infomax_train::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What `model.safetensors` of a checkpoint says of itself: the metadatum [`infomax_train::METADATA`], as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelCard {
    /// The version of `infomax` that wrote it.
    pub infomax: String,
    /// The name of the objective.
    pub method: String,
    /// The architecture: the section `[model]` of the configuration.
    pub model: infomax_models::ModelConfig,
    /// The width of the encoder's features.
    pub feature_dim: usize,
    /// The channels, height and width of the input that evaluation uses.
    pub input: (usize, usize, usize),
    /// The mean that is taken from each channel of values in 0..1.
    pub mean: Vec<f32>,
    /// What each channel is divided by then.
    pub std: Vec<f32>,
    /// The name of the data set.
    pub data: String,
    /// The number of images that the run trains on.
    pub images: usize,
}

impl ModelCard {
    /// The card of a run.
    pub(crate) fn new(config: &RunConfig, images: &Images, feature_dim: usize) -> Result<Self> {
        let recipe = config.augment.resolve()?;
        let input = infomax_augment::EvalTransform::for_recipe(&recipe)?.output();
        Ok(Self {
            infomax: env!("CARGO_PKG_VERSION").to_owned(),
            method: config.objective.name.clone(),
            model: config.model.clone(),
            feature_dim,
            input,
            mean: recipe.mean,
            std: recipe.std,
            data: images.name.clone(),
            images: images.train.len(),
        })
    }

    /// The card of a checkpoint; `None` if it has none or one of another version.
    ///
    /// # Errors
    /// A damaged file.
    pub fn of(checkpoint: &infomax_train::Checkpoint) -> Result<Option<Self>> {
        Ok(checkpoint.description()?.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

/// Sections and keys without influence on the bits of training, and paths, which may move.
const IRRELEVANT: [&str; 10] = [
    "eval.",
    "data.path",
    "data.cache_mib",
    "data.views",
    "train.prefetch",
    "train.device",
    "train.log",
    "train.keep_",
    "train.stop_if",
    "train.online.",
];

/// What the checkpoints of a run remember of it.
pub(crate) fn identity(
    config: &RunConfig,
    images: &Images,
    feature_dim: usize,
    ranks: usize,
) -> Result<Identity> {
    let samples = format!("{} (fingerprint {:08x})", images.train.len(), fingerprint(&*images.train));
    let fixed = BTreeMap::from([
        ("the training images".to_owned(), samples),
        ("train.batch".to_owned(), config.train.batch.to_string()),
    ]);
    let table = toml::Table::try_from(config)
        .map_err(|e| crate::Error::Config(format!("this configuration is no TOML: {e}")))?;
    let leaves = crate::config::leaves(&table).into_iter();
    let mut settings: BTreeMap<String, String> =
        leaves.map(|(path, value)| (path, value.to_string())).collect();
    settings
        .retain(|key, _| !IRRELEVANT.iter().any(|start| key.starts_with(start)) && !fixed.contains_key(key));
    if ranks > 1 {
        settings.insert("ranks".to_owned(), ranks.to_string());
    }
    let card = serde_json::to_string(&ModelCard::new(config, images, feature_dim)?)
        .map_err(|e| crate::Error::io("encode", Path::new("model.safetensors"), e.into()))?;
    Ok(Identity { fixed, settings, model: card })
}

impl Images {
    /// What these images are, in 64 bits: of training and held-out ones their numbers, their labels, the names of classes and
    /// the pixels of some. Where a data set lies does not matter; a file that was replaced by another image of the same
    /// class may go unseen.
    pub fn fingerprint(&self) -> u64 {
        let held_out = self.test.as_ref().map_or(0, |test| fingerprint(&**test));
        u64::from(fingerprint(&*self.train)) << 32 | u64::from(held_out)
    }
}

/// CRC-32 of all labels, the names of the classes and the pixels of a few images. Where a data set lies does not
/// matter; a file that was replaced by another image of the same class may go unseen.
fn fingerprint(data: &dyn Dataset) -> u32 {
    const LOOK_AT: usize = 8;
    let mut hash = crc32fast::Hasher::new();
    hash.update(&(data.len() as u64).to_le_bytes());
    for class in data.classes() {
        hash.update(class.as_bytes());
        hash.update(&[0]);
    }
    for index in 0..data.len() {
        hash.update(&data.label(index).map_or(u64::MAX, u64::from).to_le_bytes());
    }
    let step = (data.len() / LOOK_AT).max(1);
    for index in (0..data.len()).step_by(step).take(LOOK_AT) {
        match data.image(index) {
            Ok(image) => {
                hash.update(&(image.width() as u64).to_le_bytes());
                hash.update(image.data());
            }
            // A damaged image is replaced in training; it is as damaged the next time.
            Err(_) => hash.update(b"damaged"),
        }
    }
    hash.finalize()
}
