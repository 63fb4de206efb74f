//! The API server as a client of servers that extend it: webhooks, and those of aggregated group-versions.
//!
//! Start reading at [`ExtensionClient`]. What is always true:
//! - Only HTTPS, verified against the `caBundle` that the configuration names, or else against the host's and the cluster's roots,
//!   unless an APIService wants it unverified.
//! - Webhooks are not told who we are; aggregated servers see the front proxy's certificate.
//! - Services are found in our own store ([`endpoints`]); no proxy, no DNS, no redirect takes part.
//! - Every call has a deadline, every answer a size; connections are kept and used again, a bounded number of them.

mod connect;
pub(crate) mod endpoints;
mod review_version;
mod trust;

use std::collections::HashMap;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_store::Store;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde_json::Value;

use crate::limits;
use crate::pki::Pki;
use connect::{Connector, Route};
pub(crate) use review_version::ReviewVersion;
use trust::Trust;
pub(crate) use trust::check_bundle;

/// Where an extension server is: a `clientConfig` of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    uri: Uri,
    route: Route,
    trust: Trust,
    /// Whether we show the front proxy's certificate.
    as_proxy: bool,
}

/// Why there is no usable answer. The texts are those of upstream's client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The configuration names nothing that can be called.
    #[error("{0}")]
    Misconfigured(String),
    /// Nobody answered.
    #[error("{method} {uri:?}: {cause}", uri = uri.to_string())]
    Unreachable { method: &'static str, uri: Box<Uri>, cause: String },
    /// Somebody did, with a refusal or with too much.
    #[error("{0}")]
    Refused(String),
}

/// Sends requests to extension servers.
pub(crate) struct ExtensionClient {
    store: Store,
    trust: trust::Roots,
    pools: Mutex<HashMap<(Route, Trust, bool), Pool>>,
}

type Pool = Client<Connector, Body>;

impl ExtensionClient {
    /// Over the objects that tell where services are, and what the cluster trusts.
    pub(crate) fn new(store: Store, pki: &Pki) -> Self {
        let trust = trust::Roots::new(pki.ca_pem(), pki.front_proxy());
        Self { store, trust, pools: Mutex::default() }
    }

    /// Asks a webhook: posts JSON, and answers the body of a 200.
    pub(crate) async fn ask(
        &self,
        to: &Destination,
        question: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let uri = to.with_timeout(timeout);
        let failed = |cause: String| CallError::Unreachable {
            method: "Post",
            uri: Box::new(uri.clone()),
            cause,
        };
        let request = Request::post(uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Body::from(question))
            .map_err(|error| CallError::Misconfigured(error.to_string()))?;
        let answered = tokio::time::timeout(timeout, async {
            let response = self.send(to, request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, limits::EXTENSION_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
            if parts.status.is_success() {
                Ok(body)
            } else {
                Err(CallError::Refused(refusal(parts.status, &body)))
            }
        });
        answered.await.unwrap_or_else(|_| Err(failed("context deadline exceeded".to_owned())))
    }

    /// Gets a document of an aggregated server, which is answered with 200.
    pub(crate) async fn fetch(
        &self,
        from: &Destination,
        path: &str,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<Bytes, String> {
        let (code, _, body) = self.fetch_document(from, path, headers, timeout).await?;
        if code != StatusCode::OK {
            return Err(format!("bad status from {}: {}", from.shown(path), code.as_u16()));
        }
        Ok(body)
    }

    /// Gets a document of an aggregated server: the code of the answer, its `ETag`, and the document.
    pub(crate) async fn fetch_document(
        &self,
        from: &Destination,
        path: &str,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<(StatusCode, Option<HeaderValue>, Bytes), String> {
        let uri = from.at(path).map_err(|error| error.to_string())?;
        let mut request =
            Request::get(uri).body(Body::empty()).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        let answered = tokio::time::timeout(timeout, async {
            let response = self.send(from, request).await.map_err(|error| error.to_string())?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, limits::EXTENSION_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok((parts.status, parts.headers.get(header::ETAG).cloned(), body))
        });
        answered.await.unwrap_or_else(|_| {
            Err(format!("Get {:?}: context deadline exceeded", from.shown(path)))
        })
    }

    /// Sends a request and answers once the head of the response is there; the body follows as it comes.
    pub(crate) async fn send(
        &self,
        to: &Destination,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, CallError> {
        let uri = request.uri().clone();
        let method = match request.method().as_str() {
            "POST" => "Post",
            "PUT" => "Put",
            "PATCH" => "Patch",
            "DELETE" => "Delete",
            "HEAD" => "Head",
            _ => "Get",
        };
        if let Some(host) =
            uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        self.pool(to)?.request(request).await.map_err(|error| CallError::Unreachable {
            method,
            uri: Box::new(uri),
            cause: innermost(&error),
        })
    }

    /// The connections to where this trust holds.
    fn pool(&self, to: &Destination) -> Result<Pool, CallError> {
        let key = (to.route, to.trust.clone(), to.as_proxy);
        if let Some(pool) = self.pools.lock().get(&key) {
            return Ok(pool.clone());
        }
        let tls =
            self.trust.client_config(&to.trust, to.as_proxy).map_err(CallError::Misconfigured)?;
        let connector = Connector::new(self.store.clone(), to.route, tls);
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::EXTENSION_IDLE)
            .pool_max_idle_per_host(limits::EXTENSION_IDLE_CONNECTIONS)
            .build(connector);
        let mut pools = self.pools.lock();
        if pools.len() >= limits::EXTENSION_POOLS {
            // Certificates of extensions change rarely: who filled this up is gone, or pays for it with new handshakes.
            pools.clear();
        }
        pools.insert(key, pool.clone());
        Ok(pool)
    }
}

impl Destination {
    /// Reads `clientConfig` of a webhook, or of a conversion.
    pub(crate) fn of_webhook(config: &Value) -> Result<Self, CallError> {
        let trust = Trust::of_bundle(&config["caBundle"]);
        if let Some(url) = config["url"].as_str() {
            let wrong = |error: &dyn std::fmt::Display| {
                CallError::Misconfigured(format!("unable to load webhook URL {url:?}: {error}"))
            };
            let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
            if uri.scheme_str() != Some("https") || uri.authority().is_none() {
                return Err(wrong(&"it must be https"));
            }
            return Ok(Self { uri, route: Route::Host, trust, as_proxy: false });
        }
        let service = &config["service"];
        let text = |field: &str| service[field].as_str().unwrap_or_default();
        let port = service["port"].as_u64().unwrap_or(443);
        let path = text("path");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let place =
            format!("{}:{port}{slash}{path}", service_host(text("namespace"), text("name")));
        Self::at_service(&place, trust)
    }

    /// Reads the `spec` of an APIService.
    pub(crate) fn of_api_service(spec: &Value) -> Result<Self, CallError> {
        let trust = if spec["insecureSkipTLSVerify"] == true {
            Trust::Anybody
        } else {
            Trust::of_bundle(&spec["caBundle"])
        };
        let service = &spec["service"];
        let text = |field: &str| service[field].as_str().unwrap_or_default();
        let port = service["port"].as_u64().unwrap_or(443);
        let place = format!("{}:{port}/", service_host(text("namespace"), text("name")));
        Ok(Self { as_proxy: true, ..Self::at_service(&place, trust)? })
    }

    fn at_service(place: &str, trust: Trust) -> Result<Self, CallError> {
        let uri = format!("https://{place}").parse().map_err(|error| {
            CallError::Misconfigured(format!("unable to use service address {place:?}: {error}"))
        })?;
        Ok(Self { uri, route: Route::Service, trust, as_proxy: false })
    }

    /// A path at this place, for messages.
    pub(crate) fn shown(&self, path: &str) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("https://{authority}{path}")
    }

    /// Another path at the same place.
    pub(crate) fn at(&self, path: &str) -> Result<Uri, CallError> {
        let mut parts = self.uri.clone().into_parts();
        let wrong = |error: &dyn std::fmt::Display| CallError::Misconfigured(error.to_string());
        parts.path_and_query = Some(path.parse().map_err(|error| wrong(&error))?);
        Uri::from_parts(parts).map_err(|error| wrong(&error))
    }

    /// Tells the webhook how long we wait, as upstream does.
    fn with_timeout(&self, timeout: Duration) -> Uri {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{join}timeout={}s", timeout.as_secs());
        self.at(&path).unwrap_or_else(|_| self.uri.clone())
    }
}

/// The name that the certificates of a service's servers bear.
fn service_host(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.svc")
}

/// What went wrong in the end: what stands around it says only that something did.
fn innermost(error: &hyper_util::client::legacy::Error) -> String {
    let mut found: &dyn std::error::Error = error;
    while let Some(source) = found.source() {
        found = source;
    }
    match found.to_string().as_str() {
        "connection closed before message completed" => "EOF".to_owned(),
        other => other.to_owned(),
    }
}

/// What upstream's client makes of an answer that is no success.
fn refusal(code: StatusCode, body: &[u8]) -> String {
    let status = serde_json::from_slice::<Value>(body).unwrap_or_default();
    if status["kind"] == "Status"
        && let Some(message) = status["message"].as_str()
    {
        return message.chars().take(limits::QUOTED_CHARS).collect();
    }
    let known = match code.as_u16() {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 => "the server does not allow access to the requested resource",
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        409 => "the server reported a conflict",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    if !code.is_server_error() {
        let code = code.as_u16();
        return format!(
            "the server responded with the status code {code} but did not return more information"
        );
    }
    let said: String =
        String::from_utf8_lossy(body).trim().chars().take(limits::QUOTED_CHARS).collect();
    let said = if said.is_empty() { "unknown".to_owned() } else { said };
    let mut message = String::new();
    // Writing into a string cannot fail.
    let _ = write!(
        message,
        "an error on the server ({said:?}) has prevented the request from succeeding"
    );
    message
}

/// Shared by all that call.
pub(crate) type Extensions = Arc<ExtensionClient>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_destination_is_a_url_or_a_service() {
        let at = |config: Value| {
            let destination = Destination::of_webhook(&config).unwrap();
            destination.with_timeout(Duration::from_secs(10)).to_string()
        };
        assert_eq!(at(json!({ "url": "https://h:1/p" })), "https://h:1/p?timeout=10s");
        let service =
            json!({ "service": { "namespace": "n", "name": "s", "port": 443, "path": "p" } });
        assert_eq!(at(service), "https://s.n.svc:443/p?timeout=10s");
        let plain = json!({ "service": { "namespace": "n", "name": "s" } });
        assert_eq!(at(plain), "https://s.n.svc:443/?timeout=10s");
        for wrong in ["http://h/", "h", "", "https://"] {
            assert!(Destination::of_webhook(&json!({ "url": wrong })).is_err(), "{wrong}");
        }
    }

    #[test]
    fn refusals_are_told_in_the_words_of_upstreams_client() {
        let tell =
            |code: u16, body: &str| refusal(StatusCode::from_u16(code).unwrap(), body.as_bytes());
        assert_eq!(tell(404, "nope"), "the server could not find the requested resource");
        assert_eq!(
            tell(500, ""),
            r#"an error on the server ("unknown") has prevented the request from succeeding"#
        );
        assert_eq!(tell(500, r#"{"kind":"Status","message":"why"}"#), "why");
        assert_eq!(
            tell(302, ""),
            "the server responded with the status code 302 but did not return more information"
        );
    }
}
