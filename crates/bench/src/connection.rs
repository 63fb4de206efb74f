//! One HTTP/2 connection: to the cluster's API over TLS, to etcd in plain text.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection that many requests may share. It ends with its last clone.
#[derive(Clone)]
pub struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    base: Arc<str>,
    authorization: Option<Arc<str>>,
}

/// Where a cluster's API is, and how to be let in.
#[derive(Clone)]
pub struct Access {
    address: SocketAddr,
    roots: Arc<rustls::RootCertStore>,
    tls: Arc<rustls::ClientConfig>,
    authorization: Option<Arc<str>>,
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedUser {
    user: UserEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate_data: String,
    client_key_data: String,
}

impl Access {
    /// What a kubeconfig says.
    pub fn parse(kubeconfig: &str) -> Result<Self> {
        let file: Kubeconfig = serde_yaml::from_str(kubeconfig).context("not a kubeconfig")?;
        let cluster = &file.clusters.first().context("no cluster")?.cluster;
        let user = &file.users.first().context("no user")?.user;
        let address = cluster.server.trim_start_matches("https://").parse()?;
        let mut roots = rustls::RootCertStore::empty();
        let authority = STANDARD.decode(&cluster.certificate_authority_data)?;
        for certificate in rustls_pemfile::certs(&mut authority.as_slice()) {
            roots.add(certificate?)?;
        }
        let chain = STANDARD.decode(&user.client_certificate_data)?;
        let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut chain.as_slice()).collect();
        let key = STANDARD.decode(&user.client_key_data)?;
        let key = rustls_pemfile::private_key(&mut key.as_slice())?.context("no key")?;
        let roots = Arc::new(roots);
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain?, key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { address, roots, tls: Arc::new(tls), authorization: None })
    }

    /// The same API, with a bearer token instead of a certificate.
    pub fn with_token(&self, token: &str) -> Self {
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let authorization = Some(format!("Bearer {token}").into());
        Self { tls: Arc::new(tls), authorization, ..self.clone() }
    }
}

impl Connection {
    /// Connects to a cluster's API.
    pub async fn secure(access: &Access) -> Result<Self> {
        let stream = TcpStream::connect(access.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(access.address.ip());
        let stream = TlsConnector::from(access.tls.clone()).connect(name, stream).await?;
        let connection = Self::over(stream, format!("https://{}", access.address)).await?;
        Ok(Self { authorization: access.authorization.clone(), ..connection })
    }

    /// Connects without TLS.
    pub async fn plain(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::over(stream, format!("http://{address}")).await
    }

    async fn over<S>(stream: S, base: String) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        // Ends by itself when the last sender is dropped; who sends hears of its errors.
        tokio::spawn(connection);
        Ok(Self { sender, base: base.into(), authorization: None })
    }

    /// Sends a request, and returns as soon as the answer's head is there.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", &**authorization);
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends JSON and reads JSON; any status beyond 2xx is an error.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = body.map_or(Ok(Vec::new()), serde_json::to_vec)?;
        Ok(serde_json::from_slice(&self.json_bytes(method, path, bytes.into()).await?)?)
    }

    /// The same, unread: reading the answer would be the client's work, and it is the server that is measured.
    pub async fn json_bytes(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let headers = [("content-type", "application/json"), ("accept", "application/json")];
        let answer = self.send(method.clone(), path, &headers, body).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(bytes)
    }
}
