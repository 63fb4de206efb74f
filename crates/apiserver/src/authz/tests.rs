use coracle_api::selector::FieldSelector;
use serde_json::{Value, json};

use super::*;

/// An empty store in a directory that goes away with the guard.
pub(crate) async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let options = coracle_store::Options::sqlite(dir.path().join("state.db"), |_, _| {
        coracle_store::Attributes::default()
    });
    let store = Store::open(options).await.unwrap();
    (dir, store)
}

pub(crate) fn key(resource: &str, object: &Value) -> coracle_store::Key {
    let text = |pointer: &str| {
        object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    coracle_store::Key {
        resource: resource.into(),
        namespace: text("/metadata/namespace").into(),
        name: text("/metadata/name").into(),
    }
}

fn value(object: &Value) -> coracle_store::Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = "@".into();
    let text = object.to_string();
    let at = text.find("\"@\"").unwrap() + 1;
    coracle_store::Value {
        bytes: text.replacen('@', "", 1).into_bytes(),
        revision_at: at,
        ..Default::default()
    }
}

/// Writes an object as handlers do.
pub(crate) async fn put(store: &Store, resource: &str, object: Value) {
    let key = key(resource, &object);
    match store.get(&key) {
        Some(old) => store.update(key, old.revision, value(&object)).await.unwrap(),
        None => store.create(key, value(&object)).await.unwrap(),
    };
}

pub(crate) async fn delete(store: &Store, resource: &str, namespace: &str, name: &str) {
    let object = json!({ "metadata": { "namespace": namespace, "name": name } });
    let key = key(resource, &object);
    let old = store.get(&key).unwrap();
    store.delete(key, old.revision, value(&object)).await.unwrap();
}

pub(crate) fn resource_of(object: &Value) -> String {
    format!("{}s.rbac.authorization.k8s.io", object["kind"].as_str().unwrap().to_lowercase())
}

/// A role and a binding of the same name in a namespace, or in the whole cluster when that is empty.
pub(crate) async fn grant(
    store: &Store,
    namespace: &str,
    name: &str,
    subject: Value,
    rules: Value,
) {
    let prefix = if namespace.is_empty() { "Cluster" } else { "" };
    let metadata = json!({ "name": name, "namespace": namespace });
    put(
        store,
        &format!("{}roles.rbac.authorization.k8s.io", prefix.to_lowercase()),
        json!({ "kind": format!("{prefix}Role"), "metadata": metadata, "rules": rules }),
    )
    .await;
    put(
        store,
        &format!("{}rolebindings.rbac.authorization.k8s.io", prefix.to_lowercase()),
        json!({
            "kind": format!("{prefix}RoleBinding"),
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": format!("{prefix}Role"), "name": name },
            "subjects": [subject],
        }),
    )
    .await;
}

/// All default roles and bindings, written to the store.
pub(crate) async fn bootstrapped() -> (tempfile::TempDir, Store, Arc<Authorizer>) {
    let (dir, store) = store().await;
    let objects = crate::rbac_bootstrap::objects();
    futures::future::join_all(objects.into_iter().map(|object| {
        let store = store.clone();
        async move { put(&store, &resource_of(&object), object).await }
    }))
    .await;
    let authorizer = Authorizer::new(&store);
    (dir, store, authorizer)
}

pub(crate) fn alice() -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice" })
}

/// `question` is `verb resource[.group][/subresource] [namespace [name]]` or `verb /path`, and perhaps `?` and a field selector.
fn ask(authorizer: &Authorizer, user: &User, question: &str) -> Result<(), Status> {
    let (question, selector) = question.split_once('?').unwrap_or((question, ""));
    let words: Vec<&str> = question.split(' ').collect();
    let word = |index: usize| words.get(index).copied().unwrap_or_default();
    let target = if words[1].starts_with('/') {
        Target::Path(words[1])
    } else {
        let (full, subresource) = words[1].split_once('/').unwrap_or((words[1], ""));
        let (resource, group) = full.split_once('.').unwrap_or((full, ""));
        Target::Resource { group, resource, subresource, namespace: word(2), name: word(3) }
    };
    let selector = FieldSelector::parse(selector).unwrap();
    authorizer.check(&Attributes { user, verb: words[0], target, fields: selector.terms() })
}

fn refusal_of(authorizer: &Authorizer, user: &User, question: &str) -> String {
    let status = ask(authorizer, user, question).expect_err(question);
    assert_eq!(status.code, 403, "{question}");
    status.message
}

#[tokio::test]
async fn a_role_of_one_namespace_is_worth_nothing_in_another() {
    let (_dir, store) = store().await;
    let rules =
        json!([{ "apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"] }]);
    grant(&store, "shop", "reader", alice(), rules).await;
    let authorizer = Authorizer::new(&store);
    let alice = User::new("alice", &[]);
    ask(&authorizer, &alice, "get pods shop web").unwrap();
    ask(&authorizer, &alice, "get pods/log shop web").unwrap();
    assert_eq!(
        refusal_of(&authorizer, &alice, "get pods bank vault"),
        r#"pods "vault" is forbidden: User "alice" cannot get resource "pods" in API group "" in the namespace "bank""#
    );
    assert_eq!(
        refusal_of(&authorizer, &alice, "list pods"),
        r#"pods is forbidden: User "alice" cannot list resource "pods" in API group "" at the cluster scope"#
    );
    assert_eq!(
        refusal_of(&authorizer, &alice, "create pods/exec shop web"),
        r#"pods "web" is forbidden: User "alice" cannot create resource "pods/exec" in API group "" in the namespace "shop""#
    );
    refusal_of(&authorizer, &User::new("bob", &[]), "get pods shop web");
}

#[tokio::test]
async fn what_was_just_granted_or_taken_counts_at_once() {
    let (_dir, store) = store().await;
    let authorizer = Authorizer::new(&store);
    let user = User::new("alice", &[]);
    refusal_of(&authorizer, &user, "get secrets shop key");
    let rules = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]);
    grant(&store, "shop", "reader", alice(), rules).await;
    ask(&authorizer, &user, "get secrets shop key").unwrap();
    delete(&store, "rolebindings.rbac.authorization.k8s.io", "shop", "reader").await;
    refusal_of(&authorizer, &user, "get secrets shop key");
    grant(&store, "shop", "reader", alice(), json!([])).await;
    refusal_of(&authorizer, &user, "get secrets shop key");
    delete(&store, "roles.rbac.authorization.k8s.io", "shop", "reader").await;
    assert!(refusal_of(&authorizer, &user, "get secrets shop key").ends_with(
        r#"in the namespace "shop": RBAC: role.rbac.authorization.k8s.io "reader" not found"#
    ));
}

#[tokio::test]
async fn a_cluster_role_bound_in_a_namespace_holds_there_only() {
    let (_dir, store, authorizer) = bootstrapped().await;
    put(
        &store,
        "rolebindings.rbac.authorization.k8s.io",
        json!({
            "kind": "RoleBinding",
            "metadata": { "name": "viewers", "namespace": "shop" },
            "roleRef": { "kind": "ClusterRole", "name": "view" },
            "subjects": [
                { "kind": "Group", "name": "team" },
                { "kind": "ServiceAccount", "name": "bot" },
            ],
        }),
    )
    .await;
    for user in [User::new("carol", &["team"]), User::service_account("shop", "bot", "u")] {
        ask(&authorizer, &user, "list pods shop").unwrap();
        refusal_of(&authorizer, &user, "list secrets shop");
        refusal_of(&authorizer, &user, "list pods other");
    }
    refusal_of(&authorizer, &User::service_account("other", "bot", "u"), "list pods shop");
}

#[tokio::test]
async fn decisions_say_which_binding_allows() {
    let (_dir, _store, authorizer) = bootstrapped().await;
    let user = User::scheduler();
    let target = Target::Resource {
        group: "",
        resource: "pods",
        subresource: "binding",
        namespace: "a",
        name: "b",
    };
    assert_eq!(
        authorizer.authorize(&Attributes { user: &user, verb: "create", target, fields: &[] }),
        Decision::Allow(
            r#"RBAC: allowed by ClusterRoleBinding "system:kube-scheduler" of ClusterRole "system:kube-scheduler" to User "system:kube-scheduler""#.into()
        )
    );
}

#[tokio::test]
async fn each_component_may_do_its_work_and_not_that_of_others() {
    let (_dir, _store, authorizer) = bootstrapped().await;
    let manager = User::controller_manager();
    for question in [
        "create pods shop",
        "delete pods shop web",
        "create replicasets.apps shop",
        "update deployments.apps/status shop web",
        "patch deployments.apps/status shop web",
        "create endpointslices.discovery.k8s.io shop",
        "create endpoints shop",
        "delete namespaces  shop",
        "update namespaces/finalize  shop",
        "deletecollection secrets shop",
        "create serviceaccounts shop",
        "create configmaps shop",
        "update jobs.batch/status shop j",
        "create jobs.batch shop",
        "create events shop",
        "list anything.example.com",
        "create events.events.k8s.io shop",
        "update leases.coordination.k8s.io kube-system kube-controller-manager",
    ] {
        ask(&authorizer, &manager, question).unwrap();
    }
    refusal_of(&authorizer, &manager, "create clusterrolebindings.rbac.authorization.k8s.io");
    let scheduler = User::scheduler();
    for question in [
        "list nodes",
        "watch pods",
        "create pods/binding shop web",
        "patch pods/status shop web",
        "create events.events.k8s.io shop",
    ] {
        ask(&authorizer, &scheduler, question).unwrap();
    }
    refusal_of(&authorizer, &scheduler, "create pods shop");
    refusal_of(&authorizer, &scheduler, "get secrets shop key");
    let node = User::node("n0");
    for question in [
        "create nodes",
        "patch nodes/status  n0",
        "update leases.coordination.k8s.io kube-node-lease n0",
        "patch pods/status shop web",
    ] {
        ask(&authorizer, &node, question).unwrap();
    }
    // None of its pods needs them.
    for question in [
        "list pods  ?spec.nodeName=n0",
        "watch pods shop ?status.phase!=Failed,spec.nodeName=n0",
        "get nodes  n0",
        "list nodes  n0?metadata.name=n0",
        "create pods shop",
        "update pods/status shop p",
        "create pods/eviction shop p",
        "list resourceslices.resource.k8s.io  ?spec.nodeName=n0",
    ] {
        ask(&authorizer, &node, question).unwrap();
    }
    let why = |question: &str| {
        let message = refusal_of(&authorizer, &node, question);
        message.rsplit_once(": ").map_or(message.clone(), |(_, why)| why.to_owned())
    };
    let pods = "can only list/watch pods with spec.nodeName field selector";
    assert_eq!(why("list pods"), pods);
    assert_eq!(why("watch pods shop ?spec.nodeName!=n0"), pods);
    assert_eq!(why("list pods  ?spec.nodeName=n1"), pods);
    let unrelated = "no relationship found between node 'n0' and this object";
    assert_eq!(why("get pods shop p"), unrelated);
    let all = "node 'n0' cannot read all nodes, only its own Node object";
    assert_eq!(why("watch nodes"), all);
    let other = "node 'n0' cannot read 'n1', only its own Node object";
    assert_eq!(why("get nodes  n1"), other);
    let slices = "can only list/watch/deletecollection resourceslices with nodeName field selector";
    assert_eq!(why("deletecollection resourceslices.resource.k8s.io"), slices);
    assert_eq!(why("delete resourceslices.resource.k8s.io  s"), unrelated);
    refusal_of(&authorizer, &node, "delete nodes  n0");
    refusal_of(&authorizer, &node, "get secrets shop key");
    refusal_of(&authorizer, &node, "create serviceaccounts/token shop default");
    refusal_of(&authorizer, &node, "create secrets shop");
    refusal_of(&authorizer, &node, "list clusterroles.rbac.authorization.k8s.io");
    let proxy = User::proxy();
    ask(&authorizer, &proxy, "watch endpointslices.discovery.k8s.io").unwrap();
    refusal_of(&authorizer, &proxy, "list pods");
    ask(&authorizer, &User::kubelet_client(), "create nodes/proxy  n0").unwrap();
    refusal_of(&authorizer, &User::kubelet_client(), "list pods shop");
}

#[tokio::test]
async fn the_anonymous_see_health_and_version_and_nothing_else() {
    let (_dir, _store, authorizer) = bootstrapped().await;
    let nobody = User::anonymous();
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        ask(&authorizer, &nobody, &format!("get {path}")).unwrap();
    }
    assert_eq!(
        refusal_of(&authorizer, &nobody, "get /metrics"),
        r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
    );
    for question in [
        "get /api",
        "post /healthz",
        "list namespaces",
        "create selfsubjectreviews.authentication.k8s.io",
    ] {
        refusal_of(&authorizer, &nobody, question);
    }
    ask(&authorizer, &User::new("alice", &[]), "get /apis/apps").unwrap();
    ask(&authorizer, &User::admin(), "delete everything.example.com x y").unwrap();
    ask(&authorizer, &User::admin(), "post /anything").unwrap();
}

fn write(
    authorizer: &Authorizer,
    user: &User,
    resource: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let namespace =
        object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    check_write(authorizer, user, resource, namespace, object, old)
}

#[tokio::test]
async fn nobody_writes_a_role_with_more_than_he_has() {
    let (_dir, store) = store().await;
    let authorizer = Authorizer::new(&store);
    let own = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] }]);
    grant(&store, "shop", "reader", alice(), own.clone()).await;
    let user = User::new("alice", &["team"]);
    let role = |rules: Value| json!({ "metadata": { "name": "mine", "namespace": "shop" }, "rules": rules });
    write(&authorizer, &user, "roles", &role(own.clone()), None).unwrap();
    write(&authorizer, &user, "roles", &role(json!([])), None).unwrap();
    let more = role(
        json!([{ "apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "delete"] }]),
    );
    let status = write(&authorizer, &user, "roles", &more, None).unwrap_err();
    assert_eq!(status.code, 403);
    assert_eq!(
        status.message,
        "roles.rbac.authorization.k8s.io \"mine\" is forbidden: user \"alice\" (groups=[\"team\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\"]}"
    );
    // A change of its labels needs no rights over its rules.
    let mut relabelled = more.clone();
    relabelled["metadata"]["labels"] = json!({ "a": "b" });
    write(&authorizer, &user, "roles", &relabelled, Some(&more)).unwrap();
    // The same rules are not held in the whole cluster.
    let cluster = json!({ "metadata": { "name": "mine" }, "rules": own });
    write(&authorizer, &user, "clusterroles", &cluster, None).unwrap_err();
    // `escalate` permits it.
    let escalate = json!([{ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"] }]);
    grant(&store, "shop", "escalator", alice(), escalate).await;
    write(&authorizer, &user, "roles", &more, None).unwrap();
    write(&authorizer, &User::admin(), "clusterroles", &cluster, None).unwrap();
}

#[tokio::test]
async fn only_who_has_everything_writes_an_aggregating_role() {
    let (_dir, store) = store().await;
    let authorizer = Authorizer::new(&store);
    let user = User::new("alice", &[]);
    let role = json!({ "metadata": { "name": "all" }, "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "a": "b" } }] } });
    write(&authorizer, &user, "clusterroles", &role, None).unwrap_err();
    let everything = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }, { "nonResourceURLs": ["*"], "verbs": ["*"] }]);
    grant(&store, "", "god", alice(), everything).await;
    write(&authorizer, &user, "clusterroles", &role, None).unwrap();
}

#[tokio::test]
async fn nobody_binds_a_role_with_more_than_he_has() {
    let (_dir, store, authorizer) = bootstrapped().await;
    put(
        &store,
        "rolebindings.rbac.authorization.k8s.io",
        json!({
            "metadata": { "name": "editors", "namespace": "shop" },
            "roleRef": { "kind": "ClusterRole", "name": "edit" },
            "subjects": [alice()],
        }),
    )
    .await;
    let user = User::new("alice", &[]);
    let binding = |role: &str| json!({ "metadata": { "name": "b", "namespace": "shop" }, "roleRef": { "kind": "ClusterRole", "name": role }, "subjects": [alice()] });
    write(&authorizer, &user, "rolebindings", &binding("view"), None).unwrap();
    write(&authorizer, &user, "rolebindings", &binding("edit"), None).unwrap();
    let status =
        write(&authorizer, &user, "rolebindings", &binding("cluster-admin"), None).unwrap_err();
    assert!(
        status.message.contains(r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#),
        "{}",
        status.message
    );
    assert!(
        status.message.contains(r#"{NonResourceURLs:["*"], Verbs:["*"]}"#),
        "{}",
        status.message
    );
    assert_eq!(
        write(&authorizer, &user, "rolebindings", &binding("no-such-role"), None).unwrap_err().code,
        404
    );
    write(
        &authorizer,
        &user,
        "rolebindings",
        &binding("cluster-admin"),
        Some(&binding("cluster-admin")),
    )
    .unwrap();
    let bind = json!([{ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["admin"], "verbs": ["bind"] }]);
    grant(&store, "shop", "binder", alice(), bind).await;
    write(&authorizer, &user, "rolebindings", &binding("admin"), None).unwrap();
    write(&authorizer, &user, "rolebindings", &binding("cluster-admin"), None).unwrap_err();
}

#[tokio::test]
async fn a_check_takes_microseconds() {
    let (_dir, _store, authorizer) = bootstrapped().await;
    // The user with the most roles, and something that no rule allows.
    let user = User::controller_manager();
    let target = Target::Resource {
        group: "example.com",
        resource: "x",
        subresource: "",
        namespace: "a",
        name: "b",
    };
    let attributes = Attributes { user: &user, verb: "frobnicate", target, fields: &[] };
    let rounds = 2000;
    let started = std::time::Instant::now();
    for _ in 0..rounds {
        assert!(!authorizer.authorize(&attributes).is_allowed());
    }
    let each = started.elapsed() / rounds;
    println!("{each:?} a check");
    // Unoptimised and on a busy machine; far below what a linear scan over parsed objects costs.
    assert!(each < std::time::Duration::from_micros(500), "{each:?}");
}
