use super::*;

fn parameters(operation: &Value) -> Vec<&str> {
    let list = operation["parameters"].as_array();
    list.into_iter().flatten().filter_map(|parameter| parameter["name"].as_str()).collect()
}

/// Every `$ref` in the document, with where it must lead.
fn check_references(document: &Value) {
    let mut queue = vec![document];
    while let Some(value) = queue.pop() {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    let pointer = reference.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                }
                queue.extend(object.values());
            }
            Value::Array(items) => queue.extend(items),
            _ => (),
        }
    }
}

#[test]
fn every_document_is_closed_and_names_its_kinds() {
    for (served, document) in documents() {
        check_references(&document);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let paths = document["paths"].as_object().unwrap();
        for kind in kinds::all().iter().filter(|kind| kind.group_version() == served) {
            let wanted = json!({ "group": kind.group, "kind": kind.kind, "version": kind.version });
            let described = schemas.values().any(|schema| {
                schema["x-kubernetes-group-version-kind"]
                    .as_array()
                    .is_some_and(|kinds| kinds.contains(&wanted))
            });
            assert!(described, "{} is not described", kind.kind);
            let patchable = paths
                .values()
                .any(|path| path["patch"]["x-kubernetes-group-version-kind"] == wanted);
            assert_eq!(patchable, kind.allows("patch"), "{}", kind.kind);
        }
    }
}

#[test]
fn patching_takes_what_kubectl_looks_for() {
    let document = document("apps/v1", &Custom::default()).unwrap();
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    for parameter in ["dryRun", "fieldManager", "fieldValidation", "force", "pretty"] {
        assert!(parameters(&item["patch"]).contains(&parameter), "{parameter}");
    }
    assert_eq!(parameters(item), ["name", "namespace"]);
    assert_eq!(item["patch"]["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(item["patch"]["x-kubernetes-action"], "patch");
    assert!(item["patch"]["requestBody"]["content"]["application/apply-patch+yaml"].is_object());
    let list = &document["paths"]["/apis/apps/v1/deployments"]["get"];
    assert_eq!(list["operationId"], "listAppsV1DeploymentForAllNamespaces");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]
        ["patch"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["group"], "autoscaling");
}

#[test]
fn definitions_have_descriptions_and_extensions() {
    let document = document("v1", &Custom::default()).unwrap();
    let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    let containers = &pod["properties"]["containers"];
    assert!(containers["description"].as_str().is_some_and(|text| text.contains("containers")));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    let affinity = &pod["properties"]["affinity"];
    assert_eq!(affinity["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Affinity");
    assert!(affinity["description"].is_string());
    let list = &document["components"]["schemas"]["io.k8s.api.core.v1.PodList"];
    assert_eq!(list["required"], json!(["items"]));
    assert!(document["components"]["schemas"].get("io.k8s.api.apps.v1.Deployment").is_none());
}

#[test]
fn version_two_holds_everything() {
    let document = v2_document(&Custom::default());
    check_references(&document);
    assert!(document["definitions"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(parameters(patch).contains(&"fieldValidation") && parameters(patch).contains(&"body"));
    assert_eq!(
        document["paths"]["/apis/rbac.authorization.k8s.io/v1/clusterroles"]["get"]["operationId"],
        "listRbacAuthorizationV1ClusterRole"
    );
}

#[test]
fn operation_ids_are_unique() {
    let document = v2_document(&Custom::default());
    let mut seen = BTreeSet::new();
    for path in document["paths"].as_object().unwrap().values() {
        for operation in
            path.as_object().unwrap().values().filter(|operation| operation.is_object())
        {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{id} occurs twice");
        }
    }
}

#[test]
fn nobody_gets_a_document_of_a_group_that_is_not_served() {
    assert!(document("apps/v9", &Custom::default()).is_none());
}
