//! The rules that no compiler knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell::root;

/// Who may depend on whom, inside the workspace. A new edge is a design decision: its own commit, its own reason.
const EDGES: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("cel", &[]),
    ("store", &["api"]),
    ("apiserver", &["api", "cel", "store"]),
    ("reconcile", &["api"]),
    ("controllers", &["api", "reconcile"]),
    ("scheduler", &["api", "reconcile"]),
    ("network", &["api", "reconcile"]),
    ("runtime", &["api"]),
    ("kubelet", &["api", "reconcile", "runtime"]),
    ("runtime-wasm", &["api", "runtime"]),
    (
        "coracle",
        &[
            "api",
            "store",
            "apiserver",
            "reconcile",
            "controllers",
            "scheduler",
            "kubelet",
            "network",
            "runtime",
            "runtime-wasm",
        ],
    ),
    ("bench", &["api", "store"]),
    ("fuzz", &["api", "cel", "store", "apiserver"]),
    ("xtask", &["api", "store"]),
];

/// Beyond this a file, its tests apart, holds two ideas.
const LINES: usize = 700;

/// Words that must not stay in the code.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!(", "FIXME", "XXX"];

/// Checks every rule and reports all that is broken.
pub fn run() -> Result<()> {
    let mut broken = Vec::new();
    check_edges(&mut broken)?;
    check_files(&root().join("crates"), &mut broken)?;
    check_files(&root().join("tests"), &mut broken)?;
    if broken.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n  {}", broken.join("\n  "));
}

fn check_edges(broken: &mut Vec<String>) -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for entry in fs::read_dir(root().join("crates"))? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let manifest = fs::read_to_string(folder.join("Cargo.toml"))
            .with_context(|| format!("no manifest in crates/{name}"))?;
        let Some(allowed) = allowed.get(name.as_str()) else {
            broken.push(format!("crates/{name}: not in the table of edges"));
            continue;
        };
        // Tests may wire what the product keeps apart.
        let product = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in product.lines() {
            let Some(target) = line.strip_prefix("coracle-") else { continue };
            let target = target.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&target) {
                broken.push(format!("crates/{name}: may not depend on {target}"));
            }
        }
    }
    Ok(())
}

fn check_files(folder: &Path, broken: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            check_files(&path, broken)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            check_file(&path, broken)?;
        }
    }
    Ok(())
}

/// Tables of cases and stories may be long: nobody reads them from one end to the other.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "stories")
}

fn check_file(path: &Path, broken: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let shown = path.strip_prefix(root()).unwrap_or(path).display();
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = product.lines().count();
    if lines > LINES && !is_test(path) {
        broken.push(format!("{shown}: {lines} lines, the limit is {LINES}"));
    }
    for word in UNFINISHED {
        if text.contains(word) && !path.ends_with("tidy.rs") {
            broken.push(format!("{shown}: says {word}"));
        }
    }
    Ok(())
}
