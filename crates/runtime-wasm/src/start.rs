//! From a container's spec to a running guest.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use coracle_runtime::{ContainerSpec, LogWriter, StartError};
use tokio::net::TcpListener;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::command::{run_command, run_module};
use crate::container::Container;
use crate::cpu::Metered;
use crate::ending::Ending;
use crate::guest::{Grants, Guest};
use crate::mounts::preopens;
use crate::outgoing::Hooks;
use crate::programs::{Kind, LoadError, Program};
use crate::runtime::{Inner, Sandbox};
use crate::server::{HttpServer, ServerParts, listen};

/// Where a `wasi:http` component serves whose container declares no port.
const DEFAULT_PORT: u16 = 8080;

/// The pod annotation by which an instance answers more than one request.
pub(crate) const REUSE_ANNOTATION: &str = "wasm.coracle.dev/instance-reuse";

impl Inner {
    /// Loads the image and starts the guest. Returns once it runs, for a server once it listens.
    pub(crate) async fn start(
        self: Arc<Self>,
        spec: ContainerSpec,
        container: Arc<Container>,
    ) -> Result<(), StartError> {
        let sandbox = self.sandboxes.lock().get(&spec.pod.uid).cloned().ok_or_else(|| {
            StartError::Refused { message: format!("pod {} has no sandbox", spec.pod.uid) }
        })?;
        let program = self.load(&spec, &container).await?;
        check_memory(&spec, &program)?;
        let log = self.logs.open(&spec.log_path, self.options.log_limits).map_err(|source| {
            let message = format!("cannot open the log of container {}", spec.name);
            StartError::Failed { message, source }
        })?;
        let grants = grant(&spec, &container, &sandbox, log)?;
        if container.is_stopping() {
            container.exited(Ending::stopped());
            return Ok(());
        }
        match &program.kind {
            Kind::Module(pre) => {
                let guest = Box::pin(run_module(pre.clone(), Arc::clone(&grants)));
                self.run_to_end(container, grants, guest);
            }
            Kind::Command(pre) => {
                let guest = Box::pin(run_command(pre.clone(), Arc::clone(&grants)));
                self.run_to_end(container, grants, guest);
            }
            Kind::Http(pre) => self.serve(&spec, container, grants, pre, program.minimum_memory)?,
        }
        Ok(())
    }

    async fn load(
        &self,
        spec: &ContainerSpec,
        container: &Container,
    ) -> Result<Arc<Program>, StartError> {
        let image = spec.image.clone();
        let found = self.images.find(&image).map_err(|error| StartError::Failed {
            message: format!("cannot look image {image} up"),
            source: io::Error::other(error),
        })?;
        let Some(found) = found else {
            return Err(StartError::ImageMissing { image });
        };
        container.set_digest(&found.digest);
        let loaded = self.programs.load(&found.digest, self.images.blob(&found.digest)).await;
        loaded.map_err(|error| match error {
            LoadError::Invalid(cause) => StartError::ImageInvalid { image, cause },
            LoadError::MissingImport(import) => StartError::MissingImport { image, import },
            LoadError::Failed { attempt, kind, cause } => StartError::Failed {
                message: format!("cannot {attempt} for image {image}"),
                source: io::Error::new(kind, cause),
            },
        })
    }

    fn run_to_end(
        self: &Arc<Self>,
        container: Arc<Container>,
        grants: Arc<Grants>,
        guest: std::pin::Pin<Box<dyn Future<Output = Ending> + Send>>,
    ) {
        let guest = Metered::new(guest, &container.cpu, &self.engines);
        container.running();
        self.workers.batch().spawn(async move {
            // The guest is dropped here, and with it what it held, before anybody hears of its end.
            let ending = tokio::select! {
                biased;
                _ = container.stop_requested() => Ending::stopped(),
                ending = guest => ending,
            };
            grants.log.close().await;
            container.exited(ending);
        });
    }

    fn serve(
        self: &Arc<Self>,
        spec: &ContainerSpec,
        container: Arc<Container>,
        grants: Arc<Grants>,
        pre: &ProxyPre<Guest>,
        minimum_memory: u64,
    ) -> Result<(), StartError> {
        let reuse = reuse(spec)?;
        let port = spec.tcp_ports.first().copied().unwrap_or(DEFAULT_PORT);
        let address = SocketAddr::new(grants.network.address(), port);
        let cannot_listen = |source: io::Error| {
            let message = format!("cannot listen on {address}");
            match source.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => {
                    StartError::Refused { message: format!("{message}: {source}") }
                }
                _ => StartError::Failed { message, source },
            }
        };
        let listener = listen(address).map_err(cannot_listen)?;
        let tasks = self.workers.serving().clone();
        let listener = {
            let _entered = tasks.enter();
            TcpListener::from_std(listener).map_err(cannot_listen)?
        };
        let parts = ServerParts {
            pre: pre.clone(),
            grants: Arc::clone(&grants),
            cpu: Arc::clone(&container.cpu),
            engines: Arc::clone(&self.engines),
            minimum_memory,
            reuse,
            tasks,
        };
        let (server, out_of_memory) = HttpServer::start(parts, listener);
        self.servers.write().insert(address, Arc::clone(&server));
        container.running();
        let inner = Arc::clone(self);
        self.workers.batch().spawn(async move {
            let ending = tokio::select! {
                grace = container.stop_requested() => match server.stop(grace).await {
                    true => Ending::exited(0),
                    false => Ending::killed(),
                },
                Ok(message) = out_of_memory => {
                    server.stop(std::time::Duration::ZERO).await;
                    Ending::out_of_memory(message)
                }
            };
            inner.forget_server(address, &server);
            grants.log.close().await;
            container.exited(ending);
        });
        Ok(())
    }
}

fn check_memory(spec: &ContainerSpec, program: &Program) -> Result<(), StartError> {
    match spec.memory_limit_bytes {
        Some(limit) if limit < program.minimum_memory => Err(StartError::Refused {
            message: format!(
                "container {} has a memory limit of {limit} bytes, and image {} needs {} to begin",
                spec.name, spec.image, program.minimum_memory
            ),
        }),
        _ => Ok(()),
    }
}

fn grant(
    spec: &ContainerSpec,
    container: &Container,
    sandbox: &Sandbox,
    log: LogWriter,
) -> Result<Arc<Grants>, StartError> {
    let opened = preopens(&spec.mounts, spec.working_dir.as_deref(), &container.scratch);
    let preopens = opened.map_err(|source| StartError::Failed {
        message: format!("cannot give container {} its volumes: {source}", spec.name),
        source,
    })?;
    let network = Arc::clone(&sandbox.network);
    Ok(Arc::new(Grants {
        env: last_values(&spec.env),
        args: arguments(spec),
        working_dir: spec.working_dir.clone(),
        preopens,
        opened: OnceLock::new(),
        hooks: Hooks::new(Arc::clone(&network)),
        network,
        log,
        memory: Arc::clone(&container.memory),
    }))
}

/// Of a name given twice a guest would see the first value, and Kubernetes means the last.
fn last_values(env: &[(String, String)]) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = Vec::with_capacity(env.len());
    for (name, value) in env {
        match values.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1.clone_from(value),
            None => values.push((name.clone(), value.clone())),
        }
    }
    values
}

/// A module has no entry point of its own: without a command, its name stands in argv[0].
fn arguments(spec: &ContainerSpec) -> Vec<String> {
    let mut arguments = spec.command.clone();
    if arguments.is_empty() {
        arguments.push(spec.name.clone());
    }
    arguments.extend(spec.args.iter().cloned());
    arguments
}

fn reuse(spec: &ContainerSpec) -> Result<u32, StartError> {
    let Some(text) = spec.annotations.get(REUSE_ANNOTATION) else {
        return Ok(1);
    };
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| StartError::Refused {
        message: format!(
            "annotation {REUSE_ANNOTATION} is {text:?}, and a number from 1 is expected"
        ),
    })
}
