//! What extension servers measured: `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`.
//!
//! Upstream: `pkg/controller/podautoscaler/metrics/client.go`.

use coracle_api::quantity::Quantity;
use coracle_api::selector::LabelSelector;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{ApiResource, ListParams};
use kube::core::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::replicas::{Sample, Samples};
use crate::api::{code, message};

/// Upstream's window for metrics that name none.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// What a server says about a path that it does not have.
const NO_SUCH_PATH: &str = "the server could not find the requested resource";

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Name,
    timestamp: Timestamp,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    #[serde(default)]
    described_object: Described,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default, alias = "window")]
    window_seconds: Option<i64>,
    value: Value,
}

#[derive(Deserialize, Default)]
struct Described {
    #[serde(default)]
    name: String,
}

/// Where metrics are read.
pub(super) struct Metrics<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
    pub now: Timestamp,
}

impl Metrics<'_> {
    /// What the pods use of a resource, in one container or in all.
    pub async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        pods: &str,
    ) -> Result<Samples, String> {
        let failed =
            |cause: String| format!("unable to get metrics for resource {resource}: {cause}");
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}", self.namespace);
        let list: List<PodMetrics> =
            list(self.client, format!("{path}/pods"), &[("labelSelector", pods)]).await.map_err(
                |error| {
                    let cause = said(&error, "pods.metrics.k8s.io");
                    failed(format!("unable to fetch metrics from resource metrics API: {cause}"))
                },
            )?;
        if list.items.is_empty() {
            return Err(failed("no metrics returned from resource metrics API".to_owned()));
        }
        let mut samples = Samples::new();
        for pod in list.items {
            let of = |found: &ContainerMetrics| milli(&found.usage[resource]);
            let used = match container {
                None => pod.containers.iter().map(of).sum::<Option<i64>>(),
                Some(name) => {
                    let found = pod.containers.iter().find(|found| found.name == name);
                    let found = found.ok_or_else(|| {
                        let pod = &pod.metadata.name;
                        failed(format!("failed to get container metrics: container {name} not present in metrics for pod {}/{pod}", self.namespace))
                    })?;
                    of(found)
                }
            };
            let Some(milli_value) = used.filter(|_| !pod.containers.is_empty()) else { continue };
            let window = pod.window.parse().unwrap_or(WINDOW);
            samples.insert(pod.metadata.name, Sample { milli_value, at: pod.timestamp, window });
        }
        Ok(samples)
    }

    /// A metric of each pod.
    pub async fn pods(&self, metric: &str, selector: &str, pods: &str) -> Result<Samples, String> {
        let path = format!("namespaces/{}/pods/*/{metric}", self.namespace);
        let query = [("labelSelector", pods), ("metricLabelSelector", selector)];
        let found = self.custom(&path, &query).await;
        let found = found.map_err(|cause| format!("unable to get metric {metric}: {cause}"))?;
        let samples = found.into_iter().filter_map(|value| {
            let sample = Sample {
                milli_value: milli(&value.value)?,
                at: value.timestamp.unwrap_or(self.now),
                window: value.window_seconds.map_or(WINDOW, SignedDuration::from_secs),
            };
            Some((value.described_object.name, sample))
        });
        Ok(samples.collect())
    }

    /// A metric of one object.
    pub async fn object(
        &self,
        metric: &str,
        selector: &str,
        kind: &ApiResource,
        name: &str,
    ) -> Result<i64, String> {
        let path = if kind.group.is_empty() && kind.plural == "namespaces" {
            format!("namespaces/{name}/metrics/{metric}")
        } else {
            let resource = match kind.group.as_str() {
                "" => kind.plural.clone(),
                group => format!("{}.{group}", kind.plural),
            };
            format!("namespaces/{}/{resource}/{name}/{metric}", self.namespace)
        };
        let found = self.custom(&path, &[("metricLabelSelector", selector)]).await;
        let found = found.and_then(|found| {
            let value = found.first().and_then(|value| milli(&value.value));
            value.ok_or_else(|| "no metrics returned from custom metrics API".to_owned())
        });
        // Upstream's order of the words.
        found.map_err(|cause| {
            let place = format!("{} on {} {name}", kind.kind, self.namespace);
            format!("unable to get metric {metric}: {place}/{cause}")
        })
    }

    async fn custom(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<MetricValue>, String> {
        const GROUP: &str = "/apis/custom.metrics.k8s.io";
        let mut found = list(self.client, format!("{GROUP}/v1beta2/{path}"), query).await;
        if matches!(&found, Err(error) if is_no_path(error)) {
            found = list(self.client, format!("{GROUP}/v1beta1/{path}"), query).await;
        }
        match found {
            Ok(List { items }) => Ok(items),
            Err(error) => {
                let cause = if is_no_path(&error) {
                    "no custom metrics API (custom.metrics.k8s.io) registered".to_owned()
                } else {
                    message(&error)
                };
                Err(format!("unable to fetch metrics from custom metrics API: {cause}"))
            }
        }
    }

    /// A metric of something outside of the cluster, all its series together.
    pub async fn external(&self, metric: &str, selector: &str) -> Result<i64, String> {
        let path =
            format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{metric}", self.namespace);
        let failed = |cause: String| {
            format!("unable to get external metric {}/{metric}/{selector}: {cause}", self.namespace)
        };
        let found: Result<List<MetricValue>, _> =
            list(self.client, path, &[("labelSelector", selector)]).await;
        let found = found.map_err(|error| {
            let cause = said(&error, &format!("{metric}.external.metrics.k8s.io"));
            failed(format!("unable to fetch metrics from external metrics API: {cause}"))
        })?;
        if found.items.is_empty() {
            return Err(failed("no metrics returned from external metrics API".to_owned()));
        }
        Ok(found.items.iter().filter_map(|value| milli(&value.value)).sum())
    }
}

/// Reads a list whose selectors go into the query.
pub(super) async fn list<T: DeserializeOwned>(
    client: &Client,
    path: String,
    query: &[(&str, &str)],
) -> kube::Result<T> {
    let mut params = ListParams::default();
    let mut extra = String::new();
    for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        match *name {
            "labelSelector" => params = params.labels(value),
            _ => extra = format!("&{name}={}", escaped(value)),
        }
    }
    let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
    let request = if extra.is_empty() { request } else { with_query(request, &extra)? };
    client.request(request).await
}

fn with_query(
    request: http::Request<Vec<u8>>,
    extra: &str,
) -> kube::Result<http::Request<Vec<u8>>> {
    let uri = format!("{}{extra}", request.uri());
    let request = http::Request::get(uri).body(Vec::new());
    request
        .map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))
}

/// A value as a part of a query.
fn escaped(value: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn is_no_path(error: &kube::Error) -> bool {
    code(error) == Some(404) && message(error).starts_with(NO_SUCH_PATH)
}

/// An error as client-go tells it, which adds what was asked for.
fn said(error: &kube::Error, resource: &str) -> String {
    match is_no_path(error) {
        true => format!("{NO_SUCH_PATH} (get {resource})"),
        false => message(error),
    }
}

fn milli(value: &Value) -> Option<i64> {
    Quantity::from_value(value).ok().map(|quantity| quantity.milli_value())
}

/// A typed selector as a query has it; empty for none.
pub(super) fn selector_text<T: serde::Serialize>(selector: Option<&T>) -> Result<String, String> {
    let Some(selector) = selector else { return Ok(String::new()) };
    let selector = serde_json::to_value(selector).map_err(|error| error.to_string())?;
    let selector = LabelSelector::from_value(Some(&selector)).map_err(|error| error.to_string())?;
    Ok(selector.to_string())
}
