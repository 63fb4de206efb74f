//! Discovery: what is served, as single lists and aggregated in one answer. Made from the kinds that are served.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::response::Response;
use bytes::Bytes;
use coracle_api::kinds::{self, GroupVersion, Kind};
use coracle_api::status::Status;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::aggregation::{Order, Remotes};
use crate::answer::{self, Answer};
use crate::custom_resources::Snapshot;
use crate::negotiate::{Encoding, OFFERED, Representation};

/// The documents, made again whenever the kinds have changed.
pub(crate) struct Discovery {
    advertise: SocketAddr,
    made: ArcSwapOption<Documents>,
}

/// Every document, encoded.
struct Documents {
    /// The kinds and the remotes that they are made from.
    numbers: (u64, u64),
    plain: HashMap<String, Bytes>,
    /// By path and version of the aggregated API.
    aggregated: HashMap<(&'static str, &'static str), Aggregated>,
}

struct Aggregated {
    body: Bytes,
    etag: HeaderValue,
    content_type: &'static str,
}

const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_V2BETA1: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

impl Discovery {
    /// Documents are made when somebody asks.
    pub(crate) fn new(advertise: SocketAddr) -> Self {
        Self { advertise, made: ArcSwapOption::empty() }
    }

    /// Answers a path below `/api` and `/apis`, or 404.
    pub(crate) fn answer(
        &self,
        (kinds, remotes): (&Snapshot, &Remotes),
        path: &str,
        headers: &HeaderMap,
    ) -> Answer<Response> {
        let numbers = (kinds.number, remotes.number);
        let made = self.made.load_full().filter(|made| made.numbers == numbers);
        let documents = made.unwrap_or_else(|| {
            let made = Arc::new(Documents::new(self.advertise, kinds, remotes));
            self.made.store(Some(made.clone()));
            made
        });
        documents.answer(path, headers)
    }
}

impl Documents {
    fn new(advertise: SocketAddr, kinds: &Snapshot, remotes: &Remotes) -> Self {
        let mut plain = HashMap::new();
        let mut put = |path: String, document: Value| {
            drop(plain.insert(path, Bytes::from(document.to_string())))
        };
        put("/api".to_owned(), core_versions(advertise));
        put(
            "/apis".to_owned(),
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups(kinds, remotes) }),
        );
        for group in groups(kinds, remotes) {
            let mut document = json!({ "kind": "APIGroup", "apiVersion": "v1" });
            for field in ["name", "versions", "preferredVersion"] {
                document[field] = group[field].clone();
            }
            put(format!("/apis/{}", group["name"].as_str().unwrap_or_default()), document);
        }
        for version in kinds.group_versions() {
            put(kinds::root_path(version.group, version.version), resource_list(kinds, *version));
        }
        let mut aggregated = HashMap::new();
        for (path, is_core) in [("/api", true), ("/apis", false)] {
            for (version, content_type) in [("v2", AGGREGATED_V2), ("v2beta1", AGGREGATED_V2BETA1)]
            {
                let body =
                    Bytes::from(aggregated_list(kinds, remotes, is_core, version).to_string());
                let hash: String =
                    Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
                let etag = HeaderValue::from_str(&format!("\"{hash}\""))
                    .unwrap_or(HeaderValue::from_static("\"\""));
                aggregated.insert((path, version), Aggregated { body, etag, content_type });
            }
        }
        Self { numbers: (kinds.number, remotes.number), plain, aggregated }
    }

    fn answer(&self, path: &str, headers: &HeaderMap) -> Answer<Response> {
        let accept =
            headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if let Some(found) = wanted_aggregation(accept)
            && let Some((_, document)) =
                self.aggregated.iter().find(|((at, version), _)| *at == path && *version == found)
        {
            return Ok(document.answer(headers));
        }
        let document = self.plain.get(path).ok_or_else(Status::no_such_path)?;
        if Representation::of_refusals(headers.get(header::ACCEPT)) == Encoding::Protobuf {
            let document: Value = serde_json::from_slice(document).map_err(Status::internal)?;
            return Ok(answer::plain(Encoding::Protobuf, StatusCode::OK, &document));
        }
        if !accepts_json(accept) {
            return Err(Status::not_acceptable(&OFFERED));
        }
        Ok(answer::json_response(StatusCode::OK, document.clone()))
    }
}

impl Aggregated {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == self.etag);
        let mut response = if known {
            let mut response = Response::new(axum::body::Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            answer::with_type(StatusCode::OK, self.content_type, self.body.clone())
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        response
    }
}

/// The version of the aggregated API that the client asks for before plain JSON.
fn wanted_aggregation(accept: &str) -> Option<&'static str> {
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "*/*" | "application/*")) {
            continue;
        }
        let parameters: Vec<&str> = parts.collect();
        if !parameters.contains(&"as=APIGroupDiscoveryList") {
            return None;
        }
        for (parameter, version) in [("v=v2", "v2"), ("v=v2beta1", "v2beta1")] {
            if parameters.contains(&parameter) && parameters.contains(&"g=apidiscovery.k8s.io") {
                return Some(version);
            }
        }
    }
    None
}

fn accepts_json(accept: &str) -> bool {
    accept.trim().is_empty()
        || accept.split(',').any(|range| {
            matches!(
                range.split(';').next().map(str::trim),
                Some("application/json" | "*/*" | "application/*")
            )
        })
}

fn core_versions(advertise: SocketAddr) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": advertise.to_string() }],
    })
}

/// The groups but for the core one, in the order of their priorities; the first version of each is the preferred one.
fn groups(kinds: &Snapshot, remotes: &Remotes) -> Vec<Value> {
    let mut groups: Vec<Value> = Vec::new();
    for version in kinds.group_versions().iter().filter(|version| !version.group.is_empty()) {
        let entry = json!({ "groupVersion": version.api_version, "version": version.version });
        match groups.iter_mut().find(|group| group["name"] == version.group) {
            Some(group) => {
                if let Some(versions) = group["versions"].as_array_mut() {
                    versions.push(entry);
                }
            }
            None => groups.push(
                json!({ "name": version.group, "versions": [entry], "preferredVersion": entry }),
            ),
        }
    }
    remotes.add_groups(&mut groups);
    Order::new(kinds, remotes)
        .sort(&mut groups, |group| group["name"].as_str().unwrap_or_default());
    for group in &mut groups {
        group["preferredVersion"] = group["versions"][0].clone();
    }
    groups
}

fn kinds_of(kinds: &Snapshot, version: GroupVersion) -> impl Iterator<Item = &'static Kind> {
    kinds.all().filter(move |kind| kind.group_version() == version)
}

fn resource_list(kinds: &Snapshot, version: GroupVersion) -> Value {
    let mut resources = Vec::new();
    for kind in kinds_of(kinds, version) {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        if kind.is_stored() {
            resource["storageVersionHash"] = json!(storage_hash(kind));
        }
        resources.push(resource);
        for subresource in kind.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, subresource.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": subresource.kind,
                "verbs": subresource.verbs,
            });
            if (subresource.group, subresource.version) != (kind.group, kind.version) {
                entry["group"] = json!(subresource.group);
                entry["version"] = json!(subresource.version);
            }
            resources.push(entry);
        }
    }
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version.api_version, "resources": resources })
}

/// Names the version in which objects are stored, so that clients see when it changes.
fn storage_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let digest = Sha256::digest(format!("{}/{}/{}", kind.group, kind.version, kind.kind));
    base64::prelude::BASE64_STANDARD.encode(&digest[..8])
}

fn aggregated_list(kinds: &Snapshot, remotes: &Remotes, is_core: bool, api_version: &str) -> Value {
    let mut items: Vec<Value> = Vec::new();
    for version in
        kinds.group_versions().iter().filter(|version| version.group.is_empty() == is_core)
    {
        let entry = json!({
            "version": version.version,
            "resources": kinds_of(kinds, *version).map(aggregated_resource).collect::<Vec<_>>(),
            "freshness": "Current",
        });
        let found = items
            .iter_mut()
            .find(|item| item["metadata"]["name"].as_str().unwrap_or_default() == version.group);
        match found.and_then(|item| item["versions"].as_array_mut()) {
            Some(versions) => versions.push(entry),
            None => {
                let metadata = if is_core {
                    json!({ "creationTimestamp": null })
                } else {
                    json!({ "name": version.group, "creationTimestamp": null })
                };
                items.push(json!({ "metadata": metadata, "versions": [entry] }));
            }
        }
    }
    if !is_core {
        remotes.add_aggregated(&mut items);
        Order::new(kinds, remotes)
            .sort(&mut items, |item| item["metadata"]["name"].as_str().unwrap_or_default());
    }
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{api_version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let subresources = kind.subresources.iter().map(|subresource| {
            json!({
                "subresource": subresource.name,
                "responseKind": { "group": subresource.group, "version": subresource.version, "kind": subresource.kind },
                "verbs": subresource.verbs,
            })
        });
        resource["subresources"] = subresources.collect();
    }
    resource
}
