//! Kinds that appear at run time: what CustomResourceDefinitions make of the API.
//!
//! Start reading at [`Registry`], the kinds that are served at the moment, and at `upkeep.rs`, which keeps it as the definitions
//! want it. A custom kind is a [`Kind`] like any other; what its definition says beyond names (schema, columns, scale) is its
//! [`Definition`], found with [`definition_of`]. Handlers meet both only at the few places where custom kinds differ: decoding,
//! rules, tables, selectable fields and the scale.
//!
//! What is always true:
//! - A kind is served before its definition says `Established`, and until the last of its objects is gone.
//! - A `Kind` is never freed, because every request holds plain references to it; equal ones are the same one, so that what is kept
//!   is bounded by the different names that were ever served. Definitions, which are large, are freed when they are replaced.
//! - Objects are stored in the version that was the stored one when they were last written. When their definition was changed since,
//!   or has several versions, they are brought into the shape of the requested version as they are read, by a webhook if the
//!   definition names one.

mod cel;
mod columns;
mod conditions;
mod conversion;
mod decode;
mod definition;
mod extent;
mod formats;
mod json_path;
mod openapi;
mod registry;
mod rules;
mod schema;
mod structural;
mod upkeep;
mod validate;
mod values;

use coracle_api::kinds::Kind;

pub(crate) use cel::escape;
pub(crate) use columns::{cells, column_definitions};
pub(crate) use conditions::{begin_termination, is_definition};
pub(crate) use conversion::{
    bring, bring_all, convert, decoded, is_by_webhook, is_stale, to_storage,
};
pub(crate) use decode::decode;
pub(crate) use definition::{Definition, definition_of};
pub(crate) use json_path::JsonPath;
pub(crate) use openapi::extend as extend_openapi;
pub(crate) use registry::{Registry, Snapshot, version_rank};
pub(crate) use rules::rules_of;
pub(crate) use structural::{validate_definition, validate_definition_update};
pub(crate) use upkeep::Upkeep;

/// Whether stored objects of this kind may differ from what a reader is to see.
pub(crate) fn rewrites(kind: &Kind) -> bool {
    definition_of(kind).is_some_and(|definition| definition.rewrites)
}

/// Brings a stored object into the shape of this kind's version.
pub(crate) fn read(kind: &Kind, object: &mut serde_json::Value) {
    if let Some(definition) = definition_of(kind).filter(|definition| definition.rewrites) {
        definition.read(kind, object);
    }
}
