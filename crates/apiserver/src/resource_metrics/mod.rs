//! `metrics.k8s.io/v1beta1`: what nodes and pods use, for `kubectl top` and for autoscalers.
//!
//! What upstream leaves to metrics-server, an aggregated server. This one is built in, and has its place among the aggregated ones as
//! long as the group-version's APIService is the one that we bring in: whoever installs another server puts it into that object.
//! `usages.rs` asks the kubelets, when somebody asks us: nothing is gathered in advance, so an idle cluster pays nothing.
//!
//! Deliberately absent: watches, which metrics-server has not either, and protobuf.

mod usages;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::response::Response;
use coracle_api::kinds::{self, GroupVersion, Kind};
use coracle_api::quantity::{Format, Quantity};
use coracle_api::status::{GroupResource, Status};
use coracle_store::Object;
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::negotiate::{Form, Offer, Representation};
use crate::object::{self, meta, text};
use crate::printing::{self, Include};
use crate::query::{ListOptions, Query};
use crate::request_info::{RequestInfo, ResourcePath};
use crate::selection::Selection;
use crate::server::Server;
use crate::{limits, storage};

pub(crate) use usages::Usages;
use usages::{NodeUsage, Usage};

/// What is served here.
pub(crate) const SERVED: GroupVersion =
    GroupVersion { group: "metrics.k8s.io", version: "v1beta1", api_version: API_VERSION };
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// The `resources` of the `APIResourceList`.
pub(crate) fn resources() -> Vec<Value> {
    let resource = |name: &str, namespaced: bool, kind: &str| json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"] });
    vec![resource("nodes", false, "NodeMetrics"), resource("pods", true, "PodMetrics")]
}

/// Whose use is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Nodes,
    Pods,
}

impl Subject {
    fn of(target: &ResourcePath) -> Answer<Self> {
        match (target.resource.as_str(), target.subresource.as_str()) {
            ("nodes", "") if target.namespace.is_empty() => Ok(Self::Nodes),
            ("pods", "") => Ok(Self::Pods),
            _ => Err(Status::no_such_path()),
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    /// The kind that is measured.
    fn measured(self) -> Answer<&'static Kind> {
        let kind = match self {
            Self::Nodes => "Node",
            Self::Pods => "Pod",
        };
        kinds::by_kind("", "v1", kind).ok_or_else(Status::no_such_path)
    }
}

/// Answers a request below `/apis/metrics.k8s.io/v1beta1` that may be answered.
pub(crate) async fn answer(
    server: &Server,
    info: &RequestInfo,
    parts: &Parts,
    query: &Query,
) -> Answer<Response> {
    let Some(target) = &info.resource else { return group_version(parts, query) };
    let subject = Subject::of(target)?;
    let representation = Representation::negotiate(&parts.headers, query, Offer::CustomObjects)?;
    let show = Show { subject, representation, include: Include::read(query)? };
    let limit = limits::REQUEST_TIMEOUT;
    match info.verb {
        "get" => {
            let found = stored(server, subject, target)?;
            let measured = tokio::time::timeout(limit, measure(server, subject, vec![found])).await;
            let mut items = measured.map_err(|_| late())??;
            Ok(show.one(items.pop().ok_or_else(|| not_found(subject, target))?))
        }
        "list" => {
            let found = selected(server, subject, target, query)?;
            let measured = tokio::time::timeout(limit, measure(server, subject, found)).await;
            Ok(show.list(&measured.map_err(|_| late())??))
        }
        _ => Err(Status::method_not_served()),
    }
}

fn late() -> Status {
    Status::timeout("request did not complete within the allotted timeout", 0)
}

fn group_version(parts: &Parts, query: &Query) -> Answer<Response> {
    if parts.uri.path() != format!("/apis/{API_VERSION}") {
        return Err(Status::no_such_path());
    }
    let encoding = Representation::negotiate(&parts.headers, query, Offer::Plain)?.encoding;
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources(),
    });
    Ok(answer::plain(encoding, StatusCode::OK, &list))
}

fn stored(server: &Server, subject: Subject, target: &ResourcePath) -> Answer<Arc<Object>> {
    let key = storage::key(subject.measured()?, &target.namespace, &target.name);
    server.store.get(&key).ok_or_else(|| not_found(subject, target))
}

/// In metrics-server's words.
fn not_found(subject: Subject, target: &ResourcePath) -> Status {
    let ResourcePath { namespace, name, .. } = target;
    match subject {
        Subject::Nodes => {
            Status::not_found(GroupResource { group: SERVED.group, resource: "nodemetrics" }, name)
        }
        Subject::Pods => {
            let name = format!("{namespace}/{name}");
            Status::not_found(GroupResource { group: SERVED.group, resource: "podmetrics" }, &name)
        }
    }
}

fn selected(
    server: &Server,
    subject: Subject,
    target: &ResourcePath,
    query: &Query,
) -> Answer<Vec<Arc<Object>>> {
    let kind = subject.measured()?;
    let options = ListOptions::read(query, false)?;
    let selection = Selection::new(kind, options.labels, options.fields)?;
    let range = storage::range(kind, &target.namespace);
    let listing = server.store.list(&range, None, None, None);
    let mut objects = listing.map_err(Status::internal)?.objects;
    objects.retain(|object| selection.matches(object));
    Ok(objects)
}

/// What those of the objects use that anything is known of.
async fn measure(
    server: &Server,
    subject: Subject,
    objects: Vec<Arc<Object>>,
) -> Answer<Vec<Value>> {
    let objects: Vec<Value> =
        objects.iter().map(|object| storage::decode(object)).collect::<Answer<_>>()?;
    let nodes: BTreeSet<&str> = match subject {
        Subject::Nodes => objects.iter().map(|node| meta(node, "name")).collect(),
        Subject::Pods => objects.iter().filter_map(node_of).collect(),
    };
    let used = server.usages.of(server, nodes.into_iter().map(str::to_owned)).await;
    let metrics = objects.iter().filter_map(|object| match subject {
        Subject::Nodes => node_metrics(object, used.get(meta(object, "name"))?),
        Subject::Pods => pod_metrics(object, used.get(node_of(object)?)?),
    });
    Ok(metrics.collect())
}

/// Where a pod runs, if it does.
fn node_of(pod: &Value) -> Option<&str> {
    let node = text(pod, "/spec/nodeName");
    (text(pod, "/status/phase") == "Running" && !node.is_empty()).then_some(node)
}

fn node_metrics(node: &Value, used: &NodeUsage) -> Option<Value> {
    let usage = used.node.as_ref()?;
    let mut metrics = metrics_of(node, Subject::Nodes, usage);
    metrics["usage"] = amounts(usage);
    Some(metrics)
}

fn pod_metrics(pod: &Value, used: &NodeUsage) -> Option<Value> {
    let containers = used.pods.get(meta(pod, "uid"))?;
    let mut metrics = metrics_of(pod, Subject::Pods, &containers.first()?.1);
    let shown =
        containers.iter().map(|(name, usage)| json!({ "name": name, "usage": amounts(usage) }));
    metrics["containers"] = shown.collect();
    Some(metrics)
}

fn metrics_of(object: &Value, subject: Subject, usage: &Usage) -> Value {
    let mut metadata = json!({ "name": meta(object, "name"), "creationTimestamp": object::now() });
    for field in ["namespace", "labels"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    json!({
        "kind": subject.kind(), "apiVersion": API_VERSION, "metadata": metadata,
        "timestamp": usage.at, "window": go_duration(usage.window_milliseconds),
    })
}

fn amounts(usage: &Usage) -> Value {
    let whole = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    // Canonical, so that zeros at the end are written as a larger unit.
    let cpu = format!("{}n", usage.cpu_nano_cores).parse().unwrap_or(Quantity::ZERO);
    let memory = Quantity::new(whole(usage.memory_bytes), Format::BinarySi);
    json!({ "cpu": cpu.to_string(), "memory": memory.to_string() })
}

/// `15.02s`, `1m0s`: as Go writes a duration of at least a second.
fn go_duration(milliseconds: u64) -> String {
    let (minutes, left) = (milliseconds / 60_000, milliseconds % 60_000);
    let minutes = if minutes > 0 { format!("{minutes}m") } else { String::new() };
    let fraction = match left % 1000 {
        0 => String::new(),
        part => format!(".{part:03}").trim_end_matches('0').to_owned(),
    };
    format!("{minutes}{}{fraction}s", left / 1000)
}

/// How the answer is shown.
struct Show {
    subject: Subject,
    representation: Representation,
    include: Include,
}

impl Show {
    fn one(&self, item: Value) -> Response {
        self.answer(match self.representation.form {
            Form::Whole => item,
            Form::Metadata(version) => printing::metadata_only(&item, version),
            Form::Table(version) => self.table(&[item], version),
        })
    }

    fn list(&self, items: &[Value]) -> Response {
        let list = |kind: &str, api_version: &str, items: Value| json!({ "kind": kind, "apiVersion": api_version, "metadata": {}, "items": items });
        self.answer(match self.representation.form {
            Form::Whole => list(&format!("{}List", self.subject.kind()), API_VERSION, items.into()),
            Form::Metadata(version) => {
                let items = items.iter().map(|item| printing::metadata_only(item, version));
                let api_version = format!("meta.k8s.io/{version}");
                list("PartialObjectMetadataList", &api_version, items.collect())
            }
            Form::Table(version) => self.table(items, version),
        })
    }

    fn answer(&self, value: Value) -> Response {
        answer::plain(self.representation.encoding, StatusCode::OK, &value)
    }

    /// metrics-server's table.
    fn table(&self, items: &[Value], version: &str) -> Value {
        let column = |name: &str, format: &str, description: &str| json!({ "name": name, "type": "string", "format": format, "description": description, "priority": 0 });
        let used = |name: &str| column(name, "quantity", &format!("Usage of {name}"));
        let rows = items.iter().map(|item| {
            let object = match self.include {
                Include::None => Value::Null,
                Include::Metadata => printing::metadata_only(item, version),
                Include::Object => item.clone(),
            };
            let cells = [meta(item, "name").to_owned(), total(item, "cpu"), total(item, "memory")];
            let window = text(item, "/window").to_owned();
            json!({ "cells": cells.into_iter().chain([window]).collect::<Vec<_>>(), "object": object })
        });
        json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
            "columnDefinitions": [
                column("Name", "name", "Name of the resource"), used("cpu"), used("memory"),
                column("Window", "duration", "Duration over which the usage was measured"),
            ],
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

/// What a node uses, or the containers of a pod together.
fn total(item: &Value, resource: &str) -> String {
    let containers = item["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let parts = containers.iter().chain([item]).map(|part| &part["usage"][resource]);
    parts.filter_map(|amount| Quantity::from_value(amount).ok()).sum::<Quantity>().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_windows_are_written_as_go_does() {
        let check = |milliseconds: u64, expected: &str| {
            assert_eq!(go_duration(milliseconds), expected);
        };
        check(1000, "1s");
        check(15_020, "15.02s");
        check(60_000, "1m0s");
        check(75_500, "1m15.5s");
        let usage = Usage {
            at: String::new(),
            window_milliseconds: 1000,
            cpu_nano_cores: 1_500_000,
            memory_bytes: 3 << 20,
        };
        assert_eq!(amounts(&usage), json!({ "cpu": "1500u", "memory": "3Mi" }));
        let usage = Usage { cpu_nano_cores: 1_234_567, memory_bytes: 0, ..usage };
        assert_eq!(amounts(&usage), json!({ "cpu": "1234567n", "memory": "0" }));
    }
}
