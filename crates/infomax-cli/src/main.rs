//! The infomax command.
fn main() {}
