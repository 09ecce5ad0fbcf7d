//! Weights of other libraries, into an encoder.

use super::{Naming, positions};
use crate::{EncoderConfig, Result, Stem};
use candle_core::{DType, Tensor, Var};
use infomax_core::{Error as CoreError, Params};
use std::collections::{BTreeMap, BTreeSet};

/// What was found in a set of weights, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Initialized {
    /// Whose names it has.
    pub naming: Naming,
    /// What stands before each name of the encoder in it, for example `encoder.`.
    pub prefix: String,
    /// The number of tensors that were taken.
    pub tensors: usize,
    /// What was passed over, reshaped, converted or interpolated, in words.
    pub notes: Vec<String>,
}

/// Names that are no part of an encoder: classifiers and their like, and what only some ways of training need.
const PASSED_OVER: [&str; 9] = [
    "fc.",
    "head.",
    "heads.",
    "head_dist.",
    "classifier.",
    "projector.",
    "predictor.",
    "pre_logits.",
    "mask_token",
];

/// Parts of a prefix that tell a momentum encoder.
const TEACHERS: [&str; 5] = ["teacher", "encoder_k", "momentum", "target", "ema"];

/// Sets the parameters of an encoder below `prefix` from tensors with our names, torchvision's or timm's.
///
/// The naming is recognized, as is what stands before the names (`encoder.`, `module.`, `backbone.`). Classifiers
/// (`fc.*`, `head.*`, `classifier.*`), projectors and `num_batches_tracked` are passed over; f16, bf16 and f64 become
/// the type of the parameters; positions of another grid are interpolated, those of registers added to the registers,
/// and layer scales of vision transformers multiplied into their maps. All of it is said in
/// [`Initialized::notes`]. Shapes that differ by dimensions of 1 at the end are the same.
///
/// # Errors
/// [`infomax_core::Error::Weights`] naming the first five parameters that differ, with both shapes, or values that are
/// not finite; nothing is changed then.
pub fn init_encoder(
    encoder: &EncoderConfig,
    params: &Params,
    prefix: &str,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Initialized> {
    let start = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
    let all = params.all().into_iter();
    let wanted: BTreeMap<String, Var> =
        all.filter_map(|(name, p)| Some((name.strip_prefix(&start)?.to_owned(), p.var))).collect();
    if wanted.is_empty() {
        return Err(CoreError::Weights(format!("the model has no parameter below `{prefix}`")).into());
    }
    let Some(found) = recognize(encoder, &wanted, tensors) else {
        return Err(unknown(encoder, &wanted, tensors));
    };
    let mut notes = Vec::new();
    // Under our names; what has none keeps its own.
    let mut given = BTreeMap::new();
    let mut passed = BTreeSet::new();
    let ours: BTreeMap<&str, &String> =
        found.names.iter().map(|(own, there)| (there.as_str(), own)).collect();
    for (full, tensor) in tensors {
        let Some(name) = full.strip_prefix(&found.prefix) else {
            passed.insert(part(full));
            continue;
        };
        // A momentum encoder beside the one that is meant is another set of the same names.
        let teacher = || {
            let (first, rest) = name.split_once('.').unwrap_or(("", name));
            TEACHERS.iter().any(|word| first.contains(word)) && rest.contains('.')
        };
        let passed_over = PASSED_OVER.iter().any(|start| name.starts_with(start)) || teacher();
        if let Some(own) = ours.get(name) {
            given.insert((*own).clone(), tensor.clone());
        } else if passed_over {
            passed.insert(part(name));
        } else if !name.ends_with("num_batches_tracked") {
            given.insert(name.to_owned(), tensor.clone());
        }
    }
    let dtypes: BTreeSet<&str> =
        given.values().map(Tensor::dtype).filter(|t| *t != params.dtype()).map(|t| t.as_str()).collect();
    for tensor in given.values_mut().filter(|t| t.dtype() != params.dtype()) {
        *tensor = tensor.to_dtype(params.dtype())?;
    }
    if !dtypes.is_empty() {
        let from = dtypes.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("values of {from} were converted to {}", params.dtype().as_str()));
    }
    if let EncoderConfig::Vit(cfg) = encoder {
        notes.extend(positions::adapt(cfg, &mut given)?);
    }
    if !passed.is_empty() {
        let names = passed.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("passed over, as no part of the encoder: {names}"));
    }
    let set = fit(encoder, &wanted, &given, &found)?;
    for (var, tensor) in &set {
        var.set(&tensor.to_device(var.device())?)?;
    }
    Ok(Initialized { naming: found.naming, prefix: found.prefix, tensors: set.len(), notes })
}

/// [`init_encoder`] for the encoder of a [`JointEmbedding`](crate::JointEmbedding): its teacher, where it has one, starts
/// from the same weights.
///
/// # Errors
/// As [`init_encoder`].
pub fn init_student(
    encoder: &EncoderConfig,
    params: &Params,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Initialized> {
    let done = init_encoder(encoder, params, "encoder", tensors)?;
    for (name, student) in params.all() {
        if name.starts_with("encoder.")
            && let Some(teacher) = params.get(&format!("teacher.{name}"))
        {
            teacher.var.set(&student.var.as_detached_tensor().copy()?)?;
        }
    }
    Ok(done)
}

/// A naming with a prefix, and the names that it has for those of the model.
struct Found {
    naming: Naming,
    prefix: String,
    /// Our name and theirs.
    names: Vec<(String, String)>,
}

/// The naming and the prefix under which most of the wanted names are there; `None` if there are none at all.
fn recognize(
    encoder: &EncoderConfig,
    wanted: &BTreeMap<String, Var>,
    tensors: &BTreeMap<String, Tensor>,
) -> Option<Found> {
    let mut best = None;
    for naming in [Naming::Torchvision, Naming::Timm, Naming::Own] {
        let names: Vec<(String, String)> =
            wanted.keys().filter_map(|own| Some((own.clone(), naming.of(encoder, own)?))).collect();
        let mut prefixes: BTreeSet<&str> = [""].into();
        for (_, there) in &names {
            let ends = tensors.keys().filter_map(|key| key.strip_suffix(there.as_str()));
            prefixes.extend(ends.filter(|start| start.is_empty() || start.ends_with('.')));
        }
        for prefix in prefixes {
            let hits =
                names.iter().filter(|(_, there)| tensors.contains_key(&format!("{prefix}{there}"))).count();
            let teacher = TEACHERS.iter().any(|word| prefix.contains(word));
            let rank = (hits, !teacher, std::cmp::Reverse(prefix.len()));
            if hits > 0 && best.as_ref().is_none_or(|(other, _, _, _)| rank > *other) {
                best = Some((rank, naming, prefix.to_owned(), names.clone()));
            }
        }
    }
    best.map(|(_, naming, prefix, names)| {
        // Names that are the same everywhere are called ours below our own prefix.
        let same = names.iter().all(|(own, there)| own == there);
        let naming = if same && prefix == "encoder." { Naming::Own } else { library(encoder, naming) };
        Found { naming, prefix, names }
    })
}

/// What names that are the same in two namings are called.
fn library(encoder: &EncoderConfig, naming: Naming) -> Naming {
    match (encoder, naming) {
        (EncoderConfig::Vit(_), Naming::Own) => Naming::Timm,
        (EncoderConfig::ResNet(_) | EncoderConfig::ConvNext(_), Naming::Own) => Naming::Torchvision,
        _ => naming,
    }
}

/// The tensors for all parameters, in their shapes.
fn fit(
    encoder: &EncoderConfig,
    wanted: &BTreeMap<String, Var>,
    given: &BTreeMap<String, Tensor>,
    found: &Found,
) -> Result<Vec<(Var, Tensor)>> {
    let there: BTreeMap<&str, &str> =
        found.names.iter().map(|(own, name)| (own.as_str(), name.as_str())).collect();
    let called = |own: &str| format!("`{}{}`", found.prefix, there.get(own).copied().unwrap_or(own));
    let (mut wrong, mut set) = (Vec::new(), Vec::new());
    for (own, var) in wanted {
        match given.get(own) {
            None => wrong.push(format!("{} is not in the file, the model has {:?}", called(own), var.dims())),
            Some(t) if squeezed(t.dims()) != squeezed(var.dims()) => {
                let (got, needs) = (t.dims(), var.dims());
                wrong.push(format!("{} is {got:?} in the file, the model has {needs:?}", called(own)));
            }
            Some(t) => {
                // 0 for every finite value, not a number for all others.
                let zero = (t.flatten_all()? * 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                if zero != 0.0 {
                    wrong.push(format!("{} holds values that are not finite", called(own)));
                }
                set.push((var.clone(), t.reshape(var.shape())?.copy()?));
            }
        }
    }
    let superfluous = given.iter().filter(|(name, _)| !wanted.contains_key(*name));
    wrong.extend(superfluous.map(|(name, t)| {
        format!("{} is {:?} in the file, the model has no such parameter", called(name), t.dims())
    }));
    if wrong.is_empty() {
        return Ok(set);
    }
    let count = wrong.len();
    wrong.truncate(5);
    let tail = if count > 5 { format!("; and {} more", count - 5) } else { String::new() };
    let hint = hint(encoder, wanted, given);
    Err(CoreError::Weights(format!("{}{tail}{hint}", wrong.join("; "))).into())
}

/// What to do, where it can be told from the shapes.
fn hint(encoder: &EncoderConfig, wanted: &BTreeMap<String, Var>, given: &BTreeMap<String, Tensor>) -> String {
    let side = |dims: Option<&[usize]>| dims.and_then(|dims| dims.get(2).copied());
    let ours = side(wanted.get("conv1.weight").map(|var| var.dims()));
    let theirs = side(given.get("conv1.weight").map(Tensor::dims));
    match (encoder, ours, theirs) {
        (EncoderConfig::ResNet(cfg), Some(ours), Some(theirs)) if ours != theirs => {
            let stem = if theirs == 7 { Stem::Imagenet } else { Stem::Cifar };
            let name = if stem == Stem::Imagenet { "imagenet" } else { "cifar" };
            if stem == cfg.stem { String::new() } else { format!(" (the file has the stem \"{name}\")") }
        }
        _ => String::new(),
    }
}

/// Dimensions without those of 1 at the end.
fn squeezed(dims: &[usize]) -> &[usize] {
    let end = dims.iter().rposition(|&d| d != 1).map_or(0, |last| last + 1);
    &dims[..end.max(1).min(dims.len())]
}

/// The part of a network that a name belongs to, for messages.
fn part(name: &str) -> String {
    match name.split_once('.') {
        Some((first, _)) => format!("{first}.*"),
        None => name.to_owned(),
    }
}

/// Weights of which no name is known.
fn unknown(
    encoder: &EncoderConfig,
    wanted: &BTreeMap<String, Var>,
    tensors: &BTreeMap<String, Tensor>,
) -> crate::Error {
    let some = |names: &mut dyn Iterator<Item = String>| names.take(5).collect::<Vec<_>>().join(", ");
    let has = some(&mut tensors.iter().map(|(name, t)| format!("`{name}` {:?}", t.dims())));
    let needs = some(&mut wanted.iter().map(|(name, var)| format!("`{name}` {:?}", var.dims())));
    CoreError::Weights(format!(
        "none of the names is one of an encoder of kind `{}`, neither ours nor torchvision's nor timm's. The file has {} \
         tensors, first {has}; the model needs {} such as {needs}",
        encoder.kind(),
        tensors.len(),
        wanted.len()
    ))
    .into()
}
