//! The one task that writes.
//!
//! It takes all writes that are queued, checks each against the mirror and against those before it in the same batch,
//! numbers those that pass, and hands them to the backend as one transaction. When that is durable, and not before,
//! it publishes them to the mirror and answers. While one batch is on its way to the disk the next one gathers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::backend::{AppendError, Backend, BackendError, Entry, EntryKind};
use crate::error::{OpenError, WriteError};
use crate::history::{Due, History};
use crate::load;
use crate::mirror::Mirror;
use crate::object::{Attributes, Change, Event, Key, Object, Revision, Value};
use crate::options::Limits;

/// What every backend takes in one batch.
pub(crate) const MOST_WRITES: usize = 4096;

/// What handles ask of the writer.
#[derive(Debug)]
pub(crate) enum Command {
    Write(Write),
    Compact { before: Revision, done: oneshot::Sender<Result<(), WriteError>> },
    Scrub { done: oneshot::Sender<Result<(), WriteError>> },
    Close { done: oneshot::Sender<()> },
}

/// One write that waits.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) intent: Intent,
    pub(crate) key: Key,
    pub(crate) value: Value,
    pub(crate) answer: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

/// What a write wants, and under which condition.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Intent {
    Create,
    Update { expected: Revision },
    Delete { expected: Revision },
}

/// Loads the state and starts the writer.
pub(crate) async fn start(
    mut backend: impl Backend,
    attributes: &(dyn Fn(&Key, &[u8]) -> Attributes + Send + Sync),
    mut limits: Limits,
) -> Result<(Arc<Mirror>, mpsc::Sender<Command>), OpenError> {
    limits.batch_writes = limits.batch_writes.clamp(1, MOST_WRITES);
    let (mirror, history) = load::load(&mut backend, attributes, &limits).await?;
    let mirror = Arc::new(mirror);
    let (commands, inbox) = mpsc::channel(limits.queued_writes);
    let writer = Writer {
        backend,
        mirror: mirror.clone(),
        history,
        limits,
        batch: Batch::default(),
        compactions: Vec::new(),
    };
    tokio::spawn(writer.run(inbox));
    Ok((mirror, commands))
}

struct Writer<B> {
    backend: B,
    mirror: Arc<Mirror>,
    history: History,
    limits: Limits,
    batch: Batch,
    /// Who waits until nothing is left to delete.
    compactions: Vec<oneshot::Sender<Result<(), WriteError>>>,
}

/// Why the writer goes on.
#[derive(PartialEq, Eq)]
enum Woken {
    ByCommands,
    ByTime,
    Ended,
}

/// Writes that share a transaction.
#[derive(Default)]
struct Batch {
    events: Vec<Arc<Event>>,
    entries: Vec<Entry>,
    bytes: usize,
    /// What the batch makes of the objects that it writes; `None` once deleted.
    changed: HashMap<Key, Option<Arc<Object>>>,
    /// Answers wait for the transaction, refusals too: they may tell of writes that are not durable yet.
    answers: Vec<Answer>,
}

/// Who waits, and what to say once the batch is durable.
struct Answer {
    to: oneshot::Sender<Result<Arc<Object>, WriteError>>,
    outcome: Result<Arc<Object>, WriteError>,
}

impl<B: Backend> Writer<B> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut commands = Vec::with_capacity(self.limits.batch_writes);
        let mut closing = Vec::new();
        loop {
            if self.next_commands(&mut inbox, &mut commands).await == Woken::Ended {
                break;
            }
            for command in commands.drain(..) {
                match command {
                    Command::Write(write) => self.admit(write),
                    Command::Compact { before, done } => {
                        // Writes queued before it count as past.
                        self.commit().await;
                        self.history.request(before.min(self.mirror.revision()));
                        self.compactions.push(done);
                    }
                    Command::Scrub { done } => {
                        self.commit().await;
                        let scrubbed = self.backend.scrub().await;
                        let unavailable =
                            |error: BackendError| WriteError::Unavailable(error.to_string().into());
                        // Who asked may have stopped waiting.
                        done.send(scrubbed.map_err(unavailable)).ok();
                    }
                    Command::Close { done } => {
                        // What was queued before is still received; then the channel is at its end.
                        inbox.close();
                        closing.push(done);
                    }
                }
                if self.batch.bytes >= self.limits.batch_bytes {
                    self.commit().await;
                }
            }
            self.commit().await;
            self.compact_slice().await;
        }
        while !self.compactions.is_empty() {
            self.compact_slice().await;
        }
        self.mirror.close();
        if let Err(error) = self.backend.close().await {
            warn!(error = %error, "the store's database did not close cleanly");
        }
        for done in closing {
            // Who asked may have stopped waiting.
            done.send(()).ok();
        }
    }

    /// Waits for commands, or for a compaction that is due.
    async fn next_commands(
        &mut self,
        inbox: &mut mpsc::Receiver<Command>,
        commands: &mut Vec<Command>,
    ) -> Woken {
        let received = inbox.recv_many(commands, self.limits.batch_writes);
        let received = match self.history.due(&self.limits) {
            Due::Never => received.await,
            Due::Now => tokio::select! {
                biased;
                received = received => received,
                () = std::future::ready(()) => return Woken::ByTime,
            },
            Due::At(deadline) => tokio::select! {
                biased;
                received = received => received,
                () = tokio::time::sleep_until(deadline) => return Woken::ByTime,
            },
        };
        if received == 0 { Woken::Ended } else { Woken::ByCommands }
    }

    /// Checks a write and puts it into the batch.
    fn admit(&mut self, write: Write) {
        let Write { intent, key, value, answer } = write;
        let outcome = match self.mirror.failure() {
            Some(cause) => Err(WriteError::Poisoned(cause)),
            None => self.apply(intent, key, value),
        };
        self.batch.answers.push(Answer { to: answer, outcome });
    }

    fn apply(&mut self, intent: Intent, key: Key, value: Value) -> Result<Arc<Object>, WriteError> {
        let current = match self.batch.changed.get(&key) {
            Some(pending) => pending.clone(),
            None => self.mirror.get(&key),
        };
        let revision = self
            .batch
            .events
            .last()
            .map_or_else(|| self.mirror.revision(), |event| event.revision)
            .next();
        let (kind, change) = match (intent, current) {
            (Intent::Create, None) => {
                let object = place(self.mirror.share(key), value, revision, revision);
                (EntryKind::Create, Change::Put { object, previous: None })
            }
            (Intent::Create, Some(current)) => return Err(WriteError::Exists(current)),
            (Intent::Update { expected }, Some(current)) if current.revision == expected => {
                let object = place(current.key.clone(), value, revision, current.created_revision);
                (EntryKind::Update, Change::Put { object, previous: Some(current) })
            }
            (Intent::Delete { expected }, Some(current)) if current.revision == expected => {
                let object = place(current.key.clone(), value, revision, current.created_revision);
                (EntryKind::Delete, Change::Delete { object, previous: current })
            }
            (Intent::Update { .. } | Intent::Delete { .. }, current) => {
                return Err(WriteError::Conflict { current });
            }
        };
        let event = Event { revision, change };
        let object = event.object().clone();
        self.batch.push(kind, event);
        Ok(object)
    }

    /// Makes the batch durable, then visible, then answers.
    async fn commit(&mut self) {
        if !self.batch.entries.is_empty() {
            match self.backend.append(&self.batch.entries).await {
                Ok(()) => {
                    self.mirror.publish(&self.batch.events);
                    self.history.record(&self.batch.events, Instant::now(), &self.limits);
                }
                Err(AppendError::Refused(cause)) => {
                    warn!(error = %cause, writes = self.batch.entries.len(), "the store's database refused a transaction");
                    let cause: Arc<str> = cause.to_string().into();
                    self.batch.fail(&WriteError::Unavailable(cause));
                }
                Err(AppendError::Unknown(cause)) => {
                    error!(error = %cause, "the outcome of a transaction is unknown; the store takes no further writes");
                    let cause: Arc<str> = cause.to_string().into();
                    self.batch.fail(&WriteError::Unknown(cause.clone()));
                    self.mirror.fail(cause);
                }
            }
        }
        self.batch.answer();
    }

    /// Deletes some of what a due compaction makes superfluous.
    async fn compact_slice(&mut self) {
        if let Some(slice) = self.history.slice(Instant::now(), &self.limits) {
            match self.backend.compact(slice.before, &slice.superseded).await {
                Ok(()) => {
                    self.mirror.forget(slice.before);
                    self.history.deleted(&slice);
                }
                Err(cause) => {
                    warn!(error = %cause, "a compaction failed and is put off");
                    self.history.put_off(Instant::now());
                    let cause: Arc<str> = cause.to_string().into();
                    self.answer_compactions(&Err(WriteError::Unavailable(cause)));
                }
            }
        }
        if self.history.is_settled() {
            self.answer_compactions(&Ok(()));
        }
    }

    fn answer_compactions(&mut self, outcome: &Result<(), WriteError>) {
        for done in self.compactions.drain(..) {
            // Who asked may have stopped waiting.
            done.send(outcome.clone()).ok();
        }
    }
}

impl Batch {
    fn push(&mut self, kind: EntryKind, event: Event) {
        let object = event.object();
        let after = match &event.change {
            Change::Put { object, .. } => Some(object.clone()),
            Change::Delete { .. } => None,
        };
        self.bytes += object.bytes.len();
        self.changed.insert(object.key.clone(), after);
        self.entries.push(Entry {
            revision: event.revision,
            kind,
            key: object.key.clone(),
            created_revision: object.created_revision,
            bytes: object.bytes.clone(),
        });
        self.events.push(Arc::new(event));
    }

    /// Turns every answer into this failure.
    fn fail(&mut self, failure: &WriteError) {
        self.answers.iter_mut().for_each(|answer| answer.outcome = Err(failure.clone()));
    }

    /// Answers all, and makes room for the next batch.
    fn answer(&mut self) {
        self.events.clear();
        self.entries.clear();
        self.changed.clear();
        self.bytes = 0;
        for Answer { to, outcome } in self.answers.drain(..) {
            // Who asked may have stopped waiting; the write is done all the same.
            to.send(outcome).ok();
        }
    }
}

/// Puts the revision into the value.
fn place(key: Key, value: Value, revision: Revision, created_revision: Revision) -> Arc<Object> {
    let digits = revision.to_string();
    let (before, after) = value.bytes.split_at(value.revision_at);
    let mut bytes = Vec::with_capacity(value.bytes.len() + digits.len());
    bytes.extend_from_slice(before);
    bytes.extend_from_slice(digits.as_bytes());
    bytes.extend_from_slice(after);
    Arc::new(Object {
        key,
        revision,
        created_revision,
        bytes: Bytes::from(bytes),
        attributes: value.attributes,
    })
}
