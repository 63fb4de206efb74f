//! Finds and reads the two crates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde_json::{Map, Value};

use super::literal::Literal;

const OPENAPI_CRATE: (&str, &str) = ("k8s-openapi", "0.29.0");
const PROTOBUF_CRATE: (&str, &str) = ("k8s-pb", "0.9.0");

/// Where the two crates' sources are.
pub(super) struct Sources {
    pub(super) openapi: PathBuf,
    pub(super) protobuf: PathBuf,
}

impl Sources {
    /// Asks cargo, through a project that depends on exactly these two, so that the product need not.
    pub(super) fn find() -> Result<Self> {
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
            let packages =
                metadata["packages"].as_array().context("cargo metadata lists no packages")?;
            let package = packages.iter().find(|package| package["name"] == name);
            let manifest = package.and_then(|package| package["manifest_path"].as_str());
            let manifest = Path::new(manifest.with_context(|| format!("cargo knows no {name}"))?);
            Ok(manifest.parent().context("a manifest lies in no directory")?.to_owned())
        };
        Ok(Self { openapi: directory(OPENAPI_CRATE.0)?, protobuf: directory(PROTOBUF_CRATE.0)? })
    }
}

/// One definition on its way into the files.
pub(super) struct Definition {
    /// `crate::api::core::v1::Pod`, which both crates use.
    pub(super) rust_path: String,
    /// JSON schema in OpenAPI v2's form.
    pub(super) schema: Map<String, Value>,
    /// Group, version and kind.
    pub(super) kinds: BTreeSet<(String, String, String)>,
    /// What k8s-openapi's merge code says of a field (by [`plain`] name).
    pub(super) merging: BTreeMap<String, Merging>,
    /// Protobuf tags by property.
    pub(super) tags: BTreeMap<String, Vec<u32>>,
    /// Whether server-side apply takes the struct as a whole.
    pub(super) atomic: bool,
}

pub(super) enum Merging {
    ListSet,
    ListMap(Vec<String>),
    ListAtomic,
    MapAtomic,
}

pub(super) type Definitions = BTreeMap<String, Definition>;

pub(super) fn read_definitions(root: &Path) -> Result<Definitions> {
    let name = Regex::new(
        r"JsonSchema for (\w+)(?:<T>)? \{\s*fn schema_name\(\)[^{]*\{\s*\x22([^\x22]+)\x22",
    )?;
    let mut definitions = Definitions::new();
    let mut names = BTreeMap::new();
    for file in rust_files(root)? {
        let text = std::fs::read_to_string(&file)?;
        let (Some(found), Some(start)) = (name.captures(&text), text.find("json_schema!(")) else {
            continue;
        };
        let module = file
            .parent()
            .and_then(|parent| parent.strip_prefix(root).ok())
            .context("a file outside its root")?;
        let module = module.to_string_lossy().replace('/', "::");
        let rust_path = format!("crate::{module}::{}", &found[1]);
        names.insert(rust_path.clone(), found[2].to_owned());
        let body = &text[start + "json_schema!(".len()..];
        let Value::Object(schema) =
            Literal::new(body).value().with_context(|| file.display().to_string())?
        else {
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
pub(super) fn keep_stable(definitions: &mut Definitions) {
    let unstable = |name: &str| name.contains("alpha") || name.contains("beta");
    let mut kept: BTreeSet<String> =
        definitions.keys().filter(|name| !unstable(name)).cloned().collect();
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
pub(super) struct Message {
    pub(super) markers: Vec<String>,
    pub(super) fields: Vec<MessageField>,
}

pub(super) struct MessageField {
    pub(super) name: String,
    pub(super) tag: u32,
    pub(super) markers: Vec<String>,
    /// Path of the message that it holds, if it holds one.
    pub(super) message: Option<String>,
}

pub(super) fn read_messages(root: &Path) -> Result<BTreeMap<String, Message>> {
    let tag = Regex::new(r#"tag = "(\d+)""#)?;
    let held = Regex::new(r"Option<([\w:]+)>")?;
    let mut messages: BTreeMap<String, Message> = BTreeMap::new();
    for file in rust_files(root)? {
        let text = std::fs::read_to_string(&file)?;
        let module = file
            .parent()
            .and_then(|parent| parent.strip_prefix(root).ok())
            .context("a file outside its root")?;
        let module: Vec<String> =
            module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
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
            } else if let Some((name, type_)) =
                line.strip_prefix("pub ").and_then(|field| field.split_once(':'))
            {
                // Not every public item is a field of a message.
                let Some(found) = tag.captures(&attribute) else { continue };
                let message = if attribute.starts_with("#[prost(message") {
                    held.captures(type_).map(|held| absolute(&module, &held[1]))
                } else {
                    None
                };
                let markers = std::mem::take(&mut markers);
                let field =
                    MessageField { name: plain(name), tag: found[1].parse()?, markers, message };
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
pub(super) fn message_key(path: &str) -> String {
    path.to_ascii_lowercase()
}

/// A name in the one spelling that Rust's, protobuf's and JSON's have in common.
pub(super) fn plain(name: &str) -> String {
    let name = name.trim_start_matches("r#");
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect()
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
        {
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
