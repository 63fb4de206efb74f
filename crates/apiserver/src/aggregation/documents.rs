//! What aggregated servers add to discovery, as single lists and in one answer.

use std::cmp::Reverse;

use coracle_api::openapi;
use serde_json::{Value, json};

use super::{Offer, Remote, Remotes, State};

impl Remotes {
    /// Adds the group-versions to the list of groups.
    pub(crate) fn add_groups(&self, groups: &mut Vec<Value>) {
        for Remote { group, version, .. } in self.iter() {
            let entry = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
            match groups.iter_mut().find(|known| known["name"] == group.as_str()) {
                Some(known) => {
                    if let Some(versions) = known["versions"].as_array_mut()
                        && !versions.contains(&entry)
                    {
                        versions.push(entry);
                    }
                }
                None => groups
                    .push(json!({ "name": group, "versions": [entry], "preferredVersion": entry })),
            }
        }
    }

    /// Adds the group-versions to the aggregated list; what an unavailable server offers is not known.
    pub(crate) fn add_aggregated(&self, items: &mut Vec<Value>) {
        for remote in self.iter() {
            let entry = remote.aggregated();
            let version = entry["version"].clone();
            match items.iter_mut().find(|item| item["metadata"]["name"] == remote.group.as_str()) {
                Some(item) => {
                    if let Some(versions) = item["versions"].as_array_mut() {
                        versions.retain(|known| known["version"] != version);
                        versions.push(entry);
                    }
                }
                None => items.push(json!({
                    "metadata": { "name": remote.group, "creationTimestamp": null },
                    "versions": [entry],
                })),
            }
        }
    }

    /// Adds what the servers say in OpenAPI v2 to that document, those of higher priority first.
    pub(crate) fn add_swagger(&self, document: &mut Value) {
        let mut remotes: Vec<&Remote> = self.iter().collect();
        remotes.sort_by_key(|remote| Reverse((remote.priority.group, remote.priority.version)));
        for remote in remotes {
            if let State::Available(Offer { swagger: Some(swagger), .. }) = &remote.state {
                openapi::add_v2_part(document, swagger.part.clone());
            }
        }
    }

    /// Adds the servers' documents to the index of OpenAPI v3.
    pub(crate) fn add_open_api(&self, paths: &mut serde_json::Map<String, Value>) {
        for remote in self.iter() {
            let State::Available(offer) = &remote.state else { continue };
            if let Some(address) = &offer.open_api {
                let path = remote.root_path().trim_start_matches('/').to_owned();
                paths.insert(path, json!({ "serverRelativeURL": address }));
            }
        }
    }
}

impl Remote {
    fn aggregated(&self) -> Value {
        let State::Available(offer) = &self.state else {
            return json!({ "version": self.version, "freshness": "Stale" });
        };
        let mut resources: Vec<Value> = Vec::new();
        for resource in &offer.resources {
            let name = resource["name"].as_str().unwrap_or_default();
            match name.split_once('/') {
                None => resources.push(self.resource(name, resource)),
                Some((plural, part)) => {
                    let parent = resources.iter_mut().find(|known| known["resource"] == plural);
                    let entry = json!({
                        "subresource": part,
                        "responseKind": self.kind_of(resource),
                        "verbs": resource["verbs"],
                    });
                    if let Some(parent) = parent {
                        match parent["subresources"].as_array_mut() {
                            Some(parts) => parts.push(entry),
                            None => parent["subresources"] = json!([entry]),
                        }
                    }
                }
            }
        }
        json!({ "version": self.version, "resources": resources, "freshness": "Current" })
    }

    fn resource(&self, plural: &str, resource: &Value) -> Value {
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut entry = json!({
            "resource": plural,
            "responseKind": self.kind_of(resource),
            "scope": scope,
            "singularResource": resource["singularName"],
            "verbs": resource["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if resource[field].is_array() {
                entry[field] = resource[field].clone();
            }
        }
        entry
    }

    fn kind_of(&self, resource: &Value) -> Value {
        let given = |field: &str, usual: &str| {
            let said = resource[field].as_str().filter(|said| !said.is_empty());
            said.unwrap_or(usual).to_owned()
        };
        json!({
            "group": given("group", &self.group),
            "version": given("version", &self.version),
            "kind": resource["kind"],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::{Behind, Priority};
    use super::*;

    #[test]
    fn what_a_server_offers_is_told_in_both_forms() {
        let flunders = json!({ "name": "flunders", "singularName": "flunder", "namespaced": true,
            "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"] });
        let status = json!({ "name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"] });
        let remote = |version: &str, state: State| {
            let remote = Remote {
                group: "wardle.io".to_owned(),
                version: version.to_owned(),
                server: Behind::Service(Err(String::new())),
                priority: Priority { group: 1, version: 1 },
                state,
            };
            (("wardle.io".to_owned(), version.to_owned()), Arc::new(remote))
        };
        let offer = Offer { resources: vec![flunders, status], ..Offer::default() };
        let by_version = BTreeMap::from([
            remote("v1", State::Available(offer)),
            remote("v2", State::Unavailable),
        ]);
        let remotes = Remotes { number: 1, by_version };
        let (mut groups, mut items) = (Vec::new(), Vec::new());
        remotes.add_groups(&mut groups);
        remotes.add_aggregated(&mut items);
        assert_eq!(groups[0]["versions"][1]["groupVersion"], "wardle.io/v2");
        assert_eq!(groups[0]["preferredVersion"]["version"], "v1");
        let kind = json!({ "group": "wardle.io", "version": "v1", "kind": "Flunder" });
        let parts = json!([{ "subresource": "status", "responseKind": kind, "verbs": ["update"] }]);
        assert_eq!(
            items[0]["versions"][0]["resources"],
            json!([{
                "resource": "flunders", "responseKind": kind, "scope": "Namespaced", "singularResource": "flunder",
                "verbs": ["get"], "shortNames": ["fl"], "subresources": parts,
            }])
        );
        assert_eq!(items[0]["versions"][1], json!({ "version": "v2", "freshness": "Stale" }));
    }
}
