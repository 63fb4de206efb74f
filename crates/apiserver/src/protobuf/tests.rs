//! Messages written by hand, and by the messages of another implementation.

use coracle_api::kinds::{self, Kind};
use coracle_api::schema::{Schema, Shape, TypeId};
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::*;

/// Writes a message out of tags and payloads.
fn fields(parts: &[(u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, payload) in parts {
        bytes.push(u8::try_from(tag << 3 | 2).unwrap());
        bytes.push(u8::try_from(payload.len()).unwrap());
        bytes.extend_from_slice(payload);
    }
    bytes
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = fields(&[(1, api_version.as_bytes()), (2, kind.as_bytes())]);
    [MAGIC, &fields(&[(1, &type_meta), (2, raw), (3, b""), (4, b"")])].concat()
}

fn check(api_version: &str, kind: &str, raw: &[u8], expected: Value) {
    let json = to_json(&envelope(api_version, kind, raw)).unwrap();
    let mut expected = expected;
    expected["apiVersion"] = json!(api_version);
    expected["kind"] = json!(kind);
    assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), expected);
}

#[test]
fn objects_become_what_json_clients_write() {
    let metadata = fields(&[(1, b"a"), (2, b""), (3, b""), (8, b"")]);
    let data = fields(&[(1, b"key"), (2, b"value")]);
    check(
        "v1",
        "ConfigMap",
        &fields(&[(1, &metadata), (2, &data)]),
        json!({
            "metadata": { "name": "a" }, "data": { "key": "value" },
        }),
    );
    let secret = fields(&[(1, b"key"), (2, b"\xff\x00")]);
    check("v1", "Secret", &fields(&[(2, &secret)]), json!({ "data": { "key": "/wA=" } }));
}

#[test]
fn messages_that_json_shows_inline_are_unfolded() {
    // PodSpec.volumes[0] = { name, volumeSource: { emptyDir: {} } }
    let volume = fields(&[(1, b"v"), (2, &fields(&[(2, b"")]))]);
    let spec = fields(&[(1, &volume)]);
    check(
        "v1",
        "Pod",
        &fields(&[(2, &spec)]),
        json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }] } }),
    );
}

#[test]
fn delete_options_are_read_in_every_group() {
    // gracePeriodSeconds: 0 is a wish of its own.
    let options = [&[0x08, 0x00][..], &fields(&[(4, b"Background")])].concat();
    let expected = json!({ "gracePeriodSeconds": 0, "propagationPolicy": "Background" });
    check("v1", "DeleteOptions", &options, expected.clone());
    check("apps/v1", "DeleteOptions", &options, expected);
}

#[test]
fn zeros_stay_where_they_say_something() {
    // Not paused, as Go's encoder spells out; no replicas, and a surge of 0, both pointers.
    let surge = fields(&[(2, &[0x08, 0x00, 0x10, 0x00, 0x1a, 0x00])]);
    let strategy = fields(&[(1, b"RollingUpdate"), (2, &surge)]);
    let spec = [&[0x08, 0x00][..], &fields(&[(4, &strategy)]), &[0x38, 0x00]].concat();
    let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0 } });
    let expected = json!({ "spec": { "replicas": 0, "strategy": rolling } });
    check("apps/v1", "Deployment", &fields(&[(2, &spec)]), expected);
    // A default that is false, and a ban on further properties.
    let additional = [0xf2, 0x01, 2, 0x08, 0x00];
    let schema = [&fields(&[(8, &fields(&[(1, b"false")]))])[..], &additional].concat();
    let version = fields(&[(1, b"v1"), (4, &fields(&[(1, &schema)]))]);
    let expected = json!({ "default": false, "additionalProperties": false });
    let versions = json!([{ "name": "v1", "schema": { "openAPIV3Schema": expected } }]);
    check(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        &fields(&[(2, &fields(&[(7, &version)]))]),
        json!({ "spec": { "versions": versions } }),
    );
}

#[test]
fn damaged_bodies_are_refused() {
    let whole = envelope("v1", "ConfigMap", &fields(&[(1, &fields(&[(1, b"a")]))]));
    for length in 0..whole.len() {
        // Cut between two fields it is another message; cut anywhere else it is none.
        if let Err(status) = to_json(&whole[..length]) {
            assert_eq!(status.code, 400, "{length}");
        }
    }
    assert_eq!(to_json(&whole[..8]).err().unwrap().code, 400);
    assert_eq!(to_json(&envelope("v1", "Nothing", b"")).err().unwrap().code, 400);
}

/// Makes up a value of a type: deep ones become rare, and nothing is empty or zero, which messages cannot tell from absent.
struct Maker(rand::rngs::StdRng);

impl Maker {
    fn value(&mut self, type_id: TypeId, depth: u32) -> Option<Value> {
        let schema = Schema::get();
        Some(match &schema.type_(type_id).shape {
            Shape::String => json!(format!("text-{}-ß", self.0.random_range(0..1000))),
            Shape::Int32 => json!(self.0.random_range(1..i32::MAX)),
            Shape::Int64 => json!(-self.0.random_range(1..i64::MAX)),
            Shape::Number => json!(f64::from(self.0.random_range(1..1000)) + 0.25),
            Shape::Bool => json!(true),
            Shape::Bytes => json!("/wAB"),
            Shape::IntOrString => {
                if self.0.random() {
                    json!(-80)
                } else {
                    json!("http")
                }
            }
            Shape::Quantity => json!("1500m"),
            Shape::Time => json!("2026-11-23T06:00:01Z"),
            Shape::MicroTime => json!("2026-11-23T06:00:01.000002Z"),
            Shape::Any => json!({ "any": [1, { "thing": null }] }),
            Shape::List { item } => {
                let items: Vec<Value> = (0..self.0.random_range(1..4))
                    .filter_map(|_| self.value(*item, depth + 1))
                    .collect();
                if items.is_empty() {
                    return None;
                }
                Value::Array(items)
            }
            Shape::Map { value } => {
                json!({ "a": self.value(*value, depth + 1)?, "b/c.d": self.value(*value, depth + 1)? })
            }
            Shape::Object(fields) => {
                if depth > 7 {
                    return None;
                }
                let mut object = serde_json::Map::new();
                for field in fields.iter().filter(|field| !field.proto_tags.is_empty()) {
                    if self.0.random_range(0..=depth + 1) < 2
                        && let Some(value) = self.value(field.type_id, depth + 1)
                    {
                        object.insert(field.name.to_owned(), value);
                    }
                }
                Value::Object(object)
            }
            Shape::Either { object, other } => {
                let side = if self.0.random() { *object } else { *other };
                self.value(side, depth + 1)?
            }
        })
    }
}

fn round_trip(kind: &Kind, seed: u64) {
    let type_id = Schema::get().of(kind).unwrap();
    let mut object = Maker(rand::rngs::StdRng::seed_from_u64(seed)).value(type_id, 0).unwrap();
    object["apiVersion"] = json!(kind.api_version);
    object["kind"] = json!(kind.kind);
    let body = value(&object).unwrap().unwrap();
    let read: Value = serde_json::from_slice(&to_json(&body).unwrap()).unwrap();
    assert_eq!(read, object, "{}", kind.kind);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_read_back(seed: u64) {
        for kind in kinds::all() {
            round_trip(kind, seed);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let body = envelope("v1", "Pod", &bytes[..bytes.len().min(100)]);
        if let Err(status) = to_json(&body) {
            proptest::prop_assert_eq!(status.code, 400);
        }
    }
}

#[test]
fn values_that_are_long_get_long_lengths() {
    for length in [0, 1, 100, 127, 128, 20_000, 3_000_000] {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "long" }, "data": { "key": "x".repeat(length) },
        });
        let body = value(&map).unwrap().unwrap();
        let read: Value = serde_json::from_slice(&to_json(&body).unwrap()).unwrap();
        assert_eq!(read, map, "{length}");
    }
}

#[test]
fn nothing_is_written_for_null_and_for_what_has_no_message() {
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "creationTimestamp": null }, "data": null });
    let body = value(&map).unwrap().unwrap();
    assert_eq!(body, envelope("v1", "ConfigMap", &fields(&[(1, b"")])));
    assert!(value(&json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1" })).unwrap().is_none());
    assert!(value(&json!({ "gitVersion": "v1" })).unwrap().is_none());
    let wrong = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "a": 1 } });
    assert_eq!(value(&wrong).unwrap_err().code, 500);
}
