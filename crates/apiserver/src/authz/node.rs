//! What a kubelet may read: what its own pods need, and nothing else.
//!
//! Upstream's node authorizer, asked before RBAC, so that the kubelets' identity needs no role that reads every Secret:
//! <https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/auth/authorizer/node/node_authorizer.go>. The pods of each
//! node are indexed from a watch; their claims and volumes are looked up when they are asked about. What is not
//! subdivided by node is in the rules of the ClusterRole `system:node`; writes are NodeRestriction's.

use std::collections::HashMap;

use coracle_api::selector::FieldTerm;
use coracle_store::{Change, Gone, Key, Range, Store, Watch};
use parking_lot::Mutex;
use serde_json::Value;

use super::rules::Rule;
use super::{Attributes, Target};
use crate::authn::stored;

const LEASES: &str = "kube-node-lease";
const CSI_SECRETS: [&str; 5] = [
    "nodePublishSecretRef",
    "nodeStageSecretRef",
    "nodeExpandSecretRef",
    "controllerExpandSecretRef",
    "controllerPublishSecretRef",
];

/// Decides for kubelets.
pub(super) struct NodeAuthorizer {
    store: Store,
    rules: Vec<Rule>,
    index: Mutex<Index>,
}

/// The pods of each node, and what they use.
#[derive(Default)]
struct Index {
    watch: Option<Watch>,
    nodes: HashMap<Box<str>, HashMap<Key, Uses>>,
    places: HashMap<Key, Box<str>>,
}

/// What a pod needs, by name, in its own namespace.
#[derive(Default, Debug, PartialEq)]
struct Uses {
    accounts: Vec<String>,
    secrets: Vec<String>,
    config_maps: Vec<String>,
    claims: Vec<String>,
    resource_claims: Vec<String>,
}

impl NodeAuthorizer {
    /// Over the pods of this store, with these rules for what belongs to no node.
    pub(super) fn new(store: Store, rules: Vec<Rule>) -> Self {
        Self { store, rules, index: Mutex::default() }
    }

    /// Whether this node may; the reason is for the refusal.
    pub(super) fn decide(&self, node: &str, question: &Attributes<'_>) -> Result<(), String> {
        let Attributes { verb, ref target, fields, .. } = *question;
        let related = match target {
            Target::Path(_) => None,
            Target::Resource { group, resource, subresource, namespace, name } => {
                let asked = Asked { node, verb, subresource, namespace, name, fields };
                self.decide_related(group, resource, &asked)
            }
        };
        match related {
            Some(decision) => decision,
            None if self.rules.iter().any(|rule| rule.allows(verb, target)) => Ok(()),
            None => Err(String::new()),
        }
    }

    /// About resources of which a node sees a part; `None` for others.
    fn decide_related(
        &self,
        group: &str,
        resource: &str,
        asked: &Asked<'_>,
    ) -> Option<Result<(), String>> {
        let Asked { verb, subresource, namespace, name, node, .. } = *asked;
        Some(match (group, resource) {
            ("", "secrets") => asked
                .reads()
                .and_then(|()| self.related(asked, |uses| self.secret(uses, namespace, name))),
            ("", "configmaps") => asked.reads().and_then(|()| {
                self.related(asked, |uses| {
                    in_namespace(uses, namespace, name, |uses| &uses.config_maps)
                })
            }),
            ("", "persistentvolumeclaims") => {
                let wanted: &[&str] =
                    if subresource == "status" { &["get", "update", "patch"] } else { &["get"] };
                asked.only(wanted).and_then(|()| {
                    self.related(asked, |uses| {
                        in_namespace(uses, namespace, name, |uses| &uses.claims)
                    })
                })
            }
            ("", "persistentvolumes") => asked.only(&["get"]).and_then(|()| {
                self.related(asked, |uses| self.volumes(uses).any(|(volume, _)| volume == name))
            }),
            ("", "serviceaccounts") => {
                let wanted = if subresource == "token" { "create" } else { "get" };
                asked.only(&[wanted]).and_then(|()| {
                    self.related(asked, |uses| {
                        in_namespace(uses, namespace, name, |uses| &uses.accounts)
                    })
                })
            }
            ("resource.k8s.io", "resourceclaims") => asked.only(&["get"]).and_then(|()| {
                self.related(asked, |uses| {
                    in_namespace(uses, namespace, name, |uses| &uses.resource_claims)
                })
            }),
            ("storage.k8s.io", "volumeattachments") => asked.only(&["get"]).and_then(|()| {
                let attached = self.object("volumeattachments.storage.k8s.io", "", name);
                let here = attached.is_some_and(|object| object["spec"]["nodeName"] == node);
                if here { Ok(()) } else { Err(asked.unrelated()) }
            }),
            ("", "nodes") => own_node(asked),
            ("", "pods") => self.pods(asked),
            ("resource.k8s.io", "resourceslices") => self.slices(asked),
            ("coordination.k8s.io", "leases") => lease(asked),
            ("storage.k8s.io", "csinodes") if subresource.is_empty() => {
                let reads_all = matches!(verb, "list" | "watch") && name.is_empty();
                if !reads_all && (name == node || verb == "create") {
                    Ok(())
                } else {
                    Err("can only access CSINode with the same name as the requesting node"
                        .to_owned())
                }
            }
            _ => return None,
        })
    }

    /// Of all pods a node sees those that it runs; what it writes is `NodeRestriction`'s to judge.
    fn pods(&self, asked: &Asked<'_>) -> Result<(), String> {
        let own = |pods: &HashMap<Key, Uses>| {
            pods.keys().any(|pod| (&*pod.namespace, &*pod.name) == (asked.namespace, asked.name))
        };
        match (asked.subresource, asked.verb) {
            ("", "list" | "watch") if asked.selects("spec.nodeName") => Ok(()),
            ("", "list" | "watch") if asked.name.is_empty() => {
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            ("", "get" | "list" | "watch") => asked.named().and_then(|()| self.related(asked, own)),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => Err(String::new()),
        }
    }

    /// And of all slices of devices those that are about it.
    fn slices(&self, asked: &Asked<'_>) -> Result<(), String> {
        let collection =
            "can only list/watch/deletecollection resourceslices with nodeName field selector";
        match asked.verb {
            _ if !asked.subresource.is_empty() => {
                Err("cannot authorize ResourceSlice subresources".to_owned())
            }
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => asked.named().and_then(|()| {
                let slice = self.object("resourceslices.resource.k8s.io", "", asked.name);
                let is_own = slice.is_some_and(|slice| slice["spec"]["nodeName"] == asked.node);
                if is_own { Ok(()) } else { Err(asked.unrelated()) }
            }),
            "list" | "watch" | "deletecollection"
                if asked.selects("spec.nodeName") || asked.selects("nodeName") =>
            {
                Ok(())
            }
            "list" | "watch" | "deletecollection" => Err(collection.to_owned()),
            _ => Err(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".to_owned(),
            ),
        }
    }

    fn related(
        &self,
        asked: &Asked<'_>,
        uses: impl Fn(&HashMap<Key, Uses>) -> bool,
    ) -> Result<(), String> {
        let mut index = self.index.lock();
        index.catch_up(&self.store);
        let found = index.nodes.get(asked.node).is_some_and(uses);
        if found { Ok(()) } else { Err(asked.unrelated()) }
    }

    fn secret(&self, pods: &HashMap<Key, Uses>, namespace: &str, name: &str) -> bool {
        in_namespace(pods, namespace, name, |uses| &uses.secrets)
            || self.volumes(pods).any(|(_, volume)| {
                CSI_SECRETS.iter().any(|field| {
                    let secret = &volume["spec"]["csi"][field];
                    secret["name"] == name && secret["namespace"] == namespace
                })
            })
    }

    /// The volumes that are bound to the pods' claims.
    fn volumes(&self, pods: &HashMap<Key, Uses>) -> impl Iterator<Item = (String, Value)> {
        let claims = pods.iter().flat_map(|(pod, uses)| {
            uses.claims.iter().filter_map(|claim| {
                let claim = self.object("persistentvolumeclaims", &pod.namespace, claim)?;
                let name = claim["spec"]["volumeName"].as_str()?.to_owned();
                let volume = self.object("persistentvolumes", "", &name)?;
                Some((name, volume))
            })
        });
        claims.collect::<Vec<_>>().into_iter()
    }

    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let object = stored(&self.store, resource, namespace, name)?;
        serde_json::from_slice(&object.bytes).ok()
    }
}

/// One question of one node.
struct Asked<'a> {
    node: &'a str,
    verb: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    fields: &'a [FieldTerm],
}

impl Asked<'_> {
    /// Whether nothing but what bears the node's name in this field is asked for.
    fn selects(&self, field: &str) -> bool {
        self.fields
            .iter()
            .any(|term| term.field == field && !term.negated && term.value == self.node)
    }

    fn named(&self) -> Result<(), String> {
        if self.name.is_empty() { Err("No Object name found".to_owned()) } else { Ok(()) }
    }

    fn reads(&self) -> Result<(), String> {
        if !matches!(self.verb, "get" | "list" | "watch") || !self.subresource.is_empty() {
            return Err("can only read resources of this type".to_owned());
        }
        if self.name.is_empty() || self.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        Ok(())
    }

    fn only(&self, verbs: &[&str]) -> Result<(), String> {
        if !verbs.contains(&self.verb) {
            return Err(format!("can only {} individual resources of this type", verbs.join(", ")));
        }
        self.named()
    }

    fn unrelated(&self) -> String {
        format!("no relationship found between node '{}' and this object", self.node)
    }
}

/// What a node writes is `NodeRestriction`'s to judge.
fn own_node(asked: &Asked<'_>) -> Result<(), String> {
    let node = asked.node;
    match (asked.subresource, asked.verb, asked.name) {
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Ok(()),
        ("", "get" | "list" | "watch", name) if name == node => Ok(()),
        ("", "get" | "list" | "watch", "") => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch", name) => {
            Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
        }
        _ => Err(String::new()),
    }
}

fn lease(asked: &Asked<'_>) -> Result<(), String> {
    let verbs = ["get", "create", "update", "patch", "delete"];
    if !verbs.contains(&asked.verb) {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if asked.namespace != LEASES {
        return Err(format!("can only access leases in the \"{LEASES}\" system namespace"));
    }
    if asked.verb != "create" && asked.name != asked.node {
        return Err(
            "can only access node lease with the same name as the requesting node".to_owned()
        );
    }
    Ok(())
}

fn in_namespace(
    pods: &HashMap<Key, Uses>,
    namespace: &str,
    name: &str,
    list: impl Fn(&Uses) -> &Vec<String>,
) -> bool {
    pods.iter().any(|(pod, uses)| {
        &*pod.namespace == namespace && list(uses).iter().any(|used| used == name)
    })
}

impl Index {
    /// Takes in what was written since the last question.
    fn catch_up(&mut self, store: &Store) {
        if self.follow().is_err() {
            self.reload(store);
        }
    }

    fn follow(&mut self) -> Result<(), ()> {
        let mut watch = self.watch.take().ok_or(())?;
        loop {
            match watch.try_next() {
                Ok(Some(event)) => {
                    let object = event.object();
                    match &event.change {
                        Change::Put { .. } => self.put(&object.key, &object.bytes),
                        Change::Delete { .. } => self.remove(&object.key),
                    }
                }
                // A closed store changes no more: what we know stays right.
                Ok(None) | Err(Gone::Closed) => break,
                Err(Gone::Compacted { .. }) => return Err(()),
            }
        }
        self.watch = Some(watch);
        Ok(())
    }

    fn reload(&mut self, store: &Store) {
        *self = Self::default();
        let range = Range::all("pods");
        let Ok(listing) = store.list(&range, None, None, None) else { return };
        for object in &listing.objects {
            self.put(&object.key, &object.bytes);
        }
        self.watch = store.watch(&range, listing.revision).ok();
    }

    fn put(&mut self, key: &Key, bytes: &[u8]) {
        self.remove(key);
        let Ok(pod) = serde_json::from_slice::<Value>(bytes) else { return };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if !node.is_empty() {
            self.places.insert(key.clone(), node.into());
            self.nodes.entry(node.into()).or_default().insert(key.clone(), uses_of(&pod));
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(node) = self.places.remove(key) else { return };
        if let Some(pods) = self.nodes.get_mut(&node) {
            pods.remove(key);
            if pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }
}

/// What a pod names. Whoever makes a mirror pod is a kubelet: it must not open doors for itself.
fn uses_of(pod: &Value) -> Uses {
    let mut uses = Uses::default();
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return uses;
    }
    let spec = &pod["spec"];
    push(&mut uses.accounts, &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        push(&mut uses.secrets, &secret["name"]);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&spec[list]) {
            for variable in items(&container["env"]) {
                push(&mut uses.secrets, &variable["valueFrom"]["secretKeyRef"]["name"]);
                push(&mut uses.config_maps, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for source in items(&container["envFrom"]) {
                push(&mut uses.secrets, &source["secretRef"]["name"]);
                push(&mut uses.config_maps, &source["configMapRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        volume_uses(pod, volume, &mut uses);
    }
    for claim in items(&spec["resourceClaims"]) {
        push(&mut uses.resource_claims, &claim["resourceClaimName"]);
    }
    for claim in items(&pod["status"]["resourceClaimStatuses"]) {
        push(&mut uses.resource_claims, &claim["resourceClaimName"]);
    }
    uses
}

fn volume_uses(pod: &Value, volume: &Value, uses: &mut Uses) {
    push(&mut uses.secrets, &volume["secret"]["secretName"]);
    push(&mut uses.secrets, &volume["azureFile"]["secretName"]);
    push(&mut uses.secrets, &volume["csi"]["nodePublishSecretRef"]["name"]);
    for source in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        push(&mut uses.secrets, &volume[source]["secretRef"]["name"]);
    }
    push(&mut uses.config_maps, &volume["configMap"]["name"]);
    for source in items(&volume["projected"]["sources"]) {
        push(&mut uses.secrets, &source["secret"]["name"]);
        push(&mut uses.config_maps, &source["configMap"]["name"]);
    }
    push(&mut uses.claims, &volume["persistentVolumeClaim"]["claimName"]);
    if volume["ephemeral"].is_object() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        uses.claims.push(format!("{}-{}", text(&pod["metadata"]["name"]), text(&volume["name"])));
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn push(list: &mut Vec<String>, name: &Value) {
    if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
        list.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_opens_what_it_names_and_a_mirror_nothing() {
        let mut pod = json!({
            "metadata": { "name": "p", "annotations": {} },
            "spec": {
                "serviceAccountName": "robot",
                "imagePullSecrets": [{ "name": "pull" }],
                "initContainers": [{ "envFrom": [{ "secretRef": { "name": "from" } }] }],
                "containers": [{ "env": [
                    { "name": "A", "valueFrom": { "secretKeyRef": { "name": "env", "key": "k" } } },
                    { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "k" } } },
                ] }],
                "volumes": [
                    { "name": "a", "secret": { "secretName": "volume" } },
                    { "name": "b", "projected": { "sources": [{ "configMap": { "name": "ca" } }, { "secret": { "name": "part" } }] } },
                    { "name": "c", "persistentVolumeClaim": { "claimName": "claim" } },
                    { "name": "d", "ephemeral": {} },
                ],
                "resourceClaims": [{ "name": "r", "resourceClaimName": "gpu" }],
            },
        });
        let uses = uses_of(&pod);
        assert_eq!(uses.accounts, ["robot"]);
        assert_eq!(uses.secrets, ["pull", "env", "from", "volume", "part"]);
        assert_eq!(uses.config_maps, ["map", "ca"]);
        assert_eq!(uses.claims, ["claim", "p-d"]);
        assert_eq!(uses.resource_claims, ["gpu"]);
        pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("1");
        assert_eq!(uses_of(&pod), Uses::default());
    }
}
