//! Device check.
fn main() {}
