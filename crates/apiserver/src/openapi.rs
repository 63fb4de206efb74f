//! `/openapi/v2` and `/openapi/v3`: documents are made when they are first asked for, and kept encoded.
//!
//! Version 2 is there as JSON and as protobuf: kubectl reads the latter, and looks at nothing else.

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

use crate::aggregation::Remotes;
use crate::answer::{self, Answer};
use crate::custom_resources::{self, Snapshot};
use crate::server::Server;

/// The documents that somebody has asked for.
#[derive(Default)]
pub(crate) struct OpenApi {
    /// Of group-versions with built-in kinds alone, by path below `/openapi/`: they never change.
    built_in: Mutex<HashMap<String, Document>>,
    /// All others, as of the kinds and the remotes with these numbers.
    changing: Mutex<((u64, u64), HashMap<String, Document>)>,
}

/// What the documents tell of.
struct Served {
    kinds: Arc<Snapshot>,
    remotes: Arc<Remotes>,
}

impl Served {
    fn numbers(&self) -> (u64, u64) {
        (self.kinds.number, self.remotes.number)
    }
}

/// The media types of version 2's message: by the second one, which is no valid media type, kubectl asks for the first.
const MESSAGE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const MESSAGE_OLD_NAME: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const JSON: &str = "application/json";

/// The path below `/openapi/` under which version 2's message is kept; no client's path can be it.
const MESSAGE_PATH: &str = "v2 as a message";

#[derive(Clone)]
struct Document {
    body: Bytes,
    hash: String,
    media_type: &'static str,
}

impl Document {
    fn new(body: impl Into<Bytes>, media_type: &'static str) -> Self {
        let body = body.into();
        let hash = Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { body, hash, media_type }
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
            answer::with_type(StatusCode::OK, self.media_type, self.body.clone())
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
        let path = path.strip_prefix("/openapi/").ok_or_else(Status::no_such_path)?;
        let accept =
            headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = match (path, wanted_type(accept, path == "v2")) {
            ("v2", Some(MESSAGE)) => MESSAGE_PATH,
            (path, Some(_)) => path,
            ("v2", None) => return Err(Status::not_acceptable(&[JSON, MESSAGE])),
            (_, None) => return Err(Status::not_acceptable(&[JSON])),
        };
        let served =
            Served { kinds: server.kinds.snapshot(), remotes: server.aggregator.remotes() };
        let document = match self.kept(path, &served) {
            Some(document) => document,
            None => {
                let (server, path) = (server.clone(), path.to_owned());
                let make = move || server.openapi.make(&path, &served);
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

    fn kept(&self, path: &str, served: &Served) -> Option<Document> {
        if let Some(document) = self.built_in.lock().get(path) {
            let changed = served
                .kinds
                .custom()
                .iter()
                .any(|kind| path == format!("v3/{}", path_of(&kind.group_version())));
            if !changed {
                return Some(document.clone());
            }
        }
        let mut changing = self.changing.lock();
        if changing.0 != served.numbers() {
            *changing = (served.numbers(), HashMap::new());
        }
        changing.1.get(path).cloned()
    }

    /// Makes the document of this path, if there is one, and keeps it.
    fn make(&self, path: &str, served: &Served) -> Option<Document> {
        let kinds = &served.kinds;
        if path == "v3" {
            self.make_built_in();
        }
        if let Some(document) = self.kept(path, served) {
            return Some(document);
        }
        let v2 = || {
            let mut document = openapi::v2_document(&custom(kinds.custom()));
            served.remotes.add_swagger(&mut document);
            document
        };
        let document = match path {
            "v2" => Document::new(v2().to_string(), JSON),
            MESSAGE_PATH => Document::new(openapi::v2_message(&v2()), MESSAGE),
            "v3" => Document::new(self.index(served), JSON),
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
                let document = openapi::document(version.api_version, &custom(&own))?;
                Document::new(document.to_string(), JSON)
            }
        };
        let mut changing = self.changing.lock();
        if changing.0 == served.numbers() {
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
            (format!("v3/{}", path_of(&version)), Document::new(document.to_string(), JSON))
        });
        let made: HashMap<String, Document> = made.collect();
        *self.built_in.lock() = made;
    }

    fn index(&self, served: &Served) -> String {
        let mut paths = serde_json::Map::new();
        for version in served.kinds.group_versions() {
            let path = path_of(version);
            let Some(document) = self.make(&format!("v3/{path}"), served) else { continue };
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
    Document::new(Bytes::from(value.to_string()), JSON)
}

/// What the client likes best of what there is.
fn wanted_type(accept: &str, has_message: bool) -> Option<&'static str> {
    if accept.trim().is_empty() {
        return Some(JSON);
    }
    let mut wanted: Option<(f32, &'static str)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = match parts.next() {
            Some(JSON | "application/*" | "*/*") => JSON,
            Some(MESSAGE | MESSAGE_OLD_NAME) if has_message => MESSAGE,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if quality > wanted.map_or(0.0, |(best, _)| best) {
            wanted = Some((quality, media_type));
        }
    }
    wanted.map(|(_, media_type)| media_type)
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
