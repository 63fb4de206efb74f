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
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde_json::{Map, Value, json};

const OPENAPI_CRATE: (&str, &str) = ("k8s-openapi", "0.29.0");
const PROTOBUF_CRATE: (&str, &str) = ("k8s-pb", "0.9.0");
const API_VERSION_DIRECTORY: &str = "src/v1_37";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Definitions whose values are arbitrary JSON.
const ANY: [&str; 4] = [
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
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
            std::fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
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
    let structure = write_structure(&definitions)?;
    let openapi = write_openapi(&definitions)?;
    Ok(vec![("structure.txt", structure.into_bytes()), ("openapi.json.gz", openapi)])
}

/// Where the two crates' sources are.
struct Sources {
    openapi: PathBuf,
    protobuf: PathBuf,
}

impl Sources {
    /// Asks cargo, through a project that depends on exactly these two, so that the product need not.
    fn find() -> Result<Self> {
        let project = tempfile::tempdir()?;
        std::fs::create_dir(project.path().join("src"))?;
        std::fs::write(project.path().join("src/lib.rs"), "")?;
        let manifest = format!(
            "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
             {} = {{ version = \"={}\", features = [\"v1_37\"] }}\n{} = \"={}\"\n",
            OPENAPI_CRATE.0, OPENAPI_CRATE.1, PROTOBUF_CRATE.0, PROTOBUF_CRATE.1
        );
        std::fs::write(project.path().join("Cargo.toml"), manifest)?;
        let output = Command::new("cargo")
            .args(["metadata", "--format-version", "1", "--quiet"])
            .current_dir(project.path())
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let directory = |name: &str| -> Result<PathBuf> {
            let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
            let package = packages.iter().find(|package| package["name"] == name);
            let manifest = package.and_then(|package| package["manifest_path"].as_str());
            let manifest = Path::new(manifest.with_context(|| format!("cargo knows no {name}"))?);
            Ok(manifest.parent().context("a manifest lies in no directory")?.to_owned())
        };
        Ok(Self { openapi: directory(OPENAPI_CRATE.0)?, protobuf: directory(PROTOBUF_CRATE.0)? })
    }
}

/// One definition on its way into the files.
struct Definition {
    /// `crate::api::core::v1::Pod`, which both crates use.
    rust_path: String,
    /// JSON schema in OpenAPI v2's form.
    schema: Map<String, Value>,
    /// Group, version and kind.
    kinds: BTreeSet<(String, String, String)>,
    /// What k8s-openapi's merge code says of a field (by [`plain`] name).
    merging: BTreeMap<String, Merging>,
    /// Protobuf tags by property.
    tags: BTreeMap<String, Vec<u32>>,
    /// Whether server-side apply takes the struct as a whole.
    atomic: bool,
}

enum Merging {
    ListSet,
    ListMap(Vec<String>),
    ListAtomic,
    MapAtomic,
}

type Definitions = BTreeMap<String, Definition>;

fn read_definitions(root: &Path) -> Result<Definitions> {
    let name = Regex::new(r"JsonSchema for (\w+)(?:<T>)? \{\s*fn schema_name\(\)[^{]*\{\s*\x22([^\x22]+)\x22")?;
    let mut definitions = Definitions::new();
    let mut names = BTreeMap::new();
    for file in rust_files(root)? {
        let text = std::fs::read_to_string(&file)?;
        let (Some(found), Some(start)) = (name.captures(&text), text.find("json_schema!(")) else { continue };
        let module = file.parent().and_then(|parent| parent.strip_prefix(root).ok()).context("a file outside its root")?;
        let module = module.to_string_lossy().replace('/', "::");
        let rust_path = format!("crate::{module}::{}", &found[1]);
        names.insert(rust_path.clone(), found[2].to_owned());
        let body = &text[start + "json_schema!(".len()..];
        let Value::Object(schema) = Literal { text: body, at: 0 }.value().with_context(|| file.display().to_string())? else {
            bail!("{}: the schema is no object", file.display());
        };
        let (kinds, merging) = (read_kind(&text)?, read_merging(&text)?);
        let definition =
            Definition { rust_path, schema, kinds, merging, tags: BTreeMap::new(), atomic: false };
        definitions.insert(found[2].to_owned(), definition);
    }
    for definition in definitions.values_mut() {
        resolve(&mut definition.schema, &names)?;
    }
    Ok(definitions)
}

/// References are still Rust paths; makes them OpenAPI references.
fn resolve(schema: &mut Map<String, Value>, names: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in schema.iter_mut() {
        match value {
            Value::String(path) if key == "$ref" && path.starts_with("crate::") => {
                let name = names.get(path).with_context(|| format!("no definition for {path}"))?;
                *path = format!("#/definitions/{name}");
            }
            Value::Object(inner) => resolve(inner, names)?,
            Value::Array(items) => {
                for inner in items.iter_mut().filter_map(Value::as_object_mut) {
                    resolve(inner, names)?;
                }
            }
            _ => (),
        }
    }
    Ok(())
}

fn read_kind(text: &str) -> Result<BTreeSet<(String, String, String)>> {
    let constant = |name: &str| -> Result<Option<String>> {
        let pattern = Regex::new(&format!("const {name}: &'static str = \"([^\"]*)\""))?;
        Ok(pattern.captures(text).map(|found| found[1].to_owned()))
    };
    Ok(match (constant("GROUP")?, constant("VERSION")?, constant("KIND")?) {
        (Some(group), Some(version), Some(kind)) => BTreeSet::from([(group, version, kind)]),
        _ => BTreeSet::new(),
    })
}

fn read_merging(text: &str) -> Result<BTreeMap<String, Merging>> {
    let call = Regex::new(
        r"merge_strategies::(list|map)::(\w+)\(\s*&mut self\.([\w#]+),\s*other\.[\w#]+(?:,\s*&\[([^\]]*)\])?",
    )?;
    let key = Regex::new(r"lhs\.([\w#]+) ==")?;
    let mut merging = BTreeMap::new();
    for found in call.captures_iter(text) {
        let strategy = match (&found[1], &found[2]) {
            ("list", "set") => Merging::ListSet,
            ("list", "atomic") => Merging::ListAtomic,
            ("map", "atomic") => Merging::MapAtomic,
            ("list", "map") => {
                let keys = found.get(4).map_or("", |keys| keys.as_str());
                Merging::ListMap(key.captures_iter(keys).map(|key| plain(&key[1])).collect())
            }
            _ => continue,
        };
        merging.insert(plain(&found[3]), strategy);
    }
    Ok(merging)
}

/// Only stable versions, and what they refer to.
fn keep_stable(definitions: &mut Definitions) {
    let unstable = |name: &str| name.contains("alpha") || name.contains("beta");
    let mut kept: BTreeSet<String> = definitions.keys().filter(|name| !unstable(name)).cloned().collect();
    let mut queue: Vec<String> = kept.iter().cloned().collect();
    while let Some(name) = queue.pop() {
        let mut found = Vec::new();
        if let Some(definition) = definitions.get(&name) {
            definition.schema.values().for_each(|value| references(value, &mut found));
        }
        queue.extend(found.into_iter().filter(|name| kept.insert(name.clone())));
    }
    definitions.retain(|name, definition| {
        definition.kinds.retain(|(_, version, _)| !unstable(version));
        kept.contains(name)
    });
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(name) = object.get("$ref").and_then(Value::as_str) {
                found.push(name.trim_start_matches("#/definitions/").to_owned());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => (),
    }
}

/// A message of k8s-pb.
#[derive(Default)]
struct Message {
    markers: Vec<String>,
    fields: Vec<MessageField>,
}

struct MessageField {
    name: String,
    tag: u32,
    markers: Vec<String>,
    /// Path of the message that it holds, if it holds one.
    message: Option<String>,
}

fn read_messages(root: &Path) -> Result<BTreeMap<String, Message>> {
    let tag = Regex::new(r#"tag = "(\d+)""#)?;
    let held = Regex::new(r"Option<([\w:]+)>")?;
    let mut messages: BTreeMap<String, Message> = BTreeMap::new();
    for file in rust_files(root)? {
        let text = std::fs::read_to_string(&file)?;
        let module = file.parent().and_then(|parent| parent.strip_prefix(root).ok()).context("a file outside its root")?;
        let module: Vec<String> = module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let (mut markers, mut attribute, mut open) = (Vec::new(), String::new(), String::new());
        // A declaration may go over two lines; join it.
        for line in text.replace(":\n", ": ").lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("///") {
                markers.extend(comment.trim().strip_prefix('+').map(str::to_owned));
            } else if line.starts_with("#[prost") {
                line.clone_into(&mut attribute);
            } else if let Some(name) = line.strip_prefix("pub struct ") {
                let name = name.trim_end_matches(['{', ' ', '}', ';']);
                open = message_key(&format!("crate::{}::{name}", module.join("::")));
                messages.entry(open.clone()).or_default().markers = std::mem::take(&mut markers);
            } else if let Some((name, type_)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
                // Not every public item is a field of a message.
                let Some(found) = tag.captures(&attribute) else { continue };
                let message = if attribute.starts_with("#[prost(message") {
                    held.captures(type_).map(|held| absolute(&module, &held[1]))
                } else {
                    None
                };
                let markers = std::mem::take(&mut markers);
                let field = MessageField { name: plain(name), tag: found[1].parse()?, markers, message };
                messages.entry(open.clone()).or_default().fields.push(field);
            } else if line.starts_with('}') || line.starts_with("//") {
                markers.clear();
            }
        }
    }
    Ok(messages)
}

/// `super::super::core::v1::X`, as seen from `module`, from the crate's root.
fn absolute(module: &[String], path: &str) -> String {
    let mut base = module.to_vec();
    let mut rest = path;
    while let Some(shorter) = rest.strip_prefix("super::") {
        base.pop();
        rest = shorter;
    }
    base.push(rest.to_owned());
    message_key(&format!("crate::{}", base.join("::")))
}

/// prost spells `HTTPGetAction` as `HttpGetAction`.
fn message_key(path: &str) -> String {
    path.to_ascii_lowercase()
}

/// Adds to a definition what its message knows, and writes the extensions that upstream's document has.
fn annotate(definition: &mut Definition, messages: &BTreeMap<String, Message>) -> Result<()> {
    let required = definition.schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    // k8s-openapi demands every object's metadata, because its own types do; upstream does not.
    let required: Vec<Value> = required.into_iter().filter(|name| name != "metadata").collect();
    definition.schema.remove("required");
    if !required.is_empty() {
        definition.schema.insert("required".to_owned(), required.into());
    }
    let message = message_key(&definition.rust_path);
    if let Some(message) = messages.get(&message) {
        definition.atomic = message.markers.iter().any(|marker| marker == "structType=atomic");
    }
    let Some(Value::Object(mut properties)) = definition.schema.remove("properties") else { return Ok(()) };
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
        let kinds = definition.kinds.iter().map(|(group, version, kind)| {
            json!({ "group": group, "kind": kind, "version": version })
        });
        definition.schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds.collect());
    }
    Ok(())
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
        if properties.keys().any(|name| plain(name) == field.name) {
            found.entry(field.name.clone()).or_insert_with(|| (outer.clone(), field.markers.clone()));
        } else if let Some(inner) = &field.message
            && outer.len() < 3
        {
            collect_fields(messages, inner, properties, outer, found);
        }
        outer.pop();
    }
}

fn extend_property(property: &mut Map<String, Value>, markers: &[String], merging: Option<&Merging>) {
    let values = |name: &str| -> Vec<String> {
        let prefixes = [format!("{name}="), format!("k8s:{name}=")];
        let mut found = Vec::new();
        for prefix in prefixes {
            found.extend(markers.iter().filter_map(|marker| marker.strip_prefix(&prefix)).map(|value| {
                value.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned()
            }));
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
        Some(Merging::ListMap(from)) if list_type.is_none() && strategy.is_none() && patch_key.is_none() => {
            (list_type, keys) = (Some("map".to_owned()), from.clone());
            patch_key = from.first().cloned();
            strategy = Some("merge".to_owned());
        }
        Some(Merging::ListSet) if list_type.is_none() => list_type = Some("set".to_owned()),
        Some(Merging::ListAtomic) if list_type.is_none() && markers.is_empty() => list_type = Some("atomic".to_owned()),
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

fn write_structure(definitions: &Definitions) -> Result<String> {
    let mut text = String::from("// Written by `cargo xtask schema`; crates/api/src/schema/load.rs says how to read it.\n");
    for (name, definition) in definitions {
        text.push_str(name);
        if definition.atomic {
            text.push_str(" atomic");
        }
        for (group, version, kind) in &definition.kinds {
            write!(text, " {group}/{version}/{kind}")?;
        }
        let Some(properties) = definition.schema.get("properties").and_then(Value::as_object) else {
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
        (None, Some("object") | None) if !schema.contains_key("additionalProperties") => Ok(String::new()),
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
        names.and_then(|names| names.keys().find(|name| plain(name) == plain(key))).map_or(key.to_owned(), Clone::clone)
    };
    match text("x-kubernetes-list-type") {
        Some("set") => line.push_str(" set"),
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys: Vec<String> = keys.into_iter().flatten().filter_map(Value::as_str).map(spelt).collect();
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

/// A name in the one spelling that Rust's, protobuf's and JSON's have in common.
fn plain(name: &str) -> String {
    let name = name.trim_start_matches("r#");
    name.chars().filter(char::is_ascii_alphanumeric).map(|character| character.to_ascii_lowercase()).collect()
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the argument of `json_schema!`: JSON in Rust's spelling, with references as Rust expressions.
struct Literal<'a> {
    text: &'a str,
    at: usize,
}

impl Literal<'_> {
    fn value(&mut self) -> Result<Value> {
        match self.peek()? {
            '{' => self.object(),
            '[' => self.array(),
            '"' => Ok(self.string()?.into()),
            '(' => self.reference(),
            '_' => Ok(json!({ "$ref": self.path()? })),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', '}', ']', '\n']).context("a value without an end")?;
                self.at += end;
                serde_json::from_str(rest[..end].trim()).with_context(|| format!("no JSON value: {:.60}", &rest[..end]))
            }
        }
    }

    fn object(&mut self) -> Result<Value> {
        self.expect("{")?;
        let mut object = Map::new();
        while self.peek()? != '}' {
            let key = self.string()?;
            self.expect(":")?;
            object.insert(key, self.value()?);
            if self.peek()? == ',' {
                self.expect(",")?;
            }
        }
        self.expect("}")?;
        Ok(object.into())
    }

    fn array(&mut self) -> Result<Value> {
        self.expect("[")?;
        let mut items = Vec::new();
        while self.peek()? != ']' {
            items.push(self.value()?);
            if self.peek()? == ',' {
                self.expect(",")?;
            }
        }
        self.expect("]")?;
        Ok(items.into())
    }

    /// `(__gen.subschema_for::<PATH>())`, alone or in a block that adds a description.
    fn reference(&mut self) -> Result<Value> {
        self.expect("(")?;
        let described = self.peek()? == '{';
        let path = self.path()?;
        let mut schema = Map::from_iter([("$ref".to_owned(), Value::from(path))]);
        if described {
            let marker = "insert(\"description\".into(),";
            let start = self.text[self.at..].find(marker).context("a block without a description")?;
            self.at += start + marker.len();
            schema.insert("description".to_owned(), self.string()?.into());
            let end = self.text[self.at..].find("})").context("a block without an end")?;
            self.at += end + "})".len();
        } else {
            self.expect(")")?;
        }
        Ok(schema.into())
    }

    /// The path in the next `__gen.subschema_for::<PATH>()`.
    fn path(&mut self) -> Result<String> {
        let start = self.text[self.at..].find("subschema_for::<").context("an expression that is no reference")?;
        self.at += start + "subschema_for::<".len();
        let end = self.text[self.at..].find(">()").context("a reference without an end")?;
        let path = self.text[self.at..self.at + end].to_owned();
        self.at += end + ">()".len();
        Ok(path)
    }

    fn string(&mut self) -> Result<String> {
        self.expect("\"")?;
        let mut text = String::new();
        let mut characters = self.text[self.at..].char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(plain @ ('"' | '\\' | '\'')) => text.push(plain),
                    other => bail!("an escape that we do not know: {other:?}"),
                },
                plain => text.push(plain),
            }
        }
        bail!("a string without an end")
    }

    fn peek(&mut self) -> Result<char> {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest.chars().next().context("the text ends too early")
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        self.peek()?;
        if !self.text[self.at..].starts_with(token) {
            bail!("expected {token} before {:.40}", &self.text[self.at..]);
        }
        self.at += token.len();
        Ok(())
    }
}
