//! Where the programs under test and the tools are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

/// The binary that users run, built beside this test.
///
/// # Panics
/// When it was not built: `cargo build` makes it, `cargo xtask ci` does that first.
pub fn binary() -> PathBuf {
    let own = env::current_exe().expect("this test has a path");
    let folder = own.ancestors().nth(2).expect("target/debug/deps/stories");
    let binary = folder.join("coracle");
    assert!(binary.is_file(), "{} is not built: run cargo build first", binary.display());
    binary
}

/// The newest `kubectl`, and the one on the PATH when it is another.
///
/// # Panics
/// When the tools were not fetched: `cargo xtask tools` does that.
pub fn kubectls() -> Vec<PathBuf> {
    let newest = root().join(".test-tools/kubectl");
    assert!(newest.is_file(), "{} is missing: run cargo xtask tools first", newest.display());
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&path).map(|folder| folder.join("kubectl"));
    let mut found = vec![newest];
    found.extend(installed.into_iter().find(|candidate| candidate.is_file()));
    found
}

/// Helm.
///
/// # Panics
/// When the tools were not fetched: `cargo xtask tools` does that.
pub fn helm() -> PathBuf {
    let helm = root().join(".test-tools/helm");
    assert!(helm.is_file(), "{} is missing: run cargo xtask tools first", helm.display());
    helm
}

/// A Python program of `tests/python`, with the PyPI client `kubernetes` in reach and nobody's settings.
///
/// # Panics
/// When the client was not fetched: `cargo xtask tools` does that.
pub fn python(program: &str) -> Command {
    let client = root().join(".test-tools/python");
    assert!(client.is_dir(), "{} is missing: run cargo xtask tools first", client.display());
    let mut command = Command::new("python3");
    command.arg(root().join("tests/python").join(program)).env("PYTHONPATH", client);
    // The interpreter would write what it compiled beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A guest that does what its arguments (`probe`) or its requests (`web`) say.
pub fn test_guest(name: &str) -> PathBuf {
    root().join("crates/runtime-wasm/tests/guests").join(name).join(format!("{name}.wasm"))
}

/// The folder of an example, with its manifest and its module.
pub fn examples(name: &str) -> PathBuf {
    root().join("examples/wasm").join(name)
}
