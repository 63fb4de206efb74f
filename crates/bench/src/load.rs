//! Clients that are kept busy for a while, and how many operations they got done.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::timeout;

use crate::report::{Figure, median_and_p99, milliseconds, rate};

/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(3);
/// Rounds, of which the median counts.
const ROUNDS: usize = 3;
/// How long the last operations of a round may take beyond its end.
const GRACE: Duration = Duration::from_secs(30);

struct Round {
    per_second: f64,
    p99: Duration,
}

/// One operation of a client: `Operation(client, number)`, where numbers never come again.
pub trait Operation<F>: Fn(usize, u64) -> F + Send + Sync + 'static {}
impl<F, T: Fn(usize, u64) -> F + Send + Sync + 'static> Operation<F> for T {}

/// Lets clients repeat an operation, each as soon as the one before is done: a round that does not count, then some
/// of which the median does.
pub async fn measure<F>(clients: usize, operation: impl Operation<F>) -> Result<Figure>
where
    F: Future<Output = Result<()>> + Send,
{
    let operation = Arc::new(operation);
    round(clients, 0, ROUND / 6, operation.clone()).await?;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        rounds.push(round(clients, number, ROUND, operation.clone()).await?);
    }
    rounds.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    let median = &rounds[ROUNDS / 2];
    Ok(Figure { median: rate(median.per_second), p99: Some(milliseconds(median.p99)) })
}

async fn round<F>(
    clients: usize,
    number: usize,
    time: Duration,
    operation: Arc<impl Operation<F>>,
) -> Result<Round>
where
    F: Future<Output = Result<()>> + Send,
{
    let start = Instant::now();
    let end = start + time;
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let operation = operation.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut before = Instant::now();
                let mut next = (number as u64) << 40;
                while before < end {
                    operation(client, next).await?;
                    next += 1;
                    let now = Instant::now();
                    latencies.push(now - before);
                    before = now;
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        let done = timeout(time + GRACE, client).await.context("a client does not end")?;
        latencies.extend(done??);
    }
    let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Round { per_second, p99: median_and_p99(latencies).1 })
}
