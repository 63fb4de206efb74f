//! Query parameters, and the options of the verbs that they spell.

use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::status::{FieldErrors, Status};
use coracle_store::Revision;

use crate::answer::Answer;
use crate::request_info::percent_decode;

/// The decoded pairs, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Splits the part of a URL after `?`.
    pub(crate) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Upstream reads a boolean leniently: absent, empty-less, `0` and `false` are false, anything else is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    /// [`Query::flag`], and whether it was given at all.
    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    /// A whole number, or 400.
    pub(crate) fn number(&self, name: &str) -> Answer<Option<i64>> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
            }),
        }
    }

    /// Whether nothing shall be stored: `dryRun=All`, the only value there is.
    pub(crate) fn dry_run(&self) -> Answer<bool> {
        let mut asked = false;
        for value in self.all("dryRun").filter(|value| !value.is_empty()) {
            if value != "All" {
                let mut errors = FieldErrors::new();
                errors.not_supported("dryRun", value, &["All"]);
                return Err(Status::invalid_kind("meta.k8s.io", "WriteOptions", "", &errors));
            }
            asked = true;
        }
        Ok(asked)
    }
}

fn decode(text: &str) -> String {
    if text.contains('+') { percent_decode(&text.replace('+', " ")) } else { percent_decode(text) }
}

/// `ListOptions`: what lists, watches and collection deletions take.
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) resource_version: Option<Revision>,
    pub(crate) resource_version_match: Option<VersionMatch>,
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: Option<String>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
}

/// How a list's `resourceVersion` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    /// At exactly that state.
    Exact,
    /// At that state or a later one.
    NotOlderThan,
}

impl ListOptions {
    /// Reads and checks them; `watching` decides which combinations make sense.
    pub(crate) fn read(query: &Query, watching: bool) -> Answer<Self> {
        let text = |name| query.get(name).filter(|value| !value.is_empty());
        let labels =
            LabelSelector::parse(text("labelSelector").unwrap_or_default()).map_err(|error| {
                Status::bad_request(format!("unable to parse requirement: {error}"))
            })?;
        let fields = FieldSelector::parse(text("fieldSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let resource_version_match = match text("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                let mut errors = FieldErrors::new();
                errors.not_supported("resourceVersionMatch", other, &["Exact", "NotOlderThan"]);
                return Err(invalid_options(&errors));
            }
        };
        let options = Self {
            labels,
            fields,
            resource_version: parse_revision(text("resourceVersion"))?,
            resource_version_match,
            limit: query
                .number("limit")?
                .and_then(|limit| usize::try_from(limit).ok())
                .filter(|&limit| limit > 0),
            continue_token: text("continue").map(str::to_owned),
            timeout_seconds: query
                .number("timeoutSeconds")?
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|&seconds| seconds > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
        };
        options.check(watching)?;
        Ok(options)
    }

    /// The combinations that upstream's `ValidateListOptions` refuses, all of them named.
    fn check(&self, watching: bool) -> Answer<()> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = FieldErrors::new();
        let wanted = self.resource_version_match;
        if watching {
            if self.send_initial_events.is_some() && wanted != Some(VersionMatch::NotOlderThan) {
                errors.forbidden(
                    MATCH,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            if wanted.is_some() && self.send_initial_events.is_none() {
                errors.forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if wanted == Some(VersionMatch::Exact) {
                errors.not_supported(MATCH, "Exact", &["NotOlderThan"]);
            }
        } else {
            if wanted.is_some() && self.resource_version.is_none() {
                errors.forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            if wanted == Some(VersionMatch::Exact) && self.resource_version == Some(Revision::ZERO)
            {
                errors.forbidden(
                    MATCH,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
            if self.send_initial_events.is_some() {
                errors.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
        }
        if wanted.is_some() && self.continue_token.is_some() {
            errors.forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !errors.is_empty() {
            return Err(invalid_options(&errors));
        }
        let names_revision = self.resource_version.is_some_and(|asked| asked != Revision::ZERO);
        if !watching && self.continue_token.is_some() && names_revision {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Ok(())
    }
}

fn invalid_options(errors: &FieldErrors) -> Status {
    Status::invalid_kind("meta.k8s.io", "ListOptions", "", errors)
}

/// A `resourceVersion` from a client; 400 with upstream's wording when it is no number.
pub(crate) fn parse_revision(text: Option<&str>) -> Answer<Option<Revision>> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}
