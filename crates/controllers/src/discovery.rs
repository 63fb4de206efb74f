//! Which kinds the API serves at the moment, asked of the API itself: extensions count too.

use std::collections::HashSet;

use kube::api::ApiResource;
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery, APIVersionDiscovery};
use kube::{Client, core::GroupVersionKind};

/// One kind whose objects can be listed and deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServedKind {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl ServedKind {
    /// Whether the kind bears `verb`.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|found| found == verb)
    }

    /// Whether it is the kind called `plural` in `group`.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// Events outlive what they tell of and own nothing: no controller follows them.
    pub fn is_events(&self) -> bool {
        self.is("", "events") || self.is("events.k8s.io", "events")
    }
}

/// What the API serves.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Each resource once, in the version its group prefers.
    pub kinds: Vec<ServedKind>,
    /// Group-versions whose own servers do not answer; their kinds are not known.
    pub stale: Vec<String>,
}

/// Asks the API for its kinds.
///
/// # Errors
/// When discovery itself does not answer.
pub(crate) async fn discover(client: &Client) -> kube::Result<Served> {
    let (core, groups) = futures::try_join!(
        client.list_core_api_versions_aggregated(),
        client.list_api_groups_aggregated()
    )?;
    Ok(served(core.items.iter().chain(&groups.items)))
}

fn served<'a>(groups: impl IntoIterator<Item = &'a APIGroupDiscovery>) -> Served {
    let mut served = Served::default();
    let mut seen = HashSet::new();
    for group in groups {
        let group_name =
            group.metadata.as_ref().and_then(|meta| meta.name.as_deref()).unwrap_or_default();
        for version in &group.versions {
            let version_name = version.version.as_deref().unwrap_or_default();
            if is_stale(version) {
                served
                    .stale
                    .push(GroupVersionKind::gvk(group_name, version_name, "").api_version());
            }
            for resource in &version.resources {
                let Some(kind) = served_kind(group_name, version_name, resource) else { continue };
                if seen.insert((kind.resource.group.clone(), kind.resource.plural.clone())) {
                    served.kinds.push(kind);
                }
            }
        }
    }
    served
}

fn is_stale(version: &APIVersionDiscovery) -> bool {
    version.freshness.as_deref() == Some("Stale")
}

fn served_kind(group: &str, version: &str, resource: &APIResourceDiscovery) -> Option<ServedKind> {
    let kind = resource.response_kind.as_ref()?.kind.as_deref()?;
    let verbs = &resource.verbs;
    if !["delete", "list"].iter().all(|wanted| verbs.iter().any(|verb| verb == wanted)) {
        return None;
    }
    Some(ServedKind {
        resource: ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(group, version, kind),
            resource.resource.as_deref()?,
        ),
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        verbs: verbs.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::discovery::v2::APIGroupDiscoveryList;
    use serde_json::json;

    #[test]
    fn each_resource_is_found_once_in_its_preferred_version() {
        let resource = |name: &str, kind: &str, verbs: &[&str]| json!({ "resource": name, "responseKind": { "kind": kind }, "scope": "Namespaced", "verbs": verbs });
        let list: APIGroupDiscoveryList = serde_json::from_value(json!({ "items": [
            { "metadata": { "name": "autoscaling" }, "versions": [
                { "version": "v2", "resources": [resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", &["delete", "list"])] },
                { "version": "v1", "resources": [resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", &["delete", "list"])] },
            ]},
            { "metadata": { "name": "metrics.k8s.io" }, "versions": [{ "version": "v1beta1", "freshness": "Stale" }] },
            { "metadata": {}, "versions": [{ "version": "v1", "freshness": "Current", "resources": [
                resource("bindings", "Binding", &["create"]), resource("pods", "Pod", &["delete", "deletecollection", "list"])] }] },
        ]}))
        .unwrap();
        let served = served(&list.items);
        let names: Vec<String> = served
            .kinds
            .iter()
            .map(|kind| format!("{}/{}", kind.resource.api_version, kind.resource.plural))
            .collect();
        assert_eq!(names, ["autoscaling/v2/horizontalpodautoscalers", "v1/pods"]);
        assert_eq!(served.stale, ["metrics.k8s.io/v1beta1"]);
        assert!(served.kinds[1].allows("deletecollection"));
    }
}
