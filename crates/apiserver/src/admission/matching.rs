//! Which writes a webhook or a policy is for: rules, selectors, and the versions in which a kind counts as the same.
//!
//! What webhooks (`rules`) and policies (`matchConstraints`, `matchResources`) say in the same words, judged in one place. As upstream
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules/rules.go>).

use coracle_api::kinds::Kind;
use coracle_api::selector::{LabelSelector, SelectorError};
use coracle_api::status::{GroupResource, Status};
use coracle_store::Store;
use serde_json::Value;

use super::{AdmissionRequest, Operation};
use crate::authn::stored;
use crate::custom_resources::Snapshot;

/// What a webhook or a policy is for.
#[derive(Debug)]
pub(crate) struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

/// One `RuleWithOperations` or `NamedRuleWithOperations`.
#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    scope: Scope,
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Cluster,
    Namespaced,
    All,
}

/// A write, as rules and selectors see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) operation: Operation,
    /// The kind in the version that the client speaks.
    pub(crate) kind: &'static Kind,
    pub(crate) subresource: &'a str,
    /// Empty for objects of the whole cluster.
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The new state; none for a deletion.
    pub(crate) object: Option<&'a Value>,
    /// The state before; none for a creation.
    pub(crate) old: Option<&'a Value>,
}

impl<'a> Subject<'a> {
    /// The write as its client made it, with the labels of what it carries.
    pub(crate) fn of(request: &'a AdmissionRequest<'_>) -> Self {
        // A Scale bears no labels.
        let has_labels = request.subresource != "scale";
        Self {
            operation: request.operation,
            kind: request.requested,
            subresource: request.subresource,
            namespace: request.namespace,
            name: request.name,
            object: Some(&*request.object).filter(|object| has_labels && !object.is_null()),
            old: request.old.filter(|_| has_labels),
        }
    }

    fn is_namespace(&self) -> bool {
        self.kind.group.is_empty() && self.kind.plural == "namespaces"
    }
}

impl Operation {
    /// As rules and reviews write it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// Whether this is about what decides on admission itself, which no webhook and no policy may lock up.
pub(crate) fn is_exempt(kind: &Kind) -> bool {
    kind.group == "admissionregistration.k8s.io"
        && matches!(
            kind.kind,
            "ValidatingWebhookConfiguration"
                | "MutatingWebhookConfiguration"
                | "ValidatingAdmissionPolicy"
                | "ValidatingAdmissionPolicyBinding"
                | "MutatingAdmissionPolicy"
                | "MutatingAdmissionPolicyBinding"
        )
}

impl Matcher {
    /// Reads one webhook of a configuration.
    pub(crate) fn of_webhook(webhook: &Value) -> Result<Self, SelectorError> {
        Self::read(webhook, "rules")
    }

    /// Reads a policy's `matchConstraints` or a binding's `matchResources`.
    pub(crate) fn of_resources(resources: &Value) -> Result<Self, SelectorError> {
        Self::read(resources, "resourceRules")
    }

    fn read(value: &Value, rules: &str) -> Result<Self, SelectorError> {
        let selector = |field: &str| match value.get(field).filter(|found| !found.is_null()) {
            Some(selector) => LabelSelector::from_value(Some(selector)),
            None => Ok(LabelSelector::equals([])),
        };
        Ok(Self {
            rules: Rule::read_all(&value[rules]),
            excluded: Rule::read_all(&value["excludeResourceRules"]),
            equivalent: value["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// Whether there are any rules: without them a binding's `matchResources` leaves the choice to its policy.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The kind, in the version in which the webhook or policy wants to see it, if the write is for it.
    ///
    /// # Errors
    /// When the labels of the namespace are wanted and there is no such namespace.
    pub(crate) fn matches(
        &self,
        subject: &Subject<'_>,
        kinds: &Snapshot,
        store: &Store,
    ) -> Result<Option<&'static Kind>, Status> {
        let Some(kind) = self.matching_kind(subject, kinds) else { return Ok(None) };
        let selected = self.selects_object(subject) && self.selects_namespace(subject, store)?;
        Ok(selected.then_some(kind))
    }

    /// Whether the selectors mean this write: what a binding without rules asks.
    pub(crate) fn selects(&self, subject: &Subject<'_>, store: &Store) -> Result<bool, Status> {
        Ok(self.selects_object(subject) && self.selects_namespace(subject, store)?)
    }

    fn matching_kind(&self, subject: &Subject<'_>, kinds: &Snapshot) -> Option<&'static Kind> {
        if self.matches_any(&self.excluded, subject, kinds).is_some() {
            return None;
        }
        self.matches_any(&self.rules, subject, kinds)
    }

    fn matches_any(
        &self,
        rules: &[Rule],
        subject: &Subject<'_>,
        kinds: &Snapshot,
    ) -> Option<&'static Kind> {
        if rules.iter().any(|rule| rule.matches(subject, subject.kind)) {
            return Some(subject.kind);
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let others = || equivalents(subject.kind, kinds);
        rules.iter().find_map(|rule| others().find(|other| rule.matches(subject, other)))
    }

    fn selects_object(&self, subject: &Subject<'_>) -> bool {
        let matches = |object: &Value| self.objects.matches_labels(labels(object));
        self.objects.is_everything()
            || subject.object.is_some_and(matches)
            || subject.old.is_some_and(matches)
    }

    fn selects_namespace(&self, subject: &Subject<'_>, store: &Store) -> Result<bool, Status> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        let writes = matches!(subject.operation, Operation::Create | Operation::Update);
        if subject.is_namespace() && subject.subresource.is_empty() && writes {
            let labels = subject.object.and_then(labels);
            return Ok(self.namespaces.matches_labels(labels));
        }
        let name = if subject.is_namespace() { subject.name } else { subject.namespace };
        if name.is_empty() {
            // What belongs to the whole cluster is never exempt.
            return Ok(true);
        }
        let namespaces = GroupResource { group: "", resource: "namespaces" };
        let namespace = stored(store, "namespaces", "", name)
            .ok_or_else(|| Status::not_found(namespaces, name))?;
        Ok(self.namespaces.matches(|key| namespace.attributes.label(key)))
    }
}

fn labels(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("labels")
}

/// The other kinds that show the same objects: other versions of a group, and other spellings of what is stored.
pub(crate) fn equivalents<'a>(
    kind: &'static Kind,
    kinds: &'a Snapshot,
) -> impl Iterator<Item = &'static Kind> + use<'a> {
    let is_same = move |other: &&'static Kind| {
        let versions = kind.group == other.group && kind.plural == other.plural;
        *other != kind
            && (versions || (kind.stored_as().is_some() && kind.stored_as() == other.stored_as()))
    };
    kinds.all().filter(is_same)
}

impl Rule {
    fn read_all(rules: &Value) -> Vec<Self> {
        rules.as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn read(rule: &Value) -> Self {
        let list = |field: &str| crate::object::strings(rule.get(field));
        let resources = list("resources").into_iter().map(|resource| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
            (resource.to_owned(), subresource.to_owned())
        });
        Self {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: resources.collect(),
            scope: match rule["scope"].as_str() {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::All,
            },
            names: list("resourceNames"),
        }
    }

    /// Whether the rule means the write if it were of this kind.
    fn matches(&self, subject: &Subject<'_>, kind: &Kind) -> bool {
        let any = |list: &[String], wanted: &str| {
            list.iter().any(|entry| entry == "*" || entry == wanted)
        };
        let is_namespaced = !subject.namespace.is_empty() && !subject.is_namespace();
        let in_scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => is_namespaced,
            Scope::Cluster => !is_namespaced,
        };
        in_scope
            && any(&self.operations, subject.operation.as_str())
            && any(&self.groups, kind.group)
            && any(&self.versions, kind.version)
            && self.resources.iter().any(|(resource, subresource)| {
                (resource == "*" || resource == kind.plural)
                    && (subresource == "*" || subresource == subject.subresource)
            })
            && (self.names.is_empty() || self.names.iter().any(|name| name == subject.name))
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::kinds;
    use serde_json::json;

    use super::super::tests::fixture;
    use super::*;
    use crate::custom_resources::Registry;
    use crate::storage;

    fn rule(groups: &[&str], versions: &[&str], resources: &[&str]) -> Value {
        json!({ "operations": ["CREATE", "UPDATE"], "apiGroups": groups, "apiVersions": versions, "resources": resources })
    }

    fn subject(api_version: &str, kind: &str) -> Subject<'static> {
        Subject {
            operation: Operation::Create,
            kind: kinds::by_api_version(api_version, kind).unwrap(),
            subresource: "",
            namespace: "shop",
            name: "a",
            object: None,
            old: None,
        }
    }

    /// In which version the webhook sees the write, if it does.
    fn check(webhook: &Value, subject: &Subject<'_>) -> Option<&'static str> {
        let matcher = Matcher::of_webhook(webhook).unwrap();
        matcher.matching_kind(subject, &Registry::default().snapshot()).map(|kind| kind.api_version)
    }

    #[test]
    fn rules_name_groups_versions_resources_and_operations() {
        let pods = json!({ "rules": [rule(&[""], &["v1"], &["pods"])] });
        let pod = subject("v1", "Pod");
        assert_eq!(check(&pods, &pod), Some("v1"));
        assert_eq!(check(&pods, &Subject { operation: Operation::Delete, ..pod }), None);
        assert_eq!(check(&pods, &Subject { subresource: "status", ..pod }), None);
        assert_eq!(check(&pods, &subject("v1", "ConfigMap")), None);
        assert_eq!(check(&pods, &subject("apps/v1", "Deployment")), None);
        let status = json!({ "rules": [rule(&["*"], &["*"], &["*/status"])] });
        assert_eq!(check(&status, &pod), None);
        assert_eq!(check(&status, &Subject { subresource: "status", ..pod }), Some("v1"));
        let all = json!({ "rules": [rule(&["*"], &["*"], &["*"])] });
        assert_eq!(check(&all, &pod), Some("v1"));
        assert_eq!(check(&all, &Subject { subresource: "exec", ..pod }), None);
        let deep = json!({ "rules": [rule(&["*"], &["*"], &["*/*"])] });
        assert_eq!(check(&deep, &pod), Some("v1"));
        assert_eq!(check(&deep, &Subject { subresource: "exec", ..pod }), Some("v1"));
    }

    #[test]
    fn rules_have_a_scope() {
        let scoped = |scope: &str| {
            let mut rule = rule(&["*"], &["*"], &["*"]);
            rule["scope"] = json!(scope);
            json!({ "rules": [rule] })
        };
        let (pod, namespace) = (subject("v1", "Pod"), subject("v1", "Namespace"));
        let node = Subject { namespace: "", ..subject("v1", "Node") };
        assert_eq!(check(&scoped("Namespaced"), &pod), Some("v1"));
        assert_eq!(check(&scoped("Namespaced"), &namespace), None);
        assert_eq!(check(&scoped("Cluster"), &namespace), Some("v1"));
        assert_eq!(check(&scoped("Cluster"), &node), Some("v1"));
        assert_eq!(check(&scoped("Cluster"), &pod), None);
    }

    #[test]
    fn equivalent_versions_count_unless_told_otherwise() {
        let mut webhook =
            json!({ "rules": [rule(&["autoscaling"], &["v2"], &["horizontalpodautoscalers"])] });
        let scaler = subject("autoscaling/v1", "HorizontalPodAutoscaler");
        assert_eq!(check(&webhook, &scaler), Some("autoscaling/v2"));
        webhook["matchPolicy"] = json!("Exact");
        assert_eq!(check(&webhook, &scaler), None);
        let events = json!({ "rules": [rule(&["events.k8s.io"], &["v1"], &["events"])] });
        assert_eq!(check(&events, &subject("v1", "Event")), Some("events.k8s.io/v1"));
    }

    #[test]
    fn policies_exclude_and_name() {
        let mut named = rule(&["*"], &["*"], &["*"]);
        named["resourceNames"] = json!(["b"]);
        let policy = json!({ "resourceRules": [rule(&["*"], &["*"], &["*"])], "excludeResourceRules": [named] });
        let matcher = Matcher::of_resources(&policy).unwrap();
        let kinds = Registry::default().snapshot();
        let pod = subject("v1", "Pod");
        assert!(matcher.matching_kind(&pod, &kinds).is_some());
        assert!(matcher.matching_kind(&Subject { name: "b", ..pod }, &kinds).is_none());
    }

    #[tokio::test]
    async fn selectors_ask_for_labels() {
        let fixture = fixture().await;
        let namespace = json!({ "metadata": { "name": "ours", "labels": { "team": "a" } } });
        let kind = kinds::by_kind("", "v1", "Namespace").unwrap();
        let value = storage::encode(kind, &namespace);
        fixture.store.create(storage::key(kind, "", "ours"), value).await.unwrap();
        let webhook = |namespaces: Value, objects: Value| {
            let rules = json!([rule(&["*"], &["*"], &["*"])]);
            let webhook = json!({ "rules": rules, "namespaceSelector": namespaces, "objectSelector": objects });
            Matcher::of_webhook(&webhook).unwrap()
        };
        let kinds = Registry::default().snapshot();
        let matches = |matcher: &Matcher, subject: &Subject<'_>| {
            matcher.matches(subject, &kinds, &fixture.store).map(|kind| kind.is_some())
        };
        let team = |team: &str| json!({ "matchLabels": { "team": team } });
        let pod = Subject { namespace: "ours", ..subject("v1", "Pod") };
        assert_eq!(matches(&webhook(team("a"), json!({})), &pod), Ok(true));
        assert_eq!(matches(&webhook(team("b"), json!({})), &pod), Ok(false));
        let lost = Subject { namespace: "nowhere", ..pod };
        assert_eq!(matches(&webhook(team("a"), json!({})), &lost).unwrap_err().code, 404);
        let node = Subject { namespace: "", ..subject("v1", "Node") };
        assert_eq!(matches(&webhook(team("b"), json!({})), &node), Ok(true));
        let labelled = json!({ "metadata": { "labels": { "team": "b" } } });
        let by_object = webhook(json!({}), team("b"));
        assert_eq!(matches(&by_object, &pod), Ok(false));
        assert_eq!(matches(&by_object, &Subject { object: Some(&labelled), ..pod }), Ok(true));
        assert_eq!(matches(&by_object, &Subject { old: Some(&labelled), ..pod }), Ok(true));
        let new = Subject { name: "b", object: Some(&labelled), ..subject("v1", "Namespace") };
        assert_eq!(matches(&webhook(team("b"), json!({})), &new), Ok(true));
    }
}
