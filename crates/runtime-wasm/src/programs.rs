//! From an image's digest to something that starts in microseconds.
//!
//! Each module is compiled once for its digest and engine version: off the async threads, a bounded number at a time,
//! with the result in `compiled/`, mapped by later starts. Many pods that start the same image wait for one compilation.

use std::collections::HashMap;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore, oneshot};
use wasmtime::component::{self, Component};
use wasmtime::{Engine, InstancePre, Module, UnknownImportError};
use wasmtime_wasi::p2::bindings::{CommandPre, cli::environment};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::engine::Engines;
use crate::guest::{Environment, Guest, ModuleGuest};
use crate::images::replace_file;

/// Programs kept ready. Those that containers run are kept beyond it.
const PROGRAMS_KEPT: usize = 256;

/// Compilation is background work; the control plane goes first.
const COMPILE_NICENESS: i32 = 10;

/// The message of a broken module: a line, not a page.
const CAUSE_CHARS: usize = 600;

/// What an image turned out to be, ready to be instantiated.
pub(crate) struct Program {
    pub(crate) kind: Kind,
    /// What an instance holds from the start.
    pub(crate) minimum_memory: u64,
}

pub(crate) enum Kind {
    /// A core module of WASI preview 1.
    Module(InstancePre<ModuleGuest>),
    /// A component that runs and ends: `wasi:cli/run`.
    Command(CommandPre<Guest>),
    /// A component that answers requests: `wasi:http/incoming-handler`.
    Http(ProxyPre<Guest>),
}

/// Why an image is no program.
#[derive(Debug, Clone)]
pub(crate) enum LoadError {
    Invalid(String),
    MissingImport(String),
    Failed { attempt: String, kind: io::ErrorKind, cause: String },
}

pub(crate) struct Programs {
    engines: Arc<Engines>,
    directory: PathBuf,
    compilations: Arc<Semaphore>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    pooled: Linkers,
}

type Slot = OnceCell<Result<Arc<Program>, LoadError>>;

/// The host functions, for one engine.
#[derive(Clone)]
struct Linkers {
    module: Arc<wasmtime::Linker<ModuleGuest>>,
    component: Arc<component::Linker<Guest>>,
}

/// What one compilation needs, on its own thread.
struct Job {
    engines: Arc<Engines>,
    pooled: Linkers,
    directory: PathBuf,
    digest: String,
    blob: PathBuf,
}

impl Programs {
    pub(crate) fn open(
        data_dir: &Path,
        engines: &Arc<Engines>,
        parallelism: usize,
    ) -> wasmtime::Result<Self> {
        let directory = data_dir.join("compiled");
        fs::create_dir_all(&directory)?;
        // What is mapped from here is run: nobody else may write it.
        #[cfg(unix)]
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        remove_stale(&directory, &suffix(engines))?;
        Ok(Self {
            engines: Arc::clone(engines),
            directory,
            compilations: Arc::new(Semaphore::new(parallelism.max(1))),
            slots: Mutex::default(),
            pooled: Linkers::new(engines.pooled())?,
        })
    }

    /// The program of a digest; `blob` is where its bytes are.
    pub(crate) async fn load(
        &self,
        digest: &str,
        blob: PathBuf,
    ) -> Result<Arc<Program>, LoadError> {
        let slot = self.slot(digest);
        let made = slot.get_or_init(|| self.make(digest, blob)).await.clone();
        if let Err(LoadError::Failed { .. }) = &made {
            // The disk may do better next time.
            self.slots.lock().remove(digest);
        }
        made
    }

    fn slot(&self, digest: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(digest) {
            return Arc::clone(slot);
        }
        if slots.len() >= PROGRAMS_KEPT {
            slots.retain(|_, slot| match slot.get() {
                Some(Ok(program)) => Arc::strong_count(program) > 1,
                Some(Err(_)) => false,
                None => true,
            });
        }
        Arc::clone(slots.entry(digest.to_owned()).or_default())
    }

    async fn make(&self, digest: &str, blob: PathBuf) -> Result<Arc<Program>, LoadError> {
        let job = Job {
            engines: Arc::clone(&self.engines),
            pooled: self.pooled.clone(),
            directory: self.directory.clone(),
            digest: digest.to_owned(),
            blob,
        };
        let ended = || failed("compile a module", &io::Error::other("the compilation ended"));
        let permit = Arc::clone(&self.compilations).acquire_owned().await.map_err(|_| ended())?;
        let (send, receive) = oneshot::channel();
        // Whoever waits may go away; what was begun is finished, for the next one.
        let spawned = std::thread::Builder::new().name("compile".to_owned()).spawn(move || {
            // On Linux niceness belongs to the thread. Without it the work is done all the same.
            let _ = rustix::process::nice(COMPILE_NICENESS);
            let _ = send.send(job.run());
            drop(permit);
        });
        spawned.map_err(|error| failed("start a thread that compiles", &error))?;
        receive.await.unwrap_or_else(|_| Err(ended())).map(Arc::new)
    }
}

impl Linkers {
    fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut module = wasmtime::Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut module, |guest: &mut ModuleGuest| {
            &mut guest.p1
        })?;
        let mut component = component::Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut component)?;
        crate::sockets::add_to_linker(&mut component)?;
        component.allow_shadowing(true);
        environment::add_to_linker::<Guest, Environment<'static>>(&mut component, |guest| {
            Environment(guest.grants())
        })?;
        component.allow_shadowing(false);
        Ok(Self { module: Arc::new(module), component: Arc::new(component) })
    }
}

impl Job {
    fn run(&self) -> Result<Program, LoadError> {
        let hex = self.digest.strip_prefix("sha256:").unwrap_or(&self.digest);
        let path = self.directory.join(format!("{hex}{}", suffix(&self.engines)));
        if path.exists() {
            match self.map(&path) {
                // A file of ours that cannot be mapped was damaged: make it again.
                Err(LoadError::Invalid(cause)) => {
                    tracing::warn!(digest = self.digest, cause, "compiled module dropped");
                }
                answer => return answer,
            }
        }
        let bytes = fs::read(&self.blob).map_err(|error| failed("read a module", &error))?;
        let compiled = self.compile(&bytes)?;
        replace_file(&path, &compiled).map_err(|error| failed("keep a compiled module", &error))?;
        self.map(&path)
    }

    fn compile(&self, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let invalid = |cause: &str| LoadError::Invalid(cause.to_owned());
        if format!("sha256:{:x}", Sha256::digest(bytes)) != self.digest {
            return Err(invalid("its content was changed on disk"));
        }
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(invalid(match bytes {
                [] => "it is empty",
                _ => "it ends within its first 4 bytes",
            }));
        };
        if magic != b"\0asm" {
            return Err(invalid("it is not a WebAssembly binary: it does not begin with \\0asm"));
        }
        let engine = self.engines.pooled();
        let compiled = match rest.first_chunk::<4>() {
            Some([1, 0, 0, 0]) => engine.precompile_module(bytes),
            Some([13, 0, 1, 0]) => engine.precompile_component(bytes),
            Some(version) => return Err(invalid(&format!("its version {version:?} is unknown"))),
            None => return Err(invalid("it ends within its first 8 bytes")),
        };
        compiled.map_err(|error| LoadError::Invalid(one_line(&error)))
    }

    /// Maps the compiled file into the engine with pools, or if it does not fit those into the other.
    fn map(&self, path: &Path) -> Result<Program, LoadError> {
        match self.map_into(path, self.engines.pooled(), &self.pooled) {
            Err(LoadError::Invalid(first)) => {
                let internal = |error: wasmtime::Error| LoadError::Invalid(one_line(&error));
                let roomy = self.engines.roomy().map_err(internal)?;
                let linkers = Linkers::new(roomy).map_err(internal)?;
                tracing::info!(
                    digest = self.digest,
                    cause = first,
                    "module does not fit the pools"
                );
                self.map_into(path, roomy, &linkers)
            }
            answer => answer,
        }
    }

    fn map_into(
        &self,
        path: &Path,
        engine: &Engine,
        linkers: &Linkers,
    ) -> Result<Program, LoadError> {
        let invalid = |error: wasmtime::Error| LoadError::Invalid(one_line(&error));
        let precompiled = Engine::detect_precompiled_file(path).map_err(|error| {
            failed("read a compiled module", &io::Error::other(error.to_string()))
        })?;
        match precompiled {
            Some(wasmtime::Precompiled::Module) => {
                // SAFETY: the file lies in a directory that only we may write, and this code wrote it.
                let module = unsafe { Module::deserialize_file(engine, path) }.map_err(invalid)?;
                module_program(&linkers.module, &module)
            }
            Some(wasmtime::Precompiled::Component) => {
                // SAFETY: as above.
                let component =
                    unsafe { Component::deserialize_file(engine, path) }.map_err(invalid)?;
                component_program(engine, &linkers.component, &component)
            }
            None => Err(LoadError::Invalid("its compiled file is damaged".to_owned())),
        }
    }
}

/// Names the engine's version and settings: other ones cannot map the same file.
fn suffix(engines: &Engines) -> String {
    let mut version = Fnv(0xcbf2_9ce4_8422_2325);
    engines.pooled().precompile_compatibility_hash().hash(&mut version);
    format!("-{:016x}.cwasm", version.finish())
}

/// Removes what other versions compiled, and what a killed process left half written.
fn remove_stale(directory: &Path, suffix: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().ends_with(suffix) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn module_program(
    linker: &wasmtime::Linker<ModuleGuest>,
    module: &Module,
) -> Result<Program, LoadError> {
    if module.get_export("_start").and_then(|export| export.func().cloned()).is_none() {
        return Err(LoadError::Invalid("it exports no function _start".to_owned()));
    }
    let minimum_memory = module
        .resources_required()
        .max_initial_memory_size
        .map_or(0, |pages| pages.saturating_mul(64 * 1024));
    match linker.instantiate_pre(module) {
        Ok(pre) => Ok(Program { kind: Kind::Module(pre), minimum_memory }),
        Err(error) => Err(match error.downcast_ref::<UnknownImportError>() {
            Some(import) => {
                LoadError::MissingImport(format!("{}::{}", import.module(), import.name()))
            }
            None => LoadError::Invalid(one_line(&error)),
        }),
    }
}

fn component_program(
    engine: &Engine,
    linker: &component::Linker<Guest>,
    component: &Component,
) -> Result<Program, LoadError> {
    let invalid = |error: wasmtime::Error| LoadError::Invalid(one_line(&error));
    let minimum_memory = component
        .resources_required()
        .and_then(|required| required.max_initial_memory_size)
        .map_or(0, |pages| pages.saturating_mul(64 * 1024));
    let exports = |interface: &str| {
        component.component_type().exports(engine).any(|(name, _)| name.starts_with(interface))
    };
    let (http, command) =
        (exports("wasi:http/incoming-handler@0.2."), exports("wasi:cli/run@0.2."));
    let pre = linker.instantiate_pre(component).map_err(|error| missing_import(&error))?;
    let kind = if http {
        Kind::Http(ProxyPre::new(pre).map_err(invalid)?)
    } else if command {
        Kind::Command(CommandPre::new(pre).map_err(invalid)?)
    } else {
        let cause = "it exports neither wasi:cli/run nor wasi:http/incoming-handler of WASI 0.2";
        return Err(LoadError::Invalid(cause.to_owned()));
    };
    Ok(Program { kind, minimum_memory })
}

/// wasmtime tells it in words: "component imports instance `a:b/c`, but …: instance export `f` has the wrong type: …".
fn missing_import(error: &wasmtime::Error) -> LoadError {
    let text = format!("{error:#}");
    let mut quoted = text.split('`').skip(1).step_by(2);
    match (text.contains("component imports"), quoted.next(), quoted.next()) {
        (true, Some(interface), Some(function)) => {
            LoadError::MissingImport(format!("{interface}#{function}"))
        }
        (true, Some(interface), None) => LoadError::MissingImport(interface.to_owned()),
        _ => LoadError::Invalid(one_line(error)),
    }
}

fn failed(attempt: &str, error: &io::Error) -> LoadError {
    LoadError::Failed { attempt: attempt.to_owned(), kind: error.kind(), cause: error.to_string() }
}

fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CAUSE_CHARS).collect()
}

/// A hash that stays the same from one build of ours to the next, unlike the standard library's.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
