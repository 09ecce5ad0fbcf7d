//! The checks at the entry of the operations, shared by the fused and the composed forms.

use crate::{AttentionConfig, Conv2dConfig, Error, Pool2dConfig, Result};
use candle_core::Tensor;

/// The sizes of one convolution, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub(crate) n: usize,
    /// Input channels, of all groups.
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    /// Output channels, of all groups.
    pub(crate) k: usize,
    pub(crate) r: usize,
    pub(crate) s: usize,
    /// Output height.
    pub(crate) p: usize,
    /// Output width.
    pub(crate) q: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
}

pub(crate) fn conv(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
) -> Result<ConvShape> {
    const OP: &str = "conv2d";
    let (n, c, h, w) = dims4(OP, "xs", xs)?;
    let (k, cg, r, s) = dims4(OP, "weight", weight)?;
    let shape = conv_sizes(OP, [n, c, h, w], [k, cg, r, s], cfg)?;
    same_dtype(OP, xs, "weight", Some(weight))?;
    vector(OP, xs, "bias", bias, k)?;
    Ok(shape)
}

/// The sizes of a convolution of images `xs` with `weight`.
pub(crate) fn conv_sizes(
    op: &'static str,
    xs: [usize; 4],
    weight: [usize; 4],
    cfg: Conv2dConfig,
) -> Result<ConvShape> {
    let ([n, c, h, w], [k, cg, r, s]) = (xs, weight);
    let Conv2dConfig { stride, padding, dilation, groups } = cfg;
    for (name, value) in [("stride", stride), ("dilation", dilation), ("groups", groups)] {
        if value == 0 {
            return Err(Error::Config { op, name, value: "0".into(), reason: "must be at least 1" });
        }
    }
    if cg * groups != c || k % groups != 0 {
        return Err(Error::Shape {
            op,
            name: "weight",
            expected: format!(
                "(K, {c} / {groups} groups, R, S) with K divisible by the groups, for {c} input channels"
            ),
            got: weight.to_vec(),
        });
    }
    for (name, dims) in [("xs", xs), ("weight", weight)] {
        if dims.contains(&0) {
            return Err(Error::Empty { op, name, got: dims.to_vec() });
        }
    }
    let out = |size: usize, taps: usize| {
        let (room, reach) = (size + 2 * padding, dilation * (taps - 1) + 1);
        (room >= reach).then(|| (room - reach) / stride + 1)
    };
    let (Some(p), Some(q)) = (out(h, r), out(w, s)) else {
        return Err(Error::Shape {
            op,
            name: "xs",
            expected: format!(
                "at least as large as the kernel {r}x{s} (dilation {dilation}) after padding by {padding}"
            ),
            got: xs.to_vec(),
        });
    };
    Ok(ConvShape { n, c, h, w, k, r, s, p, q, stride, padding, dilation, groups })
}

/// The output size of a pooling, after checking it.
pub(crate) fn pool(op: &'static str, xs: &Tensor, cfg: Pool2dConfig) -> Result<(usize, usize)> {
    let (_, _, h, w) = dims4(op, "xs", xs)?;
    let sizes = pool_sizes(op, (h, w), cfg)?;
    not_empty(op, "xs", xs)?;
    Ok(sizes)
}

/// The output size of a pooling of planes of `h` by `w`.
pub(crate) fn pool_sizes(
    op: &'static str,
    (h, w): (usize, usize),
    cfg: Pool2dConfig,
) -> Result<(usize, usize)> {
    for (name, value) in [("kernel", cfg.kernel), ("stride", cfg.stride)] {
        if value == 0 {
            return Err(Error::Config { op, name, value: "0".into(), reason: "must be at least 1" });
        }
    }
    if cfg.padding * 2 > cfg.kernel {
        return Err(Error::Config {
            op,
            name: "padding",
            value: cfg.padding.to_string(),
            reason: "must be at most half of the kernel, so that every window holds a pixel",
        });
    }
    let out =
        |size: usize| (size + 2 * cfg.padding).checked_sub(cfg.kernel).map(|room| room / cfg.stride + 1);
    match (out(h), out(w)) {
        (Some(p), Some(q)) => Ok((p, q)),
        _ => Err(Error::Shape {
            op,
            name: "xs",
            expected: format!("at least {0}x{0} after padding by {1}", cfg.kernel, cfg.padding),
            got: vec![h, w],
        }),
    }
}

pub(crate) fn dims4(
    op: &'static str,
    name: &'static str,
    xs: &Tensor,
) -> Result<(usize, usize, usize, usize)> {
    match *xs.dims() {
        [a, b, c, d] => Ok((a, b, c, d)),
        _ => Err(Error::Shape { op, name, expected: "of rank 4".into(), got: xs.dims().to_vec() }),
    }
}

pub(crate) fn dims2(op: &'static str, name: &'static str, xs: &Tensor) -> Result<(usize, usize)> {
    match *xs.dims() {
        [a, b] => Ok((a, b)),
        _ => Err(Error::Shape { op, name, expected: "of rank 2".into(), got: xs.dims().to_vec() }),
    }
}

/// The last dimension of a tensor of rank at least 1 with elements.
pub(crate) fn last(op: &'static str, xs: &Tensor) -> Result<usize> {
    not_empty(op, "xs", xs)?;
    xs.dims().last().copied().ok_or_else(|| Error::Shape {
        op,
        name: "xs",
        expected: "of rank at least 1".into(),
        got: vec![],
    })
}

pub(crate) fn not_empty(op: &'static str, name: &'static str, xs: &Tensor) -> Result<()> {
    if xs.elem_count() == 0 {
        return Err(Error::Empty { op, name, got: xs.dims().to_vec() });
    }
    Ok(())
}

/// An optional vector of `len` elements of the type of `xs`.
pub(crate) fn vector(
    op: &'static str,
    xs: &Tensor,
    name: &'static str,
    vector: Option<&Tensor>,
    len: usize,
) -> Result<()> {
    if let Some(v) = vector
        && v.dims() != [len]
    {
        return Err(Error::Shape { op, name, expected: format!("({len})"), got: v.dims().to_vec() });
    }
    same_dtype(op, xs, name, vector)
}

pub(crate) fn same_shape(
    op: &'static str,
    xs: &Tensor,
    name: &'static str,
    other: Option<&Tensor>,
) -> Result<()> {
    if let Some(t) = other
        && t.dims() != xs.dims()
    {
        return Err(Error::Shape {
            op,
            name,
            expected: format!("{:?} like xs", xs.dims()),
            got: t.dims().to_vec(),
        });
    }
    same_dtype(op, xs, name, other)
}

pub(crate) fn same_dtype(
    op: &'static str,
    xs: &Tensor,
    name: &'static str,
    other: Option<&Tensor>,
) -> Result<()> {
    match other {
        Some(t) if t.dtype() != xs.dtype() => {
            Err(Error::DType { op, name, got: t.dtype(), expected: xs.dtype() })
        }
        _ => Ok(()),
    }
}

/// `(N, C, inner)` of an input of batch norm: `(N, C)` or `(N, C, H, W)`.
pub(crate) fn batch_norm(
    op: &'static str,
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
) -> Result<(usize, usize, usize)> {
    let (n, c, inner) = match *xs.dims() {
        [n, c] => (n, c, 1),
        [n, c, h, w] => (n, c, h * w),
        _ => {
            return Err(Error::Shape {
                op,
                name: "xs",
                expected: "(N, C) or (N, C, H, W)".into(),
                got: xs.dims().to_vec(),
            });
        }
    };
    not_empty(op, "xs", xs)?;
    vector(op, xs, "weight", weight, c)?;
    vector(op, xs, "bias", bias, c)?;
    same_shape(op, xs, "residual", residual)?;
    positive(op, "eps", eps)?;
    Ok((n, c, inner))
}

pub(crate) fn positive(op: &'static str, name: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::Config { op, name, value: value.to_string(), reason: "must be positive and finite" })
}

/// The sizes of an attention, or what is wrong with them.
pub(crate) fn check_attention(q: &Tensor, k: &Tensor, v: &Tensor, cfg: AttentionConfig) -> Result<Heads> {
    const OP: &str = "attention";
    let (batch, heads, n, d) = dims4(OP, "q", q)?;
    let (_, _, m, _) = dims4(OP, "k", k)?;
    for (name, t) in [("k", k), ("v", v)] {
        if t.dims() != [batch, heads, m, d] {
            let expected = format!("({batch}, {heads}, M, {d}) with the same M for k and v, like q");
            return Err(Error::Shape { op: OP, name, expected, got: t.dims().to_vec() });
        }
        same_dtype(OP, q, name, Some(t))?;
        not_empty(OP, name, t)?;
    }
    not_empty(OP, "q", q)?;
    let scale = cfg.scale.unwrap_or(1.0 / (d as f64).sqrt());
    if !scale.is_finite() {
        let reason = "must be finite";
        return Err(Error::Config { op: OP, name: "scale", value: scale.to_string(), reason });
    }
    Ok(Heads { batch, heads, n, m, d, scale, causal: cfg.causal })
}

/// The sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) n: usize,
    pub(crate) m: usize,
    pub(crate) d: usize,
    pub(crate) scale: f64,
    pub(crate) causal: bool,
}

/// The geometry, or what is wrong with it.
pub(crate) fn check_patches(xs: &Tensor, patch: usize, last: bool) -> Result<Patches> {
    let op = if last { "patches_last" } else { "patches" };
    let (n, a, b, c) = dims4(op, "xs", xs)?;
    not_empty(op, "xs", xs)?;
    let (c, h, w) = if last { (c, a, b) } else { (a, b, c) };
    if patch == 0 || patch > h || patch > w {
        let reason = "must be at least 1 and at most the sides of the image";
        return Err(Error::Config { op, name: "patch", value: patch.to_string(), reason });
    }
    Ok(Patches { n, c, h, w, patch, last })
}

/// Copies pixels to their patches and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patches {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) patch: usize,
    pub(crate) last: bool,
}
