//! Requests from the API server to kubelets, pods and services: one connection each, streamed both ways.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use coracle_api::status::Status;
use http::{HeaderValue, Request, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::limits;

/// How the other side is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain HTTP, as to most pods.
    Http,
    /// HTTPS with the API server's own client certificate, as to kubelets.
    KubeletHttps,
    /// HTTPS with whatever certificate the other side has, as upstream proxies to pods.
    UnverifiedHttps,
}

/// Why the other side did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("dial tcp {address}: {cause}")]
    Connect { address: String, cause: String },
    #[error("tls: {0}")]
    Tls(String),
    #[error("{0}")]
    Exchange(String),
    #[error("timed out waiting for {0}")]
    Timeout(&'static str),
}

impl UpstreamError {
    /// As the client of the API server sees it.
    pub(crate) fn status(&self, method: &str, url: &str) -> Status {
        Status::internal(format!("{method} {url:?}: {self}"))
    }
}

/// Holds the API server's identity towards kubelets.
pub(crate) struct KubeletClient {
    tls: TlsConnector,
    unverified: TlsConnector,
}

impl KubeletClient {
    /// Whom this configuration trusts, [`Scheme::UnverifiedHttps`] included.
    pub(crate) fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        let tls = TlsConnector::from(tls);
        Self { unverified: tls.clone(), tls }
    }

    /// Trusts others where nothing is to be verified.
    pub(crate) fn with_unverified(self, unverified: Arc<rustls::ClientConfig>) -> Self {
        Self { unverified: TlsConnector::from(unverified), ..self }
    }

    /// Sends one request and answers once the head of the response is there; the body follows as it comes. A request without
    /// `Host` gets the address as one.
    pub(crate) async fn send(
        &self,
        scheme: Scheme,
        host: &str,
        port: u16,
        mut request: Request<Body>,
    ) -> Result<Response, UpstreamError> {
        let address =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        if !request.headers().contains_key(header::HOST)
            && let Ok(value) = HeaderValue::from_str(&address)
        {
            request.headers_mut().insert(header::HOST, value);
        }
        let stream = within("the connection", limits::CONNECT_TIMEOUT, async {
            TcpStream::connect(&address).await.map_err(|error| UpstreamError::Connect {
                address: address.clone(),
                cause: plain_cause(&error),
            })
        })
        .await?;
        // Log lines are small and wanted at once. A socket that refuses the option is merely slower.
        stream.set_nodelay(true).ok();
        let (tls, limit) = match scheme {
            Scheme::Http => {
                return exchange(TokioIo::new(stream), request, limits::PROXY_TIMEOUT).await;
            }
            Scheme::KubeletHttps => (&self.tls, limits::KUBELET_TIMEOUT),
            Scheme::UnverifiedHttps => (&self.unverified, limits::PROXY_TIMEOUT),
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| UpstreamError::Tls(error.to_string()))?;
        let stream = within("the TLS handshake", limits::CONNECT_TIMEOUT, async {
            tls.connect(name, stream).await.map_err(|error| UpstreamError::Tls(error.to_string()))
        })
        .await?;
        exchange(TokioIo::new(stream), request, limit).await
    }
}

/// In the words of Go's `net`, which people search for.
fn plain_cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

async fn within<T>(
    what: &'static str,
    limit: std::time::Duration,
    future: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    tokio::time::timeout(limit, future).await.map_err(|_| UpstreamError::Timeout(what))?
}

async fn exchange<I>(
    io: I,
    request: Request<Body>,
    limit: std::time::Duration,
) -> Result<Response, UpstreamError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| UpstreamError::Exchange(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
    let connection = ConnectionTask(tokio::spawn(async move {
        // What goes wrong here ends the body, where its reader sees it.
        connection.with_upgrades().await.ok();
    }));
    let response =
        within("the response", limit, async { sender.send_request(request).await.map_err(failed) })
            .await?;
    Ok(response.map(|body| Body::new(Streamed { body, _connection: connection })))
}

/// The task that drives a connection; ends with its owner.
struct ConnectionTask(JoinHandle<()>);

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A body that keeps its connection.
struct Streamed {
    body: Incoming,
    _connection: ConnectionTask,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
