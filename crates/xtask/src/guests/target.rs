//! A compiler that knows the target of the guests.
//!
//! `rustup target add` has it where rustup's server can be reached. Elsewhere Debian's packages give the parts: a
//! compiler, the sources of the standard library and a C library; the standard library is then built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// What guests are compiled for.
pub const TARGET: &str = "wasm32-wasip2";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_TARGETS: &str = "/usr/lib/rustlib";
const DEBIAN_LIBC: &str = "/usr/lib/wasm32-wasi";
const DEBIAN_PACKAGES: [&str; 6] =
    ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc", "lld-22", "clang-19"];

/// Where a command begins. Debian's own calls the destructors after `exit` left the component: a guest with a
/// directory then traps with "cannot leave component instance".
const COMMAND_START: &str = r#"
extern void __wasm_call_ctors(void);
extern void __wasm_call_dtors(void);
extern int __main_void(void);
_Noreturn void __wasi_proc_exit(unsigned code);

__attribute__((export_name("_start"))) void _start(void) {
    static volatile int started;
    if (started)
        __builtin_trap();
    started = 1;
    __wasm_call_ctors();
    int code = __main_void();
    __wasm_call_dtors();
    if (code != 0)
        __wasi_proc_exit((unsigned)code);
}
"#;

/// The compiler of the guests.
pub struct Compiler {
    /// Where it is, unless cargo finds it by itself.
    pub path: Option<PathBuf>,
    /// What it calls itself.
    pub version: String,
}

/// Finds a compiler for the target, and installs one if there is none.
pub fn ensure() -> Result<Compiler> {
    if let Some(compiler) = find()? {
        return Ok(compiler);
    }
    println!("installing {TARGET}");
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if !added.is_ok_and(|status| status.success()) {
        println!("rustup cannot add {TARGET}; trying the parts that Debian has");
        install_from_debian()?;
    }
    find()?.with_context(|| format!("{TARGET} was installed and is not there"))
}

fn find() -> Result<Option<Compiler>> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        let version = output(Command::new("rustc").arg("--version"))?;
        return Ok(Some(Compiler { path: None, version }));
    }
    if has_std(&Path::new(DEBIAN_TARGETS).join(TARGET).join("lib")) {
        let version = output(Command::new(DEBIAN_RUSTC).arg("--version"))?;
        return Ok(Some(Compiler { path: Some(PathBuf::from(DEBIAN_RUSTC)), version }));
    }
    Ok(None)
}

/// A build that was broken off leaves the folder without the library.
fn has_std(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

fn install_from_debian() -> Result<()> {
    if !Path::new("/etc/debian_version").is_file() {
        bail!("no way to get {TARGET}: rustup failed, and this is no Debian");
    }
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(DEBIAN_PACKAGES);
    shell::run("apt-get", &arguments)?;
    link_linkers()?;
    let library = Path::new(DEBIAN_TARGETS).join(TARGET).join("lib");
    let startup = library.join("self-contained");
    fs::create_dir_all(&startup).context("installing a target needs root")?;
    let work = tempfile::tempdir()?;
    let source = work.path().join("start.c");
    fs::write(&source, COMMAND_START)?;
    let mut clang = Command::new("clang-19");
    clang.args(["--target=wasm32-wasi", "-Os", "-c"]).arg(&source);
    shell::execute(clang.arg("-o").arg(startup.join("crt1-command.o")))?;
    for file in ["crt1-reactor.o", "libc.a"] {
        fs::copy(Path::new(DEBIAN_LIBC).join(file), startup.join(file))?;
    }
    build_std(work.path(), &library)
}

/// The linkers come with rustup's toolchain; Debian's compiler looks for them on the PATH.
fn link_linkers() -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let tools = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin");
    for tool in ["rust-lld", "wasm-component-ld", "gcc-ld/wasm-ld"] {
        let source = tools.join(tool);
        let link = Path::new("/usr/local/bin").join(source.file_name().unwrap_or_default());
        if !source.exists() {
            bail!("{} is missing from rustup's toolchain", source.display());
        }
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(&source, &link)?;
    }
    Ok(())
}

/// Any program makes cargo build the standard library, which is then put where the compiler looks for it.
fn build_std(work: &Path, library: &Path) -> Result<()> {
    let (folder, target) = (work.join("std"), work.join("target"));
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("src/main.rs"), "fn main() {}\n")?;
    let manifest = "[package]\nname = \"std-for-guests\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
                    [profile.release]\nlto = true\npanic = \"abort\"\n";
    fs::write(folder.join("Cargo.toml"), manifest)?;
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo
        .args(["build", "--quiet", "--release", "--target", TARGET, "-Zbuild-std=std,panic_abort"])
        .current_dir(&folder)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", DEBIAN_RUSTC)
        .env("CARGO_TARGET_DIR", &target);
    shell::execute(&mut cargo)?;
    for entry in fs::read_dir(target.join(TARGET).join("release/deps"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "rlib") {
            fs::copy(&file, library.join(file.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
