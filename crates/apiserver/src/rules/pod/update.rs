//! What may change in a pod once it exists: almost nothing.

use std::fmt::Write;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::number_each;
use crate::rules::generic::{carry, same};
use crate::rules::json::{Read, object, unset};
use crate::rules::pod::{annotations, containers};

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks an update of a pod: images, the deadline, more tolerations, fewer scheduling gates, and nothing else.
pub fn validate(new: &Value, old: &Value, errors: &mut FieldErrors) {
    annotations::validate_update(new, old, errors);
    let (new, old) = (&new["spec"], &old["spec"]);
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        let at = path.child(list);
        if new[list].size() != old[list].size() {
            errors.forbidden(at, "pod updates may not add or remove containers");
            return;
        }
        for (index, container) in new[list].items().iter().enumerate() {
            containers::image(container, &at.index(index), errors);
        }
    }
    if !deadline(&new["activeDeadlineSeconds"], &old["activeDeadlineSeconds"], &path, errors) {
        return;
    }
    only_added(&new["tolerations"], &old["tolerations"], &path.child("tolerations"), errors);
    only_removed(
        &new["schedulingGates"],
        &old["schedulingGates"],
        &path.child("schedulingGates"),
        errors,
    );
    if old["schedulingGates"].size() > 0 {
        only_narrowed(new, old, &path, errors);
    }
    let munged = munge(new, old);
    if !same(&munged, old) {
        errors.forbidden(path, format!("{CHANGEABLE}\n{}", difference(&munged, old)));
    }
}

/// A deadline may come, and come nearer. Returns false if nothing more need be said.
fn deadline(new: &Value, old: &Value, path: &Path, errors: &mut FieldErrors) -> bool {
    let at = path.child("activeDeadlineSeconds");
    if !new.is_set() {
        if old.is_set() {
            errors.invalid(at, Value::Null, "must not update from a positive integer to nil value");
        }
        return true;
    }
    let wrong = names::in_range(new.int(), 0, i64::from(i32::MAX));
    if !wrong.is_empty() {
        number_each(new, wrong, &at, errors);
        return false;
    }
    if old.is_set() && old.int() < new.int() {
        errors.invalid(at, new.clone(), "must be less than or equal to previous value");
        return false;
    }
    true
}

fn only_added(new: &Value, old: &Value, path: &Path, errors: &mut FieldErrors) {
    let kept = |toleration: &Value| {
        new.items().iter().any(|other| {
            ["key", "operator", "value", "effect"]
                .iter()
                .all(|field| same(&other[*field], &toleration[*field]))
        })
    };
    if !old.items().iter().all(kept) {
        errors.forbidden(
            path,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn only_removed(new: &Value, old: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, gate) in new.items().iter().enumerate() {
        if !old.items().contains(gate) {
            let name = gate["name"].text();
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(path.index(index), detail);
        }
    }
}

/// The new spec with all that may change put back.
fn munge(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        if let Some(containers) = munged.get_mut(list).and_then(Value::as_array_mut) {
            for (container, old) in containers.iter_mut().zip(old[list].items()) {
                carry(container, old, "image");
            }
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        carry(&mut munged, old, field);
    }
    if old["terminationGracePeriodSeconds"].int() < 0
        && new["terminationGracePeriodSeconds"].int() == 1
    {
        carry(&mut munged, old, "terminationGracePeriodSeconds");
    }
    // A pod that is not yet offered to the scheduler may be narrowed to fewer nodes.
    if old["schedulingGates"].size() > 0 {
        carry(&mut munged, old, "nodeSelector");
        carry_node_affinity(&mut munged, old);
    }
    munged
}

/// Puts the old affinity to nodes back, and leaves that to pods as it is.
fn carry_node_affinity(munged: &mut Value, old: &Value) {
    let nodes = &old["affinity"]["nodeAffinity"];
    if !munged["affinity"].is_set() && !nodes.is_set() {
        return;
    }
    carry(object(munged, "affinity"), &old["affinity"], "nodeAffinity");
    if munged["affinity"].size() == 0 && !old["affinity"].is_set() {
        unset(munged, "affinity");
    }
}

/// A pod that waits for its scheduling can be sent to fewer nodes, and to no others.
fn only_narrowed(new: &Value, old: &Value, path: &Path, errors: &mut FieldErrors) {
    let at = path.child("nodeSelector");
    let (selector, before) = (&new["nodeSelector"], &old["nodeSelector"]);
    if before.entries().any(|(name, value)| selector[name.as_str()] != *value) {
        let detail = format!("only additions to {at} are allowed (no mutations or deletions)");
        errors.invalid(&at, selector.clone(), detail);
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |spec: &Value| {
        spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].items().to_vec()
    };
    let (terms, before) = (terms(new), terms(old));
    let at = path.child("affinity").child("nodeAffinity").child(REQUIRED);
    let at = at.child("nodeSelectorTerms");
    if !before.is_empty() && before.len() != terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(at, terms, detail);
        return;
    }
    for (index, (term, before)) in terms.iter().zip(&before).enumerate() {
        if !has_only_additions(term, before) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(at.index(index), term.clone(), detail);
        }
    }
}

/// Terms without any requirement match nothing: to add to them would widen them.
fn has_only_additions(term: &Value, before: &Value) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    let size = |term: &Value| lists.iter().map(|list| term[*list].size()).sum::<usize>();
    if size(before) == 0 && size(term) > 0 {
        return false;
    }
    lists.iter().all(|list| term[*list].items().starts_with(before[*list].items()))
}

/// Which fields differ, one line each for the old and the new state.
fn difference(new: &Value, old: &Value) -> String {
    let mut text = String::new();
    let mut fields: Vec<&String> =
        new.entries().chain(old.entries()).map(|(field, _)| field).collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        let (before, after) = (&old[field.as_str()], &new[field.as_str()]);
        if !same(before, after) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "- \t{field}: {before},\n+ \t{field}: {after},");
        }
    }
    text
}
