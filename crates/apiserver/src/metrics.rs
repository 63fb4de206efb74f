//! `/metrics`, with upstream's names.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use coracle_api::kinds::Kind;
use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::admission::metrics::AdmissionMetrics;
use crate::fairness::Fairness;
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelName {
    priority_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowName {
    flow_schema: String,
    priority_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    flow_schema: String,
    priority_level: String,
    reason: &'static str,
}

/// What priority and fairness do. The names of schemas and levels are the administrator's.
#[derive(Default)]
struct FairnessMetrics {
    executing: Family<LevelName, Gauge>,
    seated: Family<LevelName, Gauge>,
    waiting: Family<LevelName, Gauge>,
    nominal: Family<LevelName, Gauge>,
    dispatched: Family<FlowName, Counter>,
    rejected: Family<Refused, Counter>,
}

impl FairnessMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_flowcontrol_current_executing_requests",
            "Requests of a priority level that have seats now",
            self.executing.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_current_executing_seats",
            "Seats that running requests of a priority level have now",
            self.seated.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Requests of a priority level that wait for a seat now",
            self.waiting.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_nominal_limit_seats",
            "Seats of a priority level before it lends or borrows",
            self.nominal.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_dispatched_requests",
            "Requests that got a seat",
            self.dispatched.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_rejected_requests",
            "Requests that got none, by why",
            self.rejected.clone(),
        );
    }

    /// Takes over what priority and fairness have counted themselves.
    fn read(&self, fairness: &Fairness) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        // Levels that are gone are not reported any longer.
        for family in [&self.executing, &self.seated, &self.waiting, &self.nominal] {
            family.clear();
        }
        for load in fairness.loads() {
            let level = LevelName { priority_level: load.level };
            self.executing.get_or_create(&level).set(gauge(load.executing));
            self.seated.get_or_create(&level).set(gauge(load.seated));
            self.waiting.get_or_create(&level).set(gauge(load.waiting));
            self.nominal.get_or_create(&level).set(gauge(load.nominal));
        }
        self.dispatched.clear();
        self.rejected.clear();
        for tally in fairness.tallies() {
            let (flow_schema, priority_level) = (tally.schema, tally.level);
            for (reason, number) in tally.rejected.into_iter().filter(|(_, number)| *number > 0) {
                let (flow_schema, priority_level) = (flow_schema.clone(), priority_level.clone());
                let refused = Refused { flow_schema, priority_level, reason };
                self.rejected.get_or_create(&refused).inc_by(number);
            }
            let flow = FlowName { flow_schema, priority_level };
            self.dispatched.get_or_create(&flow).inc_by(tally.dispatched);
        }
    }
}

/// A request that is being answered; counted until it is dropped.
pub(crate) struct InFlight<'a>(Option<&'a AtomicI64>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The counters; cheap to bump, encoded when asked for.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Counted, Counter>,
    durations: Family<Served, Histogram, fn() -> Histogram>,
    in_flight: Family<RequestKind, Gauge>,
    revision: Gauge<f64, AtomicU64>,
    fairness: FairnessMetrics,
    pub(crate) admission: AdmissionMetrics,
    reading: AtomicI64,
    writing: AtomicI64,
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
        let fairness = FairnessMetrics::default();
        fairness.register(&mut registry);
        let admission = AdmissionMetrics::default();
        admission.register(&mut registry);
        let (reading, writing) = (AtomicI64::new(0), AtomicI64::new(0));
        Self {
            registry,
            requests,
            durations,
            in_flight,
            revision,
            fairness,
            admission,
            reading,
            writing,
        }
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

    /// Counts a request as long as the answer lives, unless it may take as long as it likes.
    pub(crate) fn count_in_flight(&self, method: &Method, long_running: bool) -> InFlight<'_> {
        if long_running {
            return InFlight(None);
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let count = if reads { &self.reading } else { &self.writing };
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(Some(count))
    }

    /// All of it as text.
    pub(crate) fn encode(&self, server: &Server) -> String {
        for (request_kind, count) in [("readOnly", &self.reading), ("mutating", &self.writing)] {
            let busy = count.load(Ordering::Relaxed);
            self.in_flight.get_or_create(&RequestKind { request_kind }).set(busy);
        }
        self.fairness.read(&server.fairness);
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
