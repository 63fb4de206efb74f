use coracle_api::kinds;
use serde_json::json;

use super::*;
use crate::authz::tests::put;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    quotas: Arc<Quotas>,
}

async fn with_quota(spec: Value) -> Fixture {
    let (dir, store, _) = crate::authz::tests::bootstrapped().await;
    let quota = json!({ "metadata": { "namespace": "shop", "name": "q" }, "spec": spec });
    put(&store, RESOURCE, quota).await;
    Fixture { _dir: dir, quotas: Arc::new(Quotas::new(store.clone(), Arc::default())), store }
}

impl Fixture {
    fn create(&self, kind: &str, object: &Value) -> Result<Reserved, String> {
        self.write(kind, object, None)
    }

    fn write(&self, kind: &str, new: &Value, old: Option<&Value>) -> Result<Reserved, String> {
        let kind = kinds::all().iter().find(|known| known.kind == kind).unwrap();
        let name = new["metadata"]["name"].as_str().unwrap();
        self.quotas.reserve(&Write { kind, namespace: "shop", name, new, old, dry_run: false })
    }
}

fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({ "metadata": { "namespace": "shop", "name": name }, "spec": { "containers": [{ "name": "c" }] } });
    pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod
}

fn asking(name: &str, requests: Value, limits: Value) -> Value {
    pod(
        name,
        json!({ "containers": [{ "name": "c", "resources": { "requests": requests, "limits": limits } }] }),
    )
}

fn refusal(outcome: Result<Reserved, String>) -> String {
    outcome.err().unwrap()
}

#[tokio::test]
async fn what_is_stored_and_what_is_on_its_way_count_together() {
    let fixture = with_quota(json!({ "hard": { "pods": "2" } })).await;
    put(&fixture.store, "pods", pod("a", json!({}))).await;
    let on_its_way = fixture.create("Pod", &pod("b", json!({}))).unwrap();
    assert_eq!(
        refusal(fixture.create("Pod", &pod("c", json!({})))),
        "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
    // Stored and still reserved for, it counts once.
    put(&fixture.store, "pods", pod("b", json!({}))).await;
    assert!(refusal(fixture.create("Pod", &pod("c", json!({})))).contains("used: pods=2,"));
    drop(on_its_way);
    assert!(fixture.create("Pod", &pod("c", json!({}))).is_err());
    // One that failed makes room; and one that was refused, or only tried, never took any.
    let mut ended = pod("b", json!({}));
    ended["status"] = json!({ "phase": "Failed" });
    put(&fixture.store, "pods", ended).await;
    drop(fixture.create("Pod", &pod("c", json!({}))).unwrap());
    let _c = fixture.create("Pod", &pod("c", json!({}))).unwrap();
}

#[tokio::test]
async fn pods_must_say_what_is_limited() {
    let fixture = with_quota(
        json!({ "hard": { "requests.cpu": "1", "limits.memory": "1Gi", "requests.example.com/gpu": "1" } }),
    )
    .await;
    assert_eq!(
        refusal(fixture.create("Pod", &pod("a", json!({})))),
        "failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    let fits = asking("a", json!({ "cpu": "600m" }), json!({ "memory": "512Mi" }));
    let _a = fixture.create("Pod", &fits).unwrap();
    let second = asking("b", json!({ "cpu": "0.5" }), json!({ "memory": "768Mi" }));
    assert_eq!(
        refusal(fixture.create("Pod", &second)),
        "exceeded quota: q, requested: limits.memory=768Mi,requests.cpu=500m, used: limits.memory=512Mi,requests.cpu=600m, limited: limits.memory=1Gi,requests.cpu=1"
    );
    let gpus =
        asking("c", json!({ "cpu": "1m", "example.com/gpu": "2" }), json!({ "memory": "1" }));
    assert_eq!(
        refusal(fixture.create("Pod", &gpus)),
        "exceeded quota: q, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=0, limited: requests.example.com/gpu=1"
    );
}

#[tokio::test]
async fn scopes_choose_which_pods_count() {
    let check = async |spec: Value, other: Value, counted: Value| {
        let mut spec = spec;
        spec["hard"] = json!({ "pods": "0" });
        let fixture = with_quota(spec.clone()).await;
        assert!(fixture.create("Pod", &other).is_ok(), "{spec}: {other}");
        assert!(fixture.create("Pod", &counted).is_err(), "{spec}: {counted}");
        // Scopes are about pods: nothing else is counted.
        drop(fixture.create("ConfigMap", &json!({ "metadata": { "name": "m" } })).unwrap());
    };
    let scope = |name: &str| json!({ "scopes": [name] });
    let plain = || pod("a", json!({}));
    let deadline = || pod("a", json!({ "activeDeadlineSeconds": 5 }));
    let asks = || asking("a", json!({ "cpu": "1" }), json!({}));
    check(scope("Terminating"), plain(), deadline()).await;
    check(scope("NotTerminating"), deadline(), plain()).await;
    check(scope("BestEffort"), asks(), plain()).await;
    check(scope("NotBestEffort"), plain(), asks()).await;
    let affinity = pod(
        "a",
        json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "k", "namespaces": ["other"] }] } } }),
    );
    check(scope("CrossNamespacePodAffinity"), plain(), affinity).await;
    let class = |operator: &str| json!({ "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass", "operator": operator, "values": ["high"] }] } });
    let high = || pod("a", json!({ "priorityClassName": "high" }));
    check(class("In"), plain(), high()).await;
    check(class("NotIn"), high(), plain()).await;
    check(class("Exists"), plain(), high()).await;
}

#[tokio::test]
async fn services_and_claims_count_by_what_they_hold() {
    let fixture = with_quota(json!({ "hard": {
        "services": "2", "services.nodeports": "1", "services.loadbalancers": "0",
        "requests.storage": "5Gi", "fast.storageclass.storage.k8s.io/requests.storage": "1Gi", "persistentvolumeclaims": "5",
    } }))
    .await;
    let service = |kind: &str, ports: usize| {
        let ports: Vec<Value> = (0..ports).map(|port| json!({ "port": port })).collect();
        json!({ "metadata": { "name": "s" }, "spec": { "type": kind, "ports": ports } })
    };
    assert_eq!(
        refusal(fixture.create("Service", &service("NodePort", 2))),
        "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1"
    );
    assert!(
        refusal(fixture.create("Service", &service("LoadBalancer", 1)))
            .contains("services.loadbalancers=1")
    );
    drop(fixture.create("Service", &service("ClusterIP", 2)).unwrap());
    let (old, new) = (service("ClusterIP", 2), service("NodePort", 2));
    assert!(fixture.write("Service", &new, Some(&old)).is_err());

    let claim = |class: &str, storage: &str| json!({ "metadata": { "namespace": "shop", "name": "d" }, "spec": { "storageClassName": class, "resources": { "requests": { "storage": storage } } } });
    drop(fixture.create("PersistentVolumeClaim", &claim("slow", "5Gi")).unwrap());
    assert!(
        refusal(fixture.create("PersistentVolumeClaim", &claim("fast", "2Gi")))
            .contains("fast.storageclass.storage.k8s.io/requests.storage=2Gi")
    );
    put(&fixture.store, "persistentvolumeclaims", claim("slow", "4Gi")).await;
    // Growing takes the difference only.
    let (old, new) = (claim("slow", "4Gi"), claim("slow", "5Gi"));
    drop(fixture.write("PersistentVolumeClaim", &new, Some(&old)).unwrap());
    let more = claim("slow", "6Gi");
    assert_eq!(
        refusal(fixture.write("PersistentVolumeClaim", &more, Some(&old))),
        "exceeded quota: q, requested: requests.storage=2Gi, used: requests.storage=4Gi, limited: requests.storage=5Gi"
    );
}

#[tokio::test]
async fn any_kind_can_be_counted() {
    let fixture = with_quota(
        json!({ "hard": { "count/deployments.apps": "0", "configmaps": "0", "count/secrets": "0" } }),
    )
    .await;
    let named = json!({ "metadata": { "name": "a" } });
    for (kind, name) in [
        ("Deployment", "count/deployments.apps"),
        ("ConfigMap", "configmaps"),
        ("Secret", "count/secrets"),
    ] {
        let refused = refusal(fixture.create(kind, &named));
        assert!(refused.contains(&format!("requested: {name}=1,")), "{refused}");
    }
    drop(fixture.create("ServiceAccount", &named).unwrap());
}
