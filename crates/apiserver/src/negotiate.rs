//! Which representation the client wants: JSON or YAML; the object itself, a Table, or its metadata alone.

use http::{HeaderMap, header};

use coracle_api::status::Status;

use crate::answer::Answer;
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
pub(crate) const OFFERED: [&str; 2] = ["application/json", "application/yaml"];

impl Default for Representation {
    /// What the store holds.
    fn default() -> Self {
        json(Form::Whole)
    }
}

impl Representation {
    /// The best of what `Accept` lists, or 406. Without the header: JSON.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Answer<Self> {
        let accept =
            headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut chosen =
            if accept.trim().is_empty() { Some((1.0, json(Form::Whole))) } else { None };
        for range in accept.split(',') {
            if let Some((quality, representation)) = read_range(range)
                && quality > 0.0
                && chosen.is_none_or(|(best, _)| quality > best)
            {
                chosen = Some((quality, representation));
            }
        }
        let Some((_, mut representation)) = chosen else {
            return Err(Status::not_acceptable(&OFFERED));
        };
        if representation.encoding == Encoding::Json && wants_pretty(headers, query) {
            representation.encoding = Encoding::PrettyJson;
        }
        Ok(representation)
    }

    /// Whether stored bytes can be sent as they are.
    pub(crate) fn is_stored_form(self) -> bool {
        self.encoding == Encoding::Json && self.form == Form::Whole
    }
}

fn json(form: Form) -> Representation {
    Representation { encoding: Encoding::Json, form }
}

/// One media range with its parameters, or `None` when we cannot serve it.
fn read_range(range: &str) -> Option<(f32, Representation)> {
    let mut parts = range.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" => Encoding::Yaml,
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
        ("", _, _) => Form::Whole,
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Form::Table(version),
        (
            "PartialObjectMetadata" | "PartialObjectMetadataList",
            "meta.k8s.io",
            "v1" | "v1beta1",
        ) => Form::Metadata(version),
        _ => return None,
    };
    Some((quality, Representation { encoding, form }))
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

    fn check(accept: &str, expected: Option<Representation>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(
            Representation::negotiate(&headers, &Query::default()).ok(),
            expected,
            "{accept}"
        );
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
        check("application/vnd.kubernetes.protobuf,application/json", Some(json(Form::Whole)));
        check(
            "application/json;q=0.5,application/yaml",
            Some(Representation { encoding: Encoding::Yaml, form: Form::Whole }),
        );
        check("application/vnd.kubernetes.protobuf", None);
        check("image/png", None);
    }
}
