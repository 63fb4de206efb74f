//! What may not change, or be said, of nodes, volumes, Events, Jobs and flows.

use super::*;

#[test]
fn what_identifies_a_node_stays() {
    let node = |spec: Value| json!({"metadata": {"name": "n"}, "spec": spec});
    let check = |spec: Value, want: &[&str]| check("v1", "Node", node(spec), want);
    check(json!({"podCIDRs": ["10.0.0.0/24", "fd00::/64"]}), &[]);
    check(
        json!({"podCIDRs": ["x"]}),
        &[
            "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    check(
        json!({"podCIDRs": ["10.0.0.0/24", "10.0.0.0/24"]}),
        &[
            "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.0.0/24\"]: may specify no more than one CIDR for each IP family",
            "spec.podCIDRs[1]: Duplicate value: \"10.0.0.0/24\"",
        ],
    );
    let taint = json!({"key": "a", "effect": "NoSchedule"});
    check(
        json!({"taints": [taint, taint]}),
        &[
            "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
        ],
    );
    check_update(
        "v1",
        "Node",
        node(json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": "a"})),
        |new| {
            new["spec"] =
                json!({"podCIDRs": ["10.0.1.0/24"], "providerID": "b", "configSource": {}})
        },
        &[
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            "spec.configSource: Invalid value: {}: exactly one reference subfield must be non-nil",
        ],
    );
    check_update("v1", "Node", node(json!({})), |new| new["spec"]["providerID"] = json!("b"), &[]);
}

#[test]
fn a_claim_grows_when_it_is_bound_and_keeps_its_class() {
    let claim = || {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "volumeAttributesClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}}})
    };
    let fixed = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    let class = |new: &mut Value| new["spec"]["storageClassName"] = json!("slow");
    check_update("v1", "PersistentVolumeClaim", claim(), class, &[fixed]);
    let grow = |new: &mut Value| new["spec"]["resources"]["requests"]["storage"] = json!("3Gi");
    check_update("v1", "PersistentVolumeClaim", claim(), grow, &[fixed]);
    let bound = |change: &dyn Fn(&mut Value), want: &[&str]| {
        let rules = for_kind(kind("v1", "PersistentVolumeClaim"));
        let (mut old, _) = create("v1", "PersistentVolumeClaim", claim());
        old["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        let mut new = old.clone();
        change(&mut new["spec"]);
        let mut errors = FieldErrors::new();
        (rules.validate_update)(&new, &old, &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, want);
    };
    bound(&|spec| spec["resources"]["requests"]["storage"] = json!("3Gi"), &[]);
    bound(&|spec| spec["volumeAttributesClassName"] = json!("silver"), &[]);
    bound(
        &|spec| spec["resources"]["requests"]["storage"] = json!("1Gi"),
        &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
    );
    bound(
        &|spec| spec["volumeAttributesClassName"] = json!(""),
        &[
            "spec.volumeAttributesClassName: Forbidden: update from non-nil value to an empty string is forbidden",
        ],
    );
    let mut two = claim();
    two["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "a"});
    two["spec"]["dataSourceRef"] = json!({"kind": "PersistentVolumeClaim", "name": "b"});
    let want = ["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"];
    check("v1", "PersistentVolumeClaim", two, &want);
}

#[test]
fn a_volume_stays_where_it_is() {
    let volume = || {
        json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "csi": {"driver": "a.com", "volumeHandle": "h"}}})
    };
    let secret = json!({"name": "s", "namespace": "n"});
    let told = |new: &mut Value| new["spec"]["csi"]["controllerExpandSecretRef"] = secret.clone();
    check_update("v1", "PersistentVolume", volume(), told, &[]);
    check_update(
        "v1",
        "PersistentVolume",
        volume(),
        |new| {
            new["spec"]["csi"]["volumeHandle"] = json!("other");
            new["spec"]["volumeMode"] = json!("Block");
        },
        &[
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            "volumeMode: Invalid value: \"Block\": field is immutable",
        ],
    );
    let mut bad = volume();
    bad["spec"]["capacity"] = json!({"storage": "0", "cpu": "1"});
    bad["spec"]["accessModes"] = json!([]);
    bad["spec"]["csi"]["nodePublishSecretRef"] = json!({"name": "s"});
    bad["spec"]["volumeAttributesClassName"] = json!("");
    check(
        "v1",
        "PersistentVolume",
        bad,
        &[
            "spec.accessModes: Required value",
            "spec.capacity: Unsupported value: {\"cpu\":\"1\",\"storage\":\"0\"}: supported values: \"storage\"",
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            "spec.csi.nodePublishSecretRef.namespace: Required value",
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
        ],
    );
}

#[test]
fn an_event_says_who_says_it() {
    let event = |fields: Value| {
        let mut event =
            json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
        for (field, value) in fields.as_object().into_iter().flatten() {
            event[field] = value.clone();
        }
        event
    };
    let time = "2026-01-01T00:00:00.000000Z";
    check("v1", "Event", event(json!({})), &[]);
    check(
        "v1",
        "Event",
        event(json!({"involvedObject": {"namespace": "other"}})),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
    check(
        "v1",
        "Event",
        event(
            json!({"eventTime": time, "reportingComponent": "a.com/b", "reportingInstance": "i"}),
        ),
        &["action: Required value", "reason: Required value"],
    );
    check(
        "v1",
        "Event",
        event(json!({"eventTime": time, "reportingComponent": "a.com/b", "reportingInstance": "i",
            "action": "a".repeat(129), "reason": "r"})),
        &["action: Invalid value: \"\": can have at most 128 characters"],
    );
}

#[test]
fn an_event_of_the_new_group_is_of_the_new_kind() {
    let strictly = |new: Value, old: Option<Value>, want: &[&str]| {
        let mut errors = FieldErrors::new();
        event::validate_strictly(&new, old.as_ref(), &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, want);
    };
    let time = "2026-01-01T00:00:00.000000Z";
    strictly(json!({"eventTime": time, "type": "Normal"}), None, &[]);
    strictly(
        json!({"type": "Odd", "count": 1, "firstTimestamp": time, "source": {"host": "h"}, "series": {"count": 1}}),
        None,
        &[
            "series.count: Invalid value: \"\": should be at least 2",
            "series.lastObservedTime: Required value",
            "eventTime: Required value",
            "type: Invalid value: \"\": has invalid value: Odd",
            "firstTimestamp: Invalid value: \"\": needs to be unset",
            "count: Invalid value: \"\": needs to be unset",
            "source: Invalid value: \"\": needs to be unset",
        ],
    );
    let old = json!({"eventTime": time, "type": "Normal", "reason": "a"});
    let mut new = old.clone();
    new["series"] = json!({"count": 2, "lastObservedTime": time});
    strictly(new.clone(), Some(old.clone()), &[]);
    new["reason"] = json!("b");
    strictly(new, Some(old), &["reason: Invalid value: \"b\": field is immutable"]);
}

#[test]
fn policies_of_jobs_are_checked() {
    let check = |spec: Value, want: &[&str]| check("batch/v1", "Job", job_with(spec), want);
    let indexed = |policy: Value| json!({"completionMode": "Indexed", "completions": 5, "successPolicy": policy});
    let rule = |rule: Value| indexed(json!({"rules": [rule]}));
    let at = "spec.successPolicy.rules[0]";
    check(rule(json!({"succeededIndexes": "0,2-4", "succeededCount": 3})), &[]);
    check(
        indexed(json!({"rules": []})),
        &[
            "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified",
        ],
    );
    check(
        rule(json!({})),
        &[&format!(
            "{at}: Required value: at least one of succeededCount or succeededIndexes must be specified"
        )],
    );
    check(
        rule(json!({"succeededIndexes": "1,9"})),
        &[&format!(
            "{at}.succeededIndexes: Invalid value: \"1,9\": error parsing succeededIndexes: too large index: \"9\""
        )],
    );
    check(
        rule(json!({"succeededIndexes": "1-2", "succeededCount": 3})),
        &[&format!(
            "{at}.succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"
        )],
    );
    let failure = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
    let at = "spec.podFailurePolicy.rules[0]";
    check(
        failure(
            json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3, 1, 1, 0], "containerName": "x"}}),
        ),
        &[
            &format!(
                "{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"
            ),
            &format!(
                "{at}.onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template"
            ),
            &format!("{at}.onExitCodes.values[2]: Duplicate value: 1"),
            &format!(
                "{at}.onExitCodes.values[3]: Invalid value: 0: must not be 0 for the In operator"
            ),
            &format!("{at}.onExitCodes.values: Invalid value: [3,1,1,0]: must be ordered"),
        ],
    );
    check(
        json!({"managedBy": "nobody"}),
        &[
            "spec.managedBy: Invalid value: \"nobody\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ],
    );
}

#[test]
fn flows_are_described_in_full() {
    let group = "flowcontrol.apiserver.k8s.io/v1";
    let subject = json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}});
    let resource = json!({"verbs": ["get", "post"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["A"]});
    let url = json!({"verbs": ["*"], "nonResourceURLs": ["/a*"]});
    let rules =
        json!([{"subjects": [subject], "resourceRules": [resource], "nonResourceRules": [url]}]);
    let at = "spec.rules[0]";
    let (_, errors) = create(
        group,
        "FlowSchema",
        json!({"metadata": {"name": "f"}, "spec": {"matchingPrecedence": 20000, "rules": rules}}),
    );
    let starts = [
        "spec.matchingPrecedence: Invalid value: 20000: must not be greater than 10000".to_owned(),
        "spec.priorityLevelConfiguration.name: Required value: must reference a priority level"
            .to_owned(),
        format!(
            "{at}.subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account"
        ),
        format!(
            "{at}.resourceRules[0].verbs: Unsupported value: [\"get\",\"post\"]: supported values: \"create\""
        ),
        format!(
            "{at}.resourceRules[0].namespaces[0]: Invalid value: \"A\": each member of this list must be '*' or a DNS-1123 label; "
        ),
        format!(
            "{at}.nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do suffix matching"
        ),
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(&starts) {
        assert!(error.starts_with(start), "{error}");
    }
    let level = |queuing: Value| {
        json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {
            "limitResponse": {"type": "Queue", "queuing": queuing}}}})
    };
    check(group, "PriorityLevelConfiguration", level(json!({"queues": 64, "handSize": 8})), &[]);
    check(
        group,
        "PriorityLevelConfiguration",
        level(json!({"queues": 512, "handSize": 8})),
        &[
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
        ],
    );
    let mut fixed = crate::fairness::mandatory("PriorityLevelConfiguration")
        .into_iter()
        .find(|level| level["metadata"]["name"] == "catch-all")
        .unwrap();
    fixed["spec"]["limited"]["nominalConcurrencyShares"] = json!(7);
    let (_, errors) = create(group, "PriorityLevelConfiguration", fixed);
    assert!(errors[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{errors:?}");
}

#[test]
fn ranges_of_peers_and_limits_agree() {
    let peer = |block: Value| json!({"metadata": {"name": "p"}, "spec": {"ingress": [{"from": [{"ipBlock": block}]}]}});
    let check_peer = |block: Value, want: &[&str]| {
        check("networking.k8s.io/v1", "NetworkPolicy", peer(block), want);
    };
    check_peer(json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}), &[]);
    check_peer(json!({"cidr": "0.0.0.0/0", "except": ["10.1.0.0/16"]}), &[]);
    let refused = "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value";
    check_peer(
        json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}),
        &[&format!("{refused}: \"11.0.0.0/16\": must be a strict subset of `cidr`")],
    );
    check_peer(
        json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}),
        &[&format!("{refused}: \"10.0.0.0/8\": must be a strict subset of `cidr`")],
    );
    let range = |item: Value| {
        let mut item = item;
        item["type"] = json!("Container");
        json!({"metadata": {"name": "l"}, "spec": {"limits": [item]}})
    };
    check(
        "v1",
        "LimitRange",
        range(
            json!({"min": {"cpu": "2"}, "max": {"cpu": "4"}, "defaultRequest": {"cpu": "1"}, "default": {"cpu": "5"},
            "maxLimitRequestRatio": {"cpu": "3"}}),
        ),
        &[
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            "spec.limits[0].default[cpu]: Invalid value: \"4\": default value 5 is greater than max value 4",
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
        ],
    );
    let system = |value: i64| json!({"metadata": {"name": "system-node-critical"}, "value": value});
    check("scheduling.k8s.io/v1", "PriorityClass", system(2_000_001_000), &[]);
    check(
        "scheduling.k8s.io/v1",
        "PriorityClass",
        system(1),
        &[
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
        ],
    );
}
