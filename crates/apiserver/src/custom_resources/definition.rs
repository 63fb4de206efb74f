//! What a CRD says about the objects of one of its versions, read once.

use std::sync::Arc;

use arc_swap::ArcSwap;
use coracle_api::kinds::{Custom, Kind, api_version};
use serde_json::{Value, json};

use super::conversion::Conversion;
use super::json_path::JsonPath;
use super::schema::Node;
use super::values;

/// All that is not in the [`Kind`].
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) schema: Arc<Node>,
    /// The same as it was written: for OpenAPI documents, and for applying.
    pub(crate) open_api: Value,
    /// Whether unknown fields stay, as the definition's old `preserveUnknownFields` wants.
    pub(crate) keeps_unknown: bool,
    pub(crate) columns: Vec<PrinterColumn>,
    pub(crate) has_status: bool,
    pub(crate) scale: Option<Scale>,
    pub(crate) selectable: Vec<(String, JsonPath)>,
    /// How objects get from one version to another.
    pub(crate) conversion: Arc<Conversion>,
    /// Whether stored objects may have been written in another version, or by another schema, and no webhook brings them into shape.
    pub(crate) rewrites: bool,
    /// What users of this version are told.
    pub(crate) deprecation: Option<String>,
}

/// A column of `kubectl get`.
#[derive(Debug)]
pub(crate) struct PrinterColumn {
    pub(crate) name: String,
    pub(crate) type_: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: Option<JsonPath>,
}

/// Where the scale of an object is.
#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) spec_replicas: JsonPath,
    pub(crate) status_replicas: JsonPath,
    pub(crate) selector: Option<JsonPath>,
}

/// Where a kind finds its definition, which may change while the kind stays.
pub(super) type Cell = ArcSwap<Definition>;

/// The definition of a kind; `None` for built-in kinds.
pub(crate) fn definition_of(kind: &Kind) -> Option<Arc<Definition>> {
    let Custom(cell) = kind.custom?;
    cell.downcast_ref::<Cell>().map(ArcSwap::load_full)
}

impl Definition {
    /// Reads one version of a definition.
    pub(super) fn read_version(
        definition: &Value,
        version: &Value,
        conversion: &Arc<Conversion>,
    ) -> Self {
        let spec = &definition["spec"];
        let versions = spec["versions"].as_array().map_or(0, Vec::len);
        let group = spec["group"].as_str().unwrap_or_default();
        let name = version["name"].as_str().unwrap_or_default();
        let kind = spec["names"]["kind"].as_str().unwrap_or_default();
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let selectable = selectable.filter_map(|field| field["jsonPath"].as_str());
        let warning = || format!("{group}/{name} {kind} is deprecated");
        let said = version["deprecationWarning"].as_str().filter(|text| !text.is_empty());
        Self {
            open_api: version["schema"]["openAPIV3Schema"].clone(),
            schema: conversion.schema(&api_version(group, name)).cloned().unwrap_or_default(),
            keeps_unknown: spec["preserveUnknownFields"] == true,
            columns: columns(version),
            has_status: version["subresources"]["status"].is_object(),
            scale: scale(&version["subresources"]["scale"]),
            selectable: selectable
                .filter_map(|path| {
                    Some((path.trim_start_matches('.').to_owned(), JsonPath::parse(path).ok()?))
                })
                .collect(),
            conversion: conversion.clone(),
            rewrites: spec["conversion"]["strategy"] != "Webhook"
                && (versions > 1
                    || definition["metadata"]["generation"].as_i64().unwrap_or_default() > 1),
            deprecation: (version["deprecated"] == true)
                .then(|| said.map_or_else(warning, str::to_owned)),
        }
    }

    /// Brings a stored object into the shape of `kind`, a version of this definition.
    pub(super) fn read(&self, kind: &Kind, object: &mut Value) {
        self.conversion.complete(object);
        object["apiVersion"] = json!(kind.api_version);
        if !self.keeps_unknown {
            values::prune(object, &self.schema);
        }
    }

    /// The value of a field that objects can be selected by; empty when there is none.
    pub(crate) fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let (_, path) = self.selectable.iter().find(|(name, _)| name == field)?;
        Some(match path.first(object) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        })
    }
}

fn columns(version: &Value) -> Vec<PrinterColumn> {
    let text = |column: &Value, field: &str| column[field].as_str().unwrap_or_default().to_owned();
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    let mut columns: Vec<PrinterColumn> = columns
        .map(|column| PrinterColumn {
            name: text(column, "name"),
            type_: text(column, "type"),
            format: text(column, "format"),
            description: text(column, "description"),
            priority: column["priority"].as_i64().unwrap_or_default(),
            path: JsonPath::parse(&text(column, "jsonPath")).ok(),
        })
        .collect();
    if columns.is_empty() {
        columns.push(PrinterColumn {
            name: "Age".to_owned(),
            type_: "date".to_owned(),
            format: String::new(),
            description: AGE.to_owned(),
            priority: 0,
            path: JsonPath::parse(".metadata.creationTimestamp").ok(),
        });
    }
    columns
}

const AGE: &str = "When the object was created.";

fn scale(scale: &Value) -> Option<Scale> {
    let path = |field: &str| JsonPath::parse(scale[field].as_str()?).ok();
    Some(Scale {
        spec_replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        selector: path("labelSelectorPath"),
    })
}
