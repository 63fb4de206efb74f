//! `/healthz`, `/livez` and `/readyz`, as a whole and check by check.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use axum::response::Response;
use coracle_api::status::Status;
use http::StatusCode;

use crate::answer::{self, Answer};
use crate::query::Query;
use crate::server::Server;

/// One thing that may be wrong.
struct Check {
    name: &'static str,
    /// Whether it decides only about readiness: a server that shuts down is alive.
    readiness_only: bool,
    passes: fn(&Server) -> bool,
}

const CHECKS: &[Check] = &[
    Check { name: "ping", readiness_only: false, passes: |_| true },
    Check { name: "log", readiness_only: false, passes: |_| true },
    // Upstream's name for the store.
    Check {
        name: "etcd",
        readiness_only: false,
        passes: |server| {
            server.store.list(&coracle_store::Range::all("namespaces"), None, None, Some(1)).is_ok()
        },
    },
    Check {
        name: "poststarthook/rbac/bootstrap-roles",
        readiness_only: false,
        passes: is_bootstrapped,
    },
    Check {
        name: "poststarthook/scheduling/bootstrap-system-priority-classes",
        readiness_only: false,
        passes: is_bootstrapped,
    },
    Check {
        name: "poststarthook/start-service-ip-repair-controllers",
        readiness_only: false,
        passes: is_bootstrapped,
    },
    Check {
        name: "shutdown",
        readiness_only: true,
        passes: |server| !server.shutdown.is_cancelled(),
    },
];

fn is_bootstrapped(server: &Server) -> bool {
    server.ready.load(Ordering::Acquire)
}

/// Answers `/healthz…`; `None` when the path is none of ours.
pub(crate) fn answer(server: &Server, path: &str, query: &Query) -> Option<Answer<Response>> {
    let (endpoint, check) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    let applies = |check: &Check| endpoint == "readyz" || !check.readiness_only;
    if check.is_empty() {
        return Some(Ok(summary(
            server,
            endpoint,
            query,
            CHECKS.iter().filter(|check| applies(check)),
        )));
    }
    let found = CHECKS.iter().find(|candidate| candidate.name == check && applies(candidate));
    Some(match found {
        None => Err(Status::no_such_path()),
        Some(found) if (found.passes)(server) => Ok(text(StatusCode::OK, "ok".to_owned())),
        Some(_) => Ok(text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal server error: reason withheld".to_owned(),
        )),
    })
}

fn summary<'a>(
    server: &Server,
    endpoint: &str,
    query: &Query,
    checks: impl Iterator<Item = &'a Check>,
) -> Response {
    let mut report = String::new();
    let mut failed = false;
    for check in checks {
        // Writing to a String cannot fail.
        if query.all("exclude").any(|excluded| excluded == check.name) {
            writeln!(report, "[+]{} excluded: ok", check.name).ok();
        } else if (check.passes)(server) {
            writeln!(report, "[+]{} ok", check.name).ok();
        } else {
            writeln!(report, "[-]{} failed: reason withheld", check.name).ok();
            failed = true;
        }
    }
    if failed {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{report}{endpoint} check failed\n"),
        );
    }
    if query.get("verbose").is_some() {
        return text(StatusCode::OK, format!("{report}{endpoint} check passed\n"));
    }
    text(StatusCode::OK, "ok".to_owned())
}

fn text(code: StatusCode, body: String) -> Response {
    let mut response = answer::with_type(code, "text/plain; charset=utf-8", body);
    response
        .headers_mut()
        .insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}
