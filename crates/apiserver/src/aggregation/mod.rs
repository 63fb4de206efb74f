//! API aggregation: group-versions that another server serves, named by `APIService`s, behind our own door.
//!
//! Start reading at [`Aggregator::remote_at`], which every request passes, and [`proxy::forward`]. `availability.rs` asks the servers
//! whether they answer and says so in the APIServices' conditions, `registration.rs` keeps an APIService for each group-version that
//! definitions make, `documents.rs` puts what the servers offer into discovery and OpenAPI, in the order of `order.rs`. As upstream
//! (<https://github.com/kubernetes/kubernetes/tree/master/staging/src/k8s.io/kube-aggregator/pkg>).
//!
//! What is always true:
//! - Requests are authenticated, authorized and audited here first; the server learns who asks from the headers of the front proxy,
//!   whose certificate only we hold, and never sees the caller's credentials.
//! - A server that did not pass its last check is not asked: its users get 503 at once.
//!
//! - Nothing of a server's is waited for by those who ask us: what it says of itself is fetched from time to time, and bounded.

mod availability;
pub(crate) mod documents;
mod order;
pub(crate) mod proxy;
mod registration;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use serde_json::Value;

use crate::extension::{Destination, Extensions};
use crate::resource_metrics;
pub(crate) use availability::{begin, run as keep_available};
pub(crate) use order::{OF_METRICS, Order, Priority, built_in};
pub(crate) use registration::run as keep_registered;

/// Knows who serves which group-version instead of us.
pub(crate) struct Aggregator {
    client: Extensions,
    remotes: ArcSwap<Remotes>,
}

/// The aggregated group-versions at one moment.
#[derive(Default)]
pub(crate) struct Remotes {
    /// Grows with each change.
    pub(crate) number: u64,
    by_version: BTreeMap<(String, String), Arc<Remote>>,
}

/// Who serves one group-version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remote {
    pub(crate) group: String,
    pub(crate) version: String,
    server: Behind,
    priority: Priority,
    state: State,
}

/// Where the answers come from.
#[derive(Debug, Clone, PartialEq)]
enum Behind {
    /// A server behind a Service; or why it cannot be called.
    Service(Result<Destination, String>),
    /// This process: see [`resource_metrics`].
    Here,
}

/// What the last check found.
#[derive(Debug, Clone, PartialEq)]
enum State {
    Available(Offer),
    Unavailable,
}

/// What an available server has said about itself.
#[derive(Debug, Clone, PartialEq, Default)]
struct Offer {
    /// The `resources` of its `APIResourceList`.
    resources: Vec<Value>,
    /// The address of its OpenAPI document, if it has one.
    open_api: Option<String>,
    /// Its part of OpenAPI v2.
    swagger: Option<Arc<Swagger>>,
}

/// What a server's OpenAPI v2 document says of its group-version.
#[derive(Debug, PartialEq)]
struct Swagger {
    /// By which the server knows the whole document.
    tag: Option<HeaderValue>,
    part: Value,
}

impl Aggregator {
    /// Nothing is aggregated yet.
    pub(crate) fn new(client: Extensions) -> Self {
        Self { client, remotes: ArcSwap::default() }
    }

    /// The aggregated group-versions as they are now.
    pub(crate) fn remotes(&self) -> Arc<Remotes> {
        self.remotes.load_full()
    }

    /// The server that answers for this path, if it is not us.
    pub(crate) fn remote_at(&self, path: &str) -> Option<Arc<Remote>> {
        let remotes = self.remotes.load();
        if remotes.by_version.is_empty() {
            return None;
        }
        let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
        let mut parts = path.strip_prefix("/apis/")?.split('/');
        let place = (parts.next()?.to_owned(), parts.next()?.to_owned());
        remotes.by_version.get(&place).cloned()
    }

    /// From now on these are the aggregated group-versions.
    fn publish(&self, remotes: impl Iterator<Item = Remote>) {
        let current = self.remotes.load();
        let by_version: BTreeMap<_, _> = remotes
            .map(|remote| ((remote.group.clone(), remote.version.clone()), Arc::new(remote)))
            .collect();
        if by_version != current.by_version {
            self.remotes.store(Arc::new(Remotes { number: current.number + 1, by_version }));
        }
    }
}

impl Remotes {
    /// Each of them, in the order of group and version.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Remote> {
        self.by_version.values().map(|remote| &**remote)
    }
}

impl Remote {
    /// The metrics of nodes and pods as this process tells them.
    fn metrics() -> Self {
        Self {
            group: resource_metrics::SERVED.group.to_owned(),
            version: resource_metrics::SERVED.version.to_owned(),
            server: Behind::Here,
            priority: order::OF_METRICS,
            state: State::Available(Offer {
                resources: resource_metrics::resources(),
                ..Offer::default()
            }),
        }
    }

    /// Whether nobody else is to be asked.
    pub(crate) fn is_here(&self) -> bool {
        self.server == Behind::Here
    }

    /// `/apis/GROUP/VERSION`.
    fn root_path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}
