//! `/openapi/v2` and `/openapi/v3`: documents are made when they are first asked for, and kept encoded.

use std::collections::HashMap;

use axum::response::Response;
use bytes::Bytes;
use coracle_api::kinds;
use coracle_api::status::Status;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::answer::{self, Answer};

/// The documents that somebody has asked for.
#[derive(Default)]
pub(crate) struct OpenApi {
    /// By path below `/openapi/`; the table of kinds bounds it.
    documents: Mutex<HashMap<String, Document>>,
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
    pub(crate) async fn answer(&self, path: &str, headers: &HeaderMap) -> Answer<Response> {
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
        let kept = self.documents.lock().get(path).cloned();
        let document = match kept {
            Some(document) => document,
            None => {
                let make = maker(path).ok_or_else(Status::no_such_path)?;
                let document = build(make).await?;
                self.documents.lock().insert(path.to_owned(), document.clone());
                document
            }
        };
        let mut response = document.answer(headers);
        if path.starts_with("v3/") {
            // The index gives each document an address of its own for each content: it never changes.
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        }
        Ok(response)
    }
}

type Maker = Box<dyn FnOnce() -> String + Send>;

/// What makes the document of this path, if there is one.
fn maker(path: &str) -> Option<Maker> {
    match path {
        "v2" => Some(Box::new(|| coracle_api::openapi::v2_document().to_string())),
        "v3" => Some(Box::new(index)),
        _ => {
            let path = path.strip_prefix("v3/")?;
            let version = kinds::group_versions()
                .iter()
                .find(|version| path_of(version) == path)?
                .api_version;
            Some(Box::new(move || text_of(version)))
        }
    }
}

/// Makes a document aside: the larger ones take long enough to be noticed by other requests.
async fn build(make: Maker) -> Answer<Document> {
    let built = tokio::task::spawn_blocking(move || Document::new(Bytes::from(make()))).await;
    built.map_err(|error| Status::internal(format!("cannot make the OpenAPI document: {error}")))
}

fn text_of(version: &str) -> String {
    coracle_api::openapi::document(version).map(|document| document.to_string()).unwrap_or_default()
}

/// `api/v1`, `apis/apps/v1`.
fn path_of(version: &kinds::GroupVersion) -> String {
    kinds::root_path(version.group, version.version).trim_start_matches('/').to_owned()
}

fn index() -> String {
    let mut paths = serde_json::Map::new();
    for version in kinds::group_versions() {
        let path = path_of(version);
        let hash = Document::new(Bytes::from(text_of(version.api_version))).hash;
        paths.insert(
            path.clone(),
            json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }),
        );
    }
    json!({ "paths": paths }).to_string()
}
