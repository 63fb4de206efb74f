//! `/metrics`, with upstream's names.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use coracle_api::kinds::Kind;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::request_info::ResourcePath;
use crate::server::Server;

/// What a request turned out to be, in words that are known beforehand: a client cannot make new time series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Served {
    pub(crate) verb: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) subresource: &'static str,
    pub(crate) scope: &'static str,
}

impl Served {
    pub(crate) fn about(&mut self, kind: &'static Kind, target: &ResourcePath) {
        self.group = kind.group;
        self.version = kind.version;
        self.resource = kind.plural;
        self.subresource =
            kind.subresource(&target.subresource).map_or("", |subresource| subresource.name);
        self.scope = if !target.name.is_empty() {
            "resource"
        } else if target.namespace.is_empty() {
            "cluster"
        } else {
            "namespace"
        };
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestKind {
    request_kind: &'static str,
}

/// The counters; cheap to bump, encoded when asked for.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Counted, Counter>,
    durations: Family<Served, Histogram, fn() -> Histogram>,
    in_flight: Family<RequestKind, Gauge>,
    revision: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<Counted, Counter>::default();
        let durations =
            Family::<Served, Histogram, fn() -> Histogram>::new_with_constructor(request_histogram);
        let in_flight = Family::<RequestKind, Gauge>::default();
        let revision = Gauge::<f64, AtomicU64>::default();
        let mut registry = Registry::default();
        registry.register(
            "apiserver_request",
            "Requests answered, by what they were about and the HTTP code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "How long requests took until their answer began, watches and streams apart",
            durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being answered now",
            in_flight.clone(),
        );
        registry.register(
            "apiserver_storage_resource_version",
            "The revision of the last write",
            revision.clone(),
        );
        Self { registry, requests, durations, in_flight, revision }
    }
}

/// From a quarter of a millisecond, where memory answers, to a minute, where requests time out.
fn request_histogram() -> Histogram {
    Histogram::new([
        0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0, 60.0,
    ])
}

impl Metrics {
    /// Counts one answered request.
    pub(crate) fn request(&self, served: &Served, code: StatusCode, took: Duration) {
        let Served { verb, group, version, resource, subresource, scope } = *served;
        let counted =
            Counted { verb, group, version, resource, subresource, scope, code: code.as_u16() };
        self.requests.get_or_create(&counted).inc();
        if verb != "watch" && verb != "proxy" && subresource != "log" {
            self.durations.get_or_create(served).observe(took.as_secs_f64());
        }
    }

    /// All of it as text.
    pub(crate) fn encode(&self, server: &Server) -> String {
        for (request_kind, places) in [("readOnly", &server.reads), ("mutating", &server.writes)] {
            let busy = i64::try_from(places.busy()).unwrap_or(i64::MAX);
            self.in_flight.get_or_create(&RequestKind { request_kind }).set(busy);
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float; 2^53 writes take centuries"
        )]
        self.revision.set(server.store.revision().get() as f64);
        let mut text = String::new();
        // Writing to a String cannot fail.
        prometheus_client::encoding::text::encode(&mut text, &self.registry).ok();
        text
    }
}
