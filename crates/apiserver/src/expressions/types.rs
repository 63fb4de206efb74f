//! The types of what expressions see.

use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::schema::{Schema, Shape, TypeId};
use coracle_cel::{Environment, ObjectType, Type};
use serde_json::Value;

use crate::custom_resources;

/// An object type with these fields.
pub(crate) struct Record {
    pub(crate) name: &'static str,
    pub(crate) fields: Vec<(String, Type)>,
}

impl ObjectType for Record {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, of)| of.clone())
    }
}

fn record(name: &'static str, fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(name, of)| ((*name).to_owned(), of.clone())).collect();
    Type::Object(Arc::new(Record { name, fields }))
}

/// What every expression about a write may use. `object`, `oldObject` and `params` can be anything.
pub(crate) fn environment(has_params: bool) -> Environment {
    environment_of(&Type::Dyn, has_params.then_some(Type::Dyn))
}

/// The same for objects and parameters of known types.
pub(crate) fn environment_of(object: &Type, params: Option<Type>) -> Environment {
    let authorizer = |name: &str| Type::Opaque(format!("kubernetes.authorization.{name}").into());
    let environment = Environment::default()
        .with("object", object.clone())
        .with("oldObject", object.clone())
        .with("request", request())
        .with("namespaceObject", namespace())
        .with("authorizer", authorizer("Authorizer"))
        .with("authorizer.requestResource", authorizer("ResourceCheck"));
    match params {
        Some(params) => environment.with("params", params),
        None => environment,
    }
}

/// `variables`, with the types of those that are known so far.
pub(crate) fn variables(fields: &[(String, Type)]) -> Type {
    Type::Object(Arc::new(Record { name: "kubernetes.variables", fields: fields.to_vec() }))
}

/// Who somebody is.
pub(crate) fn user() -> Type {
    let text = Type::String;
    record(
        "kubernetes.UserInfo",
        &[
            ("username", text.clone()),
            ("uid", text.clone()),
            ("groups", Type::list(text.clone())),
            ("extra", Type::map(Type::list(text))),
        ],
    )
}

fn request() -> Type {
    let text = Type::String;
    let kind = record(
        "kubernetes.GroupVersionKind",
        &[("group", text.clone()), ("version", text.clone()), ("kind", text.clone())],
    );
    let resource = record(
        "kubernetes.GroupVersionResource",
        &[("group", text.clone()), ("version", text.clone()), ("resource", text.clone())],
    );
    let user = user();
    record(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text.clone()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text.clone()),
            ("name", text.clone()),
            ("namespace", text.clone()),
            ("operation", text),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace() -> Type {
    let (text, texts) = (Type::String, Type::list(Type::String));
    let metadata = record(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text.clone()),
            ("generateName", text.clone()),
            ("namespace", text.clone()),
            ("labels", Type::map(text.clone())),
            ("annotations", Type::map(text.clone())),
            ("UID", text.clone()),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", text.clone()),
            ("finalizers", texts.clone()),
        ],
    );
    let spec = record("kubernetes.NamespaceSpec", &[("finalizers", texts)]);
    let status = record("kubernetes.NamespaceStatus", &[("phase", text)]);
    record("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
}

/// The type of the objects of a kind.
pub(crate) fn kind_type(kind: &Kind) -> Option<Type> {
    match custom_resources::definition_of(kind) {
        Some(definition) => Some(custom_kind_type(&definition.open_api)),
        None => Schema::get().of(kind).map(of_schema),
    }
}

/// A struct of the published schema.
struct Struct(TypeId);

impl ObjectType for Struct {
    fn name(&self) -> String {
        Schema::get().type_(self.0).name.to_owned()
    }

    fn field(&self, name: &str) -> Option<Type> {
        match &Schema::get().type_(self.0).shape {
            Shape::Object(fields) => fields.get(name).map(|field| of_schema(field.type_id)),
            _ => None,
        }
    }
}

fn of_schema(id: TypeId) -> Type {
    match &Schema::get().type_(id).shape {
        Shape::String => Type::String,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Number => Type::Double,
        Shape::Bool => Type::Bool,
        Shape::Bytes => Type::Bytes,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::IntOrString | Shape::Quantity | Shape::Any | Shape::Either { .. } => Type::Dyn,
        Shape::List { item } => Type::list(of_schema(*item)),
        Shape::Map { value } => Type::map(of_schema(*value)),
        Shape::Object(_) => Type::Object(Arc::new(Struct(id))),
    }
}

/// The type of a custom kind's objects, as its definition's `openAPIV3Schema` has them.
fn custom_kind_type(schema: &Value) -> Type {
    let metadata = Schema::get()
        .by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        .map_or(Type::Dyn, of_schema);
    resource(schema, metadata)
}

/// The type of what a structural schema describes. Of the root's metadata, rules of definitions see the names alone.
pub(crate) fn of_structural(schema: &Value, is_root: bool) -> Type {
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::Dyn;
    }
    if is_root || schema["x-kubernetes-embedded-resource"] == true {
        let names = [("name", Type::String), ("generateName", Type::String)];
        return resource(schema, record("kubernetes.ObjectNames", &names));
    }
    let below = |schema: &Value| of_structural(schema, false);
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("integer"), _) => Type::Int,
        (Some("number"), _) => Type::Double,
        (Some("boolean"), _) => Type::Bool,
        (Some("string"), Some("date" | "date-time")) => Type::Timestamp,
        (Some("string"), Some("duration")) => Type::Duration,
        (Some("string"), Some("byte")) => Type::Bytes,
        (Some("string"), _) => Type::String,
        (Some("array"), _) => Type::list(below(&schema["items"])),
        (Some("object"), _) if schema["properties"].is_object() => {
            Type::Object(Arc::new(Record { name: "object", fields: properties(schema) }))
        }
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            Type::map(below(&schema["additionalProperties"]))
        }
        _ => Type::Dyn,
    }
}

fn resource(schema: &Value, metadata: Type) -> Type {
    let mut fields = vec![
        ("apiVersion".to_owned(), Type::String),
        ("kind".to_owned(), Type::String),
        ("metadata".to_owned(), metadata),
    ];
    fields.extend(properties(schema));
    Type::Object(Arc::new(Record { name: "object", fields }))
}

/// The properties under the names that rules use for them, and under their own.
fn properties(schema: &Value) -> Vec<(String, Type)> {
    let mut fields = Vec::new();
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let (escaped, of) = (custom_resources::escape(name), of_structural(schema, false));
        if escaped != *name {
            fields.push((escaped, of.clone()));
        }
        fields.push((name.clone(), of));
    }
    fields
}
