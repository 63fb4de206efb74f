//! What is refused of Services: addresses, families, balancers.

use super::*;

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

#[test]
fn addresses_and_families_agree() {
    let check = |spec: Value, want: &[&str]| check("v1", "Service", service(spec), want);
    check(json!({"clusterIP": "127.1.0.5", "ipFamilies": ["IPv4"]}), &[]);
    check(
        json!({"clusterIPs": ["127.1.0.5", "127.1.0.6"]}),
        &[
            "spec.clusterIPs: Invalid value: [\"127.1.0.5\",\"127.1.0.6\"]: may specify no more than one IP for each IP family",
        ],
    );
    check(
        json!({"clusterIP": "127.1.0.5", "clusterIPs": ["127.1.0.6"]}),
        &["spec.clusterIPs: Invalid value: [\"127.1.0.6\"]: first value must match `clusterIP`"],
    );
    check(
        json!({"clusterIPs": ["None", "127.1.0.6"], "selector": {"a": "b"}}),
        &[
            "spec.clusterIPs: Invalid value: [\"None\",\"127.1.0.6\"]: 'None' must be the first and only value",
        ],
    );
    check(
        json!({"clusterIP": "fd00::5"}),
        &[
            "spec.clusterIPs[0]: Invalid value: \"fd00::5\": expected an IPv4 value as indicated by `ipFamilies[0]`",
        ],
    );
    check(
        json!({"ipFamilies": ["IPv4", "IPv4"]}),
        &["spec.ipFamilies[1]: Duplicate value: \"IPv4\""],
    );
    check(
        json!({"ipFamilies": ["IPv6"]}),
        &["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"],
    );
    check(
        json!({"ipFamilyPolicy": "RequireDualStack"}),
        &[
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ],
    );
    check(json!({"ipFamilyPolicy": "PreferDualStack"}), &[]);
    check(
        json!({"type": "ExternalName", "externalName": "a.b", "ipFamilies": ["IPv4"]}),
        &["spec.ipFamilies: Forbidden: may not be set for ExternalName services"],
    );
}

#[test]
fn who_picks_its_own_endpoints_may_have_both_families() {
    let (headless, errors) = create("v1", "Service", service(json!({"clusterIP": "None"})));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let own = json!({"clusterIP": "None", "selector": {"a": "b"}});
    let (own, errors) = create("v1", "Service", service(own));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(own["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn an_address_stays_and_a_second_one_comes_and_goes() {
    let check = |change: &dyn Fn(&mut Value), want: &[&str]| {
        let old = service(json!({"clusterIP": "127.1.0.5"}));
        check_update("v1", "Service", old, |new| change(&mut new["spec"]), want);
    };
    check(
        &|spec| {
            spec["clusterIP"] = json!("None");
            spec["clusterIPs"] = json!(["None"]);
            spec["selector"] = json!({"a": "b"});
        },
        &["spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"],
    );
    check(
        &|spec| spec["ipFamilies"] = json!(["IPv6"]),
        &[
            "spec.clusterIPs[0]: Invalid value: \"127.1.0.5\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
        ],
    );
}

#[test]
fn balancers_keep_their_class_and_health_check() {
    let balancer = || {
        service(json!({
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30001,
            "loadBalancerClass": "a.com/b",
        }))
    };
    check_update(
        "v1",
        "Service",
        balancer(),
        |new| {
            new["spec"]["healthCheckNodePort"] = json!(30002);
            new["spec"]["loadBalancerClass"] = json!("a.com/c");
        },
        &[
            "spec.loadBalancerClass: Invalid value: \"a.com/c\": may not change once set",
            "spec.healthCheckNodePort: Forbidden: field is immutable",
        ],
    );
    check(
        "v1",
        "Service",
        service(json!({"healthCheckNodePort": 30001})),
        &[
            "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ],
    );
    let ranges = "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]";
    let mut annotated = service(json!({}));
    annotated["metadata"]["annotations"] =
        json!({"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8, x"});
    check(
        "v1",
        "Service",
        annotated,
        &[
            &format!("{ranges}: Forbidden: may only be used when `type` is 'LoadBalancer'"),
            &format!(
                "{ranges}: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ),
        ],
    );
    let status = |ingress: Value| {
        move |new: &mut Value| new["status"] = json!({"loadBalancer": {"ingress": [ingress]}})
    };
    check_status("v1", "Service", balancer(), status(json!({"ip": "10.0.0.1"})), &[]);
    let ingress = "status.loadBalancer.ingress[0]";
    check_status(
        "v1",
        "Service",
        balancer(),
        status(json!({"hostname": "10.0.0.1", "ipMode": "VIP"})),
        &[
            &format!("{ingress}.ipMode: Forbidden: may not be specified when `ip` is not set"),
            &format!(
                "{ingress}.hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"
            ),
        ],
    );
    check_status(
        "v1",
        "Service",
        service(json!({})),
        status(json!({"ip": "10.0.0.1"})),
        &[
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
        ],
    );
}
