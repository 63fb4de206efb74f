//! A namespace's labels as a policy: which standard is enforced, and which are warned of and audited.

use std::fmt;

use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

/// How much pods may do, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Anything.
    Privileged,
    /// What is not known to give them their node.
    Baseline,
    /// What hardened pods need.
    Restricted,
}

/// Of which release the standard is. `Latest` is newer than any release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// `v1.N`.
    Minor(u32),
    /// This server's.
    Latest,
}

/// A level as some release defined it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standard {
    pub level: Level,
    pub version: Version,
}

/// What a namespace wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

/// A label that says nothing we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrongLabel {
    label: String,
    value: String,
    why: &'static str,
}

impl Default for Standard {
    fn default() -> Self {
        Self { level: Level::Privileged, version: Version::Latest }
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(out, "{level}:latest"),
            Version::Minor(minor) => write!(out, "{level}:v1.{minor}"),
        }
    }
}

impl Policy {
    /// Reads a namespace's labels. There is always a policy: what is enforced by a wrong label is the strictest standard, and
    /// nothing is warned of or audited by one.
    pub fn read(namespace: &Value) -> (Self, Vec<WrongLabel>) {
        let mut wrong = Vec::new();
        let mut standard = |mode: &str, fallback: Level| {
            let name = |suffix: &str| format!("pod-security.kubernetes.io/{mode}{suffix}");
            let mut standard = Standard::default();
            if let Some(value) = label(namespace, &name("")) {
                standard.level = level(value).unwrap_or_else(|| {
                    let why = "must be one of privileged, baseline, restricted";
                    wrong.push(WrongLabel { label: name(""), value: value.to_owned(), why });
                    fallback
                });
            }
            if let Some(value) = label(namespace, &name("-version")) {
                standard.version = version(value).unwrap_or_else(|| {
                    let why = r#"must be "latest" or "v1.x""#;
                    wrong.push(WrongLabel {
                        label: name("-version"),
                        value: value.to_owned(),
                        why,
                    });
                    Version::Latest
                });
            }
            standard
        };
        let policy = Self {
            enforce: standard("enforce", Level::Restricted),
            audit: standard("audit", Level::Privileged),
            warn: standard("warn", Level::Privileged),
        };
        (policy, wrong)
    }
}

impl WrongLabel {
    /// As the error of the label's field.
    pub fn report(self, errors: &mut FieldErrors) {
        let path = Path::new("metadata").child("labels").key(&self.label);
        errors.invalid(path, self.value, self.why);
    }
}

fn label<'a>(namespace: &'a Value, name: &str) -> Option<&'a str> {
    namespace.pointer("/metadata/labels")?.get(name)?.as_str()
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|byte| byte.is_ascii_digit())
        && (minor == "0" || !minor.starts_with('0'));
    plain.then(|| minor.parse().ok().map(Version::Minor)).flatten()
}
