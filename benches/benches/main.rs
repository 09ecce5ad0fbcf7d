//! The benchmarks of the workspace: `cargo xtask bench [--filter TEXT]`.
//!
//! Identifiers are `group/device/op/dtype/shape`; inputs have fixed seeds. Under `cargo test` every
//! benchmark runs once, on small inputs.

#![allow(clippy::unwrap_used)] // A benchmark that cannot run should stop.

mod augment;
mod data;
mod eval;
mod kernels;
mod losses;
mod models;

criterion::criterion_group!(
    all,
    kernels::benches,
    losses::benches,
    augment::benches,
    data::benches,
    models::benches,
    eval::benches
);
criterion::criterion_main!(all);
