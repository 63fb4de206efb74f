//! `/openapi/v2` and `/openapi/v3`: documents are made when they are first asked for, and kept encoded.

use std::collections::HashMap;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use coracle_api::kinds::{self, GroupVersion, Kind};
use coracle_api::openapi::{self, Custom};
use coracle_api::status::Status;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::answer::{self, Answer};
use crate::custom_resources::{self, Snapshot};
use crate::server::Server;

/// The documents that somebody has asked for.
#[derive(Default)]
pub(crate) struct OpenApi {
    /// Of group-versions with built-in kinds alone, by path below `/openapi/`: they never change.
    built_in: Mutex<HashMap<String, Document>>,
    /// All others, as of the kinds with this number.
    changing: Mutex<(u64, HashMap<String, Document>)>,
}

#[derive(Clone)]
struct Document {
    body: Bytes,
    hash: String,
}

impl Document {
    fn new(body: Bytes) -> Self {
        let hash = Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { body, hash }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let known =
            headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == etag.as_bytes());
        let mut response = if known {
            let mut response = Response::new(axum::body::Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            answer::json_response(StatusCode::OK, self.body.clone())
        };
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

impl OpenApi {
    /// Answers a path below `/openapi/`.
    pub(crate) async fn answer(
        &self,
        server: &Arc<Server>,
        path: &str,
        headers: &HeaderMap,
    ) -> Answer<Response> {
        let accept =
            headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accepts_json = accept.is_empty()
            || ["application/json", "*/*", "application/*"]
                .iter()
                .any(|range| accept.contains(range));
        if !accepts_json {
            return Err(Status::not_acceptable(&["application/json"]));
        }
        let path = path.strip_prefix("/openapi/").ok_or_else(Status::no_such_path)?;
        let kinds = server.kinds.snapshot();
        let document = match self.kept(path, &kinds) {
            Some(document) => document,
            None => {
                let (server, path) = (server.clone(), path.to_owned());
                let make = move || server.openapi.make(&path, &kinds);
                // Aside: the larger ones take long enough to be noticed by other requests.
                let made = tokio::task::spawn_blocking(make).await.map_err(|error| {
                    Status::internal(format!("cannot make the OpenAPI document: {error}"))
                })?;
                made.ok_or_else(Status::no_such_path)?
            }
        };
        let document = if path == "v3" { with_remotes(server, document) } else { document };
        let mut response = document.answer(headers);
        if path.starts_with("v3/") {
            // The index gives each document an address of its own for each content: it never changes.
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        }
        Ok(response)
    }

    fn kept(&self, path: &str, kinds: &Snapshot) -> Option<Document> {
        if let Some(document) = self.built_in.lock().get(path) {
            let changed = kinds
                .custom()
                .iter()
                .any(|kind| path == format!("v3/{}", path_of(&kind.group_version())));
            if !changed {
                return Some(document.clone());
            }
        }
        let mut changing = self.changing.lock();
        if changing.0 != kinds.number {
            *changing = (kinds.number, HashMap::new());
        }
        changing.1.get(path).cloned()
    }

    /// Makes the document of this path, if there is one, and keeps it.
    fn make(&self, path: &str, kinds: &Snapshot) -> Option<Document> {
        if path == "v3" {
            self.make_built_in();
        }
        if let Some(document) = self.kept(path, kinds) {
            return Some(document);
        }
        let text = match path {
            "v2" => openapi::v2_document(&custom(kinds.custom())).to_string(),
            "v3" => self.index(kinds),
            _ => {
                let path = path.strip_prefix("v3/")?;
                let versions = kinds.group_versions();
                let version = versions.iter().find(|version| path_of(version) == path)?;
                let own: Vec<&'static Kind> = kinds
                    .custom()
                    .iter()
                    .filter(|kind| kind.group_version() == *version)
                    .copied()
                    .collect();
                openapi::document(version.api_version, &custom(&own))?.to_string()
            }
        };
        let document = Document::new(Bytes::from(text));
        let mut changing = self.changing.lock();
        if changing.0 == kinds.number {
            changing.1.insert(path.to_owned(), document.clone());
        }
        Some(document)
    }

    /// All that never changes, at once: what takes long is to unpack the definitions.
    fn make_built_in(&self) {
        if !self.built_in.lock().is_empty() {
            return;
        }
        let made = openapi::documents().into_iter().map(|(version, document)| {
            (format!("v3/{}", path_of(&version)), Document::new(Bytes::from(document.to_string())))
        });
        let made: HashMap<String, Document> = made.collect();
        *self.built_in.lock() = made;
    }

    fn index(&self, kinds: &Snapshot) -> String {
        let mut paths = serde_json::Map::new();
        for version in kinds.group_versions() {
            let path = path_of(version);
            let Some(document) = self.make(&format!("v3/{path}"), kinds) else { continue };
            let address = format!("/openapi/v3/{path}?hash={}", document.hash);
            paths.insert(path, json!({ "serverRelativeURL": address }));
        }
        json!({ "paths": paths }).to_string()
    }
}

/// The index with the documents of aggregated servers, which they answer for themselves.
fn with_remotes(server: &Server, index: Document) -> Document {
    let remotes = server.aggregator.remotes();
    if remotes.iter().next().is_none() {
        return index;
    }
    let mut value: serde_json::Value = serde_json::from_slice(&index.body).unwrap_or_default();
    let Some(paths) = value["paths"].as_object_mut() else { return index };
    remotes.add_open_api(paths);
    Document::new(Bytes::from(value.to_string()))
}

/// What these kinds add to a document.
fn custom(kinds: &[&'static Kind]) -> Custom {
    let mut custom = Custom { kinds: kinds.to_vec(), ..Custom::default() };
    custom_resources::extend_openapi(kinds, openapi::name_of_custom, &mut custom.definitions);
    custom
}

/// `api/v1`, `apis/apps/v1`.
fn path_of(version: &GroupVersion) -> String {
    kinds::root_path(version.group, version.version).trim_start_matches('/').to_owned()
}
