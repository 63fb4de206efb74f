//! The Wasm engine: wasmtime, modules and components, WASI, wasi:http, limits, cache.
//!
//! Start at [`WasmRuntime`] in `runtime.rs`; `start.rs` is how a container begins, `command.rs` and `server.rs` how it
//! runs, `guest.rs` what it sees, `ending.rs` how it ends. `programs.rs` compiles and keeps modules, `images.rs` is the
//! node's image store, which also works without a running engine.
//!
//! Always true: a guest sees what its spec grants and nothing else. Each guest gives its thread back at every tick, so
//! it can be stopped, throttled and shared with. A module is compiled once. No request waits for a log or a compiler.
//! Deliberately absent: signals, which WASI does not have; WASI 0.3; anything that survives the process.

mod command;
mod container;
mod cpu;
mod ending;
mod engine;
mod epochs;
mod guest;
mod images;
mod memory;
mod mounts;
mod network;
mod options;
mod outgoing;
mod programs;
mod runtime;
mod server;
mod sockets;
mod start;
mod workers;

pub use images::{ImageName, ImageStore};
pub use options::{Options, PodNet, PodNetError};
pub use runtime::{OpenError, WasmRuntime};
pub use server::NotTaken;
