//! One engine for all tests, and pods to try it with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use coracle_api::services::ServiceTable;
use coracle_runtime::suite::{lines, until_exited};
use coracle_runtime::{
    ContainerId, ContainerSpec, ContainerState, ExitReason, PodIdentity, Runtime, SandboxSpec,
    StartError,
};
use coracle_runtime_wasm::{Options, PodNet, WasmRuntime};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const DEADLINE: Duration = Duration::from_secs(120);

pub struct Engine {
    pub runtime: Arc<WasmRuntime>,
    pub services: Arc<ServiceTable>,
    pub directory: tempfile::TempDir,
}

pub fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guests/{name}/{name}.wasm"))
}

/// A net of this process's own, so that test runs beside each other do not meet.
pub fn pod_net() -> PodNet {
    let process = std::process::id();
    let (a, b) = (100 + (process >> 8) % 100, process % 256);
    PodNet::new(Ipv4Addr::new(127, a as u8, b as u8, 0), 24).unwrap()
}

pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let services = Arc::new(ServiceTable::default());
        let options = Options::new(directory.path().to_owned(), pod_net(), Arc::clone(&services));
        let runtime = Arc::new(WasmRuntime::new(options).unwrap());
        for name in ["probe", "web"] {
            runtime.image_store().import(&guest(name), name).unwrap();
        }
        Engine { runtime, services, directory }
    })
}

/// Puts bytes into the store under a name of their own.
pub fn import(name: &str, bytes: &[u8]) -> String {
    let file = engine().directory.path().join(format!("{name}.wasm"));
    std::fs::write(&file, bytes).unwrap();
    engine().runtime.image_store().import(&file, name).unwrap();
    name.to_owned()
}

pub struct Pod {
    pub identity: PodIdentity,
    pub address: IpAddr,
}

pub struct Ended {
    pub code: i32,
    pub reason: ExitReason,
    pub message: String,
    pub lines: Vec<String>,
}

impl Pod {
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let identity = PodIdentity {
            namespace: "tests".to_owned(),
            name: format!("pod-{number}"),
            uid: format!("uid-{number}"),
        };
        let spec = SandboxSpec {
            pod: identity.clone(),
            hostname: identity.name.clone(),
            host_network: false,
        };
        let address = engine().runtime.run_sandbox(&spec).await.unwrap();
        Self { identity, address }
    }

    pub fn spec(&self, image: &str, args: &[&str]) -> ContainerSpec {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{:064x}", NUMBER.fetch_add(1, Ordering::Relaxed));
        ContainerSpec {
            log_path: engine().directory.path().join(format!("logs/{id}/0.log")),
            id: ContainerId::new(id),
            pod: self.identity.clone(),
            name: "main".to_owned(),
            attempt: 0,
            image: image.to_owned(),
            command: Vec::new(),
            args: args.iter().map(|text| (*text).to_owned()).collect(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            tcp_ports: vec![8080],
            memory_limit_bytes: None,
            cpu_limit_millis: None,
            annotations: Default::default(),
        }
    }

    pub async fn start(&self, spec: &ContainerSpec) -> Result<(), StartError> {
        let started = engine().runtime.start_container(spec.clone());
        tokio::time::timeout(DEADLINE, started).await.expect("it starts in time")
    }

    pub async fn run(&self, spec: &ContainerSpec) -> Ended {
        self.start(spec).await.unwrap();
        end(spec).await
    }

    pub async fn probe(&self, args: &[&str]) -> Ended {
        self.run(&self.spec("probe", args)).await
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.at(8080), path).await
    }
}

pub async fn end(spec: &ContainerSpec) -> Ended {
    let runtime = &engine().runtime;
    let exited = tokio::time::timeout(DEADLINE, until_exited(&**runtime, &spec.id));
    let (code, reason) = exited.await.expect("it ends in time");
    let known = runtime.containers().await.unwrap();
    let status = known.into_iter().find(|status| status.id == spec.id).unwrap();
    let ContainerState::Exited { message, .. } = status.state else { unreachable!() };
    let lines = lines(&spec.log_path).into_iter().map(|(_, text)| text).collect();
    Ended { code, reason, message, lines }
}

pub async fn stop(spec: &ContainerSpec, grace: Duration) -> Ended {
    engine().runtime.stop_container(&spec.id, grace).await.unwrap();
    end(spec).await
}

type Http = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

pub fn http_client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    get_with(&http_client(), address, path).await
}

pub async fn get_with(client: &Http, address: SocketAddr, path: &str) -> (u16, String) {
    let uri = format!("http://{address}{path}").parse().unwrap();
    let answer = tokio::time::timeout(DEADLINE, client.get(uri)).await.expect("an answer in time");
    let answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
