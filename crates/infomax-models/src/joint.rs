//! The joint-embedding model: an encoder and its heads, with a momentum teacher where the method has one.

use crate::{
    ConvNext, ConvNextConfig, Error, Precision, Predictor, Projector, ProjectorConfig, ResNet, ResNetConfig,
    Result, Scope, Vit, VitConfig,
};
use candle_core::{Tensor, Var};
use infomax_core::{Context, Embeddings, Encoder, Learner, Mode, Params, Views};
use serde::{Deserialize, Serialize};

/// The `[model]` section of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The encoder: a residual network, unless `vit` or `convnext` names another one.
    pub encoder: ResNetConfig,
    /// A vision transformer in place of the residual network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vit: Option<VitConfig>,
    /// A ConvNeXt in place of the residual network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convnext: Option<ConvNextConfig>,
    /// The widths of the projector's linear layers; empty: the features are the embeddings.
    pub projector: Vec<usize>,
    /// Whether the projector's last layer has a bias (the official VICReg code: no).
    pub projector_last_bias: bool,
    /// Whether the projector's hidden layers are batch-normalised.
    pub projector_norm: bool,
    /// The hidden widths of a predictor (BYOL, SimSiam); empty: none.
    pub predictor: Vec<usize>,
    /// The momentum of a teacher that follows encoder and projector (BYOL: 0.996); absent: no teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_momentum: Option<f64>,
}

impl Default for ModelConfig {
    /// ResNet-18 with the stem for small images, and a VICReg projector of 512-512-512.
    fn default() -> Self {
        Self {
            encoder: ResNetConfig::default(),
            vit: None,
            convnext: None,
            projector: vec![512, 512, 512],
            projector_last_bias: false,
            projector_norm: true,
            predictor: Vec::new(),
            teacher_momentum: None,
        }
    }
}

/// An encoder with a projector, and optionally a predictor and a momentum teacher.
///
/// Parameters are named `encoder.*`, `projector.*`, `predictor.*`; the teacher's `teacher.encoder.*` and
/// `teacher.projector.*` are buffers. In training each view passes the network on its own, so that batch
/// statistics are those of one view, as in the official VICReg code.
#[derive(Debug)]
pub struct JointEmbedding {
    params: Params,
    student: Branch,
    predictor: Option<Predictor>,
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
    /// As [`JointEmbedding::new`]; bf16 for an encoder that is not a residual network, or with parameters that
    /// are not f32 on the CPU.
    pub fn with_precision(cfg: &ModelConfig, precision: Precision, params: &Params) -> Result<Self> {
        let root = Scope::from(params.root());
        let student = Branch::new(cfg, precision, &root)?;
        let predictor = match cfg.predictor.as_slice() {
            [] => None,
            hidden => Some(Predictor::new(student.dim(), hidden, root.pp("predictor"))?),
        };
        let teacher = match cfg.teacher_momentum {
            None => None,
            Some(momentum) if (0.0..=1.0).contains(&momentum) => {
                let branch = Branch::new(cfg, precision, &Scope::frozen(params.root().pp("teacher")))?;
                Some(Teacher { branch, pairs: pairs(params)?, momentum })
            }
            Some(other) => return Err(Error::config("teacher_momentum", other, "must be in 0..=1")),
        };
        Ok(Self { params: params.clone(), student, predictor, teacher })
    }

    /// The encoder.
    pub fn encoder(&self) -> &dyn Encoder {
        self.student.encoder.as_ref()
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

    fn embed(&self, views: &[Tensor], mode: Mode) -> infomax_core::Result<Embeddings> {
        let mut features = Vec::with_capacity(views.len());
        let mut projections = Vec::with_capacity(views.len());
        for view in views {
            let (y, z) = self.student.forward(view, mode)?;
            features.push(y);
            projections.push(z);
        }
        let projections = Views::new(projections)?;
        let predictions = match &self.predictor {
            Some(predictor) => Some(projections.map(|z| Ok(predictor.forward(z, mode)?))?),
            None => None,
        };
        let targets = match &self.teacher {
            Some(teacher) => {
                let targets = views.iter().map(|view| Ok(teacher.branch.forward(view, mode)?.1.detach()));
                Some(Views::new(targets.collect::<Result<_>>()?)?)
            }
            None => None,
        };
        Ok(Embeddings { projections, predictions, targets, features: Some(Views::new(features)?) })
    }

    fn features(&self, xs: &Tensor) -> infomax_core::Result<Tensor> {
        // Detached, so that a bank of features does not keep every activation alive.
        Ok(self.student.encoder.forward(xs, Mode::Eval)?.detach())
    }

    fn feature_dim(&self) -> usize {
        self.student.encoder.feature_dim()
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
        let inner = scope.pp("encoder");
        if precision == Precision::Bf16 && (cfg.vit.is_some() || cfg.convnext.is_some()) {
            return Err(Error::Precision {
                precision: "bf16",
                with: format!("with model.{}", if cfg.vit.is_some() { "vit" } else { "convnext" }),
                reason: "only residual networks (model.encoder) have it; use the precision f32",
            });
        }
        let encoder: Box<dyn Encoder> = match (&cfg.vit, &cfg.convnext) {
            (None, None) => Box::new(ResNet::with_precision(&cfg.encoder, precision, inner)?),
            (Some(vit), None) => Box::new(Vit::new(vit, inner)?),
            (None, Some(convnext)) => Box::new(ConvNext::new(convnext, inner)?),
            (Some(_), Some(_)) => {
                return Err(Error::config("vit", "also set", "name either model.vit or model.convnext"));
            }
        };
        let projector = if cfg.projector.is_empty() {
            None
        } else {
            let head = ProjectorConfig {
                dims: cfg.projector.clone(),
                last_bias: cfg.projector_last_bias,
                norm: cfg.projector_norm,
            };
            Some(Projector::new(encoder.feature_dim(), &head, scope.pp("projector"))?)
        };
        Ok(Self { encoder, projector })
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Result<(Tensor, Tensor)> {
        let y = self.encoder.forward(xs, mode)?;
        let z = match &self.projector {
            Some(projector) => projector.forward(&y, mode)?,
            None => y.clone(),
        };
        Ok((y, z))
    }

    fn dim(&self) -> usize {
        self.projector.as_ref().map_or_else(|| self.encoder.feature_dim(), Projector::dim)
    }
}

/// A moving average of the student (BYOL, arXiv:2006.07733): trained parameters follow it, running statistics
/// come from the teacher's own batches.
#[derive(Debug)]
struct Teacher {
    branch: Branch,
    /// The teacher's variable and the student's that it follows.
    pairs: Vec<(Var, Var)>,
    momentum: f64,
}

impl Teacher {
    /// `t = m t + (1 - m) s`, with `m` rising to 1 along a cosine where the length of the run is known.
    fn follow(&self, ctx: &Context<'_>) -> Result<()> {
        let progress = match ctx.total_steps {
            Some(total) if total > 0 => (ctx.step as f64 / total as f64).min(1.0),
            _ => 0.0,
        };
        let away = (1.0 - self.momentum) * ((std::f64::consts::PI * progress).cos() + 1.0) / 2.0;
        for (teacher, student) in &self.pairs {
            let moved =
                ((teacher.as_detached_tensor() * (1.0 - away))? + (student.as_detached_tensor() * away)?)?;
            teacher.set(&moved)?;
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
