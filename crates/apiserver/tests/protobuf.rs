//! Objects, lists, watches and refusals as messages, read by another implementation's types.

mod harness;

use futures::StreamExt as _;
use harness::{Answer, Harness, config_map, next, pod, send};
use http::{Method, Request};
use k8s_pb::api::core::v1::{ConfigMap, Pod, PodList};
use k8s_pb::apimachinery::pkg::apis::meta::v1::{
    APIGroupList, APIResourceList, ObjectMeta, PartialObjectMetadata, PartialObjectMetadataList,
    Status, WatchEvent,
};
use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
use prost::Message;
use serde_json::json;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const METADATA: &str =
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Puts a message into upstream's envelope.
fn body(api_version: &str, kind: &str, message: &impl Message) -> Vec<u8> {
    let type_meta = TypeMeta { api_version: Some(api_version.into()), kind: Some(kind.into()) };
    let unknown = Unknown {
        type_meta: Some(type_meta),
        raw: Some(message.encode_to_vec()),
        ..Unknown::default()
    };
    [b"k8s\0".to_vec(), unknown.encode_to_vec()].concat()
}

/// Takes a message out of its envelope, which must say that it is of this kind.
#[track_caller]
fn message<M: Message + Default>(bytes: &[u8], api_version: &str, kind: &str) -> M {
    let unknown = Unknown::decode(bytes.strip_prefix(b"k8s\0").expect("magic bytes")).unwrap();
    let type_meta = unknown.type_meta.unwrap();
    assert_eq!(
        (type_meta.api_version.as_deref(), type_meta.kind.as_deref()),
        (Some(api_version), Some(kind))
    );
    M::decode(unknown.raw.unwrap().as_slice()).unwrap()
}

async fn ask(server: &Harness, method: Method, path: &str, accept: &str, sent: Vec<u8>) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("accept", accept)
        .header("content-type", PROTOBUF)
        .body(sent)
        .unwrap();
    send(&server.client, request).await
}

async fn get(server: &Harness, path: &str, accept: &str) -> Answer {
    ask(server, Method::GET, path, accept, Vec::new()).await
}

#[track_caller]
fn is_protobuf(answer: &Answer, code: u16) {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.bytes));
    assert_eq!(answer.headers["content-type"], PROTOBUF);
}

#[tokio::test]
async fn an_object_is_written_changed_read_and_deleted_in_messages() {
    let server = Harness::start().await;
    let map = ConfigMap {
        metadata: Some(ObjectMeta { name: Some("a".into()), ..ObjectMeta::default() }),
        data: [("key".to_owned(), "välue".to_owned())].into(),
        binary_data: [("raw".to_owned(), vec![0xff, 0])].into(),
        ..ConfigMap::default()
    };
    let created = ask(&server, Method::POST, MAPS, PROTOBUF, body("v1", "ConfigMap", &map)).await;
    is_protobuf(&created, 201);
    let mut stored: ConfigMap = message(&created.bytes, "v1", "ConfigMap");
    assert_eq!((&stored.data, &stored.binary_data), (&map.data, &map.binary_data));
    let metadata = stored.metadata.clone().unwrap();
    assert!(!metadata.uid().is_empty() && metadata.creation_timestamp.unwrap().seconds() > 0);
    assert!(metadata.managed_fields[0].fields_v1.as_ref().unwrap().raw().starts_with(b"{\"f:"));

    stored.data.insert("more".to_owned(), "x".to_owned());
    let path = format!("{MAPS}/a");
    let put = ask(&server, Method::PUT, &path, PROTOBUF, body("v1", "ConfigMap", &stored)).await;
    is_protobuf(&put, 200);
    let read = get(&server, &path, "application/vnd.kubernetes.protobuf, */*").await;
    is_protobuf(&read, 200);
    assert_eq!(message::<ConfigMap>(&read.bytes, "v1", "ConfigMap").data, stored.data);

    let options = k8s_pb::apimachinery::pkg::apis::meta::v1::DeleteOptions::default();
    let gone = body("v1", "DeleteOptions", &options);
    let gone = ask(&server, Method::DELETE, &path, PROTOBUF, gone).await;
    is_protobuf(&gone, 200);
    assert_eq!(message::<Status>(&gone.bytes, "v1", "Status").status(), "Success");
    let missing = get(&server, &path, PROTOBUF).await;
    is_protobuf(&missing, 404);
    let status: Status = message(&missing.bytes, "v1", "Status");
    assert_eq!((status.reason(), status.code()), ("NotFound", 404));
    assert_eq!(status.message(), "configmaps \"a\" not found");
    assert_eq!(status.details.unwrap().name(), "a");
}

#[tokio::test]
async fn pods_keep_what_messages_wrap() {
    let server = Harness::start().await;
    server.namespace("space").await;
    let mut wanted = pod("web");
    wanted["spec"]["volumes"] =
        json!([{ "name": "v", "configMap": { "name": "c", "defaultMode": 256 } }]);
    wanted["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 80 }]);
    wanted["spec"]["containers"][0]["readinessProbe"] = json!({ "httpGet": { "port": "http" } });
    wanted["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "250m" } });
    server.post("/api/v1/namespaces/space/pods", wanted).await.expect(201);
    let list = get(&server, "/api/v1/pods", PROTOBUF).await;
    is_protobuf(&list, 200);
    let list: PodList = message(&list.bytes, "v1", "PodList");
    assert!(!list.metadata.unwrap().resource_version().is_empty());
    let spec = list.items[0].spec.clone().unwrap();
    let volume = spec.volumes.iter().find(|volume| volume.name() == "v").unwrap();
    let source = volume.volume_source.clone().unwrap().config_map.unwrap();
    assert_eq!((source.default_mode(), source.local_object_reference.unwrap().name()), (256, "c"));
    let container = &spec.containers[0];
    assert_eq!(container.ports[0].container_port(), 80);
    let probe = container.readiness_probe.clone().unwrap().handler.unwrap();
    assert_eq!(probe.http_get.unwrap().port.unwrap().str_val(), "http");
    assert_eq!(container.resources.as_ref().unwrap().requests["cpu"].string(), "250m");
}

#[tokio::test]
async fn metadata_alone_is_a_message_for_custom_objects_too() {
    let server = Harness::start().await;
    server.post(MAPS, config_map("a", json!({ "k": "v" }))).await.expect(201);
    let one = get(&server, &format!("{MAPS}/a"), METADATA).await;
    is_protobuf(&one, 200);
    let one: PartialObjectMetadata = message(&one.bytes, "meta.k8s.io/v1", "PartialObjectMetadata");
    assert_eq!(one.metadata.unwrap().labels["k"], "v");
    let accept = METADATA.replace("PartialObjectMetadata", "PartialObjectMetadataList");
    let list = get(&server, MAPS, &accept).await;
    let list: PartialObjectMetadataList =
        message(&list.bytes, "meta.k8s.io/v1", "PartialObjectMetadataList");
    assert!(list.items.iter().any(|item| item.metadata.as_ref().unwrap().name() == "a"));
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    get(&server, MAPS, table).await.expect(406);
}

#[tokio::test]
async fn scales_reviews_and_views_are_messages() {
    use k8s_pb::api::authorization::v1::SelfSubjectAccessReview;
    let server = Harness::start().await;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "a": "b" } },
            "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    });
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    server.post(DEPLOYMENTS, deployment).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let scale = get(&server, &path, PROTOBUF).await;
    is_protobuf(&scale, 200);
    let mut scale: k8s_pb::api::autoscaling::v1::Scale =
        message(&scale.bytes, "autoscaling/v1", "Scale");
    assert_eq!(scale.spec.unwrap().replicas(), 2);
    scale.spec = Some(k8s_pb::api::autoscaling::v1::ScaleSpec { replicas: Some(0) });
    let scaled = body("autoscaling/v1", "Scale", &scale);
    is_protobuf(&ask(&server, Method::PUT, &path, PROTOBUF, scaled).await, 200);
    let scaled = server.get(&path).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"].as_i64().unwrap_or(0), 0);

    let review = body(
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        &SelfSubjectAccessReview {
            spec: Some(k8s_pb::api::authorization::v1::SelfSubjectAccessReviewSpec {
                resource_attributes: Some(k8s_pb::api::authorization::v1::ResourceAttributes {
                    verb: Some("get".into()),
                    resource: Some("pods".into()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = ask(&server, Method::POST, REVIEWS, PROTOBUF, review).await;
    is_protobuf(&answer, 201);
    let answer: SelfSubjectAccessReview =
        message(&answer.bytes, "authorization.k8s.io/v1", "SelfSubjectAccessReview");
    assert!(answer.status.unwrap().allowed());

    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e", "namespace": "default" },
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
        "reason": "Because", "message": "of this", "type": "Normal", "count": 3,
        "lastTimestamp": "2026-11-23T06:00:00Z",
    });
    server.post("/api/v1/namespaces/default/events", event).await.expect(201);
    let seen = get(&server, "/apis/events.k8s.io/v1/namespaces/default/events", PROTOBUF).await;
    let seen: k8s_pb::api::events::v1::EventList =
        message(&seen.bytes, "events.k8s.io/v1", "EventList");
    assert_eq!((seen.items[0].note(), seen.items[0].deprecated_count()), ("of this", 3));
}

/// The events of a watch, cut out of its frames.
async fn events(server: &Harness, path: &str, count: usize) -> Vec<WatchEvent> {
    let request = Request::get(path).header("accept", PROTOBUF);
    let response = server.client.send(request.body(kube::client::Body::empty()).unwrap()).await;
    let response = response.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let mut body = Box::pin(http_body_util::BodyExt::into_data_stream(response.into_body()));
    let (mut pending, mut found) = (Vec::new(), Vec::new());
    while found.len() < count {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(10), body.next()).await;
        pending.extend_from_slice(&chunk.expect("an event in time").expect("more events").unwrap());
        while let Some((length, rest)) = pending.split_at_checked(4) {
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some(event) = rest.get(..length) else { break };
            found.push(WatchEvent::decode(event).unwrap());
            pending.drain(..4 + length);
        }
    }
    found
}

#[tokio::test]
async fn a_watch_is_a_stream_of_messages() {
    let server = Harness::start().await;
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3Da"
    );
    let events = events(&server, &path, 2).await;
    let raw = |event: &WatchEvent| event.object.clone().unwrap().raw.unwrap();
    assert_eq!(events[0].r#type(), "ADDED");
    let added: ConfigMap = message(&raw(&events[0]), "v1", "ConfigMap");
    assert_eq!(added.data["a"], "b");
    assert_eq!(events[1].r#type(), "BOOKMARK");
    let mark: ConfigMap = message(&raw(&events[1]), "v1", "ConfigMap");
    assert_eq!(mark.metadata.unwrap().annotations["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_ends_with_a_status_message() {
    let server = Harness::start().await;
    server.post(MAPS, config_map("a", json!({}))).await.expect(201);
    server.store.compact(server.store.revision()).await.unwrap();
    let events = events(&server, &format!("{MAPS}?watch=true&resourceVersion=1"), 1).await;
    assert_eq!(events[0].r#type(), "ERROR");
    let status: Status = message(&events[0].object.clone().unwrap().raw.unwrap(), "v1", "Status");
    assert_eq!((status.code(), status.reason()), (410, "Expired"));
}

#[tokio::test]
async fn custom_objects_have_no_messages() {
    let server = Harness::start().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "boats.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    });
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut watch = server.watch(&format!("{DEFINITIONS}?watch=true")).await;
    server.post(DEFINITIONS, definition).await.expect(201);
    let one = get(&server, &format!("{DEFINITIONS}/boats.example.com"), PROTOBUF).await;
    is_protobuf(&one, 200);
    use k8s_pb::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let one: CustomResourceDefinition =
        message(&one.bytes, "apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let schema = one.spec.unwrap().versions[0].schema.clone().unwrap().open_apiv3_schema.unwrap();
    assert!(schema.x_kubernetes_preserve_unknown_fields());

    const BOATS: &str = "/apis/example.com/v1/namespaces/default/boats";
    let boat =
        json!({ "apiVersion": "example.com/v1", "kind": "Boat", "metadata": { "name": "b" } });
    let is_established = |definition: &serde_json::Value| {
        let conditions = definition["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Established" && it["status"] == "True")
    };
    while !is_established(&next(&mut watch).await["object"]) {}
    server.post(BOATS, boat).await.expect(201);
    let refused = get(&server, BOATS, PROTOBUF).await;
    is_protobuf(&refused, 406);
    let json = get(&server, BOATS, "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(json.headers["content-type"], "application/json");
    json.expect(200);
    let metadata = get(&server, BOATS, METADATA).await;
    is_protobuf(&metadata, 200);
    let sent = body("example.com/v1", "Boat", &Pod::default());
    ask(&server, Method::POST, BOATS, "application/json", sent)
        .await
        .refused(415, "UnsupportedMediaType");
}

#[tokio::test]
async fn discovery_speaks_in_messages_to_typed_clients() {
    let server = Harness::start().await;
    let groups = get(&server, "/apis", PROTOBUF).await;
    is_protobuf(&groups, 200);
    let groups: APIGroupList = message(&groups.bytes, "v1", "APIGroupList");
    assert!(groups.groups.iter().any(|group| group.name() == "apps"));

    let resources = get(&server, "/apis/apps/v1", PROTOBUF).await;
    is_protobuf(&resources, 200);
    let resources: APIResourceList = message(&resources.bytes, "v1", "APIResourceList");
    let scale = resources.resources.iter().find(|found| found.name() == "deployments/scale");
    let scale = scale.expect("Deployments have a scale");
    assert_eq!((scale.group(), scale.kind()), ("autoscaling", "Scale"));
    assert_eq!(scale.verbs.as_ref().unwrap().items, ["get", "patch", "update"]);
}
