//! Directories of nodes as volumes.
//!
//! Only a node can make a directory of its own and remove it, so its kubelet is asked, through the API. Both requests may
//! be repeated: the directory is named as the volume, and the volume after the claim's uid.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::plan::PROVISIONED_BY;
use crate::api::{is_already_exists, is_not_found, message};
use crate::context::Context;

/// The provisioner's name, as StorageClasses call it.
pub(super) const NAME: &str = "coracle.dev/local-path";
/// Keeps a volume until its directory is gone, as upstream's provisioners do.
const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Why there is no volume, or why it is still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The claim asks for what directories are not.
    #[error("{0}")]
    Unsupported(&'static str),
    /// It may work later.
    #[error("{0}")]
    Later(String),
}

impl Failure {
    /// Whether trying again is of no use.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Unsupported(_))
    }
}

/// Makes a directory of the node, and the volume that it is.
pub(super) async fn provision(
    ctx: &Context,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&Node>,
) -> Result<PersistentVolume, Failure> {
    if let Some(why) = unsupported(claim) {
        return Err(Failure::Unsupported(why));
    }
    let node = node.ok_or_else(|| Failure::Later("there is no node to hold it".to_owned()))?;
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let path = ask(&ctx.client, "PUT", &node.name_any(), &name).await;
    let path = path.map_err(|error| Failure::Later(message(&error)))?;
    let volume = volume(claim, class, node, &name, &path)
        .map_err(|error| Failure::Later(error.to_string()))?;
    let api: Api<PersistentVolume> = Api::all(ctx.client.clone());
    match api.create(&PostParams::default(), &volume).await {
        Err(error) if is_already_exists(&error) => {
            api.get(&name).await.map_err(|error| Failure::Later(message(&error)))
        }
        created => created.map_err(|error| Failure::Later(message(&error))),
    }
}

/// Removes the volume's directory, and then the volume.
pub(super) async fn remove(ctx: &Context, volume: &PersistentVolume) -> Result<(), Failure> {
    let name = volume.name_any();
    let later = |error: &kube::Error| Failure::Later(message(error));
    if let Some(node) = node_of(volume, ctx) {
        ask(&ctx.client, "DELETE", &node, &name).await.map_err(|error| later(&error))?;
    }
    let api: Api<PersistentVolume> = Api::all(ctx.client.clone());
    if volume.metadata.deletion_timestamp.is_none() {
        let this = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
        match api.delete(&name, &DeleteParams::default().preconditions(this)).await {
            // It comes again as one that is being deleted.
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(later(&error)),
        }
    }
    let mut freed = volume.clone();
    freed.finalizers_mut().retain(|finalizer| finalizer != FINALIZER);
    if freed.finalizers().len() == volume.finalizers().len() {
        return Ok(());
    }
    match api.replace(&name, &PostParams::default(), &freed).await {
        Err(error) if !is_not_found(&error) => Err(later(&error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What a directory cannot be.
fn unsupported(claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let spec = claim.spec.as_ref()?;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Some("a local path is a file system: volumeMode Block is not supported");
    }
    if spec.selector.is_some() {
        return Some("claim Selector is not supported");
    }
    spec.data_source_ref.as_ref().map(|_| "claims with a data source are not supported")
}

fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &Node,
    name: &str,
    path: &str,
) -> serde_json::Result<PersistentVolume> {
    let spec = claim.spec.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|resources| resources.requests);
    let hostname = node.labels().get(HOSTNAME).cloned().unwrap_or_else(|| node.name_any());
    let here = json!({ "key": HOSTNAME, "operator": "In", "values": [hostname] });
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "annotations": { PROVISIONED_BY: NAME },
            "finalizers": [FINALIZER],
        },
        "spec": {
            "capacity": { "storage": requests.and_then(|requests| requests.get("storage").cloned()) },
            "accessModes": spec.access_modes,
            "claimRef": coracle_reconcile::reference(claim),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.name_any(),
            "mountOptions": class.mount_options,
            "volumeMode": "Filesystem",
            "local": { "path": path },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
        },
    }))
}

/// On which node the volume's directory is; none if that node is no more, and the directory with it.
fn node_of(volume: &PersistentVolume, ctx: &Context) -> Option<String> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let term = affinity.node_selector_terms.first()?.match_expressions.as_ref()?.first()?;
    let hostname = term.values.as_ref()?.first()?;
    let nodes = ctx.mirrors.nodes.list();
    let found = nodes
        .into_iter()
        .find(|node| node.labels().get(HOSTNAME) == Some(hostname) || node.name_any() == *hostname);
    found.map(|node| node.name_any())
}

/// Asks the node's kubelet about one of its directories; the answer is where it is.
async fn ask(client: &Client, method: &str, node: &str, volume: &str) -> kube::Result<String> {
    let path = format!("/api/v1/nodes/{node}/proxy/localVolumes/{volume}");
    let request = kube_request(method, path)?;
    client.request_text(request).await
}

fn kube_request(method: &str, path: String) -> kube::Result<http::Request<Vec<u8>>> {
    let request = http::Request::builder().method(method).uri(path).body(Vec::new());
    request
        .map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))
}
