//! The server's socket: TLS, HTTP/1.1 and HTTP/2, bounded in every direction, and an end in good order.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::audit::Source;
use crate::cork::cork;
use crate::limits;
use crate::router::Ends;
use crate::server::ApiServer;

/// Accepts connections until `shutdown`, and returns when they are over.
pub(crate) async fn serve(
    api: &ApiServer,
    tls: Arc<rustls::ServerConfig>,
    listener: TcpListener,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let ends = api.server.shutdown.child_token();
    let tasks = TaskTracker::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = shutdown.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (Ok(place), Ok((stream, _))) = (place, accepted) else {
            // Out of file descriptors, mostly: those who hold them will close some, and nothing tells us when.
            tokio::time::sleep(limits::ACCEPT_RETRY).await;
            continue;
        };
        let connection = Connection {
            place,
            stream,
            acceptor: acceptor.clone(),
            watcher: graceful.watcher(),
            ends: ends.clone(),
        };
        tasks.spawn(connection.run(api.router.clone(), api.server.authenticator.clone()));
    }
    drop(listener);
    ends.cancel();
    tasks.close();
    let drained = tokio::time::timeout(limits::SHUTDOWN_GRACE, async {
        graceful.shutdown().await;
        tasks.wait().await;
    });
    if drained.await.is_err() {
        tracing::info!(connections = tasks.len(), "closed connections that did not end in time");
    }
}

struct Connection {
    place: OwnedSemaphorePermit,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    watcher: Watcher,
    ends: CancellationToken,
}

impl Connection {
    async fn run(self, router: axum::Router, authenticator: Arc<crate::authn::Authenticator>) {
        let Self { place, stream, acceptor, watcher, ends } = self;
        // Watch events are small and wanted at once. A socket that refuses the option is merely slower.
        stream.set_nodelay(true).ok();
        let stream =
            match tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => return tracing::debug!("TLS handshake took too long"),
            };
        let source = stream.get_ref().0.peer_addr().ok().map(Source);
        let peer = authenticator.peer(stream.get_ref().1.peer_certificates());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Ends(ends.clone()));
            if let Some(source) = source {
                request.extensions_mut().insert(source);
            }
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            router.clone().call(request)
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
            .keep_alive_interval(limits::KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(limits::KEEP_ALIVE_INTERVAL);
        let (stream, cork) = cork(stream);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        match cork.drive(watcher.watch(connection.into_owned())).await {
            Ok(Ok(())) => (),
            Ok(Err(error)) => tracing::debug!(error, "connection ended"),
            Err(error) => tracing::debug!(%error, "connection broke off"),
        }
        drop(place);
    }
}
