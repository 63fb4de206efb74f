//! Autoscalers against the real API. What pods use is written down as custom resources of the metrics' group, which are
//! read in the same way as what a metrics server answers.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::harness::Cluster;

const KIND: &str = "HorizontalPodAutoscaler";
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

async fn post(cluster: &Cluster, path: &str, object: &Value) -> kube::Result<Value> {
    let request = http::Request::post(path).header("content-type", "application/json");
    cluster.client.request(request.body(object.to_string().into_bytes()).unwrap()).await
}

/// What the API server tells of nodes' kubelets, of which there are none here, is taken away.
async fn serve_no_metrics(cluster: &Cluster) {
    let delete = |path: &str| http::Request::delete(path).body(Vec::new()).unwrap();
    let service = delete("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io");
    cluster.client.request::<Value>(service).await.unwrap();
    let get = || http::Request::get(METRICS).body(Vec::new()).unwrap();
    let is_gone = || async { cluster.client.request::<Value>(get()).await.is_err() };
    cluster.until("the metrics are gone", is_gone).await;
}

async fn serve_metrics(cluster: &Cluster) {
    serve_no_metrics(cluster).await;
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "pods.metrics.k8s.io",
                      "annotations": { "api-approved.kubernetes.io": "unapproved, stands in for a metrics server" } },
        "spec": {
            "group": "metrics.k8s.io", "scope": "Namespaced",
            "names": { "plural": "pods", "singular": "pod", "kind": "PodMetrics", "listKind": "PodMetricsList" },
            "versions": [{ "name": "v1beta1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    post(cluster, path, &definition).await.unwrap();
}

/// Each pod that has no sample yet uses this much memory.
async fn use_memory(cluster: &Cluster, amount: &str) {
    for pod in cluster.list("Pod").await {
        let sample = json!({
            "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": { "name": pod["metadata"]["name"], "labels": pod["metadata"]["labels"] },
            "timestamp": jiff::Timestamp::now(), "window": "30s",
            "containers": [{ "name": "c", "usage": { "memory": amount } }],
        });
        cluster
            .until("the sample is taken", || async {
                !matches!(post(cluster, METRICS, &sample).await, Err(kube::Error::Api(status)) if status.code == 404)
            })
            .await;
    }
}

fn deployment() -> Value {
    let container =
        json!({ "name": "c", "image": "one", "resources": { "requests": { "memory": "100Mi" } } });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [container] } },
        },
    })
}

fn scaler(name: &str, metric: Value) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": KIND, "metadata": { "name": name },
        "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
                  "minReplicas": 1, "maxReplicas": 10, "metrics": [metric] },
    })
}

fn memory(percent: i32) -> Value {
    json!({ "type": "Resource", "resource": { "name": "memory",
            "target": { "type": "Utilization", "averageUtilization": percent } } })
}

/// The condition as `status reason: message`.
async fn condition(cluster: &Cluster, name: &str, kind: &str) -> String {
    let scaler = cluster.get(KIND, name).await;
    let conditions = scaler["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    let text = |field: &str| found.and_then(|found| found[field].as_str()).unwrap_or_default();
    format!("{} {}: {}", text("status"), text("reason"), text("message"))
}

async fn until_condition(cluster: &Cluster, name: &str, kind: &str, expected: &str) {
    let holds = || async { condition(cluster, name, kind).await == expected };
    cluster.until(expected, holds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_use_much_become_more() {
    let cluster = Cluster::start().await;
    serve_metrics(&cluster).await;
    cluster.create(deployment()).await;
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(2)).await;
    use_memory(&cluster, "200Mi").await;
    cluster.create(scaler("web", memory(50))).await;
    // Eight would be right; it doubles at most, and four are always allowed.
    cluster.until_field("Deployment", "web", "/spec/replicas", json!(4)).await;
    let limited = "True ScaleUpLimit: the desired replica count is increasing faster than the maximum scale rate";
    until_condition(&cluster, "web", "ScalingLimited", limited).await;
    let active = "True ValidMetricFound: the HPA was able to successfully calculate a replica count from memory \
                  resource utilization (percentage of request)";
    until_condition(&cluster, "web", "ScalingActive", active).await;
    let status = cluster.get(KIND, "web").await["status"].clone();
    assert_eq!(status["desiredReplicas"], 4);
    let current = &status["currentMetrics"][0]["resource"]["current"];
    assert_eq!(current["averageUtilization"], 200);
    assert!(status["lastScaleTime"].is_string());
    let told =
        "New size: 4; reason: memory resource utilization (percentage of request) above target"
            .to_owned();
    let is_told = || async { cluster.events("web", "SuccessfulRescale").await.contains(&told) };
    cluster.until(&told, is_told).await;
    cluster.delete(KIND, "web", DeleteParams::default()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_measured_is_told() {
    let cluster = Cluster::start().await;
    serve_no_metrics(&cluster).await;
    cluster.create(deployment()).await;
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(2)).await;
    cluster.create(scaler("used", memory(50))).await;
    let cause = "failed to get memory utilization: unable to get metrics for resource memory: unable to fetch metrics \
                 from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    let inactive = |reason: &str, cause: &str| {
        format!("False {reason}: the HPA was unable to compute the replica count: {cause}")
    };
    let expected = inactive("FailedGetResourceMetric", cause);
    until_condition(&cluster, "used", "ScalingActive", &expected).await;
    let told = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get memory resource metric value: {cause}"
    );
    let is_told =
        || async { cluster.events("used", "FailedComputeMetricsReplicas").await.contains(&told) };
    cluster.until(&told, is_told).await;

    // Two over the same pods would tell of that alone.
    cluster.delete(KIND, "used", DeleteParams::default()).await;
    cluster.until_gone(KIND, "used").await;
    let described = json!({ "apiVersion": "v1", "kind": "Service", "name": "front" });
    let object = json!({ "type": "Object", "object": { "describedObject": described, "metric": { "name": "hits" },
                         "target": { "type": "Value", "value": "10" } } });
    cluster.create(scaler("hit", object)).await;
    let cause = "unable to get metric hits: Service on default front/unable to fetch metrics from custom metrics API: \
                 no custom metrics API (custom.metrics.k8s.io) registered";
    let expected = inactive("FailedGetObjectMetric", cause);
    until_condition(&cluster, "hit", "ScalingActive", &expected).await;

    let mut lost = scaler("lost", memory(50));
    lost["spec"]["scaleTargetRef"]["name"] = json!("absent");
    cluster.create(lost).await;
    let expected = "False FailedGetScale: the HPA controller was unable to get the target's current scale: \
                    deployments.apps \"absent\" not found";
    until_condition(&cluster, "lost", "AbleToScale", expected).await;

    // Without metrics the bounds hold all the same.
    let mut small = scaler("small", memory(50));
    small["spec"]["maxReplicas"] = json!(1);
    cluster.create(small).await;
    cluster.until_field("Deployment", "web", "/spec/replicas", json!(1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_count_the_same_pods_do_nothing() {
    let cluster = Cluster::start().await;
    cluster.create(deployment()).await;
    cluster.until_field("Deployment", "web", "/status/readyReplicas", json!(2)).await;
    cluster.create(scaler("one", memory(50))).await;
    cluster
        .until("one is looked at", || async {
            !condition(&cluster, "one", "ScalingActive").await.starts_with(' ')
        })
        .await;
    cluster.create(scaler("two", memory(50))).await;
    let told =
        "pods by selector app=web are controlled by multiple HPAs: [{one default} {two default}]";
    until_condition(&cluster, "two", "ScalingActive", &format!("False AmbiguousSelector: {told}"))
        .await;
    let told = told.to_owned();
    let is_told = || async { cluster.events("two", "AmbiguousSelector").await.contains(&told) };
    cluster.until(&told, is_told).await;
    cluster.stop().await;
}
