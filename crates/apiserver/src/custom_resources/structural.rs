//! Checks the schemas of a definition itself: that they are structural, that defaults fit, that rules compile.

mod rules;

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use super::extent::{SCHEMA_COST, too_expensive};
use super::json_path::JsonPath;
use super::schema::Node;
use super::{conversion, validate, values};

/// Checks what a definition says about its versions.
pub(crate) fn validate_definition(definition: &Value, errors: &mut FieldErrors) {
    let path = Path::new("spec").child("versions");
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    for (index, version) in versions.enumerate() {
        let at = path.index(index);
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_object() {
            let at = at.child("schema").child("openAPIV3Schema");
            let mut walk = Walk {
                errors,
                defaults_allowed: true,
                uncorrelatable: None,
                cardinality: Some(1),
                cost: 0,
            };
            walk.node(schema, Level::Root, &at);
            let cost = walk.cost;
            if cost > SCHEMA_COST {
                let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
                errors.forbidden(&at, too_expensive(what, cost, SCHEMA_COST));
            }
        }
        columns(version, &at.child("additionalPrinterColumns"), errors);
        subresources(&version["subresources"], &at.child("subresources"), errors);
        selectable(version, &at.child("selectableFields"), errors);
    }
    conversion::validate(definition, errors);
    if definition["spec"]["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(Path::new("spec").child("preserveUnknownFields"), true, detail);
    }
    approval(definition, errors);
}

/// Groups of Kubernetes itself need somebody's word that they are meant.
fn approval(definition: &Value, errors: &mut FieldErrors) {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    let given = definition["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default();
    let path = Path::new("metadata").child("annotations").key(ANNOTATION);
    if !is_protected {
        return;
    }
    if given.is_empty() {
        errors.required(path, "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111");
    } else if !given.starts_with("unapproved")
        && !given.starts_with("https://")
        && !given.starts_with("http://")
    {
        errors.invalid(path, given, "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111");
    }
}

/// Checks what may not change while objects are stored.
pub(crate) fn validate_definition_update(new: &Value, errors: &mut FieldErrors) {
    let stored = new["status"]["storedVersions"].as_array().into_iter().flatten();
    let versions = new["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, stored) in stored.enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let path = Path::new("status").child("storedVersions").index(index);
            errors.invalid(path, stored.clone(), "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions".replace("v1", stored.as_str().unwrap_or_default()));
        }
    }
}

fn columns(version: &Value, path: &Path, errors: &mut FieldErrors) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    for (index, column) in columns.enumerate() {
        let at = path.index(index);
        if column["name"].as_str().unwrap_or_default().is_empty() {
            errors.required(at.child("name"), "");
        }
        match column["type"].as_str().unwrap_or_default() {
            "" => errors.required(at.child("type"), format!("must be one of {}", TYPES.join(","))),
            other if !TYPES.contains(&other) => {
                errors.invalid(
                    at.child("type"),
                    other,
                    format!("must be one of {}", TYPES.join(",")),
                );
            }
            _ => (),
        }
        let text = column["jsonPath"].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.required(at.child("jsonPath"), "");
        } else if let Err(why) = JsonPath::parse(text) {
            errors.invalid(at.child("jsonPath"), text, why);
        }
    }
}

fn subresources(subresources: &Value, path: &Path, errors: &mut FieldErrors) {
    let scale = &subresources["scale"];
    if !scale.is_object() {
        return;
    }
    let at = path.child("scale");
    for (field, prefix, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ] {
        let (text, at) = (scale[field].as_str().unwrap_or_default(), at.child(field));
        let simple = JsonPath::parse(text).is_ok_and(|path| path.is_simple());
        if text.is_empty() && required {
            errors.required(at, "");
        } else if text.is_empty() {
        } else if !simple {
            errors.invalid(at, text, "should be a json path without array notation");
        } else if field == "labelSelectorPath" {
            if !text.starts_with(".spec.") && !text.starts_with(".status.") {
                errors.invalid(at, text, "should be a json path under either .spec or .status");
            }
        } else if !text.starts_with(prefix) {
            errors.invalid(
                at,
                text,
                format!("should be a json path under {}", prefix.trim_end_matches('.')),
            );
        }
    }
}

fn selectable(version: &Value, path: &Path, errors: &mut FieldErrors) {
    const MAX: usize = 8;
    let fields = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    if fields.len() > MAX {
        errors.too_many(path, fields.len(), MAX);
    }
    let schema = Node::read(&version["schema"]["openAPIV3Schema"]);
    let mut seen = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let at = path.index(index).child("jsonPath");
        let text = field["jsonPath"].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.required(at, "");
            continue;
        }
        if seen.contains(&text) {
            errors.duplicate(&at, text);
        }
        seen.push(text);
        let parsed = JsonPath::parse(text).ok().filter(JsonPath::is_simple);
        let leaf = parsed.as_ref().and_then(|parsed| {
            parsed.fields().try_fold(&schema, |node, name| node.properties.get(name))
        });
        match leaf {
            None => errors.invalid(at, text, "is an invalid path: does not refer to a valid field"),
            Some(node) => {
                use super::schema::Type;
                if !matches!(node.type_, Some(Type::Boolean | Type::Integer | Type::String)) {
                    let found = node.type_.map_or("", Type::as_str);
                    errors.invalid(at, text, format!("must point to a field of type boolean, integer, or string, but got {found}"));
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

struct Walk<'a> {
    errors: &'a mut FieldErrors,
    defaults_allowed: bool,
    /// The place below which a value cannot be compared with the one before.
    uncorrelatable: Option<Path>,
    /// How many values there can be at this place; none if nothing says so.
    cardinality: Option<u64>,
    /// What all rules so far cost at most.
    cost: u64,
}

impl Walk<'_> {
    fn node(&mut self, schema: &Value, level: Level, path: &Path) {
        self.type_of(schema, level, path);
        self.extensions(schema, path);
        self.forbidden(schema, path);
        self.default(schema, level, path);
        self.rules(schema, level, path);
        if schema["type"] == "array" && !schema["items"].is_object() {
            self.errors.required(path.child("items"), "must be specified");
        }
        if schema["items"].is_object() {
            self.below(schema, &schema["items"], Level::Item, &path.child("items"));
        }
        let is_resource = level == Level::Root || schema["x-kubernetes-embedded-resource"] == true;
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let at = path.child("properties").key(name);
            if name == "metadata" && level == Level::Root {
                self.metadata(property, &at);
                continue;
            }
            if is_resource
                && matches!(name.as_str(), "kind" | "apiVersion")
                && property["type"] != "string"
            {
                let found = property["type"].as_str().unwrap_or_default();
                self.errors.invalid(at.child("type"), found, "must be string");
            }
            self.below(schema, property, Level::Field, &at);
        }
        if schema["additionalProperties"].is_object() {
            let at = path.child("additionalProperties");
            if level == Level::Root {
                self.errors.forbidden(&at, "must not be used at the root");
            }
            if schema["properties"].as_object().is_some_and(|properties| !properties.is_empty()) {
                self.errors
                    .forbidden(&at, "additionalProperties and properties are mutual exclusive");
            }
            self.below(schema, &schema["additionalProperties"], Level::Field, &at);
        }
        self.combinations(schema, path);
    }

    fn type_of(&mut self, schema: &Value, level: Level, path: &Path) {
        let found = schema["type"].as_str().unwrap_or_default();
        let flag = |name: &str| schema[name] == true;
        let at = path.child("type");
        if flag("x-kubernetes-int-or-string") && !found.is_empty() {
            self.errors.invalid(&at, found, "must be empty if x-kubernetes-int-or-string is true");
        } else if flag("x-kubernetes-embedded-resource") && found != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            if found.is_empty() {
                self.errors.required(&at, detail);
            } else {
                self.errors.invalid(&at, found, detail);
            }
        } else if found.is_empty()
            && !flag("x-kubernetes-int-or-string")
            && !flag("x-kubernetes-preserve-unknown-fields")
        {
            self.errors.required(
                &at,
                match level {
                    Level::Root => "must not be empty at the root",
                    Level::Item => "must not be empty for specified array items",
                    Level::Field => "must not be empty for specified object fields",
                },
            );
        }
        const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
        if level == Level::Root && !found.is_empty() && found != "object" {
            self.errors.invalid(&at, found, "must be object at the root");
        } else if !found.is_empty() && !TYPES.contains(&found) {
            self.errors.not_supported(&at, found, &TYPES);
        }
    }

    fn extensions(&mut self, schema: &Value, path: &Path) {
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            self.errors.invalid(
                path.child("x-kubernetes-preserve-unknown-fields"),
                false,
                "must be true or undefined",
            );
        }
        let keys =
            schema["x-kubernetes-list-map-keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        match schema["x-kubernetes-list-type"].as_str() {
            Some(list_type @ ("atomic" | "set" | "map")) => {
                if schema["type"] != "array" {
                    let found = schema["type"].as_str().unwrap_or_default();
                    self.errors.invalid(
                        path.child("type"),
                        found,
                        "must be array if x-kubernetes-list-type is specified",
                    );
                }
                if list_type == "map" {
                    self.map_keys(schema, keys, path);
                }
            }
            Some(other) => self.errors.not_supported(
                path.child("x-kubernetes-list-type"),
                other,
                &["atomic", "map", "set"],
            ),
            None => (),
        }
        if !keys.is_empty() && schema["x-kubernetes-list-type"] != "map" {
            self.errors.required(
                path.child("x-kubernetes-list-type"),
                "must be map if x-kubernetes-list-map-keys is non-empty",
            );
        }
        if let Some(map_type) = schema["x-kubernetes-map-type"].as_str() {
            if !matches!(map_type, "atomic" | "granular") {
                self.errors.not_supported(
                    path.child("x-kubernetes-map-type"),
                    map_type,
                    &["atomic", "granular"],
                );
            }
            if schema["type"] != "object" {
                let found = schema["type"].as_str().unwrap_or_default();
                self.errors.invalid(
                    path.child("type"),
                    found,
                    "must be object if x-kubernetes-map-type is specified",
                );
            }
        }
    }

    fn map_keys(&mut self, schema: &Value, keys: &[Value], path: &Path) {
        let at = path.child("x-kubernetes-list-map-keys");
        if keys.is_empty() {
            self.errors.required(&at, "must not be empty if x-kubernetes-list-type is map");
        }
        let items = &schema["items"];
        let required = items["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, key) in keys.iter().enumerate() {
            let name = key.as_str().unwrap_or_default();
            let property = &items["properties"][name];
            if !property.is_object() {
                self.errors.invalid(
                    at.index(index),
                    name,
                    "entries must all be names of item properties",
                );
            } else if !required.contains(key) && property["default"].is_null() {
                let at = path.child("items").child("properties").key(name).child("default");
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.errors.required(at, detail);
            }
        }
    }

    fn forbidden(&mut self, schema: &Value, path: &Path) {
        if schema["uniqueItems"] == true {
            self.errors.forbidden(
                path.child("uniqueItems"),
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            );
        }
        if schema["additionalProperties"] == false {
            self.errors.forbidden(
                path.child("additionalProperties"),
                "additionalProperties cannot be set to false",
            );
        }
        for field in
            ["definitions", "dependencies", "patternProperties", "id", "$ref", "additionalItems"]
        {
            if !schema[field].is_null() {
                self.errors.forbidden(path.child(field), format!("{field} is not supported"));
            }
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(error) = regex::Regex::new(pattern)
        {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            self.errors.invalid(path.child("pattern"), pattern, detail);
        }
    }

    fn default(&mut self, schema: &Value, level: Level, path: &Path) {
        let default = &schema["default"];
        if default.is_null() {
            return;
        }
        let at = path.child("default");
        if level == Level::Root || !self.defaults_allowed {
            self.errors.forbidden(at, "must not be set in top-level");
            return;
        }
        let node = Node::read(schema);
        let mut value = default.clone();
        if !values::prune(&mut value, &node).is_empty() && !node.embedded_resource {
            self.errors.invalid(&at, default.clone(), "must not have unknown fields");
        }
        let mut wrong = FieldErrors::new();
        values::default(&mut value, &node);
        validate::validate(&node, &value, None, &mut wrong);
        for mut error in wrong {
            let below = error.path.as_str().trim_start_matches('.').to_owned();
            error.path = if below.is_empty() { at.clone() } else { at.child(&below) };
            self.errors.push(error);
        }
    }

    /// Checks what is below, where items cannot be told from those before unless lists and maps have keys.
    fn below(&mut self, around: &Value, schema: &Value, level: Level, path: &Path) {
        let is_correlatable = match level {
            Level::Item => around["x-kubernetes-list-type"] == "map",
            _ => around["x-kubernetes-map-type"] != "atomic",
        };
        let (outer, cardinality) = (self.uncorrelatable.clone(), self.cardinality);
        let each = match level {
            Level::Item => Some("maxItems"),
            _ if around["additionalProperties"].is_object() => Some("maxProperties"),
            _ => None,
        };
        if let Some(bound) = each {
            self.cardinality = cardinality
                .zip(around[bound].as_u64())
                .map(|(outer, each)| outer.saturating_mul(each));
        }
        if !is_correlatable && outer.is_none() {
            self.uncorrelatable = Some(path.clone());
        }
        self.node(schema, level, path);
        (self.uncorrelatable, self.cardinality) = (outer, cardinality);
    }

    /// The schema of an object's own metadata is ours; a definition may only restrict the name.
    fn metadata(&mut self, schema: &Value, path: &Path) {
        if schema["type"] != "object" {
            let found = schema["type"].as_str().unwrap_or_default();
            self.errors.invalid(path.child("type"), found, "must be object");
        }
        let only_names = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .all(|(name, _)| name == "name" || name == "generateName");
        let only_plain = schema.as_object().into_iter().flatten().all(|(field, value)| {
            matches!(field.as_str(), "type" | "properties" | "description") || value.is_null()
        });
        if !only_names || !only_plain {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.errors.forbidden(path, detail);
        }
    }

    fn combinations(&mut self, schema: &Value, path: &Path) {
        let int_or_string = schema["x-kubernetes-int-or-string"] == true;
        for field in ["allOf", "anyOf", "oneOf"] {
            let nodes = schema[field].as_array().into_iter().flatten();
            if int_or_string && field == "anyOf" && is_int_or_string(&schema["anyOf"]) {
                continue;
            }
            for (index, node) in nodes.enumerate() {
                if int_or_string
                    && field == "allOf"
                    && index == 0
                    && is_int_or_string(&node["anyOf"])
                {
                    continue;
                }
                self.nested(node, field == "allOf", &path.child(field).index(index));
            }
        }
        if schema["not"].is_object() {
            self.nested(&schema["not"], false, &path.child("not"));
        }
    }

    /// Inside a combination only values are judged: what they are is said outside.
    fn nested(&mut self, schema: &Value, rules_allowed: bool, path: &Path) {
        for field in ["type", "title", "description"] {
            if schema[field].as_str().is_some_and(|text| !text.is_empty()) {
                self.errors.forbidden(path.child(field), "must be empty to be structural");
            }
        }
        for field in
            ["additionalProperties", "default", "x-kubernetes-list-type", "x-kubernetes-map-type"]
        {
            if !schema[field].is_null() {
                self.errors.forbidden(path.child(field), "must be undefined to be structural");
            }
        }
        for field in [
            "nullable",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
        ] {
            if schema[field] == true {
                self.errors.forbidden(path.child(field), "must be false to be structural");
            }
        }
        if !rules_allowed
            && schema["x-kubernetes-validations"].as_array().is_some_and(|rules| !rules.is_empty())
        {
            self.errors.forbidden(
                path.child("x-kubernetes-validations"),
                "must be empty to be structural",
            );
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let at = path.child("properties").key(name);
            if name == "metadata" {
                self.errors.forbidden(&at, "must not be specified in a nested context");
            }
            self.nested(property, rules_allowed, &at);
        }
        if schema["items"].is_object() {
            self.nested(&schema["items"], rules_allowed, &path.child("items"));
        }
        self.combinations(schema, path);
    }
}

/// The one combination that says types: `[{type: integer}, {type: string}]`.
fn is_int_or_string(any_of: &Value) -> bool {
    let types: Vec<&str> =
        any_of.as_array().into_iter().flatten().filter_map(|node| node["type"].as_str()).collect();
    types == ["integer", "string"] && any_of.as_array().is_some_and(|nodes| nodes.len() == 2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: Value, wanted: &[&str]) {
        let definition = json!({ "spec": { "versions": [{ "name": "v1", "schema": { "openAPIV3Schema": {
            "type": "object", "properties": { "spec": schema } } } }] } });
        let mut errors = FieldErrors::new();
        validate_definition(&definition, &mut errors);
        let prefix = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
        let found: Vec<String> =
            errors.iter().map(|error| error.to_string().replace(prefix, "@")).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn schemas_must_be_structural() {
        check(json!({ "type": "object" }), &[]);
        check(
            json!({}),
            &["@.type: Required value: must not be empty for specified object fields"],
        );
        check(json!({ "type": "array" }), &["@.items: Required value: must be specified"]);
        check(
            json!({ "type": "object", "properties": { "a": { "type": "string", "default": 5 } } }),
            &[
                "@.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\"",
            ],
        );
        check(
            json!({ "type": "object", "anyOf": [{ "type": "string" }] }),
            &["@.anyOf[0].type: Forbidden: must be empty to be structural"],
        );
        check(
            json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] }),
            &[],
        );
        check(
            json!({ "type": "array", "items": { "type": "object", "properties": { "a": { "type": "string" } } },
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"] }),
            &[
                "@.items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        );
    }
}
