//! Who owns whom. In memory, fed by mirrors; whatever may need the collector goes into its queue.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use coracle_reconcile::{ObjectKey, Queue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::plan::{Dependents, Owner, means};
use super::{FOREGROUND, ORPHAN};
use crate::discovery::ServedKind;

/// Owners known to be gone. Upstream remembers 500; ours also bars late news of an object that is gone,
/// so it should outlast a large namespace's deletion. About 100 bytes each.
const REMEMBERED_ABSENT: usize = 16_384;

/// How far an object is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Nobody has deleted it.
    Living,
    /// It is deleted, and others hold it back.
    Going,
    /// It is deleted and waits until its dependents are gone.
    Waiting,
    /// It is deleted and waits until its dependents have forgotten it.
    Orphaning,
}

/// One object.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub kind: Arc<ServedKind>,
    pub key: ObjectKey,
    pub uid: Arc<str>,
    pub version: u64,
    pub life: Life,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
}

impl Node {
    /// An object from its metadata; `None` if that has no uid.
    pub fn of(kind: &Arc<ServedKind>, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            kind: Arc::clone(kind),
            key: ObjectKey::of_meta(meta),
            uid: meta.uid.as_deref()?.into(),
            version: meta
                .resource_version
                .as_deref()
                .and_then(|version| version.parse().ok())
                .unwrap_or(0),
            life: life(meta),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        })
    }

    /// Kind and name, for errors.
    pub fn describe(&self) -> String {
        format!("{} {}", self.kind.resource.kind, self.key)
    }
}

fn life(meta: &ObjectMeta) -> Life {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    let has = |wanted: &str| finalizers.iter().any(|finalizer| finalizer == wanted);
    if meta.deletion_timestamp.is_none() {
        Life::Living
    } else if has(ORPHAN) {
        Life::Orphaning
    } else if has(FOREGROUND) {
        Life::Waiting
    } else {
        Life::Going
    }
}

/// Whether an object is being deleted and waits for its dependents.
pub(super) fn is_waiting(meta: &ObjectMeta) -> bool {
    life(meta) == Life::Waiting
}

/// An object and what the graph knows of its surroundings.
#[derive(Debug)]
pub(super) struct View {
    pub node: Node,
    /// In the order of the node's references.
    pub owners: Vec<Owner>,
    pub dependents: Dependents,
}

/// Why a namespace is told of an object that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Others of its kind are left.
    One,
    /// It was the last of its kind.
    Last,
}

type Listener = Arc<dyn Fn(&str, Gone) + Send + Sync>;

/// Every object of every deletable kind, by uid.
#[derive(Default)]
pub(crate) struct Graph {
    state: Mutex<State>,
    queue: Queue,
    on_gone: Mutex<Vec<Listener>>,
    complete: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<Arc<str>, Node>,
    /// By owner; the owner itself may be unknown.
    dependents: HashMap<String, HashSet<Arc<str>>>,
    /// Objects by namespace and kind (group and plural).
    counts: HashMap<String, HashMap<(String, String), usize>>,
    absent: Absent,
}

/// References to owners that are gone (or uids of objects that are), the oldest forgotten first.
#[derive(Default)]
struct Absent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Absent {
    fn insert(&mut self, what: String) {
        if self.known.insert(what.clone()) {
            self.order.push_back(what);
        }
        if self.order.len() > REMEMBERED_ABSENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, what: &str) -> bool {
        self.known.contains(what)
    }
}

impl Graph {
    /// The uids that the collector has to look at, as names of keys.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Calls `listener` with its namespace whenever an object is gone.
    pub fn on_gone(&self, listener: impl Fn(&str, Gone) + Send + Sync + 'static) {
        self.on_gone.lock().push(Arc::new(listener));
    }

    /// Waits until every object is known that was there at the start.
    pub async fn complete(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as the graph does.
        let _ = complete.wait_for(|complete| *complete).await;
    }

    /// Every object is known that was there at the start.
    pub(super) fn set_complete(&self) {
        self.complete.send_replace(true);
    }

    /// An object is there, in this state.
    pub(super) fn applied(&self, kind: &Arc<ServedKind>, meta: &ObjectMeta) {
        let Some(node) = Node::of(kind, meta) else { return };
        let look_at = self.state.lock().apply(node);
        self.look_at(look_at);
    }

    /// An object is gone.
    pub(super) fn removed(&self, uid: &str) {
        let (node, look_at, gone) = {
            let mut state = self.state.lock();
            state.absent.insert(uid.to_owned());
            let Some((node, look_at)) = state.remove(uid) else { return };
            let gone = if state.count(&node) == 0 { Gone::Last } else { Gone::One };
            (node, look_at, gone)
        };
        self.look_at(look_at);
        let listeners = self.on_gone.lock().clone();
        for listener in listeners {
            listener(&node.key.namespace, gone);
        }
    }

    /// A kind is no longer served. Its objects may still be there, so nothing is deleted for their sake.
    pub(super) fn forget_kind(&self, kind: &ServedKind) {
        let mut state = self.state.lock();
        let of_kind = state.nodes.values().filter(|node| *node.kind == *kind);
        let uids: Vec<Arc<str>> = of_kind.map(|node| Arc::clone(&node.uid)).collect();
        for uid in uids {
            state.remove(&uid);
        }
    }

    /// An object and its surroundings.
    pub(super) fn view(&self, uid: &str) -> Option<View> {
        self.state.lock().view(uid)
    }

    /// The objects that name this owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Node> {
        let state = self.state.lock();
        let dependents = state.dependents.get(uid).into_iter().flatten();
        dependents.filter_map(|uid| state.nodes.get(uid)).cloned().collect()
    }

    /// The API has no such owner.
    pub(super) fn remember_absent(&self, node: &Node, reference: &OwnerReference) {
        self.state.lock().absent.insert(coordinates(node, reference));
    }

    fn look_at(&self, uids: Vec<Arc<str>>) {
        for uid in uids {
            self.queue.add(ObjectKey::new("", &*uid));
        }
    }
}

/// What a reference of an object means, in one string.
fn coordinates(node: &Node, reference: &OwnerReference) -> String {
    let OwnerReference { api_version, kind, name, uid, .. } = reference;
    format!("{api_version} {kind} {}/{name} {uid}", node.key.namespace)
}

impl State {
    /// Takes an object in. Answers which objects have to be looked at.
    fn apply(&mut self, node: Node) -> Vec<Arc<str>> {
        let known = self.nodes.get(&node.uid);
        if known.is_some_and(|known| known.version > node.version)
            || self.absent.contains(&node.uid)
        {
            return Vec::new();
        }
        let before = self.nodes.insert(Arc::clone(&node.uid), node.clone());
        let mut look_at = Vec::new();
        match &before {
            None => {
                self.change_count(&node, 1);
                self.index(&node);
                // Dependents that came before it may mean something else by its uid.
                look_at.extend(
                    self.dependents_where(&node.uid, |owner, reference| !means(reference, owner)),
                );
            }
            Some(before) if before.owners != node.owners => {
                self.unindex(before);
                self.index(&node);
                // An owner that waits may have been waiting for this reference.
                look_at.extend(self.waiting_owners(before));
            }
            Some(_) => (),
        }
        let life_before = before.as_ref().map(|before| before.life);
        if life_before != Some(node.life) {
            match node.life {
                Life::Living | Life::Going => (),
                Life::Orphaning => look_at.push(Arc::clone(&node.uid)),
                Life::Waiting => {
                    look_at.push(Arc::clone(&node.uid));
                    look_at.extend(self.dependents_where(&node.uid, |_, _| true));
                }
            }
        }
        if node.life == Life::Living && self.owners(&node).any(|owner| owner != Owner::Solid) {
            look_at.push(node.uid);
        }
        look_at
    }

    /// Takes an object out. Answers it, and which others have to be looked at.
    fn remove(&mut self, uid: &str) -> Option<(Node, Vec<Arc<str>>)> {
        let node = self.nodes.remove(uid)?;
        self.unindex(&node);
        self.change_count(&node, -1);
        let mut look_at: Vec<Arc<str>> =
            self.dependents.get(uid).into_iter().flatten().cloned().collect();
        look_at.extend(self.waiting_owners(&node));
        Some((node, look_at))
    }

    fn view(&self, uid: &str) -> Option<View> {
        let node = self.nodes.get(uid)?.clone();
        let owners = self.owners(&node).collect();
        let mut dependents = Dependents::default();
        for dependent in
            self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid))
        {
            dependents.any = true;
            dependents.waiting |= dependent.life == Life::Waiting;
            let mut references = dependent.owners.iter().filter(|reference| reference.uid == uid);
            dependents.blocking |=
                references.any(|reference| reference.block_owner_deletion == Some(true));
        }
        Some(View { node, owners, dependents })
    }

    fn owners<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = Owner> + 'a {
        node.owners.iter().map(|reference| self.owner(node, reference))
    }

    fn owner(&self, node: &Node, reference: &OwnerReference) -> Owner {
        let Some(owner) = self.nodes.get(reference.uid.as_str()) else {
            let gone = self.absent.contains(&reference.uid)
                || self.absent.contains(&coordinates(node, reference));
            return if gone { Owner::Absent } else { Owner::Unknown { elsewhere: false } };
        };
        let elsewhere = owner.kind.namespaced && owner.key.namespace != node.key.namespace;
        if elsewhere && !node.kind.namespaced {
            Owner::OutOfReach
        } else if elsewhere || !means(reference, owner) {
            // What the reference says is not there, unless the API knows better.
            let gone = self.absent.contains(&coordinates(node, reference));
            if gone { Owner::Absent } else { Owner::Unknown { elsewhere } }
        } else if owner.life == Life::Waiting {
            Owner::Waiting
        } else {
            Owner::Solid
        }
    }

    fn waiting_owners(&self, node: &Node) -> Vec<Arc<str>> {
        let owners =
            node.owners.iter().filter_map(|reference| self.nodes.get(reference.uid.as_str()));
        owners
            .filter(|owner| owner.life == Life::Waiting)
            .map(|owner| Arc::clone(&owner.uid))
            .collect()
    }

    fn dependents_where(
        &self,
        uid: &str,
        wanted: fn(&Node, &OwnerReference) -> bool,
    ) -> Vec<Arc<str>> {
        let Some(owner) = self.nodes.get(uid) else { return Vec::new() };
        let dependents =
            self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid));
        dependents
            .filter(|node| {
                node.owners.iter().any(|reference| reference.uid == uid && wanted(owner, reference))
            })
            .map(|node| Arc::clone(&node.uid))
            .collect()
    }

    fn index(&mut self, node: &Node) {
        for reference in &node.owners {
            self.dependents.entry(reference.uid.clone()).or_default().insert(Arc::clone(&node.uid));
        }
    }

    fn unindex(&mut self, node: &Node) {
        for reference in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(&reference.uid) {
                dependents.remove(&node.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&reference.uid);
                }
            }
        }
    }

    fn count(&self, node: &Node) -> usize {
        let counts = self.counts.get(&node.key.namespace);
        counts.and_then(|counts| counts.get(&resource(node))).copied().unwrap_or(0)
    }

    fn change_count(&mut self, node: &Node, by: isize) {
        let counts = self.counts.entry(node.key.namespace.clone()).or_default();
        let count = counts.entry(resource(node)).or_default();
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            counts.remove(&resource(node));
        }
        if counts.is_empty() {
            self.counts.remove(&node.key.namespace);
        }
    }
}

fn resource(node: &Node) -> (String, String) {
    (node.kind.resource.group.clone(), node.kind.resource.plural.clone())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kube::api::ApiResource;
    use kube::core::GroupVersionKind;

    /// An object called `name`, with that as its uid too, owned by others; a name with `!` blocks its owner.
    pub fn node(kind: &str, namespace: &str, name: &str, owners: &[&str]) -> Node {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let kind =
            Arc::new(ServedKind { resource, namespaced: !namespace.is_empty(), verbs: Vec::new() });
        let reference = |owner: &&str| {
            let name = owner.trim_end_matches('!');
            OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: name.to_owned(),
                uid: name.to_owned(),
                controller: None,
                block_owner_deletion: Some(owner.ends_with('!')),
            }
        };
        Node {
            kind,
            key: ObjectKey::new(namespace, name),
            uid: name.into(),
            version: 1,
            life: Life::Living,
            owners: owners.iter().map(reference).collect(),
            finalizers: Vec::new(),
        }
    }

    fn pod(name: &str, owners: &[&str]) -> Node {
        node("Pod", "default", name, owners)
    }

    fn names(mut uids: Vec<Arc<str>>) -> String {
        uids.sort();
        uids.dedup();
        uids.join(" ")
    }

    #[test]
    fn what_lost_an_owner_is_looked_at() {
        let mut state = State::default();
        assert_eq!(names(state.apply(pod("owner", &[]))), "");
        assert_eq!(names(state.apply(pod("a", &["owner"]))), "");
        assert_eq!(
            names(state.apply(pod("b", &["owner", "other"]))),
            "b",
            "the other owner is not known"
        );
        assert_eq!(names(state.apply(pod("other", &[]))), "");
        let (_, look_at) = state.remove("owner").unwrap();
        assert_eq!(names(look_at), "a b");
        assert_eq!(state.view("a").unwrap().owners, [Owner::Unknown { elsewhere: false }]);
        state.absent.insert("owner".to_owned());
        assert_eq!(state.view("a").unwrap().owners, [Owner::Absent]);
        assert_eq!(state.view("b").unwrap().owners, [Owner::Absent, Owner::Solid]);
        assert!(state.remove("owner").is_none());
    }

    #[test]
    fn a_waiting_owner_is_looked_at_when_a_dependent_goes() {
        let mut state = State::default();
        let mut owner = pod("owner", &[]);
        for node in [owner.clone(), pod("a", &["owner!"]), pod("b", &["owner"])] {
            state.apply(node);
        }
        owner.life = Life::Waiting;
        owner.version = 2;
        assert_eq!(names(state.apply(owner)), "a b owner");
        assert_eq!(state.view("a").unwrap().owners, [Owner::Waiting]);
        let all = Dependents { any: true, blocking: true, waiting: false };
        assert_eq!(state.view("owner").unwrap().dependents, all);
        assert_eq!(names(state.remove("a").unwrap().1), "owner");
        assert_eq!(state.view("owner").unwrap().dependents, Dependents { blocking: false, ..all });
        let mut freed = pod("b", &[]);
        freed.version = 3;
        assert_eq!(
            names(state.apply(freed)),
            "owner",
            "a reference that was removed counts as well"
        );
        assert_eq!(state.view("owner").unwrap().dependents, Dependents::default());
    }

    #[test]
    fn owners_are_where_their_references_say() {
        let check = |owner: Node, dependent: Node, expected: Owner| {
            let uid = Arc::clone(&dependent.uid);
            let mut state = State::default();
            state.apply(owner.clone());
            state.apply(dependent.clone());
            assert_eq!(state.view(&uid).unwrap().owners, [expected]);
            let mut state = State::default();
            state.apply(dependent);
            let look_at = state.apply(owner);
            assert_eq!(state.view(&uid).unwrap().owners, [expected]);
            assert_eq!(
                look_at.contains(&uid),
                expected != Owner::Solid
                    && !matches!(expected, Owner::Unknown { elsewhere: true } | Owner::OutOfReach)
            );
        };
        check(pod("owner", &[]), pod("a", &["owner"]), Owner::Solid);
        check(node("Pod", "", "owner", &[]), pod("a", &["owner"]), Owner::Solid);
        check(node("Pod", "", "owner", &[]), node("Node", "", "a", &["owner"]), Owner::Solid);
        check(
            node("Pod", "other", "owner", &[]),
            pod("a", &["owner"]),
            Owner::Unknown { elsewhere: true },
        );
        check(
            node("Pod", "other", "owner", &[]),
            node("Node", "", "a", &["owner"]),
            Owner::OutOfReach,
        );
        check(
            node("Secret", "default", "owner", &[]),
            pod("a", &["owner"]),
            Owner::Unknown { elsewhere: false },
        );
    }

    #[test]
    fn late_news_of_what_is_gone_is_not_believed() {
        let mut state = State::default();
        let mut newer = pod("a", &[]);
        newer.version = 7;
        state.apply(newer);
        state.apply(pod("a", &["owner"]));
        assert_eq!(state.view("a").unwrap().node.version, 7);
        state.remove("a");
        state.absent.insert("a".to_owned());
        state.apply(pod("a", &[]));
        assert!(state.view("a").is_none());
        assert!(state.counts.is_empty() && state.dependents.is_empty());
    }

    #[test]
    fn namespaces_hear_what_is_gone() {
        let graph = Graph::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hear = Arc::clone(&heard);
        graph.on_gone(move |namespace, gone| hear.lock().push((namespace.to_owned(), gone)));
        for node in [pod("a", &[]), pod("b", &[]), node("Secret", "default", "s", &[])] {
            graph.state.lock().apply(node);
        }
        for uid in ["a", "a", "b", "s"] {
            graph.removed(uid);
        }
        assert_eq!(
            *heard.lock(),
            [Gone::One, Gone::Last, Gone::Last].map(|gone| ("default".to_owned(), gone))
        );
    }
}
