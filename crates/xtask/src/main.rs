//! What CI and developers run: `cargo xtask --help`.

mod bench;
mod ci;
mod fuzz;
mod guests;
mod schema;
mod shell;
mod tidy;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What CI and developers run.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// All that must hold before a change lands: format, lints, tidy, guests, every test.
    Ci,
    /// Check the rules that no compiler knows: the edges between crates, the length of files.
    Tidy,
    /// Fetch the tools that the tests use (kubectl, helm, the Python client) into .test-tools.
    Tools,
    /// Build the Wasm guests from their sources, or check that the committed ones come from them.
    Guests(guests::Arguments),
    /// Generate crates/api/schema from the published Kubernetes types.
    Schema(schema::Arguments),
    /// Give every decoder of bytes from outside many wrong inputs, for a minute each.
    Fuzz(fuzz::Arguments),
    /// Measure what the README claims.
    Bench(bench::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Ci => ci::run(),
        Task::Tidy => tidy::run(),
        Task::Tools => tools::run(),
        Task::Guests(arguments) => guests::run(&arguments),
        Task::Schema(arguments) => schema::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
    }
}
