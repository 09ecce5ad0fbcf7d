//! Objectives: what there is, and what one of them says of embeddings from files.

use crate::args::{ObjectiveArgs, ObjectiveCommand};
use crate::arrays::{is_file, tensor, views};
use crate::table::table;
use crate::{Status, print};
use anyhow::{Context as _, Result, anyhow, bail};
use candle_core::{DType, Tensor, Var};
use infomax_core::{Context, Embeddings, Key, LocalMap, Role, Views};
use infomax_data::npy;
use infomax_losses::{EntropyConfig, InvarianceConfig, ObjectiveAccount, ObjectiveConfig, Space};
use infomax_run::config::{self, Layers};
use serde::Serialize;
use std::path::PathBuf;

/// `infomax objective`.
pub(crate) fn run(args: &ObjectiveArgs) -> Result<Status> {
    match (&args.command, &args.name) {
        (Some(ObjectiveCommand::List { json }), _) => list(*json),
        (None, Some(name)) if is_file(name) && !infomax_losses::names().iter().any(|n| n.name == name) => {
            let files = [std::slice::from_ref(name), args.files.as_slice()].concat().join(" ");
            bail!(
                "`{name}` is a file, and the name of an objective comes first: `infomax objective vicreg {files}`; \
                 `infomax objective list` shows what there is"
            )
        }
        (None, Some(name)) => evaluate(name, args),
        (None, None) => bail!(
            "name an objective and files of embeddings: `infomax objective vicreg z1.npy z2.npy`; \
             `infomax objective list` shows what there is"
        ),
    }
}

/// Prints every named objective with its composition, conventions and source.
fn list(json: bool) -> Result<Status> {
    let names = infomax_losses::names();
    if json {
        let rows = names
            .iter()
            .map(|n| {
                let config = ObjectiveConfig::named(n.name)?;
                let bound = config.entropy.build()?.and_then(|e| e.bound());
                Ok(serde_json::json!({
                    "name": n.name, "composition": n.composition, "conventions": n.conventions,
                    "source": n.source, "invariance": config.invariance, "entropy": config.entropy, "bound": bound,
                }))
            })
            .collect::<Result<Vec<_>>>()?;
        print(&serde_json::to_string_pretty(&rows)?)?;
    } else {
        for named in names {
            let lines = [
                named.name.to_owned(),
                format!("    {}", named.composition),
                format!("    conventions: {}; {}", named.conventions.join(", "), named.source),
            ];
            print(&lines.join("\n"))?;
        }
        let terms = [
            ("invariance", infomax_losses::InvarianceConfig::KINDS.join(", ")),
            ("entropy", EntropyConfig::KINDS.join(", ")),
        ];
        print("\nAny invariance goes with any entropy (name `custom`):")?;
        for (term, kinds) in terms {
            print(&format!("    {term}: {kinds}"))?;
        }
    }
    Ok(Status::Done)
}

#[derive(Serialize)]
struct PartRow {
    name: String,
    role: Role,
    weight: f64,
    value: f64,
    weighted: f64,
}

#[derive(Serialize)]
struct Answer {
    objective: String,
    convention: String,
    views: usize,
    samples: usize,
    dim: usize,
    dtype: String,
    total: f64,
    parts: Vec<PartRow>,
    /// How the entropy term relates to the true entropy; absent without such a term.
    bound: Option<infomax_core::Bound>,
    account: Option<ObjectiveAccount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_refused: Option<String>,
    gradients: Vec<PathBuf>,
    config: ObjectiveConfig,
}

fn evaluate(name: &str, args: &ObjectiveArgs) -> Result<Status> {
    let mut config = configured(name, args)?;
    let labels = args.labels.as_deref().map(npy::read_labels).transpose()?;
    if labels.is_some() {
        match (&config.invariance, &mut config.entropy) {
            (_, EntropyConfig::Mcr2(mcr2)) => mcr2.supervised = true,
            (InvarianceConfig::ClassCosine(_), _) => {}
            _ => bail!(
                "--labels: only the terms `mcr2` and `class-cosine` (the objectives `mcr2` and `supcon`) look at \
                 labels, `{}` does not",
                config.name
            ),
        }
    }
    let objective = config.build()?;
    let dtype = if args.f64 { Some(DType::F64) } else { None };
    let views = views(&args.files, dtype)?;
    let others = |files: &[String], what: &str| -> Result<Option<Vec<Tensor>>> {
        if files.is_empty() {
            return Ok(None);
        }
        let others =
            crate::arrays::views(files, Some(views[0].dtype())).with_context(|| format!("--{what}"))?;
        if others.len() != views.len() {
            bail!("--{what}: {} views, but {} of embeddings; give one a view", others.len(), views.len());
        }
        Ok(Some(others))
    };
    // Views first, then predictions: gradients are asked for in this order.
    let vars = |tensors: Vec<Tensor>| tensors.iter().map(Var::from_tensor).collect::<Result<Vec<_>, _>>();
    let predictions = others(&args.prediction, "prediction")?;
    let targets = others(&args.target, "target")?;
    let views = vars(views)?;
    let predictions = predictions.map(vars).transpose()?;
    let mut z = embeddings(&views, predictions.as_deref(), targets, args)?;
    z.labels = labels;
    let ctx = Context { key: Key::new(args.seed), ..Context::standalone() };
    let report = objective.evaluate(&z, &ctx).map_err(|e| hint(e, args))?;

    let number = |t: &Tensor| -> Result<f64> { Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
    if !number(&report.total)?.is_finite() {
        let wider = if args.f64 { "" } else { "; --f64 computes with a wider range" };
        crate::say!("warning: the total is not finite{wider}");
    }
    let mut gradients = Vec::new();
    if let Some(dir) = &args.grad {
        let grads = report.total.backward()?;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let groups = [("grad", Some(&views)), ("grad-prediction", predictions.as_ref())];
        for (stem, group) in groups {
            for (i, var) in group.into_iter().flatten().enumerate() {
                let grad = match grads.get(var) {
                    Some(grad) => grad.clone(),
                    None => var.zeros_like()?,
                };
                let finite = number(&grad.to_dtype(DType::F64)?.sqr()?.sum_all()?)?.is_finite();
                if !finite {
                    bail!("the gradient of view {} is not finite; nothing was written for it", i + 1);
                }
                let wide = if grad.dtype() == DType::F64 { grad } else { grad.to_dtype(DType::F32)? };
                let path = dir.join(format!("{stem}-{}.npy", i + 1));
                npy::write(&path, &wide)?;
                gradients.push(path);
            }
        }
    }
    let parts = report
        .parts
        .iter()
        .map(|part| {
            let value = number(&part.value)?;
            let weighted = part.weight * value;
            Ok(PartRow { name: part.name.clone(), role: part.role, weight: part.weight, value, weighted })
        })
        .collect::<Result<Vec<_>>>()?;
    let (account, account_refused) = match config.account(&z) {
        Ok(account) => (Some(account), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let answer = Answer {
        objective: config.name.clone(),
        convention: config.convention.clone(),
        views: z.projections.len(),
        samples: z.projections.batch(),
        dim: z.projections.dim(),
        dtype: format!("{:?}", z.projections.dtype()).to_lowercase(),
        total: number(&report.total)?,
        parts,
        bound: config.entropy.build()?.and_then(|e| e.bound()),
        account,
        account_refused,
        gradients,
        config,
    };
    if args.json {
        print(&serde_json::to_string_pretty(&answer)?)?;
    } else {
        print(&text(&answer))?;
    }
    Ok(Status::Done)
}

/// The objective of a name, a convention and assignments of its keys.
fn configured(name: &str, args: &ObjectiveArgs) -> Result<ObjectiveConfig> {
    configuration(name, args.convention.as_deref(), &args.set)
}

/// The objective of a name, a convention and assignments, each with or without `objective.` before its key.
pub(crate) fn configuration(
    name: &str,
    convention: Option<&str>,
    settings: &[String],
) -> Result<ObjectiveConfig> {
    let mut layers = Layers::default();
    let mut set = |assignment: &str, origin: &str| layers.over_assignment(assignment, origin);
    set(&format!("objective.name=\"{}\"", name.replace(['"', '\\'], "")), "the command line")?;
    if let Some(convention) = convention {
        set(&format!("objective.convention=\"{}\"", convention.replace(['"', '\\'], "")), "--convention")?;
    }
    for assignment in settings {
        let inner = assignment.strip_prefix("objective.").unwrap_or(assignment);
        set(&format!("objective.{inner}"), "--set")?;
    }
    Ok(config::objective(&layers)?)
}

fn embeddings(
    views: &[Var],
    predictions: Option<&[Var]>,
    targets: Option<Vec<Tensor>>,
    args: &ObjectiveArgs,
) -> Result<Embeddings> {
    let tensors = |vars: &[Var]| Views::new(vars.iter().map(|v| v.as_tensor().clone()).collect());
    let mut projections = tensors(views)?;
    if !args.local.is_empty() {
        if !args.places.is_empty() && args.places.len() != args.local.len() {
            bail!("--places: {} files for {} of --local", args.places.len(), args.local.len());
        }
        let dtype = projections.dtype();
        let maps = args.local.iter().enumerate().map(|(i, file)| {
            let places = args.places.get(i).map(|file| tensor(file)).transpose()?;
            Ok(LocalMap::new(tensor(file)?.to_dtype(dtype)?, places)?)
        });
        projections = projections.with_local(maps.collect::<Result<Vec<_>>>()?)?;
    } else if !args.places.is_empty() {
        bail!("--places needs --local: the places are those of local embeddings");
    }
    Ok(Embeddings {
        predictions: predictions.map(tensors).transpose()?,
        targets: targets.map(Views::new).transpose()?,
        ..Embeddings::new(projections)
    })
}

/// What a file can do about an input that the objective misses.
fn hint(error: infomax_core::Error, args: &ObjectiveArgs) -> anyhow::Error {
    let text = error.to_string();
    let flag =
        [("`predictions`", "--prediction"), ("`targets`", "--target"), ("projections.local", "--local")]
            .into_iter()
            .find(|(field, _)| text.contains(field));
    match flag {
        Some((_, flag)) => {
            anyhow!("{text}\n  here: {flag} FILE, once for each of the {} views", args.files.len())
        }
        None => anyhow!(error),
    }
}

fn text(answer: &Answer) -> String {
    let composition = infomax_losses::names()
        .iter()
        .find(|named| named.name == answer.objective)
        .map_or_else(|| "an invariance and an entropy term".to_owned(), |named| named.composition.to_owned());
    let mut lines = vec![
        format!("{} ({}): {composition}", answer.objective, answer.convention),
        format!("{} views of {} x {}, {}\n", answer.views, answer.samples, answer.dim, answer.dtype),
    ];
    let kebab = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = answer
        .parts
        .iter()
        .map(|part| {
            let role = kebab(serde_json::json!(part.role));
            let numbers = [part.weight, part.value, part.weighted].map(|v| format!("{v:.6}"));
            [vec![part.name.clone(), role], numbers.to_vec()].concat()
        })
        .chain([["total", "", "", "", &format!("{:.6}", answer.total)].map(ToOwned::to_owned).to_vec()])
        .collect();
    lines.push(table(&["part", "role", "weight", "value", "weighted"], &rows));
    lines.push(match answer.bound {
        Some(bound) => {
            format!("\nentropy term: minus {} of the entropy (a loss is minimized)", described(bound))
        }
        None => "\nno entropy term: nothing in this loss resists collapse".to_owned(),
    });
    match (&answer.account, &answer.account_refused) {
        (Some(a), _) => {
            let stands = if a.stands_in { ", in the place of the objective's own term" } else { "" };
            let (space, conditional, spread) = match a.space {
                Space::Euclidean => ("R^d", "Gaussian", "s2"),
                Space::Sphere => ("the unit sphere", "von Mises-Fisher", "kappa"),
            };
            lines.push(format!("account in nats, on {space}:"));
            lines.push(format!(
                "  H(Z)            {:>14.4}  {} ({}{stands})",
                a.account.entropy.nats,
                described(a.account.entropy.bound),
                a.estimator
            ));
            lines.push(format!(
                "  E ln q(z | z')  {:>14.4}  {conditional}, {spread} = {:.4e}",
                a.account.conditional, a.spread
            ));
            lines.push(format!("  sum             {:>14.4}", a.account.information));
        }
        (None, refused) => {
            lines.push(format!("no account in nats: {}", refused.as_deref().unwrap_or("unknown")));
        }
    }
    lines.extend(answer.gradients.iter().map(|path| format!("gradient: {}", path.display())));
    lines.join("\n")
}

pub(crate) fn described(bound: infomax_core::Bound) -> &'static str {
    match bound {
        infomax_core::Bound::Upper => "an upper bound",
        infomax_core::Bound::Lower => "a lower bound",
        infomax_core::Bound::Estimate => "an estimate",
        infomax_core::Bound::Surrogate => "a surrogate",
    }
}
