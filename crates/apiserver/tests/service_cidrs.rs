//! Ranges of Services' addresses that people add: they become ready, give addresses, and go when nobody needs them.

mod harness;

use harness::{Harness, next};
use serde_json::{Value, json};

const API: &str = "/apis/networking.k8s.io/v1";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, address: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "clusterIP": address, "ports": [{ "port": 80 }] },
    })
}

/// Waits until the condition `Ready` of the range has this status, and answers it.
async fn until_ready(server: &Harness, name: &str, status: &str) -> Value {
    let path = format!("{API}/servicecidrs?watch=true&fieldSelector=metadata.name={name}");
    let mut watch = server.watch(&path).await;
    loop {
        let event = next(&mut watch).await;
        let condition = &event["object"]["status"]["conditions"][0];
        if condition["type"] == "Ready" && condition["status"] == status {
            return condition.clone();
        }
    }
}

async fn add_range(server: &Harness, name: &str, range: &str) {
    let cidr = json!({ "metadata": { "name": name }, "spec": { "cidrs": [range] } });
    server.post(&format!("{API}/servicecidrs"), cidr).await.expect(201);
    let ready = until_ready(server, name, "True").await;
    assert_eq!(ready["message"], "Kubernetes Service CIDR is ready");
}

async fn create(server: &Harness, service: Value) -> Value {
    server.post(SERVICES, service).await.expect(201)
}

#[tokio::test]
async fn services_have_addresses_of_every_range_that_is_ready() {
    let server = Harness::start().await;
    let wish = service("web", "10.100.0.9");
    let why = server.post(SERVICES, wish.clone()).await.refused(422, "Invalid");
    let refusal =
        "failed to allocate IP 10.100.0.9: the provided network does not match the current range";
    assert!(why.contains(refusal), "{why}");

    add_range(&server, "more", "10.100.0.0/24").await;
    let stored = server.get(&format!("{API}/servicecidrs/more")).await.expect(200);
    assert_eq!(
        stored["metadata"]["finalizers"],
        json!(["networking.k8s.io/service-cidr-finalizer"])
    );
    create(&server, wish).await;
    let address = server.get(&format!("{API}/ipaddresses/10.100.0.9")).await.expect(200);
    assert_eq!(
        address["spec"]["parentRef"],
        json!({ "group": "", "resource": "services", "namespace": "default", "name": "web" })
    );
    assert_eq!(
        address["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"],
        "ipallocator.k8s.io"
    );
    // The server's own Service has an object as well.
    server.get(&format!("{API}/ipaddresses/10.96.0.1")).await.expect(200);

    // A range that is deleted stays as long as one of its addresses is used, and gives no others.
    let mut watch = server
        .watch(&format!("{API}/servicecidrs?watch=true&fieldSelector=metadata.name=more"))
        .await;
    server.delete(&format!("{API}/servicecidrs/more"), json!({})).await.expect(200);
    let held = until_ready(&server, "more", "False").await;
    assert_eq!(held["reason"], "Terminating");
    let why = server.post(SERVICES, service("late", "10.100.0.10")).await.refused(422, "Invalid");
    assert!(why.contains("does not match the current range"), "{why}");
    server.delete(&format!("{SERVICES}/web"), json!({})).await.expect(200);
    server.get(&format!("{API}/ipaddresses/10.100.0.9")).await.refused(404, "NotFound");
    while next(&mut watch).await["type"] != "DELETED" {}
}

#[tokio::test]
async fn a_range_goes_at_once_when_another_has_its_addresses() {
    let server = Harness::start().await;
    add_range(&server, "small", "10.100.0.0/28").await;
    create(&server, service("web", "10.100.0.9")).await;
    add_range(&server, "large", "10.100.0.0/16").await;
    let mut watch = server
        .watch(&format!("{API}/servicecidrs?watch=true&fieldSelector=metadata.name=small"))
        .await;
    server.delete(&format!("{API}/servicecidrs/small"), json!({})).await.expect(200);
    while next(&mut watch).await["type"] != "DELETED" {}
    create(&server, service("other", "10.100.0.10")).await;
    // A range and what was given out of it are known to the next server, too.
    let server = server.restart().await;
    let why = server.post(SERVICES, service("third", "10.100.0.9")).await.refused(422, "Invalid");
    assert!(why.contains("provided IP is already allocated"), "{why}");
    create(&server, service("third", "10.100.1.9")).await;
}

#[tokio::test]
async fn an_address_with_an_object_of_its_own_is_taken() {
    let server = Harness::start().await;
    let object = json!({
        "metadata": { "name": "10.96.3.4" },
        "spec": { "parentRef": { "resource": "things", "name": "mine" } },
    });
    server.post(&format!("{API}/ipaddresses"), object).await.expect(201);
    let why = server.post(SERVICES, service("web", "10.96.3.4")).await.refused(422, "Invalid");
    assert!(why.contains("provided IP is already allocated"), "{why}");
    server.delete(&format!("{API}/ipaddresses/10.96.3.4"), json!({})).await.expect(200);
    create(&server, service("web", "10.96.3.4")).await;
}
