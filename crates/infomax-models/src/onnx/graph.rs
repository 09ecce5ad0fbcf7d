//! A graph while it is built.

use super::proto::{
    Attribute, Dimension, FLOAT, Graph as Message, INT64, Initializer, Node, Shape, TensorType, Type,
    ValueInfo,
};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// The name of a value in a graph.
pub(super) type Value = String;

/// An attribute of an operator.
pub(super) enum Attr<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Float(&'a str, f64),
}

/// Nodes, and the weights that they use.
pub(super) struct Graph<'a> {
    /// All weights that there are.
    tensors: &'a BTreeMap<String, Tensor>,
    nodes: Vec<Node>,
    initializers: BTreeMap<String, Initializer>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(tensors: &'a BTreeMap<String, Tensor>) -> Self {
        Self { tensors, nodes: Vec::new(), initializers: BTreeMap::new() }
    }

    /// The tensor of a parameter.
    pub(super) fn tensor(&self, name: &str) -> Result<&'a Tensor> {
        let missing = || infomax_core::Error::Weights(format!("`{name}` is missing"));
        self.tensors.get(name).ok_or_else(|| Error::from(missing()))
    }

    /// A parameter as it is, under its name.
    pub(super) fn weight(&mut self, name: &str) -> Result<Value> {
        let tensor = self.tensor(name)?;
        self.constant(name, tensor)
    }

    /// A constant tensor of f32.
    pub(super) fn constant(&mut self, name: &str, tensor: &Tensor) -> Result<Value> {
        let values = tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let data = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.initializer(name, FLOAT, tensor.dims(), data);
        Ok(name.to_owned())
    }

    /// A constant scalar of f32.
    pub(super) fn scalar(&mut self, name: &str, value: f64) -> Value {
        self.initializer(name, FLOAT, &[], (value as f32).to_le_bytes().to_vec());
        name.to_owned()
    }

    /// A constant list of integers, such as a shape; a scalar for `None`.
    pub(super) fn ints(&mut self, name: &str, values: &[i64], dims: &[usize]) -> Value {
        self.initializer(name, INT64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        name.to_owned()
    }

    fn initializer(&mut self, name: &str, kind: i32, dims: &[usize], data: Vec<u8>) {
        let message = Initializer {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(kind),
            name: Some(name.to_owned()),
            raw_data: Some(data),
        };
        self.initializers.insert(name.to_owned(), message);
    }

    /// Adds an operator with one output.
    pub(super) fn op(&mut self, kind: &str, inputs: &[&str], attributes: &[Attr<'_>]) -> Value {
        let name = format!("{kind}_{}", self.nodes.len());
        let attribute = attributes.iter().map(|attr| {
            let empty = Attribute { name: None, f: None, i: None, ints: Vec::new(), kind: None };
            match attr {
                Attr::Float(name, f) => {
                    Attribute { name: Some((*name).to_owned()), f: Some(*f as f32), kind: Some(1), ..empty }
                }
                Attr::Int(name, i) => {
                    Attribute { name: Some((*name).to_owned()), i: Some(*i), kind: Some(2), ..empty }
                }
                Attr::Ints(name, ints) => {
                    Attribute { name: Some((*name).to_owned()), ints: ints.to_vec(), kind: Some(7), ..empty }
                }
            }
        });
        self.nodes.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(kind.to_owned()),
            attribute: attribute.collect(),
        });
        name
    }

    /// Gives the value of the last operator its name as an output. No `Identity` for it: onnxruntime 1.32 refuses a
    /// graph whose output is one where other operators read the same value.
    pub(super) fn output(&mut self, name: &str) -> Value {
        if let Some(last) = self.nodes.last_mut() {
            last.output = vec![name.to_owned()];
        }
        name.to_owned()
    }

    /// `x W^T + b` over the last dimension: `name.weight` `(O, I)`, and `name.bias` where it is there.
    pub(super) fn linear(&mut self, xs: &str, name: &str) -> Result<Value> {
        let weight = self.tensor(&format!("{name}.weight"))?.flatten_from(1)?.t()?;
        let weight = self.constant(&format!("{name}.weight.T"), &weight)?;
        let ys = self.op("MatMul", &[xs, &weight], &[]);
        let bias = format!("{name}.bias");
        if !self.tensors.contains_key(&bias) {
            return Ok(ys);
        }
        let bias = self.weight(&bias)?;
        Ok(self.op("Add", &[&ys, &bias], &[]))
    }

    /// A convolution with `name.weight`, and `name.bias` where it is there.
    pub(super) fn conv(
        &mut self,
        xs: &str,
        name: &str,
        stride: usize,
        padding: usize,
        groups: usize,
    ) -> Result<Value> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let bias = format!("{name}.bias");
        let mut inputs = vec![xs.to_owned(), weight];
        if self.tensors.contains_key(&bias) {
            inputs.push(self.weight(&bias)?);
        }
        let (stride, padding) = (stride as i64, padding as i64);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.op(
            "Conv",
            &inputs,
            &[
                Attr::Ints("strides", &[stride, stride]),
                Attr::Ints("pads", &[padding; 4]),
                Attr::Int("group", groups as i64),
            ],
        ))
    }

    /// Batch normalization by running statistics.
    pub(super) fn batch_norm(&mut self, xs: &str, name: &str) -> Result<Value> {
        let mut inputs = vec![xs.to_owned()];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.weight(&format!("{name}.{part}"))?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.op("BatchNormalization", &inputs, &[Attr::Float("epsilon", crate::BatchNorm::EPS)]))
    }

    /// Layer normalization of the last dimension.
    pub(super) fn layer_norm(&mut self, xs: &str, name: &str) -> Result<Value> {
        let (weight, bias) = (self.weight(&format!("{name}.weight"))?, self.weight(&format!("{name}.bias"))?);
        let eps = Attr::Float("epsilon", crate::transformer::EPS);
        Ok(self.op("LayerNormalization", &[xs, &weight, &bias], &[Attr::Int("axis", -1), eps]))
    }

    pub(super) fn relu(&mut self, xs: &str) -> Value {
        self.op("Relu", &[xs], &[])
    }

    /// `x (1 + erf(x / sqrt 2)) / 2`: the operator `Gelu` itself came later than the version of the graph.
    pub(super) fn gelu(&mut self, xs: &str) -> Value {
        let scale = self.scalar("gelu.scale", std::f64::consts::FRAC_1_SQRT_2);
        let (one, half) = (self.scalar("gelu.one", 1.0), self.scalar("gelu.half", 0.5));
        let ys = self.op("Mul", &[xs, &scale], &[]);
        let ys = self.op("Erf", &[&ys], &[]);
        let ys = self.op("Add", &[&ys, &one], &[]);
        let ys = self.op("Mul", &[xs, &ys], &[]);
        self.op("Mul", &[&ys, &half], &[])
    }

    pub(super) fn transpose(&mut self, xs: &str, order: &[i64]) -> Value {
        self.op("Transpose", &[xs], &[Attr::Ints("perm", order)])
    }

    /// The whole graph; sizes of `None` in the input are the caller's choice.
    pub(super) fn finish(self, input: &[(&str, Option<usize>)], outputs: &[(&str, usize)]) -> Message {
        let named = |name: &str| Dimension { value: None, param: Some(name.to_owned()) };
        let fixed = |size: usize| Dimension { value: Some(size as i64), param: None };
        let value = |name: &str, dim: Vec<Dimension>| ValueInfo {
            name: Some(name.to_owned()),
            kind: Some(Type {
                tensor: Some(TensorType { element: Some(FLOAT), shape: Some(Shape { dim }) }),
            }),
        };
        let dims = input.iter().map(|(name, size)| size.map_or_else(|| named(name), fixed)).collect();
        Message {
            node: self.nodes,
            name: Some("encoder".to_owned()),
            initializer: self.initializers.into_values().collect(),
            input: vec![value(super::INPUT, dims)],
            output: outputs
                .iter()
                .map(|(name, width)| value(name, vec![named("batch"), fixed(*width)]))
                .collect(),
        }
    }
}
