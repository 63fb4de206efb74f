//! `POST` of an Eviction: a deletion that asks the pod's disruption budget first, and takes one disruption of it.
//!
//! The rules are upstream's (<https://github.com/kubernetes/kubernetes/blob/master/pkg/registry/core/pod/storage/eviction.go>).

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use coracle_api::kinds::{self, Kind};
use coracle_api::selector::LabelSelector;
use coracle_api::status::{Cause, Reason, Status};
use coracle_store::{Key, Object, WriteError};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::delete::delete_object;
use super::super::list::gone_status;
use super::binding::{admit, created};
use crate::answer::Answer;
use crate::call::Call;
use crate::deletion::DeleteOptions;
use crate::object::{entry_object, generation, is_deleting, meta, now, text};
use crate::{limits, storage};

/// Evictions that were allowed and are not confirmed by the controller yet; upstream's bound.
const MOST_DISRUPTED: usize = 2000;
const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Deletes the pod, unless a disruption budget forbids it now.
pub(super) async fn evict(call: &mut Call) -> Answer<Response> {
    let json = of_stable_version(call.read_json().await?);
    let mut eviction = call.decode_as("policy", "v1", "Eviction", &json)?;
    let pods = kinds::by_kind("", "v1", "Pod").ok_or_else(Status::no_such_path)?;
    let name = call.target.name.clone();
    let given = meta(&eviction, "name");
    if !given.is_empty() && given != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    admit(call, &name, &mut eviction).await?;
    let mut options =
        DeleteOptions::read(eviction.get("deleteOptions").unwrap_or(&Value::Null), &call.query)?;
    options.dry_run |= call.query.dry_run()?;
    match delete_undisturbing(call, pods, &name, &options).await? {
        Asked::Deleted => (),
        Asked::Disturbs(pod) => delete_disturbing(call, pods, &pod, options).await?,
    }
    Ok(call.answer_plain(StatusCode::CREATED, &created()))
}

/// Upstream still reads the beta, which is the same, from those who drain nodes with older clients.
fn of_stable_version(body: Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut eviction) if eviction["apiVersion"] == "policy/v1beta1" => {
            eviction["apiVersion"] = json!("policy/v1");
            Bytes::from(eviction.to_string())
        }
        _ => body,
    }
}

enum Asked {
    Deleted,
    /// The pod runs, so that its budget has a say.
    Disturbs(Value),
}

/// Deletes a pod that does not run, which disturbs nobody.
async fn delete_undisturbing(
    call: &Call,
    pods: &'static Kind,
    name: &str,
    options: &DeleteOptions,
) -> Answer<Asked> {
    let namespace = &call.target.namespace;
    for _ in 0..limits::WRITE_ATTEMPTS {
        let stored = call.server.store.get(&storage::key(pods, namespace, name));
        let pod = storage::decode(&*stored.ok_or_else(|| Status::not_found(pods, name))?)?;
        let phase = text(&pod, "/status/phase");
        if !matches!(phase, "Succeeded" | "Failed" | "Pending") && !is_deleting(&pod) {
            return Ok(Asked::Disturbs(pod));
        }
        let mut exact = options.clone();
        if phase == "Pending" && !is_deleting(&pod) && exact.resource_version.is_none() {
            // It may become ready at any moment, and then its budget has a say.
            exact.resource_version = Some(meta(&pod, "resourceVersion").to_owned());
        }
        match delete_object(call, pods, namespace, name, &exact).await {
            Err(changed)
                if changed.reason == Reason::Conflict && options.resource_version.is_none() => {}
            deleted => return deleted.map(|_| Asked::Deleted),
        }
    }
    Err(Status::modified(pods, name))
}

/// Deletes a pod that runs, if its budget allows it.
async fn delete_disturbing(
    call: &Call,
    pods: &'static Kind,
    pod: &Value,
    mut options: DeleteOptions,
) -> Answer<()> {
    let (namespace, name) = (&call.target.namespace, meta(pod, "name"));
    options.check_preconditions(pods, name, pod)?;
    let budget = budget_of(call, pod)?;
    let named_revision = options.resource_version.is_some();
    let budget_name = budget.as_ref().map(|budget| meta(budget, "name"));
    if let Some(budget) = &budget {
        if counts_for_nothing(pod, budget) {
            // It must still be unready when it goes.
            options.resource_version = Some(meta(pod, "resourceVersion").to_owned());
        } else {
            spend(call, budget, name, &options).await?;
        }
    }
    let deleted = async {
        if !options.dry_run {
            let marked = mark(call, pods, name, &options).await?;
            if let Some(revision) = &mut options.resource_version {
                *revision = marked.revision.to_string();
            }
        }
        delete_object(call, pods, namespace, name, &options).await.map(drop)
    };
    match (deleted.await, budget_name) {
        (Err(changed), Some(budget))
            if changed.reason == Reason::Conflict
                && !named_revision
                && options.resource_version.is_some() =>
        {
            Err(still_processed(budget))
        }
        (outcome, _) => outcome,
    }
}

/// The budget that covers the pod; an error when there are several.
fn budget_of(call: &Call, pod: &Value) -> Answer<Option<Value>> {
    let range = storage::range(budgets()?, &call.target.namespace);
    let listing = call.server.store.list(&range, None, None, None);
    let mut covering = Vec::new();
    for budget in &listing.map_err(|gone| gone_status(&gone))?.objects {
        let budget = storage::decode(budget)?;
        // A budget without a selector, or with an empty one, is about no pod; see upstream.
        let selector = budget.pointer("/spec/selector").filter(|selector| {
            ["matchLabels", "matchExpressions"].iter().any(|part| {
                let part = selector.get(part);
                part.is_some_and(|part| *part != json!({}) && *part != json!([]) && !part.is_null())
            })
        });
        let covers = selector.is_some()
            && LabelSelector::from_value(selector)
                .is_ok_and(|selector| selector.matches_labels(pod.pointer("/metadata/labels")));
        if covers {
            covering.push(budget);
        }
    }
    if covering.len() > 1 {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        let mut refusal = Status::internal(why);
        refusal.message = why.to_owned();
        return Err(refusal);
    }
    Ok(covering.pop())
}

fn budgets() -> Answer<&'static Kind> {
    kinds::by_kind("policy", "v1", "PodDisruptionBudget").ok_or_else(Status::no_such_path)
}

/// Whether the pod is not healthy, so that its going takes nothing from those that the budget protects.
fn counts_for_nothing(pod: &Value, budget: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let desired = number(budget, "desiredHealthy");
    !is_ready
        && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
            || (number(budget, "currentHealthy") >= desired && desired > 0))
}

fn number(budget: &Value, field: &str) -> i64 {
    budget["status"][field].as_i64().unwrap_or(0)
}

/// Takes one disruption of the budget. Two evictions never take the same one: each writes against the revision it has read.
async fn spend(call: &Call, budget: &Value, pod: &str, options: &DeleteOptions) -> Answer<()> {
    let (kind, name) = (budgets()?, meta(budget, "name"));
    let key = storage::key(kind, &call.target.namespace, name);
    let spent = rewrite(call, kind, &key, |budget| {
        let next = after_one(kind, budget, pod)?;
        Ok(if options.dry_run { budget.clone() } else { next })
    });
    spent.await.map(drop).map_err(|error| {
        if error.reason == Reason::Conflict {
            let why = format!("couldn't update PodDisruptionBudget {name:?} due to conflicts");
            Status::timeout(why, 10)
        } else {
            error
        }
    })
}

/// The budget after one more disruption, or why it allows none.
fn after_one(kind: &'static Kind, budget: &Value, pod: &str) -> Answer<Value> {
    let name = meta(budget, "name");
    if number(budget, "observedGeneration") < generation(budget) {
        return Err(still_processed(name));
    }
    let allowed = number(budget, "disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(kind, name, "pdb disruptions allowed is negative"));
    }
    let disrupted = budget["status"]["disruptedPods"].as_object().map_or(0, serde_json::Map::len);
    if disrupted > MOST_DISRUPTED {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(kind, name, why));
    }
    if allowed == 0 {
        let (needed, healthy) =
            (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
        let message = format!(
            "The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
        );
        return Err(refusal(message, 0));
    }
    let mut next = budget.clone();
    let status = entry_object(&mut next, "status");
    status.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
    let pods = status.entry("disruptedPods").or_insert_with(|| json!({}));
    pods[pod] = json!(now());
    if allowed == 1 {
        let observed = status.get("observedGeneration").cloned();
        let exhausted = json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": observed, "lastTransitionTime": now(),
        });
        put_condition(status, exhausted);
    }
    Ok(next)
}

fn still_processed(budget: &str) -> Status {
    refusal(format!("The disruption budget {budget} is still being processed by the server."), 10)
}

fn refusal(message: String, retry_after_seconds: u32) -> Status {
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() };
    Status::too_many_requests(REFUSAL, retry_after_seconds).with_cause(cause)
}

/// Writes into the pod's status why it goes.
async fn mark(
    call: &Call,
    pods: &'static Kind,
    name: &str,
    options: &DeleteOptions,
) -> Answer<Arc<Object>> {
    let key = storage::key(pods, &call.target.namespace, name);
    rewrite(call, pods, &key, |pod| {
        options.check_preconditions(pods, name, pod)?;
        let mut next = pod.clone();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now(),
        });
        put_condition(entry_object(&mut next, "status"), condition);
        Ok(next)
    })
    .await
}

/// Replaces the condition of this type; the time of its last transition stays if it says the same as before.
fn put_condition(status: &mut serde_json::Map<String, Value>, mut condition: Value) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    let place = conditions.iter_mut().find(|known| known["type"] == condition["type"]);
    match place {
        Some(known) => {
            if known["status"] == condition["status"] {
                condition["lastTransitionTime"] = known["lastTransitionTime"].take();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

/// Changes a stored object as the server itself: nobody else's admission or validation is asked.
async fn rewrite(
    call: &Call,
    kind: &'static Kind,
    key: &Key,
    make: impl Fn(&Value) -> Answer<Value>,
) -> Answer<Arc<Object>> {
    let mut turn = None;
    for _ in 0..limits::WRITE_ATTEMPTS {
        let current = call.server.store.get(key);
        let current = current.ok_or_else(|| Status::not_found(kind, &key.name))?;
        let old = storage::decode(&current)?;
        let new = make(&old)?;
        if new == old {
            return Ok(current);
        }
        let value = storage::encode(kind, &new);
        match call.server.store.update(key.clone(), current.revision, value).await {
            Ok(written) => return Ok(written),
            Err(WriteError::Conflict { current: Some(_) }) if turn.is_none() => {
                turn = call.server.turns.wait(key).await;
            }
            Err(WriteError::Conflict { current: Some(_) }) => (),
            Err(error) => return Err(storage::write_failure(kind, &key.name, &error)),
        }
    }
    Err(Status::modified(kind, &key.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Value {
        json!({ "metadata": { "name": "b", "generation": 2 }, "spec": {}, "status": status })
    }

    #[test]
    fn a_budget_gives_what_it_has_and_tells_why_not() {
        let kind = budgets().unwrap();
        let refused = |status: Value| {
            let refusal = after_one(kind, &budget(status), "p").unwrap_err();
            let details = refusal.details.clone().unwrap_or_default();
            let cause = details.causes.first().map(|cause| cause.message.clone());
            (refusal.code, details.retry_after_seconds, cause.unwrap_or(refusal.message))
        };
        let processed = "The disruption budget b is still being processed by the server.";
        assert_eq!(
            refused(json!({ "observedGeneration": 1, "disruptionsAllowed": 3 })),
            (429, 10, processed.to_owned())
        );
        let needs = "The disruption budget b needs 3 healthy pods and has 2 currently";
        let none = json!({ "observedGeneration": 2, "disruptionsAllowed": 0, "desiredHealthy": 3, "currentHealthy": 2 });
        assert_eq!(refused(none), (429, 0, needs.to_owned()));
        let negative = json!({ "observedGeneration": 2, "disruptionsAllowed": -1 });
        let forbidden =
            "poddisruptionbudgets.policy \"b\" is forbidden: pdb disruptions allowed is negative";
        assert_eq!(refused(negative), (403, 0, forbidden.to_owned()));

        let one = json!({ "observedGeneration": 2, "disruptionsAllowed": 1,
            "conditions": [{ "type": "DisruptionAllowed", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] });
        let next = after_one(kind, &budget(one), "p").unwrap();
        assert_eq!(next["status"]["disruptionsAllowed"], 0);
        assert!(next["status"]["disruptedPods"]["p"].is_string());
        let condition = &next["status"]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("False"), &json!("InsufficientPods"))
        );
        let two = json!({ "observedGeneration": 2, "disruptionsAllowed": 2 });
        let next = after_one(kind, &budget(two), "p").unwrap();
        assert_eq!(
            (&next["status"]["disruptionsAllowed"], next["status"].get("conditions")),
            (&json!(1), None)
        );
    }

    #[test]
    fn unhealthy_pods_go_by_their_policy() {
        let pod = |ready: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        let with = |policy: &str, healthy: i64, desired: i64| {
            let mut budget =
                budget(json!({ "currentHealthy": healthy, "desiredHealthy": desired }));
            budget["spec"] = json!({ "unhealthyPodEvictionPolicy": policy });
            budget
        };
        assert!(!counts_for_nothing(&pod("True"), &with("AlwaysAllow", 3, 1)));
        assert!(counts_for_nothing(&pod("False"), &with("AlwaysAllow", 0, 1)));
        assert!(!counts_for_nothing(&pod("False"), &with("IfHealthyBudget", 0, 1)));
        assert!(counts_for_nothing(&pod("False"), &with("IfHealthyBudget", 1, 1)));
        assert!(!counts_for_nothing(&pod("False"), &with("", 0, 0)));
    }
}
