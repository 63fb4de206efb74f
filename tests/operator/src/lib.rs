//! The operator: a Fleet is so many boats, and each boat is a ConfigMap that the fleet owns.
//!
//! It is written as kube-rs operators are: a definition from a derive, a `Controller`, the finalizer helper, server-side
//! apply for what it owns and for the status, an event recorder, and a lease that lets one of several lead.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{self, Event as Finalizer};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where the story plays.
pub const NAMESPACE: &str = "default";
const NAME: &str = "fleet-operator";
const FINALIZER: &str = "harbour.example.com/logbook";
/// How long a leader that says nothing stays the leader.
const LEASE: Duration = Duration::from_secs(3);

/// How many boats of which colour.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "harbour.example.com",
    version = "v1",
    kind = "Fleet",
    namespaced,
    status = "FleetStatus",
    shortname = "fl",
    scale(spec_replicas_path = ".spec.boats", status_replicas_path = ".status.boats"),
    printcolumn(name = "Boats", type_ = "integer", json_path = ".status.boats")
)]
#[serde(rename_all = "camelCase")]
pub struct FleetSpec {
    /// How many boats there should be.
    #[schemars(range(min = 0, max = 9))]
    pub boats: u32,
    /// What they are painted in.
    #[serde(default = "brown")]
    pub colour: String,
    /// Who commands.
    pub captain: Option<String>,
}

fn brown() -> String {
    "brown".to_owned()
}

/// What the operator made of it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// How many boats there are.
    pub boats: u32,
    /// The generation that this is about.
    pub observed_generation: i64,
    /// Who wrote this.
    pub admiral: String,
}

/// Why the operator could not do what a Fleet wants.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused a request.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The helper for finalizers failed, or what it called.
    #[error(transparent)]
    Finalizer(#[from] Box<finalizer::Error<Error>>),
}

/// What every reconcile needs.
struct Context {
    client: Client,
    recorder: Recorder,
    /// The name of this instance.
    own: String,
}

/// Waits until it leads, then keeps the fleets until it is dropped.
pub async fn operate(client: Client, own: &'static str, watching: watcher::Config) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    while !matches!(hold(&leases, own).await, Ok(true)) {
        tokio::time::sleep(LEASE / 6).await;
    }
    let renewing = async {
        loop {
            // A server that is away for a moment must not end the leader; the lease says for how long.
            let _ = hold(&leases, own).await;
            tokio::time::sleep(LEASE / 6).await;
        }
    };
    let reporter = Reporter { controller: NAME.to_owned(), instance: Some(own.to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let context = Arc::new(Context { client: client.clone(), recorder, own: own.to_owned() });
    let fleets: Api<Fleet> = Api::namespaced(client.clone(), NAMESPACE);
    let boats: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let keeping = Controller::new(fleets, watching.clone())
        .owns(boats, watching)
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), context)
        .for_each(|_| std::future::ready(()));
    tokio::join!(renewing, keeping);
}

/// Takes or renews the lease; answers whether this instance holds it.
async fn hold(leases: &Api<Lease>, own: &str) -> kube::Result<bool> {
    let now = Timestamp::now();
    let Some(mut lease) = leases.get_opt(NAME).await? else {
        let spec = LeaseSpec {
            holder_identity: Some(own.to_owned()),
            lease_duration_seconds: Some(3),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await?;
        return Ok(true);
    };
    let spec = lease.spec.get_or_insert_default();
    let lasts = SignedDuration::try_from(LEASE).unwrap_or_default();
    let held = spec.renew_time.as_ref().is_some_and(|renewed| renewed.0 + lasts > now);
    if held && spec.holder_identity.as_deref() != Some(own) {
        return Ok(false);
    }
    if spec.holder_identity.as_deref() != Some(own) {
        spec.holder_identity = Some(own.to_owned());
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
    }
    spec.renew_time = Some(MicroTime(now));
    // With the resourceVersion that was read: of two that try, one is refused.
    leases.replace(NAME, &PostParams::default(), &lease).await?;
    Ok(true)
}

async fn reconcile(fleet: Arc<Fleet>, context: Arc<Context>) -> Result<Action, Error> {
    let fleets: Api<Fleet> = Api::namespaced(context.client.clone(), NAMESPACE);
    finalizer::finalizer(&fleets, FINALIZER, fleet, |event| async {
        match event {
            Finalizer::Apply(fleet) => sail(&fleet, &context).await,
            Finalizer::Cleanup(fleet) => sign_off(&fleet, &context).await,
        }
    })
    .await
    .map_err(|error| Box::new(error).into())
}

/// Makes the boats as many as wanted, and says so.
async fn sail(fleet: &Fleet, context: &Context) -> Result<Action, Error> {
    let boats: Api<ConfigMap> = Api::namespaced(context.client.clone(), NAMESPACE);
    let name = fleet.name_any();
    let applying = PatchParams::apply(NAME).force();
    for number in 0..fleet.spec.boats {
        let boat = ConfigMap {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{number}")),
                labels: Some([("fleet".to_owned(), name.clone())].into()),
                owner_references: fleet.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some([("colour".to_owned(), fleet.spec.colour.clone())].into()),
            ..ConfigMap::default()
        };
        boats.patch(&boat.name_any(), &applying, &Patch::Apply(&boat)).await?;
    }
    let there = boats.list(&ListParams::default().labels(&format!("fleet={name}"))).await?;
    for boat in there.items {
        let boat = boat.name_any();
        let number = boat.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
        if number.is_none_or(|number| number >= fleet.spec.boats) {
            match boats.delete(&boat, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => drop(other?),
            }
        }
    }
    let status = FleetStatus {
        boats: fleet.spec.boats,
        observed_generation: fleet.metadata.generation.unwrap_or_default(),
        admiral: context.own.clone(),
    };
    if fleet.status.as_ref() == Some(&status) {
        return Ok(Action::await_change());
    }
    let event = Event {
        type_: EventType::Normal,
        reason: "Sails".to_owned(),
        note: Some(format!("with {} boats", fleet.spec.boats)),
        action: "Sail".to_owned(),
        secondary: None,
    };
    context.recorder.publish(&event, &fleet.object_ref(&())).await?;
    let fleets: Api<Fleet> = Api::namespaced(context.client.clone(), NAMESPACE);
    let patch = json!({ "apiVersion": Fleet::api_version(&()), "kind": Fleet::kind(&()), "status": status });
    fleets.patch_status(&name, &applying, &Patch::Apply(&patch)).await?;
    Ok(Action::await_change())
}

/// Notes that the fleet is gone, in what outlives it.
async fn sign_off(fleet: &Fleet, context: &Context) -> Result<Action, Error> {
    let notes: Api<ConfigMap> = Api::namespaced(context.client.clone(), NAMESPACE);
    let entry = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "logbook" },
        "data": { fleet.name_any(): "signed off" },
    });
    notes.patch("logbook", &PatchParams::apply(NAME).force(), &Patch::Apply(&entry)).await?;
    Ok(Action::await_change())
}
