//! An APIService for each group-version that definitions make: upstream's auto-registration.
//!
//! Those of our own kinds are brought in at each start (`bootstrap.rs`). One that somebody made or took over by hand is left alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use coracle_api::kinds::{self, Kind};
use coracle_store::Gone;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::order::OF_DEFINITIONS;
use crate::server::Server;
use crate::storage;

/// Says of an APIService that we keep it: as long as there are such kinds, or at the start alone.
pub(super) const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// What is to be done about the APIServices.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Register { group: String, version: String },
    Remove { name: String },
}

/// Keeps them until the server ends.
pub(crate) async fn run(server: Arc<Server>, client: kube::Client, ends: CancellationToken) {
    let Some(kind) = kinds::by_kind("apiregistration.k8s.io", "v1", "APIService") else { return };
    let range = storage::range(kind, "");
    let mut changes = server.kinds.changes();
    while let Ok(mut watch) = server.store.watch(&range, server.store.revision()) {
        loop {
            changes.mark_unchanged();
            for step in plan(&wanted(&server), &registered(&server, kind)) {
                if let Err(error) = take(&client, kind, &step).await {
                    // Whoever was faster has made a change that brings us back.
                    tracing::debug!(%error, ?step, "an APIService was not registered");
                }
            }
            tokio::select! {
                event = watch.next() => match event {
                    Ok(_) => (),
                    Err(Gone::Compacted { .. }) => break,
                    Err(Gone::Closed) => return,
                },
                changed = changes.changed() => if changed.is_err() { return },
                () = ends.cancelled() => return,
            }
        }
    }
}

/// The group-versions that definitions make now.
fn wanted(server: &Server) -> BTreeSet<(String, String)> {
    let kinds = server.kinds.snapshot();
    kinds.custom().iter().map(|kind| (kind.group.to_owned(), kind.version.to_owned())).collect()
}

fn registered(server: &Server, kind: &'static Kind) -> Vec<Value> {
    let listing = server.store.list(&storage::range(kind, ""), None, None, None);
    let objects = listing.map(|listing| listing.objects).unwrap_or_default();
    objects.iter().filter_map(|object| storage::decode(object).ok()).collect()
}

fn plan(wanted: &BTreeSet<(String, String)>, registered: &[Value]) -> Vec<Step> {
    let name_of = |group: &str, version: &str| format!("{version}.{group}");
    let names: BTreeSet<&str> =
        registered.iter().filter_map(|service| service["metadata"]["name"].as_str()).collect();
    let missing = wanted
        .iter()
        .filter(|(group, version)| !names.contains(name_of(group, version).as_str()))
        .map(|(group, version)| Step::Register { group: group.clone(), version: version.clone() });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let surplus = registered
        .iter()
        .filter(|service| service["metadata"]["labels"][MANAGED] == "true")
        .filter(|service| service["metadata"]["deletionTimestamp"].is_null())
        .map(|service| (text(&service["spec"]["group"]), text(&service["spec"]["version"])))
        .filter(|place| !wanted.contains(place))
        .map(|(group, version)| Step::Remove { name: name_of(&group, &version) });
    missing.chain(surplus).collect()
}

async fn take(client: &kube::Client, kind: &Kind, step: &Step) -> Result<(), kube::Error> {
    let collection = format!("{}/{}", kind.root_path(), kind.plural);
    let (method, path, body) = match step {
        Step::Register { group, version } => {
            let service = json!({
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "metadata": { "name": format!("{version}.{group}"), "labels": { MANAGED: "true" } },
                "spec": {
                    "group": group,
                    "version": version,
                    "groupPriorityMinimum": OF_DEFINITIONS.group,
                    "versionPriority": OF_DEFINITIONS.version,
                },
            });
            (Method::POST, collection, service)
        }
        Step::Remove { name } => (Method::DELETE, format!("{collection}/{name}"), json!({})),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_made_is_taken_away() {
        let service = |version: &str, managed: Option<&str>| {
            let mut service = json!({ "metadata": { "name": format!("{version}.x.io") },
                "spec": { "group": "x.io", "version": version } });
            if let Some(managed) = managed {
                service["metadata"]["labels"][MANAGED] = json!(managed);
            }
            service
        };
        let wanted = BTreeSet::from([
            ("x.io".to_owned(), "v1".to_owned()),
            ("x.io".to_owned(), "v2".to_owned()),
        ]);
        let registered = [
            service("v1", None),
            service("v3", Some("true")),
            service("v4", None),
            service("v5", Some("onstart")),
        ];
        assert_eq!(
            plan(&wanted, &registered),
            [
                Step::Register { group: "x.io".to_owned(), version: "v2".to_owned() },
                Step::Remove { name: "v3.x.io".to_owned() }
            ]
        );
    }
}
