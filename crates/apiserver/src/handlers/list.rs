//! `GET` of a collection: pages of a consistent state, out of the store's memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_api::status::{Cause, Reason, Status};
use coracle_store::{Gone, Listing, Object, Revision};
use http::StatusCode;
use http_body::{Frame, SizeHint};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::call::Call;
use crate::negotiate::Form;
use crate::printing::{self, Include};
use crate::protobuf::{ListWriter, Shown};
use crate::query::{ListOptions, VersionMatch};
use crate::selection::Selection;
use crate::{custom_resources, limits, protobuf, storage, views};

/// A page of a collection and where the next one starts.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: Revision,
    next: Option<String>,
    remaining: Option<usize>,
}

/// Answers one page.
pub(crate) async fn list(call: &Call) -> Answer<Response> {
    let options = ListOptions::read(&call.query, false)?;
    let selection = Selection::new(call.kind, options.labels.clone(), options.fields.clone())?;
    match page(call, &options, &selection).await {
        Ok(page) => answer_page(call, page).await,
        Err(status) if status.reason == Reason::Expired => expired(call, &options, &status),
        Err(status) => Err(status),
    }
}

/// Finds the objects of the page that is asked for.
pub(crate) async fn page(
    call: &Call,
    options: &ListOptions,
    selection: &Selection,
) -> Answer<Page> {
    let store = &call.server.store;
    let range = storage::range(call.kind, call.namespace());
    let current = store.revision();
    let (at, after) = match &options.continue_token {
        Some(token) => {
            let position = Position::read(token)?;
            (position.revision, Some(position.after))
        }
        None => (starting_revision(options, current)?, None),
    };
    if at.is_some_and(|at| at > current) {
        return Err(too_large_revision(at.unwrap_or(current), current));
    }
    let after_key = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    // With selectors the limit counts matches, which only we can tell.
    let store_limit = if selection.is_everything() { options.limit } else { None };
    let mut listing =
        store.list(&range, at, after_key, store_limit).map_err(|gone| gone_status(&gone))?;
    // Before anything is selected: what selectors look at may differ between versions.
    listing.objects = custom_resources::bring_all(call.kind, listing.objects).await?;
    Ok(cut(listing, options.limit, selection))
}

/// Which state an ordinary list shows: the newest, unless the client insists on another.
fn starting_revision(options: &ListOptions, current: Revision) -> Answer<Option<Revision>> {
    let Some(asked) = options.resource_version.filter(|&revision| revision != Revision::ZERO)
    else {
        return Ok(None);
    };
    // A limited list at a revision means exactly that revision: how paging started before there were matches.
    let exact = match options.resource_version_match {
        Some(VersionMatch::Exact) => true,
        Some(VersionMatch::NotOlderThan) => false,
        None => options.limit.is_some(),
    };
    if asked > current {
        return Err(too_large_revision(asked, current));
    }
    Ok(exact.then_some(asked))
}

/// Leaves what the selection means, and of that one page.
fn cut(listing: Listing, limit: Option<usize>, selection: &Selection) -> Page {
    let Listing { mut objects, revision, mut remaining } = listing;
    let selective = !selection.is_everything();
    if selective {
        objects.retain(|object| selection.matches(object));
        if let Some(limit) = limit.filter(|&limit| objects.len() > limit) {
            remaining = objects.len() - limit;
            objects.truncate(limit);
        }
    }
    let next = objects.last().filter(|_| remaining > 0).map(|last| {
        Position {
            revision: Some(revision),
            after: (last.key.namespace.to_string(), last.key.name.to_string()),
        }
        .token()
    });
    // Upstream cannot count what a selector leaves, and says nothing then.
    let remaining = (remaining > 0 && !selective).then_some(remaining);
    Page { objects, revision, next, remaining }
}

async fn answer_page(call: &Call, page: Page) -> Answer<Response> {
    if call.representation.is_stored_form() && !views::is_view(call.kind) {
        return Ok(answer::with_type(
            StatusCode::OK,
            "application/json",
            Body::new(ListBody::new(call.kind, page)),
        ));
    }
    if let Some(shown) = call.representation.message(call.kind) {
        return answer_messages(call, &page, shown).await;
    }
    let include = Include::read(&call.query)?;
    let metadata = list_metadata(&page);
    let now = Timestamp::now();
    let mut items = Vec::with_capacity(page.objects.len());
    for (index, object) in page.objects.iter().enumerate() {
        if index % limits::ROWS_BETWEEN_YIELDS == limits::ROWS_BETWEEN_YIELDS - 1 {
            tokio::task::yield_now().await;
        }
        let object = views::read(call.kind, storage::decode(object)?);
        items.push(match call.representation.form {
            Form::Whole => object,
            Form::Table(version) => printing::row(call.kind, &object, include, version, now),
            Form::Metadata(version) => printing::metadata_only(&object, version),
        });
    }
    let list = match call.representation.form {
        Form::Whole => {
            json!({ "kind": call.kind.list_kind, "apiVersion": call.kind.api_version, "metadata": metadata, "items": items })
        }
        Form::Table(version) => printing::table_of(call.kind, items, version, metadata),
        Form::Metadata(version) => {
            let api_version = format!("meta.k8s.io/{version}");
            json!({ "kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": metadata, "items": items })
        }
    };
    Ok(answer::plain(call.encoding(), StatusCode::OK, &list))
}

/// The page as messages, written out of the objects' own bytes.
async fn answer_messages(call: &Call, page: &Page, shown: Shown) -> Answer<Response> {
    let mut list = ListWriter::new(shown, &list_metadata(page))?;
    for (index, object) in page.objects.iter().enumerate() {
        if index % limits::ROWS_BETWEEN_YIELDS == limits::ROWS_BETWEEN_YIELDS - 1 {
            tokio::task::yield_now().await;
        }
        if views::is_view(call.kind) {
            let object = views::read(call.kind, storage::decode(object)?);
            list.item(object.to_string().as_bytes())?;
        } else {
            list.item(&object.bytes)?;
        }
    }
    Ok(answer::with_type(StatusCode::OK, protobuf::MEDIA_TYPE, Body::new(list.body())))
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(next) = &page.next {
        metadata["continue"] = json!(next);
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

/// The objects' own bytes between a head and a tail, gathered into frames as the client takes them: nothing is encoded, and no
/// more than one frame is copied at a time.
struct ListBody {
    head: Bytes,
    objects: std::vec::IntoIter<Arc<Object>>,
    first: bool,
    done: bool,
    left_bytes: u64,
}

const LIST_TAIL: &[u8] = b"]}";

impl ListBody {
    fn new(kind: &coracle_api::kinds::Kind, page: Page) -> Self {
        let head = format!(
            "{{\"kind\":{:?},\"apiVersion\":{:?},\"metadata\":{},\"items\":[",
            kind.list_kind,
            kind.api_version,
            list_metadata(&page)
        );
        let objects: usize = page.objects.iter().map(|object| object.bytes.len()).sum();
        let commas = page.objects.len().saturating_sub(1);
        let left_bytes = (head.len() + objects + commas + LIST_TAIL.len()) as u64;
        Self {
            head: head.into(),
            objects: page.objects.into_iter(),
            first: true,
            done: false,
            left_bytes,
        }
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let capacity = usize::try_from(self.left_bytes)
            .unwrap_or(usize::MAX)
            .min(limits::FRAME_BYTES + limits::FRAME_BYTES / 4);
        let mut frame = BytesMut::with_capacity(capacity);
        frame.put(std::mem::take(&mut self.head));
        while frame.len() < limits::FRAME_BYTES {
            let Some(object) = self.objects.next() else {
                frame.put_slice(LIST_TAIL);
                self.done = true;
                break;
            };
            if !std::mem::take(&mut self.first) {
                frame.put_u8(b',');
            }
            frame.put_slice(&object.bytes);
        }
        self.left_bytes = self.left_bytes.saturating_sub(frame.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(frame.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

/// Where a list goes on: the state it shows, and the last object it showed.
struct Position {
    /// `None` continues in the newest state: what a client gets when the old one is gone.
    revision: Option<Revision>,
    after: (String, String),
}

impl Position {
    fn token(&self) -> String {
        let revision =
            self.revision.map_or(-1, |revision| i64::try_from(revision.get()).unwrap_or(i64::MAX));
        let (namespace, name) = &self.after;
        let token = json!({ "v": "meta.k8s.io/v1", "rv": revision, "start": format!("{namespace}/{name}") });
        BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn read(token: &str) -> Answer<Self> {
        let invalid = |why: &str| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|error| invalid(&error.to_string()))?;
        let token: Value =
            serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if token["v"] != "meta.k8s.io/v1" {
            return Err(invalid("server does not recognize this encoded version"));
        }
        let start = token["start"]
            .as_str()
            .and_then(|start| start.split_once('/'))
            .ok_or_else(|| invalid("no start"))?;
        let revision = token["rv"].as_i64().ok_or_else(|| invalid("no revision"))?;
        Ok(Self {
            revision: u64::try_from(revision)
                .ok()
                .filter(|&revision| revision > 0)
                .map(Revision::new),
            after: (start.0.to_owned(), start.1.to_owned()),
        })
    }
}

/// 410; for a list that was to go on, with a token that goes on in the newest state for clients that can live with that.
fn expired(call: &Call, options: &ListOptions, status: &Status) -> Answer<Response> {
    let Some(token) = &options.continue_token else { return Err(status.clone()) };
    let after = Position::read(token)?.after;
    let mut body = Status::expired(INCONSISTENT_CONTINUE).to_value();
    body["metadata"]["continue"] = json!(Position { revision: None, after }.token());
    Ok(answer::plain(call.encoding(), StatusCode::GONE, &body))
}

const INCONSISTENT_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
    new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
    Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between \
    the time the first chunk was returned and now may show up in the list.";

/// 504: the client knows a revision that we do not.
pub(crate) fn too_large_revision(asked: Revision, current: Revision) -> Status {
    Status::timeout(format!("Too large resource version: {asked}, current: {current}"), 1)
        .with_cause(Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        })
}

/// What a reader learns whose past is gone.
pub(crate) fn gone_status(gone: &Gone) -> Status {
    match gone {
        Gone::Compacted { requested, oldest } => Status::too_old(requested.get(), oldest.get()),
        Gone::Closed => Status::service_unavailable("the server is shutting down"),
    }
}
