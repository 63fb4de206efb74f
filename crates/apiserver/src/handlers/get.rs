//! `GET` of one object.

use axum::response::Response;
use coracle_api::status::Status;
use http::StatusCode;

use crate::answer::Answer;
use crate::call::Call;
use crate::storage;

/// Answers the object as it is now. Every read is as fresh as can be, so any `resourceVersion` asked for is satisfied.
pub(crate) async fn get(call: &Call) -> Answer<Response> {
    let key = storage::key(call.kind, call.namespace(), &call.target.name);
    let object = call
        .server
        .store
        .get(&key)
        .ok_or_else(|| Status::not_found(call.kind, &call.target.name))?;
    call.answer_stored(StatusCode::OK, object).await
}
