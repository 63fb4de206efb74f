use serde_json::json;

use super::*;
use crate::kinds;

fn deployments() -> &'static Kind {
    kinds::by_kind("apps", "v1", "Deployment").unwrap()
}

fn pods() -> &'static Kind {
    kinds::by_kind("", "v1", "Pod").unwrap()
}

/// The answer's code, reason and message, each as it goes over the wire.
fn check(status: Status, code: u16, reason: &str, message: &str) {
    let body = status.to_value();
    assert_eq!(body["message"], message);
    assert_eq!((&body["code"], &body["reason"]), (&json!(code), &json!(reason)), "{message}");
    assert_eq!((&body["status"], &body["kind"]), (&json!("Failure"), &json!("Status")));
}

#[test]
fn answers_about_objects_are_worded_as_upstreams() {
    let name = "web";
    check(Status::not_found(pods(), name), 404, "NotFound", r#"pods "web" not found"#);
    let group = r#"deployments.apps "web" not found"#;
    check(Status::not_found(deployments(), name), 404, "NotFound", group);
    let taken = r#"pods "web" already exists"#;
    check(Status::already_exists(pods(), name), 409, "AlreadyExists", taken);
    let generated =
        format!("{taken}, the server was not able to generate a unique name for the object");
    check(Status::generate_name_conflict(pods(), name), 409, "AlreadyExists", &generated);
    let modified = "Operation cannot be fulfilled on pods \"web\": the object has been modified; \
                    please apply your changes to the latest version and try again";
    check(Status::modified(pods(), name), 409, "Conflict", modified);
    check(Status::gone("gone"), 410, "Gone", "gone");
    check(Status::expired("too old"), 410, "Expired", "too old");
    check(Status::too_old(3, 7), 410, "Expired", "too old resource version: 3 (7)");
}

#[test]
fn refusals_are_worded_as_upstreams() {
    let why = "User \"jane\" cannot get resource";
    let none = GroupResource { group: "", resource: "" };
    let of_object = format!("pods \"web\" is forbidden: {why}");
    check(Status::forbidden(pods(), "web", why), 403, "Forbidden", &of_object);
    let of_kind = format!("pods is forbidden: {why}");
    check(Status::forbidden(pods(), "", why), 403, "Forbidden", &of_kind);
    check(Status::forbidden(none, "", why), 403, "Forbidden", &format!("forbidden: {why}"));
    check(Status::unauthorized(), 401, "Unauthorized", "Unauthorized");
    let verb = r#"watch is not supported on resources of kind "deployments.apps""#;
    check(Status::method_not_allowed(deployments(), "watch"), 405, "MethodNotAllowed", verb);
    let path = "the server could not find the requested resource";
    check(Status::no_such_path(), 404, "NotFound", path);
}

#[test]
fn answers_about_bodies_and_haste_are_worded_as_upstreams() {
    check(Status::bad_request("what"), 400, "BadRequest", "what");
    let offered = "only the following media types are accepted: application/json, text/plain";
    let types = ["application/json", "text/plain"];
    check(Status::not_acceptable(&types), 406, "NotAcceptable", offered);
    let read = "the body of the request was in an unknown format - accepted media types include: \
                application/json, text/plain";
    check(Status::unsupported_media_type(&types), 415, "UnsupportedMediaType", read);
    let large = "Request entity too large: limit is 3";
    check(Status::too_large(3), 413, "RequestEntityTooLarge", large);
    check(Status::too_many_requests("wait", 1), 429, "TooManyRequests", "wait");
    check(Status::timeout("slow", 0), 504, "Timeout", "Timeout: slow");
    let again =
        "The get operation against pods could not be completed at this time, please try again.";
    check(Status::server_timeout(pods(), "get", 2), 500, "ServerTimeout", again);
    check(Status::service_unavailable("later"), 503, "ServiceUnavailable", "later");
    check(Status::internal("boom"), 500, "InternalError", "Internal error occurred: boom");
}

#[test]
fn invalid_objects_name_each_field() {
    let mut errors = FieldErrors::new();
    let spec = Path::new("spec");
    errors.invalid(spec.child("replicas"), -1, "must be greater than or equal to 0");
    errors.required(spec.child("containers").index(0).child("image"), "");
    errors.not_supported(spec.child("restartPolicy"), "Maybe", &["Always", "Never"]);
    errors.duplicate(Path::new("metadata").child("labels").key("a"), "b");
    errors.forbidden(&spec, "updates are not allowed");
    errors.too_long("a", 63);
    errors.too_many("b", 5, 1);
    errors.not_found("c", "x");
    errors.invalid("d", serde_json::Value::Null, "");
    errors.invalid("e", json!({ "x": [1] }), "odd");
    errors.invalid("e", json!({ "x": [1] }), "odd");
    let words = [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        "spec.containers[0].image: Required value",
        r#"spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never""#,
        r#"metadata.labels[a]: Duplicate value: "b""#,
        "spec: Forbidden: updates are not allowed",
        "a: Too long: may not be more than 63 bytes",
        "b: Too many: 5: must have at most 1 item",
        r#"c: Not found: "x""#,
        r#"d: Invalid value: "null""#,
        r#"e: Invalid value: {"x":[1]}: odd"#,
    ];
    let status = Status::invalid(deployments(), "web", &errors);
    assert_eq!(
        status.message,
        format!("Deployment.apps \"web\" is invalid: [{}]", words.join(", "))
    );
    let body = status.to_value();
    assert_eq!((&body["code"], &body["reason"]), (&json!(422), &json!("Invalid")));
    assert_eq!(body["details"]["kind"], "Deployment");
    let expected = json!({
        "reason": "FieldValueInvalid",
        "message": "Invalid value: -1: must be greater than or equal to 0",
        "field": "spec.replicas"
    });
    assert_eq!(body["details"]["causes"][0], expected);
    assert_eq!(body["details"]["causes"].as_array().map(Vec::len), Some(11));
}

#[test]
fn one_error_stands_without_brackets() {
    let mut errors = FieldErrors::new();
    errors.required("metadata.name", "name or generateName is required");
    let status = Status::invalid(pods(), "", &errors);
    assert_eq!(
        status.message,
        r#"Pod "" is invalid: metadata.name: Required value: name or generateName is required"#
    );
}

#[test]
fn deletions_are_answered_with_what_is_gone() {
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": { "name": "web", "group": "apps", "kind": "deployments", "uid": "u" }
    });
    assert_eq!(Status::deleted(deployments(), "web", "u"), expected);
}

#[test]
fn text_is_quoted_as_go_quotes_it() {
    assert_eq!(go_quote("a\"b\\c\n\u{1}é\u{7f}"), r#""a\"b\\c\n\x01é\x7f""#);
}
