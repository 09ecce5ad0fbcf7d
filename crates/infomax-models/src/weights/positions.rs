//! Class token, registers and positions of vision transformers between the forms in which libraries keep them.

use crate::positions::resample;
use crate::{Result, VitConfig};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// timm's positions cover the registers as well; here they have none, so theirs are zero there.
pub(super) fn with_registers(positions: &Tensor, registers: usize) -> Result<Tensor> {
    let (_, length, width) = positions.dims3()?;
    let zeros = Tensor::zeros((1, registers, width), positions.dtype(), positions.device())?;
    Ok(Tensor::cat(&[&positions.narrow(1, 0, 1)?, &zeros, &positions.narrow(1, 1, length - 1)?], 1)?)
}

/// Brings the tensors of a vision transformer from elsewhere, under our names, into the form that ours has, and says
/// what was done.
///
/// - Positions of the registers are added to the registers: what enters the first layer is the same.
/// - Positions without one for the class token (`no_embed_class`) get a zero there.
/// - Positions of another square grid are interpolated.
/// - A layer scale (`blocks.0.ls1.gamma`) is multiplied into the map before it, which gives the same function.
///
/// What does not have the shapes for it is left as it is: the comparison with the model names it.
pub(super) fn adapt(cfg: &VitConfig, tensors: &mut BTreeMap<String, Tensor>) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    positions(cfg, tensors, &mut notes)?;
    let mut folded = 0;
    for layer in 0..cfg.depth {
        for (scale, map) in [("ls1", "attn.proj"), ("ls2", "mlp.fc2")] {
            folded += usize::from(fold(&format!("blocks.{layer}"), scale, map, tensors)?);
        }
    }
    if folded > 0 {
        notes.push(format!(
            "{folded} layer scales (`ls1.gamma`, `ls2.gamma`) were multiplied into the maps before them: the same function"
        ));
    }
    Ok(notes)
}

fn fold(block: &str, scale: &str, map: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<bool> {
    let name = format!("{block}.{scale}.gamma");
    let (weight, bias) = (format!("{block}.{map}.weight"), format!("{block}.{map}.bias"));
    let (Some(gamma), Some(w), Some(b)) = (tensors.get(&name), tensors.get(&weight), tensors.get(&bias))
    else {
        return Ok(false);
    };
    if gamma.rank() != 1 || w.rank() != 2 || w.dims()[0] != gamma.dims()[0] || b.dims() != gamma.dims() {
        return Ok(false);
    }
    let (w, b) = (w.broadcast_mul(&gamma.unsqueeze(1)?)?, (b * gamma)?);
    tensors.insert(weight, w);
    tensors.insert(bias, b);
    tensors.remove(&name);
    Ok(true)
}

fn positions(cfg: &VitConfig, tensors: &mut BTreeMap<String, Tensor>, notes: &mut Vec<String>) -> Result<()> {
    const NAME: &str = "pos_embed";
    let Some(given) = tensors.get(NAME).cloned() else { return Ok(()) };
    let Ok((1, length, width)) = given.dims3() else { return Ok(()) };
    let registers = match tensors.get("reg_token").map(Tensor::dims) {
        Some(&[1, count, d]) if d == width => count,
        _ => 0,
    };
    let grid = cfg.image / cfg.patch.max(1);
    let Some((prefix, old)) = split(length, registers, grid) else { return Ok(()) };
    let class = match prefix {
        0 => {
            notes.push("its positions have none for the class token: a zero was put there".to_owned());
            Tensor::zeros((1, 1, width), given.dtype(), given.device())?
        }
        _ => given.narrow(1, 0, 1)?,
    };
    if prefix > 1 {
        let of_registers = given.narrow(1, 1, registers)?;
        if let Some(tokens) = tensors.get("reg_token") {
            let tokens = (tokens + of_registers)?;
            tensors.insert("reg_token".to_owned(), tokens);
            notes.push("the positions of the registers were added to the registers".to_owned());
        }
    }
    let mut patches = given.narrow(1, prefix, old * old)?;
    if old != grid {
        patches = resample(&patches, old, (grid, grid))?;
        notes.push(format!(
            "the positions of a grid of {old}x{old} patches were interpolated to {grid}x{grid} (bicubic with anti-aliasing)"
        ));
    }
    tensors.insert(NAME.to_owned(), Tensor::cat(&[class, patches], 1)?);
    Ok(())
}

/// How many of `length` positions are not of patches, and the side of the grid of the rest. The grid of the model is
/// preferred where several are possible.
fn split(length: usize, registers: usize, grid: usize) -> Option<(usize, usize)> {
    let mut possible = Vec::new();
    for prefix in [1 + registers, 1, 0] {
        let patches = length.checked_sub(prefix)?;
        let side = patches.isqrt();
        if side > 0 && side * side == patches {
            possible.push((prefix, side));
        }
    }
    possible.iter().find(|(_, side)| *side == grid).or(possible.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_length_is_split_into_prefix_and_grid() {
        assert_eq!(split(197, 0, 14), Some((1, 14)));
        assert_eq!(split(201, 4, 14), Some((5, 14)));
        assert_eq!(split(197, 4, 7), Some((1, 14)));
        assert_eq!(split(196, 4, 14), Some((0, 14)));
        assert_eq!(split(4, 3, 2), Some((0, 2)));
        assert_eq!(split(8, 0, 3), None);
    }
}
