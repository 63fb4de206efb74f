//! What is refused of the states that controllers and kubelets report.

use super::*;

#[test]
fn counts_of_replicas_agree() {
    let check = |status: Value, want: &[&str]| {
        let object = deployment_with(json!({}));
        check_status("apps/v1", "Deployment", object, |new| new["status"] = status, want);
    };
    check(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1}), &[]);
    check(
        json!({"replicas": 1, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": -1}),
        &[
            "status.availableReplicas: Invalid value: -1: must be greater than or equal to 0",
            "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ],
    );
    check(
        json!({"replicas": 3, "readyReplicas": 1, "availableReplicas": 2}),
        &["status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"],
    );
    let mut set = deployment_with(json!({"serviceName": "s"}));
    set["metadata"]["name"] = json!("s");
    check_status(
        "apps/v1",
        "StatefulSet",
        set,
        |new| new["status"] = json!({"replicas": 3, "readyReplicas": 1, "availableReplicas": 2}),
        &[
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
        ],
    );
    check_status(
        "apps/v1",
        "DaemonSet",
        deployment_with(json!({})),
        |new| new["status"]["numberReady"] = json!(-1),
        &["status.numberReady: Invalid value: -1: must be greater than or equal to 0"],
    );
}

#[test]
fn a_count_of_collisions_only_grows() {
    let rules = for_kind(kind("apps/v1", "ReplicaSet"));
    let check = |count: Value, want: usize| {
        let old = json!({"status": {"replicas": 0, "collisionCount": 2}});
        let new = json!({"status": {"replicas": 0, "collisionCount": count}});
        let mut errors = FieldErrors::new();
        (rules.validate_status_update)(&new, &old, &mut errors);
        assert_eq!(errors.len(), want, "{errors}");
    };
    check(json!(3), 0);
    check(json!(1), 1);
}

#[test]
fn a_pod_that_ended_does_not_run_again() {
    let rules = for_kind(kind("v1", "Pod"));
    let state = |state: Value| json!([{"name": "c", "state": state}]);
    let check = |policy: &str, code: i64, want: &[&str]| {
        let old = json!({
            "spec": {"restartPolicy": policy},
            "status": {"qosClass": "Burstable", "containerStatuses": state(json!({"terminated": {"exitCode": code}}))},
        });
        let mut new = old.clone();
        new["status"]["containerStatuses"] = state(json!({"running": {}}));
        let mut errors = FieldErrors::new();
        (rules.validate_status_update)(&new, &old, &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, want, "{policy} {code}");
    };
    let refused = [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
    ];
    check("Always", 0, &[]);
    check("OnFailure", 1, &[]);
    check("OnFailure", 0, &refused);
    check("Never", 1, &refused);
}

#[test]
fn what_is_said_of_a_pod_is_well_formed() {
    let check = |change: &dyn Fn(&mut Value), want: &[&str]| {
        let change = |new: &mut Value| change(&mut new["status"]);
        check_status("v1", "Pod", pod_with(json!({})), change, want);
    };
    check(&|status| status["podIPs"] = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]), &[]);
    check(
        &|status| status["qosClass"] = json!("Guaranteed"),
        &["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"],
    );
    check(
        &|status| status["podIPs"] = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]),
        &[
            "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
        ],
    );
    check(
        &|status| status["resourceClaimStatuses"] = json!([{"name": "gpu"}]),
        &[
            "status.resourceClaimStatuses[0].name: Invalid value: \"gpu\": must match the name of an entry in `spec.resourceClaims`",
        ],
    );
}

#[test]
fn nodes_report_whole_resources_and_each_address_once() {
    let node = || json!({"metadata": {"name": "n"}});
    check_status(
        "v1",
        "Node",
        node(),
        |new| {
            new["status"] = json!({
                "capacity": {"example.com/gpu": "500m", "cpu": "-1"},
                "addresses": [{"type": "InternalIP", "address": "a"}, {"type": "InternalIP", "address": "a"}],
            });
        },
        &[
            "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "status.capacity.example.com/gpu: Invalid value: \"500m\": must be an integer",
            "status.allocatable.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "status.allocatable.example.com/gpu: Invalid value: \"500m\": must be an integer",
            "status.addresses[1]: Duplicate value: {\"address\":\"a\",\"type\":\"InternalIP\"}",
        ],
    );
}

#[test]
fn other_states_are_well_formed() {
    check_status(
        "v1",
        "Namespace",
        json!({"metadata": {"name": "n"}}),
        |new| new["status"]["phase"] = json!("Terminating"),
        &[
            "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty",
        ],
    );
    check_status(
        "policy/v1",
        "PodDisruptionBudget",
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}}),
        |new| {
            new["status"]["currentHealthy"] = json!(-1);
            new["status"]["conditions"] =
                json!([{"type": "a", "status": "x", "reason": "1", "message": ""}]);
        },
        &[
            "status.conditions[0].status: Unsupported value: \"x\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[0].lastTransitionTime: Required value: must be set",
            "status.conditions[0].reason: Invalid value: \"1\": a condition reason must start with alphabetic character, \
             optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric \
             character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or \
             'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
            "status.currentHealthy: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check_status(
        "v1",
        "ResourceQuota",
        json!({"metadata": {"name": "q"}}),
        |new| new["status"]["used"] = json!({"pods": "500m"}),
        &["status.used[pods]: Invalid value: \"500m\": must be an integer"],
    );
    check_status(
        "v1",
        "PersistentVolumeClaim",
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        |new| new["status"]["allocatedResourceStatuses"] = json!({"cpu": "Done"}),
        &[
            "status.allocatedResourceStatus: Unsupported value: \"cpu\": supported values: \"storage\"",
            "status.allocatedResourceStatus: Unsupported value: \"cpu\": supported values: \"ControllerResizeInProgress\", \
             \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"",
        ],
    );
    check_status(
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema",
        json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}}),
        |new| new["status"]["conditions"] = json!([{"type": "a"}, {"type": "a"}]),
        &["status.conditions[1].type: Duplicate value: \"a\""],
    );
}
