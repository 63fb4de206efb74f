//! `ConversionReview`: what a conversion webhook is asked, and what its answer means. Pure.
//!
//! Answers come from programs of others, so nothing in them is believed. As upstream
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go>).

use coracle_api::kinds::split_api_version;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Map, Value, json};

use crate::extension::ReviewVersion;
use crate::limits;
use crate::object::meta;
use crate::rules::checks;
use crate::rules::metadata;

const fn api_version_of(version: ReviewVersion) -> &'static str {
    match version {
        ReviewVersion::V1 => "apiextensions.k8s.io/v1",
        ReviewVersion::V1beta1 => "apiextensions.k8s.io/v1beta1",
    }
}

/// The question, as it goes over the wire.
pub(super) fn question(version: ReviewVersion, uid: &str, objects: &[&Value], to: &str) -> Value {
    json!({
        "kind": "ConversionReview",
        "apiVersion": api_version_of(version),
        "request": { "uid": uid, "desiredAPIVersion": to, "objects": objects },
    })
}

/// The objects in the answer, not looked at yet; or why there are none.
pub(super) fn answered(
    version: ReviewVersion,
    uid: &str,
    answer: &[u8],
) -> Result<Vec<Value>, String> {
    let mut review: Value = serde_json::from_slice(answer)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
    let text = |field: &str| review[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if (api_version, kind) != (api_version_of(version), "ConversionReview") {
        return Err(format!(
            "expected webhook response of {}, got {}",
            gvk(api_version_of(version), "ConversionReview"),
            gvk(&quoted(api_version), &quoted(kind))
        ));
    }
    let response = &mut review["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let found = response["uid"].as_str().unwrap_or_default();
    if version == ReviewVersion::V1 && found != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", quoted(found)));
    }
    let result = &response["result"];
    let status = result["status"].as_str().unwrap_or_default();
    if status != "Success" {
        let message = result["message"].as_str().unwrap_or_default();
        return Err(if message.is_empty() {
            format!("response.result.status was '{}', not 'Success'", quoted(status))
        } else {
            quoted(message)
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// What is wrong with a converted object, and how messages tell it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is of another version or kind than was asked for.
    Kind(String),
    /// It is another object.
    Identity(String),
    /// Its metadata cannot be used.
    Metadata(String),
}

impl Fault {
    /// As upstream tells it: about an object that was asked for alone, or about one of several.
    pub(super) fn message(&self, index: usize, count: usize) -> String {
        match (self, count) {
            (Self::Kind(why), 1) => format!("invalid object at index 0: {why}"),
            (Self::Identity(why), 1) => format!("invalid object: {why}"),
            (Self::Metadata(why), 1) => format!("invalid metadata: {why}"),
            (Self::Kind(why) | Self::Identity(why), _) => {
                format!("invalid converted object at index {index}: {why}")
            }
            (Self::Metadata(why), _) => {
                format!("invalid metadata in object at index {index}: {why}")
            }
        }
    }
}

/// Checks one converted object, and gives it the metadata that conversions may not touch.
pub(super) fn accept(original: &Value, mut converted: Value, to: &str) -> Result<Value, Fault> {
    let text = |object: &Value, field: &str| {
        quoted(object.get(field).and_then(Value::as_str).unwrap_or_default())
    };
    let found = text(&converted, "apiVersion");
    if found != to {
        let why = format!("invalid groupVersion (expected {to}, received {found})");
        return Err(Fault::Kind(why));
    }
    let (expected, found) = (text(original, "kind"), text(&converted, "kind"));
    if expected != found {
        let why = format!("invalid kind (expected {expected}, received {found})");
        return Err(Fault::Kind(why));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, found) = (meta(original, field), meta(&converted, field));
        if expected != found {
            let why = format!("must have the same {name}: {expected} != {}", quoted(found));
            return Err(Fault::Identity(why));
        }
    }
    let metadata = restored(&original["metadata"], &converted["metadata"]);
    let metadata = metadata.map_err(Fault::Metadata)?;
    converted["metadata"] = metadata;
    Ok(converted)
}

/// The original metadata with the labels and annotations of the converted object.
fn restored(original: &Value, converted: &Value) -> Result<Value, String> {
    let Some(converted) = converted.as_object() else {
        return Err("missing metadata in converted object".to_owned());
    };
    let mut metadata = original.as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match converted.get(field) {
            None | Some(Value::Null) => drop(metadata.remove(field)),
            Some(Value::Object(wanted)) => {
                check_texts(field, wanted)?;
                if metadata.get(field).and_then(Value::as_object) != Some(wanted) {
                    check_form(field, &converted[field])?;
                }
                metadata.insert(field.to_owned(), Value::Object(wanted.clone()));
            }
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{field} of type {} in converted object",
                    go_type(other)
                ));
            }
        }
    }
    Ok(Value::Object(metadata))
}

fn check_texts(field: &str, values: &Map<String, Value>) -> Result<(), String> {
    match values.iter().find(|(_, value)| !value.is_string()) {
        None => Ok(()),
        Some((key, value)) => Err(format!(
            "metadata.{field}[{}] must be a string, but is {} in converted object",
            quoted(key),
            go_type(value)
        )),
    }
}

fn check_form(field: &str, values: &Value) -> Result<(), String> {
    let mut errors = FieldErrors::new();
    let path = Path::new("metadata");
    match field {
        "labels" => checks::labels(values, &path.child("labels"), &mut errors),
        _ => metadata::annotations(values, &path.child("annotation"), &mut errors),
    }
    if errors.is_empty() { Ok(()) } else { Err(quoted(&errors.to_string())) }
}

/// As Go prints a `GroupVersionKind`.
pub(super) fn gvk(api_version: &str, kind: &str) -> String {
    let (group, version) = split_api_version(api_version);
    format!("{group}/{version}, Kind={kind}")
}

/// What a webhook says, as far as messages repeat it.
fn quoted(text: &str) -> String {
    text.chars().take(limits::QUOTED_CHARS).collect()
}

/// How Go names the type of a value out of JSON.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: &str = "x.io/v2";

    fn original() -> Value {
        json!({ "apiVersion": "x.io/v1", "kind": "A", "metadata": {
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": { "k": "v" } } })
    }

    fn answer(response: Value) -> Value {
        json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response })
    }

    #[test]
    fn an_answer_must_be_one_to_the_question() {
        let read = |answer: Value| answered(ReviewVersion::V1, "u1", answer.to_string().as_bytes());
        let good =
            json!({ "uid": "u1", "result": { "status": "Success" }, "convertedObjects": [1] });
        assert_eq!(read(answer(good.clone())), Ok(vec![json!(1)]));
        let mut old = answer(good);
        old["apiVersion"] = json!("apiextensions.k8s.io/v1beta1");
        for (answer, why) in [
            (
                old,
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got \
                 apiextensions.k8s.io/v1beta1, Kind=ConversionReview",
            ),
            (answer(Value::Null), "no response provided"),
            (answer(json!({ "uid": "u2" })), r#"expected response.uid="u1", got "u2""#),
            (
                answer(json!({ "uid": "u1", "result": { "status": "Failed", "message": "no" } })),
                "no",
            ),
            (
                answer(json!({ "uid": "u1", "result": { "status": "Failed" } })),
                "response.result.status was 'Failed', not 'Success'",
            ),
        ] {
            assert_eq!(read(answer), Err(why.to_owned()));
        }
        let beta = json!({ "apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "ConversionReview",
            "response": { "result": { "status": "Success" } } });
        assert_eq!(answered(ReviewVersion::V1beta1, "u1", beta.to_string().as_bytes()), Ok(vec![]));
    }

    #[test]
    fn only_labels_and_annotations_of_the_metadata_change() {
        let mut converted = original();
        converted["apiVersion"] = json!(TO);
        converted["metadata"]["resourceVersion"] = json!("8");
        converted["metadata"]["finalizers"] = json!(["mine"]);
        converted["metadata"]["labels"] = json!({ "l": "w" });
        converted["metadata"]["annotations"] = json!({ "a": "b" });
        let accepted = accept(&original(), converted, TO).unwrap();
        let metadata = json!({ "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "labels": { "l": "w" }, "annotations": { "a": "b" } });
        assert_eq!(accepted["metadata"], metadata);
    }

    #[test]
    fn a_converted_object_is_the_same_object() {
        for (place, value, why) in [
            (
                "/apiVersion",
                json!("x.io/v1"),
                "invalid object at index 0: invalid groupVersion (expected x.io/v2, received x.io/v1)",
            ),
            (
                "/kind",
                json!("B"),
                "invalid object at index 0: invalid kind (expected A, received B)",
            ),
            ("/metadata/name", json!("b"), "invalid object: must have the same name: a != b"),
            (
                "/metadata/namespace",
                json!("m"),
                "invalid object: must have the same namespace: n != m",
            ),
            ("/metadata/uid", json!("w"), "invalid object: must have the same UID: u != w"),
            (
                "/metadata/labels",
                json!([]),
                "invalid metadata: invalid metadata.labels of type []interface {} in converted object",
            ),
            (
                "/metadata/labels",
                json!({ "k": 1 }),
                "invalid metadata: metadata.labels[k] must be a string, but is int64 in converted object",
            ),
        ] {
            let mut converted = original();
            converted["apiVersion"] = json!(TO);
            *converted.pointer_mut(place).unwrap() = value;
            let fault = accept(&original(), converted, TO).unwrap_err();
            assert_eq!(fault.message(0, 1), why);
        }
        let mut bare = original();
        bare["apiVersion"] = json!(TO);
        bare["metadata"]["labels"] = json!({ "not a key": "v" });
        let fault = accept(&original(), bare, TO).unwrap_err();
        let why = fault.message(3, 5);
        let start =
            "invalid metadata in object at index 3: metadata.labels: Invalid value: \"not a key\"";
        assert!(why.starts_with(start), "{why}");
    }
}
