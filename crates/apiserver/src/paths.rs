//! Paths that are no objects: discovery, OpenAPI, version, health, metrics, and the keys of ServiceAccount tokens.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use coracle_api::status::Status;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::negotiate::{Offer, Representation};
use crate::query::Query;
use crate::server::Server;
use crate::{fairness, health};

/// The Kubernetes version whose API this is.
pub(crate) const GIT_VERSION: &str = "v1.37.0+coracle";

/// Answers a request for such a path. It is authenticated and authorized.
pub(crate) async fn answer(server: &Arc<Server>, parts: &Parts, query: &Query) -> Answer<Response> {
    let path = parts.uri.path();
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    if let Some(answer) = health::answer(server, path, query) {
        return answer;
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(if is_known(server, path) {
            Status::method_not_served()
        } else {
            Status::no_such_path()
        });
    }
    match path {
        "/" => Ok(json_answer(&json!({ "paths": known_paths(server) }))),
        "/version" => {
            let wanted = Representation::negotiate(&parts.headers, query, Offer::Plain)?;
            Ok(answer::plain(wanted.encoding, StatusCode::OK, &version()))
        }
        "/metrics" => {
            let text = server.metrics.encode(server);
            Ok(answer::with_type(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                text,
            ))
        }
        _ if path.starts_with("/debug/") => {
            let text =
                fairness::dump_at(&server.fairness, path).ok_or_else(Status::no_such_path)?;
            Ok(answer::with_type(StatusCode::OK, "text/plain; charset=utf-8", text))
        }
        "/openid/v1/jwks" => {
            let body = Bytes::from(server.tokens.jwks().to_string());
            Ok(answer::with_type(StatusCode::OK, "application/jwk-set+json", body))
        }
        "/.well-known/openid-configuration" => Ok(json_answer(
            &server.tokens.openid_configuration(&format!("https://{}", server.advertise)),
        )),
        _ if path.starts_with("/openapi/") => {
            server.openapi.answer(server, path, &parts.headers).await
        }
        _ => {
            let offered = (server.kinds.snapshot(), server.aggregator.remotes());
            server.discovery.answer((&offered.0, &offered.1), path, &parts.headers)
        }
    }
}

fn json_answer(value: &Value) -> Response {
    answer::json_response(StatusCode::OK, Bytes::from(value.to_string()))
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

/// The architecture in Go's words, which clients know.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn is_known(server: &Server, path: &str) -> bool {
    known_paths(server).iter().any(|known| known == path)
}

fn known_paths(server: &Server) -> Vec<String> {
    let mut paths: Vec<String> =
        ["/.well-known/openid-configuration", "/api", "/apis"].map(str::to_owned).into();
    let kinds = server.kinds.snapshot();
    for version in kinds.group_versions() {
        if !version.group.is_empty() && !paths.contains(&format!("/apis/{}", version.group)) {
            paths.push(format!("/apis/{}", version.group));
        }
        paths.push(coracle_api::kinds::root_path(version.group, version.version));
    }
    paths.extend(
        [
            "/debug/api_priority_and_fairness/dump_priority_levels",
            "/debug/api_priority_and_fairness/dump_queues",
            "/debug/api_priority_and_fairness/dump_requests",
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    paths.sort();
    paths
}
