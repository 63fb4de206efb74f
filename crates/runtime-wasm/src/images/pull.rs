//! Modules from OCI registries.
//!
//! A Wasm artifact has one layer, the module itself. Registries on this host may speak plain http, as container
//! engines allow it; all others speak https.

use coracle_runtime::{Image, ImageError, PullCredentials};
use futures::TryStreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::{ImageIndexEntry, OciDescriptor};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use std::time::Duration;

use super::{ImageName, ImageStore, failed};

/// What tools call a layer that is a module or a component.
const LAYER_TYPES: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

/// A registry that does not answer must not hold a pod for longer; the kubelet tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Fetches an image and puts it into the store under its name.
pub(crate) async fn pull(
    store: &ImageStore,
    reference: &str,
    credentials: Option<&PullCredentials>,
) -> Result<Image, ImageError> {
    let name = ImageName::parse(reference)?;
    let refused = |cause: String| ImageError::Pull {
        reference: reference.to_owned(),
        cause: one_line(&cause),
    };
    let client = client_for(&name);
    let auth = credentials.map_or(RegistryAuth::Anonymous, |credentials| {
        RegistryAuth::Basic(credentials.username.clone(), credentials.password.clone())
    });
    client
        .auth(name.parts(), &auth, RegistryOperation::Pull)
        .await
        .map_err(|error| refused(error.to_string()))?;
    let (manifest, digest) = client
        .pull_image_manifest(name.parts(), &auth)
        .await
        .map_err(|error| refused(error.to_string()))?;
    let layer = wasm_layer(&manifest.layers).map_err(refused)?;
    let mut blob = store.new_blob()?;
    let mut pieces = client
        .pull_blob_stream(name.parts(), layer)
        .await
        .map_err(|error| refused(error.to_string()))?;
    while let Some(piece) = pieces.try_next().await.map_err(|error| refused(error.to_string()))? {
        blob.write(&piece).map_err(|error| failed("write to", error))?;
    }
    if layer.digest.starts_with("sha256:") && layer.digest != blob.digest() {
        return Err(refused(format!("the registry sent other content than {}", layer.digest)));
    }
    store.add(blob, &[name.as_str(), &name.with_digest(&digest)])
}

fn client_for(name: &ImageName) -> Client {
    // The client takes the process's provider. It fails only where another was installed before, which will do too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registry = name.parts().resolve_registry();
    let protocol = if is_local(registry) {
        ClientProtocol::HttpsExcept(vec![registry.to_owned()])
    } else {
        ClientProtocol::Https
    };
    Client::new(ClientConfig {
        protocol,
        platform_resolver: Some(Box::new(choose_platform)),
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        ..ClientConfig::default()
    })
}

fn is_local(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Of an image for several platforms, the Wasm one.
fn choose_platform(entries: &[ImageIndexEntry]) -> Option<String> {
    let wasm = entries.iter().find(|entry| {
        entry.platform.as_ref().is_some_and(|platform| platform.architecture.to_string() == "wasm")
    });
    wasm.map(|entry| entry.digest.clone())
}

fn wasm_layer(layers: &[OciDescriptor]) -> Result<&OciDescriptor, String> {
    let mut modules =
        layers.iter().filter(|layer| LAYER_TYPES.contains(&layer.media_type.as_str()));
    match (modules.next(), modules.next()) {
        (Some(layer), None) => Ok(layer),
        (Some(_), Some(_)) => {
            Err("the image has several Wasm layers, and one is expected".to_owned())
        }
        (None, _) => {
            let types: Vec<&str> = layers.iter().map(|layer| layer.media_type.as_str()).collect();
            Err(format!("no WebAssembly module in the image: its layers are {}", types.join(", ")))
        }
    }
}

/// Registries answer with pages of text; a pod's status holds a line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registries_of_this_host_may_speak_http() {
        for registry in
            ["localhost", "localhost:5000", "127.0.0.1:5000", "127.16.0.9", "[::1]:5000"]
        {
            assert!(is_local(registry), "{registry}");
        }
        for registry in ["localhost.example.org", "10.0.0.1:5000", "docker.io", "registry:5000"] {
            assert!(!is_local(registry), "{registry}");
        }
    }
}
