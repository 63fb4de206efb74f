//! The OpenAPI documents, made from the table of kinds and the generated definitions.
//!
//! Clients read them for three things: `kubectl explain` for descriptions, `kubectl apply` to learn whether a kind
//! takes `fieldValidation` and how its lists merge, and client generators for operations. All functions are pure; the
//! definitions are unpacked on each call, because they are needed rarely and are large, so callers keep what they
//! encode.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::{Map, Value, json};

use crate::kinds::{self, GroupVersion, Kind};

mod merge;
mod message;
mod paths;
mod schemas;

pub use merge::{add_v2_part, v2_part};

const PACKED: &[u8] = include_bytes!("../schema/openapi.json.gz");
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// The Kubernetes that the documents describe.
const VERSION: &str = "v1.37.0";

/// Which of the two forms a document has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

/// Kinds that are served beside the built-in ones.
#[derive(Debug, Default)]
pub struct Custom {
    /// The kinds.
    pub kinds: Vec<&'static Kind>,
    /// What their objects look like, in OpenAPI v2's form, under the names that [`name_of_custom`] gives.
    pub definitions: Map<String, Value>,
}

impl Custom {
    fn all(&self) -> impl Iterator<Item = &'static Kind> {
        kinds::all().iter().chain(self.kinds.iter().copied())
    }

    fn group_versions(&self) -> Vec<GroupVersion> {
        let mut found = kinds::group_versions().to_vec();
        for kind in &self.kinds {
            if !found.contains(&kind.group_version()) {
                found.push(kind.group_version());
            }
        }
        found
    }
}

/// The name of a custom kind's definition: `com.example.stable.v1.CronTab`.
pub fn name_of_custom(kind: &Kind) -> String {
    schemas::custom_name(kind.group, kind.version, kind.kind)
}

/// The OpenAPI v3 document of a group-version, such as `apps/v1` or `v1`; `None` if it has no kinds.
pub fn document(group_version: &str, custom: &Custom) -> Option<Value> {
    let versions = custom.group_versions();
    let served = versions.iter().find(|served| served.api_version == group_version)?;
    Some(v3_document(*served, &definitions(custom), custom))
}

/// Every OpenAPI v3 document with its group-version, unpacking the definitions once.
pub fn documents() -> Vec<(GroupVersion, Value)> {
    let custom = Custom::default();
    let definitions = definitions(&custom);
    kinds::group_versions()
        .iter()
        .map(|served| (*served, v3_document(*served, &definitions, &custom)))
        .collect()
}

/// The OpenAPI v2 document of everything.
pub fn v2_document(custom: &Custom) -> Value {
    let mut definitions = definitions(custom);
    let versions = custom.group_versions();
    let mut all_paths = Map::new();
    for served in &versions {
        all_paths.append(&mut paths::of(*served, Form::V2, &definitions, custom));
    }
    let roots =
        versions.iter().flat_map(|served| root_names(*served, &definitions, custom)).collect();
    let kept = schemas::reachable(&definitions, roots);
    definitions.retain(|name, _| kept.contains(name));
    for kind in &custom.kinds {
        if let Some(definition) = definitions.get_mut(&name_of_custom(kind)) {
            schemas::reduce_kind_to_v2(definition);
        }
    }
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": all_paths,
        "definitions": definitions,
        "securityDefinitions": {
            "BearerToken": {
                "type": "apiKey",
                "name": "authorization",
                "in": "header",
                "description": "Bearer Token authentication"
            }
        },
        "security": [{ "BearerToken": [] }]
    })
}

/// An OpenAPI v2 document as gnostic's protobuf message.
pub fn v2_message(document: &Value) -> Vec<u8> {
    message::encode(document)
}

/// The definition of a built-in kind in OpenAPI v3's form, with the definitions that it refers to, by name.
pub fn definition(kind: &Kind) -> Option<(String, Map<String, Value>)> {
    let definitions = definitions(&Custom::default());
    let name = schemas::name_of(kind.group, kind.version, kind.kind)?;
    let kept = schemas::reachable(&definitions, vec![name.clone()]);
    Some((name, schemas::as_v3(&definitions, &kept)))
}

fn v3_document(served: GroupVersion, definitions: &Map<String, Value>, custom: &Custom) -> Value {
    let kept = schemas::reachable(definitions, root_names(served, definitions, custom));
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths::of(served, Form::V3, definitions, custom),
        "components": {
            "schemas": schemas::as_v3(definitions, &kept),
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "name": "authorization",
                    "in": "header",
                    "description": "Bearer Token authentication"
                }
            }
        }
    })
}

/// The definitions that the paths of a group-version refer to.
fn root_names(
    served: GroupVersion,
    definitions: &Map<String, Value>,
    custom: &Custom,
) -> Vec<String> {
    let shared = ["APIResourceList", "DeleteOptions", "Patch", "Status", "WatchEvent"];
    let mut names: BTreeSet<String> = shared.iter().map(|name| format!("{META}.{name}")).collect();
    for kind in custom.all().filter(|kind| kind.group_version() == served) {
        let Some(name) = schemas::name_of(kind.group, kind.version, kind.kind) else { continue };
        names.insert(format!("{name}List"));
        names.insert(name);
        for subresource in kind.subresources {
            names.extend(schemas::name_of(
                subresource.group,
                subresource.version,
                subresource.kind,
            ));
        }
    }
    names.into_iter().filter(|name| definitions.contains_key(name)).collect()
}

/// Every definition in OpenAPI v2's form, lists included.
fn definitions(custom: &Custom) -> Map<String, Value> {
    let mut text = String::new();
    let unpacked = flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text);
    let parsed = unpacked.ok().and_then(|_| serde_json::from_str(&text).ok());
    let mut definitions: Map<String, Value> =
        parsed.expect("the packed definitions are generated and tested");
    definitions.extend(custom.definitions.clone());
    schemas::add_lists(&mut definitions, custom.all());
    schemas::add_shared_kinds(&mut definitions, &custom.group_versions());
    definitions
}

#[cfg(test)]
mod tests;
