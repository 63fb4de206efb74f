//! Every kind as discovery tells of it, beside what upstream 1.37 serves at its stable versions.

mod harness;

use harness::Harness;
use serde_json::Value;

/// A line for each resource: names, whether it has a namespace, verbs, and whether its objects are stored.
fn line(resource: &Value) -> String {
    let words = |field: &str| {
        let list = resource[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        list.collect::<Vec<_>>().join(",")
    };
    let text = |field: &str| resource[field].as_str().unwrap_or_default();
    let verbs =
        words("verbs").replace("create,delete,deletecollection,get,list,patch,update,watch", "ALL");
    let parts = [
        text("name").to_owned(),
        text("kind").to_owned(),
        text("singularName").to_owned(),
        words("shortNames"),
        words("categories"),
        if resource["namespaced"] == true { "namespaced" } else { "cluster" }.to_owned(),
        verbs,
        if text("storageVersionHash").is_empty() { "" } else { "stored" }.to_owned(),
    ];
    parts.map(|part| if part.is_empty() { "-".to_owned() } else { part }).join(" ")
}

#[tokio::test]
async fn every_kind_has_upstreams_names_and_verbs() {
    let server = Harness::start().await;
    let mut paths = vec!["/api/v1".to_owned()];
    let groups = server.get("/apis").await.expect(200);
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            paths.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
        }
    }
    let mut text = String::new();
    for path in paths {
        let list = server.get(&path).await.expect(200);
        text.push_str(&format!("# {path}\n"));
        for resource in list["resources"].as_array().unwrap() {
            text.push_str(&line(resource));
            text.push('\n');
        }
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/discovery.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap());
}
