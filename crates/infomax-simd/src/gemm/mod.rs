//! Matrix products: register tiles, and products whose right side is packed once.

mod micro;
mod panels;

pub use micro::{ACROSS, BLOCK, DOTS, Map, dots, outer, pack_columns, pack_rows, zeros};
pub use panels::*;
