//! Images come from registries, and what those get wrong is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use coracle_runtime::{ImageError, PullCredentials, Runtime};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::support::{Pod, engine, guest};

/// A media type and bytes, by path.
type Content = HashMap<String, (String, Vec<u8>)>;

/// A registry that serves what it is given, over http.
struct Registry {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

impl Registry {
    /// Wants the password `open` of everybody when it is `guarded`.
    async fn start(guarded: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let content: Arc<Mutex<Content>> = Arc::default();
        let served = Arc::clone(&content);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let served = Arc::clone(&served);
                let service = service_fn(move |request| {
                    let answer = answer(&served.lock().unwrap(), &request, guarded);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, content }
    }

    fn put(&self, path: &str, media_type: &str, bytes: &[u8]) {
        let entry = (media_type.to_owned(), bytes.to_vec());
        self.content.lock().unwrap().insert(format!("/v2/team/{path}"), entry);
    }

    /// Publishes a module; `layer` is what the manifest calls it.
    fn publish(&self, name: &str, layer: &str, module: &[u8]) -> String {
        let config = b"{}";
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.wasm.config.v0+json",
                "digest": digest(config),
                "size": config.len(),
            },
            "layers": [{ "mediaType": layer, "digest": digest(module), "size": module.len() }],
        });
        let manifest = manifest.to_string();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        self.put(&format!("{name}/manifests/1.0"), media_type, manifest.as_bytes());
        self.put(&format!("{name}/blobs/{}", digest(config)), "application/json", config);
        self.put(&format!("{name}/blobs/{}", digest(module)), "application/octet-stream", module);
        format!("{}/team/{name}:1.0", self.address)
    }
}

fn answer(
    content: &HashMap<String, (String, Vec<u8>)>,
    request: &Request<Incoming>,
    guarded: bool,
) -> Response<Full<Bytes>> {
    let credentials = request.headers().get("authorization").map(|value| value.to_str().unwrap());
    // me:open
    if guarded && credentials != Some("Basic bWU6b3Blbg==") {
        return Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", "Basic realm=\"registry\"")
            .body(Full::default())
            .unwrap();
    }
    match content.get(request.uri().path()) {
        _ if request.uri().path() == "/v2/" => Response::new(Full::default()),
        Some((media_type, bytes)) => Response::builder()
            .header("content-type", media_type)
            .header("docker-content-digest", digest(bytes))
            .body(Full::new(Bytes::from(bytes.clone())))
            .unwrap(),
        None => Response::builder().status(StatusCode::NOT_FOUND).body(Full::default()).unwrap(),
    }
}

const WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";

#[tokio::test]
async fn an_image_is_pulled_and_runs() {
    let registry = Registry::start(false).await;
    let module = std::fs::read(guest("probe")).unwrap();
    let runtime = &engine().runtime;
    for layer in [WASM, "application/wasm"] {
        let reference = registry.publish("probe", layer, &module);
        let image = runtime.pull_image(&reference, None).await.unwrap();
        assert_eq!(image.digest, digest(&module));
        assert!(image.references.contains(&reference), "{:?}", image.references);
        assert!(image.references.iter().any(|name| name.contains("/team/probe@sha256:")));
        let pod = Pod::new().await;
        assert_eq!(pod.run(&pod.spec(&reference, &["print", "pulled"])).await.lines, ["pulled"]);
    }
}

#[tokio::test]
async fn a_guarded_registry_wants_its_password() {
    let registry = Registry::start(true).await;
    let reference = registry.publish("guarded", WASM, b"\0asm");
    let runtime = &engine().runtime;
    let refused = runtime.pull_image(&reference, None).await.unwrap_err();
    assert!(matches!(refused, ImageError::Pull { .. }), "{refused}");
    let credentials = PullCredentials { username: "me".to_owned(), password: "open".to_owned() };
    assert!(!format!("{credentials:?}").contains("open"));
    runtime.pull_image(&reference, Some(&credentials)).await.unwrap();
}

#[tokio::test]
async fn what_a_registry_gets_wrong_is_told() {
    let registry = Registry::start(false).await;
    let runtime = &engine().runtime;
    let cause = async |reference: &str| match runtime.pull_image(reference, None).await {
        Err(ImageError::Pull { cause, reference: told }) => {
            assert_eq!(told, reference);
            cause
        }
        other => panic!("{other:?}"),
    };
    let missing = cause(&format!("{}/team/missing:1.0", registry.address)).await;
    assert!(!missing.is_empty() && !missing.contains('\n'), "{missing}");
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    let linux = cause(&registry.publish("linux", tar, b"x")).await;
    assert!(linux.contains("no WebAssembly module") && linux.contains(tar), "{linux}");
    let forged = registry.publish("forged", WASM, b"right");
    registry.put(
        &format!("forged/blobs/{}", digest(b"right")),
        "application/octet-stream",
        b"wrong",
    );
    assert!(!cause(&forged).await.is_empty());
    assert_eq!(runtime.image(&forged).await.unwrap(), None);
    let nobody = cause("127.0.0.1:1/team/nobody:1.0").await;
    assert!(!nobody.is_empty());
}
