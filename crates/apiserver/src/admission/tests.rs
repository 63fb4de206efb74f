use coracle_api::kinds;
use serde_json::json;

use super::*;
use crate::authz::tests::{alice, bootstrapped, grant, put};

pub(super) struct Fixture {
    _dir: tempfile::TempDir,
    pub(super) store: Store,
    admission: Arc<Admission>,
}

pub(super) async fn fixture() -> Fixture {
    let (dir, store, authorizer) = bootstrapped().await;
    for name in ["default", "shop", "kube-node-lease"] {
        put(
            &store,
            "namespaces",
            json!({ "metadata": { "name": name }, "status": { "phase": "Active" } }),
        )
        .await;
    }
    put(
        &store,
        "serviceaccounts",
        json!({ "metadata": { "namespace": "shop", "name": "default", "uid": "1" } }),
    )
    .await;
    Fixture {
        _dir: dir,
        admission: Arc::new(Admission::new(store.clone(), authorizer, Arc::default())),
        store,
    }
}

/// One write as a test tells it.
pub(super) struct Write {
    operation: Operation,
    kind: &'static Kind,
    subresource: &'static str,
    user: User,
    old: Option<Value>,
}

pub(super) fn write(api_version: &str, kind: &str) -> Write {
    let kind = kinds::by_api_version(api_version, kind).unwrap();
    Write { operation: Operation::Create, kind, subresource: "", user: User::admin(), old: None }
}

impl Write {
    pub(super) fn by(self, user: User) -> Self {
        Self { user, ..self }
    }

    pub(super) fn of(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    pub(super) fn update(self, old: Value) -> Self {
        Self { operation: Operation::Update, old: Some(old), ..self }
    }

    pub(super) fn delete(self, old: Value) -> Self {
        Self { operation: Operation::Delete, old: Some(old), ..self }
    }

    /// Runs the whole chain; gives the object as it would be stored.
    pub(super) async fn run(self, fixture: &Fixture, object: Value) -> Result<Value, Status> {
        self.run_heard(fixture, object).await.0
    }

    /// The same, with the warnings.
    pub(super) async fn run_heard(
        self,
        fixture: &Fixture,
        mut object: Value,
    ) -> (Result<Value, Status>, Vec<String>) {
        let warnings = Warnings::default();
        let outcome = self.admitted(fixture, &mut object, &warnings).await;
        (outcome.map(|()| object), warnings.all())
    }

    async fn admitted(
        self,
        fixture: &Fixture,
        object: &mut Value,
        warnings: &Warnings,
    ) -> Result<(), Status> {
        let described =
            self.old.clone().filter(|_| object.is_null()).unwrap_or_else(|| object.clone());
        let place = |pointer: &str| text(&described, pointer).unwrap_or_default().to_owned();
        let (namespace, name) = (place("/metadata/namespace"), place("/metadata/name"));
        let mut request = AdmissionRequest {
            operation: self.operation,
            kind: self.kind,
            subresource: self.subresource,
            namespace: &namespace,
            name: &name,
            object,
            warnings,
            old: self.old.as_ref(),
            user: &self.user,
            dry_run: false,
            requested: self.kind,
            options: WriteOptions::None,
            annotations: &Annotations::default(),
        };
        if self.operation != Operation::Delete {
            fixture.admission.mutate(&mut request).await?;
        }
        fixture.admission.validate(&request).await.map(drop)
    }
}

pub(super) fn pod(spec: Value) -> Value {
    let mut pod = json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": { "containers": [{ "name": "c" }] } });
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

pub(super) async fn created_pod(fixture: &Fixture, spec: Value) -> Value {
    write("v1", "Pod").run(fixture, pod(spec)).await.unwrap()["spec"].clone()
}

pub(super) async fn refused_pod(fixture: &Fixture, spec: Value) -> String {
    let status = write("v1", "Pod").run(fixture, pod(spec)).await.unwrap_err();
    assert_eq!(status.code, 403);
    status.message
}

#[tokio::test]
async fn objects_need_a_namespace_that_stays() {
    let fixture = fixture().await;
    let map = |namespace: &str| json!({ "metadata": { "namespace": namespace, "name": "m" } });
    let create = || write("v1", "ConfigMap");
    create().run(&fixture, map("shop")).await.unwrap();
    let missing = create().run(&fixture, map("nowhere")).await.unwrap_err();
    assert_eq!(
        (missing.code, missing.message.as_str()),
        (404, r#"namespaces "nowhere" not found"#)
    );
    put(
        &fixture.store,
        "namespaces",
        json!({ "metadata": { "name": "shop" }, "status": { "phase": "Terminating" } }),
    )
    .await;
    let going = create().run(&fixture, map("shop")).await.unwrap_err();
    assert_eq!(
        (going.code, going.message.as_str()),
        (
            403,
            r#"configmaps "m" is forbidden: unable to create new content in namespace shop because it is being terminated"#
        )
    );
    let details = going.to_value()["details"].clone();
    assert_eq!(
        details["causes"],
        json!([{
            "reason": "NamespaceTerminating",
            "message": "namespace shop is being terminated",
            "field": "metadata.namespace",
        }])
    );
    // What is there may still be changed and deleted.
    create().update(map("shop")).run(&fixture, map("shop")).await.unwrap();
    create().delete(map("shop")).run(&fixture, Value::Null).await.unwrap();
    // Objects of the whole cluster need none.
    write("v1", "Namespace").run(&fixture, json!({ "metadata": { "name": "new" } })).await.unwrap();
}

#[tokio::test]
async fn some_namespaces_are_immortal() {
    let fixture = fixture().await;
    let delete =
        |name: &str| write("v1", "Namespace").delete(json!({ "metadata": { "name": name } }));
    for name in ["default", "kube-system", "kube-public"] {
        let status = delete(name).run(&fixture, Value::Null).await.unwrap_err();
        assert_eq!(
            status.message,
            format!(r#"namespaces "{name}" is forbidden: this namespace may not be deleted"#)
        );
    }
    delete("shop").run(&fixture, Value::Null).await.unwrap();
    delete("kube-node-lease").run(&fixture, Value::Null).await.unwrap();
}

#[tokio::test]
async fn a_pod_gets_its_account_and_the_accounts_token() {
    let fixture = fixture().await;
    let spec = json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "c" }, {
        "name": "own", "volumeMounts": [{ "name": "v", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }],
    }] });
    let spec = created_pod(&fixture, spec).await;
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5);
    let mount = json!([{ "name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }]);
    assert_eq!(spec["containers"][0]["volumeMounts"], mount);
    assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
    assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!(
        spec["volumes"][0]["projected"],
        json!({
            "defaultMode": 420,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
            ],
        })
    );
}

#[tokio::test]
async fn whoever_wants_no_token_gets_none() {
    let fixture = fixture().await;
    assert!(
        created_pod(&fixture, json!({ "automountServiceAccountToken": false })).await["volumes"]
            .is_null()
    );
    put(
        &fixture.store,
        "serviceaccounts",
        json!({
            "metadata": { "namespace": "shop", "name": "quiet", "uid": "2" },
            "automountServiceAccountToken": false,
            "imagePullSecrets": [{ "name": "registry" }],
        }),
    )
    .await;
    let spec = created_pod(&fixture, json!({ "serviceAccountName": "quiet" })).await;
    assert!(spec["volumes"].is_null());
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "registry" }]));
    let spec = created_pod(&fixture, json!({ "serviceAccountName": "quiet", "automountServiceAccountToken": true, "imagePullSecrets": [{ "name": "own" }] })).await;
    assert_eq!(spec["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(spec["imagePullSecrets"], json!([{ "name": "own" }]));
}

#[tokio::test]
async fn a_pod_needs_an_account_that_is_there() {
    let fixture = fixture().await;
    assert_eq!(
        refused_pod(&fixture, json!({ "serviceAccountName": "ghost" })).await,
        r#"pods "web" is forbidden: error looking up service account shop/ghost: serviceaccount "ghost" not found"#
    );
    let status = write("v1", "Pod")
        .run(&fixture, json!({ "metadata": { "namespace": "default", "generateName": "web-" }, "spec": { "containers": [] } }))
        .await
        .unwrap_err();
    assert_eq!(
        status.message,
        r#"pods "web-" is forbidden: error looking up service account default/default: serviceaccount "default" not found"#
    );
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let fixture = fixture().await;
    let create = write("v1", "Pod").run(&fixture, json!({ "metadata": { "namespace": "default", "name": "web" }, "spec": { "containers": [] } }));
    let account = put(
        &fixture.store,
        "serviceaccounts",
        json!({ "metadata": { "namespace": "default", "name": "default", "uid": "3" } }),
    );
    let (created, ()) = tokio::join!(create, account);
    assert_eq!(created.unwrap()["spec"]["serviceAccountName"], "default");
}

#[tokio::test]
async fn a_class_becomes_a_number() {
    let fixture = fixture().await;
    let class = |name: &str, value: i64, extra: Value| {
        let mut class = json!({ "metadata": { "name": name }, "value": value });
        class.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        class
    };
    let spec = created_pod(&fixture, json!({})).await;
    assert_eq!(
        (&spec["priority"], &spec["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    assert!(spec["priorityClassName"].is_null());
    put(
        &fixture.store,
        "priorityclasses.scheduling.k8s.io",
        class("high", 1000, json!({ "preemptionPolicy": "Never" })),
    )
    .await;
    let spec = created_pod(&fixture, json!({ "priorityClassName": "high" })).await;
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    assert_eq!(
        refused_pod(&fixture, json!({ "priorityClassName": "ghost" })).await,
        r#"pods "web" is forbidden: no PriorityClass with name ghost was found"#
    );
    assert!(
        refused_pod(&fixture, json!({ "priority": 7 }))
            .await
            .contains("the integer value of priority (7) must not be provided")
    );
    assert!(
        refused_pod(&fixture, json!({ "preemptionPolicy": "Never" }))
            .await
            .contains("the string value of PreemptionPolicy (Never)")
    );
    let usual = class("usual", 5, json!({ "globalDefault": true }));
    write("scheduling.k8s.io/v1", "PriorityClass").run(&fixture, usual.clone()).await.unwrap();
    put(&fixture.store, "priorityclasses.scheduling.k8s.io", usual.clone()).await;
    assert_eq!(created_pod(&fixture, json!({})).await["priorityClassName"], "usual");
    write("scheduling.k8s.io/v1", "PriorityClass")
        .update(usual.clone())
        .run(&fixture, usual)
        .await
        .unwrap();
    let second = write("scheduling.k8s.io/v1", "PriorityClass")
        .run(&fixture, class("second", 6, json!({ "globalDefault": true })))
        .await;
    assert!(
        second.unwrap_err().message.contains("PriorityClass usual is already marked as default")
    );
}

#[tokio::test]
async fn pods_tolerate_a_lost_node_for_five_minutes_unless_they_say_otherwise() {
    let fixture = fixture().await;
    let spec = created_pod(&fixture, json!({})).await;
    let toleration = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 });
    let both = json!([
        toleration("node.kubernetes.io/not-ready"),
        toleration("node.kubernetes.io/unreachable")
    ]);
    assert_eq!(spec["tolerations"], both);
    let own = json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 }]);
    let spec = created_pod(&fixture, json!({ "tolerations": own })).await;
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let everything = json!([{ "operator": "Exists" }]);
    assert_eq!(
        created_pod(&fixture, json!({ "tolerations": everything })).await["tolerations"],
        everything
    );
}

#[tokio::test]
async fn the_default_classes_are_named_where_none_is() {
    let fixture = fixture().await;
    let class = |name: &str, mark: &str, created: &str| json!({ "metadata": { "name": name, "creationTimestamp": created, "annotations": { mark: "true" } } });
    let claim =
        |spec: Value| json!({ "metadata": { "namespace": "shop", "name": "data" }, "spec": spec });
    let create = || write("v1", "PersistentVolumeClaim");
    assert!(
        create().run(&fixture, claim(json!({}))).await.unwrap()["spec"]["storageClassName"]
            .is_null()
    );
    let mark = "storageclass.kubernetes.io/is-default-class";
    put(
        &fixture.store,
        "storageclasses.storage.k8s.io",
        class("old", mark, "2020-01-01T00:00:00Z"),
    )
    .await;
    put(
        &fixture.store,
        "storageclasses.storage.k8s.io",
        class("new", mark, "2021-01-01T00:00:00Z"),
    )
    .await;
    assert_eq!(
        create().run(&fixture, claim(json!({}))).await.unwrap()["spec"]["storageClassName"],
        "new"
    );
    assert_eq!(
        create().run(&fixture, claim(json!({ "storageClassName": "" }))).await.unwrap()["spec"]["storageClassName"],
        ""
    );
    put(
        &fixture.store,
        "ingressclasses.networking.k8s.io",
        class("nginx", "ingressclass.kubernetes.io/is-default-class", "2020-01-01T00:00:00Z"),
    )
    .await;
    let ingress =
        write("networking.k8s.io/v1", "Ingress").run(&fixture, claim(json!({}))).await.unwrap();
    assert_eq!(ingress["spec"]["ingressClassName"], "nginx");
}

#[tokio::test]
async fn a_kubelet_touches_only_its_own_node_and_pods() {
    let fixture = fixture().await;
    let kubelet = || User::node("n0");
    let on = |node: &str| pod(json!({ "nodeName": node }));
    let refusal = async |write: Write, object: Value| {
        write.by(kubelet()).run(&fixture, object).await.unwrap_err().message
    };
    let ok = async |write: Write, object: Value| {
        drop(write.by(kubelet()).run(&fixture, object).await.unwrap())
    };

    ok(write("v1", "Pod").of("status").update(on("n0")), on("n0")).await;
    assert_eq!(
        refusal(write("v1", "Pod").of("status").update(on("n1")), on("n1")).await,
        r#"pods "web" is forbidden: node "n0" can only update pod status for pods with spec.nodeName set to itself"#
    );
    let mut relabelled = on("n0");
    relabelled["metadata"]["labels"] = json!({ "app": "other" });
    assert!(
        refusal(write("v1", "Pod").of("status").update(on("n0")), relabelled)
            .await
            .contains("cannot update labels through pod status")
    );
    ok(write("v1", "Pod").delete(on("n0")), Value::Null).await;
    assert!(
        refusal(write("v1", "Pod").delete(on("n1")), Value::Null)
            .await
            .contains("can only delete pods with spec.nodeName set to itself")
    );
    assert!(
        refusal(write("v1", "Pod"), on("n0"))
            .await
            .contains(r#"node "n0" can only create mirror pods"#)
    );

    let node = |name: &str, labels: Value, taints: Value| json!({ "metadata": { "name": name, "labels": labels }, "spec": { "taints": taints } });
    let plain = || node("n0", json!({}), json!([]));
    ok(
        write("v1", "Node"),
        node("n0", json!({ "kubernetes.io/hostname": "n0" }), json!([{ "key": "a" }])),
    )
    .await;
    ok(write("v1", "Node").of("status").update(plain()), plain()).await;
    assert_eq!(
        refusal(write("v1", "Node"), node("n1", json!({}), json!([]))).await,
        r#"nodes "n1" is forbidden: node "n0" is not allowed to modify node "n1""#
    );
    assert!(
        refusal(
            write("v1", "Node").update(plain()),
            node("n0", json!({}), json!([{ "key": "a" }]))
        )
        .await
        .contains("not allowed to modify taints")
    );
    let guarded = node("n0", json!({ "node-restriction.kubernetes.io/zone": "x" }), json!([]));
    assert!(refusal(write("v1", "Node").update(plain()), guarded.clone()).await.contains(
        "is not allowed to modify the following labels: node-restriction.kubernetes.io/zone"
    ));
    ok(write("v1", "Node").update(guarded.clone()), guarded).await;

    let lease = |namespace: &str, name: &str| json!({ "metadata": { "namespace": namespace, "name": name } });
    ok(write("coordination.k8s.io/v1", "Lease"), lease("kube-node-lease", "n0")).await;
    refusal(write("coordination.k8s.io/v1", "Lease"), lease("kube-node-lease", "n1")).await;
    refusal(write("coordination.k8s.io/v1", "Lease"), lease("shop", "n0")).await;
}

#[tokio::test]
async fn a_kubelet_gets_tokens_for_its_own_pods_only() {
    let fixture = fixture().await;
    for (name, node) in [("mine", "n0"), ("theirs", "n1")] {
        put(&fixture.store, "pods", json!({ "metadata": { "namespace": "shop", "name": name, "uid": name }, "spec": { "nodeName": node } })).await;
    }
    let ask = async |reference: Value| {
        let request = json!({ "metadata": { "namespace": "shop", "name": "default" }, "spec": { "boundObjectRef": reference } });
        write("v1", "ServiceAccount")
            .of("token")
            .by(User::node("n0"))
            .run(&fixture, request)
            .await
            .map(drop)
    };
    let pod = |name: &str, uid: &str| json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid });
    ask(pod("mine", "mine")).await.unwrap();
    for reference in [
        Value::Null,
        pod("mine", ""),
        pod("mine", "other"),
        pod("theirs", "theirs"),
        pod("ghost", "x"),
    ] {
        assert_eq!(ask(reference.clone()).await.unwrap_err().code, 403, "{reference}");
    }
}

#[tokio::test]
async fn rights_are_not_given_away_by_who_lacks_them() {
    let fixture = fixture().await;
    let own = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }]);
    grant(&fixture.store, "shop", "reader", alice(), own.clone()).await;
    let role =
        |rules: Value| json!({ "metadata": { "namespace": "shop", "name": "r" }, "rules": rules });
    let create = || write("rbac.authorization.k8s.io/v1", "Role").by(User::new("alice", &[]));
    create().run(&fixture, role(own)).await.unwrap();
    let more = role(json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]));
    assert_eq!(create().run(&fixture, more.clone()).await.unwrap_err().code, 403);
    create().delete(more).run(&fixture, Value::Null).await.unwrap();
}
