//! Other servers' OpenAPI v2 documents within ours: the part about their paths, with definitions whose names are taken renamed.
//!
//! As upstream's aggregator
//! (<https://github.com/kubernetes/kube-openapi/blob/master/pkg/aggregator/aggregator.go>): a definition that is the same there and
//! here but for the kinds that it stands for is kept once; any other one of a name that is taken becomes `NAME_v2`, `NAME_v3` ….

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas::{REFERENCE, reachable, references};

const KINDS: &str = "x-kubernetes-group-version-kind";
const PARAMETERS: &str = "#/parameters/";

/// What a document says about the paths below this one: `paths` and the `definitions` that they need.
pub fn v2_part(mut document: Value, below: &str) -> Value {
    let mut take = |field: &str| match document.get_mut(field).map(Value::take) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    let (mut paths, mut definitions, parameters) =
        (take("paths"), take("definitions"), take("parameters"));
    paths.retain(|path, item| path.starts_with(below) && item.is_object());
    let mut roots = Vec::new();
    for item in paths.values_mut() {
        inline(item, &parameters);
        references(item, &mut roots);
    }
    let kept = reachable(&definitions, roots);
    definitions.retain(|name, definition| kept.contains(name) && definition.is_object());
    json!({ "paths": paths, "definitions": definitions })
}

/// Adds such a part to a document. What that has already stays as it is.
pub fn add_v2_part(document: &mut Value, mut part: Value) {
    let names = new_names(&document["definitions"], &part["definitions"]);
    if !names.is_empty() {
        rename(&mut part, &names);
    }
    let (Value::Object(paths), Value::Object(definitions)) =
        (part["paths"].take(), part["definitions"].take())
    else {
        return;
    };
    if let Some(known) = document["paths"].as_object_mut() {
        for (path, item) in paths {
            known.entry(path).or_insert(item);
        }
    }
    let Some(known) = document["definitions"].as_object_mut() else { return };
    for (name, definition) in definitions {
        let name = names.get(&name).cloned().unwrap_or(name);
        match known.get_mut(&name) {
            Some(same) => add_kinds(same, &definition),
            None => drop(known.insert(name, definition)),
        }
    }
}

/// Puts in the place of each reference to a shared parameter what it refers to: only some readers know them.
fn inline(item: &mut Value, parameters: &Map<String, Value>) {
    let Value::Object(members) = item else { return };
    for (name, member) in members {
        let Value::Array(list) = member else {
            inline(member, parameters);
            continue;
        };
        for parameter in list.iter_mut().filter(|_| name == "parameters") {
            let shared = parameter["$ref"].as_str().and_then(|at| at.strip_prefix(PARAMETERS));
            if let Some(shared) = shared.and_then(|name| parameters.get(name)) {
                *parameter = shared.clone();
            }
        }
    }
}

/// The definitions that need another name, and which.
fn new_names(known: &Value, added: &Value) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (name, definition) in added.as_object().into_iter().flatten() {
        let fits = |name: &str| match known.get(name) {
            Some(known) => are_same(known, definition),
            None => true,
        };
        if fits(name) {
            continue;
        }
        let others = (2_u32..).map(|number| format!("{name}_v{number}"));
        let mut free = others.filter(|other| fits(other) && added.get(other).is_none());
        if let Some(other) = free.next() {
            names.insert(name.clone(), other);
        }
    }
    names
}

/// Whether two definitions differ in nothing but the kinds that they stand for.
fn are_same(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return false };
    let rest = |it: &Map<String, Value>| it.len() - usize::from(it.contains_key(KINDS));
    let is_there =
        |(name, value): (&String, &Value)| name == KINDS || other.get(name) == Some(value);
    rest(one) == rest(other) && one.iter().all(is_there)
}

fn add_kinds(known: &mut Value, definition: &Value) {
    let Some(added) = definition[KINDS].as_array() else { return };
    match known[KINDS].as_array_mut() {
        Some(kinds) => {
            let missing = added.iter().filter(|kind| !kinds.contains(kind)).cloned();
            let missing: Vec<Value> = missing.collect();
            kinds.extend(missing);
        }
        None => known[KINDS] = json!(added),
    }
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(REFERENCE).and_then(|it| names.get(it))
            {
                *reference = format!("{REFERENCE}{name}");
            }
            members.values_mut().for_each(|value| rename(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, names)),
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &str) -> Value {
        json!({ "get": {
            "parameters": [{ "$ref": "#/parameters/pretty" }, { "in": "query", "name": "own" }],
            "responses": { "200": { "schema": { "$ref": format!("{REFERENCE}{name}") } } },
        } })
    }

    fn remote() -> Value {
        json!({
            "swagger": "2.0",
            "paths": { "/apis/x.io/v1/things": get("Thing"), "/apis/y.io/v1/others": get("Other"), "/apis/x.io/v1/": 1 },
            "parameters": { "pretty": { "in": "query", "name": "pretty" } },
            "definitions": {
                "Thing": { "properties": { "meta": { "$ref": "#/definitions/Meta" }, "self": { "$ref": "#/definitions/Thing" } } },
                "Meta": { "type": "object", "description": "theirs" },
                "Same": { "type": "object" },
                "Other": { "type": "object" },
            },
        })
    }

    #[test]
    fn a_part_is_what_its_paths_need() {
        let part = v2_part(remote(), "/apis/x.io/v1/");
        let keys =
            |field: &str| part[field].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("paths"), ["/apis/x.io/v1/things"]);
        assert_eq!(keys("definitions"), ["Meta", "Thing"]);
        let parameters = &part["paths"]["/apis/x.io/v1/things"]["get"]["parameters"];
        assert_eq!(parameters[0], json!({ "in": "query", "name": "pretty" }));
        assert_eq!(parameters[1]["name"], "own");
        for odd in [json!(null), json!([]), json!({ "paths": [], "definitions": 1 })] {
            assert_eq!(v2_part(odd, "/"), json!({ "paths": {}, "definitions": {} }));
        }
    }

    #[test]
    fn a_taken_name_is_changed_wherever_it_is_used() {
        let mut document = json!({
            "paths": { "/mine": 1 },
            "definitions": { "Meta": { "type": "object", "description": "ours" }, "Meta_v2": {} },
        });
        add_v2_part(&mut document, v2_part(remote(), "/apis/x.io/v1/"));
        let properties = &document["definitions"]["Thing"]["properties"];
        assert_eq!(properties["meta"]["$ref"], "#/definitions/Meta_v3");
        assert_eq!(properties["self"]["$ref"], "#/definitions/Thing");
        assert_eq!(document["definitions"]["Meta_v3"]["description"], "theirs");
        assert_eq!(document["definitions"]["Meta"]["description"], "ours");
        assert_eq!(document["paths"].as_object().unwrap().len(), 2);
        // The same once more changes nothing.
        let before = document.clone();
        add_v2_part(&mut document, v2_part(remote(), "/apis/x.io/v1/"));
        assert_eq!(document["definitions"]["Meta_v3"], before["definitions"]["Meta_v3"]);
        assert!(document["definitions"].get("Meta_v4").is_none());
    }

    #[test]
    fn a_definition_that_is_the_same_stands_for_the_kinds_of_both() {
        let kinds = |group: &str| json!({ "type": "object", KINDS: [{ "group": group }] });
        let mut document = json!({ "paths": {}, "definitions": { "DeleteOptions": kinds("a") } });
        let part = json!({ "paths": {}, "definitions": { "DeleteOptions": kinds("b") } });
        add_v2_part(&mut document, part);
        let known = &document["definitions"]["DeleteOptions"][KINDS];
        assert_eq!(*known, json!([{ "group": "a" }, { "group": "b" }]));
    }
}
