//! `infomax entropy`: one entropy of one matrix, and what two matrices tell of each other.

use crate::args::EntropyArgs;
use crate::objective::{configuration, described};
use crate::{Status, arrays, print};
use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Tensor};
use infomax_core::Bound;
use infomax_losses::entropy::{Gaussian, LogDet};
use infomax_losses::{EntropyConfig, Estimate};
use infomax_run::infomax_eval::information::repeated_rows;
use serde::Serialize;

#[derive(Serialize)]
struct Answer {
    kind: String,
    samples: usize,
    dim: usize,
    /// `H(Z)`; in nats unless the bound is a surrogate.
    entropy: f64,
    /// `None` where the figure bounds nothing; `notes` say why.
    bound: Option<Bound>,
    /// `nats`, or `surrogate`.
    unit: &'static str,
    #[serde(flatten)]
    pair: Option<Pair>,
    config: EntropyConfig,
    /// What must be known to read the figure.
    notes: Vec<String>,
}

/// What two matrices of paired rows tell of each other.
#[derive(Serialize)]
struct Pair {
    other_dim: usize,
    other_entropy: f64,
    joint_entropy: f64,
    /// `H(Z | Y)` and `H(Y | Z)`.
    conditional_entropy: [f64; 2],
    mutual_information: f64,
}

pub(crate) fn run(args: &EntropyArgs) -> Result<Status> {
    let config = configured(args)?;
    let z = matrix(&args.file)?;
    let (samples, dim) = z.dims2()?;
    if samples > 1
        && args.covariances.is_none()
        && z.broadcast_eq(&z.narrow(0, 0, 1)?)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?
            == (samples * dim) as f64
    {
        bail!(
            "{}: all {samples} rows are equal: there is no spread, and the entropy is minus infinity",
            args.file
        );
    }
    let given = [&args.weights, &args.covariances, &args.directions].iter().filter(|f| f.is_some()).count();
    if args.other.is_some() && given > 0 {
        bail!("--weights, --covariances and --directions are for one matrix; leave Y out");
    }
    let estimate = estimate(&config, &z, args)?;
    let pair = args.other.as_deref().map(|other| pair(&config, &z, other)).transpose()?;
    let entropy = pair.as_ref().map_or(estimate.nats, |(h, _)| *h);
    let (notes, bounds) = notes(&config, &z, pair.as_ref().map_or(0, |(_, pair)| pair.other_dim))?;
    let answer = Answer {
        kind: args.kind.clone(),
        samples,
        dim,
        entropy,
        bound: bounds.then_some(estimate.bound),
        unit: if estimate.bound == Bound::Surrogate { "surrogate" } else { "nats" },
        pair: pair.map(|(_, pair)| pair),
        config,
        notes,
    };
    print(&if args.json { serde_json::to_string_pretty(&answer)? } else { text(&answer, args) })?;
    Ok(Status::Done)
}

/// What must be known to read the figure, and whether it bounds an entropy.
fn notes(config: &EntropyConfig, z: &Tensor, other_dim: usize) -> Result<(Vec<String>, bool)> {
    let (n, d) = z.dims2()?;
    let (mut notes, mut bounds) = (Vec::new(), true);
    match config {
        EntropyConfig::Gaussian(c) if n <= d + other_dim => {
            let which = if n <= d { "Z" } else { "(Z, Y)" };
            bounds = n > d;
            notes.push(format!(
                "{n} rows of {} columns: the sample covariance of {which} is singular, and its figure is that of the \
                 floor eps = {} in the directions without spread, no bound of the entropy; more rows than columns are \
                 needed{}",
                d + other_dim,
                c.eps,
                if other_dim > 0 { ", and the differences below say nothing" } else { "" }
            ));
        }
        EntropyConfig::Kde(c) => {
            let rows = match c.leave_one_out {
                true => "each row is left out of its own density",
                false => {
                    "no row is left out of its own density (--set leave_one_out=true): each is near itself, which makes \
                     the estimate too low where few others are within that width"
                }
            };
            let variance = c.variance;
            notes.push(format!("the variance of the kernels is fixed (variance = {variance}); {rows}"));
        }
        EntropyConfig::KozachenkoLeonenko(_) => {
            let equal = repeated_rows(z)?;
            if equal > 0 {
                notes.push(format!(
                    "doubt (ties): {equal} of {n} rows have an equal one: a density has none, and the estimate is biased \
                     towards less; leave out what is there twice"
                ));
            }
        }
        _ => {}
    }
    Ok((notes, bounds))
}

/// The estimator of a kind with the assignments of its keys.
fn configured(args: &EntropyArgs) -> Result<EntropyConfig> {
    if arrays::is_file(&args.kind) && !EntropyConfig::KINDS.contains(&args.kind.as_str()) {
        bail!("`{0}` is a file, and the kind comes first: `infomax entropy gaussian {0}`", args.kind);
    }
    EntropyConfig::of_kind(&args.kind)?;
    if args.kind == "none" {
        bail!("`none` is no estimator; `infomax objective list` shows the kinds");
    }
    let mut settings = vec!["invariance.kind=none".to_owned(), format!("entropy.kind={}", args.kind)];
    for assignment in &args.set {
        let inner = assignment.strip_prefix("objective.").unwrap_or(assignment);
        settings.push(format!("entropy.{}", inner.strip_prefix("entropy.").unwrap_or(inner)));
    }
    let config = configuration("custom", None, &settings)?;
    config.build()?;
    Ok(config.entropy)
}

/// A matrix of finite numbers in f64: what is measured is measured with all digits.
fn matrix(file: &str) -> Result<Tensor> {
    let views = arrays::views(&[file.to_owned()], Some(DType::F64))?;
    match views.as_slice() {
        [one] => Ok(one.clone()),
        more => bail!("{file} holds {} views; give one matrix (samples, dim)", more.len()),
    }
}

/// Numbers of any shape, in f64.
fn numbers(flag: &str, file: &str) -> Result<Tensor> {
    let tensor = arrays::tensor(file).with_context(|| format!("--{flag}"))?.to_dtype(DType::F64)?;
    arrays::finite(file, &tensor).with_context(|| format!("--{flag}"))?;
    Ok(tensor)
}

fn estimate(config: &EntropyConfig, z: &Tensor, args: &EntropyArgs) -> Result<Estimate> {
    let term = config.build()?.context("an estimator")?;
    let read = |flag: &str, file: &Option<String>| file.as_deref().map(|f| numbers(flag, f)).transpose();
    let weights = match read("weights", &args.weights)? {
        Some(weights) => Some(weights.flatten_all()?.to_vec1::<f64>()?),
        None => None,
    };
    let covariances = read("covariances", &args.covariances)?;
    let directions = read("directions", &args.directions)?;
    let value = match (config, weights, covariances, directions) {
        (_, None, None, None) => return Ok(term.estimate(z)?),
        (EntropyConfig::PairDist(c), Some(weights), None, None) => c.entropy_weighted(z, &weights)?,
        (EntropyConfig::PairDistFull(c), None, Some(s), None) => c.entropy_of(z, &s)?,
        (EntropyConfig::PairDistFull(c), Some(weights), Some(s), None) => {
            c.entropy_of_weighted(z, &s, &weights)?
        }
        (EntropyConfig::SigReg(c), None, None, Some(a)) => c.along(z, &a)?.affine(-1.0, c.floor())?,
        (EntropyConfig::SlicedNormality(c), None, None, Some(a)) => {
            c.along(z, &a)?.affine(-1.0, c.floor())?
        }
        (EntropyConfig::VisReg(c), None, None, Some(a)) => {
            let parts = c.along(z, &a)?.to_vec1::<f64>()?;
            let nats = -(c.scale * parts[0] + c.shape * parts[1] + c.center * parts[2]);
            return Ok(Estimate { nats, bound: Bound::Surrogate });
        }
        _ => bail!(
            "--weights are for `pairdist`, and with --covariances for `pairdist-full`; --directions for `sigreg`, \
             `visreg` and `sliced-normality`; not for `{}`",
            args.kind
        ),
    };
    let bound = term.bound().unwrap_or(Bound::Surrogate);
    Ok(Estimate { nats: value.to_scalar::<f64>()?, bound })
}

/// `H(Z)` as it enters the differences, and the forms of both matrices.
fn pair(config: &EntropyConfig, z: &Tensor, other: &str) -> Result<(f64, Pair)> {
    let y = matrix(other)?;
    if y.dim(0)? != z.dim(0)? {
        bail!("{other} has {} rows, but Z has {}: they are paired", y.dim(0)?, z.dim(0)?);
    }
    let number = |t: Tensor| -> Result<f64> { Ok(t.to_scalar::<f64>()?) };
    let (own, its, joint) = match config {
        EntropyConfig::Renyi(c) => (c.entropy(z)?, c.entropy(&y)?, c.joint(z, &y)?),
        EntropyConfig::Gaussian(c) => {
            let joint = Tensor::cat(&[z, &y], 1)?;
            (Gaussian::entropy(c, z)?, Gaussian::entropy(c, &y)?, Gaussian::entropy(c, &joint)?)
        }
        EntropyConfig::LogDet(c) => {
            // One `beta` for all three.
            let dims = if c.beta_per_dim { (z.dim(1)? + y.dim(1)?) as f64 } else { 1.0 };
            let c = LogDet { beta: c.beta * dims, beta_per_dim: false, ..c.clone() };
            (c.entropy(z)?, c.entropy(&y)?, c.joint(z, &y)?)
        }
        _ => bail!("joint forms are there for `gaussian`, `logdet` and `renyi`; leave Y out for the others"),
    };
    let (own, its, joint) = (number(own)?, number(its)?, number(joint)?);
    let pair = Pair {
        other_dim: y.dim(1)?,
        other_entropy: its,
        joint_entropy: joint,
        conditional_entropy: [joint - its, joint - own],
        mutual_information: own + its - joint,
    };
    Ok((own, pair))
}

fn text(answer: &Answer, args: &EntropyArgs) -> String {
    let unit = if answer.unit == "nats" { " nats" } else { "" };
    let mut lines = vec![format!("{} of {}: {} x {}", answer.kind, args.file, answer.samples, answer.dim)];
    let mut line = |what: &str, value: f64, note: String| {
        lines.push(format!("  {what:<8} {value:>16.6}{unit}{note}"));
    };
    let bound = answer.bound.map_or("no bound", described);
    line("H(Z)", answer.entropy, format!("  {bound} of the entropy"));
    if let Some(pair) = &answer.pair {
        line("H(Y)", pair.other_entropy, String::new());
        line("H(Z, Y)", pair.joint_entropy, String::new());
        line("H(Z | Y)", pair.conditional_entropy[0], String::new());
        line("H(Y | Z)", pair.conditional_entropy[1], String::new());
        line("I(Z; Y)", pair.mutual_information, "  H(Z) + H(Y) - H(Z, Y)".into());
    }
    lines.extend(answer.notes.iter().map(|note| format!("  note: {note}")));
    lines.join("\n")
}
