//! Objects in JSON, decoded by the schema of their kind.

use coracle_api::decode::{self, FieldValidation};
use coracle_api::kinds;
use serde_json::Value;

/// What is accepted is in its canonical form: read again, it is the same.
pub fn run(bytes: &[u8]) {
    let _ = decode::parse(bytes);
    let Some((kind, body)) =
        kinds::all().get(usize::from(bytes.first().copied().unwrap_or(0))).zip(bytes.get(1..))
    else {
        return;
    };
    let Ok(decoded) = decode::decode(kind, body, FieldValidation::Warn) else {
        return;
    };
    let text = decoded.value.to_string();
    let again = decode::decode(kind, text.as_bytes(), FieldValidation::Strict);
    let again =
        again.unwrap_or_else(|error| panic!("what was accepted is refused: {error}: {text}"));
    assert_eq!(again.value, decoded.value);
    let parsed: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(parsed, decoded.value);
}

const BODIES: &[(&str, &str, &str)] = &[
    (
        "",
        "Pod",
        r#"{"metadata":{"name":"a","labels":{"x":"y"},"creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"100m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"port":"http","path":"/"}}}],"tolerations":[{"key":"k","operator":"Exists"}]}}"#,
    ),
    (
        "",
        "ConfigMap",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m","annotations":{"a":"\u00e9\ud83d\ude00"}},"data":{"a":"b"},"binaryData":{"c":"AAEC"},"immutable":true}"#,
    ),
    (
        "apps",
        "Deployment",
        r#"{"metadata":{"name":"d","generation":3},"spec":{"replicas":2,"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},"selector":{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]},"template":{"spec":{"containers":[]}}}}"#,
    ),
    (
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        r#"{"metadata":{"name":"a.b"},"spec":{"group":"b","versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","properties":{"x":{"type":"integer","minimum":1e3,"enum":[1,2.5,null]}},"additionalProperties":false}}}]}}"#,
    ),
    (
        "coordination.k8s.io",
        "Lease",
        r#"{"metadata":{"name":"l"},"spec":{"renewTime":"2026-01-01T00:00:00.123456Z","leaseDurationSeconds":15,"holderIdentity":null}}"#,
    ),
];

/// A kind's place in the table, and an object.
pub fn seeds() -> Vec<Vec<u8>> {
    let place = |group: &str, name: &str| {
        kinds::all()
            .iter()
            .position(|kind| kind.group == group && kind.kind == name)
            .and_then(|at| u8::try_from(at).ok())
    };
    let seed = |(group, name, body): &(&str, &str, &str)| {
        Some([&[place(group, name)?], body.as_bytes()].concat())
    };
    BODIES.iter().filter_map(seed).collect()
}
