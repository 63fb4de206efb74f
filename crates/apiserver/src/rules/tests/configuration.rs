//! What is refused of the kinds that are not pods and do not make them.

use super::*;

fn named(name: &str, fields: Value) -> Value {
    let mut object = fields;
    object["metadata"]["name"] = json!(name);
    object
}

#[test]
fn drivers_of_volumes_are_checked() {
    let driver = |spec: Value| named("d.example.com", json!({ "spec": spec }));
    let check =
        |object: Value, want: &[&str]| check("storage.k8s.io/v1", "CSIDriver", object, want);
    check(driver(json!({ "tokenRequests": [{ "audience": "a" }] })), &[]);
    check(
        driver(json!({ "fsGroupPolicy": "Some" })),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
        ],
    );
    check(
        driver(
            json!({ "tokenRequests": [{ "audience": "a" }, { "audience": "a", "expirationSeconds": 1 }] }),
        ),
        &[
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.tokenRequests[1].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
        ],
    );
    check_update(
        "storage.k8s.io/v1",
        "CSIDriver",
        driver(json!({})),
        |driver| driver["spec"]["attachRequired"] = json!(false),
        &["spec.attachedRequired: Invalid value: false: field is immutable"],
    );
}

#[test]
fn what_nodes_have_of_drivers_is_checked() {
    let node = |drivers: Value| named("n", json!({ "spec": { "drivers": drivers } }));
    let good =
        json!([{ "name": "d.example.com", "nodeID": "n", "topologyKeys": ["example.com/zone"] }]);
    check("storage.k8s.io/v1", "CSINode", node(good.clone()), &[]);
    let bad = json!([{ "name": "d", "nodeID": "" }, { "name": "d", "nodeID": "n", "topologyKeys": ["a", "a"] }]);
    check(
        "storage.k8s.io/v1",
        "CSINode",
        node(bad),
        &[
            "spec.drivers[0].nodeID: Required value",
            "spec.drivers[1]: Duplicate value: \"a\"",
            "spec.drivers[1].name: Duplicate value: \"d\"",
        ],
    );
    let update = |change: fn(&mut Value), want: &[&str]| {
        check_update("storage.k8s.io/v1", "CSINode", node(good.clone()), change, want);
    };
    update(|node| node["spec"]["drivers"] = json!([]), &[]);
    update(
        |node| node["spec"]["drivers"][0]["nodeID"] = json!("m"),
        &[
            "CSINodeDriver: Invalid value: {\"name\":\"d.example.com\",\"nodeID\":\"m\",\"topologyKeys\":[\"example.com/zone\"]}: field is immutable",
        ],
    );
}

#[test]
fn attachments_and_capacities_are_checked() {
    let attachment = |source: Value| {
        named("a", json!({ "spec": { "attacher": "d", "nodeName": "n", "source": source } }))
    };
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let none = format!("spec.source: Required value: {one}");
    let check_one = |object: Value, want: &[&str]| {
        check("storage.k8s.io/v1", "VolumeAttachment", object, want);
    };
    check_one(attachment(json!({ "persistentVolumeName": "p" })), &[]);
    check_one(attachment(json!({})), &[&none]);
    check_update(
        "storage.k8s.io/v1",
        "VolumeAttachment",
        attachment(json!({ "persistentVolumeName": "p" })),
        |attachment| attachment["spec"]["nodeName"] = json!("m"),
        &[
            "spec: Invalid value: {\"attacher\":\"d\",\"nodeName\":\"m\",\"source\":{\"persistentVolumeName\":\"p\"}}: field is immutable",
        ],
    );
    let capacity =
        |storage: &str| named("c", json!({ "storageClassName": "s", "capacity": storage }));
    check("storage.k8s.io/v1", "CSIStorageCapacity", capacity("1Gi"), &[]);
    check(
        "storage.k8s.io/v1",
        "CSIStorageCapacity",
        capacity("-1"),
        &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
}

#[test]
fn classes_of_volumes_are_checked() {
    let term = json!({ "matchLabelExpressions": [{ "key": "zone", "values": ["a", "a"] }, { "key": "zone", "values": [] }] });
    let class = named("s", json!({ "provisioner": "p", "allowedTopologies": [term] }));
    check(
        "storage.k8s.io/v1",
        "StorageClass",
        class,
        &[
            "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
            "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"zone\"",
        ],
    );
    let attributes = |fields: Value| named("v", fields);
    let empty = "parameters: Required value: must contain at least one attribute/value pair";
    check(
        "storage.k8s.io/v1",
        "VolumeAttributesClass",
        attributes(json!({ "driverName": "d" })),
        &[empty],
    );
    check_update(
        "storage.k8s.io/v1",
        "VolumeAttributesClass",
        attributes(json!({ "driverName": "d", "parameters": { "iops": "1" } })),
        |class| class["parameters"]["iops"] = json!("2"),
        &["parameters: Forbidden: updates to parameters are forbidden."],
    );
}

#[test]
fn claims_of_devices_are_filled_in_and_checked() {
    let claim =
        |request: Value| named("c", json!({ "spec": { "devices": { "requests": [request] } } }));
    let asked = json!({ "name": "r", "exactly": { "deviceClassName": "gpu" } });
    let (stored, errors) = create("resource.k8s.io/v1", "ResourceClaim", claim(asked.clone()));
    assert_eq!(errors, Vec::<String>::new());
    let exactly = &stored["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!((&exactly["allocationMode"], &exactly["count"]), (&json!("ExactCount"), &json!(1)));
    let check = |request: Value, want: &[&str]| {
        check("resource.k8s.io/v1", "ResourceClaim", claim(request), want);
    };
    check(
        json!({ "name": "r" }),
        &[
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ],
    );
    check(
        json!({ "name": "r", "exactly": { "deviceClassName": "gpu", "allocationMode": "All", "count": 2 } }),
        &[
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
        ],
    );
    let change = |claim: &mut Value| claim["spec"]["devices"]["requests"] = json!([]);
    check_update(
        "resource.k8s.io/v1",
        "ResourceClaim",
        claim(asked),
        change,
        &["spec: Invalid value: {\"devices\":{\"requests\":[]}}: field is immutable"],
    );
}

#[test]
fn slices_of_devices_are_checked() {
    let slice = |spec: Value| {
        let mut all = json!({ "driver": "d.example.com", "pool": { "name": "p", "generation": 1, "resourceSliceCount": 1 } });
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        named("s", json!({ "spec": all }))
    };
    let check = |spec: Value, want: &[&str]| {
        check("resource.k8s.io/v1", "ResourceSlice", slice(spec), want);
    };
    check(json!({ "nodeName": "n", "devices": [{ "name": "a" }] }), &[]);
    check(
        json!({}),
        &[
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        ],
    );
    check(
        json!({ "allNodes": true, "devices": [{ "name": "a" }, { "name": "a", "taints": [{ "key": "k", "effect": "Some" }] }] }),
        &[
            "spec.devices[1].name: Duplicate value: \"a\"",
            "spec.devices[1].taints[0].effect: Unsupported value: \"Some\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
        ],
    );
}

#[test]
fn flows_and_levels_are_checked() {
    let flow = |rules: Value| {
        named(
            "f",
            json!({ "spec": { "priorityLevelConfiguration": { "name": "l" }, "rules": rules } }),
        )
    };
    let check_flow = |rules: Value, want: &[&str]| {
        check("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", flow(rules), want);
    };
    let first = named(
        "f",
        json!({ "spec": { "matchingPrecedence": 1, "priorityLevelConfiguration": { "name": "l" } } }),
    );
    check(
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema",
        first,
        &[
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
        ],
    );
    let everybody = json!([{ "kind": "Group", "group": { "name": "*" } }]);
    let rule = |namespaces: Value| {
        json!([{ "subjects": everybody, "resourceRules": [
            { "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": namespaces }] }])
    };
    check_flow(rule(json!(["*"])), &[]);
    check_flow(
        rule(json!([])),
        &[
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
        ],
    );
    check_flow(
        json!([{ "subjects": [{ "kind": "User", "group": { "name": "g" } }] }]),
        &[
            "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
            "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ],
    );
    let check_level = |name: &str, spec: Value, want: &[&str]| {
        let level = named(name, json!({ "spec": spec }));
        check("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", level, want);
    };
    check_level(
        "l",
        json!({ "type": "Limited", "limited": { "limitResponse": { "type": "Reject" } } }),
        &[],
    );
    check_level("exempt", json!({ "type": "Exempt" }), &[]);
    check_level(
        "l",
        json!({ "type": "Exempt" }),
        &[
            "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
        ],
    );
    let queue = json!({ "type": "Limited", "limited": { "lendablePercent": 101, "limitResponse": { "type": "Queue", "queuing": { "queues": 4, "handSize": 5 } } } });
    check_level(
        "l",
        queue,
        &[
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)",
        ],
    );
}

#[test]
fn metrics_of_autoscalers_are_checked() {
    let scaler = |metric: Value| {
        named(
            "h",
            json!({ "spec": { "maxReplicas": 2, "metrics": [metric],
            "scaleTargetRef": { "kind": "Deployment", "name": "d" } } }),
        )
    };
    let check = |metric: Value, want: &[&str]| {
        check("autoscaling/v2", "HorizontalPodAutoscaler", scaler(metric), want);
    };
    check(
        json!({ "type": "Pods", "pods": { "metric": { "name": "m" }, "target": { "type": "AverageValue", "averageValue": "1" } } }),
        &[],
    );
    check(
        json!({ "type": "Pods" }),
        &[
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
        ],
    );
    check(
        json!({ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Value", "averageValue": "0", "averageUtilization": 5 } } }),
        &[
            "spec.metrics[0].resource.target.averageValue: Invalid value: \"0\": must be positive",
            "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
        ],
    );
    check(
        json!({ "type": "External", "external": { "metric": {}, "target": { "type": "Value" } } }),
        &[
            "spec.metrics[0].external.metric.name: Required value: must specify a metric name",
            "spec.metrics[0].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target",
        ],
    );
}

#[test]
fn scopes_of_quotas_are_checked() {
    let quota = |spec: Value| named("q", json!({ "spec": spec }));
    let check = |spec: Value, want: &[&str]| check("v1", "ResourceQuota", quota(spec), want);
    check(json!({ "hard": { "pods": "1", "cpu": "1" }, "scopes": ["NotTerminating"] }), &[]);
    check(
        json!({ "hard": { "services": "1" }, "scopes": ["Terminating"] }),
        &["spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource"],
    );
    check(
        json!({ "hard": { "pods": "1" }, "scopes": ["BestEffort", "NotBestEffort"] }),
        &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
    );
    let select = |operator: &str| json!({ "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass", "operator": operator }] } });
    check(select("Exists"), &[]);
    check(
        select("In"),
        &[
            "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        ],
    );
}

#[test]
fn ingresses_name_one_class() {
    let ingress = |annotation: &str| {
        let mut ingress = named(
            "i",
            json!({ "spec": { "ingressClassName": "a", "tls": [{ "secretName": "A" }],
            "defaultBackend": { "service": { "name": "s", "port": { "number": 80 } } } } }),
        );
        ingress["metadata"]["annotations"] = json!({ "kubernetes.io/ingress.class": annotation });
        ingress
    };
    let (_, errors) = create("networking.k8s.io/v1", "Ingress", ingress("b"));
    assert!(
        errors[0].starts_with("spec.tls[0].secretName: Invalid value: \"A\": a lowercase RFC 1123")
    );
    assert_eq!(
        errors[1..],
        [
            "annotations.kubernetes.io/ingress.class: Invalid value: \"b\": must match `ingressClassName` when both are specified"
        ]
    );
    let class = |parameters: Value| {
        named("c", json!({ "spec": { "controller": "example.com/c", "parameters": parameters } }))
    };
    let check = |parameters: Value, want: &[&str]| {
        check("networking.k8s.io/v1", "IngressClass", class(parameters), want);
    };
    check(json!({ "kind": "K", "name": "n" }), &[]);
    check(
        json!({ "kind": "K", "name": "n", "scope": "Namespace" }),
        &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
    );
    check(
        json!({ "name": "n", "namespace": "x" }),
        &[
            "spec.parameters.kind: Required value: kind is required",
            "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
        ],
    );
}

#[test]
fn bundles_are_named_after_their_signer() {
    let pem = |inside: &str| {
        format!("-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n")
    };
    let bundle = |name: &str, signer: &str, text: &str| {
        named(name, json!({ "spec": { "signerName": signer, "trustBundle": text } }))
    };
    let check = |object: Value, want: &[&str]| {
        check("certificates.k8s.io/v1", "ClusterTrustBundle", object, want);
    };
    check(bundle("example.com:foo:a", "example.com/foo", &pem("YQ==")), &[]);
    check(
        bundle("a", "example.com/foo", &pem("YQ==")),
        &[
            "metadata.name: Invalid value: \"a\": ClusterTrustBundle for signerName example.com/foo must be named with prefix example.com:foo:",
        ],
    );
    check(
        bundle("a", "", ""),
        &[
            "spec.trustBundle: Invalid value: \"<value omitted>\": at least one trust anchor must be provided",
        ],
    );
    let twice = format!("{0}{0}", pem("YQ=="));
    check(
        bundle("a", "", &twice),
        &["spec.trustBundle: Invalid value: \"<value omitted>\": duplicate trust anchor"],
    );
}

#[test]
fn migrations_are_of_something_and_stay_so() {
    let migration = |resource: Value| named("m", json!({ "spec": { "resource": resource } }));
    let kind = ("storagemigration.k8s.io/v1", "StorageVersionMigration");
    check(kind.0, kind.1, migration(json!({ "resource": "secrets" })), &[]);
    check(kind.0, kind.1, migration(json!({})), &["spec.resource.resource: Required value"]);
    let change = |migration: &mut Value| migration["spec"]["resource"]["resource"] = json!("pods");
    check_update(
        kind.0,
        kind.1,
        migration(json!({ "resource": "secrets" })),
        change,
        &["spec: Invalid value: {\"resource\":{\"resource\":\"pods\"}}: field is immutable"],
    );
}

#[test]
fn limits_are_checked() {
    let range = |item: Value| named("l", json!({ "spec": { "limits": [item] } }));
    let check = |item: Value, want: &[&str]| check("v1", "LimitRange", range(item), want);
    check(json!({ "type": "PersistentVolumeClaim", "max": { "storage": "1Gi" } }), &[]);
    check(
        json!({ "type": "PersistentVolumeClaim" }),
        &[
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ],
    );
    check(
        json!({ "type": "Pod", "maxLimitRequestRatio": { "cpu": "500m" } }),
        &[
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
        ],
    );
}

#[test]
fn balancers_of_services_are_checked() {
    let service = |spec: Value| {
        let mut all = json!({ "ports": [{ "port": 80 }] });
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        named("s", json!({ "spec": all }))
    };
    let check = |spec: Value, want: &[&str]| check("v1", "Service", service(spec), want);
    check(
        json!({ "healthCheckNodePort": 30000 }),
        &[
            "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ],
    );
    check(
        json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8", "10"] }),
        &[
            "spec.LoadBalancerSourceRanges[1]: Invalid value: \"10\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    check(
        json!({ "trafficDistribution": "Far" }),
        &[
            "spec.trafficDistribution: Unsupported value: \"Far\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
        ],
    );
    let balanced = json!({ "type": "LoadBalancer", "loadBalancerClass": "a" });
    let change = |service: &mut Value| service["spec"]["loadBalancerClass"] = json!("b");
    check_update(
        "v1",
        "Service",
        service(balanced),
        change,
        &["spec.loadBalancerClass: Invalid value: \"b\": may not change once set"],
    );
}

#[test]
fn sources_of_claims_are_checked() {
    let claim = |source: Value| {
        named(
            "c",
            json!({ "spec": { "accessModes": ["ReadWriteOnce"], "dataSourceRef": source,
            "resources": { "requests": { "storage": "1Gi" } } } }),
        )
    };
    let (_, errors) =
        create("v1", "PersistentVolumeClaim", claim(json!({ "kind": "Pod", "name": "p" })));
    let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
    assert_eq!(
        errors,
        [
            format!("spec.dataSource: Invalid value: \"Pod\": {why}"),
            format!("spec.dataSourceRef: Invalid value: \"Pod\": {why}"),
        ]
    );
    let snapshot =
        json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s" });
    assert_eq!(create("v1", "PersistentVolumeClaim", claim(snapshot)).1, Vec::<String>::new());
}

#[test]
fn volumes_say_where_they_are() {
    let volume = |spec: Value| {
        let mut all = json!({ "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" } });
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        named("v", json!({ "spec": all }))
    };
    let check = |spec: Value, want: &[&str]| check("v1", "PersistentVolume", volume(spec), want);
    check(json!({ "csi": { "driver": "d.example.com", "volumeHandle": "h" } }), &[]);
    check(
        json!({ "csi": { "driver": "" } }),
        &["spec.csi.driver: Required value", "spec.csi.volumeHandle: Required value"],
    );
    check(
        json!({ "local": { "path": "/a/../b" } }),
        &[
            "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ],
    );
    check(
        json!({ "iscsi": { "targetPortal": "p", "lun": 256 } }),
        &[
            "spec.iscsi.iqn: Required value",
            "spec.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
        ],
    );
}

#[test]
fn hints_of_endpoints_are_checked() {
    let slice = |hints: Value| {
        named(
            "s",
            json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"], "hints": hints }] }),
        )
    };
    let check = |hints: Value, want: &[&str]| {
        check("discovery.k8s.io/v1", "EndpointSlice", slice(hints), want);
    };
    check(json!({ "forZones": [{ "name": "a" }, { "name": "b" }] }), &[]);
    check(
        json!({ "forZones": [{ "name": "a" }, { "name": "a" }] }),
        &["endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""],
    );
}
