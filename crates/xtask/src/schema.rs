//! `cargo xtask schema`: writes what `coracle-api` knows of Kubernetes' types.
//!
//! The types, their fields and descriptions come from the JSON schemas in `k8s-openapi`'s sources; list keys from its
//! merge code; protobuf tags, patch strategies and the other markers from the doc comments in `k8s-pb`'s. Both are
//! read as text, because neither crate offers the data at run time without being compiled with features that the
//! product does not want.
//!
//! Two files come out: `structure.txt` (names and types; loaded by every process, see `schema/load.rs` for its form)
//! and `openapi.json.gz` (whole definitions with descriptions; read when somebody asks for OpenAPI).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

mod literal;
mod sources;

use sources::{
    Definition, Definitions, Merging, Message, MessageField, Sources, keep_stable, message_key,
    plain, read_definitions, read_messages,
};

const API_VERSION_DIRECTORY: &str = "src/v1_37";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Definitions whose values are arbitrary JSON.
const ANY: [&str; 4] = [
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
];

/// Which optional scalars are pointers in Go.
const POINTERS: &str = include_str!("schema/pointers.txt");

/// Tags of fields that are newer than k8s-pb.
const NEWER_TAGS: [(&str, &str, u32); 18] = [
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerCondition", "observedGeneration", 6),
    ("io.k8s.api.certificates.v1.PodCertificateRequestSpec", "stubPKCS10Request", 12),
    ("io.k8s.api.core.v1.ImageVolumeStatus", "imageRef", 1),
    ("io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus", "containers", 2),
    ("io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus", "resourceClaimName", 1),
    ("io.k8s.api.core.v1.PodSchedulingGroup", "podGroupName", 1),
    ("io.k8s.api.core.v1.PodSpec", "schedulingGroup", 43),
    ("io.k8s.api.core.v1.PodStatus", "nodeAllocatableResourceClaimStatuses", 21),
    ("io.k8s.api.core.v1.ResourceHealth", "message", 6),
    ("io.k8s.api.core.v1.VolumeMountStatus", "volumeStatus", 5),
    ("io.k8s.api.core.v1.VolumeStatus", "image", 1),
    ("io.k8s.api.resource.v1.DeviceAttribute", "bools", 7),
    ("io.k8s.api.resource.v1.DeviceAttribute", "ints", 6),
    ("io.k8s.api.resource.v1.DeviceAttribute", "strings", 8),
    ("io.k8s.api.resource.v1.DeviceAttribute", "versions", 9),
    ("io.k8s.api.storage.v1.CSIDriverSpec", "preventPodSchedulingIfMissing", 11),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", "shardInfo", 5),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ShardInfo", "selector", 1),
];

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write nothing; fail if the committed files are not what would be written.
    #[arg(long)]
    check: bool,
}

/// Writes, or checks, the files in `crates/api/schema`.
pub fn run(arguments: &Arguments) -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/schema");
    std::fs::create_dir_all(&directory)?;
    for (name, bytes) in generate()? {
        let path = directory.join(name);
        if !arguments.check {
            std::fs::write(&path, &bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("{name}: {} bytes", bytes.len());
        } else if std::fs::read(&path)? != bytes {
            bail!("{} is out of date; run `cargo xtask schema`", path.display());
        }
    }
    Ok(())
}

fn generate() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let sources = Sources::find()?;
    let mut definitions = read_definitions(&sources.openapi.join(API_VERSION_DIRECTORY))?;
    let messages = read_messages(&sources.protobuf.join("src"))?;
    keep_stable(&mut definitions);
    for definition in definitions.values_mut() {
        annotate(definition, &messages)?;
    }
    for (name, property, tag) in NEWER_TAGS {
        let definition = definitions.get_mut(name).with_context(|| format!("no {name}"))?;
        definition.tags.entry(property.to_owned()).or_insert_with(|| vec![tag]);
    }
    let structure = write_structure(&definitions)?;
    let openapi = write_openapi(&definitions)?;
    Ok(vec![("structure.txt", structure.into_bytes()), ("openapi.json.gz", openapi)])
}

/// Adds to a definition what its message knows, and writes the extensions that upstream's document has.
fn annotate(definition: &mut Definition, messages: &BTreeMap<String, Message>) -> Result<()> {
    let required =
        definition.schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    // k8s-openapi demands every object's metadata, because its own types do; upstream does not.
    let required: Vec<Value> = required.into_iter().filter(|name| name != "metadata").collect();
    definition.schema.remove("required");
    if !required.is_empty() {
        definition.schema.insert("required".to_owned(), required.into());
    }
    let message = message_of(messages, &definition.rust_path);
    if let Some(message) = messages.get(&message) {
        definition.atomic = message.markers.iter().any(|marker| marker == "structType=atomic");
    }
    let Some(Value::Object(mut properties)) = definition.schema.remove("properties") else {
        return Ok(());
    };
    let mut found = BTreeMap::new();
    collect_fields(messages, &message, &properties, &mut Vec::new(), &mut found);
    for (name, property) in &mut properties {
        let property = property.as_object_mut().context("a property that is no object")?;
        let markers = match found.remove(&plain(name)) {
            Some((tags, markers)) => {
                definition.tags.insert(name.clone(), tags);
                markers
            }
            None => Vec::new(),
        };
        extend_property(property, &markers, definition.merging.get(&plain(name)));
    }
    definition.schema.insert("properties".to_owned(), properties.into());
    if definition.atomic {
        definition.schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if !definition.kinds.is_empty() {
        let kinds = definition.kinds.iter().map(
            |(group, version, kind)| json!({ "group": group, "kind": kind, "version": version }),
        );
        definition.schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds.collect());
    }
    Ok(())
}

/// The message of a type. A version that is newer than k8s-pb was a beta or an alpha before, with the same tags.
fn message_of(messages: &BTreeMap<String, Message>, rust_path: &str) -> String {
    let own = message_key(rust_path);
    if messages.contains_key(&own) {
        return own;
    }
    let earlier = |version: &str| own.replacen("::v1::", &format!("::{version}::"), 1);
    let versions = ["v1beta2", "v1beta1", "v1alpha3", "v1alpha2", "v1alpha1"];
    versions.map(earlier).into_iter().find(|path| messages.contains_key(path)).unwrap_or(own)
}

/// Tags from the outside in, and markers.
type Found = (Vec<u32>, Vec<String>);

/// Finds each property's field, also in messages that JSON shows inline.
fn collect_fields(
    messages: &BTreeMap<String, Message>,
    path: &str,
    properties: &Map<String, Value>,
    outer: &mut Vec<u32>,
    found: &mut BTreeMap<String, Found>,
) {
    let Some(message) = messages.get(path) else { return };
    for field in &message.fields {
        outer.push(field.tag);
        if let Some((_, property)) = properties.iter().find(|(name, _)| plain(name) == field.name) {
            let mut tags = outer.clone();
            tags.extend(items_tag(messages, field, property));
            found.entry(field.name.clone()).or_insert_with(|| (tags, field.markers.clone()));
        } else if let Some(inner) = &field.message
            && outer.len() < 3
        {
            collect_fields(messages, inner, properties, outer, found);
        }
        outer.pop();
    }
}

/// The tag within the message that stands for a list which may be null, as `verbs` of an APIResource.
fn items_tag(
    messages: &BTreeMap<String, Message>,
    field: &MessageField,
    property: &Value,
) -> Option<u32> {
    let wrapper = messages.get(field.message.as_ref()?)?;
    let is_list = property.get("type").is_some_and(|kind| kind == "array");
    match wrapper.fields.as_slice() {
        [items] if is_list && items.name == "items" => Some(items.tag),
        _ => None,
    }
}

fn extend_property(
    property: &mut Map<String, Value>,
    markers: &[String],
    merging: Option<&Merging>,
) {
    let values = |name: &str| -> Vec<String> {
        let prefixes = [format!("{name}="), format!("k8s:{name}=")];
        let mut found = Vec::new();
        for prefix in prefixes {
            found.extend(markers.iter().filter_map(|marker| marker.strip_prefix(&prefix)).map(
                |value| {
                    value.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned()
                },
            ));
            if !found.is_empty() {
                break;
            }
        }
        found
    };
    let is_list = property.get("type").is_some_and(|kind| kind == "array");
    let mut set = |name: &str, value: Value| {
        property.insert(name.to_owned(), value);
    };
    let mut list_type = values("listType").pop();
    let mut keys = values("listMapKey");
    let mut patch_key = values("patchMergeKey").pop();
    let mut strategy = values("patchStrategy").pop();
    match merging {
        // Newer than k8s-pb: there, keys of lists and of patches are the same.
        Some(Merging::ListMap(from))
            if list_type.is_none() && strategy.is_none() && patch_key.is_none() =>
        {
            (list_type, keys) = (Some("map".to_owned()), from.clone());
            patch_key = from.first().cloned();
            strategy = Some("merge".to_owned());
        }
        Some(Merging::ListSet) if list_type.is_none() => list_type = Some("set".to_owned()),
        Some(Merging::ListAtomic) if list_type.is_none() && markers.is_empty() => {
            list_type = Some("atomic".to_owned())
        }
        Some(Merging::MapAtomic) => set("x-kubernetes-map-type", "atomic".into()),
        _ => (),
    }
    let marked_atomic = |name: &str| values(name).iter().any(|value| value == "atomic");
    if marked_atomic("mapType") || marked_atomic("structType") {
        set("x-kubernetes-map-type", "atomic".into());
    }
    if let Some(list_type) = list_type.filter(|_| is_list) {
        if list_type == "map" {
            set("x-kubernetes-list-map-keys", keys.into());
        }
        set("x-kubernetes-list-type", list_type.into());
    }
    if let Some(key) = patch_key {
        set("x-kubernetes-patch-merge-key", key.into());
    }
    if let Some(strategy) = strategy {
        set("x-kubernetes-patch-strategy", strategy.into());
    }
    if let Some(default) = markers.iter().find_map(|marker| marker.strip_prefix("default="))
        && let Ok(value) = serde_json::from_str(default)
    {
        set("default", value);
    }
}

/// Reads `pointers.txt`: the names of fields by the short name of their definition.
fn read_pointers(
    definitions: &Definitions,
) -> Result<BTreeMap<&'static str, BTreeSet<&'static str>>> {
    let mut pointers = BTreeMap::new();
    for line in POINTERS.lines().filter(|line| !line.starts_with('#')) {
        let (name, fields) = line.split_once(": ").with_context(|| format!("bad line {line}"))?;
        let found = definitions.iter().find(|(full, _)| short_name(full) == name);
        let (_, definition) = found.with_context(|| format!("no definition {name}"))?;
        let fields: BTreeSet<&str> = fields.split(' ').collect();
        for field in &fields {
            if definition.schema.get("properties").is_none_or(|all| all.get(field).is_none()) {
                bail!("{name} has no field {field}");
            }
        }
        pointers.insert(name, fields);
    }
    Ok(pointers)
}

/// `core.v1.Pod` of `io.k8s.api.core.v1.Pod`.
fn short_name(name: &str) -> &str {
    name.rmatch_indices('.').nth(2).map_or(name, |(at, _)| &name[at + 1..])
}

fn write_structure(definitions: &Definitions) -> Result<String> {
    let pointers = read_pointers(definitions)?;
    let mut text = String::from(
        "// Written by `cargo xtask schema`; crates/api/src/schema/load.rs says how to read it.\n",
    );
    for (name, definition) in definitions {
        text.push_str(name);
        if definition.atomic {
            text.push_str(" atomic");
        }
        for (group, version, kind) in &definition.kinds {
            write!(text, " {group}/{version}/{kind}")?;
        }
        let Some(properties) = definition.schema.get("properties").and_then(Value::as_object)
        else {
            text.push_str(&alias(name, &definition.schema)?);
            text.push('\n');
            continue;
        };
        text.push('\n');
        let required = definition.schema.get("required").and_then(Value::as_array);
        for (property, schema) in properties {
            let mut line = format!(" {property} {}", type_of(schema)?);
            if required.is_some_and(|names| names.iter().any(|name| name == property)) {
                line.push_str(" required");
            }
            line.push_str(&attributes(schema, definitions, property)?);
            let pointers = pointers.get(short_name(name));
            if pointers.is_some_and(|fields| fields.contains(property.as_str())) {
                line.push_str(" pointer");
            }
            if let Some(tags) = definition.tags.get(property) {
                let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
                write!(line, " tag={}", tags.join("."))?;
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
    Ok(text)
}

/// A definition without fields: an alias, an either-or, or a struct that has none yet.
fn alias(name: &str, schema: &Map<String, Value>) -> Result<String> {
    if let Some(sides) = schema.get("oneOf").and_then(Value::as_array) {
        let sides: Result<Vec<String>> = sides.iter().map(type_of).collect();
        return Ok(format!(" = {}", sides?.join(" ")));
    }
    let value = Value::Object(schema.clone());
    let scalar = scalar_definition(name).map(str::to_owned);
    match (scalar, schema.get("type").and_then(Value::as_str)) {
        (Some(word), _) => Ok(format!(" = {word}")),
        (None, Some("object") | None) if !schema.contains_key("additionalProperties") => {
            Ok(String::new())
        }
        _ => Ok(format!(" = {}", type_of(&value)?)),
    }
}

fn attributes(schema: &Value, definitions: &Definitions, property: &str) -> Result<String> {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    let mut line = String::new();
    // Keys from the merge code are plain; the item's own properties say how they are spelt.
    let item = schema.pointer("/items/$ref").and_then(Value::as_str).unwrap_or_default();
    let item = definitions.get(item.trim_start_matches("#/definitions/"));
    let spelt = |key: &str| {
        let names = item.and_then(|item| item.schema.get("properties")).and_then(Value::as_object);
        names
            .and_then(|names| names.keys().find(|name| plain(name) == plain(key)))
            .map_or(key.to_owned(), Clone::clone)
    };
    match text("x-kubernetes-list-type") {
        Some("set") => line.push_str(" set"),
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys: Vec<String> =
                keys.into_iter().flatten().filter_map(Value::as_str).map(spelt).collect();
            if keys.is_empty() {
                bail!("{property} is a list map without keys");
            }
            write!(line, " map={}", keys.join(","))?;
        }
        _ => (),
    }
    let strategy = text("x-kubernetes-patch-strategy").unwrap_or_default();
    if strategy.split(',').any(|word| word == "merge") {
        line.push_str(" merge");
        if let Some(key) = text("x-kubernetes-patch-merge-key") {
            write!(line, "={}", spelt(key))?;
        }
    }
    if strategy.split(',').any(|word| word == "retainKeys") {
        line.push_str(" retainKeys");
    }
    if text("x-kubernetes-map-type") == Some("atomic") {
        line.push_str(" atomic");
    }
    if let Some(default) = schema.get("default").map(ToString::to_string)
        && !default.contains(' ')
    {
        write!(line, " default={default}")?;
    }
    Ok(line)
}

/// The words of `schema/load.rs`.
fn type_of(schema: &Value) -> Result<String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.trim_start_matches("#/definitions/");
        return Ok(scalar_definition(name).map_or_else(|| format!("#{name}"), str::to_owned));
    }
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    Ok(match (text("type"), text("format")) {
        (Some("string"), Some("byte")) => "bytes".to_owned(),
        (Some("string"), _) => "string".to_owned(),
        (Some("integer"), Some("int32")) => "int32".to_owned(),
        (Some("integer"), _) => "int64".to_owned(),
        (Some("number"), _) => "number".to_owned(),
        (Some("boolean"), _) => "bool".to_owned(),
        (Some("array"), _) => format!("[]{}", type_of(&schema["items"])?),
        (Some("object"), _) => match schema.get("additionalProperties") {
            Some(value) => format!("{{}}{}", type_of(value)?),
            None => "any".to_owned(),
        },
        _ => bail!("a schema that we cannot name: {schema}"),
    })
}

fn scalar_definition(name: &str) -> Option<&'static str> {
    match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Some("quantity"),
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Some("intstr"),
        _ if ANY.contains(&name) => Some("any"),
        _ => match name.strip_prefix(META)? {
            ".Time" => Some("time"),
            ".MicroTime" => Some("microtime"),
            _ => None,
        },
    }
}

fn write_openapi(definitions: &Definitions) -> Result<Vec<u8>> {
    let mut document = Map::new();
    for (name, definition) in definitions {
        let mut schema = definition.schema.clone();
        // Upstream's own words for the types that k8s-openapi describes by extensions.
        match scalar_definition(name) {
            Some("quantity") => {
                schema.remove("x-kubernetes-int-or-string");
                schema.insert("type".to_owned(), "string".into());
            }
            Some("intstr") => {
                schema.remove("x-kubernetes-int-or-string");
                schema.insert("type".to_owned(), "string".into());
                schema.insert("format".to_owned(), "int-or-string".into());
            }
            _ => (),
        }
        if schema.remove("oneOf").is_some() || name.ends_with(".apiextensions.v1.JSON") {
            schema.remove("type");
        }
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            for property in properties.values_mut() {
                spell_keys(property, definitions);
            }
        }
        document.insert(name.clone(), schema.into());
    }
    let mut out = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    out.write_all(serde_json::to_string(&document)?.as_bytes())?;
    Ok(out.finish()?)
}

/// Puts the item's own spelling of keys into the extensions.
fn spell_keys(property: &mut Value, definitions: &Definitions) {
    let item = property.pointer("/items/$ref").and_then(Value::as_str).unwrap_or_default();
    let Some(item) = definitions.get(item.trim_start_matches("#/definitions/")) else { return };
    let Some(names) = item.schema.get("properties").and_then(Value::as_object) else { return };
    let spelt = |key: &mut Value| {
        let plain_key = plain(key.as_str().unwrap_or_default());
        if let Some(name) = names.keys().find(|name| plain(name) == plain_key) {
            *key = name.clone().into();
        }
    };
    if let Some(Value::Array(keys)) = property.get_mut("x-kubernetes-list-map-keys") {
        keys.iter_mut().for_each(spelt);
    }
    if let Some(key) = property.get_mut("x-kubernetes-patch-merge-key") {
        spelt(key);
    }
}
