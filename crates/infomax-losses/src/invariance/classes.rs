//! The invariance within classes: what pulls samples of one label together.

use super::normalize_rows;
use crate::ranks::Ranks;
use crate::settings::none_negative;
use crate::{Error, Result, op, ranks};
use candle_core::{Device, Tensor};
use infomax_core::{Context, Embeddings, Part, Role, Term};

/// `-mean_i mean_{p in P(i)} cos(z_i, z_p)` over the rows of all views together, where `P(i)` are the other rows with
/// the label of row `i`: the positives of supervised contrastive learning (Khosla et al., arXiv 2004.11362).
///
/// With the entropy term `contrastive` of temperature `t` and the weight `1/t` it is the loss `L_out` of that paper, in
/// nats; where every sample has a label of its own it is [`super::Cosine`]. The temperature that the official code
/// multiplies the loss with, over one that it calls base, is 1 there.
///
/// # Numerics
/// By the sums of the unit rows of each class, `sum_{i != p} z_i . z_p = |S|^2 - sum_i |z_i|^2`: `O(V n d C)` for `C`
/// classes in the batch, no `n x n` matrix. Over ranks, labels and those sums are exchanged.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ClassCosine {
    /// The factor in the total.
    pub weight: f64,
}

impl Default for ClassCosine {
    fn default() -> Self {
        Self { weight: 1.0 }
    }
}

impl Term for ClassCosine {
    fn name(&self) -> &str {
        NAME
    }

    fn role(&self) -> Role {
        Role::Invariance
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let (name, role, weight) = ("invariance".to_owned(), Role::Invariance, self.weight);
        Ok(vec![Part { name, role, weight, value: value(z, ctx)? }])
    }
}

impl ClassCosine {
    pub(crate) fn check(&self) -> Result<()> {
        none_negative(NAME, [("weight", self.weight)])
    }
}

const NAME: &str = "class-cosine";

fn value(z: &Embeddings, ctx: &Context<'_>) -> Result<Tensor> {
    let views = &z.projections;
    crate::error::views(NAME, 2, views.len())?;
    let Some(own) = &z.labels else {
        let hint = "the classes of the samples are needed (a data set with labels; `--labels FILE` of \
                    `infomax objective`)";
        return Err(Error::Missing { term: NAME, field: "labels", hint });
    };
    if own.len() != views.batch() {
        let expected = "one label a row of a view";
        return Err(Error::Shape { term: NAME, expected, got: vec![own.len(), views.batch()] });
    }
    let all = ranks::labels(own, ctx)?;
    let mut classes = all.clone();
    classes.sort_unstable();
    classes.dedup();

    // [S_c, sum_i |z_i|^2] of each class, by products with its members.
    let rows = views.iter().map(|v| normalize_rows(v, 1e-12)).collect::<Result<Vec<_>>>()?;
    let mut sum = rows[0].clone();
    let mut squares = rows[0].sqr()?;
    for row in &rows[1..] {
        sum = (sum + row)?;
        squares = (squares + row.sqr()?)?;
    }
    let (dtype, device, d) = (sum.dtype(), sum.device().clone(), sum.dim(1)?);
    let home = |values: Vec<f64>, shape: (usize, usize)| -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(&device)?)
    };
    let members = classes.iter().flat_map(|c| own.iter().map(move |l| f64::from(u8::from(l == c)))).collect();
    let members = home(members, (classes.len(), own.len()))?;
    let sums = members.matmul(&Tensor::cat(&[sum, squares.sum_keepdim(1)?], 1)?)?;
    let sums = Ranks::of(ctx, views.batch())?.sum(&sums)?;

    // Every class has at least the views of one sample.
    let weight = |c: &u32| {
        let count = (views.len() * all.iter().filter(|l| *l == c).count()) as f64;
        1.0 / (count - 1.0)
    };
    let weights = home(classes.iter().map(weight).collect(), (classes.len(), 1))?;
    let products = (sums.narrow(1, 0, d)?.sqr()?.sum_keepdim(1)? - sums.narrow(1, d, 1)?)?;
    let total = op::widen(&(products * weights)?.sum_all()?)?;
    Ok((total / -((views.len() * all.len()) as f64))?)
}
