//! What one instance of a guest sees of the world: exactly what its pod grants.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use coracle_runtime::{LogStream, LogWriter, log::Stream};
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::cli::environment;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::memory::{InstanceMemory, MemoryBudget};
use crate::network::PodNetwork;
use crate::outgoing::Hooks;
use crate::sockets::may_use;

/// How much a guest may write to its output at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Files, sockets, headers and the like that an instance may hold: they are the host's memory.
const HANDLES_MAX: usize = 65_536;

/// What a container's spec grants to each of its instances.
pub(crate) struct Grants {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) preopens: Vec<Preopen>,
    /// The same directories, open: made by the first component instance, so that the others need not ask the system.
    pub(crate) opened: OnceLock<WasiFilesystemCtx>,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) log: LogWriter,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) hooks: Hooks,
}

/// A directory that a guest may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preopen {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) read_only: bool,
}

/// The state of one component instance.
pub(crate) struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    hooks: Hooks,
    memory: InstanceMemory,
    grants: Arc<Grants>,
}

/// The state of one instance of a core module.
pub(crate) struct ModuleGuest {
    pub(crate) p1: WasiP1Ctx,
    memory: InstanceMemory,
}

/// What both kinds of state have.
pub(crate) trait Instance: Send + Sized + 'static {
    fn new(grants: &Arc<Grants>) -> io::Result<Self>;
    fn memory(&mut self) -> &mut InstanceMemory;
}

/// A store that yields at every tick and stays in its limits.
pub(crate) fn new_store<T: Instance>(
    engine: &Engine,
    grants: &Arc<Grants>,
) -> io::Result<Store<T>> {
    let mut store = Store::new(engine, T::new(grants)?);
    store.limiter(|guest| guest.memory());
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
    store.set_epoch_deadline(1);
    Ok(store)
}

impl Grants {
    fn wasi(&self) -> WasiCtxBuilder {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(Output { log: self.log.clone(), stream: Stream::Stdout });
        wasi.stderr(Output { log: self.log.clone(), stream: Stream::Stderr });
        wasi.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
        let network = Arc::clone(&self.network);
        wasi.socket_addr_check(move |address, purpose| {
            let allowed = may_use(&network, address, purpose);
            Box::pin(std::future::ready(allowed))
        });
        wasi
    }

    fn open_preopens(&self, wasi: &mut WasiCtxBuilder) -> io::Result<()> {
        for preopen in &self.preopens {
            let perms = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            wasi.preopened_dir(&preopen.host, &preopen.guest, perms).map_err(|error| {
                io::Error::other(format!("cannot open {}: {error:#}", preopen.host.display()))
            })?;
        }
        Ok(())
    }

    fn directories(&self) -> io::Result<WasiFilesystemCtx> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened.clone());
        }
        let mut wasi = WasiCtx::builder();
        self.open_preopens(&mut wasi)?;
        let opened = std::mem::take(wasi.build().filesystem());
        Ok(self.opened.get_or_init(|| opened).clone())
    }
}

impl Guest {
    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }
}

impl Instance for Guest {
    fn new(grants: &Arc<Grants>) -> io::Result<Self> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut wasi = grants.wasi().build();
        *wasi.filesystem() = grants.directories()?;
        Ok(Self {
            wasi,
            table,
            http: WasiHttpCtx::new(),
            hooks: grants.hooks.clone(),
            memory: InstanceMemory::new(&grants.memory),
            grants: Arc::clone(grants),
        })
    }

    fn memory(&mut self) -> &mut InstanceMemory {
        &mut self.memory
    }
}

impl Instance for ModuleGuest {
    fn new(grants: &Arc<Grants>) -> io::Result<Self> {
        let mut wasi = grants.wasi();
        grants.open_preopens(&mut wasi)?;
        wasi.envs(&grants.env).args(&grants.args);
        Ok(Self { p1: wasi.build_p1(), memory: InstanceMemory::new(&grants.memory) })
    }

    fn memory(&mut self) -> &mut InstanceMemory {
        &mut self.memory
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// The environment as the container has it. It is copied when a guest asks, not for each instance.
pub(crate) struct Environment<'a>(pub(crate) &'a Grants);

impl HasData for Environment<'static> {
    type Data<'a> = Environment<'a>;
}

impl environment::Host for Environment<'_> {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.0.env.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.0.args.clone())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.0.working_dir.clone())
    }
}

/// Standard output or standard error: the container's log.
struct Output {
    log: LogWriter,
    stream: Stream,
}

struct OutputWriter(LogStream);

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this one, which no linker of ours offers.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(OutputWriter(self.log.stream(self.stream)))
    }
}

#[async_trait::async_trait]
impl Pollable for OutputWriter {
    async fn ready(&mut self) {
        self.0.ready().await;
    }
}

impl OutputStream for OutputWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.0.room().min(WRITE_BYTES))
    }
}
