//! `metav1.Status`: what every failed request is answered with, in upstream's words.
//!
//! Codes, reasons and messages follow `apimachinery/pkg/api/errors/errors.go`. Errors about fields of an object are
//! collected in [`FieldErrors`] and become the causes of one `Status`.

use serde::Serialize;
use serde_json::Value;

use crate::kinds::Kind;

mod field;
pub use field::{ErrorType, FieldError, FieldErrors, Path, go_quote};

/// The answer to a request that did not return an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, in words that are none of ours: an extension's.
    pub own_reason: Option<Box<str>>,
    /// Why, for people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
}

/// What a [`Status`] is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its resource or kind; upstream uses both.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One for each thing that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// For machines, such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, such as `spec.containers[0].name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// Why a request failed, for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not said.
    Unknown,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409: somebody has the name.
    AlreadyExists,
    /// 409: the object changed meanwhile.
    Conflict,
    /// 410.
    Gone,
    /// 422.
    Invalid,
    /// 500: try again.
    ServerTimeout,
    /// 504.
    Timeout,
    /// 429.
    TooManyRequests,
    /// 400.
    BadRequest,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 500.
    InternalError,
    /// 410: the revision is no longer kept.
    Expired,
    /// 503.
    ServiceUnavailable,
}

impl Reason {
    /// Every reason that has a name.
    const NAMED: [Self; 18] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Gone,
        Self::Invalid,
        Self::ServerTimeout,
        Self::Timeout,
        Self::TooManyRequests,
        Self::BadRequest,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestEntityTooLarge,
        Self::UnsupportedMediaType,
        Self::InternalError,
        Self::Expired,
        Self::ServiceUnavailable,
    ];

    /// The reason of this name; [`Reason::Unknown`] for any other.
    pub fn parse(name: &str) -> Self {
        let found = Self::NAMED.into_iter().find(|reason| reason.as_str() == name);
        found.unwrap_or(Self::Unknown)
    }

    /// As it stands in the `Status`; empty for [`Reason::Unknown`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// Group and plural name, as messages about requests need them; every `&Kind` is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupResource<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
}

impl std::fmt::Display for GroupResource<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(out, ".{}", self.group)?;
        }
        Ok(())
    }
}

impl<'a> From<&'a Kind> for GroupResource<'a> {
    fn from(kind: &'a Kind) -> Self {
        Self { group: kind.group, resource: kind.plural }
    }
}

impl Status {
    /// A failure without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, own_reason: None, message: message.into(), details: None }
    }

    /// 404: there is no such object.
    pub fn not_found<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let resource = resource.into();
        let message = format!("{resource} {} not found", go_quote(name));
        Self::new(404, Reason::NotFound, message).about(resource, name)
    }

    /// 404: nothing is served at this path.
    pub fn no_such_path() -> Self {
        let mut status =
            Self::new(404, Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let resource = resource.into();
        let message = format!("{resource} {} already exists", go_quote(name));
        Self::new(409, Reason::AlreadyExists, message).about(resource, name)
    }

    /// 409: every generated name was taken.
    pub fn generate_name_conflict<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let resource = resource.into();
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            go_quote(name)
        );
        Self::new(409, Reason::AlreadyExists, message).about(resource, name).retry_after(1)
    }

    /// 409: the object is not in the state that the request expects.
    pub fn conflict<'a>(
        resource: impl Into<GroupResource<'a>>,
        name: &str,
        why: impl std::fmt::Display,
    ) -> Self {
        let resource = resource.into();
        let message =
            format!("Operation cannot be fulfilled on {resource} {}: {why}", go_quote(name));
        Self::new(409, Reason::Conflict, message).about(resource, name)
    }

    /// 409: the caller's `resourceVersion` is not the current one.
    pub fn modified<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 422: the object breaks rules. `name` is empty for an object that has none yet.
    pub fn invalid(kind: &Kind, name: &str, errors: &FieldErrors) -> Self {
        Self::invalid_kind(kind.group, kind.kind, name, errors)
    }

    /// 422, for kinds outside the table (`Scale`, `Eviction`).
    pub fn invalid_kind(group: &str, kind: &str, name: &str, errors: &FieldErrors) -> Self {
        let group_kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let message = format!("{group_kind} {} is invalid: {errors}", go_quote(name));
        let mut status = Self::new(422, Reason::Invalid, message);
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..Details::default()
        }));
        status
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 403: the caller may not. `name` may be empty.
    pub fn forbidden<'a>(
        resource: impl Into<GroupResource<'a>>,
        name: &str,
        why: impl std::fmt::Display,
    ) -> Self {
        let resource = resource.into();
        let message = match (resource.resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {} is forbidden: {why}", go_quote(name)),
        };
        Self::new(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 401: nobody knows who asks.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 410: the thing is no longer there.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    /// 410: the revision is no longer kept; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 410 for a watch or list that starts at a revision older than what is kept.
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 405: the resource does not bear the verb.
    pub fn method_not_allowed<'a>(resource: impl Into<GroupResource<'a>>, verb: &str) -> Self {
        let resource = resource.into();
        let message = format!(
            "{verb} is not supported on resources of kind {}",
            go_quote(&resource.to_string())
        );
        Self::new(405, Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// 405 for a method that the path does not bear at all.
    pub fn method_not_served() -> Self {
        let mut status = Self::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    /// 406: the client takes none of what we offer.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let message =
            format!("only the following media types are accepted: {}", offered.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 415: the body is in a format that we do not read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 413: the body is larger than `limit_bytes`.
    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Self::new(413, Reason::RequestEntityTooLarge, message)
    }

    /// 429: too much at once.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    /// 504: it took too long.
    pub fn timeout(message: impl std::fmt::Display, retry_after_seconds: u32) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {message}"))
            .retry_after(retry_after_seconds)
    }

    /// 500: the server could not finish in time; trying again may help.
    pub fn server_timeout<'a>(
        resource: impl Into<GroupResource<'a>>,
        verb: &str,
        retry_after_seconds: u32,
    ) -> Self {
        let resource = resource.into();
        let message = format!(
            "The {verb} operation against {resource} could not be completed at this time, please try again."
        );
        // Upstream puts the operation where the name belongs.
        Self::new(500, Reason::ServerTimeout, message)
            .about(resource, verb)
            .retry_after(retry_after_seconds)
    }

    /// 503: not now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 500: our fault. `why` is shown to the caller, so it names no secrets.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let mut status =
            Self::new(500, Reason::InternalError, format!("Internal error occurred: {why}"));
        status.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: String::new(),
                message: why.to_string(),
                field: String::new(),
            }],
            ..Details::default()
        }));
        status
    }

    /// 422 in the generic form that upstream gives for patches that cannot be applied. Upstream leaves out why; we add
    /// it, because nobody can mend a patch without knowing.
    pub fn unprocessable(why: &str) -> Self {
        let mut status = Self::new(
            422,
            Reason::Invalid,
            "the server rejected our request due to an error in our request",
        );
        if !why.is_empty() {
            status.message = format!("{}: {why}", status.message);
        }
        status.details = Some(Box::default());
        status
    }

    /// The same, with the time after which to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same, with one more cause.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// As it goes over the wire.
    pub fn to_value(&self) -> Value {
        let mut body = serde_json::json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if self.reason != Reason::Unknown {
            body["reason"] = self.reason.as_str().into();
        } else if let Some(reason) = &self.own_reason {
            body["reason"] = reason.as_ref().into();
        }
        if let Some(details) = &self.details {
            body["details"] = serde_json::to_value(details).unwrap_or_default();
        }
        body["code"] = self.code.into();
        body
    }

    /// The body that answers a deletion which left no object behind.
    pub fn deleted(kind: &Kind, name: &str, uid: &str) -> Value {
        let details = Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.plural.to_owned(),
            uid: uid.to_owned(),
            ..Details::default()
        };
        Self::success(Some(details))
    }

    /// The body of a success that has nothing else to say.
    pub fn success(details: Option<Details>) -> Value {
        let mut body = serde_json::json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
        });
        if let Some(details) = details {
            body["details"] = serde_json::to_value(details).unwrap_or_default();
        }
        body
    }

    fn about(mut self, resource: GroupResource<'_>, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.resource.to_owned(),
            ..Details::default()
        }));
        self
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests;
