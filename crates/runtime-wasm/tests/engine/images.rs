//! What cannot be run is told, and what can is compiled once.

use coracle_runtime::{Runtime, StartError};
use coracle_runtime_wasm::{ImageStore, Options, WasmRuntime};
use futures::future::join_all;

use crate::support::{Pod, engine, guest, import, pod_net};

async fn start_error(name: &str, bytes: &[u8]) -> StartError {
    let pod = Pod::new().await;
    let image = import(name, bytes);
    pod.start(&pod.spec(&image, &[])).await.unwrap_err()
}

async fn invalid(name: &str, bytes: &[u8]) -> String {
    match start_error(name, bytes).await {
        StartError::ImageInvalid { image, cause } => {
            assert_eq!(image, name);
            cause
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn broken_modules_are_refused_with_their_fault() {
    let probe = std::fs::read(guest("probe")).unwrap();
    assert_eq!(invalid("empty", b"").await, "it is empty");
    assert!(invalid("short", b"\0as").await.contains("ends within its first 4 bytes"));
    assert!(invalid("headless", b"\0asm\x01").await.contains("ends within its first 8 bytes"));
    assert!(invalid("text", b"(module)").await.contains("not a WebAssembly binary"));
    assert!(invalid("future", b"\0asm\x09\0\0\0").await.contains("version"));
    let cause = invalid("truncated", &probe[..probe.len() / 2]).await;
    assert!(cause.contains("out of bounds"), "{cause}");
    assert!(!cause.contains('\n'));
    let library = wat::parse_str("(module (func (export \"add\")))").unwrap();
    assert_eq!(invalid("library", &library).await, "it exports no function _start");
    let component = wat::parse_str("(component)").unwrap();
    assert!(invalid("component", &component).await.contains("exports neither"));
}

#[tokio::test]
async fn an_unmet_import_is_named() {
    let module =
        wat::parse_str(r#"(module (import "gpu" "draw" (func)) (func (export "_start")))"#)
            .unwrap();
    let error = start_error("imports", &module).await;
    assert_eq!(
        error.to_string(),
        "image imports imports gpu::draw, which this node does not offer"
    );
    let component = wat::parse_str(
        r#"(component (import "acme:gpu/canvas@1.0.0" (instance (export "draw" (func)))))"#,
    );
    let error = start_error("component-imports", &component.unwrap()).await;
    let expected = "image component-imports imports acme:gpu/canvas@1.0.0#draw, which this node does not offer";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn many_pods_share_one_compilation_and_a_second_process_has_it_already() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options::new(directory.path().to_owned(), pod_net(), Default::default());
    ImageStore::open(directory.path()).unwrap().import(&guest("probe"), "probe").unwrap();
    let compiled = || {
        let files = std::fs::read_dir(directory.path().join("compiled")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().modified().unwrap()).collect::<Vec<_>>()
    };
    let pod = Pod::new().await;
    let sandbox = coracle_runtime::SandboxSpec {
        pod: pod.identity.clone(),
        hostname: "x".to_owned(),
        host_network: true,
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let runtime = WasmRuntime::new(options()).unwrap();
        runtime.run_sandbox(&sandbox).await.unwrap();
        let specs: Vec<_> = (0..20).map(|_| pod.spec("probe", &["print", "x"])).collect();
        for started in
            join_all(specs.iter().map(|spec| runtime.start_container(spec.clone()))).await
        {
            started.unwrap();
        }
        runtime.shutdown(std::time::Duration::ZERO).await;
        seen.push(compiled());
    }
    assert_eq!(seen[0].len(), 1);
    assert_eq!(seen[0], seen[1], "the second process compiled nothing");
}

#[tokio::test]
async fn names_are_read_as_upstream_reads_them() {
    let runtime = &engine().runtime;
    let image = runtime.image("docker.io/library/probe:latest").await.unwrap().unwrap();
    assert_eq!(runtime.image("probe").await.unwrap().unwrap(), image);
    assert_eq!(runtime.image("probe:2").await.unwrap(), None);
    assert!(runtime.image("Probe").await.is_err());
    assert!(runtime.version().starts_with("wasmtime://48."));
}
