//! The parts of a run, built from its configuration.

use crate::error::of;
use crate::images::damaged;
use crate::online::Online;
use crate::rehearse::rehearse;
use crate::stop::StopIf;
use crate::{Error, Images, Result, RunConfig, device};
use candle_core::{DType, Device};
use infomax_augment::{Augmenter, EvalTransform};
use infomax_core::{BatchSource as _, Collective, Key, Learner as _, Local, Objective, Params};
use infomax_data::{DamagedSamples, EvalLoader, Loader, LoaderConfig, Subset};
use infomax_kernels::{CpuProducts, Single};
use infomax_models::{JointEmbedding, Precision};
use infomax_optim::{Optimizer, Schedule};
use infomax_train::Courses;
use std::sync::Arc;

/// All parts of a run, ready for a [`infomax_train::Trainer`]: what can be refused was refused here, before
/// anything is written.
#[derive(Debug)]
pub struct Assembly {
    /// The configuration, with what follows from the images filled in.
    pub config: RunConfig,
    /// What followed from the images, in words.
    pub notes: Vec<String>,
    /// The images.
    pub images: Images,
    /// Where the run computes.
    pub device: Device,
    /// What the user should know of the choice of the device.
    pub device_warning: Option<String>,
    /// The parameters of the learner.
    pub params: Params,
    /// The model.
    pub learner: JointEmbedding,
    /// The loss.
    pub objective: Box<dyn Objective>,
    /// The optimizer.
    pub optimizer: Box<dyn Optimizer>,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// Weight decay and momenta of each step, where they are not constant.
    pub courses: Courses,
    /// What is measured while training goes on.
    pub online: Online,
    /// What ends the run.
    pub(crate) stop: StopIf,
    /// The batches.
    pub loader: Loader,
    /// The samples that could not be read while the run went on.
    pub damaged: DamagedSamples,
    /// The number of steps of the whole run.
    pub total_steps: u64,
}

impl Assembly {
    /// Builds the parts of a configuration; the loader uses so many threads (0: one a core).
    ///
    /// # Errors
    /// What any part refuses, with the section of its setting.
    pub fn new(config: &RunConfig, workers: usize) -> Result<Self> {
        Self::with_start(config, workers, true, &Local, None)
    }

    /// [`Assembly::new`], of one of several ranks, which share the batches; without `start` the encoder does not start
    /// from `model.init`, since a checkpoint follows. `local_rank` chooses the card of a rank among those of its host.
    pub(crate) fn with_start(
        config: &RunConfig,
        workers: usize,
        start: bool,
        ranks: &dyn Collective,
        local_rank: Option<usize>,
    ) -> Result<Self> {
        let images = Images::open(&config.data)?;
        let mut settled = config.clone();
        let mut notes: Vec<String> =
            settled.fit_batch(images.train.len(), ranks.size()).into_iter().collect();
        notes.extend(settled.settle(&images)?);
        let config = &settled;
        let share = crate::ranks::share(config, ranks.size())?;
        let device::Chosen { device, warning } = device::open_for(&config.train.device, local_rank)?;
        let params = params(config, &device);
        let learner = learner(config, &params)?;
        notes.extend(products(config, &device)?);
        if device.is_cuda() {
            let tf32 = config.train.precision == Precision::Tf32;
            infomax_kernels::CudaProducts { tf32, deterministic: config.train.deterministic }.apply();
        }
        // Weights from a file come in the place of what would be set here.
        if start
            && config.model.init.is_none()
            && let Some(note) = fit_to_images(config, &images, &params)?
        {
            notes.push(note);
        }
        if let (Some(path), true) = (&config.model.init, start) {
            notes.extend(crate::weights::init(config, path, &params)?);
        }
        let objective = config.objective.build().map_err(of("objective"))?;
        let optimizer = infomax_optim::build(&config.optim.optimizer).map_err(of("optim"))?;
        optimizer.check(&params).map_err(of("optim"))?;
        let recipe = config.augment.resolve()?;
        let augmenter = Augmenter::new(&recipe)?;
        // Before the rehearsal, which takes its time and memory: a batch beyond the images is refused here.
        let loader = Loader::new(
            images.train.clone(),
            augmenter.clone(),
            LoaderConfig {
                batch: share,
                key: Key::new(config.train.run.seed).fold_named("data"),
                workers,
                prefetch: config.train.prefetch,
                rank: ranks.rank(),
                ranks: ranks.size(),
                damaged: damaged(&config.data, images.train.len()),
                ..LoaderConfig::default()
            },
        )?;
        let rehearsal = rehearse(config, &images, &recipe, &learner, share)?;
        notes.extend(rehearsal.note);
        let (loader, note) =
            crate::device_views::attach(loader, &config.data, &*images.train, &augmenter, &device)?;
        notes.extend(note);
        let batches = loader.batches_per_epoch();
        let total_steps = config.train.run.total_steps(batches);
        let schedule = config.optim.lr(config.train.batch, batches, total_steps)?;
        let courses = config.optim.courses(&config.model, batches, total_steps)?;
        let online = Online::new(config, &images, &recipe, learner.feature_dim())?;
        let stop = StopIf::new(config, &learner, &online, &rehearsal.parts)?;
        notes.extend(online.notes());
        Ok(Self {
            config: settled,
            notes,
            images,
            device,
            device_warning: warning,
            params,
            learner,
            objective,
            optimizer,
            schedule,
            courses,
            online,
            stop,
            damaged: loader.damaged(),
            loader,
            total_steps,
        })
    }
}

/// Fills in what of a configuration follows from the images, and checks it as far as a run would before its first
/// step, on the CPU: the model takes the views, the objective gets what it needs. Where the images cannot be opened,
/// nothing can follow from them: the reason comes back, and the rest is not checked.
///
/// # Errors
/// What any part refuses, with the section of its setting.
pub fn check(config: &mut RunConfig) -> Result<Option<Error>> {
    let images = match Images::open(&config.data) {
        Ok(images) => images,
        Err(error) => return Ok(Some(error)),
    };
    config.settle(&images)?;
    let params = params(config, &Device::Cpu);
    let learner = learner(config, &params)?;
    if let Some(path) = &config.model.init {
        crate::weights::init(config, path, &params)?;
    }
    let batch = config.train.batch;
    rehearse(config, &images, &config.augment.resolve()?, &learner, batch).map(|_| None)
}

/// Sets the layers of an encoder that come from images, if it has any, from training images as evaluation sees them.
pub(crate) fn fit_to_images(config: &RunConfig, images: &Images, params: &Params) -> Result<Option<String>> {
    /// Their patches are some hundred thousand, for a covariance of a dozen to a hundred pixels.
    const IMAGES: usize = 512;
    let has = |layer: &str| params.get(&format!("encoder.{layer}.weight")).is_some();
    if !has("whiten") && !has("filters") {
        return Ok(None);
    }
    let transform = EvalTransform::for_recipe(&config.augment.resolve()?)?;
    // Evenly through the set: folders come class by class.
    let (len, count) = (images.train.len(), images.train.len().min(IMAGES));
    let some = Subset::new(images.train.clone(), (0..count).map(|i| i * len / count).collect())?;
    let policy = damaged(&config.data, count);
    let loader = EvalLoader::new(Arc::new(some), transform, config.eval.batch.min(IMAGES), &Device::Cpu)?;
    let batches: Vec<_> = loader.with_damaged(policy).map(|batch| Ok(batch?.0)).collect::<Result<_>>()?;
    let some = candle_core::Tensor::cat(&batches, 0)?;
    let count = some.dim(0)?;
    let (height, width) = (some.dim(2)?, some.dim(3)?);
    let refuses = |error: infomax_models::Error| {
        Error::Config(format!(
            "the encoder refuses images of {height}x{width} pixels, from which it takes its filters (augment.size, \
             [model.encoder]): {error}"
        ))
    };
    if infomax_models::whiten_stem(params, "encoder", &some).map_err(refuses)? {
        return Ok(Some(format!("the stem whitens patches by their covariance in {count} training images")));
    }
    let key = Key::new(config.train.run.seed).fold_named("init");
    infomax_models::fit_patches(params, "encoder", &some, key).map_err(refuses)?;
    Ok(Some(format!("the filters start as whitened patches of {count} training images")))
}

fn learner(config: &RunConfig, params: &Params) -> Result<JointEmbedding> {
    JointEmbedding::with_precision(&config.model, config.train.precision, params).map_err(|error| match error
    {
        infomax_models::Error::Precision { .. } => {
            Error::Setting { section: "train", reason: format!("precision: {error}") }
        }
        other => of("model")(other),
    })
}

/// Chooses what multiplies on the CPU, and says what and why where it is not f32 throughout.
fn products(config: &RunConfig, device: &Device) -> Result<Option<String>> {
    let (precision, arithmetic) = (config.train.precision, config.train.arithmetic);
    let fixed = arithmetic != crate::config::Arithmetic::Auto;
    if !device.is_cpu() {
        return Ok(fixed.then(|| "train.arithmetic: a choice of the CPU, without effect here".to_owned()));
    }
    let rounds = precision == Precision::Bf16 && config.model.encoder.rounds_products();
    let single = match precision {
        Precision::Bf16x3 => Single::Split,
        _ if rounds => Single::Rounded,
        _ => Single::Exact,
    };
    let choice = CpuProducts { arithmetic: arithmetic.into(), single };
    choice.apply().map_err(|e| Error::Setting { section: "train", reason: format!("arithmetic: {e}") })?;
    Ok(match (precision, choice.why_exact()) {
        (Precision::Bf16x3, Some(why)) => Some(format!(
            "train.precision = \"bf16x3\": products are taken in f32, which is more exact: {why}"
        )),
        (Precision::Bf16x3, None) => Some(
            "train.precision = \"bf16x3\": products of f32 are three of bf16 on tiles (AMX), where a shape is expected to be \
             faster by them"
                .to_owned(),
        ),
        (Precision::Bf16, Some(why)) if rounds => {
            Some(format!("train.precision = \"bf16\": products are taken in f32, which is more exact: {why}"))
        }
        (Precision::Bf16, None) if rounds => Some(
            "train.precision = \"bf16\": factors of products are rounded to bf16 and multiplied on tiles (AMX), where a shape \
             is expected to be faster by them"
                .to_owned(),
        ),
        (Precision::Bf16, _) => Some(format!("train.precision = \"bf16\": products by {}", choice.in_words())),
        _ if fixed => Some(
            "train.arithmetic: without effect on this run, which multiplies no bf16 (train.precision)".to_owned(),
        ),
        _ => None,
    })
}

/// The parameters of a run, before anything is built: their start is a function of the seed.
pub(crate) fn params(config: &RunConfig, device: &Device) -> Params {
    Params::new(DType::F32, device, Key::new(config.train.run.seed).fold_named("init"))
}
