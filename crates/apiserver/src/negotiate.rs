//! Which representation the client wants: JSON, YAML or protobuf; the object itself, a Table, or its metadata alone.

use http::{HeaderMap, HeaderValue, header};

use coracle_api::kinds::Kind;
use coracle_api::status::Status;

use crate::answer::Answer;
use crate::protobuf::{self, Shown};
use crate::query::Query;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Compact JSON, which is what the store holds.
    Json,
    /// Indented, for people with curl.
    PrettyJson,
    /// YAML.
    Yaml,
    /// Messages, as Go clients prefer them.
    Protobuf,
}

/// What an answer shows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// All of it.
    Whole,
    /// Its row in a `meta.k8s.io` Table of this version, for `kubectl get`.
    Table(&'static str),
    /// A `PartialObjectMetadata` of this version (or its list), for clients that need no more.
    Metadata(&'static str),
}

/// The client's wish, as far as we serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Representation {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
}

/// Media types we write, named in refusals.
pub(crate) const OFFERED: [&str; 3] =
    ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// Media types of watches: those that can be cut into events.
pub(crate) const OFFERED_STREAMS: [&str; 2] =
    ["application/json;stream=watch", protobuf::WATCH_MEDIA_TYPE];

/// What an endpoint can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Everything: objects with a published schema.
    Everything,
    /// Custom objects have no messages, except of their metadata.
    CustomObjects,
    /// What has no table and no metadata: a Status, a version.
    Plain,
}

impl Default for Representation {
    /// What the store holds.
    fn default() -> Self {
        json(Form::Whole)
    }
}

impl Representation {
    /// The best of what `Accept` lists, or 406. Without the header: JSON.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &Query, offer: Offer) -> Answer<Self> {
        let mut representation = choose(text(headers.get(header::ACCEPT)), offer)
            .ok_or_else(|| Status::not_acceptable(&OFFERED))?;
        if representation.encoding == Encoding::Json && wants_pretty(headers, query) {
            representation.encoding = Encoding::PrettyJson;
        }
        Ok(representation)
    }

    /// How a refusal is written for this client: whoever accepts nothing that we write gets JSON.
    pub(crate) fn of_refusals(accept: Option<&HeaderValue>) -> Encoding {
        choose(text(accept), Offer::Plain).unwrap_or_default().encoding
    }

    /// The message that shows objects of this kind, when the client wants one.
    pub(crate) fn message(self, kind: &Kind) -> Option<Shown> {
        match (self.encoding, self.form) {
            (Encoding::Protobuf, Form::Whole) => Shown::whole(kind),
            (Encoding::Protobuf, Form::Metadata(version)) => Some(Shown::metadata(version)),
            _ => None,
        }
    }

    /// Whether stored bytes can be sent as they are.
    pub(crate) fn is_stored_form(self) -> bool {
        self.encoding == Encoding::Json && self.form == Form::Whole
    }
}

fn json(form: Form) -> Representation {
    Representation { encoding: Encoding::Json, form }
}

fn text(accept: Option<&HeaderValue>) -> &str {
    accept.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The range that the client likes best: by quality, then the more definite one, then the first.
fn choose(accept: &str, offer: Offer) -> Option<Representation> {
    if accept.trim().is_empty() {
        return Some(json(Form::Whole));
    }
    let mut chosen: Option<(f32, u8, Representation)> = None;
    for range in accept.split(',') {
        if let Some(found) = read_range(range, offer)
            && found.0 > 0.0
            && chosen.is_none_or(|(quality, definite, _)| (found.0, found.1) > (quality, definite))
        {
            chosen = Some(found);
        }
    }
    chosen.map(|(_, _, representation)| representation)
}

/// One media range with its parameters: its quality, how definite it is, and what it means; `None` when we cannot serve it.
fn read_range(range: &str, offer: Offer) -> Option<(f32, u8, Representation)> {
    let mut parts = range.split(';').map(str::trim);
    let (definite, encoding) = match parts.next()? {
        "*/*" => (0, Encoding::Json),
        "application/*" => (1, Encoding::Json),
        "application/json" => (2, Encoding::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => (2, Encoding::Yaml),
        protobuf::MEDIA_TYPE => (2, Encoding::Protobuf),
        _ => return None,
    };
    let (mut quality, mut form, mut version, mut group) = (1.0, "", "", "");
    for part in parts {
        match part.split_once('=')? {
            ("q", value) => quality = value.parse().ok()?,
            ("as", value) => form = value,
            ("v", value) => version = value,
            ("g", value) => group = value,
            _ => (),
        }
    }
    let version = match version {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => "",
    };
    let form = match (form, group, version) {
        ("", _, _) if encoding == Encoding::Protobuf && offer == Offer::CustomObjects => {
            return None;
        }
        ("", _, _) => Form::Whole,
        _ if offer == Offer::Plain => return None,
        // Upstream's Table has no message either.
        ("Table", "meta.k8s.io", "v1" | "v1beta1") if encoding != Encoding::Protobuf => {
            Form::Table(version)
        }
        (
            "PartialObjectMetadata" | "PartialObjectMetadataList",
            "meta.k8s.io",
            "v1" | "v1beta1",
        ) => Form::Metadata(version),
        _ => return None,
    };
    Some((quality, definite, Representation { encoding, form }))
}

/// `?pretty=true`, or a browser-like tool that did not say.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    query.optional_flag("pretty").unwrap_or_else(|| {
        let agent = headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str, offer: Offer) -> Option<Representation> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Representation::negotiate(&headers, &Query::default(), offer).ok()
    }

    fn check(accept: &str, expected: Option<Representation>) {
        assert_eq!(chosen(accept, Offer::Everything), expected, "{accept}");
    }

    fn protobuf(form: Form) -> Representation {
        Representation { encoding: Encoding::Protobuf, form }
    }

    #[test]
    fn the_first_best_range_that_we_serve_wins() {
        check("application/json", Some(json(Form::Whole)));
        check("*/*", Some(json(Form::Whole)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some(json(Form::Table("v1"))),
        );
        check(
            "application/json;as=Other;v=v1;g=meta.k8s.io,application/json",
            Some(json(Form::Whole)),
        );
        check(
            "application/json;q=0.5,application/yaml",
            Some(Representation { encoding: Encoding::Yaml, form: Form::Whole }),
        );
        check("application/json;q=0", None);
        check("image/png", None);
    }

    #[test]
    fn protobuf_is_written_where_there_are_messages() {
        check(protobuf::MEDIA_TYPE, Some(protobuf(Form::Whole)));
        check("application/vnd.kubernetes.protobuf, */*", Some(protobuf(Form::Whole)));
        check("*/*, application/vnd.kubernetes.protobuf", Some(protobuf(Form::Whole)));
        check(
            "application/vnd.kubernetes.protobuf;q=0.1,application/json",
            Some(json(Form::Whole)),
        );
        check("application/vnd.kubernetes.protobuf;stream=watch", Some(protobuf(Form::Whole)));
        let metadata =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        check(metadata, Some(protobuf(Form::Metadata("v1"))));
        check(
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
            Some(json(Form::Whole)),
        );
        let custom = |accept| chosen(accept, Offer::CustomObjects);
        assert_eq!(custom(protobuf::MEDIA_TYPE), None);
        assert_eq!(
            custom("application/vnd.kubernetes.protobuf,application/json"),
            Some(json(Form::Whole))
        );
        assert_eq!(custom(metadata), Some(protobuf(Form::Metadata("v1"))));
    }

    #[test]
    fn refusals_are_written_in_what_the_client_reads() {
        let check = |accept: &'static str, expected| {
            let accept = HeaderValue::from_static(accept);
            assert_eq!(Representation::of_refusals(Some(&accept)), expected, "{accept:?}");
        };
        check("application/vnd.kubernetes.protobuf,application/json", Encoding::Protobuf);
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/yaml", Encoding::Yaml);
        check("image/png", Encoding::Json);
    }
}
