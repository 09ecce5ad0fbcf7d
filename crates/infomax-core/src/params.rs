//! Named parameters and buffers in a fixed order.

use crate::{Error, Key, Result};
use candle_core::{DType, Device, Shape, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a parameter is, so that optimizers know what to decay and to adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParamKind {
    /// A matrix or kernel: decayed, adapted by LARS.
    Weight,
    /// A bias: neither decayed nor adapted.
    Bias,
    /// Scale or shift of a normalization, class tokens, position embeddings: neither decayed nor adapted.
    Norm,
    /// A running statistic or teacher's weight: saved, never trained.
    Buffer,
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One value.
    Const(f64),
    /// `N(mean, std^2)`.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
    },
    /// Uniform on `[-bound, bound)`.
    Uniform {
        /// The half width.
        bound: f64,
    },
}

/// One entry of [`Params`].
#[derive(Clone, Debug)]
pub struct Param {
    /// The variable; cloning shares it.
    pub var: Var,
    /// What it is.
    pub kind: ParamKind,
}

/// The parameters and buffers of a model, ordered by name. Cloning shares the variables.
///
/// Candle's `VarMap` iterates in hash order and initializes from an unseeded generator; here the order is
/// that of the names, and each parameter's start is a function of the key and of its name alone.
#[derive(Clone, Debug)]
pub struct Params {
    entries: Arc<Mutex<BTreeMap<String, Param>>>,
    dtype: DType,
    device: Device,
    /// `None`: parameters start at zero.
    key: Option<Key>,
}

impl Params {
    /// An empty set: parameters that are added have this dtype and device and start from this key.
    pub fn new(dtype: DType, device: &Device, key: Key) -> Self {
        Self { entries: Arc::default(), dtype, device: device.clone(), key: Some(key) }
    }

    /// An empty set whose parameters all start at zero, whatever their layer says: for shapes, and for weights that
    /// are loaded afterwards. Nothing is drawn, which takes seconds for large networks.
    pub fn zeros(dtype: DType, device: &Device) -> Self {
        Self { entries: Arc::default(), dtype, device: device.clone(), key: None }
    }

    /// The builder of the root scope.
    pub fn root(&self) -> ParamBuilder {
        ParamBuilder { params: self.clone(), prefix: String::new() }
    }

    /// Takes in a variable that was made elsewhere; it stays shared with its maker, so that training moves both.
    ///
    /// # Errors
    /// A name that is taken already.
    pub fn adopt(&self, name: impl Into<String>, var: &Var, kind: ParamKind) -> Result<()> {
        let name = name.into();
        let mut entries = self.lock();
        if entries.contains_key(&name) {
            return Err(Error::config("parameter", name, "the name is taken already"));
        }
        entries.insert(name, Param { var: var.clone(), kind });
        Ok(())
    }

    /// The dtype of parameters.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device of parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All entries, by name.
    pub fn all(&self) -> Vec<(String, Param)> {
        self.lock().iter().map(|(name, param)| (name.clone(), param.clone())).collect()
    }

    /// All but the buffers, by name.
    pub fn trainable(&self) -> Vec<(String, Param)> {
        self.all().into_iter().filter(|(_, param)| param.kind != ParamKind::Buffer).collect()
    }

    /// The entry of a name.
    pub fn get(&self, name: &str) -> Option<Param> {
        self.lock().get(name).cloned()
    }

    /// The number of trainable scalars.
    pub fn count(&self) -> usize {
        self.trainable().iter().map(|(_, param)| param.var.elem_count()).sum()
    }

    /// The current values, without gradient, by name: what a checkpoint writes.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.lock().iter().map(|(name, param)| (name.clone(), param.var.as_tensor().detach())).collect()
    }

    /// Sets every entry from tensors of the same names and shapes.
    ///
    /// # Errors
    /// [`Error::Weights`] naming what is missing, superfluous or of another shape; nothing is changed then.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let entries = self.lock();
        let mut wrong = Vec::new();
        for (name, param) in entries.iter() {
            match tensors.get(name) {
                None => wrong.push(format!("`{name}` {:?} is missing", param.var.dims())),
                Some(t) if t.dims() != param.var.dims() => {
                    wrong.push(format!(
                        "`{name}` has shape {:?}, the model needs {:?}",
                        t.dims(),
                        param.var.dims()
                    ));
                }
                Some(_) => {}
            }
        }
        wrong.extend(
            tensors
                .keys()
                .filter(|name| !entries.contains_key(*name))
                .map(|name| format!("`{name}` is not in the model")),
        );
        if !wrong.is_empty() {
            let more = wrong.len().saturating_sub(4);
            wrong.truncate(4);
            let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
            return Err(Error::Weights(wrong.join("; ") + &tail));
        }
        for (name, param) in entries.iter() {
            if let Some(tensor) = tensors.get(name) {
                param.var.set(&tensor.to_dtype(param.var.dtype())?.to_device(param.var.device())?)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Param>> {
        // The map is never left half-changed, so a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds parameters to [`Params`] under a dotted prefix.
#[derive(Clone, Debug)]
pub struct ParamBuilder {
    params: Params,
    prefix: String,
}

impl ParamBuilder {
    /// The scope `name` below this one.
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { params: self.params.clone(), prefix: self.path(&name.to_string()) }
    }

    /// Adds a parameter.
    ///
    /// # Errors
    /// A name that is taken already.
    pub fn get(&self, name: &str, shape: impl Into<Shape>, kind: ParamKind, init: Init) -> Result<Var> {
        let path = self.path(name);
        let shape = shape.into();
        let (dtype, device) = (self.params.dtype, &self.params.device);
        let var = match self.params.key.map(|key| key.fold_named(&path)) {
            None => Var::zeros(shape, dtype, device)?,
            Some(key) => Var::from_tensor(&match init {
                Init::Const(value) => (Tensor::ones(shape, dtype, device)? * value)?,
                Init::Normal { mean, std } => key.normal(mean, std, shape, dtype, device)?,
                Init::Uniform { bound } => key.uniform(-bound, bound, shape, dtype, device)?,
            })?,
        };
        self.params.adopt(path, &var, kind)?;
        Ok(var)
    }

    /// The full name of `name` in this scope.
    pub fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// The set that is built.
    pub fn params(&self) -> &Params {
        &self.params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(order: &[&str]) -> Params {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(1));
        for name in order {
            params
                .root()
                .pp("net")
                .get(name, (2, 3), ParamKind::Weight, Init::Normal { mean: 0., std: 1. })
                .unwrap();
        }
        params
    }

    #[test]
    fn start_does_not_depend_on_the_order_of_building() {
        let (a, b) = (build(&["x", "y"]), build(&["y", "x"]));
        for ((name_a, pa), (name_b, pb)) in a.all().iter().zip(b.all().iter()) {
            assert_eq!(name_a, name_b);
            assert_eq!(pa.var.to_vec2::<f32>().unwrap(), pb.var.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn an_undrawn_set_has_the_same_names_and_shapes() {
        let blank = Params::zeros(DType::F32, &Device::Cpu);
        let init = Init::Normal { mean: 0., std: 1. };
        let var = blank.root().pp("net").get("x", (2, 3), ParamKind::Weight, init).unwrap();
        assert_eq!(var.to_vec2::<f32>().unwrap(), [[0.0; 3]; 2]);
        blank.load(&build(&["x"]).tensors()).unwrap();
        assert_ne!(var.to_vec2::<f32>().unwrap(), [[0.0; 3]; 2]);
    }

    #[test]
    fn loading_names_what_does_not_fit() {
        let (a, b) = (build(&["x", "y"]), build(&["x", "z"]));
        let message = a.load(&b.tensors()).unwrap_err().to_string();
        assert!(message.contains("`net.y`") && message.contains("`net.z`"), "{message}");
        let twice = a.root().pp("net").get("x", 1, ParamKind::Bias, Init::Const(0.));
        assert!(twice.is_err());
    }

    #[test]
    fn an_adopted_variable_is_shared() {
        let a = build(&["x"]);
        let var = Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
        a.adopt("own", &var, ParamKind::Weight).unwrap();
        assert!(a.adopt("own", &var, ParamKind::Weight).is_err());
        let mut values: BTreeMap<_, _> =
            a.tensors().into_iter().map(|(name, value)| (name, value.copy().unwrap())).collect();
        values.insert("own".into(), Tensor::ones(2, DType::F32, &Device::Cpu).unwrap());
        a.load(&values).unwrap();
        assert_eq!(var.to_vec1::<f32>().unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn loading_restores_values_and_buffers_are_not_trainable() {
        let a = build(&["x"]);
        a.root().get("mean", 3, ParamKind::Buffer, Init::Const(0.5)).unwrap();
        let saved: BTreeMap<_, _> = a.tensors().into_iter().map(|(k, v)| (k, v.copy().unwrap())).collect();
        a.get("net.x").unwrap().var.set(&Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap()).unwrap();
        a.load(&saved).unwrap();
        assert_eq!(
            a.get("net.x").unwrap().var.to_vec2::<f32>().unwrap(),
            saved["net.x"].to_vec2::<f32>().unwrap()
        );
        assert_eq!(a.trainable().len(), 1);
        assert_eq!(a.count(), 6);
    }
}
