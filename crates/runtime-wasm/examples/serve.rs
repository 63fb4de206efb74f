//! One `wasi:http` component behind one address, as a Service has it: for measuring and profiling the engine alone.
//!
//! `cargo run --release -p coracle-runtime-wasm --example serve -- FILE.wasm ADDRESS:PORT [REQUESTS-PER-INSTANCE]`

#![expect(clippy::unwrap_used, reason = "a tool for developers: a panic is the message")]

use std::path::Path;
use std::sync::Arc;

use coracle_api::services::ServiceTable;
use coracle_runtime::{ContainerId, ContainerSpec, PodIdentity, Runtime, SandboxSpec};
use coracle_runtime_wasm::{Options, WasmRuntime};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, address, rest @ ..] = arguments.as_slice() else {
        panic!("FILE.wasm ADDRESS:PORT [REQUESTS-PER-INSTANCE]");
    };
    let directory = tempfile::tempdir().unwrap();
    let net = "127.90.0.0/16".parse().unwrap();
    let options = Options::new(directory.path().to_owned(), net, Arc::new(ServiceTable::default()));
    let runtime = WasmRuntime::new(options).unwrap();
    runtime.image_store().import(Path::new(file), "guest").unwrap();
    let pod = PodIdentity {
        namespace: "default".to_owned(),
        name: "guest".to_owned(),
        uid: "guest".to_owned(),
    };
    let hostname = pod.name.clone();
    let sandbox = SandboxSpec { pod: pod.clone(), hostname, host_network: false };
    let ip = runtime.run_sandbox(&sandbox).await.unwrap();
    let env = [
        ("POD_NAME", "hello-7c9d8f6b5-x2x4z"),
        ("POD_NAMESPACE", "default"),
        ("GREETING", "Hello from a ConfigMap"),
        ("TOKEN", "not-so-secret"),
    ];
    let spec = ContainerSpec {
        log_path: directory.path().join("0.log"),
        id: ContainerId::new("guest".to_owned()),
        pod,
        name: "guest".to_owned(),
        attempt: 0,
        image: "guest".to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        working_dir: None,
        mounts: Vec::new(),
        tcp_ports: vec![8080],
        memory_limit_bytes: Some(64 << 20),
        cpu_limit_millis: None,
        annotations: rest
            .iter()
            .map(|count| ("wasm.coracle.dev/instance-reuse".to_owned(), count.clone()))
            .collect(),
    };
    runtime.start_container(spec).await.unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    println!("listening on {address}");
    let server = (ip, 8080).into();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        runtime.deliver(server, stream).unwrap();
    }
}
