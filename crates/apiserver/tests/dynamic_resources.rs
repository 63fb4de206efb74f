//! The kinds that have rules of nobody's yet are stored, changed, shown and deleted like all others.

mod harness;

use harness::{Harness, names, next, summary};
use serde_json::{Value, json};

/// Takes an object of the kind through its life.
async fn check(server: &Harness, path: &str, mut object: Value, status: Option<Value>) {
    object["metadata"] = json!({ "name": "e2e", "labels": { "run": "e2e" } });
    let created = server.post(&format!("{path}?fieldValidation=Strict"), object).await.expect(201);
    let mut watch = server.watch(&format!("{path}?watch=true&labelSelector=run%3De2e")).await;
    assert_eq!(summary(&next(&mut watch).await), "ADDED e2e");
    let one = format!("{path}/e2e");
    let patch = json!({ "metadata": { "annotations": { "patched": "true" } } });
    for format in ["merge-patch", "strategic-merge-patch"] {
        server.patch(&one, format, patch.clone()).await.expect(200);
    }
    assert_eq!(summary(&next(&mut watch).await), "MODIFIED e2e");
    if let Some(status) = status {
        let patched = server
            .patch(&format!("{one}/status"), "merge-patch", json!({ "status": status }))
            .await;
        assert_eq!(patched.expect(200)["status"], status, "{path}");
        assert_eq!(summary(&next(&mut watch).await), "MODIFIED e2e");
    }
    let list = server.get(&format!("{path}?labelSelector=run%3De2e")).await.expect(200);
    assert_eq!(names(&list), ["e2e"]);
    assert_eq!(list["items"][0]["metadata"]["uid"], created["metadata"]["uid"]);
    server.delete(&format!("{path}?labelSelector=run%3De2e"), json!({})).await.expect(200);
    assert_eq!(summary(&next(&mut watch).await), "DELETED e2e");
    server.get(&one).await.refused(404, "NotFound");
}

#[tokio::test]
async fn devices_and_migrations_live_like_all_objects() {
    let server = Harness::start().await;
    let devices = json!({ "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": "gpu" } }] } });
    let condition = json!({ "conditions": [{ "type": "Running", "status": "True", "reason": "Tested", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z" }] });
    let root = "/apis/resource.k8s.io/v1";
    let class = json!({ "spec": { "selectors": [{ "cel": { "expression": "true" } }] } });
    check(&server, &format!("{root}/deviceclasses"), class, None).await;
    let claims = format!("{root}/namespaces/default/resourceclaims");
    check(&server, &claims, json!({ "spec": devices }), None).await;
    let templates = format!("{root}/namespaces/default/resourceclaimtemplates");
    check(&server, &templates, json!({ "spec": { "spec": devices } }), None).await;
    let slice = json!({ "spec": { "driver": "gpu.example.com", "nodeName": "n", "devices": [{ "name": "a" }],
        "pool": { "name": "p", "resourceSliceCount": 1 } } });
    check(&server, &format!("{root}/resourceslices"), slice, None).await;
    let taint = json!({ "spec": { "taint": { "key": "a", "effect": "NoSchedule" } } });
    check(&server, &format!("{root}/devicetaintrules"), taint, Some(condition.clone())).await;
    let migration =
        json!({ "spec": { "resource": { "group": "apps", "resource": "deployments" } } });
    let migrations = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
    check(&server, migrations, migration, Some(condition)).await;
}

#[tokio::test]
async fn reviews_have_no_table() {
    let server = Harness::start().await;
    let ask = |accept: &'static str| {
        let body =
            json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
        let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header("content-type", "application/json")
            .header("accept", accept)
            .body(body.to_string().into_bytes())
            .unwrap();
        harness::send(&server.client, request)
    };
    ask("application/json;as=Table;v=v1;g=meta.k8s.io").await.refused(406, "NotAcceptable");
    let answer =
        ask("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.expect(201);
    assert_eq!(answer["kind"], "SelfSubjectAccessReview");
}

#[tokio::test]
async fn names_of_kernel_parameters_are_checked() {
    let server = Harness::start().await;
    let mut pod = harness::pod("tuned");
    pod["spec"]["securityContext"] = json!({ "sysctls": [
        { "name": "foo-", "value": "1" }, { "name": "kernel.shmmax", "value": "1" }, { "name": "net/a_b", "value": "1" },
        { "name": "safe-and-unsafe", "value": "1" }, { "name": "bar..", "value": "1" },
        { "name": "kernel.shmmax", "value": "2" },
    ] });
    server.namespace("shop").await;
    let message = server.post("/api/v1/namespaces/shop/pods", pod).await.refused(422, "Invalid");
    for part in [
        "spec.securityContext.sysctls[0].name: Invalid value: \"foo-\": must have at most 253 characters and match regex ",
        "spec.securityContext.sysctls[4].name: Invalid value: \"bar..\"",
        "spec.securityContext.sysctls[5].name: Duplicate value: \"kernel.shmmax\"",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("safe-and-unsafe") && !message.contains("net/a_b"), "{message}");
}

#[tokio::test]
async fn the_range_of_services_is_an_object_and_addresses_are_names() {
    let server = Harness::start().await;
    let cidrs = "/apis/networking.k8s.io/v1/servicecidrs";
    let default = server.get(&format!("{cidrs}/kubernetes/status")).await.expect(200);
    assert_eq!(default["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    assert_eq!(default["status"]["conditions"][0]["status"], "True");
    let refused = async |cidrs_of: Value, expected: &str| {
        let object = json!({ "metadata": { "name": "more" }, "spec": { "cidrs": cidrs_of } });
        let message = server.post(cidrs, object).await.refused(422, "Invalid");
        assert!(message.contains(expected), "{message}");
    };
    refused(json!([]), "spec.cidrs: Required value: at least one CIDR required").await;
    refused(json!(["10.0.0.0"]), "spec.cidrs[0]: Invalid value: \"10.0.0.0\"").await;
    refused(json!(["10.0.0.0/8", "11.0.0.0/8"]), "no more than one IP for each IP family").await;
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    let parent = json!({ "parentRef": { "group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar" } });
    for name in ["255.255.255.255", "fe80::42:1dff:fe84:f9e2"] {
        let object = json!({ "metadata": { "name": name }, "spec": parent });
        server.post(addresses, object).await.expect(201);
    }
    let wrong = json!({ "metadata": { "name": "not-one" }, "spec": parent });
    server.post(addresses, wrong).await.refused(422, "Invalid");
}

#[tokio::test]
async fn devices_are_administered_from_labelled_namespaces_only() {
    let server = Harness::start().await;
    server.namespace("ops").await;
    let claim = json!({ "metadata": { "name": "c" }, "spec": { "devices": { "requests": [
        { "name": "gpu", "exactly": { "deviceClassName": "gpu", "adminAccess": true } },
    ] } } });
    let claims = "/apis/resource.k8s.io/v1/namespaces/ops/resourceclaims";
    let why = server.post(claims, claim.clone()).await.refused(422, "Invalid");
    let wanted = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the \
        `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    assert!(why.ends_with(wanted), "{why}");
    let label =
        json!({ "metadata": { "labels": { "resource.kubernetes.io/admin-access": "true" } } });
    server.patch("/api/v1/namespaces/ops", "merge-patch", label).await.expect(200);
    server.post(claims, claim).await.expect(201);
}
