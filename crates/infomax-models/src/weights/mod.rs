//! Weights that come from other libraries and go to them: names, shapes, and the code that loads them there.

mod export;
mod import;
mod naming;
mod positions;
mod python;

pub use export::{Export, export_encoder};
pub use import::{Initialized, init_encoder, init_student};
pub use naming::Naming;
