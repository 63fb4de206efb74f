//! The ConfigMaps and Secrets that this node's pods refer to: each held once, watched while a pod needs it.
//!
//! A node may only see the objects that its pods name, so there is one watch for each object and none for a kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use coracle_reconcile::{Mirror, NotSynced, ObjectKey, Selection, Tasks};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Volume};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::plan::containers;

/// Which objects a pod refers to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct References {
    /// Names of ConfigMaps in the pod's namespace.
    pub(crate) config_maps: BTreeSet<String>,
    /// Names of Secrets in the pod's namespace.
    pub(crate) secrets: BTreeSet<String>,
}

impl References {
    /// Everything that the pod's volumes, environments and image pulls name.
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut references = Self::default();
        let Some(spec) = &pod.spec else { return references };
        for volume in spec.volumes.iter().flatten() {
            references.add_volume(volume);
        }
        for (_, container) in containers(spec) {
            for source in container.env_from.iter().flatten() {
                references
                    .config_maps
                    .extend(source.config_map_ref.iter().map(|map| map.name.clone()));
                references
                    .secrets
                    .extend(source.secret_ref.iter().map(|secret| secret.name.clone()));
            }
            for source in
                container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref())
            {
                references
                    .config_maps
                    .extend(source.config_map_key_ref.iter().map(|map| map.name.clone()));
                references
                    .secrets
                    .extend(source.secret_key_ref.iter().map(|secret| secret.name.clone()));
            }
        }
        for secret in spec.image_pull_secrets.iter().flatten() {
            references.secrets.insert(secret.name.clone());
        }
        references.config_maps.remove("");
        references.secrets.remove("");
        references
    }

    fn add_volume(&mut self, volume: &Volume) {
        self.config_maps.extend(volume.config_map.iter().map(|map| map.name.clone()));
        self.secrets.extend(volume.secret.iter().filter_map(|secret| secret.secret_name.clone()));
        let sources =
            volume.projected.iter().filter_map(|projected| projected.sources.as_ref()).flatten();
        for source in sources {
            self.config_maps.extend(source.config_map.iter().map(|map| map.name.clone()));
            self.secrets.extend(source.secret.iter().map(|secret| secret.name.clone()));
        }
    }
}

/// The referenced objects of one pod at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Objects {
    /// Those that exist.
    pub(crate) config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Those that exist.
    pub(crate) secrets: BTreeMap<String, Arc<Secret>>,
}

impl Objects {
    /// The ConfigMap, or `None` when it is missing and may be.
    pub(crate) fn config_map(
        &self,
        name: &str,
        optional: bool,
    ) -> Result<Option<&ConfigMap>, String> {
        match self.config_maps.get(name) {
            None if !optional => Err(format!("configmap \"{name}\" not found")),
            found => Ok(found.map(Arc::as_ref)),
        }
    }

    /// The Secret, or `None` when it is missing and may be.
    pub(crate) fn secret(&self, name: &str, optional: bool) -> Result<Option<&Secret>, String> {
        match self.secrets.get(name) {
            None if !optional => Err(format!("secret \"{name}\" not found")),
            found => Ok(found.map(Arc::as_ref)),
        }
    }
}

/// Whom a changed object wakes.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Something that the pod refers to may have changed.
    fn objects_changed(&self);
}

/// Every object that some pod of this node refers to.
#[derive(Clone)]
pub(crate) struct Sources {
    client: Client,
    tasks: Tasks,
    config_maps: Arc<Shelf<ConfigMap>>,
    secrets: Arc<Shelf<Secret>>,
}

impl Sources {
    /// An empty collection whose watches end with `tasks`.
    pub(crate) fn new(client: Client, tasks: Tasks) -> Self {
        Self { client, tasks, config_maps: Arc::default(), secrets: Arc::default() }
    }

    /// Watches what `references` names, for as long as the answer lives.
    pub(crate) fn hold<L: Listener>(
        &self,
        namespace: &str,
        references: &References,
        listener: &Arc<L>,
    ) -> Held {
        let listener: Arc<dyn Listener> = Arc::<L>::clone(listener);
        let listener = Arc::downgrade(&listener);
        let config_maps = references.config_maps.iter().map(|name| {
            let source = self.config_maps.source(self, namespace, name);
            source.listen(listener.clone());
            (name.clone(), source)
        });
        let config_maps = config_maps.collect();
        let secrets = references.secrets.iter().map(|name| {
            let source = self.secrets.source(self, namespace, name);
            source.listen(listener.clone());
            (name.clone(), source)
        });
        Held { config_maps, secrets: secrets.collect() }
    }
}

/// One pod's hold on what it refers to.
#[derive(Clone, Default)]
pub(crate) struct Held {
    config_maps: BTreeMap<String, Arc<Source<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Source<Secret>>>,
}

impl Held {
    /// What exists now; waits for the first answer about each.
    pub(crate) async fn objects(&self) -> Result<Objects, NotSynced> {
        let mut objects = Objects::default();
        for (name, source) in &self.config_maps {
            if let Some(map) = source.object().await? {
                objects.config_maps.insert(name.clone(), map);
            }
        }
        for (name, source) in &self.secrets {
            if let Some(secret) = source.object().await? {
                objects.secrets.insert(name.clone(), secret);
            }
        }
        Ok(objects)
    }
}

struct Shelf<K> {
    sources: Mutex<HashMap<ObjectKey, Weak<Source<K>>>>,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { sources: Mutex::default() }
    }
}

impl<K: Source_> Shelf<K> {
    fn source(&self, all: &Sources, namespace: &str, name: &str) -> Arc<Source<K>> {
        let key = ObjectKey::new(namespace, name);
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(&key).and_then(Weak::upgrade) {
            return source;
        }
        // Forget what nobody holds any more, now and then, so that the map follows the pods.
        if sources.len().is_power_of_two() {
            sources.retain(|_, source| source.strong_count() > 0);
        }
        let source = Arc::new(Source::start(all, key.clone()));
        sources.insert(key, Arc::downgrade(&source));
        source
    }
}

/// The kinds that pods refer to.
trait Source_:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
    fn immutable(&self) -> bool;
}

impl Source_ for ConfigMap {
    fn immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

impl Source_ for Secret {
    fn immutable(&self) -> bool {
        self.immutable.unwrap_or(false)
    }
}

struct Source<K> {
    key: ObjectKey,
    mirror: Mirror<K>,
    listeners: Arc<Mutex<Vec<Weak<dyn Listener>>>>,
    watch: Tasks,
    owner: Tasks,
}

impl<K: Source_> Source<K> {
    fn start(all: &Sources, key: ObjectKey) -> Self {
        let watch = Tasks::new(all.tasks.token().child_token());
        let api: Api<K> = Api::namespaced(all.client.clone(), &key.namespace);
        let selection =
            Selection { fields: Some(format!("metadata.name={}", key.name)), labels: None };
        let mirror = Mirror::start(&watch, api, selection);
        let listeners: Arc<Mutex<Vec<Weak<dyn Listener>>>> = Arc::default();
        let told = Arc::clone(&listeners);
        let token = watch.token().clone();
        mirror.on_change(move |change| {
            if change.object().immutable() {
                // It can never change: what we have is all there will be.
                token.cancel();
            }
            let told: Vec<_> = told.lock().iter().filter_map(Weak::upgrade).collect();
            for listener in told {
                listener.objects_changed();
            }
        });
        Self { key, mirror, listeners, watch, owner: all.tasks.clone() }
    }

    async fn object(&self) -> Result<Option<Arc<K>>, NotSynced> {
        if let Some(object) = self.mirror.get(&self.key) {
            return Ok(Some(object));
        }
        self.mirror.synced().await?;
        Ok(self.mirror.get(&self.key))
    }
}

impl<K> Source<K> {
    fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = self.listeners.lock();
        if listeners.len().is_power_of_two() {
            listeners.retain(|known| known.strong_count() > 0);
        }
        if !listeners.iter().any(|known| Weak::ptr_eq(known, &listener)) {
            listeners.push(listener);
        }
    }
}

impl<K> Drop for Source<K> {
    fn drop(&mut self) {
        self.watch.token().cancel();
        let watch = self.watch.clone();
        self.owner.spawn_to_end("release source", async move { watch.shutdown().await });
    }
}
