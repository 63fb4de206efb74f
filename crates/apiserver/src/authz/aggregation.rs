//! Aggregated ClusterRoles: their stored rules are those of the roles that their selectors match.
//!
//! What upstream's clusterrole-aggregation-controller does. It lives here because the authorizer reads the stored
//! rules: without it a cluster whose controllers are down could not extend `admin`, `edit` and `view`.

use std::time::Duration;

use coracle_api::selector::LabelSelector;
use coracle_store::{Gone, Range, Store, Watch};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, PostParams};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const RESOURCE: &str = "clusterroles.rbac.authorization.k8s.io";
/// The first wait after a refused write, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// The rules that this role should have, by what `others` say now; None when it does not aggregate.
pub fn aggregate<'a>(role: &Value, others: impl IntoIterator<Item = &'a Value> + Clone) -> Option<Vec<Value>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_value(Some(selector)) else {
            continue; // Validation refuses these.
        };
        let mut matching: Vec<&Value> = others
            .clone()
            .into_iter()
            .filter(|other| name(other) != name(role) && selector.matches(|label| label_of(other, label)))
            .collect();
        matching.sort_by_key(|other| name(other));
        for rule in matching.iter().filter_map(|other| other["rules"].as_array()).flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}

/// Keeps the rules of aggregated roles right until shutdown. `client` needs the rights of
/// `system:controller:clusterrole-aggregation-controller`.
pub async fn follow_aggregation(client: kube::Client, store: Store, shutdown: CancellationToken) {
    let roles: Api<ClusterRole> = Api::all(client);
    let mut backoff = BACKOFF.0;
    let mut watch = None;
    while !shutdown.is_cancelled() {
        // The watch is taken before the look, so that no change falls between.
        let following = match watch.take() {
            Some(following) => following,
            None => match store.watch(&Range::all(RESOURCE), store.revision()) {
                Ok(following) => following,
                Err(_) => return, // The store is closed.
            },
        };
        let all_right = correct_all(&roles, &store).await;
        if all_right {
            backoff = BACKOFF.0;
        }
        let wait = (!all_right).then_some(backoff);
        match changed(following, wait, &shutdown).await {
            Ok(following) => watch = following,
            Err(Gone::Compacted { .. }) => (),
            Err(Gone::Closed) => return,
        }
        if !all_right {
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }
}

/// Waits for a change, at most `retry` long, and takes what else has changed meanwhile.
async fn changed(
    mut watch: Watch,
    retry: Option<Duration>,
    shutdown: &CancellationToken,
) -> Result<Option<Watch>, Gone> {
    let retry = async {
        match retry {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => (),
        () = retry => (),
        event = watch.next() => drop(event?),
    }
    while watch.try_next()?.is_some() {}
    Ok(Some(watch))
}

/// Writes every aggregated role whose rules are not what they should be; says whether all are right now.
async fn correct_all(roles: &Api<ClusterRole>, store: &Store) -> bool {
    let Ok(listing) = store.list(&Range::all(RESOURCE), None, None, None) else {
        return true;
    };
    let all: Vec<Value> =
        listing.objects.iter().filter_map(|object| serde_json::from_slice(&object.bytes).ok()).collect();
    let mut all_right = true;
    for role in &all {
        let Some(rules) = aggregate(role, &all) else {
            continue;
        };
        if role["rules"].as_array().map_or(&[][..], Vec::as_slice) == rules {
            continue;
        }
        match write(roles, role, rules).await {
            Ok(()) => (),
            // Somebody wrote it meanwhile: that is a change, and we come again.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => all_right = false,
            Err(error) => {
                warn!(%error, role = name(role), "cannot write the rules of an aggregated role");
                all_right = false;
            }
        }
    }
    all_right
}

/// Replaces the role as it was read: a change meanwhile is a conflict.
async fn write(roles: &Api<ClusterRole>, role: &Value, rules: Vec<Value>) -> Result<(), kube::Error> {
    let mut changed: ClusterRole = serde_json::from_value(role.clone()).map_err(kube::Error::SerdeError)?;
    changed.rules = Some(serde_json::from_value(rules.into()).map_err(kube::Error::SerdeError)?);
    roles.replace(name(role), &PostParams::default(), &changed).await.map(drop)
}

fn name(role: &Value) -> &str {
    role.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

fn label_of<'a>(role: &'a Value, label: &str) -> Option<&'a str> {
    role.get("metadata")?.get("labels")?.get(label)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authn::server_tests::running;
    use crate::identity::User;

    fn role(name: &str, labels: &[&str], rules: &[&str]) -> Value {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|&label| (label.to_owned(), "true".into())).collect();
        let rules: Vec<Value> = rules.iter().map(|resource| json!({ "resources": [resource] })).collect();
        json!({ "metadata": { "name": name, "labels": labels }, "rules": rules })
    }

    #[test]
    fn an_aggregated_role_has_the_rules_of_all_it_selects_once_and_by_name() {
        let mut admin = role("admin", &["to-edit"], &["stale"]);
        admin["aggregationRule"] = json!({ "clusterRoleSelectors": [
            { "matchLabels": { "to-edit": "true" } },
            { "matchLabels": { "to-view": "true" } },
        ] });
        let all = [
            role("z", &["to-edit"], &["pods", "services"]),
            admin.clone(),
            role("a", &["to-edit"], &["jobs", "pods"]),
            role("v", &["to-view"], &["events"]),
            role("other", &[], &["secrets"]),
        ];
        let rules = aggregate(&admin, &all).unwrap();
        let resources: Vec<&str> = rules.iter().map(|rule| rule["resources"][0].as_str().unwrap()).collect();
        assert_eq!(resources, ["jobs", "pods", "services", "events"]);
        assert_eq!(aggregate(&all[0], &all), None);
    }

    #[tokio::test]
    async fn a_role_with_the_label_extends_view_edit_and_admin() {
        let (_dir, store, api) = running().await;
        let shutdown = CancellationToken::new();
        let user = User::service_account("kube-system", "clusterrole-aggregation-controller", "");
        let follower = tokio::spawn(follow_aggregation(api.client(user), store.clone(), shutdown.clone()));
        let roles: Api<ClusterRole> = Api::all(api.client(User::admin()));
        let extension: ClusterRole = serde_json::from_value(json!({
            "metadata": { "name": "widgets", "labels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } },
            "rules": [{ "apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"] }],
        }))
        .unwrap();
        roles.create(&Default::default(), &extension).await.unwrap();
        let has_rule = async |name: &str| {
            let rules = roles.get(name).await.unwrap().rules.unwrap();
            rules.iter().any(|rule| rule.api_groups.iter().flatten().any(|group| group == "example.com"))
        };
        let reaches = async |wanted: bool| {
            let mut watch = store.watch(&Range::all(RESOURCE), store.revision()).unwrap();
            while has_rule("view").await != wanted || has_rule("edit").await != wanted || has_rule("admin").await != wanted {
                watch.next().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reaches(true)).await.unwrap();
        roles.delete("widgets", &Default::default()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), reaches(false)).await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), follower).await.unwrap().unwrap();
    }
}
