//! A component's own copy of one kind, kept current by list and watch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::{Mutex, ReentrantMutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{ObjectKey, Tasks};

/// How long a first list may take before a component gives up starting.
const SYNC_DEADLINE: Duration = Duration::from_secs(60);
/// The first wait after a failed list or watch; it doubles from there.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The longest wait: an API server that comes back is noticed within it.
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Upstream's page size for lists.
const PAGE: u32 = 500;

/// Which objects of the kind a mirror holds; empty fields select all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// A label selector in kubectl's syntax.
    pub labels: Option<String>,
    /// A field selector in kubectl's syntax.
    pub fields: Option<String>,
}

/// What became of one object.
#[derive(Debug)]
pub enum Change<K> {
    /// It is new or has a new state.
    Applied {
        /// The state before, when the mirror had one.
        old: Option<Arc<K>>,
        /// The state now.
        new: Arc<K>,
    },
    /// It is gone; this was its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object that changed, in its newest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted(last) => last,
        }
    }
}

/// The first list did not arrive in time, or not before the component had to stop.
#[derive(Debug, thiserror::Error)]
#[error("the mirror of {kind} was not filled {limit}")]
pub struct NotSynced {
    kind: &'static str,
    limit: &'static str,
}

/// A shared copy of one kind. Cloning it shares it.
///
/// Objects come from the watch and from [`Mirror::observe`]; of two states of an
/// object the one with the higher resourceVersion stays. `metadata.managedFields` is left out.
pub struct Mirror<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Mirror<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

type Handler<K> = Arc<dyn Fn(&Change<K>) + Send + Sync>;

struct Shared<K> {
    // Held while a change is made and told, so that handlers hear changes in their order.
    // Re-entrant, because a handler may read or even observe.
    telling: ReentrantMutex<()>,
    state: RwLock<State<K>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    /// Cancelled when nothing follows the API any more.
    stop: CancellationToken,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    by_owner: HashMap<String, BTreeSet<ObjectKey>>,
    // Objects that we know are gone, by the revision of that knowledge; forgotten once the watch has passed it.
    gone: HashMap<ObjectKey, u64>,
}

impl<K> Mirror<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts mirroring what `api` sees.
    pub fn start(tasks: &Tasks, api: Api<K>, selection: Selection) -> Self {
        let mirror = Self {
            shared: Arc::new(Shared {
                telling: ReentrantMutex::new(()),
                state: RwLock::new(State {
                    objects: BTreeMap::new(),
                    by_owner: HashMap::new(),
                    gone: HashMap::new(),
                }),
                handlers: Mutex::new(Vec::new()),
                synced: watch::Sender::new(false),
                stop: tasks.token().clone(),
            }),
        };
        let this = mirror.clone();
        tasks.spawn("mirror", async move { this.follow(api, selection).await });
        mirror
    }

    /// Mirrors every object of the kind in the whole cluster.
    pub fn all(tasks: &Tasks, client: &Client) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        Self::start(tasks, Api::all(client.clone()), Selection::default())
    }

    /// Waits until the first list is in.
    ///
    /// # Errors
    /// When that takes longer than a minute, and when the component is to stop before.
    pub async fn synced(&self) -> Result<(), NotSynced> {
        let mut synced = self.shared.synced.subscribe();
        let limit = tokio::select! {
            biased;
            // The sender lives as long as we do, so an answer is always a yes.
            _ = synced.wait_for(|synced| *synced) => return Ok(()),
            () = self.shared.stop.cancelled() => "before it had to stop",
            () = tokio::time::sleep(SYNC_DEADLINE) => "within a minute",
        };
        Err(NotSynced { kind: std::any::type_name::<K>(), limit })
    }

    /// The object of this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// Every object, in the order of their keys.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// Every object of one namespace, in the order of their names.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let first = ObjectKey::new(namespace, "");
        let range = state.objects.range(first..);
        range
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects whose controller (`ownerReferences[].controller`) has this uid.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let keys = state.by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// Takes in the API's answer to our own write, so that a lagging watch never makes us write it again.
    pub fn observe(&self, object: K) {
        self.apply(object);
    }

    /// Takes in that our own deletion removed the object: `last` is the API's answer.
    pub fn observe_gone(&self, last: &K) {
        self.remove(&ObjectKey::of(last), revision(last));
    }

    /// Calls `handler` for each object that is there, and from then on for each change, in order.
    ///
    /// Handlers run on the watching task: they put keys into queues and return.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let _order = self.shared.telling.lock();
        for new in self.list() {
            handler(&Change::Applied { old: None, new });
        }
        self.shared.handlers.lock().push(Arc::new(handler));
    }

    async fn follow(&self, api: Api<K>, selection: Selection) {
        let mut wait = RETRY_FIRST;
        loop {
            match self.list_and_watch(&api, &selection).await {
                Ok(()) => wait = RETRY_FIRST,
                Err(error) => {
                    debug!(%error, kind = std::any::type_name::<K>(), "watch broke off");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    /// Fills the mirror, then follows until the API says that the revision is too old.
    async fn list_and_watch(&self, api: &Api<K>, selection: &Selection) -> kube::Result<()> {
        let mut version = self.fill(api, selection).await?;
        self.shared.synced.send_replace(true);
        let mut params = WatchParams::default();
        params.label_selector.clone_from(&selection.labels);
        params.field_selector.clone_from(&selection.fields);
        let mut wait = RETRY_FIRST;
        loop {
            match self.watch(api, &params, &mut version).await {
                Ok(Watched::Ended) => wait = RETRY_FIRST,
                Ok(Watched::TooOld) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 410 => return Ok(()),
                Err(error) => {
                    debug!(%error, kind = std::any::type_name::<K>(), "watch broke off, resuming");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    /// Lists everything and makes the mirror equal to it. Answers the list's resourceVersion.
    async fn fill(&self, api: &Api<K>, selection: &Selection) -> kube::Result<String> {
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector.clone_from(&selection.labels);
        params.field_selector.clone_from(&selection.fields);
        let mut listed = Vec::new();
        let version = loop {
            let page = api.list(&params).await?;
            listed.extend(page.items);
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params.continue_token = Some(token),
                _ => break page.metadata.resource_version.unwrap_or_default(),
            }
        };
        let as_of = version.parse().unwrap_or(u64::MAX);
        let keys: BTreeSet<ObjectKey> = listed.iter().map(ObjectKey::of).collect();
        let missing: Vec<ObjectKey> = {
            let state = self.shared.state.read();
            state.objects.keys().filter(|key| !keys.contains(key)).cloned().collect()
        };
        for key in missing {
            self.remove(&key, as_of);
        }
        for object in listed {
            self.apply(object);
        }
        self.forget_gone(as_of);
        Ok(version)
    }

    async fn watch(
        &self,
        api: &Api<K>,
        params: &WatchParams,
        version: &mut String,
    ) -> kube::Result<Watched> {
        let mut events = api.watch(params, version).await?.boxed();
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    advance(version, object.resource_version());
                    self.apply(object);
                }
                WatchEvent::Deleted(object) => {
                    advance(version, object.resource_version());
                    self.remove(&ObjectKey::of(&object), revision(&object));
                }
                WatchEvent::Bookmark(bookmark) => {
                    advance(version, Some(bookmark.metadata.resource_version));
                    self.forget_gone(version.parse().unwrap_or(0));
                }
                WatchEvent::Error(status) if status.code == 410 => return Ok(Watched::TooOld),
                WatchEvent::Error(status) => {
                    warn!(%status, kind = std::any::type_name::<K>(), "the watch reported an error");
                    return Err(kube::Error::Api(status));
                }
            }
        }
        Ok(Watched::Ended)
    }

    fn apply(&self, mut object: K) {
        // Who wrote which field takes several times the memory of the fields, and no component asks. Who sends an object
        // back without it leaves it as it is.
        object.meta_mut().managed_fields = None;
        let _order = self.shared.telling.lock();
        let key = ObjectKey::of(&object);
        let version = revision(&object);
        let new = Arc::new(object);
        let old = {
            let mut state = self.shared.state.write();
            let known = state.objects.get(&key).map(|known| revision(known.as_ref()));
            let gone = state.gone.get(&key).copied();
            if known.max(gone).is_some_and(|known| known >= version && version != 0) {
                return;
            }
            state.gone.remove(&key);
            let old = state.objects.insert(key.clone(), Arc::clone(&new));
            state.unindex(&key, old.as_deref());
            state.index(&key, new.as_ref());
            old
        };
        self.tell(&Change::Applied { old, new });
    }

    fn remove(&self, key: &ObjectKey, as_of: u64) {
        let _order = self.shared.telling.lock();
        let last = {
            let mut state = self.shared.state.write();
            if state.objects.get(key).is_some_and(|known| revision(known.as_ref()) > as_of) {
                return;
            }
            state.gone.insert(key.clone(), as_of);
            let last = state.objects.remove(key);
            state.unindex(key, last.as_deref());
            last
        };
        if let Some(last) = last {
            self.tell(&Change::Deleted(last));
        }
    }

    fn forget_gone(&self, up_to: u64) {
        self.shared.state.write().gone.retain(|_, since| *since > up_to);
    }

    fn tell(&self, change: &Change<K>) {
        let handlers = self.shared.handlers.lock().clone();
        for handler in handlers {
            handler(change);
        }
    }
}

enum Watched {
    Ended,
    TooOld,
}

impl<K: Resource> State<K> {
    fn index(&mut self, key: &ObjectKey, object: &K) {
        if let Some(uid) = controller_uid(object) {
            self.by_owner.entry(uid.to_owned()).or_default().insert(key.clone());
        }
    }

    fn unindex(&mut self, key: &ObjectKey, object: Option<&K>) {
        let Some(uid) = object.and_then(controller_uid) else { return };
        if let Some(keys) = self.by_owner.get_mut(uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(uid);
            }
        }
    }
}

fn controller_uid<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// The object's place in the one order of all writes; 0 when the server has another notion of versions.
fn revision<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn advance(version: &mut String, to: Option<String>) {
    if let Some(to) = to.filter(|to| !to.is_empty()) {
        *version = to;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_a_first_list_beyond_the_stop() {
        // Takes connections, and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let pods: Mirror<Pod> = Mirror::all(&tasks, &client);
        stop.cancel();
        let synced = tokio::time::timeout(Duration::from_secs(10), pods.synced()).await;
        assert!(synced.expect("the wait ends at once").is_err(), "nothing was listed");
        tasks.shutdown().await;
    }

    #[tokio::test]
    async fn who_wrote_which_field_is_not_kept() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let pods: Mirror<Pod> = Mirror::all(&tasks, &client);
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".to_owned());
        pod.metadata.managed_fields = Some(vec![Default::default()]);
        pods.observe(pod);
        let kept = pods.get(&ObjectKey::new("", "web")).expect("the pod was observed");
        assert_eq!(kept.metadata.managed_fields, None);
        tasks.shutdown().await;
    }
}
