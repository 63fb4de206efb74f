//! What a deletion means for an object: gone at once, or marked until its finalizers and its grace are over. Pure.
//!
//! The rules are upstream's `rest.BeforeDelete` and `deletionFinalizersForGarbageCollection`
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go>).

use coracle_api::kinds::Kind;
use coracle_api::status::{FieldErrors, Status};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::change::ends_life;
use crate::custom_resources;
use crate::object::{
    self, finalizers, generation, is_deleting, meta, set_finalizers, set_meta, text,
};
use crate::query::Query;

/// What to do about the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They stay, without their owner.
    Orphan,
    /// The garbage collector deletes them afterwards.
    Background,
    /// The garbage collector deletes them first.
    Foreground,
}

/// `DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Take it out of the store; this is the state that watchers see last.
    Remove(Value),
    /// Store this state: it is on its way out.
    Mark(Value),
    /// It is on its way already.
    Wait,
}

impl DeleteOptions {
    /// Out of the body, if there is one, and the query.
    pub(crate) fn read(body: &Value, query: &Query) -> Answer<Self> {
        let dry_run = query.dry_run()?
            || body
                .get("dryRun")
                .is_some_and(|list| object::strings(Some(list)).iter().any(|word| word == "All"));
        let grace_seconds = match body.get("gracePeriodSeconds").and_then(Value::as_i64) {
            Some(seconds) => Some(seconds),
            None => query.number("gracePeriodSeconds")?,
        };
        let policy = body
            .get("propagationPolicy")
            .and_then(Value::as_str)
            .or_else(|| query.get("propagationPolicy"));
        let orphan = body
            .get("orphanDependents")
            .and_then(Value::as_bool)
            .or_else(|| query.optional_flag("orphanDependents"));
        let precondition = |field: &str| text(body, &format!("/preconditions/{field}")).to_owned();
        Ok(Self {
            grace_seconds,
            propagation: read_propagation(policy.filter(|policy| !policy.is_empty()), orphan)?,
            uid: Some(precondition("uid")).filter(|uid| !uid.is_empty()),
            resource_version: Some(precondition("resourceVersion"))
                .filter(|version| !version.is_empty()),
            dry_run,
        })
    }

    /// As webhooks are told.
    pub(crate) fn to_value(&self) -> Value {
        let mut options = json!({ "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1" });
        if let Some(seconds) = self.grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(propagation) = self.propagation {
            options["propagationPolicy"] = json!(format!("{propagation:?}"));
        }
        let preconditions = [("uid", &self.uid), ("resourceVersion", &self.resource_version)];
        for (field, wanted) in preconditions {
            if let Some(wanted) = wanted {
                options["preconditions"][field] = json!(wanted);
            }
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// 409 when the object is not the one that the client means.
    pub(crate) fn check_preconditions(
        &self,
        kind: &Kind,
        name: &str,
        current: &Value,
    ) -> Answer<()> {
        let (uid, version) = (meta(current, "uid"), meta(current, "resourceVersion"));
        if let Some(wanted) = self.uid.as_deref().filter(|&wanted| wanted != uid) {
            let why = format!(
                "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
            );
            return Err(Status::conflict(kind, name, why));
        }
        if let Some(wanted) = self.resource_version.as_deref().filter(|&wanted| wanted != version) {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
            );
            return Err(Status::conflict(kind, name, why));
        }
        Ok(())
    }
}

fn read_propagation(policy: Option<&str>, orphan: Option<bool>) -> Answer<Option<Propagation>> {
    let mut errors = FieldErrors::new();
    let propagation = match (policy, orphan) {
        (Some(policy), Some(_)) => {
            errors.invalid(
                "propagationPolicy",
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            );
            None
        }
        (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some(other), None) => {
            errors.not_supported(
                "propagationPolicy",
                other,
                &["Background", "Foreground", "Orphan"],
            );
            None
        }
        (None, None) => None,
    };
    if errors.is_empty() {
        Ok(propagation)
    } else {
        Err(Status::invalid_kind("meta.k8s.io", "DeleteOptions", "", &errors))
    }
}

/// Decides the next step of a deletion.
pub(crate) fn plan(kind: &Kind, current: &Value, options: &DeleteOptions) -> Step {
    let mut next = current.clone();
    set_finalizers(&mut next, &collector_finalizers(kind, current, options.propagation));
    let was_deleting = is_deleting(current);
    if custom_resources::is_definition(kind) && !was_deleting {
        custom_resources::begin_termination(&mut next);
    }
    match grace(kind, current, options.grace_seconds) {
        Grace::Pending if next == *current => return Step::Wait,
        Grace::Pending => return Step::Mark(next),
        Grace::Seconds(seconds) => mark(&mut next, current, seconds),
        Grace::Nothing => {
            if kind.kind == "Namespace" && kind.group.is_empty() {
                next["status"]["phase"] = json!("Terminating");
            }
            if !was_deleting {
                let mut marked = next.clone();
                mark(&mut marked, current, 0);
                if ends_life(kind, &marked) {
                    return Step::Remove(next);
                }
                next = marked;
            }
        }
    }
    if ends_life(kind, &next) {
        Step::Remove(next)
    } else if next == *current {
        Step::Wait
    } else {
        Step::Mark(next)
    }
}

/// How much longer an object may live once its deletion is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Grace {
    /// It is being deleted, and nothing about that changes.
    Pending,
    /// This long, for its processes to end.
    Seconds(i64),
    /// The kind has no processes.
    Nothing,
}

fn grace(kind: &Kind, current: &Value, asked: Option<i64>) -> Grace {
    const DEFAULT_SECONDS: i64 = 30;
    if !(kind.group.is_empty() && kind.kind == "Pod") {
        return Grace::Nothing;
    }
    // A negative period once meant "no wish"; upstream makes it the shortest one.
    let asked = asked.map(|seconds| if seconds < 0 { 1 } else { seconds });
    if is_deleting(current) {
        let running =
            current.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
        return match (running, asked) {
            (None, _) => Grace::Seconds(0),
            (Some(running), Some(asked)) if asked < running => Grace::Seconds(asked),
            (Some(_), _) => Grace::Pending,
        };
    }
    let wanted = current.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let seconds = asked.or(wanted).unwrap_or(DEFAULT_SECONDS);
    // Nothing runs before the pod has a node, and nothing runs any more once it has ended.
    let runs = !text(current, "/spec/nodeName").is_empty()
        && !matches!(text(current, "/status/phase"), "Succeeded" | "Failed");
    Grace::Seconds(if runs { if seconds < 0 { 1 } else { seconds } } else { 0 })
}

fn mark(next: &mut Value, current: &Value, seconds: i64) {
    let old_seconds =
        current.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let at = match (
        text(current, "/metadata/deletionTimestamp").parse::<jiff::Timestamp>(),
        old_seconds,
    ) {
        // A shorter grace counts from when the deletion was asked for first.
        (Ok(end), Some(old)) => end
            .checked_add(jiff::SignedDuration::from_secs(seconds - old))
            .map_or_else(|_| object::now(), |end| end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        _ => object::seconds_from_now(seconds),
    };
    set_meta(next, "deletionTimestamp", Some(json!(at)));
    set_meta(next, "deletionGracePeriodSeconds", Some(json!(seconds)));
    if !is_deleting(current) && generation(current) > 0 {
        set_meta(next, "generation", Some(json!(generation(current) + 1)));
    }
}

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The object's finalizers, with those that tell the garbage collector what to do about dependents.
fn collector_finalizers(kind: &Kind, current: &Value, wanted: Option<Propagation>) -> Vec<String> {
    let mut finalizers = finalizers(current);
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let propagation = wanted.unwrap_or(if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) {
        Propagation::Foreground
    } else if orphans_by_default(kind) {
        Propagation::Orphan
    } else {
        Propagation::Background
    });
    let kept = match propagation {
        Propagation::Orphan => ORPHAN,
        Propagation::Foreground => FOREGROUND,
        Propagation::Background => "",
    };
    finalizers
        .retain(|finalizer| (finalizer != ORPHAN && finalizer != FOREGROUND) || finalizer == kept);
    if !kept.is_empty() && !finalizers.iter().any(|finalizer| finalizer == kept) {
        finalizers.push(kept.to_owned());
    }
    finalizers
}

/// Kinds whose first clients expected dependents to stay.
fn orphans_by_default(kind: &Kind) -> bool {
    matches!((kind.group, kind.kind), ("", "ReplicationController") | ("batch", "Job"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(api_version: &str, name: &str) -> &'static Kind {
        coracle_api::kinds::by_api_version(api_version, name).unwrap()
    }

    fn check(kind: &Kind, current: Value, options: DeleteOptions, expected: &str) {
        let summary = match plan(kind, &current, &options) {
            Step::Wait => "wait".to_owned(),
            Step::Remove(_) => "remove".to_owned(),
            Step::Mark(next) => {
                format!(
                    "mark {} {}",
                    next["metadata"]["deletionGracePeriodSeconds"],
                    finalizers(&next).join(",")
                )
            }
        };
        assert_eq!(summary.trim_end(), expected, "{current}");
    }

    fn seconds(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn a_pod_gets_its_grace_only_while_something_runs() {
        let pod = kind("v1", "Pod");
        let running = json!({ "metadata": {}, "spec": { "nodeName": "n", "terminationGracePeriodSeconds": 7 } });
        check(pod, json!({ "metadata": {}, "spec": {} }), DeleteOptions::default(), "remove");
        check(pod, running.clone(), DeleteOptions::default(), "mark 7");
        check(pod, running.clone(), seconds(3), "mark 3");
        check(pod, running.clone(), seconds(0), "remove");
        check(pod, running, seconds(-1), "mark 1");
        let ended = json!({ "metadata": {}, "spec": { "nodeName": "n" }, "status": { "phase": "Succeeded" } });
        check(pod, ended, DeleteOptions::default(), "remove");
    }

    #[test]
    fn a_running_deletion_can_only_get_shorter() {
        let pod = kind("v1", "Pod");
        let going = json!({
            "metadata": { "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30 },
            "spec": { "nodeName": "n" },
        });
        check(pod, going.clone(), DeleteOptions::default(), "wait");
        check(pod, going.clone(), seconds(60), "wait");
        check(pod, going.clone(), seconds(5), "mark 5");
        check(pod, going.clone(), seconds(0), "remove");
        let Step::Mark(next) = plan(pod, &going, &seconds(5)) else { panic!("not marked") };
        assert_eq!(next["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
    }

    #[test]
    fn finalizers_keep_an_object_and_policies_set_them() {
        let deployment = kind("apps/v1", "Deployment");
        let with = |propagation| DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        check(deployment, json!({ "metadata": {} }), DeleteOptions::default(), "remove");
        check(
            deployment,
            json!({ "metadata": { "finalizers": ["a/b"] } }),
            DeleteOptions::default(),
            "mark 0 a/b",
        );
        check(deployment, json!({ "metadata": {} }), with(Propagation::Orphan), "mark 0 orphan");
        check(
            deployment,
            json!({ "metadata": {} }),
            with(Propagation::Foreground),
            "mark 0 foregroundDeletion",
        );
        check(
            deployment,
            json!({ "metadata": { "finalizers": ["orphan"] } }),
            with(Propagation::Background),
            "remove",
        );
        check(
            kind("batch/v1", "Job"),
            json!({ "metadata": {} }),
            DeleteOptions::default(),
            "mark 0 orphan",
        );
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let namespace = kind("v1", "Namespace");
        let active = json!({ "metadata": {}, "spec": { "finalizers": ["kubernetes"] } });
        let Step::Mark(next) = plan(namespace, &active, &DeleteOptions::default()) else {
            panic!("not marked")
        };
        assert_eq!(next["status"]["phase"], "Terminating");
        check(namespace, next, DeleteOptions::default(), "wait");
        check(namespace, json!({ "metadata": {}, "spec": {} }), DeleteOptions::default(), "remove");
    }
}
