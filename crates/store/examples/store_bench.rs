//! Prints how many durable writes of 1 KiB the store takes in a second, with 1, 64 and 256 clients.
//!
//! `cargo run --release -p coracle-store --example store_bench [DIRECTORY] [SECONDS]`

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_store::{Attributes, Key, Options, Revision, Store, Value};

const BYTES: usize = 1024;

/// What each client does again and again.
#[derive(Clone, Copy)]
enum Work {
    Create,
    Update,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(&directory, Duration::from_secs(seconds)))
}

async fn bench(directory: &Path, time: Duration) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir_in(directory)?;
    println!("{:>8} {:>8} {:>10} {:>10} {:>10}", "work", "clients", "writes/s", "p50 us", "p99 us");
    for (name, work) in [("create", Work::Create), ("update", Work::Update)] {
        for clients in [1, 64, 256] {
            let path = directory.path().join(format!("{name}-{clients}.db"));
            let start = Instant::now();
            let store =
                Store::open(Options::sqlite(path.clone(), |_, _| Attributes::default())).await?;
            eprintln!("a new store opened in {:?}", start.elapsed());
            let mut latencies = run(&store, clients, time, work).await?;
            latencies.sort_unstable();
            let rate = latencies.len() as f64 / time.as_secs_f64();
            let percentile =
                |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_micros();
            println!(
                "{name:>8} {clients:>8} {rate:>10.0} {:>10} {:>10}",
                percentile(50),
                percentile(99)
            );
            let (revision, start) = (store.revision(), Instant::now());
            store.close().await;
            let closed = start.elapsed();
            let start = Instant::now();
            let store = Store::open(Options::sqlite(path, |_, _| Attributes::default())).await?;
            assert_eq!(store.revision(), revision, "every write is there");
            eprintln!("closed in {closed:?}, {revision} writes loaded in {:?}", start.elapsed());
            store.close().await;
        }
    }
    Ok(())
}

/// Lets clients write for this long, and returns how long each write took.
async fn run(
    store: &Store,
    clients: usize,
    time: Duration,
    work: Work,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let end = Instant::now() + time;
    let clients: Vec<_> = (0..clients)
        .map(|client| tokio::spawn(client_writes(store.clone(), client, end, work)))
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    Ok(latencies)
}

async fn client_writes(
    store: Store,
    client: usize,
    end: Instant,
    work: Work,
) -> Result<Vec<Duration>, coracle_store::WriteError> {
    let mut latencies = Vec::new();
    let resource: std::sync::Arc<str> = "configmaps".into();
    let namespace: std::sync::Arc<str> = "default".into();
    let mut current: Option<Revision> = None;
    for round in 0u64.. {
        let start = Instant::now();
        if start >= end {
            break;
        }
        let value =
            Value { bytes: vec![b'x'; BYTES], revision_at: 100, attributes: Attributes::default() };
        let name = match work {
            Work::Create => format!("object-{client}-{round}"),
            Work::Update => format!("object-{client}"),
        };
        let key = Key::new(resource.clone(), namespace.clone(), name);
        let written = match (work, current) {
            (Work::Update, Some(revision)) => store.update(key, revision, value).await?,
            (Work::Create | Work::Update, _) => store.create(key, value).await?,
        };
        current = Some(written.revision);
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}
