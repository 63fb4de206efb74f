//! Patches of every form, on an object that has lists of each sort.

use coracle_api::apply::{Apply, FieldSet, Managed, Manager, Operation, TypeRef, apply, validate};
use coracle_api::decode::{self, FieldValidation};
use coracle_api::kinds::{self, Kind};
use coracle_api::patch;
use coracle_api::schema::Schema;
use serde_json::Value;

const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"a":"b"},"finalizers":["x/y"]},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"E","value":"1"}],"ports":[{"containerPort":80,"protocol":"TCP"}]},{"name":"d","image":"j"}],"volumes":[{"name":"v","emptyDir":{}}]}}}}"#;

fn subject() -> Option<(&'static Kind, Value)> {
    let kind = kinds::by_kind("apps", "v1", "Deployment")?;
    Some((kind, serde_json::from_str(DEPLOYMENT).ok()?))
}

/// A merge patch changes nothing when it is applied a second time.
pub fn run(bytes: &[u8]) {
    let Some((kind, object)) = subject() else { return };
    let _ = patch::json_patch(&object, bytes);
    if let Ok(merged) = patch::merge_patch(&object, bytes) {
        assert_eq!(patch::merge_patch(&merged, bytes).ok().as_ref(), Some(&merged));
    }
    if let Some(type_id) = Schema::get().of(kind)
        && let Ok(merged) = patch::strategic_merge_patch(type_id, &object, bytes)
    {
        let _ = decode::check(kind, &merged, FieldValidation::Warn);
        let _ = patch::strategic_merge_patch(type_id, &merged, bytes);
    }
}

/// What one applies twice is as it was after the first time, and owned as it was then.
pub fn run_apply(bytes: &[u8]) {
    let Some((kind, object)) = subject() else { return };
    let Ok(config) = decode::decode(kind, bytes, FieldValidation::Ignore) else { return };
    let type_ref = TypeRef::of(kind);
    if validate(type_ref, &config.value).is_err() {
        return;
    }
    let ignored = FieldSet::of_fields(&["status"]);
    let once = |live: &Value, managed: Managed| {
        apply(Apply {
            type_ref,
            live,
            config: &config.value,
            managed,
            manager: Manager {
                name: "fuzz".to_owned(),
                operation: Operation::Apply,
                api_version: "apps/v1".to_owned(),
                subresource: String::new(),
            },
            force: true,
            ignored: &ignored,
            now: "2026-01-01T00:00:00Z",
        })
    };
    let Ok(first) = once(&object, Managed::default()) else { return };
    let Ok(second) = once(&first.object, first.managed.clone()) else {
        panic!("refused when applied again: {}", config.value);
    };
    assert_eq!(second.object, first.object);
    assert_eq!(second.managed.to_json(), first.managed.to_json());
    let list = first.managed.to_json().unwrap_or(Value::Null);
    let read = Managed::read(&list).and_then(|managed| managed.to_json());
    assert_eq!(read.as_ref(), Some(&list));
}

pub fn seeds() -> Vec<Vec<u8>> {
    super::texts(&[
        r#"[{"op":"add","path":"/spec/template/spec/containers/-","value":{"name":"e"}},{"op":"move","from":"/metadata/labels/a","path":"/metadata/labels/c~1d~0"},{"op":"test","path":"/spec/replicas","value":1}]"#,
        r#"[{"op":"copy","from":"/spec","path":"/metadata/annotations"},{"op":"remove","path":"/spec/template/spec/containers/0"},{"op":"replace","path":"","value":{}}]"#,
        r#"{"metadata":{"labels":{"a":null,"c":"d"}},"spec":{"replicas":null,"template":{"spec":{"containers":[]}}}}"#,
        r#"{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"c","env":[{"name":"E","$patch":"delete"}]},{"$patch":"replace"},{"name":"x"}],"$retainKeys":["containers"]}}}}"#,
        r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/y"],"$setElementOrder/finalizers":["z/z"],"finalizers":["z/z"]},"$patch":"merge"}"#,
    ])
}

pub fn apply_seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::texts(&[
        r#"{"metadata":{"name":"d","labels":{"n":"m"},"finalizers":["q/r"]},"spec":{"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":80,"protocol":"UDP"},{"containerPort":81}]}],"tolerations":[{"key":"a"}]}}}}"#,
        r#"{"metadata":{"name":"d","annotations":null},"spec":{"replicas":2,"selector":null}}"#,
    ]);
    seeds.push(DEPLOYMENT.as_bytes().to_vec());
    seeds
}
