//! What is measured while training goes on: ranks, a linear probe that learns along, nearest neighbors.

mod linear;

use crate::embed::not_finite;
use crate::evaluate::labeled_rows;
use crate::{Images, Result, RunConfig};
use candle_core::{Device, Tensor};
use infomax_augment::{EvalTransform, Recipe};
use infomax_core::Learner;
use infomax_data::{Dataset, EvalLoader, Subset};
use infomax_eval::geometry::alignment;
use infomax_eval::{FeatureBank, KnnConfig, Resampling, knn, spectrum, uniformity};
use infomax_train::{Seen, Watcher};
use linear::Linear;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The figures of the projections, and behind `feature_` of the features.
const RANKS: [&str; 5] = ["rank_me", "effective_rank", "alpha_req", "uniformity", "alignment"];

/// Measures what `[train.online]` asks for. It draws nothing, and changes nothing of the training.
#[derive(Debug)]
pub struct Online {
    every: u64,
    linear: Option<Linear>,
    neighbors: Option<Neighbors>,
    notes: Vec<String>,
}

impl Online {
    /// Whether a figure, without `feature_` before it, is one of those of `train.online.every`.
    pub(crate) fn measures(name: &str) -> bool {
        RANKS.contains(&name)
    }

    /// # Errors
    /// Images that cannot be chosen from.
    pub(crate) fn new(
        config: &RunConfig,
        images: &Images,
        recipe: &Recipe,
        feature_dim: usize,
    ) -> Result<Self> {
        let online = &config.train.online;
        let mut notes = Vec::new();
        let classes = images.train.classes().len();
        let labeled = classes > 1 && (0..images.train.len()).all(|i| images.train.label(i).is_some());
        let linear = match online.linear {
            true if labeled => Some(Linear::new(feature_dim, classes, online.linear_lr)?),
            true => {
                notes.push(format!(
                    "train.online.linear: left out, since it needs the class of every training image, and {} lacks some",
                    images.train.name()
                ));
                None
            }
            false => None,
        };
        let neighbors = match (online.knn_every, images.no_probe(), &images.test) {
            (0, _, _) => None,
            (_, Some(why), _) => {
                notes.push(format!("train.online.knn_every: left out, since {why}"));
                None
            }
            (every, None, Some(test)) => Some(Neighbors {
                every,
                train: some(&images.labeled, online.knn_images)?,
                test: some(test, online.knn_images)?,
                transform: EvalTransform::for_recipe(recipe)?,
                batch: config.eval.batch,
                config: config.eval.knn,
            }),
            (_, None, None) => None,
        };
        Ok(Self { every: online.every, linear, neighbors, notes })
    }

    /// What was asked for and cannot be measured, in words.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> + '_ {
        self.notes.iter().cloned()
    }
}

impl Watcher for Online {
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.every > 0 {
            names.extend(RANKS.iter().flat_map(|name| [(*name).to_owned(), format!("feature_{name}")]));
        }
        if self.linear.is_some() {
            names.extend(["online_linear".to_owned(), "online_linear_loss".to_owned()]);
        }
        names.extend(self.neighbors.as_ref().map(|_| "online_knn".to_owned()));
        names
    }

    fn watch(&mut self, seen: &Seen<'_>) -> infomax_train::Result<BTreeMap<String, f64>> {
        let mut found = BTreeMap::new();
        let due = |every: u64| every > 0 && seen.step.is_multiple_of(every);
        if let (Some(linear), Some(labels), Some(features)) =
            (&mut self.linear, seen.labels, &seen.embeddings.features)
        {
            let global = seen.embeddings.globals().min(features.len());
            let views = features.iter().take(global).collect::<Vec<_>>();
            let learned = Tensor::cat(&views, 0).map_err(crate::Error::from);
            let learned = learned.and_then(|views| linear.learn(&views, &labels.repeat(global)));
            learned.map_err(other("the online linear probe"))?;
        }
        if due(self.every) {
            found.extend(ranks("", seen.embeddings.projections.as_slice()));
            if let Some(features) = &seen.embeddings.features {
                found.extend(ranks("feature_", features.as_slice()));
            }
            if let Some((accuracy, loss)) = self.linear.as_mut().and_then(Linear::report) {
                found.insert("online_linear".to_owned(), accuracy);
                found.insert("online_linear_loss".to_owned(), loss);
            }
        }
        if let Some(neighbors) = self.neighbors.as_ref().filter(|neighbors| due(neighbors.every)) {
            let accuracy = neighbors.accuracy(seen.learner).map_err(other("the online nearest neighbors"))?;
            found.extend(accuracy.map(|accuracy| ("online_knn".to_owned(), accuracy)));
        }
        Ok(found)
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let state = self.linear.as_ref().map(|linear| linear.state());
        // A state that cannot be read is not kept: the probe starts anew then, and training does not stop for it.
        state.and_then(Result::ok).unwrap_or_default()
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> infomax_train::Result<()> {
        match &mut self.linear {
            Some(linear) if !state.is_empty() => {
                linear.load_state(state).map_err(other("the online linear probe of the checkpoint"))
            }
            _ => Ok(()),
        }
    }
}

/// Ranks of the first view, its uniformity, and its alignment with the second. What has no value (equal rows, too few
/// dimensions for alpha-ReQ) is left out.
fn ranks(prefix: &str, views: &[Tensor]) -> BTreeMap<String, f64> {
    let first = views.first();
    let spectrum = first.and_then(|z| spectrum(z).ok());
    let none = Resampling::none();
    let near = views.get(1).zip(first).and_then(|(b, a)| alignment(a, b, 2.0, &none).ok());
    let values = [
        spectrum.as_ref().map(|s| s.rank_me),
        spectrum.as_ref().map(|s| s.effective_rank),
        spectrum.as_ref().and_then(|s| s.alpha_req),
        first.and_then(|z| uniformity(z).ok()),
        near.map(|estimate| estimate.value),
    ];
    let named = RANKS.iter().map(|name| format!("{prefix}{name}")).zip(values);
    named.filter_map(|(name, value)| Some((name, value?))).collect()
}

/// At most so many images, evenly spread over a data set.
fn some(data: &Arc<dyn Dataset>, most: usize) -> Result<Arc<dyn Dataset>> {
    let (len, count) = (data.len(), data.len().min(most));
    if count == len {
        return Ok(data.clone());
    }
    Ok(Arc::new(Subset::new(data.clone(), (0..count).map(|i| i * len / count).collect())?))
}

/// Nearest neighbors of held-out images among training images, by the features of the moment.
#[derive(Debug)]
struct Neighbors {
    every: u64,
    train: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
    transform: EvalTransform,
    batch: usize,
    config: KnnConfig,
}

impl Neighbors {
    /// `None` where the chosen images have fewer than two classes, or features that are not finite.
    fn accuracy(&self, learner: &dyn Learner) -> Result<Option<f64>> {
        let (train, test) = (self.bank(&self.train, learner)?, self.bank(&self.test, learner)?);
        // A run that diverges ends in its next step, which says where, and leaves a capsule: not in a measurement.
        if not_finite(&train.features)? + not_finite(&test.features)? > 0 {
            return Ok(None);
        }
        let classes: BTreeSet<u32> = train.labels.iter().flatten().copied().collect();
        let classes: BTreeMap<u32, u32> = classes.into_iter().zip(0..).collect();
        let (known, labels) = labeled_rows(&train, &classes)?;
        let (held_out, held_out_labels) = labeled_rows(&test, &classes)?;
        if classes.len() < 2 || held_out_labels.is_empty() {
            return Ok(None);
        }
        Ok(Some(knn(&known, &labels, &held_out, &held_out_labels, &self.config)?.accuracy))
    }

    fn bank(&self, data: &Arc<dyn Dataset>, learner: &dyn Learner) -> Result<FeatureBank> {
        // What cannot be read is left out, as in the evaluation, which names it.
        let policy = infomax_data::Damaged::Replace { most: data.len() };
        let pass = EvalLoader::new(data.clone(), self.transform.clone(), self.batch, &Device::Cpu)?;
        let mut failed = None;
        let batches = pass.with_damaged(policy).map_while(|part| match part {
            Ok(batch) => Some(Ok::<_, infomax_eval::Error>(batch)),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let bank = FeatureBank::of_learner(learner, batches);
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(bank?),
        }
    }
}

fn other(what: &'static str) -> impl Fn(crate::Error) -> infomax_train::Error {
    move |error| infomax_core::Error::other(what, error).into()
}
