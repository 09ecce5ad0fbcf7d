//! Feature maps in blocks of images: the layout in which a residual network trains fastest on a CPU.

mod buffer;
mod conv;
mod direct;
mod layout;
mod norm;
mod pool;
#[cfg(test)]
mod tests;
mod tile;
mod unit;
mod winograd;

pub use layout::Blocked;
pub use unit::{BatchStats, ConvNorm, ResidualOutput, ResidualUnit, Shortcut};
