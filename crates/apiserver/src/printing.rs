//! Tables for `kubectl get`, and objects reduced to their metadata.

use coracle_api::kinds::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::query::Query;
use crate::{custom_resources, table};
use coracle_api::status::Status;

/// How much of the object stands beside its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// Its metadata, which is the default.
    Metadata,
    /// All of it, for `kubectl get --sort-by`.
    Object,
}

impl Include {
    /// `includeObject`, or 400.
    pub(crate) fn read(query: &Query) -> Answer<Self> {
        match query.get("includeObject") {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => {
                Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}")))
            }
        }
    }
}

/// A whole table. `metadata` is the list's.
pub(crate) fn table(
    kind: &Kind,
    objects: &[Value],
    include: Include,
    version: &str,
    metadata: Value,
) -> Value {
    let now = Timestamp::now();
    let rows: Vec<Value> =
        objects.iter().map(|object| row(kind, object, include, version, now)).collect();
    table_of(kind, rows, version, metadata)
}

/// A table of rows that are made already.
pub(crate) fn table_of(kind: &Kind, rows: Vec<Value>, version: &str, metadata: Value) -> Value {
    let built_in = || {
        table::for_kind(kind)
            .definitions
            .iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.kind,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect()
    };
    let columns: Vec<Value> = custom_resources::column_definitions(kind).unwrap_or_else(built_in);
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The row of one object.
pub(crate) fn row(
    kind: &Kind,
    object: &Value,
    include: Include,
    version: &str,
    now: Timestamp,
) -> Value {
    let cells = custom_resources::cells(kind, object, now)
        .unwrap_or_else(|| (table::for_kind(kind).cells)(object, now));
    match include {
        Include::None => json!({ "cells": cells, "object": null }),
        Include::Metadata => json!({ "cells": cells, "object": metadata_only(object, version) }),
        Include::Object => json!({ "cells": cells, "object": object }),
    }
}

/// The same of an object's JSON, without reading more of it than where its metadata begins and ends: the garbage
/// collector watches every object of the cluster so. `None` when it is no object with metadata.
pub(crate) fn metadata_text(object: &[u8], version: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        metadata: &'a serde_json::value::RawValue,
    }
    let Whole { metadata } = serde_json::from_slice(object).ok()?;
    Some(format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":{metadata}}}"#
    ))
}

/// The object reduced to a `PartialObjectMetadata`.
pub(crate) fn metadata_only(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_cut_out_of_the_text_as_it_is_out_of_the_value() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "a", "labels": { "metadata": "}{" } },
            "data": { "metadata": "{\"name\": \"b\"}" },
        });
        let text = metadata_text(object.to_string().as_bytes(), "v1").unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, metadata_only(&object, "v1"));
        assert_eq!(metadata_text(b"{\"kind\":\"Status\"}", "v1"), None);
    }
}
