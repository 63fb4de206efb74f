//! Lists page by page and watches event by event, out of the store's memory.

mod harness;

use futures::StreamExt as _;
use harness::{Harness, config_map, names, next, summary};
use http::Request;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_maps(count: usize) -> Harness {
    let server = Harness::start().await;
    for number in 0..count {
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        server
            .post(MAPS, config_map(&format!("m{number}"), json!({ "parity": parity })))
            .await
            .expect(201);
    }
    server
}

#[tokio::test]
async fn pages_show_one_state_although_it_changes() {
    let server = with_maps(5).await;
    let first = server.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["m0", "m1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    server.post(MAPS, config_map("m11", json!({}))).await.expect(201);
    server.delete(&format!("{MAPS}/m3"), json!({})).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m2", "m3"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["m4"]);
    assert!(third["metadata"].get("continue").is_none(), "{third}");
    server.get(&format!("{MAPS}?continue=nonsense")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn options_that_contradict_each_other_are_all_named() {
    let server = with_maps(2).await;
    let page = server.get(&format!("{MAPS}?limit=1")).await.expect(200);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let check = async |query: &str, code: u16, expected: &[&str]| {
        let answer = server.get(&format!("{MAPS}?{query}")).await.expect(code);
        let message = answer["message"].as_str().unwrap();
        for part in expected {
            assert!(message.contains(part), "{query}: {message}");
        }
    };
    let not_alone = "resourceVersionMatch is forbidden unless resourceVersion is provided";
    let not_with = "resourceVersionMatch is forbidden when continue is provided";
    let continued = format!("continue={token}");
    check("resourceVersionMatch=Exact", 422, &[not_alone]).await;
    let both = format!("resourceVersionMatch=Exact&{continued}");
    check(&both, 422, &[not_alone, not_with]).await;
    let exactly_any = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
    check("resourceVersionMatch=Exact&resourceVersion=0", 422, &[exactly_any]).await;
    let not_when = "specifying resource version is not allowed when using continue";
    check(&format!("resourceVersion=1&{continued}"), 400, &[not_when]).await;
    check("sendInitialEvents=true", 422, &["sendInitialEvents is forbidden for list"]).await;
    let needs = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    check("watch=true&sendInitialEvents=true", 422, &[needs]).await;
    let exact = "watch=true&sendInitialEvents=true&resourceVersion=0&resourceVersionMatch=Exact";
    let unsupported = "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"";
    check(exact, 422, &[needs, unsupported]).await;
    let without =
        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
    check("watch=true&resourceVersion=0&resourceVersionMatch=NotOlderThan", 422, &[without]).await;
    check("continue=nonsense", 400, &["invalid continue token: continue key is not valid"]).await;
    // Any state will do: nothing is inconsistent about that.
    server.get(&format!("{MAPS}?resourceVersion=0&{continued}")).await.expect(200);
}

#[tokio::test]
async fn a_page_whose_state_is_gone_says_how_to_go_on() {
    let server = with_maps(3).await;
    let first = server.get(&format!("{MAPS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    server.delete(&format!("{MAPS}/m2"), json!({})).await.expect(200);
    server.store.compact(server.store.revision()).await.unwrap();
    let gone = server.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(410);
    assert_eq!(gone["reason"], "Expired");
    let token = gone["metadata"]["continue"].as_str().unwrap();
    assert_eq!(
        names(&server.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(200)),
        ["m1"]
    );
}

#[tokio::test]
async fn selectors_choose_and_unknown_ones_are_refused() {
    let server = with_maps(4).await;
    assert_eq!(
        names(&server.get(&format!("{MAPS}?labelSelector=parity%3Dodd")).await.expect(200)),
        ["m1", "m3"]
    );
    assert_eq!(
        names(
            &server
                .get(&format!("{MAPS}?labelSelector=parity%20in%20(even)&limit=1"))
                .await
                .expect(200)
        ),
        ["m0"]
    );
    assert_eq!(
        names(&server.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm2")).await.expect(200)),
        ["m2"]
    );
    server.get(&format!("{MAPS}?labelSelector=a%3D%3D%3Db")).await.refused(400, "BadRequest");
    let message =
        server.get(&format!("{MAPS}?fieldSelector=spec.x%3Dy")).await.refused(400, "BadRequest");
    assert!(
        message.contains(
            "is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ),
        "{message}"
    );
    server.get(&format!("{MAPS}?limit=x")).await.refused(400, "BadRequest");
    server.get(&format!("{MAPS}?resourceVersion=x")).await.refused(400, "BadRequest");
    server.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.refused(422, "Invalid");
    let message =
        server.get(&format!("{MAPS}?resourceVersion=99999")).await.refused(504, "Timeout");
    assert!(message.contains("Too large resource version: 99999"), "{message}");
}

#[tokio::test]
async fn a_watch_sees_each_change_from_its_revision_on() {
    let server = with_maps(1).await;
    let list = server.get(MAPS).await.expect(200);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server.watch(&format!("{MAPS}?watch=true&resourceVersion={revision}")).await;
    server.post(MAPS, config_map("x", json!({}))).await.expect(201);
    server
        .patch(&format!("{MAPS}/x"), "merge-patch", json!({ "data": { "n": "1" } }))
        .await
        .expect(200);
    let gone = server.delete(&format!("{MAPS}/x"), json!({})).await.expect(200);
    assert_eq!(gone["status"], "Success");
    assert_eq!(summary(&next(&mut watch).await), "ADDED x");
    let modified = next(&mut watch).await;
    assert_eq!(
        (summary(&modified).as_str(), &modified["object"]["data"]["n"]),
        ("MODIFIED x", &json!("1"))
    );
    let deleted = next(&mut watch).await;
    assert_eq!(summary(&deleted), "DELETED x");
    // It is the deletion's own, and not that of the last change.
    let revision = |event: &Value| -> u64 {
        event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    };
    assert!(revision(&deleted) > revision(&modified), "{deleted}");
}

#[tokio::test]
async fn what_leaves_the_selector_is_deleted_and_what_enters_is_added() {
    let server = with_maps(2).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=true&labelSelector=parity%3Deven")).await;
    assert_eq!(summary(&next(&mut watch).await), "ADDED m0");
    let relabel = |parity: &str| json!({ "metadata": { "labels": { "parity": parity } } });
    server.patch(&format!("{MAPS}/m1"), "merge-patch", relabel("even")).await.expect(200);
    assert_eq!(summary(&next(&mut watch).await), "ADDED m1");
    let left = server.patch(&format!("{MAPS}/m0"), "merge-patch", relabel("odd")).await.expect(200);
    let event = next(&mut watch).await;
    assert_eq!(summary(&event), "DELETED m0");
    assert_eq!(
        event["object"]["metadata"]["labels"]["parity"], "even",
        "the last state that was seen"
    );
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_that_starts_in_the_forgotten_past_gets_410_as_its_event() {
    let server = with_maps(2).await;
    server.store.compact(server.store.revision()).await.unwrap();
    let mut watch = server.watch(&format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let event = next(&mut watch).await;
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = with_maps(2).await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let watch = server.watch(&format!("{MAPS}?{query}")).await;
    let events: Vec<Value> = watch.collect().await;
    assert_eq!(
        events.iter().map(summary).collect::<Vec<_>>(),
        ["ADDED m0", "ADDED m1", "BOOKMARK -"]
    );
    assert_eq!(events[2]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.refused(422, "Invalid");
}

#[tokio::test]
async fn a_watch_that_is_about_to_end_says_how_far_it_got() {
    let server = with_maps(2).await;
    let query = "watch=true&resourceVersion=1&allowWatchBookmarks=true&timeoutSeconds=3";
    let watch = server.watch(&format!("{MAPS}?{query}")).await;
    let events: Vec<Value> = watch.collect().await;
    let summaries: Vec<_> = events.iter().map(summary).collect();
    assert_eq!(summaries, ["ADDED m0", "ADDED m1", "BOOKMARK -"]);
    let reached = &events[2]["object"]["metadata"]["resourceVersion"];
    assert_eq!(reached, &json!(server.store.revision().to_string()));
}

#[tokio::test]
async fn watchers_of_one_form_are_told_the_same_and_others_in_theirs() {
    let server = with_maps(0).await;
    let forms = [
        "Table;v=v1;g=meta.k8s.io",
        "Table;v=v1;g=meta.k8s.io",
        "PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ];
    let mut watches = Vec::new();
    for form in forms {
        let path = format!("{MAPS}?watch=true&resourceVersion={}", server.store.revision());
        watches.push(
            harness::watch_in_form(&server.client, &path, &format!("application/json;as={form}"))
                .await,
        );
    }
    for name in ["one", "two"] {
        server.post(MAPS, config_map(name, json!({}))).await.expect(201);
        let mut events = Vec::new();
        for watch in &mut watches {
            events.push(next(watch).await);
        }
        assert_eq!(events[0], events[1]);
        let columns = events[0]["object"]["columnDefinitions"].as_array().map_or(0, Vec::len);
        assert_eq!(columns > 0, name == "one", "only the first one names the columns");
        assert_eq!(events[0]["object"]["rows"][0]["cells"][0], name);
        assert_eq!(events[2]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(events[2]["object"]["metadata"]["name"], name);
    }
}

#[tokio::test]
async fn tables_and_metadata_are_answered_by_accept() {
    let server = with_maps(2).await;
    let ask = async |path: &str, accept: &str| {
        let request = Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
        harness::send(&server.client, request).await
    };
    let table = ask(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .await
        .expect(200);
    assert_eq!(
        (&table["kind"], &table["columnDefinitions"][0]["name"]),
        (&json!("Table"), &json!("Name"))
    );
    assert_eq!(table["rows"][1]["cells"][0], "m1");
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let partial = ask(MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
        .await
        .expect(200);
    assert_eq!(
        (&partial["kind"], partial["items"][0].get("data")),
        (&json!("PartialObjectMetadataList"), None)
    );
    let yaml = ask(&format!("{MAPS}/m0"), "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(String::from_utf8(yaml.bytes).unwrap().contains("kind: ConfigMap"));
    ask(MAPS, "image/png").await.refused(406, "NotAcceptable");
}

#[tokio::test]
async fn a_large_list_is_compressed_for_those_who_ask() {
    let server = Harness::start().await;
    for number in 0..10 {
        let mut map = config_map(&format!("m{number}"), json!({}));
        map["data"]["text"] = json!("x".repeat(20_000));
        server.post(MAPS, map).await.expect(201);
    }
    let request = Request::get(MAPS).header("accept-encoding", "gzip").body(Vec::new()).unwrap();
    let answer = harness::send(&server.client, request).await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert!(answer.bytes.len() < 20_000, "{}", answer.bytes.len());
    assert_eq!(names(&server.get(MAPS).await.expect(200)).len(), 10);
}

#[tokio::test]
async fn a_kind_and_its_other_spelling_are_the_same_objects() {
    let server = Harness::start().await;
    let event = json!({
        "metadata": { "name": "e" }, "reason": "Started", "message": "it runs", "type": "Normal",
        "involvedObject": { "kind": "Pod", "namespace": "default", "name": "web" },
    });
    server.post("/api/v1/namespaces/default/events", event).await.expect(201);
    let seen = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!(
        (&seen["apiVersion"], &seen["note"]),
        (&json!("events.k8s.io/v1"), &json!("it runs"))
    );
    assert_eq!(seen["regarding"]["name"], "web");
}
