//! `GET …/pods/NAME/log`: read from the kubelet of the pod's node, and passed on as it comes.

use std::fmt::Write as _;

use axum::body::Body;
use axum::response::Response;
use coracle_api::status::{FieldErrors, Reason, Status};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use crate::answer::{self, Answer};
use crate::call::Call;
use crate::kubelet_client::Scheme;
use crate::node_address;
use crate::object::text;
use crate::storage;
use crate::websocket;

/// The words of `PodLogOptions` that the kubelet understands.
const OPTIONS: [&str; 9] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "insecureSkipTLSVerifyBackend",
    "stream",
];

/// What a kubelet may say about an error: more is cut off.
const ERROR_BYTES: usize = 64 * 1024;

/// Streams the log.
pub(super) async fn log(call: &mut Call) -> Answer<Response> {
    check_options(call)?;
    let key = storage::key(call.kind, call.namespace(), &call.target.name);
    let pod = call
        .server
        .store
        .get(&key)
        .ok_or_else(|| Status::not_found(call.kind, &call.target.name))?;
    let pod = storage::decode(&pod)?;
    let container =
        choose_container(&pod, call.query.get("container").unwrap_or_default(), &call.target.name)?;
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        // Nothing has run, so nothing was said.
        return tell(call, Body::empty());
    }
    let (host, port) = node_address::kubelet(&call.server.store, node)?;
    let path = format!(
        "/containerLogs/{}/{}/{container}{}",
        call.target.namespace,
        call.target.name,
        kubelet_query(call)
    );
    let url = format!("https://{host}:{port}{path}");
    let request = Request::get(&path).body(Body::empty()).map_err(Status::internal)?;
    let sent = call.server.kubelets.send(Scheme::KubeletHttps, &host, port, request).await;
    let response = sent.map_err(|error| error.status("Get", &url))?;
    if !response.status().is_success() {
        return Err(kubelet_refusal(call, response).await);
    }
    let body = super::proxy::until(response.into_body(), call.ends.clone());
    tell(call, body)
}

/// Answers with the log, in the form that the client wants.
fn tell(call: &mut Call, log: Body) -> Answer<Response> {
    if websocket::is_wanted(&call.headers) {
        return websocket::send(call, log);
    }
    let mut answer = answer::with_type(StatusCode::OK, "text/plain", log);
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(answer)
}

/// Which container is meant, or upstream's words about why none is.
fn choose_container(pod: &Value, wanted: &str, pod_name: &str) -> Answer<String> {
    let names = |list: &str| -> Vec<&str> {
        let containers =
            pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).map(Vec::as_slice);
        containers
            .unwrap_or_default()
            .iter()
            .filter_map(|container| container.get("name")?.as_str())
            .collect()
    };
    let (containers, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if wanted.is_empty() {
        if let ([only], [], []) = (containers.as_slice(), init.as_slice(), ephemeral.as_slice()) {
            return Ok((*only).to_owned());
        }
        if let ([only], _, []) = (containers.as_slice(), &init, ephemeral.as_slice()) {
            return Ok((*only).to_owned());
        }
        let mut message = format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            containers.join(" ")
        );
        // Writing to a String cannot fail.
        if !init.is_empty() {
            write!(message, " or one of the init containers: [{}]", init.join(" ")).ok();
        }
        if !ephemeral.is_empty() {
            write!(message, " or one of the ephemeral containers: [{}]", ephemeral.join(" ")).ok();
        }
        return Err(Status::bad_request(message));
    }
    if containers.iter().chain(&init).chain(&ephemeral).any(|name| *name == wanted) {
        return Ok(wanted.to_owned());
    }
    Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
}

fn check_options(call: &Call) -> Answer<()> {
    let mut errors = FieldErrors::new();
    for field in ["tailLines", "limitBytes", "sinceSeconds"] {
        let least = i64::from(field != "tailLines");
        if let Some(number) = call.query.number(field)?.filter(|&number| number < least) {
            errors.invalid(
                field,
                number,
                if least == 0 {
                    "must be greater than or equal to 0"
                } else {
                    "must be greater than 0"
                },
            );
        }
    }
    let has = |name| call.query.get(name).is_some_and(|value| !value.is_empty());
    if has("sinceSeconds") && has("sinceTime") {
        errors.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_kind("", "PodLogOptions", &call.target.name, &errors))
    }
}

/// The options again, as the kubelet's query.
fn kubelet_query(call: &Call) -> String {
    let mut query = String::new();
    for option in OPTIONS {
        if let Some(value) = call.query.get(option).filter(|value| !value.is_empty()) {
            query.push(if query.is_empty() { '?' } else { '&' });
            // Writing to a String cannot fail.
            write!(query, "{option}={}", percent_encode(value)).ok();
        }
    }
    query
}

pub(super) fn percent_encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

/// The kubelet's refusal, in the Status that upstream makes of it.
async fn kubelet_refusal(call: &Call, response: Response) -> Status {
    let code = response.status();
    let body = Limited::new(response.into_body(), ERROR_BYTES)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&body).trim_end().to_owned();
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(said),
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(said),
        StatusCode::NOT_FOUND => {
            let mut status = Status::new(404, Reason::NotFound, "");
            status.message = format!(
                "the server could not find the requested resource ( pods/log {})",
                call.target.name
            );
            if !said.is_empty() {
                status.message = said;
            }
            status
        }
        code => Status::new(code.as_u16(), Reason::Unknown, said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(wanted: &str, expected: Result<&str, &str>) {
        let pod = json!({ "spec": {
            "initContainers": [{ "name": "prepare" }],
            "containers": [{ "name": "a" }, { "name": "b" }],
        } });
        let chosen = choose_container(&pod, wanted, "web").map_err(|status| status.message);
        assert_eq!(chosen.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_container_is_chosen_or_asked_for_in_upstreams_words() {
        check("a", Ok("a"));
        check("prepare", Ok("prepare"));
        check("c", Err("container c is not valid for pod web"));
        check(
            "",
            Err(
                "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [prepare]",
            ),
        );
    }
}
