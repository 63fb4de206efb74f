//! Fuzz targets: one for every decoder that takes bytes from outside.
//!
//! Start reading at [`TARGETS`]. A target takes any bytes; it must not panic, hang, exhaust memory or the stack, and what it
//! accepts must obey the laws that it checks. The same functions run in two ways: `cargo xtask fuzz` runs each for a while
//! with the mutator of this crate, which any compiler can do, and CI does; `cargo fuzz run NAME` in `fuzz/` runs one with
//! libFuzzer, guided by coverage, which needs a nightly compiler.

mod mutate;
mod targets;

pub use mutate::Mutator;
pub use targets::{TARGETS, Target, target};
