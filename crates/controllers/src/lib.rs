//! One reconciler per kind: each a pure plan and a thin reconcile.
//!
//! Start at [`run`], then `context.rs` (what the controllers share), then the
//! file of the controller you care about: `plan` decides, `reconcile` acts.
//!
//! Always true: controllers read mirrors and write to the API, nothing else. They
//! never call each other. A reconcile may run at any time and any number of times:
//! its writes carry uids and resourceVersions, so a repeated one collides instead of
//! doubling. Time is an argument of every plan.
//!
//! Several copies may run: only the one that holds the Lease `kube-controller-manager` acts.
//!
//! Deliberately absent: queues, retries, back-off and how a leader is elected (they are
//! in `coracle-reconcile`).

mod api;
mod bootstrap_tokens;
mod certificates;
mod context;
mod cron_job;
mod daemon_set;
mod deployment;
mod discovery;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volume;
mod garbage_collector;
mod history;
mod horizontal_pod_autoscaler;
mod job;
mod namespace;
mod node_lifecycle;
mod ownership;
mod persistent_volume;
mod placed;
mod pod;
mod pod_gc;
mod pods;
mod replica_set;
mod root_ca;
mod service_account;
mod service_pods;
mod share;
mod stateful_set;
mod taint_eviction;
mod templates;
mod token_secrets;
mod ttl_after_finished;
mod volume_protection;

use std::sync::Arc;

use coracle_reconcile::{Election, NotSynced};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use context::Context;

pub use certificates::{SigningCa, SigningCaError};

/// Tells the time: the system's, or a test's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the controllers have to be told.
#[derive(Clone)]
pub struct Options {
    /// The cluster's CA certificates in PEM, published as `kube-root-ca.crt` in every namespace.
    pub cluster_ca_pem: String,
    /// What signs the certificates that are asked for and approved; without it nobody does here.
    pub signing_ca: Option<Arc<SigningCa>>,
    /// Under which name this copy asks for leadership: no other copy's, and the same after a restart if that is known.
    pub identity: String,
    /// What time it is.
    pub clock: Clock,
}

impl Options {
    /// Options with the system's clock and an identity of their own.
    pub fn new(cluster_ca_pem: impl Into<String>) -> Self {
        Self {
            cluster_ca_pem: cluster_ca_pem.into(),
            signing_ca: None,
            identity: uuid::Uuid::new_v4().to_string(),
            clock: Arc::new(Timestamp::now),
        }
    }

    /// The same, and this copy asks for leadership under this name.
    pub fn identified_as(self, identity: String) -> Self {
        Self { identity, ..self }
    }

    /// The same, and approved CertificateSigningRequests are signed with this authority.
    pub fn signing_with(self, ca: SigningCa) -> Self {
        Self { signing_ca: Some(Arc::new(ca)), ..self }
    }
}

/// Why the controllers could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kind could not be listed in time.
    #[error("cannot mirror what the controllers work on")]
    Mirror(#[from] NotSynced),
}

/// Runs every controller while this copy is the leader, until `shutdown`, and then awaits them.
///
/// # Errors
/// When the API does not answer the first lists in time.
pub async fn run(
    client: kube::Client,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let election = Election::new(client.clone(), "kube-controller-manager", &*options.identity);
    election.run(shutdown, |term| lead(client.clone(), options.clone(), term)).await
}

/// Runs every controller until `term` is over.
async fn lead(
    client: kube::Client,
    options: Options,
    term: CancellationToken,
) -> Result<(), Error> {
    let ctx = Context::start(client, options, term);
    let started = start(&ctx).await;
    match started {
        Ok(()) => ctx.tasks.finished().await,
        Err(_) => ctx.tasks.shutdown().await,
    }
    started
}

/// Every controller, one line each.
async fn start(ctx: &Arc<Context>) -> Result<(), Error> {
    if ctx.tasks.until_stopped(ctx.mirrors.synced()).await?.is_none() {
        return Ok(());
    }
    namespace::start(ctx);
    service_account::start(ctx);
    token_secrets::start(ctx);
    bootstrap_tokens::start(ctx);
    root_ca::start(ctx);
    replica_set::start(ctx);
    deployment::start(ctx);
    stateful_set::start(ctx);
    daemon_set::start(ctx);
    node_lifecycle::start(ctx);
    taint_eviction::start(ctx);
    pod_gc::start(ctx);
    persistent_volume::start(ctx);
    ephemeral_volume::start(ctx);
    volume_protection::start(ctx);
    garbage_collector::start(ctx);
    job::start(ctx);
    cron_job::start(ctx);
    ttl_after_finished::start(ctx);
    endpoint_slice::start(ctx);
    endpoint_slice_mirroring::start(ctx);
    endpoints::start(ctx);
    disruption::start(ctx);
    horizontal_pod_autoscaler::start(ctx);
    certificates::start(ctx);
    Ok(())
}
