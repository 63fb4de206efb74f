//! Wasm guests: built from their sources, and checked against them.
//!
//! The examples and the engine's test guests are committed, so that nobody needs a compiler for Wasm to try or to test
//! Coracle. [`RECORD`] says for each which sources and which compiler it was made from. [`check_sources`] compares that
//! in a moment; `cargo xtask guests --check` builds everything again and compares the bytes.

mod target;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::shell;
use target::{Compiler, TARGET};

/// Where guests are, each in a folder that has its name.
const FOLDERS: [&str; 2] = ["examples/wasm", "crates/runtime-wasm/tests/guests"];

/// What each committed guest was made from.
const RECORD: &str = "examples/wasm/guests.json";

/// The options of `cargo xtask guests`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Change nothing: build again and compare with what is committed.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    /// The digest of the guest's manifest, lock file and sources.
    sources: String,
    /// The digest of the module.
    module: String,
    /// The compiler: another one makes other bytes of the same sources.
    compiler: String,
}

struct Guest {
    name: String,
    folder: PathBuf,
}

/// Builds every guest and records what it was made from, or checks what is there.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.check {
        check_sources()?;
    }
    let compiler = target::ensure()?;
    let mut record = BTreeMap::new();
    for guest in guests()? {
        let module = build(&guest, &compiler)?;
        if arguments.check {
            compare(&guest, &module, &compiler)?;
        } else {
            fs::copy(&module, guest.module())
                .with_context(|| format!("cannot write {}", guest.name))?;
            record.insert(guest.name.clone(), guest.made(compiler.version.clone())?);
        }
    }
    if !arguments.check {
        let text = serde_json::to_string_pretty(&record)? + "\n";
        fs::write(shell::root().join(RECORD), text).context("cannot write the record")?;
    }
    Ok(())
}

/// Compares each committed guest with the sources that it was made from; builds nothing.
pub fn check_sources() -> Result<()> {
    let record = read_record()?;
    let guests = guests()?;
    for guest in &guests {
        let made = record.get(&guest.name);
        let made = made.with_context(|| format!("guest {} was never built", guest.name))?;
        if *made != guest.made(made.compiler.clone())? {
            bail!("guest {} is not made from its sources: run `cargo xtask guests`", guest.name);
        }
    }
    if let Some(gone) = record.keys().find(|name| guests.iter().all(|guest| guest.name != **name)) {
        bail!("guest {gone} is recorded and has no folder: run `cargo xtask guests`");
    }
    println!("{} guests come from their sources", guests.len());
    Ok(())
}

fn read_record() -> Result<BTreeMap<String, Made>> {
    let text = fs::read_to_string(shell::root().join(RECORD)).context("no guest was ever built")?;
    Ok(serde_json::from_str(&text)?)
}

fn guests() -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for parent in FOLDERS {
        for entry in fs::read_dir(shell::root().join(parent))? {
            let folder = entry?.path();
            if folder.join("Cargo.toml").is_file() {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                guests.push(Guest { name, folder });
            }
        }
    }
    guests.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(guests)
}

/// Builds one guest and answers where its module is.
fn build(guest: &Guest, compiler: &Compiler) -> Result<PathBuf> {
    let root = fs::canonicalize(shell::root())?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory).join("guests"),
        None => root.join("target/guests"),
    };
    let mut command = Command::new("cargo");
    command
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
        .current_dir(&guest.folder)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", remapped_paths(&root));
    if let Some(path) = &compiler.path {
        command.env("RUSTC", path);
    }
    println!("building {}", guest.name);
    shell::execute(&mut command)?;
    Ok(target.join(TARGET).join("release").join(format!("{}.wasm", guest.name)))
}

/// Panics name source files: without this each machine would make other bytes.
fn remapped_paths(root: &Path) -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    format!("--remap-path-prefix={cargo}=/cargo --remap-path-prefix={}=/coracle", root.display())
}

fn compare(guest: &Guest, module: &Path, compiler: &Compiler) -> Result<()> {
    let record = read_record()?;
    let made = record.get(&guest.name).with_context(|| format!("guest {} is new", guest.name))?;
    if made.compiler != compiler.version {
        println!(
            "{}: made by {}, and here is {}: bytes not compared",
            guest.name, made.compiler, compiler.version
        );
    } else if fs::read(module)? != fs::read(guest.module())? {
        bail!("guest {} differs from what its sources make: run `cargo xtask guests`", guest.name);
    }
    Ok(())
}

impl Guest {
    fn module(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }

    fn made(&self, compiler: String) -> Result<Made> {
        let module =
            fs::read(self.module()).with_context(|| format!("no module of {}", self.name))?;
        let module = format!("{:x}", Sha256::digest(module));
        Ok(Made { sources: self.sources()?, module, compiler })
    }

    fn sources(&self) -> Result<String> {
        let mut files = vec![self.folder.join("Cargo.toml"), self.folder.join("Cargo.lock")];
        add_files(&self.folder.join("src"), &mut files)?;
        files.sort();
        let mut digest = Sha256::new();
        for file in files {
            let bytes =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.strip_prefix(&self.folder)?.to_string_lossy().into_owned();
            digest.update(format!("{name}\0{}\0", bytes.len()));
            digest.update(bytes);
        }
        Ok(format!("{:x}", digest.finalize()))
    }
}

fn add_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
