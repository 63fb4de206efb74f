//! What the status of a ValidatingAdmissionPolicy says about its expressions: whether they fit the kinds that it is for.
//!
//! A warning never changes what a policy does: an expression that fits none of its kinds fails when it is evaluated.

use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_cel::{Environment, Type};
use coracle_store::{Change, Gone, Object, Range, Store};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::custom_resources::{Registry, Snapshot};
use crate::expressions::{Variables, environment_of, kind_type};
use crate::object::{generation, strings};

/// How many kinds are looked at for one policy; upstream's bound.
const KINDS: usize = 10;

/// Checks each policy that was written since its status was, until the server ends.
pub(crate) async fn keep_status(
    store: Store,
    kinds: Arc<Registry>,
    client: kube::Client,
    ends: CancellationToken,
) {
    let followed = async {
        // Whoever falls behind starts again with everything.
        while !matches!(follow(&store, &kinds, &client).await, Err(Gone::Closed)) {}
    };
    ends.run_until_cancelled(followed).await;
}

async fn follow(store: &Store, kinds: &Registry, client: &kube::Client) -> Result<(), Gone> {
    let range = Range::all("validatingadmissionpolicies.admissionregistration.k8s.io");
    let revision = store.revision();
    for object in store.list(&range, None, None, None)?.objects {
        show(kinds, client, &object).await;
    }
    let mut events = store.watch(&range, revision)?;
    loop {
        let event = events.next().await?;
        if let Change::Put { object, .. } = &event.change {
            show(kinds, client, object).await;
        }
    }
}

/// Writes the status of a policy, if it is not about what the policy says now.
async fn show(kinds: &Registry, client: &kube::Client, object: &Object) {
    let Ok(policy) = serde_json::from_slice::<Value>(&object.bytes) else { return };
    let status = &policy["status"];
    if status["typeChecking"].is_object()
        && status["observedGeneration"].as_i64() == Some(generation(&policy))
    {
        return;
    }
    let warnings = check(&policy, &kinds.snapshot());
    let mut checked = json!({});
    if !warnings.is_empty() {
        checked["expressionWarnings"] = json!(warnings);
    }
    let status = json!({ "observedGeneration": generation(&policy), "typeChecking": checked });
    let resource = kube::core::ApiResource {
        group: "admissionregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: "ValidatingAdmissionPolicy".to_owned(),
        plural: "validatingadmissionpolicies".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let as_whom = PatchParams {
        field_manager: Some("validatingadmissionpolicy-status".to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({
        // Whoever changed the policy meanwhile is told about by the next event.
        "metadata": { "resourceVersion": object.revision.to_string() }, "status": status,
    }));
    if let Err(error) = api.patch_status(&object.key.name, &as_whom, &patch).await {
        tracing::debug!(policy = %object.key.name, %error, "a policy's status was not written");
    }
}

/// `expressionWarnings`.
fn check(policy: &Value, kinds: &Snapshot) -> Vec<Value> {
    let spec = &policy["spec"];
    let params = spec.get("paramKind").filter(|kind| kind.is_object()).map(|wanted| {
        let is_it =
            |kind: &&Kind| wanted["apiVersion"] == kind.api_version && wanted["kind"] == kind.kind;
        kinds.all().find(is_it).and_then(kind_type).unwrap_or(Type::Dyn)
    });
    let environments: Vec<(&Kind, Environment)> = kinds_of(spec, kinds)
        .into_iter()
        .filter_map(|kind| {
            let environment = environment_of(&kind_type(kind)?, params.clone());
            Some((kind, Variables::compile(environment, &spec["variables"]).1))
        })
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = validation[field].as_str().unwrap_or_default();
            if expression.is_empty() {
                continue;
            }
            let problems = environments.iter().filter_map(|(kind, environment)| {
                let problems = environment.compile(expression).err()?;
                let Kind { group, version, kind, .. } = kind;
                Some(format!("{group}/{version}, Kind={kind}: {problems}\n"))
            });
            let problems: Vec<String> = problems.collect();
            if !problems.is_empty() {
                let field = format!("spec.validations[{index}].{field}");
                warnings.push(json!({ "fieldRef": field, "warning": problems.join("\n") }));
            }
        }
    }
    warnings
}

/// The kinds that the rules name, without wildcards and subresources.
fn kinds_of(spec: &Value, kinds: &Snapshot) -> Vec<&'static Kind> {
    let mut found: Vec<&'static Kind> = Vec::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let list = |field: &str| strings(rule.get(field));
        let (groups, versions) = (list("apiGroups"), list("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let resources = list("resources");
        let is_named = |kind: &&'static Kind| {
            let has = |names: &[String], name: &str| names.iter().any(|one| one == name);
            has(&groups, kind.group) && has(&versions, kind.version) && has(&resources, kind.plural)
        };
        for kind in kinds.all().filter(is_named) {
            if !found.contains(&kind) && found.len() < KINDS {
                found.push(kind);
            }
        }
    }
    found.sort_by_key(|kind| (kind.group, kind.version, kind.kind));
    found
}
