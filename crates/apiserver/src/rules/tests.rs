//! Tables of cases: what is filled in, what is refused and in which words.

mod configuration;
mod job_status;
mod parts;
mod pods;
mod services;
mod statuses;
mod updates;
mod workloads;

use coracle_api::kinds;
use serde_json::json;

use super::*;

fn kind(api_version: &str, name: &str) -> &'static Kind {
    kinds::by_api_version(api_version, name).expect("a known kind")
}

/// The object as it would be stored, and what is said against it.
fn create(api_version: &str, name: &str, mut object: Value) -> (Value, Vec<String>) {
    let kind = kind(api_version, name);
    let rules = for_kind(kind);
    if kind.namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    object["metadata"]["uid"] = json!("u-1");
    (rules.default)(&mut object);
    (rules.prepare_create)(&mut object);
    (rules.default)(&mut object);
    let mut errors = FieldErrors::new();
    metadata::validate(kind, &object, &mut errors);
    (rules.validate)(&object, &mut errors);
    (object, errors.iter().map(ToString::to_string).collect())
}

fn check(api_version: &str, name: &str, object: Value, want: &[&str]) {
    let (_, errors) = create(api_version, name, object.clone());
    assert_eq!(errors, want, "{name} {object}");
}

/// Creates `old`, then replaces it by what `change` makes of it.
fn check_update(
    api_version: &str,
    name: &str,
    old: Value,
    change: impl FnOnce(&mut Value),
    want: &[&str],
) {
    let kind = kind(api_version, name);
    let rules = for_kind(kind);
    let (mut old, errors) = create(api_version, name, old);
    assert_eq!(errors, Vec::<String>::new());
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    change(&mut new);
    (rules.prepare_update)(&mut new, &old);
    (rules.default)(&mut new);
    let mut errors = FieldErrors::new();
    metadata::validate_update(kind, &new, &old, &mut errors);
    (rules.validate)(&new, &mut errors);
    (rules.validate_update)(&new, &old, &mut errors);
    let errors: Vec<String> = errors
        .iter()
        .map(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(errors, want, "{name} {new}");
}

/// Creates `old`, then writes its status as `change` makes it.
fn check_status(
    api_version: &str,
    name: &str,
    old: Value,
    change: impl FnOnce(&mut Value),
    want: &[&str],
) {
    let rules = for_kind(kind(api_version, name));
    let (mut old, errors) = create(api_version, name, old);
    assert_eq!(errors, Vec::<String>::new());
    let mut new = old.clone();
    change(&mut new);
    old["metadata"]["resourceVersion"] = json!("1");
    (rules.prepare_status_update)(&mut new, &old);
    (rules.default)(&mut new);
    let mut errors = FieldErrors::new();
    (rules.validate_status_update)(&new, &old, &mut errors);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, want, "{name} {new}");
}

/// Creates `old` in the state that `before` brings it to, then writes a part of it as `change` makes it.
fn check_part(
    part: &str,
    object: Value,
    before: impl FnOnce(&mut Value),
    change: impl FnOnce(&mut Value),
    want: &[&str],
) {
    let rules = for_kind(kind("v1", "Pod"));
    let (mut old, errors) = create("v1", "Pod", object);
    assert_eq!(errors, Vec::<String>::new());
    old["metadata"]["resourceVersion"] = json!("1");
    before(&mut old);
    (rules.default)(&mut old);
    let mut new = old.clone();
    change(&mut new);
    (rules.default)(&mut new);
    let mut errors = FieldErrors::new();
    (rules.validate)(&new, &mut errors);
    (rules.validate_part)(part, &new, &old, &mut errors);
    let errors: Vec<String> = errors
        .iter()
        .map(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(errors, want, "{new}");
}

fn pod_with(spec: Value) -> Value {
    let mut pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn container_with(fields: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    for (field, value) in fields.as_object().into_iter().flatten() {
        container[field] = value.clone();
    }
    pod_with(json!({"containers": [container]}))
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn deployment_with(spec: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template()},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

fn job_with(spec: Value) -> Value {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    let mut object = json!({"metadata": {"name": "j"}, "spec": {"template": template}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

#[test]
fn metadata_is_checked_for_every_kind() {
    let map = |metadata: Value| json!({"metadata": metadata});
    check(
        "v1",
        "ConfigMap",
        map(json!({})),
        &["metadata.name: Required value: name or generateName is required"],
    );
    check("v1", "ConfigMap", map(json!({"name": "Bad_Name"})), &[
        "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
         characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .replace("\\\\", "\\")
            .as_str(),
    ]);
    check(
        "v1",
        "Namespace",
        map(json!({"name": "a.b"})),
        &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
    );
    check(
        "v1",
        "ConfigMap",
        map(json!({"name": "x", "labels": {"a": "-"}})),
        &[
            "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, \
         '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
         regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    let big = "x".repeat(256 * 1024);
    check(
        "v1",
        "ConfigMap",
        map(json!({"name": "x", "annotations": {"a": big}})),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""});
    check(
        "v1",
        "ConfigMap",
        map(json!({"name": "x", "ownerReferences": [owner]})),
        &["metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty"],
    );
    check(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        map(json!({"name": "system:a/b"})),
        &["metadata.name: Invalid value: \"system:a/b\": may not contain '/'"],
    );
}

#[test]
fn what_identifies_an_object_stays() {
    let old = || json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
    check_update("v1", "ConfigMap", old(), |new| new["metadata"]["labels"] = json!({}), &[]);
    check_update(
        "v1",
        "ConfigMap",
        old(),
        |new| new["metadata"]["uid"] = json!("u-2"),
        &["metadata.uid: Invalid value: \"u-2\": field is immutable"],
    );
}

#[test]
fn services_are_checked() {
    let service = |spec: Value| json!({"metadata": {"name": "web"}, "spec": spec});
    check("v1", "Service", service(json!({})), &["spec.ports: Required value"]);
    check(
        "v1",
        "Service",
        service(json!({"ports": [{"port": 80}, {"port": 81}]})),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    check(
        "v1",
        "Service",
        service(json!({"ports": [{"port": 80}], "type": "Magic"})),
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(
        "v1",
        "Service",
        service(json!({"ports": [{"port": 80, "nodePort": 30000}]})),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        "v1",
        "Service",
        service(json!({"type": "ExternalName", "externalName": "example.com"})),
        &[],
    );
    let old = || service(json!({"ports": [{"port": 80}], "clusterIP": "127.1.0.5"}));
    check_update(
        "v1",
        "Service",
        old(),
        |new| {
            new["spec"]["clusterIP"] = json!("127.1.0.6");
            new["spec"]["clusterIPs"] = json!(["127.1.0.6"]);
        },
        &["spec.clusterIPs[0]: Invalid value: [\"127.1.0.6\"]: may not change once set"],
    );
    // What the server chose may be left out.
    check_update("v1", "Service", old(), |new| new["spec"] = json!({"ports": [{"port": 81}]}), &[]);
}

#[test]
fn configuration_is_checked() {
    check(
        "v1",
        "ConfigMap",
        json!({"metadata": {"name": "c"}, "data": {"a b": "x"}}),
        &[
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
         'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check(
        "v1",
        "ConfigMap",
        json!({"metadata": {"name": "c"}, "data": {"a": "x".repeat(1024 * 1024 + 1)}}),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    check_update(
        "v1",
        "ConfigMap",
        json!({"metadata": {"name": "c"}, "data": {"a": "x"}, "immutable": true}),
        |new| new["data"]["a"] = json!("y"),
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    check(
        "v1",
        "Secret",
        json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"}),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    let (secret, _) =
        create("v1", "Secret", json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}));
    assert_eq!(secret["data"], json!({"a": "Yg=="}));
    assert_eq!(secret["type"], "Opaque");
    assert!(secret.get("stringData").is_none());
}

#[test]
fn roles_and_bindings_are_checked() {
    let group = "rbac.authorization.k8s.io/v1";
    check(
        group,
        "Role",
        json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"]}]}),
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    let binding = || {
        json!({
            "metadata": {"name": "b"},
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "jane"}],
        })
    };
    check(group, "RoleBinding", binding(), &[]);
    // An account without a namespace is that of the binding's, if the binding has one.
    let local = |role: &str| {
        json!({
            "metadata": {"name": "b"},
            "roleRef": {"kind": role, "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "bot"}],
        })
    };
    check(group, "RoleBinding", local("Role"), &[]);
    let missing = ["subjects[0].namespace: Required value"];
    check(group, "ClusterRoleBinding", local("ClusterRole"), &missing);
    check_update(
        group,
        "RoleBinding",
        binding(),
        |new| new["roleRef"]["name"] = json!("other"),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"other\"}: cannot change roleRef",
        ],
    );
}

#[test]
fn the_rest_is_checked() {
    check(
        "policy/v1",
        "PodDisruptionBudget",
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "101%"}}),
        &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
    );
    let target = json!({"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"});
    check(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        json!({"metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "minReplicas": 5, "maxReplicas": 2}}),
        &["spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"],
    );
    check(
        "scheduling.k8s.io/v1",
        "PriorityClass",
        json!({"metadata": {"name": "p"}, "value": 2_000_000_000}),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    check(
        "v1",
        "PersistentVolumeClaim",
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"]}}),
        &["spec.resources[storage]: Required value"],
    );
    check(
        "networking.k8s.io/v1",
        "Ingress",
        json!({"metadata": {"name": "i"}, "spec": {}}),
        &["spec: Invalid value: \"null\": either `defaultBackend` or `rules` must be specified"],
    );
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": ["x"]}]});
    check(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        slice,
        &["endpoints[0].addresses[0]: Invalid value: \"x\": must be a valid IPv4 address"],
    );
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.2.0.9"]}]});
    check("discovery.k8s.io/v1", "EndpointSlice", slice, &[]);
}

#[test]
fn namespaces_are_labelled_and_held_back() {
    let (namespace, errors) =
        create("v1", "Namespace", json!({"metadata": {"name": "n"}, "status": {"phase": "Gone"}}));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n"}));
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["status"], json!({"phase": "Active"}));
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let rules = for_kind(kind("apps/v1", "Deployment"));
    let old = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let mut new = json!({"metadata": {"labels": {"c": "d"}}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
    (rules.prepare_status_update)(&mut new, &old);
    assert_eq!(
        new,
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"replicas": 2}})
    );
    let mut new =
        json!({"metadata": {}, "spec": {"replicas": 2, "template": {}}, "status": {"replicas": 2}});
    (rules.prepare_update)(&mut new, &old);
    assert_eq!(new["status"], json!({"replicas": 1}));
    assert!(changes_generation(kind("apps/v1", "Deployment"), &new, &old));
    assert!(!changes_generation(kind("v1", "ConfigMap"), &new, &old));
}

#[test]
fn a_services_node_ports_are_kept_and_dropped() {
    let old = json!({"spec": {"type": "NodePort", "clusterIP": "127.1.0.5", "clusterIPs": ["127.1.0.5"], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}, "status": {}});
    let rules = for_kind(kind("v1", "Service"));
    let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    (rules.prepare_update)(&mut new, &old);
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    assert_eq!(new["spec"]["clusterIP"], "127.1.0.5");
    let mut new = old.clone();
    new["spec"]["type"] = json!("ClusterIP");
    (rules.prepare_update)(&mut new, &old);
    assert!(new["spec"]["ports"][0].get("nodePort").is_none());
    assert!(new["spec"].get("externalTrafficPolicy").is_none());
}

#[test]
fn every_kind_takes_an_empty_object() {
    for kind in kinds::all() {
        let rules = for_kind(kind);
        let mut object = json!({});
        (rules.default)(&mut object);
        (rules.prepare_create)(&mut object);
        (rules.prepare_update)(&mut object, &json!({}));
        (rules.prepare_status_update)(&mut object, &json!({}));
        let mut errors = FieldErrors::new();
        metadata::validate(kind, &object, &mut errors);
        (rules.validate)(&object, &mut errors);
        (rules.validate_update)(&object, &json!({}), &mut errors);
        assert!(!errors.is_empty(), "{} has no name", kind.kind);
        let _ = (rules.fields)(&Value::Null);
    }
}
