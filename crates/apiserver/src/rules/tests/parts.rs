//! What the subresources of a pod may change.

use super::*;

/// A pod with one container that has these requests and limits.
fn sized(requests: Value, limits: Value) -> Value {
    container_with(json!({"resources": {"requests": requests, "limits": limits}}))
}

fn resize(object: Value, change: impl FnOnce(&mut Value), want: &[&str]) {
    check_part("resize", object, |_| (), |new| change(&mut new["spec"]["containers"][0]), want);
}

#[test]
fn cpu_and_memory_can_be_resized_within_the_quality_of_service() {
    let burstable = || sized(json!({"cpu": "100m", "memory": "1Mi"}), json!({"cpu": "200m"}));
    resize(burstable(), |new| new["resources"]["requests"]["cpu"] = json!("150m"), &[]);
    resize(burstable(), |new| new["resources"]["limits"]["memory"] = json!("2Mi"), &[]);
    resize(
        burstable(),
        |new| new["resources"] = json!({"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "1", "memory": "1Mi"}}),
        &[
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
        ],
    );
    resize(
        container_with(json!({})),
        |new| new["resources"] = json!({"requests": {"cpu": "1"}}),
        &[
            "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing",
        ],
    );
    resize(
        burstable(),
        |new| new["resources"]["requests"] = json!({"cpu": "100m"}),
        &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
    );
    resize(
        burstable(),
        |new| new["resources"]["limits"]["ephemeral-storage"] = json!("1Gi"),
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
    resize(
        burstable(),
        |new| {
            new["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])
        },
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
}

#[test]
fn not_every_pod_can_be_resized() {
    let pod = || sized(json!({"cpu": "100m"}), json!({}));
    let grow = |new: &mut Value| {
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("200m");
    };
    let mirror = |pod: &mut Value| {
        pod["spec"]["nodeName"] = json!("n");
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    };
    let want = ["<nil>: Forbidden: static pods cannot be resized"];
    check_part("resize", pod(), mirror, grow, &want);
    let windows = |pod: &mut Value| pod["spec"]["os"] = json!({"name": "windows"});
    let want = ["<nil>: Forbidden: windows pods cannot be resized"];
    check_part("resize", pod(), windows, grow, &want);
    let running = |pod: &mut Value| {
        pod["status"]["containerStatuses"] = json!([{"name": "c", "state": {"running": {}}}]);
    };
    let want = ["spec: Forbidden: Pod running on node without support for resize"];
    check_part("resize", pod(), running, grow, &want);
    let setup = json!([{"name": "i", "image": "i", "resources": {"requests": {"cpu": "1m"}}}]);
    let mut with_setup = pod();
    with_setup["spec"]["initContainers"] = setup;
    let want = ["spec: Forbidden: resources for non-sidecar init containers are immutable"];
    let change = |new: &mut Value| {
        new["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] = json!("2m");
    };
    check_part("resize", with_setup, |_| (), change, &want);
}

#[test]
fn ephemeral_containers_are_added_and_stay() {
    let debug = json!({"name": "d", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
    let had = |pod: &mut Value| pod["spec"]["ephemeralContainers"] = json!([debug]);
    let check = |change: fn(&mut Value), want: &[&str]| {
        check_part("ephemeralcontainers", pod_with(json!({})), had, change, want);
    };
    let mut another = debug.clone();
    another["name"] = json!("e");
    check(
        |new| {
            let mut another = new["spec"]["ephemeralContainers"][0].clone();
            another["name"] = json!("e");
            new["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(another);
        },
        &[],
    );
    check(
        |new| new["spec"]["ephemeralContainers"] = json!([]),
        &[
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed",
        ],
    );
    check(
        |new| new["spec"]["ephemeralContainers"][0]["image"] = json!("other"),
        &[
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed",
        ],
    );
    check(
        |new| {
            new["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
            let mut another = new["spec"]["ephemeralContainers"][0].clone();
            another["name"] = json!("e");
            another["restartPolicy"] = json!("Always");
            another["volumeMounts"] = json!([{"name": "v", "mountPath": "/v", "subPath": "a"}]);
            new["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(another);
        },
        &[
            "spec.ephemeralContainers[1].restartPolicy: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[1].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
        ],
    );
}

#[test]
fn what_a_pod_stands_for_is_said_at_its_beginning() {
    let path = "metadata.annotations[kubernetes.io/config.mirror]";
    let mark = |pod: &mut Value| {
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    };
    let mut unbound = pod_with(json!({}));
    mark(&mut unbound);
    let want = format!(
        "{path}: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set"
    );
    check("v1", "Pod", unbound, &[&want]);
    let bound = || pod_with(json!({"nodeName": "n"}));
    let want = format!("{path}: Forbidden: may not add mirror pod annotation");
    check_update("v1", "Pod", bound(), mark, &[&want]);
    let mut mirror = bound();
    mark(&mut mirror);
    let want = format!("{path}: Forbidden: may not remove or update mirror pod annotation");
    let unmark = |pod: &mut Value| pod["metadata"]["annotations"] = json!({});
    check_update("v1", "Pod", mirror, unmark, &[&want]);
    let mut costly = pod_with(json!({}));
    costly["metadata"]["annotations"] =
        json!({"controller.kubernetes.io/pod-deletion-cost": "high"});
    check(
        "v1",
        "Pod",
        costly,
        &[
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"high\": must be a 32bit integer",
        ],
    );
}

#[test]
fn a_gated_pod_can_be_sent_to_fewer_nodes_only() {
    const TERMS: &str = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let term = |keys: &[&str]| {
        let keys: Vec<Value> =
            keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
        json!({"matchExpressions": keys})
    };
    let affinity = |terms: Vec<Value>| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let gated = || {
        pod_with(json!({
            "schedulingGates": [{"name": "example.com/wait"}],
            "nodeSelector": {"disk": "ssd"},
            "affinity": affinity(vec![term(&["a"])]),
        }))
    };
    let check = |change: &dyn Fn(&mut Value), want: &[&str]| {
        check_update("v1", "Pod", gated(), |new| change(&mut new["spec"]), want);
    };
    check(&|spec| spec["nodeSelector"]["zone"] = json!("z"), &[]);
    check(&|spec| spec["affinity"] = affinity(vec![term(&["a", "b"])]), &[]);
    check(
        &|spec| spec["nodeSelector"] = json!({"disk": "hdd"}),
        &[
            "spec.nodeSelector: Invalid value: {\"disk\":\"hdd\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ],
    );
    let other = affinity(vec![term(&["b"])]);
    let want = format!(
        "{TERMS}[0]: Invalid value: {}: only additions are allowed (no mutations or deletions)",
        term(&["b"])
    );
    check(&|spec| spec["affinity"] = other.clone(), &[&want]);
    let two = vec![term(&["a"]), term(&["b"])];
    let want = format!(
        "{TERMS}: Invalid value: {}: no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        json!(two)
    );
    check(&|spec| spec["affinity"] = affinity(two.clone()), &[&want]);
}
