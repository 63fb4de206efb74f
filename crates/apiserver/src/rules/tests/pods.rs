//! What is filled in and refused of pods and their containers.

use super::*;

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
fn mounts_and_devices_of_volumes_are_checked() {
    let with = |container: Value| {
        let mut pod = container_with(container);
        pod["spec"]["volumes"] = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }, { "name": "e", "emptyDir": {} }]);
        pod
    };
    let check = |container: Value, want: &[&str]| check("v1", "Pod", with(container), want);
    check(json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }] }), &[]);
    check(
        json!({ "volumeDevices": [{ "name": "e", "devicePath": "/dev/../x" }] }),
        &[
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"e\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/dev/../x\": must not contain '..'",
        ],
    );
    check(
        json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }], "volumeDevices": [{ "name": "v", "devicePath": "/v" }] }),
        &[
            "spec.containers[0].volumeMounts[0].name: Invalid value: \"v\": must not already exist in volumeDevices",
            "spec.containers[0].volumeMounts[0].mountPath: Invalid value: \"/v\": must not already exist as a path in volumeDevices",
        ],
    );
    check(
        json!({ "volumeMounts": [{ "name": "e", "mountPath": "/v", "mountPropagation": "Bidirectional", "recursiveReadOnly": "Enabled" }] }),
        &[
            "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            "spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            "spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
        ],
    );
}

#[test]
fn what_a_pod_shares_with_its_host_is_checked() {
    let check = |spec: Value, want: &[&str]| check("v1", "Pod", pod_with(spec), want);
    check(
        json!({ "hostUsers": false, "hostPID": true }),
        &["spec.hostUsers: Forbidden: when `hostUsers` is false, `HostPID` must be unset or false"],
    );
    check(
        json!({ "hostnameOverride": "a.b", "setHostnameAsFQDN": true }),
        &["spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true"],
    );
    check(
        json!({ "os": { "name": "windows" }, "securityContext": { "runAsUser": 1 } }),
        &["spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod"],
    );
    check(
        json!({ "os": { "name": "linux" }, "securityContext": { "windowsOptions": {} } }),
        &[
            "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
        ],
    );
    check(
        json!({ "securityContext": { "appArmorProfile": { "type": "Localhost" } } }),
        &[
            "spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
        ],
    );
}

#[test]
fn claims_and_resources_of_pods_are_checked() {
    let claims = json!([{ "name": "gpu", "resourceClaimName": "g" }, { "name": "gpu" }]);
    check(
        "v1",
        "Pod",
        pod_with(json!({ "resourceClaims": claims })),
        &[
            "spec.resourceClaims[1].name: Duplicate value: \"gpu\"",
            "spec.resourceClaims[1]: Invalid value: {\"name\":\"gpu\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        ],
    );
    let used = json!({ "resources": { "claims": [{ "name": "none" }] } });
    check(
        "v1",
        "Pod",
        container_with(used),
        &["spec.containers[0].resources.claims[0]: Not found: \"none\""],
    );
    let resize =
        json!({ "resizePolicy": [{ "resourceName": "disk", "restartPolicy": "NotRequired" }] });
    check(
        "v1",
        "Pod",
        container_with(resize),
        &[
            "spec.containers[0].resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"",
        ],
    );
    let mut together = container_with(json!({ "resources": { "requests": { "cpu": "2" } } }));
    together["spec"]["resources"] = json!({ "requests": { "cpu": "1" } });
    check(
        "v1",
        "Pod",
        together,
        &[
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
        ],
    );
}

#[test]
fn keys_of_labels_need_a_selector() {
    let constraint = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a b"] });
    let (_, errors) =
        create("v1", "Pod", pod_with(json!({ "topologySpreadConstraints": [constraint] })));
    let at = "spec.topologySpreadConstraints[0].matchLabelKeys";
    assert_eq!(
        errors[0],
        format!("{at}: Forbidden: must not be specified when labelSelector is not set")
    );
    assert!(
        errors[1]
            .starts_with(&format!("{at}[0]: Invalid value: \"a b\": name part must consist of")),
        "{errors:?}"
    );
}
