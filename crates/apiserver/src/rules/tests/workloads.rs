//! What is filled in and refused of what makes pods.

use super::*;

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
    for kind in ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"] {
        check(
            "apps/v1",
            kind,
            deployment_with(json!({"selector": null, "replicas": null})),
            &[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ],
        );
    }
    let bare = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}});
    check("v1", "ReplicationController", bare, &["spec.template: Required value"]);
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
fn containers_of_a_stateful_set_may_mount_its_claims() {
    let mut mounting = template();
    mounting["metadata"] = json!({"labels": {"app": "web"}});
    mounting["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    let set = |claim: &str| {
        let claim = json!({"metadata": {"name": claim}, "spec": {}});
        deployment_with(json!({"template": mounting, "volumeClaimTemplates": [claim]}))
    };
    check("apps/v1", "StatefulSet", set("data"), &[]);
    let missing = "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"";
    check("apps/v1", "StatefulSet", set("other"), &[missing]);
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
    let long = format!("{}-{}", "j".repeat(61), 10);
    let mut named = job_with(json!({"completionMode": "Indexed", "completions": 11}));
    named["metadata"]["name"] = json!("j".repeat(61));
    check(
        "batch/v1",
        "Job",
        named,
        &[&format!(
            "metadata.name: Invalid value: \"{}\": will not able to create pod with invalid DNS hostname: {long}",
            "j".repeat(61)
        )],
    );
}

#[test]
fn where_and_with_how_much_a_suspended_job_runs_may_change() {
    let check = |change: fn(&mut Value), allowed: bool| {
        let (mut old, errors) = create("batch/v1", "Job", job_with(json!({"suspend": true})));
        assert_eq!(errors, Vec::<String>::new());
        for (field, suspended) in [("suspend", true), ("suspend", false)] {
            old["spec"][field] = json!(suspended);
            let mut new = old.clone();
            change(&mut new["spec"]["template"]["spec"]);
            let mut errors = FieldErrors::new();
            (for_kind(kind("batch/v1", "Job")).validate_update)(&new, &old, &mut errors);
            let refused =
                errors.iter().any(|error| error.to_string().contains("field is immutable"));
            assert_eq!(!refused, allowed && suspended, "{new}");
        }
    };
    check(|spec| spec["nodeSelector"] = json!({"a": "b"}), true);
    check(|spec| spec["tolerations"] = json!([{"key": "a", "operator": "Exists"}]), true);
    check(|spec| spec["affinity"] = json!({"nodeAffinity": {}}), true);
    check(|spec| spec["affinity"] = json!({"podAffinity": {}}), false);
    let resources = |spec: &mut Value| {
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    };
    check(resources, true);
    check(|spec| spec["containers"][0]["image"] = json!("other"), false);
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
