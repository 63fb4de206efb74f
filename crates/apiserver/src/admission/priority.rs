//! Priority: a pod's class becomes its number.

use coracle_api::status::Status;
use coracle_store::Store;
use serde::Deserialize;

use super::{AdmissionRequest, Operation, all};
use crate::authn::stored;

const CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const DEFAULT_POLICY: &str = "PreemptLowerPriority";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    metadata: Metadata,
    #[serde(default)]
    value: i64,
    #[serde(default)]
    global_default: Option<bool>,
    #[serde(default)]
    preemption_policy: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// What a pod gets.
struct Ranked {
    class: String,
    value: i64,
    policy: String,
}

/// Fills in `priority` and `preemptionPolicy` of a new pod.
pub(super) fn mutate(store: &Store, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if request.operation != Operation::Create || !request.is_core("Pod") {
        return Ok(());
    }
    let named = request.object["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let ranked = if named.is_empty() {
        default_class(store)
    } else {
        let object = stored(store, CLASSES, "", &named).ok_or_else(|| {
            request.forbidden(format!("no PriorityClass with name {named} was found"))
        })?;
        ranked(serde_json::from_slice(&object.bytes).map_err(Status::internal)?)
    };
    let spec = &request.object["spec"];
    if let Some(given) = spec["priority"].as_i64()
        && given != ranked.value
    {
        return Err(request.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            ranked.value
        )));
    }
    if let Some(given) = spec["preemptionPolicy"].as_str()
        && given != ranked.policy
    {
        return Err(request.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            ranked.policy
        )));
    }
    let spec = &mut request.object["spec"];
    if !ranked.class.is_empty() {
        spec["priorityClassName"] = ranked.class.into();
    }
    spec["priority"] = ranked.value.into();
    spec["preemptionPolicy"] = ranked.policy.into();
    Ok(())
}

/// There is at most one default class.
pub(super) fn validate(store: &Store, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if !written || request.kind.kind != "PriorityClass" || request.object["globalDefault"] != true {
        return Ok(());
    }
    let default =
        all::<Class>(store, CLASSES).into_iter().find(|class| class.global_default == Some(true));
    match default {
        Some(default) if default.metadata.name != request.name => Err(request.forbidden(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            default.metadata.name
        ))),
        _ => Ok(()),
    }
}

/// The class for pods that name none. Should there be two, the lower one counts: nobody gains by it.
fn default_class(store: &Store) -> Ranked {
    let defaults =
        all::<Class>(store, CLASSES).into_iter().filter(|class| class.global_default == Some(true));
    defaults.min_by_key(|class| class.value).map_or_else(
        || Ranked { class: String::new(), value: 0, policy: DEFAULT_POLICY.to_owned() },
        ranked,
    )
}

fn ranked(class: Class) -> Ranked {
    Ranked {
        class: class.metadata.name,
        value: class.value,
        policy: class.preemption_policy.unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
    }
}
