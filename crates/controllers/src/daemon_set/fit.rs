//! What a node means to a DaemonSet, and the pod that it gets. Pure.
//!
//! Upstream: `NodeShouldRunDaemonPod` and `pkg/controller/daemon/util/daemonset_util.go`. Whether the node has room
//! does not count.

use std::collections::BTreeMap;

use coracle_api::nodes::{matches_any, tolerates};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec,
    Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::GENERATION;
use crate::history::Versioned;
use crate::pods::from_template;

/// The label that says which revision a pod is of.
pub(super) const REVISION: &str = "controller-revision-hash";
/// The label that says how often the template had changed when the pod was made.
const POD_GENERATION: &str = "pod-template-generation";

/// What a node means to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It should have a pod.
    Runs,
    /// It gets none, but one that is there stays: a taint keeps new pods away.
    Keeps,
    /// No pod should be there.
    Refuses,
}

/// What a set's template asks of a node.
pub(super) struct Requirements<'a> {
    spec: Option<&'a PodSpec>,
    tolerations: Vec<Toleration>,
}

impl<'a> Requirements<'a> {
    /// Those of a set.
    pub fn of(set: &'a DaemonSet) -> Self {
        let spec = set.template().spec.as_ref();
        Self { spec, tolerations: tolerations(spec) }
    }

    /// What the node means to the set.
    pub fn fit(&self, node: &Node) -> Fit {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let labels = node.metadata.labels.as_ref();
        if !self.selects(name, labels.unwrap_or(&BTreeMap::new())) {
            return Fit::Refuses;
        }
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let repels = |effect: &str| {
            let repels =
                |taint: &Taint| taint.effect == effect && !tolerates(&self.tolerations, taint);
            taints.iter().any(repels)
        };
        if repels("NoExecute") {
            Fit::Refuses
        } else if repels("NoSchedule") {
            Fit::Keeps
        } else {
            Fit::Runs
        }
    }

    fn selects(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let Some(spec) = self.spec else { return true };
        let wanted_name = spec.node_name.as_deref().unwrap_or_default();
        let mut selector = spec.node_selector.iter().flatten();
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
        (wanted_name.is_empty() || wanted_name == name)
            && selector.all(|(key, value)| labels.get(key) == Some(value))
            && required
                .is_none_or(|required| matches_any(&required.node_selector_terms, labels, name))
    }
}

/// The template's tolerations, and those that every pod of a DaemonSet has: the node's troubles are not its own.
fn tolerations(spec: Option<&PodSpec>) -> Vec<Toleration> {
    const ALWAYS: [(&str, &str); 6] = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    let on_host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let network = on_host_network.then_some(("network-unavailable", "NoSchedule"));
    let mut all = spec.and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    for (taint, effect) in ALWAYS.into_iter().chain(network) {
        let added = Toleration {
            key: Some(format!("node.kubernetes.io/{taint}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        // One that says the same for some time only would not do.
        let same = |it: &&mut Toleration| {
            let limitless = Toleration { toleration_seconds: None, ..(**it).clone() };
            limitless == added
        };
        match all.iter_mut().find(same) {
            Some(there) => *there = added,
            None => all.push(added),
        }
    }
    all
}

/// The template that pods of a revision are made from.
pub(super) fn template(set: &DaemonSet, hash: &str) -> PodTemplateSpec {
    let mut template = set.template().clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), hash.to_owned());
    let annotations = set.metadata.annotations.as_ref();
    let generation = annotations.and_then(|annotations| annotations.get(GENERATION));
    if let Some(generation) = generation.filter(|it| it.parse::<i64>().is_ok()) {
        labels.insert(POD_GENERATION.to_owned(), generation.clone());
    }
    let tolerations = tolerations(template.spec.as_ref());
    template.spec.get_or_insert_default().tolerations = Some(tolerations);
    template
}

/// The set's pod on a node.
pub(super) fn pod(set: &DaemonSet, template: &PodTemplateSpec, node: &str) -> Pod {
    let mut pod = from_template(template, set);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    // The node fits the terms that were there: this one says more.
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    });
    pod
}

/// The hash of the revision that something is or is of.
pub(super) fn hash_of(meta: &ObjectMeta) -> &str {
    let labels = meta.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION)).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": { "name": "logs", "namespace": "default", "uid": "me", "annotations": { GENERATION: "3" } },
            "spec": { "selector": {}, "template": { "metadata": { "labels": { "app": "logs" } }, "spec": spec } },
        }))
        .unwrap()
    }

    fn check(template: &Value, node: &Value, expected: Fit) {
        let mut template = template.clone();
        template["containers"] = json!([]);
        let set = set(template.clone());
        let mut whole =
            json!({ "metadata": { "name": "node-1", "labels": { "disk": "ssd" } }, "spec": {} });
        json_patch::merge(&mut whole, node);
        let node: Node = serde_json::from_value(whole.clone()).unwrap();
        assert_eq!(Requirements::of(&set).fit(&node), expected, "{template} {whole}");
    }

    #[test]
    fn selectors_and_taints_decide_what_a_node_means() {
        let any = json!({});
        check(&any, &any, Fit::Runs);
        check(&json!({ "nodeSelector": { "disk": "ssd" } }), &any, Fit::Runs);
        check(&json!({ "nodeSelector": { "disk": "tape" } }), &any, Fit::Refuses);
        check(&json!({ "nodeName": "node-1" }), &any, Fit::Runs);
        check(&json!({ "nodeName": "node-2" }), &any, Fit::Refuses);
        let affine = |disk: &str| {
            let term = json!({ "matchExpressions": [{ "key": "disk", "operator": "In", "values": [disk] }] });
            json!({ "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } } })
        };
        check(&affine("ssd"), &any, Fit::Runs);
        check(&affine("tape"), &any, Fit::Refuses);

        let tainted = |key: &str, effect: &str| json!({ "spec": { "taints": [{ "key": key, "effect": effect }] } });
        check(&any, &tainted("k", "NoSchedule"), Fit::Keeps);
        check(&any, &tainted("k", "NoExecute"), Fit::Refuses);
        check(&any, &tainted("k", "PreferNoSchedule"), Fit::Runs);
        let tolerant = json!({ "tolerations": [{ "key": "k", "operator": "Exists" }] });
        check(&tolerant, &tainted("k", "NoExecute"), Fit::Runs);
        for (taint, effect) in [
            ("not-ready", "NoExecute"),
            ("unreachable", "NoExecute"),
            ("memory-pressure", "NoSchedule"),
            ("unschedulable", "NoSchedule"),
        ] {
            check(&any, &tainted(&format!("node.kubernetes.io/{taint}"), effect), Fit::Runs);
        }
        let network = tainted("node.kubernetes.io/network-unavailable", "NoSchedule");
        check(&any, &network, Fit::Keeps);
        check(&json!({ "hostNetwork": true }), &network, Fit::Runs);
    }

    #[test]
    fn a_pod_knows_its_node_its_revision_and_what_it_bears() {
        let limited = json!([{ "key": "node.kubernetes.io/not-ready", "operator": "Exists",
                               "effect": "NoExecute", "tolerationSeconds": 5 }]);
        let set = set(json!({ "containers": [], "tolerations": limited }));
        let pod = pod(&set, &template(&set, "abc"), "node-1");
        let pod = serde_json::to_value(pod).unwrap();
        assert_eq!(pod["metadata"]["generateName"], "logs-");
        assert_eq!(
            pod["metadata"]["labels"],
            json!({ "app": "logs", REVISION: "abc", POD_GENERATION: "3" })
        );
        assert_eq!(pod["spec"]["nodeName"], "node-1");
        let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
        let term = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["node-1"] }] });
        assert_eq!(pod.pointer(path), Some(&term));
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 6);
        // For as long as it takes.
        assert_eq!(tolerations[0].get("tolerationSeconds"), None);
    }
}
