//! Opens connections to extension servers: by host name, or to an endpoint of a service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coracle_store::Store;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rand::seq::SliceRandom as _;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoints;
use crate::limits;

/// How the host in a URI is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Route {
    /// As the host's resolver has it.
    Host,
    /// As `NAME.NAMESPACE.svc`, found in the store.
    Service,
}

/// Why there is no connection, in the words of Go's `net` and `crypto/tls`, which people search for.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no host in the address")]
    NoHost,
    #[error(transparent)]
    Nowhere(#[from] endpoints::Nowhere),
    #[error("dial tcp {address}: {cause}")]
    Dial { address: String, cause: String },
    #[error("tls: {0}")]
    Tls(String),
    #[error("net/http: TLS handshake timeout")]
    SlowHandshake,
}

/// Opens connections of one kind under one trust.
#[derive(Clone)]
pub(super) struct Connector {
    store: Store,
    route: Route,
    tls: TlsConnector,
}

impl Connector {
    pub(super) fn new(store: Store, route: Route, tls: Arc<ClientConfig>) -> Self {
        Self { store, route, tls: TlsConnector::from(tls) }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Secured>, ConnectError> {
        let host = uri.host().ok_or(ConnectError::NoHost)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let places = match self.route {
            Route::Host => vec![(host.clone(), port)],
            Route::Service => self.service_places(&host, port)?,
        };
        let stream = dial_any(&places).await?;
        // A question is small and wanted at once. A socket that refuses the option is merely slower.
        stream.set_nodelay(true).ok();
        let name = ServerName::try_from(host.clone())
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
        let handshake = self.tls.connect(name, stream);
        let stream = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| ConnectError::SlowHandshake)?
            .map_err(|error| ConnectError::Tls(handshake_cause(&error, &host)))?;
        Ok(TokioIo::new(Secured(stream)))
    }

    fn service_places(&self, host: &str, port: u16) -> Result<Vec<(String, u16)>, ConnectError> {
        let mut parts = host.split('.');
        let (name, namespace) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut places = endpoints::resolve(&self.store, namespace, name, port)?;
        places.shuffle(&mut rand::rng());
        places.truncate(limits::EXTENSION_ENDPOINTS_TRIED);
        Ok(places)
    }
}

/// Connects to the first of these places that answers.
async fn dial_any(places: &[(String, u16)]) -> Result<TcpStream, ConnectError> {
    let mut failed = ConnectError::NoHost;
    for (host, port) in places {
        let address =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let dialled = tokio::time::timeout(
            limits::CONNECT_TIMEOUT,
            TcpStream::connect((host.as_str(), *port)),
        );
        let cause = match dialled.await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
                std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
                _ => error.to_string(),
            },
            Err(_) => "i/o timeout".to_owned(),
        };
        failed = ConnectError::Dial { address, cause };
    }
    Err(failed)
}

fn handshake_cause(error: &std::io::Error, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(wrong)) = inner else { return error.to_string() };
    let cause = match wrong {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for {host}")
        }
        other => other.to_string(),
    };
    format!("failed to verify certificate: x509: {cause}")
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Secured>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { Ok(connector.connect(uri).await?) })
    }
}

/// A connection under TLS.
pub(super) struct Secured(TlsStream<TcpStream>);

impl Connection for Secured {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
