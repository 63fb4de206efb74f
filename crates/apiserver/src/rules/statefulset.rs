//! `StatefulSet`.

use std::borrow::Cow;

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::rules::checks::{count_or_percent, not_negative, one_of};
use crate::rules::json::{Read, default, default_zero, each, object};
use crate::rules::{Rules, claim, generic, pod, workload};

pub static RULES: Rules = Rules {
    default: |set| {
        let spec = object(set, "spec");
        default_zero(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object(spec, "updateStrategy");
        default_zero(strategy, "type", "RollingUpdate");
        if strategy["type"].text() == "RollingUpdate" {
            default(object(strategy, "rollingUpdate"), "partition", 0);
        }
        let retention = object(spec, "persistentVolumeClaimRetentionPolicy");
        default_zero(retention, "whenDeleted", "Retain");
        default_zero(retention, "whenScaled", "Retain");
        default(spec, "replicas", 1);
        default(spec, "revisionHistoryLimit", 10);
        pod::defaults::template(spec);
        each(spec, "volumeClaimTemplates", claim::default_template);
    },
    prepare_create: |new| {
        generic::start_status(new, json!({"replicas": 0, "availableReplicas": 0}));
        pod::prepare_template(&mut new["spec"]);
    },
    prepare_update: |new, old| {
        generic::keep_status(new, old);
        pod::prepare_template(&mut new["spec"]);
    },
    validate,
    validate_update,
    validate_status_update: |new, old, errors| {
        workload::replica_counts(new, old, "status.readyReplicas", errors);
    },
    ..Rules::GENERIC
};

fn validate(set: &Value, errors: &mut FieldErrors) {
    let (spec, path) = (&set["spec"], Path::new("spec"));
    match spec["podManagementPolicy"].text() {
        "" => errors.required(path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => (),
        other => errors.invalid(
            path.child("podManagementPolicy"),
            other,
            "must be 'OrderedReady' or 'Parallel'",
        ),
    }
    strategy(&spec["updateStrategy"], &path.child("updateStrategy"), errors);
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = &spec["persistentVolumeClaimRetentionPolicy"][field];
        one_of(policy, &["Delete", "Retain"], retention.child(field), errors);
    }
    for field in ["replicas", "minReadySeconds"] {
        not_negative(&spec[field], path.child(field), errors);
    }
    let service = spec["serviceName"].text();
    if !service.is_empty() && set["metadata"]["resourceVersion"].text().is_empty() {
        errors.invalid_each(path.child("serviceName"), service, names::dns_label(service));
    }
    not_negative(&spec["ordinals"]["start"], path.child("ordinals").child("start"), errors);
    workload::selector_and_template(&with_claims(spec), "StatefulSet", &path, errors);
}

/// The spec with the volumes that the controller adds to its pods: containers may mount them.
fn with_claims(spec: &Value) -> Cow<'_, Value> {
    let claims = spec["volumeClaimTemplates"].items();
    if claims.is_empty() {
        return Cow::Borrowed(spec);
    }
    let volumes = spec["template"]["spec"]["volumes"].items();
    let mut all = volumes.to_vec();
    for claim in claims {
        let name = &claim["metadata"]["name"];
        if !volumes.iter().any(|volume| volume["name"] == *name) {
            all.push(json!({ "name": name, "emptyDir": {} }));
        }
    }
    let mut spec = spec.clone();
    spec["template"]["spec"]["volumes"] = all.into();
    Cow::Owned(spec)
}

fn strategy(strategy: &Value, path: &Path, errors: &mut FieldErrors) {
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match strategy["type"].text() {
        "" => errors.required(path, ""),
        "OnDelete" if rolling.is_set() => {
            errors.invalid(at, rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => (),
        "RollingUpdate" => {
            not_negative(&rolling["partition"], at.child("partition"), errors);
            count_or_percent(&rolling["maxUnavailable"], &at.child("maxUnavailable"), errors);
        }
        _ => errors.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// What names the pods and their claims may not change once they are there.
fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let mut munged = new["spec"].clone();
    for field in [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ] {
        generic::carry(&mut munged, &old["spec"], field);
    }
    if !generic::same(&munged, &old["spec"]) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
            'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
            forbidden";
        errors.forbidden("spec", detail);
    }
}
