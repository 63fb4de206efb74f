//! The Wasm engine: wasmtime, modules and components, WASI, wasi:http, limits, cache.
