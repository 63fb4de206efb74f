//! `application/vnd.kubernetes.protobuf`, from and to JSON text, driven by the tags of the published schema.
//!
//! Typed Go clients (kubectl, controller-runtime, the informers of client-go) write it and prefer to read it. The envelope is upstream's
//! `runtime.Unknown` after four magic bytes
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>). What the store holds is JSON: an answer is
//! written while that text is read, with no object in between.

mod decode;
mod encode;
mod list;

pub(crate) use decode::to_json;
pub(crate) use encode::{Shown, event, value};
pub(crate) use list::ListWriter;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The media type of a watch.
pub(crate) const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

const MAGIC: &[u8] = b"k8s\0";

#[cfg(test)]
mod tests;
