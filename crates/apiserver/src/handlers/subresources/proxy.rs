//! `proxy` of pods, services and nodes: a request passed on into the cluster, and its answer passed back.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_store::Range;
use http::{HeaderMap, Request, header};
use http_body::Frame;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::answer::Answer;
use crate::call::Call;
use crate::kubelet_client::Scheme;
use crate::object::text;
use crate::{node_address, storage};

/// Headers that belong to one connection, and those that tell who the caller is to us.
const DROPPED: [header::HeaderName; 8] = [
    header::CONNECTION,
    header::HOST,
    header::AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHORIZATION,
];

/// Passes the request on.
pub(super) async fn proxy(call: &mut Call) -> Answer<Response> {
    let Destination { scheme, host, port } = destination(call)?;
    let mut path = format!("/{}", call.target.rest);
    if let Some(raw) = call.raw_query.as_deref() {
        path = format!("{path}?{raw}");
    }
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(&path)
        .body(std::mem::take(call.body.get_mut()))
        .map_err(Status::internal)?;
    *request.headers_mut() = call.headers.clone();
    drop_hop_headers(request.headers_mut());
    let sent = call.server.kubelets.send(scheme, &host, port, request).await;
    let mut response = sent.map_err(|error| {
        Status::service_unavailable(format!("error trying to reach service: {error}"))
    })?;
    drop_hop_headers(response.headers_mut());
    let ends = call.ends.clone();
    Ok(response.map(|body| until(body, ends)))
}

fn drop_hop_headers(headers: &mut HeaderMap) {
    for name in DROPPED {
        headers.remove(name);
    }
}

struct Destination {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
fn destination(call: &Call) -> Answer<Destination> {
    let parts: Vec<&str> = call.target.name.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => {
            return Err(Status::bad_request(format!(
                "invalid {} request {:?}",
                call.kind.singular, call.target.name
            )));
        }
    };
    if !matches!(scheme, "" | "http") && call.kind.kind != "Node" {
        return Err(Status::bad_request(format!(
            "proxying with scheme {scheme:?} is not supported by this server yet"
        )));
    }
    match call.kind.kind {
        "Node" => {
            let (host, port) = node_address::kubelet(&call.server.store, name)?;
            Ok(Destination { scheme: Scheme::KubeletHttps, host, port })
        }
        "Pod" => pod(call, name, port),
        "Service" => service(call, name, port),
        _ => Err(Status::method_not_served()),
    }
}

fn pod(call: &Call, name: &str, port: &str) -> Answer<Destination> {
    let key = storage::key(call.kind, call.namespace(), name);
    let pod = storage::decode(
        &*call.server.store.get(&key).ok_or_else(|| Status::not_found(call.kind, name))?,
    )?;
    let host = text(&pod, "/status/podIP");
    if host.is_empty() {
        return Err(Status::service_unavailable(format!("pod {name} has no address yet")));
    }
    let containers = pod
        .pointer("/spec/containers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut ports =
        containers.iter().filter_map(|container| container.get("ports")?.as_array()).flatten();
    let found = match port.parse::<u16>() {
        Ok(number) => Some(number),
        Err(_) => ports
            .find(|declared| {
                port.is_empty() || declared.get("name").is_some_and(|name| name == port)
            })
            .and_then(|declared| u16::try_from(declared.get("containerPort")?.as_u64()?).ok()),
    };
    let port = found.or(port.is_empty().then_some(80));
    let port = port.ok_or_else(|| Status::bad_request(format!("pod {name:?} has no such port")))?;
    Ok(Destination { scheme: Scheme::Http, host: host.to_owned(), port })
}

/// A random ready endpoint of the service.
fn service(call: &Call, name: &str, port: &str) -> Answer<Destination> {
    let key = storage::key(call.kind, call.namespace(), name);
    let service = storage::decode(
        &*call.server.store.get(&key).ok_or_else(|| Status::not_found(call.kind, name))?,
    )?;
    let ports = service
        .pointer("/spec/ports")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let wanted = ports.iter().find(|declared| {
        (port.is_empty() && ports.len() == 1)
            || declared.get("name").is_some_and(|name| name == port)
            || declared.get("port").is_some_and(|number| number.as_u64() == port.parse().ok())
    });
    let wanted = wanted.ok_or_else(|| {
        Status::service_unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    let port_name = wanted.get("name").and_then(Value::as_str).unwrap_or_default();
    let none =
        || Status::service_unavailable(format!("no endpoints available for service {name:?}"));
    let range = Range::namespace("endpointslices.discovery.k8s.io", call.namespace());
    let listing = call.server.store.list(&range, None, None, None).map_err(|_| none())?;
    let mut candidates = Vec::new();
    for object in listing
        .objects
        .iter()
        .filter(|object| object.attributes.label("kubernetes.io/service-name") == Some(name))
    {
        let slice = storage::decode(object)?;
        let ports =
            slice.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let port = ports
            .iter()
            .find(|port| port.get("name").and_then(Value::as_str).unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port.get("port")?.as_u64()?).ok())
        else {
            continue;
        };
        for endpoint in slice.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            let ready =
                endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            if let Some(host) =
                endpoint.pointer("/addresses/0").and_then(Value::as_str).filter(|_| ready)
            {
                candidates.push((host.to_owned(), port));
            }
        }
    }
    if candidates.is_empty() {
        return Err(none());
    }
    let (host, port) = candidates.swap_remove(rand::random_range(0..candidates.len()));
    Ok(Destination { scheme: Scheme::Http, host, port })
}

/// The body, cut off when the server ends.
pub(crate) fn until(body: Body, ends: CancellationToken) -> Body {
    Body::new(Until { body, ends: Box::pin(ends.cancelled_owned()) })
}

struct Until {
    body: Body,
    ends: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
