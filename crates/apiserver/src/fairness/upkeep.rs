//! Keeps up with the objects: takes what was changed, brings the defaults back, and says which schemas lead nowhere.

use std::sync::Arc;
use std::time::Duration;

use coracle_store::{Gone, Range, Watch};
use http::{Request, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{LEVELS, SCHEMAS, schema, stored};
use crate::bootstrap;
use crate::object::{meta, now, text};
use crate::server::Server;

/// The wait after a pass that wrote, should somebody write against us; upstream looks once a minute.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// Upstream's name for who writes the condition.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Follows the objects until the server ends.
pub(crate) async fn keep(server: Arc<Server>, client: kube::Client, ends: CancellationToken) {
    let mut backoff = BACKOFF.0;
    loop {
        let after = server.store.revision();
        let watches =
            [SCHEMAS, LEVELS].map(|resource| server.store.watch(&Range::all(resource), after));
        let [Ok(mut schemas), Ok(mut levels)] = watches else { return };
        server.fairness.reload(&server.store);
        let has_written = correct(&server, &client).await;
        if has_written {
            tokio::select! {
                () = tokio::time::sleep(backoff) => (),
                () = ends.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        } else {
            backoff = BACKOFF.0;
        }
        // What we wrote ourselves is a change, too: the next pass finds that all is right.
        let changed = tokio::select! {
            changed = schemas.next() => changed,
            changed = levels.next() => changed,
            () = ends.cancelled() => return,
        };
        if matches!(changed, Err(Gone::Closed)) {
            return;
        }
        drain(&mut schemas);
        drain(&mut levels);
    }
}

/// Looks away from what the next pass sees anyhow.
fn drain(watch: &mut Watch) {
    while let Ok(Some(_)) = watch.try_next() {}
}

/// Brings objects and conditions to what they should be; says whether anything was not.
async fn correct(server: &Server, client: &kube::Client) -> bool {
    let (schemas, levels) = (stored(&server.store, SCHEMAS), stored(&server.store, LEVELS));
    let mut is_wrong = super::default_objects().iter().any(|wanted| {
        let of_kind = if wanted["kind"] == "FlowSchema" { &schemas } else { &levels };
        let existing = of_kind.iter().find(|found| meta(found, "name") == meta(wanted, "name"));
        super::reconcile(wanted, existing).is_some()
    });
    if is_wrong && let Err(error) = bootstrap::install_fairness(server, client).await {
        tracing::warn!(%error, "the default FlowSchemas are not as they should be");
    }
    for object in schemas {
        let level = schema::level_name(&object);
        let exists = levels.iter().any(|found| meta(found, "name") == level);
        let Some(condition) = condition(&object, level, exists) else { continue };
        is_wrong = true;
        if let Err(error) = write(client, meta(&object, "name"), &condition).await {
            tracing::debug!(%error, "the condition of a FlowSchema was not written");
        }
    }
    is_wrong
}

/// The condition that the schema should have; `None` when it has it.
fn condition(schema: &Value, level: &str, exists: bool) -> Option<Value> {
    let conditions = schema.pointer("/status/conditions").and_then(Value::as_array);
    let known = conditions.into_iter().flatten().find(|condition| condition["type"] == "Dangling");
    let (status, reason, found) = if exists {
        ("False", "Found", "it exists")
    } else {
        ("True", "NotFound", "there is no such object")
    };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and {found}"
    );
    let is_same = |known: &&Value| {
        known["status"] == status && known["reason"] == reason && known["message"] == *message
    };
    if known.is_some_and(|known| is_same(&known)) {
        return None;
    }
    let since = known.filter(|known| known["status"] == status);
    let since = since.map_or_else(now, |known| text(known, "/lastTransitionTime").to_owned());
    Some(json!({
        "type": "Dangling",
        "status": status,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }))
}

/// Applies the condition, so that those of others stay.
async fn write(client: &kube::Client, name: &str, condition: &Value) -> Result<(), kube::Error> {
    let object = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": { "name": name },
        "status": { "conditions": [condition] },
    });
    let path = format!(
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/{name}/status?fieldManager={MANAGER}&force=true"
    );
    let request = Request::patch(path)
        .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(object.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_says_whether_its_level_exists() {
        let mut schema = json!({ "spec": { "priorityLevelConfiguration": { "name": "a" } } });
        let dangling = condition(&schema, "a", false).unwrap();
        assert_eq!(
            (&dangling["status"], &dangling["reason"]),
            (&json!("True"), &json!("NotFound"))
        );
        assert_eq!(
            dangling["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"a\" and there is no such object"
        );
        schema["status"] = json!({ "conditions": [dangling] });
        assert_eq!(condition(&schema, "a", false), None);
        assert_eq!(condition(&schema, "a", true).unwrap()["status"], "False");
    }
}
