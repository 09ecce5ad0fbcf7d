//! Prints the table of `docs/ranks-traffic.md`: what every named objective exchanges in a step.
//!
//! `cargo run -p infomax-losses --example ranks_traffic`
#![allow(clippy::unwrap_used, unreachable_pub)] // Shared with a test.

#[path = "../tests/common/traffic.rs"]
mod traffic;

#[allow(clippy::print_stdout)] // An example prints.
fn main() {
    print!("{}", traffic::table(&traffic::measure()));
}
