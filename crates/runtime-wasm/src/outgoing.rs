//! Guests' outgoing http: cluster names and virtual addresses first, connections kept for the next request.
//!
//! Each container has connections of its own, so no pod speaks over another's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderName, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use crate::network::PodNetwork;

/// Requests that one container has in flight; each holds a connection.
const REQUESTS_MAX: usize = 1024;

/// Connections kept to one host, and for how long. Servers commonly close after 60 s or more.
const IDLE_MAX: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// When the guest sets none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// What a guest may write at once into a body, and how many such pieces wait for the client: bounds for each request.
const BODY_CHUNK_BYTES: usize = 64 * 1024;
const BODY_CHUNKS: usize = 8;

type Io = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// How `wasi:http` behaves for one container.
#[derive(Clone)]
pub(crate) struct Hooks {
    shared: Arc<Shared>,
}

struct Shared {
    network: Arc<PodNetwork>,
    /// Made by the first request: most guests send none.
    client: OnceLock<Client<Connector, WasiBody>>,
    permits: Arc<Semaphore>,
    forbidden: ForbiddenHeaderFilter,
}

impl Hooks {
    pub(crate) fn new(network: Arc<PodNetwork>) -> Self {
        let shared = Shared {
            network,
            client: OnceLock::new(),
            permits: Arc::new(Semaphore::new(REQUESTS_MAX)),
            forbidden: Arc::new(is_forbidden),
        };
        Self { shared: Arc::new(shared) }
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name)
}

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&self.shared.forbidden)
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _fut: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Io, Error>> + Send> {
        let shared = Arc::clone(&self.shared);
        Box::new(async move {
            let response = shared.send(request, options.unwrap_or_default()).await?;
            let io: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(async { Ok(()) });
            Ok((response, io))
        })
    }
}

impl Shared {
    async fn send(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| Error::ConnectionLimitReached)?;
        let connect = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let first = options.first_byte_timeout.unwrap_or(ANSWER_TIMEOUT);
        let between = options.between_bytes_timeout.unwrap_or(ANSWER_TIMEOUT);
        let client = self.client.get_or_init(|| client(&self.network));
        let answer = tokio::time::timeout(connect + first, client.request(request));
        let response =
            answer.await.map_err(|_| Error::ConnectionReadTimeout)?.map_err(|e| why(&e))?;
        Ok(response.map(|body| {
            let pause = Box::pin(tokio::time::sleep(between));
            Answer { body, between, pause, _permit: permit }.boxed_unsync()
        }))
    }
}

fn client(network: &Arc<PodNetwork>) -> Client<Connector, WasiBody> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .set_host(false)
        .build(Connector { network: Arc::clone(network) })
}

/// The guest's word for what went wrong.
fn why(error: &hyper_util::client::legacy::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(error) = this.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
                io::ErrorKind::TimedOut => Error::ConnectionTimeout,
                io::ErrorKind::NotFound => {
                    Error::DnsError { rcode: Some("NXDOMAIN".to_owned()), info_code: None }
                }
                io::ErrorKind::InvalidData => Error::TlsCertificateError,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    Error::DestinationIpUnroutable
                }
                io::ErrorKind::InvalidInput => Error::HttpRequestUriInvalid,
                _ => Error::ConnectionTerminated,
            };
        }
        cause = this.source();
    }
    Error::HttpProtocolError
}

#[derive(Clone)]
struct Connector {
    network: Arc<PodNetwork>,
}

trait Bytestream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytestream for T {}

/// A connection, plain or within TLS.
struct Wire(Box<dyn Bytestream>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Wire>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let network = Arc::clone(&self.network);
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(&network, &uri));
            connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

async fn connect(network: &PodNetwork, uri: &Uri) -> io::Result<TokioIo<Wire>> {
    let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = network.connect(host, port).await?;
    if !secure {
        return Ok(TokioIo::new(Wire(Box::new(stream))));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|_| io::ErrorKind::InvalidInput)?;
    let stream = TlsConnector::from(tls_config().await?).connect(name, stream).await?;
    Ok(TokioIo::new(Wire(Box::new(stream))))
}

/// Trusts whom the host trusts. Read once: it takes milliseconds.
async fn tls_config() -> io::Result<Arc<rustls::ClientConfig>> {
    static CONFIG: tokio::sync::OnceCell<Arc<rustls::ClientConfig>> =
        tokio::sync::OnceCell::const_new();
    let made = CONFIG.get_or_try_init(|| async {
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
        let found = found.await.map_err(io::Error::other)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok::<_, io::Error>(Arc::new(config))
    });
    made.await.cloned()
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

/// A response's body, given up when the sender falls silent.
struct Answer {
    body: hyper::body::Incoming,
    between: Duration,
    pause: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                this.pause.as_mut().reset(Instant::now() + this.between);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => match this.pause.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Error::ConnectionReadTimeout))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
