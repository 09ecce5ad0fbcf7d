//! Trained encoders, kept by the hash of their configuration.

use crate::ctx::{Ctx, Preset};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Key, Learner as _, Params, Pass, View};
use infomax_losses::ObjectiveConfig;
use infomax_models::{ConvNextConfig, EncoderConfig, JointEmbedding, ResNetConfig, VitConfig};
use infomax_run::{Images, Options, Plan, RunConfig, RunObserver, config, device, pretrain_with};
use infomax_train::{Checkpoint, HealthState, Needs, Observer, Outcome, RunDir};
use std::path::PathBuf;
use std::sync::Arc;

/// The architecture of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backbone {
    ResNet,
    Vit,
    ConvNext,
}

/// A method: an objective on an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// The name in tables.
    pub(crate) name: &'static str,
    /// The name of its objective.
    pub(crate) objective: &'static str,
    pub(crate) backbone: Backbone,
}

/// The methods of the paper's table, three families of three, own entropy term first.
pub(crate) const FAMILIES: [[Method; 3]; 3] = [
    [of("vicreg"), of("vicreg-logdet"), of("vicreg-pairdist-kl")],
    [of("simclr"), of("simclr-logdet"), of("simclr-pairdist")],
    [of("byol"), of("byol-logdet"), of("byol-pairdist")],
];

/// Later comers.
pub(crate) const LATER: [Method; 3] = [of("barlow-twins"), of("mec"), of("lejepa")];

/// VICReg on a vision transformer, whose GELU is not piecewise affine.
pub(crate) const VIT: Method = Method { name: "vicreg-vit", objective: "vicreg", backbone: Backbone::Vit };

/// VICReg on a ConvNeXt.
pub(crate) const CONVNEXT: Method =
    Method { name: "vicreg-convnext", objective: "vicreg", backbone: Backbone::ConvNext };

/// A method on a residual network.
pub(crate) const fn of(objective: &'static str) -> Method {
    Method { name: objective, objective, backbone: Backbone::ResNet }
}

/// All methods of the table and the later comers.
pub(crate) fn all_methods() -> Vec<Method> {
    FAMILIES.iter().flatten().chain(&LATER).copied().collect()
}

/// A trained encoder with its run.
pub(crate) struct Trained {
    pub(crate) method: Method,
    pub(crate) seed: u64,
    pub(crate) run: PathBuf,
    pub(crate) config: RunConfig,
    pub(crate) model: Model,
    pub(crate) collapsed: bool,
}

/// A model with weights.
pub(crate) struct Model {
    learner: JointEmbedding,
    device: Device,
}

impl Model {
    /// The encoder's features `(B, D)` in f32 on the CPU.
    pub(crate) fn features(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(self.learner.features(&xs.to_device(&self.device)?)?.to_device(&Device::Cpu)?)
    }

    /// The same with its gradient.
    pub(crate) fn differentiable(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(self.learner.encoder().forward(&xs.to_device(&self.device)?, &Pass::eval())?)
    }

    /// The projections, on which the objective acts, on the CPU.
    pub(crate) fn projections(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = xs.to_device(&self.device)?;
        let z = self.learner.embed(&[View::global(xs)], &Pass::eval())?;
        Ok(z.projections[0].detach().to_device(&Device::Cpu)?)
    }
}

/// A model at its random start, or at a checkpoint.
pub(crate) fn model(config: &RunConfig, checkpoint: Option<&Checkpoint>) -> Result<Model> {
    let device = device::open(&config.train.device)?.device;
    let params = Params::new(DType::F32, &device, Key::new(config.train.run.seed).fold_named("init"));
    let learner = JointEmbedding::new(&config.model, &params)?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.load_model(&params)?;
    }
    Ok(Model { learner, device })
}

impl Trained {
    /// The kept checkpoints by step, ascending, without the random start.
    pub(crate) fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.run.join("checkpoints");
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::io("read", &folder, e))?;
        let mut steps = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io("read", &folder, e))?.path();
            let step = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("step-"));
            steps.extend(step.and_then(|s| s.parse().ok()).map(|step| (step, path)));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// The model of a checkpoint.
    pub(crate) fn at(&self, path: &std::path::Path) -> Result<Model> {
        model(&self.config, Some(&Checkpoint::open_for(path, Needs::Model)?))
    }
}

/// The images of the session, opened once, with the configuration that all encoders start from.
pub(crate) fn images(ctx: &mut Ctx<'_>) -> Result<(RunConfig, Images)> {
    if let Some(known) = &ctx.images {
        return Ok(known.clone());
    }
    let mut config = base(ctx)?;
    if ctx.settings.data.is_some() {
        for line in fit(&mut config)? {
            (ctx.say)(&line);
        }
    }
    let images = Images::open(&config.data)?;
    config.settle(&images)?;
    ctx.images = Some((config.clone(), images.clone()));
    Ok((config, images))
}

/// Takes all images where there are fewer than a preset asks for, and a batch that they fill.
fn fit(config: &mut RunConfig) -> Result<Vec<String>> {
    let mut all = config.data.clone();
    (all.train_images, all.test_images) = (0, 0);
    let whole = Images::open(&all)?;
    let (train, test) = (whole.train.len(), whole.test.as_ref().map_or(0, |test| test.len()));
    let mut said = Vec::new();
    for (asked, there, what) in
        [(&mut config.data.train_images, train, "training"), (&mut config.data.test_images, test, "test")]
    {
        if *asked > there {
            said.push(format!(
                "  {there} {what} images are there, where the preset takes {asked}: all are taken"
            ));
            *asked = 0;
        }
    }
    if config.train.batch > train {
        said.push(format!("  batches of {train} images, where the preset takes {}", config.train.batch));
        config.train.batch = train;
    }
    Ok(said)
}

/// What all encoders of a preset share.
fn base(ctx: &Ctx<'_>) -> Result<RunConfig> {
    let preset = ctx.settings.preset;
    let mut config = match &ctx.settings.data {
        None => RunConfig::default(),
        Some(path) => {
            let mut config = RunConfig::default().for_folder();
            config.data.source = config::Source::Folder;
            let absolute = std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
            config.data.path = Some(absolute);
            config
        }
    };
    config.data.train_images = ctx.pick(96, 2_500, 0);
    config.data.test_images = ctx.pick(64, 1_000, 0);
    if ctx.settings.data.is_none() {
        config.data.shapes.size = ctx.pick(16, 32, 32);
        config.augment.size = Some(ctx.pick(12, 24, 32));
        if preset == Preset::Full {
            (config.data.train_images, config.data.test_images) = (50_000, 10_000);
        }
    }
    config.train.batch = ctx.pick(32, 125, 256);
    config.train.run.epochs = ctx.pick(2, 16, 200);
    config.train.run.log_every = 10;
    config.train.run.checkpoint_every_epochs = ctx.pick(1, 4, 20);
    // All of them: experiments look at the way, too.
    config.train.run.keep_checkpoints = 1_000;
    config.model.projector = vec![ctx.pick(16, 64, 2048); if preset == Preset::Full { 3 } else { 2 }];
    config.optim.schedule.lr = ctx.pick(2e-3, 2e-3, 1e-3);
    config.optim.schedule.warmup_epochs = ctx.pick(0.5, 1.0, 10.0);
    config.eval.batch = 250;
    Ok(config)
}

fn configuration(ctx: &mut Ctx<'_>, method: &Method, seed: u64) -> Result<RunConfig> {
    let (mut config, _) = images(ctx)?;
    let recipe = config.augment.resolve()?;
    let side = recipe.views.iter().map(|view| view.size).max().unwrap_or(32);
    let in_channels = recipe.mean.len();
    config.model.encoder = match method.backbone {
        Backbone::ResNet => EncoderConfig::ResNet(match ctx.settings.preset {
            Preset::Smoke => ResNetConfig { blocks: vec![1, 1], width: 4, in_channels, ..Default::default() },
            Preset::Small => {
                ResNetConfig { blocks: vec![1, 1, 1], width: 12, in_channels, ..Default::default() }
            }
            Preset::Full => ResNetConfig { in_channels, ..Default::default() },
        }),
        Backbone::Vit => EncoderConfig::Vit(VitConfig {
            image: side,
            patch: if side.is_multiple_of(4) { 4 } else { 1 },
            width: ctx.pick(16, 48, 192),
            depth: ctx.pick(1, 3, 12),
            heads: ctx.pick(2, 3, 3),
            in_channels,
            ..VitConfig::default()
        }),
        Backbone::ConvNext => EncoderConfig::ConvNext(ConvNextConfig { in_channels, ..Default::default() }),
    };
    config.objective = ObjectiveConfig::named(method.objective)?;
    if method.objective.starts_with("byol") {
        config.model.predictor = vec![ctx.pick(16, 64, 2048)];
        // Few steps: the teacher has to follow faster than in the long runs that 0.996 was chosen for.
        config.model.teacher_momentum = Some(ctx.pick(0.9, 0.98, 0.996));
    }
    config.train.run.seed = seed;
    (ctx.settings.adjust)(&mut config);
    Ok(config)
}

/// 64 bits of FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Trains an encoder, or goes on with it, or takes it as it is: the run's own checks say whether its images are the same.
pub(crate) fn trained(ctx: &mut Ctx<'_>, method: &Method, seed: u64) -> Result<Trained> {
    let config = configuration(ctx, method, seed)?;
    let text = config.to_toml()?;
    let mut named = text.clone();
    // The version, too: another one may train otherwise.
    named += env!("CARGO_PKG_VERSION");
    // The images: a folder may hold others the next time.
    named += &format!(" {:016x}", images(ctx)?.1.fingerprint());
    let folder = ctx.settings.out.join("encoders");
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let run = folder.join(format!("{}-s{seed}-{:016x}", method.name, hash(&named)));
    let resume = run.join("config.toml").exists();
    if resume && RunConfig::of_run(&run)? != config {
        return Err(Error::Config(format!(
            "{} holds another configuration under the same hash: remove that folder",
            run.display()
        )));
    }
    let title = format!("{} seed {seed}", method.name);
    if ctx.configurations.iter().all(|(name, _)| name != method.name) {
        ctx.configurations.push((method.name.to_owned(), text));
    }
    let options = Options {
        run: Some(run.clone()),
        resume,
        evaluate: false,
        workers: ctx.settings.workers,
        stop: Arc::clone(&ctx.settings.stop),
        ..Options::default()
    };
    let mut watch = Watch { say: &mut *ctx.say, title, steps: 0, said: false };
    let outcome = pretrain_with(&config, &options, &mut watch)?;
    let collapsed = match outcome.training {
        Outcome::Finished { health, .. } => {
            watch.finished();
            health.state == HealthState::Collapsed
        }
        // Nothing ends these runs early but a request to stop.
        Outcome::Interrupted { .. } | Outcome::Stopped { .. } => return Err(Error::Interrupted),
    };
    let found =
        RunDir::latest_model(&run)?.ok_or_else(|| infomax_run::Error::NoCheckpoint { path: run.clone() })?;
    let model = model(&config, Some(&found.checkpoint))?;
    Ok(Trained { method: *method, seed, run, config, model, collapsed })
}

/// One line when a training starts, and one when it ends.
struct Watch<'a> {
    say: &'a mut dyn FnMut(&str),
    title: String,
    steps: u64,
    said: bool,
}

impl Watch<'_> {
    fn finished(&mut self) {
        if self.said {
            (self.say)(&format!("  trained {}", self.title));
        }
    }
}

impl Observer for Watch<'_> {}

impl RunObserver for Watch<'_> {
    fn on_warning(&mut self, line: &str) {
        (self.say)(&format!("  {}: warning: {line}", self.title));
    }

    fn on_start(&mut self, plan: &Plan) {
        self.steps = plan.steps;
        self.said = plan.done < plan.steps;
        if self.said {
            (self.say)(&format!("  training {}: steps {} to {}", self.title, plan.done, plan.steps));
        }
    }
}
