//! Every bound of the API server, each with its reason.

use std::time::Duration;

/// The largest request body; upstream's, which etcd dictates there.
pub(crate) const BODY_BYTES: usize = 3 * 1024 * 1024;

/// The longest query string: label selectors of a few hundred terms fit.
pub(crate) const QUERY_BYTES: usize = 64 * 1024;

/// Requests of all priority levels that are answered at once, but for exempt ones: upstream's `--max-requests-inflight` (400) and
/// `--max-mutating-requests-inflight` (200) together, as there.
pub(crate) const REQUESTS_IN_FLIGHT: usize = 600;

/// Queues of a priority level, and those that one flow is dealt: what may be configured is bounded, as each takes memory. Upstream's
/// bounds are ten million, and what can be dealt from 60 bits.
pub(crate) const QUEUES_OF_A_LEVEL: usize = 1024;
pub(crate) const QUEUES_OF_A_FLOW: usize = 8;

/// Requests in one of these queues.
pub(crate) const REQUESTS_QUEUED: usize = 4096;

/// How long a request waits there; upstream's quarter of the time that it may take.
pub(crate) const QUEUE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an ordinary request may take; upstream's `--request-timeout`.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections at once: each costs a task and TLS buffers of some 50 KiB.
pub(crate) const CONNECTIONS: usize = 10_000;

/// How long a client may take for its TLS handshake, so that idle ports do not hold places.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send its request head.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a shutdown waits for open requests.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Concurrent requests of one HTTP/2 connection; upstream's is 100, client-go's informers of an operator need more.
pub(crate) const STREAMS_PER_CONNECTION: u32 = 250;

/// How often a watch that asked for bookmarks gets one; upstream's is about a minute.
pub(crate) const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long before its end such a watch gets its last bookmark, so that the next one starts from there; upstream's.
pub(crate) const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Watch events that are kept in the form in which they were sent: those that the other watchers are about to send, too.
pub(crate) const ENCODED_EVENTS: usize = 64;

/// Bytes that those take together.
pub(crate) const ENCODED_BYTES: usize = 4 * 1024 * 1024;

/// How long they are good for: a table's row says how old its object is.
pub(crate) const ENCODED_AGE: Duration = Duration::from_secs(1);

/// A watch without `timeoutSeconds` ends after this and up to as much again; upstream's `--min-request-timeout`.
pub(crate) const WATCH_TIMEOUT: Duration = Duration::from_secs(1800);

/// Bytes that one frame of a list or a watch gathers before it is sent: larger than what a socket takes at once.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;

/// Bytes that a connection gathers before it sends them: what TLS takes at once.
pub(crate) const UNSENT_BYTES: usize = 64 * 1024;

/// How long a peer may take for the last bytes of a connection.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);

/// Tries to find a free name for `generateName`; upstream's number.
pub(crate) const NAME_ATTEMPTS: usize = 8;

/// Tries of a patch, or of an update that names no `resourceVersion`, against concurrent writers. Upstream patches five times; our
/// writers are in one process and need more of them to starve.
pub(crate) const WRITE_ATTEMPTS: usize = 32;

/// Objects of a collection that are deleted at once, so that they share transactions.
pub(crate) const DELETIONS_AT_ONCE: usize = 64;

/// Answers smaller than this are not compressed: upstream's threshold; a local network is faster than gzip.
pub(crate) const COMPRESS_BYTES: u64 = 128 * 1024;

/// Objects that are decoded in one go for a table, before other requests get their turn on this thread.
pub(crate) const ROWS_BETWEEN_YIELDS: usize = 128;

/// How long a kubelet may take to answer the head of a proxied request.
pub(crate) const KUBELET_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a kubelet may take to say what its pods use: it looks twice, a second apart.
pub(crate) const USAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long that is believed; metrics-server's is 15 s, which is as often as autoscalers ask.
pub(crate) const USAGE_AGE: Duration = Duration::from_secs(5);

/// Kubelets that are asked at once by one request.
pub(crate) const KUBELETS_ASKED: usize = 64;

/// What a kubelet may say: some 500 bytes for each container.
pub(crate) const SUMMARY_BYTES: usize = 16 * 1024 * 1024;

/// How long a pod may take to answer the head of a proxied request: a client that is gone ends it before.
pub(crate) const PROXY_TIMEOUT: Duration = Duration::from_secs(3600);

/// The largest page whose links are changed on its way through the proxy; larger ones pass as they are.
pub(crate) const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How long a connection to a kubelet or a pod may take to open.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an idle HTTP/2 connection is asked whether it lives, and how long it may take to say so; upstream's 30 s and 15 s.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Objects that are brought in at once at start, so that they share transactions.
pub(crate) const BOOTSTRAP_WRITES: usize = 256;

/// How long to wait before accepting again when the system refused, so that we do not spin meanwhile.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The largest answer of a webhook: a list of objects to convert comes back in one piece, and a patch is base64 of JSON of an object.
pub(crate) const EXTENSION_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// How long a connection to an extension server is kept for the next call, and how many of them for each server.
pub(crate) const EXTENSION_IDLE: Duration = Duration::from_secs(60);
pub(crate) const EXTENSION_IDLE_CONNECTIONS: usize = 16;

/// Different ways to trust extension servers that we keep connections for. A cluster has a dozen of them.
pub(crate) const EXTENSION_POOLS: usize = 128;

/// Endpoints of a service that are tried before a call fails: the deadline of a webhook leaves time for few.
pub(crate) const EXTENSION_ENDPOINTS_TRIED: usize = 3;

/// How much of what an extension server says is repeated in a message.
pub(crate) const QUOTED_CHARS: usize = 2048;

/// How long a conversion webhook may take; upstream's deadline of every call to a webhook that names none.
pub(crate) const CONVERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// What one question to a conversion webhook may hold: its answer, which may be larger, must stay below `EXTENSION_ANSWER_BYTES`.
pub(crate) const CONVERSION_BYTES: usize = 4 * 1024 * 1024;
pub(crate) const CONVERSION_OBJECTS: usize = 500;

/// Converted objects that are kept for further readers, for each definition.
pub(crate) const CONVERTED_BYTES: usize = 8 * 1024 * 1024;

/// Events of a watch that are converted in one question.
pub(crate) const EVENTS_CONVERTED: usize = 64;

/// How often a server behind an APIService is asked whether it still answers, how long it may take, and how soon it is asked again
/// when it did not; upstream's figures.
pub(crate) const AVAILABILITY_INTERVAL: Duration = Duration::from_secs(30);
pub(crate) const AVAILABILITY_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const AVAILABILITY_RETRY: Duration = Duration::from_millis(250);
