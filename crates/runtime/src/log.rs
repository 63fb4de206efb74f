//! Container logs on disk, in the CRI log format, written off the guest's path.
//!
//! One line of the file is `<RFC 3339 time, UTC, nine digits> stdout|stderr F|P <text>`. `F` ends a line of the
//! container; `P` is a piece of a line longer than [`PARTIAL_BYTES`].
//!
//! A guest's output goes into a bounded buffer; one thread ([`Logs`]) takes it to the file. Who prints faster than
//! the disk takes it waits in [`LogStream::ready`], and nobody else does.
//!
//! The contract with whoever follows the file (`kubectl logs -f`): the current file is always at the path itself.
//! When it would exceed [`LogLimits::file_bytes`], it is renamed to `PATH.1`, an older `PATH.1` to `PATH.2`, and so
//! on; the oldest is deleted. Files are cut between lines, and a renamed file never grows again. So a follower reads
//! its open file to the end; when the path then names another inode, it finds its own among [`rotated_files`], reads
//! the newer ones in order, and goes on with the path. [`rotated_files`] and [`LogLine::parse`] are there for readers.

mod line;
mod sink;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub use line::LogLine;
pub use sink::rotated_files;

use sink::Sink;

/// The longest text of one line of the file, as other container runtimes have it.
pub const PARTIAL_BYTES: usize = 16 * 1024;

/// What one container may have printed that is not on its way to the disk yet.
const BUFFER_BYTES: usize = 256 * 1024;

/// The least time between two turns of the thread: guests that print line by line would wake it for each of them.
const LINGER: Duration = Duration::from_millis(1);

/// What a stream that waited for its turn may write even if others have filled the buffer again meanwhile. A stream
/// that is told "ready" and then refused again and again would trap its guest.
const GRANTED_BYTES: usize = 4096;

/// Which of the two a guest wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How much of a container's output is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// The size at which a file is rotated.
    pub file_bytes: u64,
    /// How many files there are at most, the current one included.
    pub files: usize,
}

// The kubelet's defaults, containerLogMaxSize and containerLogMaxFiles.
impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes: 10 * 1024 * 1024, files: 5 }
    }
}

/// Owns the thread that writes every container's log.
pub struct Logs {
    queue: mpsc::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// The log of one container; clones write to the same file.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

/// One of a container's two streams.
pub struct LogStream {
    shared: Arc<Shared>,
    stream: Stream,
    granted: bool,
}

enum Order {
    Drain(Arc<Shared>),
    Close(Arc<Shared>, oneshot::Sender<()>),
    Stop,
}

struct Shared {
    buffer: Mutex<Vec<u8>>,
    /// True while a drain is on its way, so that a writer is queued once at most.
    queued: AtomicBool,
    space: Notify,
    queue: mpsc::Sender<Order>,
    sink: Mutex<Sink>,
}

/// In the buffer each piece of output follows its head.
#[derive(Clone, Copy)]
struct Head {
    second: i64,
    nanosecond: u32,
    stream: Stream,
    bytes: u32,
}

impl Logs {
    /// Starts the writer's thread.
    pub fn start() -> io::Result<Self> {
        let (queue, orders) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || write_logs(&orders))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Opens a container's log; an existing file is continued.
    pub fn open(&self, path: &Path, limits: LogLimits) -> io::Result<LogWriter> {
        let shared = Shared {
            buffer: Mutex::new(Vec::new()),
            queued: AtomicBool::new(false),
            space: Notify::new(),
            queue: self.queue.clone(),
            sink: Mutex::new(Sink::open(path, limits)?),
        };
        Ok(LogWriter { shared: Arc::new(shared) })
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // Orders are taken in order: whatever was printed before is on disk when the thread ends.
        if self.queue.send(Order::Stop).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log writer panicked");
        }
    }
}

impl LogWriter {
    /// One of its streams.
    pub fn stream(&self, stream: Stream) -> LogStream {
        LogStream { shared: Arc::clone(&self.shared), stream, granted: false }
    }

    /// Writes a line of the engine's own, such as a trap, if there is room for it.
    pub fn note(&self, text: &str) {
        let mut stream = self.stream(Stream::Stderr);
        if stream.room() > text.len() {
            stream.write(format!("{text}\n").as_bytes());
        }
    }

    /// Returns once all that was printed is in the file, with a last line that lacks its newline.
    pub async fn close(&self) {
        let (done, wait) = oneshot::channel();
        if self.shared.queue.send(Order::Close(Arc::clone(&self.shared), done)).is_ok() {
            // An error means that the thread ended, which drains everything too.
            let _ = wait.await;
        }
    }
}

impl LogStream {
    /// How many bytes [`LogStream::write`] takes now; 0 means to wait for [`LogStream::ready`].
    pub fn room(&self) -> usize {
        let free = BUFFER_BYTES.saturating_sub(self.shared.buffer.lock().len());
        if self.granted { free.max(GRANTED_BYTES) } else { free }
    }

    /// Hands output over; never blocks. The caller asked [`LogStream::room`] before.
    pub fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.granted = false;
        let now = Timestamp::now();
        let head = Head {
            second: now.as_second(),
            nanosecond: u32::try_from(now.subsec_nanosecond()).unwrap_or(0),
            stream: self.stream,
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        head.put(&mut self.shared.buffer.lock(), bytes);
        if !self.shared.queued.swap(true, Ordering::AcqRel) {
            // The thread outlives its writers; when it has ended, nobody reads the log any more.
            let _ = self.shared.queue.send(Order::Drain(Arc::clone(&self.shared)));
        }
    }

    /// Returns when there is room.
    pub async fn ready(&mut self) {
        loop {
            let space = self.shared.space.notified();
            if self.room() > 0 {
                break;
            }
            space.await;
        }
        self.granted = true;
    }

    /// Writes all of it, waiting for room as often as needed.
    pub async fn write_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.ready().await;
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            self.write(now);
            bytes = later;
        }
    }
}

impl Head {
    const BYTES: usize = 17;

    fn put(self, buffer: &mut Vec<u8>, text: &[u8]) {
        buffer.extend_from_slice(&self.second.to_le_bytes());
        buffer.extend_from_slice(&self.nanosecond.to_le_bytes());
        buffer.push(u8::from(self.stream == Stream::Stderr));
        buffer.extend_from_slice(&self.bytes.to_le_bytes());
        buffer.extend_from_slice(text);
    }

    /// Splits the first piece off.
    fn take(buffer: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (second, rest) = buffer.split_first_chunk::<8>()?;
        let (nanosecond, rest) = rest.split_first_chunk::<4>()?;
        let (stream, rest) = rest.split_first()?;
        let (bytes, rest) = rest.split_first_chunk::<4>()?;
        let head = Self {
            second: i64::from_le_bytes(*second),
            nanosecond: u32::from_le_bytes(*nanosecond),
            stream: if *stream == 0 { Stream::Stdout } else { Stream::Stderr },
            bytes: u32::from_le_bytes(*bytes),
        };
        let (text, rest) = rest.split_at_checked(head.bytes as usize)?;
        Some((head, text, rest))
    }
}

/// Each writer has its turn of one buffer, so a guest that prints without end delays the others by that much only.
fn write_logs(orders: &mpsc::Receiver<Order>) {
    let mut spare = Vec::new();
    let mut woken: Option<Instant> = None;
    while let Ok(order) = orders.recv() {
        if let Some(woken) = woken {
            std::thread::sleep(LINGER.saturating_sub(woken.elapsed()));
        }
        woken = Some(Instant::now());
        for order in std::iter::once(order).chain(std::iter::from_fn(|| orders.try_recv().ok())) {
            match order {
                Order::Drain(log) => log.drain(&mut spare),
                Order::Close(log, done) => {
                    log.drain(&mut spare);
                    log.sink.lock().finish_lines();
                    // Whoever waited may have gone away.
                    let _ = done.send(());
                }
                Order::Stop => return,
            }
        }
    }
}

impl Shared {
    fn drain(&self, spare: &mut Vec<u8>) {
        self.queued.store(false, Ordering::Release);
        spare.clear();
        std::mem::swap(&mut *self.buffer.lock(), spare);
        self.space.notify_waiters();
        let mut sink = self.sink.lock();
        let mut rest = spare.as_slice();
        while let Some((head, text, others)) = Head::take(rest) {
            sink.take(head, text);
            rest = others;
        }
        sink.flush();
        // An idle container keeps no buffer: there may be thousands.
        if spare.capacity() > Head::BYTES + BUFFER_BYTES * 2 {
            *spare = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests;
