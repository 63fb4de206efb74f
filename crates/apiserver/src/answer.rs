//! Answers: objects in the representation that was asked for, and every error as a `Status`.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use coracle_store::Object;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::negotiate::{Encoding, Form, Representation};
use crate::printing::{self, Include};
use crate::protobuf;
use crate::{storage, views};

/// What a handler arrives at: an answer, or the reason why there is none.
pub(crate) type Answer<T> = Result<T, Status>;

/// The one function that turns an error into what the client sees.
pub(crate) fn failure(status: &Status, encoding: Encoding) -> Response {
    let mut response = plain(encoding, code_of(status.code), &status.to_value());
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// A stored object: its bytes as they are whenever the client wants just that.
pub(crate) fn stored(
    representation: Representation,
    include: Include,
    code: StatusCode,
    kind: &'static Kind,
    object: &Object,
) -> Answer<Response> {
    if representation.is_stored_form() && !views::is_view(kind) {
        return Ok(json_response(code, object.bytes.clone()));
    }
    if !views::is_view(kind)
        && let Some(shown) = representation.message(kind)
    {
        return Ok(with_type(code, protobuf::MEDIA_TYPE, shown.body(&object.bytes)?));
    }
    let value = views::read(kind, storage::decode(object)?);
    Ok(shown(representation, include, code, kind, value))
}

/// An object that was decoded anyhow, or never stored.
pub(crate) fn shown(
    representation: Representation,
    include: Include,
    code: StatusCode,
    kind: &'static Kind,
    object: Value,
) -> Response {
    let object = match representation.form {
        Form::Whole => object,
        Form::Table(version) => printing::table(kind, &[object], include, version, json!({})),
        Form::Metadata(version) => printing::metadata_only(&object, version),
    };
    plain(representation.encoding, code, &object)
}

/// Any JSON value in this encoding.
pub(crate) fn plain(encoding: Encoding, code: StatusCode, value: &Value) -> Response {
    let (body, content_type) = encode(encoding, value);
    with_type(code, content_type, body)
}

/// The bytes of a value, and their media type.
pub(crate) fn encode(encoding: Encoding, value: &Value) -> (Bytes, &'static str) {
    match encoding {
        Encoding::Json => (Bytes::from(value.to_string()), "application/json"),
        Encoding::PrettyJson => (Bytes::from(format!("{value:#}\n")), "application/json"),
        Encoding::Yaml => match serde_yaml::to_string(value) {
            Ok(text) => (Bytes::from(text), "application/yaml"),
            // JSON is YAML: what the YAML writer cannot say is still well-formed.
            Err(_) => (Bytes::from(value.to_string()), "application/yaml"),
        },
        Encoding::Protobuf => match protobuf::value(value) {
            Ok(Some(body)) => (body, protobuf::MEDIA_TYPE),
            Ok(None) => encode(Encoding::Json, value),
            Err(status) => {
                tracing::error!(%status, "an answer went out as JSON instead");
                encode(Encoding::Json, value)
            }
        },
    }
}

/// JSON that is encoded already.
pub(crate) fn json_response(code: StatusCode, body: Bytes) -> Response {
    with_type(code, "application/json", body)
}

/// Any body with its media type.
pub(crate) fn with_type(
    code: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Secrets and tokens pass here: no proxy on the way may keep them. Upstream says the same on every answer.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn code_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
