//! Who selects pods on behalf of others: Services and the controllers that make pods.
//!
//! A pod that says nothing about spread is spread among its like, and these say which those are; upstream's
//! `DefaultSelector` (kubernetes/kubernetes, pkg/scheduler/framework/plugins/helper).

use std::collections::{BTreeMap, HashMap};

use coracle_api::selector::LabelSelector;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ReplicationController, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as Written, OwnerReference};
use kube_derive::Resource;
use serde::Deserialize;
use serde_json::to_value;

use crate::constraints::Labels;
use crate::pod::Pod;

/// A kind whose objects select the pods that they make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    ReplicationController,
    ReplicaSet,
    StatefulSet,
}

/// The controller that made a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    kind: Kind,
    name: String,
}

/// Everybody who selects pods.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// By namespace and name, the labels that they select; none selects nothing.
    services: HashMap<String, BTreeMap<String, Labels>>,
    /// By namespace.
    controllers: HashMap<String, HashMap<Owner, LabelSelector>>,
}

impl Owner {
    /// The pod's controller, if its kind selects pods.
    pub(crate) fn of(references: &[OwnerReference]) -> Option<Owner> {
        let mut controllers = references.iter().filter(|owner| owner.controller == Some(true));
        let owner = controllers.next()?;
        let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => Kind::ReplicationController,
            ("apps/v1", "ReplicaSet") => Kind::ReplicaSet,
            ("apps/v1", "StatefulSet") => Kind::StatefulSet,
            _ => return None,
        };
        Some(Owner { kind, name: owner.name.clone() })
    }
}

impl Owners {
    /// Takes in a Service.
    pub(crate) fn service_applied(&mut self, service: &ServiceSelector) {
        let (namespace, name) = names(&service.metadata);
        match service.selector.clone() {
            Some(selector) => {
                let there = self.services.entry(namespace.to_owned()).or_default();
                there.insert(name.to_owned(), selector);
            }
            None => self.service_deleted(namespace, name),
        }
    }

    /// Takes in that a Service is gone.
    pub(crate) fn service_deleted(&mut self, namespace: &str, name: &str) {
        if let Some(there) = self.services.get_mut(namespace) {
            there.remove(name);
            if there.is_empty() {
                self.services.remove(namespace);
            }
        }
    }

    /// Takes in a controller.
    pub(crate) fn controller_applied<T: SelectsPods>(&mut self, controller: &T) {
        let (namespace, name) = names(controller.metadata());
        let owner = Owner { kind: T::KIND, name: name.to_owned() };
        let there = self.controllers.entry(namespace.to_owned()).or_default();
        there.insert(owner, controller.selector().clone());
    }

    /// Takes in that a controller is gone.
    pub(crate) fn controller_deleted(&mut self, kind: Kind, namespace: &str, name: &str) {
        if let Some(there) = self.controllers.get_mut(namespace) {
            there.remove(&Owner { kind, name: name.to_owned() });
            if there.is_empty() {
                self.controllers.remove(namespace);
            }
        }
    }

    /// Which pods are this one's like, if anybody selects it.
    pub(crate) fn like(&self, pod: &Pod) -> Option<LabelSelector> {
        let claim = &pod.claim;
        let services = self.services.get(&claim.namespace);
        let selectors = services.into_iter().flat_map(BTreeMap::values);
        let selecting = selectors.filter(|selector| {
            selector.iter().all(|(key, value)| claim.labels.get(key) == Some(value))
        });
        // All of them match the pod, so that they agree.
        let wanted: BTreeMap<_, _> = selecting.flatten().collect();
        let wanted = wanted.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let mut requirements = match LabelSelector::equals(wanted) {
            LabelSelector::All(requirements) => requirements,
            LabelSelector::Nothing => Vec::new(),
        };
        let controllers = self.controllers.get(&claim.namespace);
        let own = pod.owner.as_ref().and_then(|owner| controllers?.get(owner));
        if let Some(LabelSelector::All(own)) = own {
            for requirement in own {
                if !requirements.contains(requirement) {
                    requirements.push(requirement.clone());
                }
            }
        }
        (!requirements.is_empty()).then_some(LabelSelector::All(requirements))
    }
}

/// A controller, of which only its selector is kept.
pub(crate) trait SelectsPods {
    const KIND: Kind;
    fn metadata(&self) -> &ObjectMeta;
    fn selector(&self) -> &LabelSelector;
}

/// A Service, as far as it selects pods.
#[derive(Debug, Clone, Deserialize, Resource)]
#[serde(from = "Service")]
#[resource(inherit = "Service")]
pub(crate) struct ServiceSelector {
    metadata: ObjectMeta,
    selector: Option<Labels>,
}

impl From<Service> for ServiceSelector {
    fn from(service: Service) -> Self {
        let selector = service.spec.and_then(|spec| spec.selector);
        Self { metadata: identity(service.metadata), selector }
    }
}

/// A kind of controllers with the form of its selector.
macro_rules! selects_pods {
    ($name:ident, $kind:ident, $text:literal, $read:expr) => {
        #[doc = concat!("A ", $text, ", as far as it selects pods.")]
        #[derive(Debug, Clone, Deserialize, Resource)]
        #[serde(from = $text)]
        #[resource(inherit = $kind)]
        pub(crate) struct $name {
            metadata: ObjectMeta,
            selector: LabelSelector,
        }

        impl From<$kind> for $name {
            fn from(controller: $kind) -> Self {
                let read: fn(&$kind) -> LabelSelector = $read;
                let selector = read(&controller);
                Self { metadata: identity(controller.metadata), selector }
            }
        }

        impl SelectsPods for $name {
            const KIND: Kind = Kind::$kind;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn selector(&self) -> &LabelSelector {
                &self.selector
            }
        }
    };
}

selects_pods!(
    ReplicationControllerSelector,
    ReplicationController,
    "ReplicationController",
    |controller| {
        let selector = controller.spec.as_ref().map(|spec| to_value(&spec.selector));
        LabelSelector::from_map(selector.and_then(Result::ok).as_ref())
    }
);
selects_pods!(ReplicaSetSelector, ReplicaSet, "ReplicaSet", |set| read(&set.spec.selector));
selects_pods!(StatefulSetSelector, StatefulSet, "StatefulSet", |set| read(&set.spec.selector));

/// Validation lets no other selectors in than those that can be read.
fn read(selector: &Written) -> LabelSelector {
    let selector = to_value(selector).ok();
    LabelSelector::from_value(selector.as_ref()).unwrap_or(LabelSelector::Nothing)
}

/// What says which object it is in which state, and no more.
fn identity(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        ..ObjectMeta::default()
    }
}

fn names(metadata: &ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}
