//! `DELETE` of a collection: each object that the selectors mean, as if deleted by itself.

use axum::response::Response;
use coracle_api::status::Reason;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use http::StatusCode;
use serde_json::{Value, json};

use super::create::stored_kind;
use super::delete::{Deleted, delete_object, read_options};
use super::list;
use crate::answer::Answer;
use crate::call::Call;
use crate::query::ListOptions;
use crate::selection::Selection;
use crate::{custom_resources, limits, views};

/// Deletes what is in the collection now; what comes later stays.
pub(crate) async fn delete_collection(call: &mut Call) -> Answer<Response> {
    let options = read_options(call).await?;
    let kind = stored_kind(call)?;
    let list_options = ListOptions::read(&call.query, false)?;
    let selection =
        Selection::new(call.kind, list_options.labels.clone(), list_options.fields.clone())?;
    let page = list::page(call, &list_options, &selection).await?;
    let call = &*call;
    let options = &options;
    let deletions: Vec<BoxFuture<'_, Answer<Deleted>>> = page
        .objects
        .iter()
        .map(|object| {
            delete_object(call, kind, &object.key.namespace, &object.key.name, options).boxed()
        })
        .collect();
    let mut deletions = futures::stream::iter(deletions).buffered(limits::DELETIONS_AT_ONCE);
    let mut items = Vec::new();
    while let Some(deleted) = deletions.next().await {
        match deleted {
            Ok(Deleted::Gone(last) | Deleted::Imagined(last)) => items.push(last),
            Ok(Deleted::Going(object)) => {
                items.push(custom_resources::decoded(call.kind, object).await?);
            }
            // Somebody else deleted it meanwhile, which is what we wanted.
            Err(status) if status.reason == Reason::NotFound => (),
            Err(status) => return Err(status),
        }
    }
    let items: Vec<Value> = items.into_iter().map(|item| views::read(call.kind, item)).collect();
    let list = json!({
        "kind": call.kind.list_kind,
        "apiVersion": call.kind.api_version,
        "metadata": { "resourceVersion": page.revision.to_string() },
        "items": items,
    });
    Ok(call.answer_plain(StatusCode::OK, &list))
}
