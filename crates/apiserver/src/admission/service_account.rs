//! ServiceAccount: every pod runs as an account of its namespace, and finds its token at the usual place.

use std::time::Duration;

use coracle_api::status::{Status, go_quote};
use coracle_store::{Object, Range, Store};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, text};
use crate::authn::stored;

/// Where every client library looks for the token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and a little: upstream's number, by which it knows tokens that it put there itself.
const TOKEN_SECONDS: u32 = 3607;
/// A namespace's `default` account is made by a controller a moment after the namespace: a pod that comes first waits.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_millis(1500);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Account {
    automount_service_account_token: Option<bool>,
    image_pull_secrets: Option<Vec<Value>>,
}

/// Gives a new pod its account, the account's pull secrets, and the volume with the token.
pub(super) async fn mutate(
    store: &Store,
    request: &mut AdmissionRequest<'_>,
) -> Result<(), Status> {
    if request.operation != Operation::Create
        || !request.is_core("Pod")
        || is_mirror(request.object)
    {
        return Ok(());
    }
    let spec = &mut request.object["spec"];
    if spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        spec["serviceAccountName"] = "default".into();
    }
    // The older name of the same field always says the same.
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    let name = spec["serviceAccountName"].as_str().unwrap_or_default().to_owned();
    let account = account(store, request, &name).await?;
    let spec = &mut request.object["spec"];
    if spec["automountServiceAccountToken"]
        .as_bool()
        .or(account.automount_service_account_token)
        .unwrap_or(true)
    {
        mount_token(spec);
    }
    if let Some(secrets) = account.image_pull_secrets.filter(|secrets| !secrets.is_empty())
        && spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
    {
        spec["imagePullSecrets"] = secrets.into();
    }
    Ok(())
}

/// Keeps mirrors of static pods, which nobody authorized, away from what accounts may read.
pub(super) fn validate(request: &AdmissionRequest<'_>) -> Result<(), Status> {
    if request.operation != Operation::Create
        || !request.is_core("Pod")
        || !is_mirror(request.object)
    {
        return Ok(());
    }
    if !text(request.object, "/spec/serviceAccountName").unwrap_or_default().is_empty() {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    for volume in items(&request.object["spec"]["volumes"]) {
        if !volume["secret"].is_null() {
            return Err(request.forbidden("a mirror pod may not reference secrets"));
        }
        if items(&volume["projected"]["sources"])
            .any(|source| !source["serviceAccountToken"].is_null())
        {
            return Err(request
                .forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
        }
    }
    Ok(())
}

async fn account(
    store: &Store,
    request: &AdmissionRequest<'_>,
    name: &str,
) -> Result<Account, Status> {
    let namespace = request.namespace;
    let object = match stored(store, "serviceaccounts", namespace, name) {
        Some(object) => Some(object),
        None if name == "default" => arrival(store, namespace, name).await,
        None => None,
    };
    let object = object.ok_or_else(|| {
        let missing = format!("serviceaccount {} not found", go_quote(name));
        request.forbidden(format!("error looking up service account {namespace}/{name}: {missing}"))
    })?;
    serde_json::from_slice(&object.bytes).map_err(Status::internal)
}

/// Waits for an account that should be there soon.
async fn arrival(store: &Store, namespace: &str, name: &str) -> Option<std::sync::Arc<Object>> {
    let mut watch =
        store.watch(&Range::namespace("serviceaccounts", namespace), store.revision()).ok()?;
    let seen = async {
        loop {
            // After the watch began: nothing falls between.
            if let Some(account) = stored(store, "serviceaccounts", namespace, name) {
                return Some(account);
            }
            watch.next().await.ok()?;
        }
    };
    tokio::time::timeout(DEFAULT_ACCOUNT_WAIT, seen).await.ok().flatten()
}

/// Adds the token's volume, and its mount to each container that has none at that path.
fn mount_token(spec: &mut Value) {
    let known = items(&spec["volumes"]).filter_map(|volume| volume["name"].as_str());
    let known = known.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let name = known.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix()));
    let mut needed = false;
    for kind in ["initContainers", "containers"] {
        let containers = spec.get_mut(kind).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if items(&container["volumeMounts"]).any(|mount| mount["mountPath"] == TOKEN_PATH) {
                continue;
            }
            needed = true;
            push(
                &mut container["volumeMounts"],
                json!({ "name": name, "readOnly": true, "mountPath": TOKEN_PATH }),
            );
        }
    }
    if needed && known.is_none() {
        push(&mut spec["volumes"], token_volume(&name));
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
        },
    })
}

fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations")
        .is_some_and(|annotations| annotations.get("kubernetes.io/config.mirror").is_some())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

/// Five characters of upstream's alphabet for generated names, which spells no words.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}
