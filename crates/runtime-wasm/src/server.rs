//! The HTTP server of one container: connections in, guest instances behind them.
//!
//! A request is answered by a fresh instance, or by a warm one when the pod allows reuse. Usually the guest has
//! answered and returned before it ever had to wait, and then the whole exchange happens in one turn of the connection's
//! task, with the body in one piece. A guest that goes on after its answer runs in a task of its own.
//!
//! Nothing here waits without a bound: too many requests are answered with 503, a guest that does not answer with 504.

mod body;
mod connections;
mod instances;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::cpu::{CpuBudget, Metered};
use crate::engine::Engines;
use crate::guest::{Grants, Guest};
use body::AnswerBody;
use connections::{Connections, Exchanges, Open, Refused, Tracked, Who};
use instances::{Place, Warm};

/// Requests that guests of one container work on at once: each holds an instance, of which the node has 2,500.
const REQUESTS_MAX: usize = 1_000;

/// Requests that wait for their turn, and for how long.
const WAITING_MAX: usize = 2_000;
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a guest may take for its answer, and all in all.
const ANSWER_MAX: Duration = Duration::from_secs(300);
const RUN_MAX: Duration = Duration::from_secs(3600);

/// How long a connection may be idle, or take to send a request's head.
const HEAD_MAX: Duration = Duration::from_secs(75);

/// A request's head, as large as common servers take it.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request's body. It is streamed to the guest, so this bounds time rather than memory.
const BODY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Of the grace, what is left for answers that are under way when the door is closed at the latest.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How long a connection that came at the very end has for its request to arrive.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// After `accept` failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Outcome = Result<Response<HyperOutgoingBody>, ErrorCode>;
type Run = Metered<Pin<Box<dyn Future<Output = Result<(), StatusCode>> + Send>>>;

/// Why a connection was not taken; it is given back.
#[derive(Debug)]
pub enum NotTaken {
    /// No guest of this process serves at the address.
    NotHere(TcpStream),
    /// One does, and is about to end or has as many connections as it can hold: another should be asked first.
    Ending(TcpStream),
}

/// What the server of a container needs.
pub(crate) struct ServerParts {
    pub(crate) pre: ProxyPre<Guest>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) cpu: Arc<CpuBudget>,
    pub(crate) engines: Arc<Engines>,
    /// What an instance holds from the start.
    pub(crate) minimum_memory: u64,
    /// How many requests one instance answers.
    pub(crate) reuse: u32,
    /// Where its tasks run.
    pub(crate) tasks: Handle,
}

/// One container's server.
pub(crate) struct HttpServer {
    parts: ServerParts,
    #[expect(
        clippy::vec_box,
        reason = "an instance moves in and out for each request: a pointer is cheaper"
    )]
    warm: parking_lot::Mutex<Vec<Box<Warm>>>,
    requests: Arc<Semaphore>,
    waiting: AtomicUsize,
    connections: Arc<Connections>,
    /// Told when an instance gave its memory back.
    memory_freed: Notify,
    /// Cancelled when the server is to end: from then on each answer closes its connection.
    draining: CancellationToken,
    /// Cancelled when no further connection is taken, and those without a request are closed.
    closed: CancellationToken,
    /// Cancelled when those under way are given up.
    killed: CancellationToken,
    running: TaskTracker,
    /// Told the trap of an instance that alone exceeded the memory limit.
    out_of_memory: parking_lot::Mutex<Option<oneshot::Sender<String>>>,
}

impl HttpServer {
    /// A server that takes connections from now on. The receiver hears if a guest dies of its memory limit.
    pub(crate) fn start(
        parts: ServerParts,
        listener: TcpListener,
    ) -> (Arc<Self>, oneshot::Receiver<String>) {
        let (sender, receiver) = oneshot::channel();
        let server = Arc::new(Self {
            parts,
            warm: parking_lot::Mutex::default(),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            waiting: AtomicUsize::new(0),
            connections: Arc::default(),
            memory_freed: Notify::new(),
            draining: CancellationToken::new(),
            closed: CancellationToken::new(),
            killed: CancellationToken::new(),
            running: TaskTracker::new(),
            out_of_memory: parking_lot::Mutex::new(Some(sender)),
        });
        server.spawn(Arc::clone(&server).accept(listener));
        (server, receiver)
    }

    /// Serves a connection that somebody else accepted and could take elsewhere, unless the server is about to end.
    pub(crate) fn deliver(self: &Arc<Self>, stream: TcpStream) -> Result<(), NotTaken> {
        self.take(stream, Who::HasAChoice)
    }

    /// Serves a connection that nobody else takes, as long as the server is there at all.
    pub(crate) fn deliver_even_if_ending(
        self: &Arc<Self>,
        stream: TcpStream,
    ) -> Result<(), NotTaken> {
        self.take(stream, Who::HasNone)
    }

    fn take(self: &Arc<Self>, stream: TcpStream, who: Who) -> Result<(), NotTaken> {
        let open = match self.connections.enter(who) {
            Ok(open) => open,
            Err(Refused::Ending) => return Err(NotTaken::Ending(stream)),
            Err(Refused::Closed) => return Err(NotTaken::NotHere(stream)),
        };
        // The stream belongs to another runtime's reactor; ours takes it over. A socket that cannot change hands is
        // broken.
        let Ok(stream) = stream.into_std() else { return Ok(()) };
        let server = Arc::clone(self);
        self.spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                server.serve(stream, open).await;
            }
        });
        Ok(())
    }

    /// Ends the server. True when whoever came was answered within the grace.
    ///
    /// It goes on answering those who come, and tells them with each answer that the connection ends, until nobody is
    /// there and nobody has come for a while: a connection that is closed under a request on its way is a request lost.
    pub(crate) async fn stop(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        self.connections.begin_to_end();
        self.draining.cancel();
        let last_answers = LAST_ANSWERS.min(grace / 4);
        let quiet = self.connections.until_quiet(grace / 2);
        // An error means that they came until the last moment; now the door is closed.
        let _ = tokio::time::timeout_at(deadline - last_answers, quiet).await;
        self.connections.close();
        self.closed.cancel();
        self.running.close();
        let drained = tokio::time::timeout_at(deadline, self.running.wait()).await.is_ok();
        self.killed.cancel();
        self.running.wait().await;
        self.warm.lock().clear();
        drained
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.parts.tasks.spawn(self.running.track_future(task));
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            // Who is in the queue already is served, even when the server is about to end.
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = self.closed.cancelled() => return,
            };
            match accepted {
                // Beyond the limit a connection is closed: there is no room to say why.
                Ok((stream, _)) => {
                    if let Ok(open) = self.connections.enter(Who::IsIn) {
                        self.spawn(Arc::clone(&self).serve(stream, open));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, _open: Open) {
        // Answers are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let exchanges = Exchanges::default();
        let service = service_fn(|request| {
            let exchange = exchanges.begin();
            let server = Arc::clone(&self);
            async move {
                let draining = server.draining.clone();
                let mut answer = server.answer(request).await;
                if draining.is_cancelled() {
                    answer
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| Tracked::new(body, exchange)))
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
        );
        // A client's broken connection is the client's affair. A request that has arrived is read before the end is seen.
        let may_close = async {
            self.draining.cancelled().await;
            tokio::select! {
                () = exchanges.until_silent() => (),
                () = self.until_last_look() => (),
            }
        };
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = may_close => (),
            () = exchanges.until_unused(HEAD_MAX) => (),
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => (),
            () = self.killed.cancelled() => (),
            // A head that never ends, or a client that does not take its answer.
            () = exchanges.until_unused(ANSWER_MAX) => (),
        }
    }

    /// The door is closed, and who came in last has had time to say something.
    async fn until_last_look(&self) {
        self.closed.cancelled().await;
        tokio::time::sleep(LAST_LOOK).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        if request.body().size_hint().lower() > BODY_BYTES_MAX {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            return refusal(StatusCode::BAD_REQUEST);
        }
        let Some(place) = self.admit().await else {
            return refusal(StatusCode::SERVICE_UNAVAILABLE);
        };
        let (sender, mut receiver) = oneshot::channel();
        let run: Pin<Box<dyn Future<Output = _> + Send>> =
            // A guest yields at the engine's ticks; by tokio's budget it would be interrupted in mid-answer.
            Box::pin(tokio::task::unconstrained(Arc::clone(&self).run(request, sender, place)));
        let mut run = Metered::new(run, &self.parts.cpu, &self.parts.engines);
        let first = async {
            tokio::select! {
                biased;
                outcome = &mut receiver => Progress::Answered(outcome.ok()),
                ended = &mut run => Progress::Ended(ended),
            }
        };
        match tokio::time::timeout(ANSWER_MAX, first).await {
            Ok(Progress::Ended(Ok(()))) => match receiver.try_recv() {
                Ok(outcome) => complete(outcome),
                Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR),
            },
            Ok(Progress::Ended(Err(status))) => match receiver.try_recv() {
                Ok(outcome) => complete(outcome),
                Err(_) => refusal(status),
            },
            Ok(Progress::Answered(Some(outcome))) => {
                // Often it is about to return, and only the clock's tick came between.
                tokio::task::yield_now().await;
                if (&mut run).now_or_never().is_some() {
                    return complete(outcome);
                }
                self.go_on(run);
                stream(outcome)
            }
            // It gave the answer's place up without an answer; its end says why.
            Ok(Progress::Answered(None)) => {
                refusal(run.await.err().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            }
            Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT),
        }
    }

    /// Lets a guest that has answered run to its end.
    fn go_on(self: &Arc<Self>, run: Run) {
        let server = Arc::clone(self);
        self.spawn(async move {
            tokio::select! {
                _ = tokio::time::timeout(RUN_MAX, run) => (),
                () = server.killed.cancelled() => (),
            }
        });
    }

    /// A place among the requests under way, or `None` when there is none soon enough.
    async fn admit(&self) -> Option<Place> {
        if let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() {
            match self.place(permit) {
                Ok(place) => return Some(place),
                Err(permit) => drop(permit),
            }
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let turn = tokio::time::timeout(WAIT_MAX, async {
            let mut permit = Arc::clone(&self.requests).acquire_owned().await.ok()?;
            loop {
                let freed = self.memory_freed.notified();
                match self.place(permit) {
                    Ok(place) => return Some(place),
                    Err(back) => permit = back,
                }
                freed.await;
            }
        });
        let place = turn.await.ok().flatten();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        place
    }
}

enum Progress {
    Answered(Option<Outcome>),
    Ended(Result<(), StatusCode>),
}

/// The answer of a guest that has returned: its body is often there already.
fn complete(outcome: Outcome) -> Response<AnswerBody> {
    match outcome {
        Ok(response) => response.map(AnswerBody::gathered),
        Err(code) => refusal_for(&code),
    }
}

/// The answer of a guest that goes on writing it.
fn stream(outcome: Outcome) -> Response<AnswerBody> {
    match outcome {
        Ok(response) => response.map(AnswerBody::streamed),
        Err(code) => refusal_for(&code),
    }
}

/// What a guest's own error means to its client.
fn refusal_for(code: &ErrorCode) -> Response<AnswerBody> {
    tracing::debug!(?code, "guest answered with an error");
    refusal(StatusCode::INTERNAL_SERVER_ERROR)
}

fn refusal(status: StatusCode) -> Response<AnswerBody> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or("Error"));
    let mut response = Response::new(AnswerBody::whole(text.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Opens the port of a pod.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
