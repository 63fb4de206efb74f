//! A real HTTPS server that extends the API server, as an operator's would.
#![allow(dead_code, reason = "each test binary uses a part of it, and one of them all")]

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server answers.
pub enum Reply {
    /// 200 with this JSON.
    Json(Value),
    /// This code with these bytes.
    Raw(u16, Vec<u8>),
    /// 101: from then on every byte comes back in upper case.
    Shout,
    /// Nothing, as long as the client waits.
    Never,
}

/// The server; it ends with the test.
pub struct ExtensionServer {
    pub address: SocketAddr,
    /// Base64 of the PEM of the authority of its certificate.
    pub ca_bundle: String,
}

impl ExtensionServer {
    /// Serves under the addresses of this machine and as `hook.default.svc`.
    pub async fn start(answer: impl Fn(&str, Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, move |parts, body| answer(parts.uri.path(), body)).await
    }

    /// The same for nobody but those who show a certificate by this authority (PEM).
    pub async fn start_for(
        client_ca: &str,
        answer: impl Fn(&Parts, Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Some(client_ca), answer).await
    }

    async fn serve(
        client_ca: Option<&str>,
        answer: impl Fn(&Parts, Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (tls, ca_bundle) = tls(client_ca);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, answer) = (TlsAcceptor::from(tls), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = answer.clone();
                        async move {
                            let (mut parts, body) = request.into_parts();
                            let upgrade = parts.extensions.remove::<OnUpgrade>();
                            let body = body.collect().await?.to_bytes();
                            let body = serde_json::from_slice(&body).unwrap_or_default();
                            let (code, bytes) = match answer(&parts, body) {
                                Reply::Json(value) => (200, value.to_string().into_bytes()),
                                Reply::Raw(code, bytes) => (code, bytes),
                                Reply::Shout => return Ok(shout(upgrade.unwrap())),
                                Reply::Never => std::future::pending().await,
                            };
                            let body = Full::new(Bytes::from(bytes));
                            Ok::<_, hyper::Error>(
                                Response::builder().status(code).body(body).unwrap(),
                            )
                        }
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Self { address, ca_bundle }
    }

    /// The `clientConfig` that leads to this path of the server.
    pub fn client_config(&self, path: &str) -> Value {
        json!({ "url": format!("https://{}{path}", self.address), "caBundle": self.ca_bundle })
    }
}

fn shout(upgrade: OnUpgrade) -> Response<Full<Bytes>> {
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut byte = [0];
        while matches!(stream.read(&mut byte).await, Ok(1)) {
            stream.write_all(&byte.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
        }
    });
    let switching = Response::builder().status(101).header("connection", "Upgrade");
    switching.header("upgrade", "shout").body(Full::default()).unwrap()
}

fn tls(client_ca: Option<&str>) -> (Arc<rustls::ServerConfig>, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let names = ["localhost", "127.0.0.1", "hook.default.svc"].map(str::to_owned);
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (Arc::new(config), base64::prelude::BASE64_STANDARD.encode(authority_pem))
}
