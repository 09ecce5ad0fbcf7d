//! Feature maps in blocks of images: the layout in which a residual network trains fastest on a CPU.
//!
//! `layout` is the way in and out; `tile` holds the two register tiles; `direct` and `winograd` bring
//! convolutions to them, `dot_pairs` and `tiles` those of maps in bf16 where there are instructions for it; `norm` and
//! `pool` are the passes between; `unit` makes one operation of a chain of residual units.

mod buffer;
mod conv;
mod direct;
mod dot_pairs;
mod layer;
mod layout;
mod norm;
mod points;
mod pool;
#[cfg(test)]
mod tests;
mod tile;
mod tiles;
mod unit;
mod winograd;
mod winograd_weight;

pub use layout::Blocked;
pub use unit::{BatchStats, ConvNorm, ResidualOutput, ResidualUnit, Shortcut};
