use serde_json::{Value, json};

use super::*;
use crate::kinds;

const NOW: &str = "2026-01-01T00:00:00Z";

fn type_of(object: &Value) -> TypeRef<'static> {
    let text = |field: &str| object[field].as_str().unwrap();
    TypeRef::of(kinds::by_api_version(text("apiVersion"), text("kind")).unwrap())
}

/// An object with its books, and who writes to it.
struct World {
    object: Value,
    managed: Managed,
}

impl World {
    fn new(object: Value) -> Self {
        Self { object, managed: Managed::default() }
    }

    fn apply(&mut self, name: &str, config: Value, force: bool) -> Result<(), String> {
        let ignored = FieldSet::of_fields(&["status"]);
        let applied = apply(Apply {
            type_ref: type_of(&config),
            live: &self.object,
            config: &config,
            managed: self.managed.clone(),
            manager: manager(name, Operation::Apply, &config),
            force,
            ignored: &ignored,
            now: NOW,
        })
        .map_err(|conflicts| conflicts.to_string())?;
        (self.object, self.managed) = (applied.object, applied.managed);
        Ok(())
    }

    fn update(&mut self, name: &str, object: Value) {
        let entries = self.managed.to_json().and_then(|list| list.as_array().cloned());
        let entries = entries.unwrap_or_default();
        let (who, ignored) = (manager(name, Operation::Update, &object), FieldSet::default());
        let type_ref = type_of(&object);
        let entries = if self.object == json!({}) {
            record_create(type_ref, &object, entries, &who, &ignored, NOW)
        } else {
            record_update(type_ref, &self.object, &object, entries, &who, &ignored, NOW)
        };
        self.managed = Managed::read(&json!(entries)).unwrap();
        self.object = object;
    }

    fn fields(&self, name: &str) -> Value {
        let entry = self.managed.0.iter().find(|entry| entry.manager.name == name);
        entry.map_or(Value::Null, |entry| entry.fields.to_json())
    }
}

fn manager(name: &str, operation: Operation, object: &Value) -> Manager {
    Manager {
        name: name.to_owned(),
        operation,
        api_version: object["apiVersion"].as_str().unwrap().to_owned(),
        subresource: String::new(),
    }
}

fn deployment(spec: Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": spec })
}

fn config_map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": data })
}

fn nginx(image: &str) -> Value {
    json!({
        "replicas": 3,
        "selector": { "matchLabels": { "app": "web" } },
        "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "nginx", "image": image, "ports": [{ "containerPort": 80 }] }] },
        },
    })
}

#[test]
fn an_applied_object_is_owned_as_upstream_writes_it() {
    let mut world = World::new(json!({}));
    world.apply("kubectl", deployment(nginx("nginx:1")), false).unwrap();
    assert_eq!(
        world.fields("kubectl"),
        json!({ "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": { "f:labels": { "f:app": {} } },
                "f:spec": { "f:containers": { "k:{\"name\":\"nginx\"}": {
                    ".": {}, "f:image": {}, "f:name": {},
                    "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } },
                } } },
            },
        } })
    );
}

#[test]
fn a_created_object_is_owned_as_upstream_writes_it() {
    let mut object = deployment(nginx("nginx:1"));
    object["metadata"]["labels"] = json!({ "a": "b" });
    object["metadata"]["uid"] = json!("u");
    object["spec"]["strategy"] =
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%" } });
    let mut world = World::new(json!({}));
    world.update("kubectl-create", object);
    assert_eq!(
        world.fields("kubectl-create"),
        json!({
            "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": { "f:rollingUpdate": { ".": {}, "f:maxSurge": {} }, "f:type": {} },
                "f:template": {
                    "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
                    "f:spec": { "f:containers": { "k:{\"name\":\"nginx\"}": {
                        ".": {}, "f:image": {}, "f:name": {},
                        "f:ports": {
                            ".": {},
                            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} },
                        },
                    } } },
                },
            },
        })
    );
}

#[test]
fn a_conflict_names_manager_and_field() {
    let mut world = World::new(json!({}));
    world.update("kubectl-client-side-apply", deployment(nginx("nginx:1")));
    let mut wish = deployment(json!({ "replicas": 5 }));
    assert_eq!(
        world.apply("ci", wish.clone(), false).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    wish["spec"]["template"] = nginx("nginx:2")["template"].take();
    assert_eq!(
        world.apply("ci", wish.clone(), false).unwrap_err(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n\
         - .spec.replicas\n\
         - .spec.template.spec.containers[name=\"nginx\"].image"
    );
    world.apply("ci", wish, true).unwrap();
    assert_eq!(world.object["spec"]["replicas"], 5);
    assert_eq!(world.fields("kubectl-client-side-apply")["f:spec"].get("f:replicas"), None);
}

#[test]
fn ownership_is_shared_by_agreement_and_ends_with_the_last_wish() {
    let mut world = World::new(json!({}));
    world.apply("ann", config_map(json!({ "a": "1", "b": "1" })), false).unwrap();
    world.apply("bob", config_map(json!({ "b": "1", "c": "1" })), false).unwrap();
    assert!(world.apply("bob", config_map(json!({ "b": "2" })), false).is_err());
    world.apply("ann", config_map(json!({ "a": "1" })), false).unwrap();
    assert_eq!(world.object["data"], json!({ "a": "1", "b": "1", "c": "1" }));
    world.apply("bob", config_map(json!({ "c": "1" })), false).unwrap();
    assert_eq!(world.object["data"], json!({ "a": "1", "c": "1" }));
    world.update("eve", config_map(json!({ "a": "1", "c": "1", "e": "1" })));
    world
        .apply(
            "ann",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } }),
            false,
        )
        .unwrap();
    assert_eq!(world.object["data"], json!({ "c": "1", "e": "1" }));
}

#[test]
fn items_of_lists_belong_to_whoever_brought_them() {
    let service = |ports: Value| json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" }, "spec": { "ports": ports } });
    let mut world = World::new(json!({}));
    world.apply("ann", service(json!([{ "port": 80, "name": "http" }])), false).unwrap();
    world
        .apply("bob", service(json!([{ "port": 443, "name": "https", "protocol": "TCP" }])), false)
        .unwrap();
    let ports = &world.object["spec"]["ports"];
    assert_eq!(
        ports,
        &json!([{ "port": 80, "name": "http" }, { "port": 443, "name": "https", "protocol": "TCP" }])
    );
    // The protocol is part of the key, and says what its default says.
    let same = service(json!([{ "port": 80, "protocol": "TCP", "name": "web" }]));
    assert_eq!(
        world.apply("bob", same, false).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"ann\": .spec.ports[port=80,protocol=\"TCP\"].name"
    );
    world.apply("bob", service(json!([])), false).unwrap();
    assert_eq!(world.object["spec"]["ports"], json!([{ "port": 80, "name": "http" }]));
}

#[test]
fn sets_and_wholes() {
    let object = |finalizers: Value| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s", "finalizers": finalizers } });
    let mut world = World::new(json!({}));
    world.apply("ann", object(json!(["a/a", "b/b"])), false).unwrap();
    world.apply("bob", object(json!(["c/c", "b/b"])), false).unwrap();
    assert_eq!(world.object["metadata"]["finalizers"], json!(["a/a", "c/c", "b/b"]));
    assert_eq!(
        world.fields("bob"),
        json!({ "f:metadata": { "f:finalizers": { "v:\"b/b\"": {}, "v:\"c/c\"": {} } } })
    );
    // A selector is one thing.
    let mut world = World::new(json!({}));
    world
        .apply("ann", deployment(json!({ "selector": { "matchLabels": { "a": "1" } } })), false)
        .unwrap();
    let other = deployment(json!({ "selector": { "matchLabels": { "b": "1" } } }));
    assert_eq!(
        world.apply("bob", other, false).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"ann\": .spec.selector"
    );
}

#[test]
fn what_was_there_before_belongs_to_somebody() {
    let mut world = World::new(config_map(json!({ "a": "1" })));
    let message = world.apply("ann", config_map(json!({ "a": "2" })), false).unwrap_err();
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    world.apply("ann", config_map(json!({ "b": "1" })), false).unwrap();
    assert_eq!(world.fields("before-first-apply"), json!({ "f:data": { ".": {}, "f:a": {} } }));
}

#[test]
fn many_updaters_become_few() {
    let mut world = World::new(json!({}));
    let mut data = json!({});
    for number in 0..15 {
        data[format!("k{number:02}")] = json!("v");
        world.update(&format!("m{number:02}"), config_map(data.clone()));
    }
    assert_eq!(world.managed.0.len(), 10);
    let ancient = world.fields("ancient-changes");
    assert!(
        ancient["f:data"].get("f:k00").is_some() && ancient["f:data"].get("f:k05").is_some(),
        "{ancient}"
    );
    assert!(world.fields("m14")["f:data"].get("f:k14").is_some());
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut world = World::new(json!({}));
    world.apply("ann", config_map(json!({ "a": "1", "b": "1" })), false).unwrap();
    world.update("eve", config_map(json!({ "a": "2" })));
    assert_eq!(world.fields("ann"), Value::Null);
    assert_eq!(world.fields("eve"), json!({ "f:data": { "f:a": {} } }));
    let before = world.managed.clone();
    world.update("bob", world.object.clone());
    assert_eq!(world.managed, before);
}

#[test]
fn a_configuration_must_fit_its_kind() {
    let check = |config: Value, expected: &str| {
        assert_eq!(validate(type_of(&config), &config).err().unwrap_or_default(), expected);
    };
    check(deployment(nginx("a")), "");
    check(deployment(json!({ "foo": 1 })), ".spec.foo: field not declared in schema");
    check(
        deployment(json!({ "replicas": "many" })),
        ".spec.replicas: expected numeric (int or float), got &{\"many\"}",
    );
    let twice = json!([{ "name": "a" }, { "name": "a" }]);
    check(
        deployment(json!({ "template": { "spec": { "containers": twice } } })),
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
    );
    let nameless = json!([{ "image": "a" }]);
    check(
        deployment(json!({ "template": { "spec": { "containers": nameless } } })),
        ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
    );
}

#[test]
fn objects_within_custom_objects_have_the_fields_of_all_objects() {
    let schema = json!({ "type": "object", "properties": { "spec": {
        "type": "object",
        "properties": { "template": {
            "type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {
                "metadata": { "type": "object", "properties": { "name": { "type": "string" } } },
                "spec": { "type": "object" },
            },
        } },
    } } });
    let check = |template: Value, expected: &str| {
        let config = json!({ "spec": { "template": template } });
        let found = validate(TypeRef::Custom(&schema), &config).err().unwrap_or_default();
        assert_eq!(found, expected);
    };
    let metadata = json!({ "name": "sub", "labels": { "a": "b" } });
    check(json!({ "apiVersion": "foo/v1", "kind": "Sub", "metadata": metadata, "spec": {} }), "");
    check(
        json!({ "apiversion": "foo/v1" }),
        ".spec.template.apiversion: field not declared in schema",
    );
    check(
        json!({ "metadata": { "unknown": 1 } }),
        ".spec.template.metadata.unknown: field not declared in schema",
    );
}

#[test]
fn books_are_read_strictly_and_reset_on_wish() {
    assert!(Managed::is_reset(&json!([])));
    assert!(Managed::is_reset(&json!([{}])));
    assert!(!Managed::is_reset(&json!([{ "manager": "a" }])));
    let entry = json!({
        "manager": "a", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": { "f:data": { "k:{\"b\":1, \"a\":2}": {}, "x:new": {} } },
    });
    let read = Managed::read(&json!([entry])).unwrap();
    assert_eq!(
        read.to_json().unwrap()[0]["fieldsV1"],
        json!({ "f:data": { "k:{\"a\":2,\"b\":1}": {} } })
    );
    assert_eq!(Managed::read(&json!([{ "operation": "Sing" }])), None);
}
