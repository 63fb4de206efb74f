//! One request for an object or a collection, on its way through a handler.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use coracle_api::decode::{DecodeError, FieldValidation, decode_body};
use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Status};
use coracle_store::Object;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::annotations::Annotations;
use crate::answer::{self, Answer};
use crate::audit::Source;
use crate::identity::User;
use crate::negotiate::{Encoding, Representation};
use crate::printing::Include;
use crate::query::Query;
use crate::request_info::ResourcePath;
use crate::server::Server;
use crate::warnings::Warnings;
use crate::{custom_resources, limits, protobuf, yaml};

/// Media types of the bodies we read, named in refusals. Custom objects have no messages: the last is not for them.
pub(crate) const ACCEPTED: [&str; 3] =
    ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// The request, authenticated and authorized, and what it needs of the server.
pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    pub(crate) user: User,
    pub(crate) method: Method,
    pub(crate) verb: &'static str,
    pub(crate) target: ResourcePath,
    pub(crate) kind: &'static Kind,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// In a mutex, which nobody ever waits for, because a body alone cannot be shared between threads.
    pub(crate) body: Mutex<Body>,
    pub(crate) representation: Representation,
    /// As the client wrote it.
    pub(crate) uri: Uri,
    /// The client's connection itself, if it wants to speak another protocol on it.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// Where the connection comes from; a request made in this process comes from nowhere.
    pub(crate) source: Option<Source>,
    /// Cancelled when streams must end.
    pub(crate) ends: CancellationToken,
    /// What the client should know although the request succeeded: one `Warning` header each.
    pub(crate) warnings: Warnings,
    /// What the audit log should know.
    pub(crate) annotations: Annotations,
    /// Keys that the body, which was YAML, had twice.
    pub(crate) repeated_keys: Option<String>,
}

impl Call {
    /// The whole body, within its limit.
    pub(crate) async fn read_body(&mut self) -> Answer<Bytes> {
        read_body(std::mem::take(self.body.get_mut()), &self.headers).await
    }

    /// The media type of the body without its parameters; JSON when the client did not say.
    pub(crate) fn content_type(&self) -> &str {
        let value = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default().trim();
        if media_type.is_empty() { "application/json" } else { media_type }
    }

    /// The body as an object of the call's own kind: types checked, unknown fields reported and dropped.
    pub(crate) async fn read_object(&mut self) -> Answer<Value> {
        let json = self.read_json().await?;
        self.decode_object(&json)
    }

    /// Decodes JSON as an object of the call's own kind.
    pub(crate) fn decode_object(&mut self, json: &[u8]) -> Answer<Value> {
        let (asked, repeated) = (self.field_validation()?, self.repeated_keys.take());
        let is_refused = asked == FieldValidation::Strict && repeated.is_some();
        // It is refused with all that is wrong with it.
        let validation = if is_refused { FieldValidation::Warn } else { asked };
        let Kind { group, version, kind, .. } = *self.kind;
        let decoded = match custom_resources::definition_of(self.kind) {
            Some(definition) => custom_resources::decode(self.kind, &definition, json, validation),
            None => decode_body(group, version, kind, json, validation),
        };
        let decoded = decoded.map_err(|error| error.status())?;
        let repeated = repeated.filter(|_| asked != FieldValidation::Ignore);
        let findings: Vec<String> = repeated.into_iter().chain(decoded.warnings).collect();
        if is_refused {
            return Err(DecodeError::strict(self.kind, &findings).status());
        }
        self.warnings.extend(findings);
        Ok(decoded.value)
    }

    /// Whether the body is a custom object, and not options or a Scale.
    fn writes_custom_object(&self) -> bool {
        self.kind.custom.is_some()
            && matches!(self.verb, "create" | "update")
            && self.target.subresource != "scale"
    }

    /// The body as JSON bytes, whether it came as JSON, YAML or protobuf.
    pub(crate) async fn read_json(&mut self) -> Answer<Bytes> {
        let convert = match self.content_type() {
            "application/json" => None,
            "application/yaml" | "application/x-yaml" | "text/yaml" => {
                Some(yaml_to_json as fn(&[u8]) -> Answer<Bytes>)
            }
            protobuf::MEDIA_TYPE if !self.writes_custom_object() => {
                Some(protobuf::to_json as fn(&[u8]) -> Answer<Bytes>)
            }
            _ if self.writes_custom_object() => {
                return Err(Status::unsupported_media_type(&ACCEPTED[..2]));
            }
            _ => return Err(Status::unsupported_media_type(&ACCEPTED)),
        };
        let body = self.read_body().await?;
        match convert {
            Some(convert) if !body.is_empty() => {
                let json = convert(&body)?;
                if self.content_type() != protobuf::MEDIA_TYPE {
                    self.repeated_keys = yaml::repeated_keys(&body);
                }
                Ok(json)
            }
            _ => Ok(body),
        }
    }

    /// Decodes JSON as an object of any kind that the schema knows; what is odd about it becomes a warning or, if the client wants
    /// `Strict`, an error.
    pub(crate) fn decode_as(
        &mut self,
        group: &str,
        version: &str,
        kind: &str,
        json: &[u8],
    ) -> Answer<Value> {
        let validation = self.field_validation()?;
        let decoded =
            decode_body(group, version, kind, json, validation).map_err(|error| error.status())?;
        self.warnings.extend(decoded.warnings);
        Ok(decoded.value)
    }

    /// `fieldValidation`; upstream's default is `Warn`.
    pub(crate) fn field_validation(&self) -> Answer<FieldValidation> {
        let asked = self.query.get("fieldValidation");
        FieldValidation::parse(asked).ok_or_else(|| {
            let mut errors = FieldErrors::new();
            errors.not_supported(
                "fieldValidation",
                asked.unwrap_or_default(),
                &["Ignore", "Strict", "Warn"],
            );
            Status::invalid_kind("meta.k8s.io", "CreateOptions", "", &errors)
        })
    }

    /// A stored object as the answer.
    pub(crate) async fn answer_stored(
        &self,
        code: StatusCode,
        object: Arc<Object>,
    ) -> Answer<Response> {
        let include = Include::read(&self.query)?;
        let object = custom_resources::bring(self.kind, object).await?;
        answer::stored(self.representation, include, code, self.kind, &object)
    }

    /// A decoded object as the answer.
    pub(crate) fn answer_value(&self, code: StatusCode, object: Value) -> Answer<Response> {
        Ok(answer::shown(self.representation, Include::read(&self.query)?, code, self.kind, object))
    }

    /// An object of another kind than the call's (a Status, a Scale), which has no table of its own.
    pub(crate) fn answer_plain(&self, code: StatusCode, object: &Value) -> Response {
        answer::plain(self.encoding(), code, object)
    }

    /// JSON or YAML.
    pub(crate) fn encoding(&self) -> Encoding {
        self.representation.encoding
    }

    /// The namespace that stored objects of this call's kind have: none for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        if self.kind.namespaced { &self.target.namespace } else { "" }
    }

    /// Puts the warnings on the answer.
    pub(crate) fn add_warnings(&self, response: &mut Response) {
        for warning in self.warnings.all() {
            let text =
                warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
    }
}

/// The whole body, within its limit, or 413.
pub(crate) async fn read_body(body: Body, headers: &HeaderMap) -> Answer<Bytes> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > limits::BODY_BYTES) {
        return Err(Status::too_large(limits::BODY_BYTES));
    }
    match Limited::new(body, limits::BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(limits::BODY_BYTES))
        }
        Err(error) => Err(Status::bad_request(format!("unable to read the request body: {error}"))),
    }
}

/// A body as JSON, if it came in another form that we read.
pub(crate) fn to_json(media_type: &str, body: &Bytes) -> Answer<Bytes> {
    match media_type.split(';').next().unwrap_or_default().trim() {
        "application/yaml"
        | "application/x-yaml"
        | "text/yaml"
        | "application/apply-patch+yaml" => yaml_to_json(body),
        protobuf::MEDIA_TYPE => protobuf::to_json(body),
        _ => Ok(body.clone()),
    }
}

/// YAML to JSON; the YAML reader bounds nesting and repetition itself.
pub(crate) fn yaml_to_json(body: &[u8]) -> Answer<Bytes> {
    let value: Value = serde_yaml::from_slice(body).map_err(|error| {
        Status::bad_request(format!("error converting YAML to JSON: yaml: {error}"))
    })?;
    Ok(Bytes::from(value.to_string()))
}
