//! `proxy` of pods, services and nodes: a request passed on into the cluster, and its answer passed back.
//!
//! As upstream's `UpgradeAwareHandler`
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/proxy>): what is proxied finds its way
//! back, because redirects and links of pages get our own path before theirs; a connection that is upgraded is handed on.

mod destination;
mod rewrite;

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use coracle_api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::answer::Answer;
use crate::call::Call;
use crate::{forwarded, tunnel};
use destination::Destination;
use rewrite::Page;

/// Headers that belong to one connection, and those that tell who the caller is to us.
const DROPPED: [HeaderName; 10] = [
    header::CONNECTION,
    header::AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What a proxied server says about other origins is not for this one.
const OF_OTHER_ORIGINS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Passes the request on.
pub(super) async fn proxy(call: &mut Call) -> Answer<Response> {
    let to = destination::find(call)?;
    let uri = call.uri.clone();
    let (own_path, path) = split_path(uri.path(), &call.target.namespace);
    let upgrade = tunnel::is_wanted(&call.headers).then(|| call.upgrade.take()).flatten();
    if path.is_empty() && upgrade.is_none() && matches!(call.method, Method::GET | Method::HEAD) {
        return redirect_to_root(own_path, uri.query());
    }
    let request = request_for(call, own_path, path, upgrade.is_some())?;
    let page = Page {
        own_path: own_path.to_owned(),
        backend: format!("{}:{}", to.host, to.port),
        host: host_of(call).to_owned(),
    };
    let Destination { scheme, host, port } = to;
    let sent = call.server.kubelets.send(scheme, &host, port, request).await;
    let mut response = sent.map_err(|error| {
        Status::service_unavailable(format!("error trying to reach service: {error}"))
    })?;
    for name in OF_OTHER_ORIGINS {
        response.headers_mut().remove(name);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade {
            Some(client) => {
                Ok(tunnel::join(&call.server.tunnels, call.ends.clone(), client, response))
            }
            None => Err(Status::service_unavailable(
                "error trying to reach service: it changed the protocol without being asked",
            )),
        };
    }
    drop_hop_headers(response.headers_mut());
    let response = page.rewrite(response).await;
    let ends = call.ends.clone();
    Ok(response.map(|body| until(body, ends)))
}

/// Our own part of the path, and what is for the other side, with its slash: just as the client wrote it.
fn split_path<'a>(path: &'a str, namespace: &str) -> (&'a str, &'a str) {
    // `/api/v1/nodes/NAME/proxy` and `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy`.
    let own_segments = if namespace.is_empty() { 5 } else { 7 };
    match path.match_indices('/').nth(own_segments) {
        Some((slash, _)) => path.split_at(slash),
        None => (path, ""),
    }
}

/// Links of a page are relative to what its path ends with: a page without a path gets a slash.
fn redirect_to_root(own_path: &str, query: Option<&str>) -> Answer<Response> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::try_from(format!("{own_path}/{query}"));
    response.headers_mut().insert(header::LOCATION, location.map_err(Status::internal)?);
    Ok(response)
}

fn request_for(
    call: &mut Call,
    own_path: &str,
    path: &str,
    upgrades: bool,
) -> Answer<Request<Body>> {
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = if path.is_empty() { "/" } else { path };
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(format!("{target}{query}"))
        .body(std::mem::take(call.body.get_mut()))
        .map_err(Status::internal)?;
    let mut headers = call.headers.clone();
    let upgrade = headers.get(header::UPGRADE).cloned();
    drop_hop_headers(&mut headers);
    let impersonating: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonating {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade.filter(|_| upgrades) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    // HTTP/2 has it in the address.
    if !headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(host_of(call))
        && !host.is_empty()
    {
        headers.insert(header::HOST, host);
    }
    forwarded::tell_path(&mut headers, &format!("{own_path}{path}"));
    forwarded::tell_client(&mut headers, call.source);
    *request.headers_mut() = headers;
    Ok(request)
}

/// The host that the client asked for.
fn host_of(call: &Call) -> &str {
    let header = call.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    header.or(call.uri.authority().map(|host| host.as_str())).unwrap_or_default()
}

fn drop_hop_headers(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> =
        tunnel::listed(headers).filter_map(|token| token.parse::<HeaderName>().ok()).collect();
    for name in DROPPED.into_iter().chain(listed) {
        headers.remove(name);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_sides_path_stays_as_it_was_written() {
        let node = "/api/v1/nodes/n/proxy";
        assert_eq!(split_path(node, ""), (node, ""));
        assert_eq!(split_path("/api/v1/nodes/n/proxy/logs//a%2Fb/", ""), (node, "/logs//a%2Fb/"));
        let pod = "/api/v1/namespaces/a/pods/https:p:1/proxy";
        assert_eq!(split_path(&format!("{pod}/"), "a"), (pod, "/"));
    }

    #[test]
    fn what_connection_lists_ends_here() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, X-Mine"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert("x-theirs", HeaderValue::from_static("2"));
        assert!(!tunnel::is_wanted(&headers));
        drop_hop_headers(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-theirs"]);
    }
}
