//! Placeholder until the function lands.
fn main() {}
