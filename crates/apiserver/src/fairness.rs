//! API priority and fairness: which requests run at once, and which wait for their turn.
//!
//! As upstream (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>): FlowSchemas say which flow a request
//! belongs to (`schema.rs`), PriorityLevelConfigurations how many of a level run at once, and how others wait (`seats.rs`).
//! How many seats a request takes says `width.rs`. `defaults.rs` is what every cluster has, `upkeep.rs` keeps it, and says which schemas
//! lead nowhere. `dump.rs` shows what goes on.
//!
//! What is always true: a request that finds free seats takes them under one short lock, and waits for nobody. The exempt level has no
//! limit. Watches have a seat until they have begun; what else lasts (logs, proxied requests) needs none.

mod defaults;
mod dump;
mod schema;
mod seats;
mod upkeep;
mod width;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use coracle_api::status::Status;
use coracle_store::{Range, Store};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::answer::Answer;
use crate::identity::User;
use crate::limits;
use crate::object::meta;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::storage;
pub(crate) use defaults::{mandatory, objects as default_objects, reconcile};
pub(crate) use dump::at as dump_at;
use schema::Schema;
use seats::{Asked, LevelSpec, Refusal, Seats, Wish};
pub(crate) use seats::{Load, Seat};
pub(crate) use upkeep::keep;

const SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The schemas and levels of the cluster.
pub(crate) struct Fairness {
    /// In the order in which they are asked; the last takes everything.
    schemas: ArcSwap<Vec<Schema>>,
    seats: Seats,
}

/// Where a request was put, for its answer's headers.
pub(crate) struct Flow {
    schema_uid: HeaderValue,
    level_uid: HeaderValue,
}

impl Flow {
    pub(crate) fn write_headers(self, headers: &mut HeaderMap) {
        for (name, value) in [(SCHEMA_UID, self.schema_uid), (LEVEL_UID, self.level_uid)] {
            // What holds although it is not stored has none.
            if !value.is_empty() {
                headers.insert(name, value);
            }
        }
    }
}

/// Whether a request may be refused because too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As others: the queue has its limit.
    Usual,
    /// Clients in this process bound themselves how many requests they have open, and would only come again.
    Endless,
}

/// A request that comes in.
pub(crate) struct Entering<'a> {
    pub(crate) user: &'a User,
    pub(crate) info: &'a RequestInfo,
    pub(crate) path: &'a str,
    pub(crate) query: &'a Query,
    pub(crate) patience: Patience,
    /// Tells how much there is to go through.
    pub(crate) store: &'a Store,
}

/// A schema's name, and what became of its requests.
pub(crate) struct Tally {
    pub(crate) schema: String,
    pub(crate) level: String,
    pub(crate) dispatched: u64,
    /// By upstream's names of the reasons.
    pub(crate) rejected: [(&'static str, u64); 3],
}

impl Fairness {
    /// With the objects of this store, and the mandatory ones whether they are there or not.
    pub(crate) fn new(store: &Store) -> Self {
        let fairness =
            Self { schemas: ArcSwap::default(), seats: Seats::new(limits::QUEUE_TIMEOUT) };
        fairness.reload(store);
        fairness
    }

    /// Takes the objects as they are now.
    pub(crate) fn reload(&self, store: &Store) {
        let levels = with_mandatory(stored(store, LEVELS), "PriorityLevelConfiguration");
        let schemas = with_mandatory(stored(store, SCHEMAS), "FlowSchema");
        let specs: Vec<LevelSpec> = levels.iter().map(LevelSpec::read).collect();
        let places = self.seats.configure(&specs, limits::REQUESTS_IN_FLIGHT);
        let by_name: HashMap<&str, (usize, bool, HeaderValue)> = levels
            .iter()
            .zip(places)
            .zip(&specs)
            .map(|((level, place), spec)| {
                (meta(level, "name"), (place, spec.is_exempt, schema::uid(level)))
            })
            .collect();
        let known = self.schemas.load();
        let mut read: Vec<Schema> = schemas
            .iter()
            .filter_map(|object| {
                let (place, is_exempt, uid) = by_name.get(schema::level_name(object))?.clone();
                let same = known.iter().find(|known| *known.name == *meta(object, "name"));
                let counts = same.map(|known| known.counts.clone()).unwrap_or_default();
                Some(Schema::read(object, place, (is_exempt, uid), counts))
            })
            .collect();
        read.sort_by_key(Schema::order);
        self.schemas.store(Arc::new(read));
    }

    /// Finds the request's flow, and waits for seats when there are none for it.
    pub(crate) async fn enter(
        &self,
        request: &Entering<'_>,
        flow: &mut Option<Flow>,
    ) -> Answer<Option<Seat<'_>>> {
        let Entering { user, info, path, query, patience, store } = *request;
        let (asked, counts) = {
            let schemas = self.schemas.load();
            let found = schemas.iter().find(|schema| schema.matches(user, info, path));
            // Only a user without any group gets past catch-all.
            let Some(schema) = found.or(schemas.last()) else { return Ok(None) };
            *flow =
                Some(Flow { schema_uid: schema.uid.clone(), level_uid: schema.level_uid.clone() });
            let (number, seats) = if schema.is_exempt {
                (0, 1)
            } else {
                (schema.flow(user, info), width::of(store, info, query))
            };
            let wish = Wish {
                flow: number,
                seats,
                is_patient: patience == Patience::Endless,
                schema: &schema.name,
                distinguisher: schema.distinguisher(user, info),
            };
            (self.seats.ask(schema.level, &wish), schema.counts.clone())
        };
        let seated = match asked {
            Ok(Asked::Seated(seat)) => Ok(seat),
            Ok(Asked::Queued(waiting)) => waiting.seated().await,
            Err(refusal) => Err(refusal),
        };
        let refused = match seated {
            Ok(seat) => {
                counts.dispatched.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(seat));
            }
            Err(Refusal::Full) => &counts.rejected_at_once,
            Err(Refusal::QueueFull) => &counts.rejected_for_length,
            Err(Refusal::TimedOut) => &counts.rejected_for_time,
        };
        refused.fetch_add(1, Ordering::Relaxed);
        Err(Status::too_many_requests("Too many requests, please try again later.", 1))
    }

    /// What became of the requests of each schema.
    pub(crate) fn tallies(&self) -> Vec<Tally> {
        let levels = self.seats.names();
        let tally = |schema: &Schema| Tally {
            schema: schema.name.to_string(),
            level: levels.get(schema.level).cloned().flatten().unwrap_or_default(),
            dispatched: schema.counts.dispatched.load(Ordering::Relaxed),
            rejected: [
                ("concurrency-limit", schema.counts.rejected_at_once.load(Ordering::Relaxed)),
                ("queue-full", schema.counts.rejected_for_length.load(Ordering::Relaxed)),
                ("time-out", schema.counts.rejected_for_time.load(Ordering::Relaxed)),
            ],
        };
        self.schemas.load().iter().map(tally).collect()
    }

    /// What goes on in each level.
    pub(crate) fn loads(&self) -> Vec<Load> {
        self.seats.loads()
    }
}

/// All objects of a resource.
fn stored(store: &Store, resource: &str) -> Vec<Value> {
    let listing = store.list(&Range::all(resource), None, None, None);
    let objects = listing.map(|listing| listing.objects).unwrap_or_default();
    objects.iter().filter_map(|object| storage::decode(object).ok()).collect()
}

/// With the mandatory objects of the kind that somebody has deleted.
fn with_mandatory(mut objects: Vec<Value>, kind: &str) -> Vec<Value> {
    for wanted in defaults::mandatory(kind) {
        if !objects.iter().any(|object| meta(object, "name") == meta(&wanted, "name")) {
            objects.push(wanted);
        }
    }
    objects
}
