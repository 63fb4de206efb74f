//! `POST` of an Eviction: a deletion that asks politely. Disruption budgets will have their say here.

use axum::response::Response;
use coracle_api::status::{Cause, Status};
use coracle_api::{kinds, selector::LabelSelector};
use http::StatusCode;
use serde_json::Value;

use super::super::delete::delete_object;
use super::binding::{admit, created};
use crate::answer::Answer;
use crate::call::Call;
use crate::deletion::DeleteOptions;
use crate::object::{meta, text};
use crate::storage;

/// Deletes the pod, unless a disruption budget forbids it now.
pub(super) async fn evict(call: &mut Call) -> Answer<Response> {
    let json = call.read_json().await?;
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
    let key = storage::key(pods, &call.target.namespace, &name);
    let pod = call.server.store.get(&key).ok_or_else(|| Status::not_found(pods, &name))?;
    let pod = storage::decode(&pod)?;
    // What does not run disturbs nobody.
    if !matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed" | "Pending") {
        ask_budgets(call, &pod)?;
    }
    delete_object(call, pods, &call.target.namespace, &name, &options).await?;
    Ok(call.answer_plain(StatusCode::CREATED, &created()))
}

/// 429 when a budget that covers the pod allows no disruption now.
fn ask_budgets(call: &Call, pod: &Value) -> Answer<()> {
    let budgets =
        kinds::by_kind("policy", "v1", "PodDisruptionBudget").ok_or_else(Status::no_such_path)?;
    let range = storage::range(budgets, &call.target.namespace);
    let listing = call
        .server
        .store
        .list(&range, None, None, None)
        .map_err(|gone| super::super::list::gone_status(&gone))?;
    for budget in &listing.objects {
        let budget = storage::decode(budget)?;
        let covers = LabelSelector::from_value(budget.pointer("/spec/selector"))
            .is_ok_and(|selector| selector.matches_labels(pod.pointer("/metadata/labels")));
        let allowed = budget.pointer("/status/disruptionsAllowed").and_then(Value::as_i64);
        if covers && allowed.is_some_and(|allowed| allowed <= 0) {
            let count = |field: &str| {
                budget.pointer(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0)
            };
            let message = format!(
                "The disruption budget {} needs {} healthy pods and has {} currently",
                meta(&budget, "name"),
                count("desiredHealthy"),
                count("currentHealthy")
            );
            let cause =
                Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() };
            let refusal = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(Status::too_many_requests(refusal, 0).with_cause(cause));
        }
    }
    Ok(())
}
