//! A process that is killed at any instant loses no write that it acknowledged, and leaves none half done.
//!
//! The test starts itself again as a process whose concurrent clients write to the store and report each answer
//! through a pipe. It kills that process at a random instant, opens the store, and compares. Then again, on the same
//! database.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use coracle_store::{Attributes, Backend, EntryKind, Key, Options, Revision, Sqlite, Store, Value};
use rand::Rng;

const DATABASE: &str = "CORACLE_STORE_KILL_DATABASE";
const ROUND: &str = "CORACLE_STORE_KILL_ROUND";
const ROUNDS: u32 = 24;
/// However slow the machine, the test ends.
const LONGEST: Duration = Duration::from_secs(60);
const CLIENTS: u32 = 12;

/// What a client does as its n-th write: it creates, updates three times, deletes, and begins again.
fn kind(step: u64) -> EntryKind {
    match step % 5 {
        0 => EntryKind::Create,
        4 => EntryKind::Delete,
        _ => EntryKind::Update,
    }
}

fn key(round: u32, client: u32) -> Key {
    Key::new("configmaps", format!("round-{round}"), format!("client-{client}"))
}

/// A value whose every byte follows from who wrote it, and whose size varies around a page.
fn value(client: u32, step: u64) -> Value {
    let head = format!("{client}/{step}/");
    let size = 200 + (step as usize * 997 + client as usize * 131) % 6000;
    let bytes = head.bytes().cycle().take(size).collect();
    Value { bytes, revision_at: head.len(), attributes: Attributes::default() }
}

/// The step that wrote these bytes, when they are whole.
fn step_of(client: u32, revision: Revision, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let step = text.split('/').nth(1).unwrap().parse().unwrap();
    let Value { bytes: mut whole, revision_at, .. } = value(client, step);
    whole.splice(revision_at..revision_at, revision.to_string().into_bytes());
    assert_eq!(text.as_bytes(), whole, "a write is whole and carries its revision");
    step
}

/// Not a test: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_process() {
    let (Ok(path), Ok(round)) = (std::env::var(DATABASE), std::env::var(ROUND)) else {
        return;
    };
    let round = round.parse().unwrap();
    let store = Store::open(Options::sqlite(path, |_, _| Attributes::default())).await.unwrap();
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(write(store.clone(), round, client))).collect();
    if round % 2 == 1 {
        tokio::spawn(async move {
            loop {
                let keep = store.revision().get().saturating_sub(200);
                store.compact(Revision::new(keep)).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    for client in clients {
        client.await.unwrap();
    }
}

async fn write(store: Store, round: u32, client: u32) {
    let mut current = Revision::ZERO;
    for step in 0.. {
        let (key, value) = (key(round, client), value(client, step));
        let written = match kind(step) {
            EntryKind::Create => store.create(key, value).await,
            EntryKind::Update => store.update(key, current, value).await,
            EntryKind::Delete => store.delete(key, current, value).await,
        };
        current = written.unwrap().revision;
        // One short write into a pipe: it is there as a whole or not at all.
        let line = format!("\nacknowledged {client} {step} {current}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }
}

/// An acknowledged write: its client's step and its revision.
type Acknowledged = Vec<(u32, u64, Revision)>;

/// Lets a process write, kills it after a random time, and returns what it acknowledged.
fn run_and_kill(path: &Path, round: u32) -> Acknowledged {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--nocapture"])
        .env(DATABASE, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let (first, started) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acknowledged = Vec::new();
        for line in output.lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            if words.next() != Some("acknowledged") {
                continue;
            }
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            acknowledged.push((number() as u32, number(), Revision::new(number())));
            first.send(()).ok();
        }
        acknowledged
    });
    let mut random = rand::rng();
    if random.random_bool(0.85) {
        started.recv_timeout(LONGEST).expect("the process writes");
        std::thread::sleep(Duration::from_micros(random.random_range(0..150_000)));
    } else {
        // Also while it opens the database.
        std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    reader.join().unwrap()
}

/// Compares the log with what was acknowledged in this round.
async fn check_log(path: &Path, round: u32, acknowledged: &Acknowledged) {
    let mut backend = Sqlite::open(path).await.unwrap();
    let bounds = backend.load().await.unwrap();
    let rows = backend.read(Revision::ZERO, usize::MAX).await.unwrap();
    backend.close().await.unwrap();
    let kept: Vec<_> = rows
        .iter()
        .map(|row| row.revision)
        .filter(|revision| *revision > bounds.compacted)
        .collect();
    let expected: Vec<_> =
        (bounds.compacted.get() + 1..=bounds.last.get()).map(Revision::new).collect();
    assert_eq!(kept, expected, "revisions have no gap");
    let rows: HashMap<_, _> = rows.iter().map(|row| (row.revision, row)).collect();
    for (client, step, revision) in acknowledged {
        match rows.get(revision) {
            Some(row) => {
                assert_eq!((row.key.clone(), row.kind), (key(round, *client), kind(*step)));
                assert_eq!(step_of(*client, *revision, &row.bytes), *step);
            }
            None => assert!(
                *revision <= bounds.compacted,
                "write {revision} was acknowledged and is lost"
            ),
        }
    }
}

/// Checks every client's object: it is as acknowledged, or one write further. Returns how it is.
fn check_state(
    store: &Store,
    round: u32,
    acknowledged: &Acknowledged,
) -> HashMap<Key, Option<Revision>> {
    let mut last: HashMap<u32, (u64, Revision)> = HashMap::new();
    for (client, step, revision) in acknowledged {
        last.insert(*client, (*step, *revision));
    }
    let mut state = HashMap::new();
    for client in 0..CLIENTS {
        let key = key(round, client);
        let object = store.get(&key);
        let next = last.get(&client).map_or(0, |(step, _)| step + 1);
        match &object {
            Some(object) => {
                let step = step_of(client, object.revision, &object.bytes);
                assert_ne!(kind(step), EntryKind::Delete);
                assert!(
                    step == next || step + 1 == next,
                    "client {client} is at step {step}, its next was {next}"
                );
            }
            None => assert!(
                next == 0 || kind(next) == EntryKind::Delete || kind(next - 1) == EntryKind::Delete,
                "client {client} has no object, its next step was {next}"
            ),
        }
        state.insert(key, object.map(|object| object.revision));
    }
    state
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("state.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let end = Instant::now() + LONGEST;
    let mut past: HashMap<Key, Option<Revision>> = HashMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        if Instant::now() > end {
            break;
        }
        let acknowledged = run_and_kill(&path, round);
        total += acknowledged.len();
        past.extend(runtime.block_on(async {
            // SQLite recovers here, before anything is compared.
            check_log(&path, round, &acknowledged).await;
            let store = Store::open_with(
                Sqlite::open(&path).await.unwrap(),
                Arc::new(|_: &Key, _: &[u8]| Attributes::default()),
                Default::default(),
            )
            .await
            .unwrap();
            for (key, revision) in &past {
                assert_eq!(
                    store.get(key).map(|object| object.revision),
                    *revision,
                    "{key} is as it was rounds ago"
                );
            }
            let state = check_state(&store, round, &acknowledged);
            store.close().await;
            state
        }));
    }
    assert!(total > 100, "the processes wrote: {total}");
}
