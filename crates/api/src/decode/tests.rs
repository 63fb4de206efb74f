use serde_json::json;

use super::*;

fn pod() -> &'static Kind {
    kinds::by_kind("", "v1", "Pod").unwrap()
}

fn deployment() -> &'static Kind {
    kinds::by_kind("apps", "v1", "Deployment").unwrap()
}

fn good(kind: &Kind, body: &str) -> Value {
    let decoded = decode(kind, body.as_bytes(), FieldValidation::Strict);
    decoded.unwrap_or_else(|error| panic!("{body}: {error}")).value
}

fn refused(kind: &Kind, body: &[u8], message: &str) {
    let error = decode(kind, body, FieldValidation::Strict).expect_err("it must be refused");
    let status = error.status();
    assert_eq!((status.code, status.message.as_str()), (400, message));
}

#[test]
fn objects_are_completed_and_brought_into_canonical_form() {
    let body = json!({
        "metadata": { "name": "web", "creationTimestamp": null, "labels": {} },
        "spec": {
            "containers": [{
                "name": "web",
                "env": [{ "name": "A", "value": null }],
                "ports": [],
                "resources": { "limits": { "cpu": 0.5, "memory": "1024Mi" } }
            }],
            "nodeSelector": null,
            "volumes": [{ "name": "scratch", "emptyDir": {} }]
        },
        "status": { "startTime": "2026-11-23T08:00:00.5+02:00" }
    });
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "web" },
        "spec": {
            "containers": [{
                "name": "web",
                "env": [{ "name": "A" }],
                "resources": { "limits": { "cpu": "500m", "memory": "1Gi" } }
            }],
            "volumes": [{ "name": "scratch", "emptyDir": {} }]
        },
        "status": { "startTime": "2026-11-23T06:00:00Z" }
    });
    assert_eq!(good(pod(), &body.to_string()), expected);
}

#[test]
fn decoding_is_idempotent() {
    let body = r#"{"metadata":{"name":"a\u00e9\ud83d\ude00\n","annotations":{"k":"v/\/"}},"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"1.5"}}}]}}"#;
    let once = good(pod(), body);
    assert_eq!(once["metadata"]["name"], "aé😀\n");
    assert_eq!(good(pod(), &once.to_string()), once);
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let body = r#"{"spec":{"replicas":1,"replicas":2,"foo":{"bar":[1]},"template":{"spec":{"containers":[{"name":"a"},{"name":"b","imagge":"x"}]}}},"metadata":{"labels":{"a":"b","a":"c"}},"bar":1}"#;
    let findings = [
        r#"duplicate field "spec.replicas""#,
        r#"unknown field "spec.foo""#,
        r#"unknown field "spec.template.spec.containers[1].imagge""#,
        r#"duplicate field "metadata.labels.a""#,
        r#"unknown field "bar""#,
    ];
    let warned = decode(deployment(), body.as_bytes(), FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, findings);
    assert_eq!(warned.value["spec"]["replicas"], 2);
    assert_eq!(warned.value["metadata"]["labels"]["a"], "c");
    assert!(warned.value["spec"].get("foo").is_none() && warned.value.get("bar").is_none());
    let ignored = decode(deployment(), body.as_bytes(), FieldValidation::Ignore).unwrap();
    assert_eq!((ignored.warnings.len(), ignored.value), (0, warned.value));
    let message = format!(
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
        findings.join(", ")
    );
    refused(deployment(), body.as_bytes(), &message);
}

#[test]
fn wrong_types_are_worded_as_go_words_them() {
    let cases = [
        (
            r#"{"spec":{"replicas":"3"}}"#,
            "string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (r#"{"spec":[]}"#, "array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            "object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"value":true}]}]}}}}"#,
            "bool into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"spec":{"paused":"yes","replicas":"3"}}"#,
            "string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
    ];
    for (body, message) in cases {
        let message = format!(
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal {message}"
        );
        refused(deployment(), body.as_bytes(), &message);
    }
}

#[test]
fn values_with_a_form_of_their_own_are_checked() {
    let cases = [
        (
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"metadata":{"creationTimestamp":"today"}}"#,
            r#"parsing time "today" as "2006-01-02T15:04:05Z07:00": cannot parse "today" as "2006""#,
        ),
    ];
    for (body, message) in cases {
        refused(
            pod(),
            body.as_bytes(),
            &format!("Pod in version \"v1\" cannot be handled as a Pod: {message}"),
        );
    }
    let secret = kinds::by_kind("", "v1", "Secret").unwrap();
    let message = "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 3";
    refused(secret, br#"{"data":{"a":"abc!"}}"#, message);
    assert_eq!(
        good(secret, r#"{"data":{"a":"YWJj\nZGVm","b":null}}"#)["data"],
        json!({ "a": "YWJjZGVm", "b": "" })
    );
}

#[test]
fn text_that_is_no_json_is_explained() {
    let cases: [(&[u8], &str, &str); 9] = [
        (b"", "unexpected end of JSON input", "<empty>"),
        (b"{\"a\":", "unexpected end of JSON input", "{\"a\":"),
        (b"{\"a\" 1}", "invalid character '1' after object key", "{\"a\" 1}"),
        (b"{a:1}", "invalid character 'a' looking for beginning of object key string", "{a:1}"),
        (b"{\"a\":1 2}", "invalid character '2' after object key:value pair", "{\"a\":1 2}"),
        (b"{}x", "invalid character 'x' after top-level value", "{}x"),
        (b"{\"a\":01}", "invalid character '1' after object key:value pair", "{\"a\":01}"),
        (b"{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')", "{\"a\":tru}"),
        (b"{\"a\":\"\x01\"}", "invalid character '\\x01' in string literal", "{\"a\":\"\x01\"}"),
    ];
    for (body, cause, summary) in cases {
        let message = format!(
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: \
             {cause} ({summary})"
        );
        refused(pod(), body, &message);
    }
}

#[test]
fn roots_that_are_no_objects_are_refused() {
    for (body, found) in [("[]", "array"), ("\"a\"", "string"), ("7", "number"), ("true", "bool")] {
        let error = decode(pod(), body.as_bytes(), FieldValidation::Ignore).unwrap_err();
        let start = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value"
        );
        assert!(error.cause().starts_with(&start), "{error}");
    }
}

#[test]
fn other_kinds_and_versions_are_refused() {
    refused(
        pod(),
        br#"{"apiVersion":"v1","kind":"Service","spec":{"containers":1}}"#,
        "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion",
    );
    refused(
        pod(),
        br#"{"apiVersion":"v2","kind":"Pod"}"#,
        "Pod in version \"v2\" cannot be handled as a Pod: no kind \"Pod\" is registered for version \"v2\" in scheme \
         \"pkg/api/legacyscheme/scheme.go:30\"",
    );
    refused(
        kinds::by_kind("events.k8s.io", "v1", "Event").unwrap(),
        br#"{"apiVersion":"v1","kind":"Event"}"#,
        "the API version in the data (v1) does not match the expected API version (events.k8s.io/v1)",
    );
}

#[test]
fn deep_nesting_is_refused_without_overflowing_the_stack() {
    let nested = |depth: usize| {
        let inner = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"data":{inner}}}"#).into_bytes()
    };
    let kind = kinds::by_kind("apps", "v1", "ControllerRevision").unwrap();
    let good = decode(kind, &nested(MAX_DEPTH - 1), FieldValidation::Strict).unwrap();
    let as_item = json!({ "type": "ADDED", "object": { "items": [good.value] } }).to_string();
    assert!(
        serde_json::from_str::<Value>(&as_item).is_ok(),
        "whatever we accept, serde_json reads in a list"
    );
    for depth in [MAX_DEPTH, 1_000, 1_000_000] {
        let error = decode(kind, &nested(depth), FieldValidation::Strict).unwrap_err();
        assert!(error.cause().ends_with("invalid character '[' exceeded max depth"), "{error}");
    }
    let unknown = format!(r#"{{"x":{}"#, r#"{"x":"#.repeat(1_000_000));
    assert!(decode(kind, unknown.as_bytes(), FieldValidation::Ignore).is_err());
}

#[test]
fn objects_without_schema_keep_everything_but_wrong_metadata() {
    let body = br#"{"apiVersion":"example.com/v1","kind":"Boat","metadata":{"name":"a","colour":"red"},"spec":{"x":null}}"#;
    let decoded = decode_body("example.com", "v1", "Boat", body, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, [r#"unknown field "metadata.colour""#]);
    assert_eq!(decoded.value["spec"], json!({ "x": null }));
    let wrong = br#"{"kind":"Boat","metadata":{"name":1}}"#;
    assert!(decode_body("example.com", "v1", "Boat", wrong, FieldValidation::Warn).is_err());
}

#[test]
fn recursive_schemas_and_either_ors_are_followed() {
    let kind = kinds::by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let schema = json!({
        "type": "object",
        "properties": {
            "a": { "type": "array", "items": { "type": "string", "default": null, "oops": 1 } },
            "b": { "additionalProperties": true, "x-kubernetes-int-or-string": true }
        }
    });
    let body = json!({ "spec": { "versions": [{ "name": "v1", "schema": { "openAPIV3Schema": schema } }] } });
    let decoded = decode(kind, body.to_string().as_bytes(), FieldValidation::Warn).unwrap();
    let path = "spec.versions[0].schema.openAPIV3Schema.properties.a.items.oops";
    assert_eq!(decoded.warnings, [format!("unknown field \"{path}\"")]);
    let properties =
        &decoded.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert_eq!(properties["a"]["items"], json!({ "type": "string" }));
    assert_eq!(properties["b"]["additionalProperties"], true);
}

#[test]
fn a_patch_that_breaks_the_object_is_unprocessable() {
    let broken = json!({ "spec": { "replicas": "x" } });
    let error = check(deployment(), &broken, FieldValidation::Strict).unwrap_err();
    let status = error.patch_status(&broken.to_string());
    assert_eq!(status.code, 422);
    assert_eq!(
        status.message,
        " \"\" is invalid: patch: Invalid value: \"{\\\"spec\\\":{\\\"replicas\\\":\\\"x\\\"}}\": json: cannot unmarshal \
         string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
        let _ = decode(pod(), &bytes, FieldValidation::Strict);
    }

    #[test]
    fn no_mangled_object_makes_the_decoder_panic(at in 0usize..200, byte: u8) {
        let mut bytes = br#"{"metadata":{"name":"a","labels":{"x":"\u00e9\ud83d\ude00"}},"spec":{"containers":[{"name":"b","resources":{"limits":{"cpu":1e-3}},"ports":[{"containerPort":-0}]}]},"status":{"startTime":"2026-11-23T08:00:00Z"}}"#.to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = decode(pod(), &bytes, FieldValidation::Strict);
    }
}
