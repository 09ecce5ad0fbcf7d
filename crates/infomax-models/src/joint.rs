//! The joint-embedding model: an encoder and its heads, with a momentum teacher where the method has one.

use crate::{
    ConvNext, ConvNextConfig, Error, Patches, PatchesConfig, Precision, Predictor, Projector,
    ProjectorConfig, ResNet, ResNet9, ResNet9Config, ResNetConfig, Result, Scope, Vit, VitConfig,
};
use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Context, Embeddings, Encoder, Learner, LocalMap, Mapped, Params, Pass, View, Views};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An encoder with its heads, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// The widths of the projector's linear layers; empty: the features are the embeddings.
    pub projector: Vec<usize>,
    /// Whether the projector's last layer has a bias (the official VICReg code: no).
    pub projector_last_bias: bool,
    /// Whether the projector's hidden layers are batch-normalized.
    pub projector_norm: bool,
    /// The hidden widths of a predictor (BYOL, SimSiam); empty: none.
    pub predictor: Vec<usize>,
    /// The widths of a second projector, which maps the features of every place of the last map to local embeddings
    /// (VICRegL, arXiv 2210.01571: 512-512-512); empty: none.
    pub local_projector: Vec<usize>,
    /// The momentum of a teacher that follows encoder and projector, at the start (BYOL: 0.996); it rises to 1
    /// along half a cosine. `"none"`: no teacher.
    #[serde(with = "or_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<f64>"))]
    pub teacher_momentum: Option<f64>,
    /// The weights that the encoder starts from: a safetensors file with the names of torchvision or timm or of this
    /// project, or a folder with a `model.safetensors`. Absent: drawn at random. Whoever builds the model reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<std::path::PathBuf>,
}

/// A number, or the word `none`: what a recipe sets can be taken away again.
mod or_none {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Word(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_f64(*value),
            None => to.serialize_str("none"),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match Written::deserialize(from) {
            Ok(Written::Number(value)) => Ok(Some(value)),
            Ok(Written::Word(word)) if word == "none" => Ok(None),
            _ => Err(D::Error::custom("a number or the word \"none\" is wanted")),
        }
    }
}

/// An encoder, as data: its kind and the settings of that kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum EncoderConfig {
    /// A residual network.
    ResNet(ResNetConfig),
    /// A vision transformer.
    Vit(VitConfig),
    /// A ConvNeXt.
    ConvNext(ConvNextConfig),
    /// The small residual network of nine layers that trains fast on 32 pixels.
    ResNet9(ResNet9Config),
    /// A single layer of whitened patches, for a few minutes.
    Patches(PatchesConfig),
}

impl EncoderConfig {
    /// The kinds, as written in a configuration.
    pub const KINDS: &'static [&'static str] = &["resnet", "vit", "convnext", "resnet9", "patches"];

    /// The kind, as written in a configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "resnet",
            Self::ResNet9(_) => "resnet9",
            Self::Patches(_) => "patches",
            Self::Vit(_) => "vit",
            Self::ConvNext(_) => "convnext",
        }
    }

    /// Builds the encoder with parameters below a scope. In bf16 vision transformers and ConvNeXts are built as for f32, see
    /// [`Precision::Bf16`]; a layer of patches has no bf16.
    ///
    /// # Errors
    /// A configuration out of range, names that are taken, a precision that the kind has not.
    pub fn build(&self, precision: Precision, scope: impl Into<Scope>) -> Result<Box<dyn Encoder>> {
        let scope = scope.into();
        if precision == Precision::Bf16 && matches!(self, Self::Patches(_)) {
            return Err(Error::Precision {
                precision: "bf16",
                with: format!("with an encoder of kind `{}`", self.kind()),
                reason: "residual networks, vision transformers and ConvNeXts have it; use the precision f32",
            });
        }
        Ok(match self {
            Self::ResNet(cfg) => Box::new(ResNet::with_precision(cfg, precision, scope)?),
            Self::ResNet9(cfg) => Box::new(ResNet9::with_precision(cfg, precision, scope)?),
            Self::Vit(cfg) => Box::new(Vit::new(cfg, scope)?),
            Self::ConvNext(cfg) => Box::new(ConvNext::new(cfg, scope)?),
            Self::Patches(cfg) => Box::new(Patches::new(cfg, scope)?),
        })
    }

    /// Whether bf16 is a matter of its products alone, see [`Precision::Bf16`].
    pub fn rounds_products(&self) -> bool {
        matches!(self, Self::Vit(_) | Self::ConvNext(_))
    }

    /// The shapes of all parameters and running statistics, by their names; nothing is drawn.
    ///
    /// # Errors
    /// A configuration out of range.
    pub fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>> {
        let params = Params::zeros(DType::F32, &Device::Cpu);
        self.build(Precision::F32, params.root())?;
        Ok(params.all().into_iter().map(|(name, param)| (name, param.var.dims().to_vec())).collect())
    }

    /// The same network without stochastic depth and dropout: what a teacher is.
    #[must_use]
    pub fn without_drops(&self) -> Self {
        let mut config = self.clone();
        match &mut config {
            Self::Vit(cfg) => (cfg.drop_path, cfg.dropout) = (0.0, 0.0),
            Self::ConvNext(cfg) => cfg.drop_path = 0.0,
            Self::ResNet(_) | Self::ResNet9(_) | Self::Patches(_) => {}
        }
        config
    }
}

impl ModelConfig {
    /// A projector of these widths, with the settings that all projectors of the model share.
    fn head(&self, dims: &[usize]) -> ProjectorConfig {
        ProjectorConfig {
            dims: dims.to_vec(),
            last_bias: self.projector_last_bias,
            norm: self.projector_norm,
        }
    }
}

impl Default for EncoderConfig {
    /// The standard ResNet-18 with the stem for small images.
    fn default() -> Self {
        Self::ResNet(ResNetConfig::default())
    }
}

impl Default for ModelConfig {
    /// ResNet-18 with the stem for small images, and a VICReg projector of 512-512-512.
    fn default() -> Self {
        Self {
            encoder: EncoderConfig::default(),
            projector: vec![512, 512, 512],
            projector_last_bias: false,
            projector_norm: true,
            predictor: Vec::new(),
            local_projector: Vec::new(),
            teacher_momentum: None,
            init: None,
        }
    }
}

/// An encoder with a projector, and optionally a predictor, a projector of local features and a momentum teacher.
///
/// Parameters are named `encoder.*`, `projector.*`, `predictor.*`, `local_projector.*`; the teacher's `teacher.encoder.*` and
/// `teacher.projector.*` are buffers. In training each view passes the network on its own, so that batch
/// statistics are those of one view, as in the official VICReg code. A teacher has neither stochastic depth nor
/// dropout, as in DINO.
#[derive(Debug)]
pub struct JointEmbedding {
    params: Params,
    student: Branch,
    predictor: Option<Predictor>,
    local: Option<Projector>,
    teacher: Option<Teacher>,
}

impl JointEmbedding {
    /// Builds the model and registers its parameters in `params`, which should be empty.
    ///
    /// # Errors
    /// A configuration out of range, or names that are taken.
    pub fn new(cfg: &ModelConfig, params: &Params) -> Result<Self> {
        Self::with_precision(cfg, Precision::F32, params)
    }

    /// [`JointEmbedding::new`] with an encoder that trains with `precision`. Heads compute in the type of the
    /// parameters, and so do [`Learner::features`].
    ///
    /// # Errors
    /// As [`JointEmbedding::new`]; bf16 for a layer of patches, or with parameters that are not f32 on the CPU or CUDA (of
    /// vision transformers and ConvNeXts: on the CPU); tf32 with others than f32 on CUDA.
    pub fn with_precision(cfg: &ModelConfig, precision: Precision, params: &Params) -> Result<Self> {
        if matches!(precision, Precision::Tf32 | Precision::Bf16x3) {
            precision.check_at(params.dtype(), params.device())?;
        }
        if precision == Precision::Bf16 && cfg.encoder.rounds_products() {
            precision.check_at(params.dtype(), params.device())?;
            if !params.device().is_cpu() {
                return Err(Error::Precision {
                    precision: "bf16",
                    with: format!(
                        "with an encoder of kind `{}` on {:?}",
                        cfg.encoder.kind(),
                        params.device().location()
                    ),
                    reason: "there only residual networks have it; use the precision f32 or tf32",
                });
            }
        }
        let root = Scope::from(params.root());
        let student = Branch::new(cfg, precision, &root)?;
        let predictor = match cfg.predictor.as_slice() {
            [] => None,
            hidden => Some(Predictor::new(student.dim(), hidden, root.pp("predictor"))?),
        };
        let local = match cfg.local_projector.as_slice() {
            [] => None,
            dims => {
                let head = cfg.head(dims);
                let inputs = student.encoder.feature_dim();
                Some(Projector::new(inputs, &head, root.pp("local_projector"))?)
            }
        };
        let teacher = match cfg.teacher_momentum {
            None => None,
            Some(momentum) if (0.0..=1.0).contains(&momentum) => {
                let cfg = ModelConfig { encoder: cfg.encoder.without_drops(), ..cfg.clone() };
                let branch = Branch::new(&cfg, precision, &Scope::frozen(params.root().pp("teacher")))?;
                Some(Teacher { branch, pairs: pairs(params)?, momentum, set: None })
            }
            Some(other) => return Err(Error::config("teacher_momentum", other, "must be in 0..=1")),
        };
        Ok(Self { params: params.clone(), student, predictor, local, teacher })
    }

    /// The dimension of the embeddings.
    pub fn embedding_dim(&self) -> usize {
        self.student.dim()
    }
}

impl Learner for JointEmbedding {
    fn params(&self) -> &Params {
        &self.params
    }

    fn encoder(&self) -> &dyn Encoder {
        self.student.encoder.as_ref()
    }

    fn embed(&self, views: &[View], pass: &Pass<'_>) -> infomax_core::Result<Embeddings> {
        let globals = views.iter().take_while(|view| view.is_global()).count();
        if globals == 0 || views[globals..].iter().any(View::is_global) {
            return Err(
                Error::views("global views come first, and there is at least one", views.len()).into()
            );
        }
        let mut features = Vec::with_capacity(views.len());
        let mut projections = Vec::with_capacity(views.len());
        let mut maps = Vec::new();
        for (v, view) in views.iter().enumerate() {
            let pass = pass.fold_in(v as u64);
            let (y, z) = match &self.local {
                None => self.student.forward(&view.values, &pass)?,
                Some(head) => {
                    let mapped = self.student.encoder.forward_mapped(&view.values, &pass)?;
                    let mapped = mapped.ok_or_else(|| {
                        Error::config("local_projector", "set", "this encoder has no map of local features")
                    })?;
                    maps.push(local_map(head, &mapped, view, &pass)?);
                    let z = self.student.project(&mapped.features, &pass)?;
                    (mapped.features, z)
                }
            };
            features.push(y);
            projections.push(z);
        }
        let mut projections = Views::new(projections)?;
        let predictions = match &self.predictor {
            Some(predictor) => Some(projections.map(|z| Ok(predictor.forward(z, pass)?))?),
            None => None,
        };
        let targets = match &self.teacher {
            Some(teacher) => {
                let seen = views[..globals].iter().enumerate();
                let targets = seen.map(|(v, view)| {
                    let pass = Pass { key: pass.key.fold_named("teacher").fold_in(v as u64), ..*pass };
                    Ok(teacher.branch.forward(&view.values, &pass)?.1.detach())
                });
                Some(Views::new(targets.collect::<Result<_>>()?)?)
            }
            None => None,
        };
        if !maps.is_empty() {
            projections = projections.with_local(maps)?;
        }
        let features = Some(Views::new(features)?);
        // Two views of one kind are not told apart: losses keep their own convention then.
        let globals = (globals < views.len()).then_some(globals);
        Ok(Embeddings { predictions, targets, features, globals, ..Embeddings::new(projections) })
    }

    fn batch_dependence(&self) -> Option<String> {
        const STATISTIC: &str = ".running_mean";
        let names = self.params.all().into_iter().filter_map(|(name, _)| {
            let layer = name.strip_suffix(STATISTIC)?;
            Some(layer.to_owned())
        });
        let layers: Vec<String> = names.collect();
        let first = layers.first()?;
        let more = match layers.len() - 1 {
            0 => String::new(),
            1 => " and one more layer".to_owned(),
            more => format!(" and {more} more layers"),
        };
        Some(format!("`{first}`{more} normalize by the statistics of the batch"))
    }

    fn teacher_momentum(&self, ctx: &Context<'_>) -> Option<f64> {
        self.teacher.as_ref().map(|teacher| 1.0 - teacher.away(ctx))
    }

    fn set_teacher_momentum(&mut self, momentum: f64) -> infomax_core::Result<()> {
        let refuse = |reason: &str| Err(infomax_core::Error::config("teacher_momentum", momentum, reason));
        match &mut self.teacher {
            _ if !(0.0..=1.0).contains(&momentum) => refuse("must be in 0..=1"),
            None => refuse("this model has no teacher; set model.teacher_momentum"),
            Some(teacher) => {
                teacher.set = Some(momentum);
                Ok(())
            }
        }
    }

    fn after_step(&mut self, ctx: &Context<'_>) -> infomax_core::Result<()> {
        match &self.teacher {
            Some(teacher) => Ok(teacher.follow(ctx)?),
            None => Ok(()),
        }
    }
}

/// Encoder and projector.
#[derive(Debug)]
struct Branch {
    encoder: Box<dyn Encoder>,
    projector: Option<Projector>,
}

impl Branch {
    fn new(cfg: &ModelConfig, precision: Precision, scope: &Scope) -> Result<Self> {
        let encoder = cfg.encoder.build(precision, scope.pp("encoder")).map_err(|e| e.below("encoder"))?;
        let projector = if cfg.projector.is_empty() {
            None
        } else {
            Some(Projector::new(encoder.feature_dim(), &cfg.head(&cfg.projector), scope.pp("projector"))?)
        };
        Ok(Self { encoder, projector })
    }

    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Tensor)> {
        let y = self.encoder.forward(xs, pass)?;
        let z = self.project(&y, pass)?;
        Ok((y, z))
    }

    fn project(&self, features: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        match &self.projector {
            Some(projector) => projector.forward(features, pass),
            None => Ok(features.clone()),
        }
    }

    fn dim(&self) -> usize {
        self.projector.as_ref().map_or_else(|| self.encoder.feature_dim(), Projector::dim)
    }
}

/// The local embeddings of a view, with the places of their centers in the image where it is known how the view was
/// cut: in parts of the longer side, so that both axes have one unit.
fn local_map(
    head: &Projector,
    mapped: &Mapped,
    view: &View,
    pass: &Pass<'_>,
) -> infomax_core::Result<LocalMap> {
    let (batch, patches, _) = mapped.map.dims3()?;
    let values = head.forward(&mapped.map.flatten(0, 1)?, pass)?.reshape((batch, patches, head.dim()))?;
    let (rows, columns) = mapped.grid;
    let places = view.cuts.as_ref().map(|cuts| {
        let mut places = Vec::with_capacity(2 * batch * patches);
        for cut in cuts.iter() {
            let (width, height) = (f64::from(cut.image.0), f64::from(cut.image.1));
            let longer = width.max(height).max(1.0);
            for place in 0..patches {
                let center = |at: usize, of: usize| (at as f64 + 0.5) / of as f64;
                let (x, y) =
                    cut.source_point(center(place % columns, columns), center(place / columns, rows));
                places.extend([(x * width / longer) as f32, (y * height / longer) as f32]);
            }
        }
        Tensor::from_vec(places, (cuts.len(), patches, 2), values.device())
    });
    LocalMap::new(values, places.transpose()?)
}

/// A moving average of the student (BYOL, arXiv:2006.07733): trained parameters follow it, running statistics
/// come from the teacher's own batches.
#[derive(Debug)]
struct Teacher {
    branch: Branch,
    /// The teacher's variable and the student's that it follows.
    pairs: Vec<(Var, Var)>,
    /// The momentum at the start of its own course.
    momentum: f64,
    /// The momentum that was set in the place of that course.
    set: Option<f64>,
}

impl Teacher {
    /// `1 - m` for the step of `ctx`: as it was set, or with `m` rising to 1 along a cosine where the length of the run
    /// is known.
    fn away(&self, ctx: &Context<'_>) -> f64 {
        if let Some(momentum) = self.set {
            return 1.0 - momentum;
        }
        let progress = match ctx.total_steps {
            Some(total) if total > 0 => (ctx.step as f64 / total as f64).min(1.0),
            _ => 0.0,
        };
        (1.0 - self.momentum) * ((std::f64::consts::PI * progress).cos() + 1.0) / 2.0
    }

    /// `t <- m t + (1 - m) s` in place.
    fn follow(&self, ctx: &Context<'_>) -> Result<()> {
        let away = self.away(ctx);
        for (teacher, student) in &self.pairs {
            infomax_kernels::update::lerp(teacher.as_tensor(), away, &student.as_detached_tensor())?;
        }
        Ok(())
    }
}

/// Starts the teacher as a copy of the student and pairs their trained parameters.
fn pairs(params: &Params) -> Result<Vec<(Var, Var)>> {
    let mut pairs = Vec::new();
    for (name, student) in params.trainable() {
        if let Some(teacher) = params.get(&format!("teacher.{name}")) {
            teacher.var.set(&student.var.as_detached_tensor())?;
            pairs.push((teacher.var, student.var));
        }
    }
    Ok(pairs)
}
