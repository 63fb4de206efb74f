//! Tables of cases: what is filled in, what is refused and in which words.

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
fn a_pod_gets_upstreams_defaults() {
    let container = json!({
        "name": "c",
        "image": "web",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1"}},
        "readinessProbe": {"httpGet": {"port": 80}},
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    });
    let spec = json!({"containers": [container], "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}]});
    let (pod, errors) = create("v1", "Pod", pod_with(spec));
    assert_eq!(errors, Vec::<String>::new());
    insta::assert_json_snapshot!("pod_defaults", pod);
}

#[test]
fn workloads_get_upstreams_defaults() {
    let (deployment, _) = create("apps/v1", "Deployment", deployment_with(json!({})));
    insta::assert_json_snapshot!("deployment_defaults", deployment);
    let (job, errors) = create("batch/v1", "Job", job_with(json!({})));
    assert_eq!(errors, Vec::<String>::new());
    insta::assert_json_snapshot!("job_defaults", job);
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}});
    let (service, errors) = create("v1", "Service", service);
    assert_eq!(errors, Vec::<String>::new());
    insta::assert_json_snapshot!("service_defaults", service);
}

#[test]
fn an_image_without_tag_is_always_pulled() {
    for (image, want) in [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("web:1", "IfNotPresent"),
        ("host:5000/web", "Always"),
        ("host:5000/web:1", "IfNotPresent"),
        ("web@sha256:00", "IfNotPresent"),
    ] {
        let (pod, _) = create("v1", "Pod", container_with(json!({"image": image})));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], want, "{image}");
    }
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class = |resources: Value| {
        let (pod, _) = create("v1", "Pod", container_with(json!({"resources": resources})));
        pod["status"]["qosClass"].clone()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}})),
        "Guaranteed"
    );
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})),
        "Burstable"
    );
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
fn containers_are_checked() {
    check("v1", "Pod", pod_with(json!({"containers": []})), &["spec.containers: Required value"]);
    check(
        "v1",
        "Pod",
        container_with(json!({"image": ""})),
        &["spec.containers[0].image: Required value"],
    );
    let twice = json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]);
    check(
        "v1",
        "Pod",
        pod_with(json!({"containers": twice})),
        &["spec.containers[1].name: Duplicate value: \"c\""],
    );
    check(
        "v1",
        "Pod",
        container_with(json!({"ports": [{"containerPort": 70000}]})),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        "v1",
        "Pod",
        container_with(json!({"env": [{"name": "A", "valueFrom": {}}]})),
        &[
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, \
         `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ],
    );
    check(
        "v1",
        "Pod",
        container_with(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    );
}

#[test]
fn what_containers_need_is_checked() {
    check(
        "v1",
        "Pod",
        container_with(json!({"imagePullPolicy": "Sometimes"})),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
         \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        "v1",
        "Pod",
        container_with(json!({"livenessProbe": {"successThreshold": 2, "exec": {}}})),
        &[
            "spec.containers[0].livenessProbe.exec.command: Required value",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check(
        "v1",
        "Pod",
        container_with(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        "v1",
        "Pod",
        container_with(json!({"resources": {"requests": {"memory": "-1"}}})),
        &[
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
}

#[test]
fn pod_specs_are_checked() {
    check(
        "v1",
        "Pod",
        pod_with(json!({"restartPolicy": "Maybe"})),
        &[
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        "v1",
        "Pod",
        pod_with(
            json!({"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]}),
        ),
        &["spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        "v1",
        "Pod",
        pod_with(json!({"tolerations": [{"operator": "Equal"}]})),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \
         \"match all values and all keys\"",
        ],
    );
    check(
        "v1",
        "Pod",
        pod_with(json!({"activeDeadlineSeconds": 0})),
        &[
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ],
    );
    check(
        "v1",
        "Pod",
        pod_with(json!({"ephemeralContainers": [{"name": "e", "image": "i"}]})),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
    check(
        "v1",
        "Pod",
        pod_with(
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
        ),
        &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
    );
}

#[test]
fn a_pod_changes_in_few_ways() {
    let pod = || pod_with(json!({"activeDeadlineSeconds": 10}));
    check_update(
        "v1",
        "Pod",
        pod(),
        |new| new["spec"]["containers"][0]["image"] = json!("other"),
        &[],
    );
    check_update(
        "v1",
        "Pod",
        pod(),
        |new| new["spec"]["tolerations"] = json!([{"operator": "Exists"}]),
        &[],
    );
    check_update(
        "v1",
        "Pod",
        pod(),
        |new| new["spec"]["containers"][0]["command"] = json!(["x"]),
        &["spec: Forbidden: pod updates may not change fields other than \
         `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
         additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
         previously negative)"],
    );
    check_update(
        "v1",
        "Pod",
        pod(),
        |new| new["spec"]["activeDeadlineSeconds"] = json!(20),
        &[
            "spec.activeDeadlineSeconds: Invalid value: 20: must be less than or equal to previous value",
        ],
    );
    check_update("v1", "Pod", pod(), |new| new["status"] = json!({"phase": "Running"}), &[]);
}

#[test]
fn workloads_are_checked() {
    check(
        "apps/v1",
        "Deployment",
        deployment_with(json!({"replicas": -1})),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        "apps/v1",
        "Deployment",
        deployment_with(json!({"selector": {"matchLabels": {"app": "other"}}})),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        "apps/v1",
        "Deployment",
        deployment_with(json!({"selector": {}})),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    check(
        "apps/v1",
        "Deployment",
        deployment_with(
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}}),
        ),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ],
    );
    check(
        "apps/v1",
        "Deployment",
        deployment_with(json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}})),
        &[
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ],
    );
    let mut once = template();
    once["spec"]["restartPolicy"] = json!("Never");
    check(
        "apps/v1",
        "ReplicaSet",
        deployment_with(json!({"template": once})),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ],
    );
    check_update(
        "apps/v1",
        "Deployment",
        deployment_with(json!({})),
        |new| {
            new["spec"]["selector"]["matchLabels"]["tier"] = json!("x");
            new["spec"]["template"]["metadata"]["labels"]["tier"] = json!("x");
        },
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"tier\":\"x\"}}: field is immutable",
        ],
    );
    check_update(
        "apps/v1",
        "StatefulSet",
        deployment_with(json!({"serviceName": "a"})),
        |new| new["spec"]["serviceName"] = json!("b"),
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
}

#[test]
fn jobs_are_checked() {
    let mut forever = template();
    forever["spec"]["restartPolicy"] = json!("Always");
    check(
        "batch/v1",
        "Job",
        job_with(json!({"template": forever})),
        &[
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ],
    );
    check(
        "batch/v1",
        "Job",
        job_with(json!({"completionMode": "Indexed", "parallelism": 2})),
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    check_update(
        "batch/v1",
        "Job",
        job_with(json!({"completions": 2})),
        |new| new["spec"]["completions"] = json!(3),
        &["spec.completions: Invalid value: 3: field is immutable"],
    );
    check_update(
        "batch/v1",
        "Job",
        job_with(json!({})),
        |new| new["spec"]["parallelism"] = json!(3),
        &[],
    );
    check_update(
        "batch/v1",
        "Job",
        job_with(json!({"suspend": true})),
        |new| {
            new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        },
        &[],
    );
}

#[test]
fn schedules_are_checked() {
    let cron_job = |spec: Value| {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job_with(json!({}))["spec"]}}});
        for (field, value) in spec.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        object
    };
    for good in ["* * * * *", "*/5 0-6,12 1 jan-mar mon", "@hourly", "@every 1h30m", "0 0 ? * 6"] {
        check("batch/v1", "CronJob", cron_job(json!({"schedule": good})), &[]);
    }
    for (bad, why) in [
        ("x", "expected exactly 5 fields, found 1: [x]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        (
            "a * * * *",
            "failed to parse int from a: strconv.Atoi: parsing \\\"a\\\": invalid syntax",
        ),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("@never", "unrecognized descriptor: @never"),
    ] {
        let why = why.replace("\\\"", "\"");
        check(
            "batch/v1",
            "CronJob",
            cron_job(json!({"schedule": bad})),
            &[&format!("spec.schedule: Invalid value: \"{bad}\": {why}")],
        );
    }
    check(
        "batch/v1",
        "CronJob",
        cron_job(json!({"timeZone": "Mars/Base"})),
        &["spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"],
    );
    check("batch/v1", "CronJob", cron_job(json!({"timeZone": "Europe/Berlin"})), &[]);
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

#[test]
fn label_keys_become_part_of_selectors() {
    let constraint = json!({
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
        "matchLabelKeys": ["pod-template-hash", "absent"],
    });
    let mut pod = pod_with(json!({"topologySpreadConstraints": [constraint]}));
    pod["metadata"]["labels"] = json!({"app": "web", "pod-template-hash": "abc"});
    let (pod, errors) = create("v1", "Pod", pod);
    assert_eq!(errors, Vec::<String>::new());
    let selector = &pod["spec"]["topologySpreadConstraints"][0]["labelSelector"];
    let added = json!([{"key": "pod-template-hash", "operator": "In", "values": ["abc"]}]);
    assert_eq!(selector["matchExpressions"], added);
}

#[test]
fn a_job_may_have_its_name_generated_late() {
    let mut job = job_with(json!({}));
    job["metadata"] = json!({"generateName": "j-", "uid": "u-1", "namespace": "default"});
    let rules = for_kind(kind("batch/v1", "Job"));
    (rules.default)(&mut job);
    (rules.prepare_create)(&mut job);
    job["metadata"]["name"] = json!("j-abcde");
    let mut errors = FieldErrors::new();
    (rules.validate)(&job, &mut errors);
    assert_eq!(errors, FieldErrors::new());
    (rules.prepare_create)(&mut job);
    let label = &job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"];
    assert_eq!(label, "j-abcde");
}
