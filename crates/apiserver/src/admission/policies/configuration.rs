//! Policies and bindings as the store has them, read once and ready to be used.

use std::sync::Arc;

use arc_swap::ArcSwap;
use coracle_api::kinds::Kind;
use coracle_api::selector::LabelSelector;
use coracle_store::{Object, Range, Revision, Store};
use serde_json::Value;

use crate::admission::matching::{Matcher, Subject};
use crate::custom_resources::Snapshot;
use crate::expressions::MatchConditions;
use crate::object::{meta, strings};

/// All objects of a resource, read as `T` once for each state of each, in the order of their names.
pub(super) struct Kept<T> {
    range: Range,
    read: fn(&Value) -> T,
    kept: ArcSwap<Vec<Entry<T>>>,
}

struct Entry<T> {
    name: Arc<str>,
    revision: Revision,
    value: Arc<T>,
}

impl<T> Kept<T> {
    /// Follows a resource of the group of admission.
    pub(super) fn new(plural: &str, read: fn(&Value) -> T) -> Self {
        let range = Range::all(format!("{plural}.admissionregistration.k8s.io"));
        Self { range, read, kept: ArcSwap::default() }
    }

    /// The objects as they are now.
    pub(super) fn all(&self, store: &Store) -> Vec<Arc<T>> {
        let listing = store.list(&self.range, None, None, None);
        let objects = listing.map(|listing| listing.objects).unwrap_or_default();
        if objects.is_empty() {
            return Vec::new();
        }
        let kept = self.kept.load();
        let is_same = |entry: &Entry<T>, object: &Object| {
            entry.revision == object.revision && *entry.name == *object.key.name
        };
        let is_current = kept.len() == objects.len()
            && kept.iter().zip(&objects).all(|(entry, object)| is_same(entry, object));
        if is_current {
            return kept.iter().map(|entry| Arc::clone(&entry.value)).collect();
        }
        let entries = objects.iter().map(|object| {
            let known = kept.iter().find(|entry| is_same(entry, object));
            let value = known.map_or_else(
                || {
                    let value = serde_json::from_slice(&object.bytes).unwrap_or_default();
                    Arc::new((self.read)(&value))
                },
                |entry| Arc::clone(&entry.value),
            );
            Entry { name: Arc::from(&*object.key.name), revision: object.revision, value }
        });
        let entries: Vec<Entry<T>> = entries.collect();
        let all = entries.iter().map(|entry| Arc::clone(&entry.value)).collect();
        self.kept.store(Arc::new(entries));
        all
    }
}

/// What both sorts of policies have.
pub(super) struct Head {
    pub(super) name: String,
    matcher: Result<Matcher, String>,
    /// `failurePolicy: Ignore`
    pub(super) ignores_failure: bool,
    /// API version and kind.
    param_kind: Option<(String, String)>,
    pub(super) conditions: MatchConditions,
}

impl Head {
    pub(super) fn read(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let param_kind = spec.get("paramKind").filter(|kind| kind.is_object());
        Self {
            name: meta(policy, "name").to_owned(),
            matcher: Matcher::of_resources(&spec["matchConstraints"])
                .map_err(|error| error.to_string()),
            ignores_failure: spec["failurePolicy"] == "Ignore",
            param_kind: param_kind.map(|kind| (text(&kind["apiVersion"]), text(&kind["kind"]))),
            conditions: MatchConditions::read(&spec["matchConditions"], param_kind.is_some()),
        }
    }

    /// Whether expressions may use `params`.
    pub(super) fn has_params(&self) -> bool {
        self.param_kind.is_some()
    }

    /// The version in which the policy wants to see the write, if it does.
    pub(super) fn matching_kind(
        &self,
        subject: &Subject<'_>,
        kinds: &Snapshot,
        store: &Store,
    ) -> Result<Option<&'static Kind>, String> {
        let matcher = self.matcher.as_ref().map_err(Clone::clone)?;
        matcher.matches(subject, kinds, store).map_err(|status| status.message)
    }

    /// The kind of the parameters.
    pub(super) fn param_kind(&self, kinds: &Snapshot) -> Result<Option<&'static Kind>, String> {
        let Some((api_version, name)) = &self.param_kind else { return Ok(None) };
        let found = kinds.all().find(|kind| kind.api_version == api_version && kind.kind == name);
        found.map(Some).ok_or_else(|| {
            let slash = if api_version.contains('/') { "" } else { "/" };
            format!("failed to find resource referenced by paramKind: '{slash}{api_version}, Kind={name}'")
        })
    }
}

/// Where and with which parameters a policy is in force.
pub(super) struct Binding {
    pub(super) name: String,
    /// The policy's name.
    pub(super) policy: String,
    /// `matchResources`, if there are any.
    matcher: Option<Result<Matcher, String>>,
    pub(super) param_ref: Option<ParamRef>,
    /// `validationActions`
    pub(super) actions: Vec<String>,
}

/// Which parameters.
pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) selector: Option<Result<LabelSelector, String>>,
    /// `parameterNotFoundAction: Deny`
    pub(super) denies_nothing_found: bool,
}

impl Binding {
    pub(super) fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let present = |field: &str| spec.get(field).filter(|value| value.is_object());
        Self {
            name: meta(binding, "name").to_owned(),
            policy: text(&spec["policyName"]),
            matcher: present("matchResources").map(|resources| {
                Matcher::of_resources(resources).map_err(|error| error.to_string())
            }),
            param_ref: present("paramRef").map(|param_ref| ParamRef {
                name: text(&param_ref["name"]),
                namespace: text(&param_ref["namespace"]),
                selector: param_ref.get("selector").filter(|one| one.is_object()).map(|selector| {
                    LabelSelector::from_value(Some(selector)).map_err(|error| error.to_string())
                }),
                denies_nothing_found: param_ref["parameterNotFoundAction"] == "Deny",
            }),
            actions: strings(spec.get("validationActions")),
        }
    }

    /// Whether it is for the write, which its policy is for.
    pub(super) fn matches(
        &self,
        subject: &Subject<'_>,
        kinds: &Snapshot,
        store: &Store,
    ) -> Result<bool, String> {
        let Some(matcher) = &self.matcher else { return Ok(true) };
        let matcher = matcher.as_ref().map_err(Clone::clone)?;
        let matches = if matcher.has_rules() {
            matcher.matches(subject, kinds, store).map(|kind| kind.is_some())
        } else {
            matcher.selects(subject, store)
        };
        matches.map_err(|status| status.message)
    }
}
