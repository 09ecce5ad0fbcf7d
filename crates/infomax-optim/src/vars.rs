//! Parameters of models that were built elsewhere.

use crate::{Error, Result};
use candle_core::Var;
use infomax_core::{Key, ParamKind, Params};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// The parameters of a model that was not built with [`Params`]: of `candle_nn`'s `VarMap`
/// (`params(var_map.data())`), of variables with names, or of plain ones, which are named by their number.
///
/// The variables are shared, not copied: what an optimizer does to the result is seen by the model. Names are
/// kept, and with them those of the optimizer's state. The kind of each parameter, which decides on weight decay
/// and adaptation, is [`kind_of`] its name and shape; [`Params::adopt`] takes another one.
///
/// ```
/// use candle_core::{DType, Device, Var};
/// use infomax_optim::{Gradients, build, params};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (w, b) = (Var::ones((2, 2), DType::F32, &Device::Cpu)?, Var::zeros(2, DType::F32, &Device::Cpu)?);
/// let params = params(&vec![w.clone(), b.clone()])?;
/// let mut optimizer = build(&Default::default())?;
/// let loss = w.matmul(&b.reshape((2, 1))?)?.sum_all()?;
/// optimizer.step(&params, &Gradients::of(&params, &loss.backward()?)?, 0.1)?;
/// assert!(b.to_vec1::<f32>()?.iter().all(|b| *b < 0.0));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// No variable, a name that occurs twice, or one variable under two names, which would move twice a step.
pub fn params<V: NamedVars + ?Sized>(vars: &V) -> Result<Params> {
    let mut vars = vars.named_vars();
    // A hash map has no order of its own: with tied names the same one is refused each time.
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    let refuse = |value: String, reason| Err(Error::Config { key: "vars".into(), value, reason });
    let Some((_, first)) = vars.first() else {
        return refuse("(none)".into(), "there is no variable to train");
    };
    let params = Params::new(first.dtype(), first.device(), Key::new(0));
    let mut seen = HashMap::new();
    for (name, var) in &vars {
        if let Some(other) = seen.insert(var.id(), name) {
            let reason = "both names stand for one variable: leave one of them out";
            return refuse(format!("`{other}` and `{name}`"), reason);
        }
        params.adopt(name.clone(), var, kind_of(name, var.dims()))?;
    }
    Ok(params)
}

/// The kind of a parameter that says only its name and shape.
///
/// - [`ParamKind::Buffer`], which is never trained: `running_mean`, `running_var`, `num_batches_tracked` (the last
///   part of the name), which `candle_nn::BatchNorm` keeps in the `VarMap`.
/// - [`ParamKind::Norm`]: tokens and positions (`cls_token`, `reg_token`, `pos_embed`, `position_embedding` and the
///   like), and every vector that is no bias: scales and shifts of normalizations.
/// - [`ParamKind::Bias`]: a vector or number whose name ends in `bias` or `b`. The shift of a normalization has the
///   same name; optimizers treat both alike.
/// - [`ParamKind::Weight`]: everything else of two dimensions or more.
pub fn kind_of(name: &str, dims: &[usize]) -> ParamKind {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        "running_mean" | "running_var" | "num_batches_tracked" => return ParamKind::Buffer,
        "bias" | "b" if dims.len() < 2 => return ParamKind::Bias,
        _ => {}
    }
    let token = ["cls_token", "class_token", "reg_token", "register_tokens", "mask_token", "dist_token"];
    let position = ["pos_embed", "position_embed", "positional_embed"];
    let positional = position.iter().any(|part| name.contains(part));
    if dims.len() < 2 || token.contains(&last) || positional { ParamKind::Norm } else { ParamKind::Weight }
}

/// Variables with their names.
pub trait NamedVars {
    /// The variables by name; clones share their storage.
    fn named_vars(&self) -> Vec<(String, Var)>;
}

impl<N: ToString> NamedVars for [(N, Var)] {
    fn named_vars(&self) -> Vec<(String, Var)> {
        self.iter().map(|(name, var)| (name.to_string(), var.clone())).collect()
    }
}

/// Variables without names are numbered.
impl NamedVars for [Var] {
    fn named_vars(&self) -> Vec<(String, Var)> {
        self.iter().enumerate().map(|(i, var)| (i.to_string(), var.clone())).collect()
    }
}

impl<T> NamedVars for Vec<T>
where
    [T]: NamedVars,
{
    fn named_vars(&self) -> Vec<(String, Var)> {
        self.as_slice().named_vars()
    }
}

impl NamedVars for BTreeMap<String, Var> {
    fn named_vars(&self) -> Vec<(String, Var)> {
        self.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }
}

impl NamedVars for HashMap<String, Var> {
    fn named_vars(&self) -> Vec<(String, Var)> {
        self.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }
}

/// What `candle_nn::VarMap::data` gives.
impl<T: NamedVars> NamedVars for Mutex<T> {
    fn named_vars(&self) -> Vec<(String, Var)> {
        self.lock().unwrap_or_else(PoisonError::into_inner).named_vars()
    }
}

impl<T: NamedVars + ?Sized> NamedVars for Arc<T> {
    fn named_vars(&self) -> Vec<(String, Var)> {
        (**self).named_vars()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn var(dims: &[usize]) -> Var {
        Var::zeros(dims, DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn kinds_follow_from_name_and_shape() {
        for (name, dims, kind) in [
            ("conv.weight", &[4, 3, 3, 3][..], ParamKind::Weight),
            ("fc.bias", &[4], ParamKind::Bias),
            ("b", &[4], ParamKind::Bias),
            ("ln.weight", &[4], ParamKind::Norm),
            ("vit.cls_token", &[1, 1, 8], ParamKind::Norm),
            ("embeddings.position_embeddings.weight", &[9, 8], ParamKind::Norm),
            ("bn.running_var", &[4], ParamKind::Buffer),
            ("scale", &[], ParamKind::Norm),
        ] {
            assert_eq!(kind_of(name, dims), kind, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let shared = var(&[2, 2]);
        assert!(params(&Vec::<Var>::new()).unwrap_err().to_string().contains("no variable"));
        let twice = params(&[("a", shared.clone()), ("b", shared.clone())][..]).unwrap_err().to_string();
        assert!(twice.contains("`a` and `b`"), "{twice}");
        assert!(params(&[("a", shared), ("a", var(&[2]))][..]).unwrap_err().to_string().contains("taken"));
    }
}
