//! `Service`: defaults and what an update keeps; what it may say is checked in [`validation`].

use serde_json::{Value, json};

use crate::rules::json::{Read, default, default_zero, each, is_zero, object, set, unset, with};
use crate::rules::{Rules, generic};

mod addresses;
pub mod validation;

/// How long a client stays with an endpoint: three hours.
const AFFINITY_SECONDS: i64 = 10_800;

pub static RULES: Rules = Rules {
    default: default_service,
    prepare_create: |service| {
        let status = json!({"loadBalancer": {}});
        generic::start_status(service, status);
        let spec = object(service, "spec");
        join_cluster_ips(spec);
        families(spec);
    },
    prepare_update,
    prepare_status_update: generic::take_status,
    validate: validation::validate,
    validate_update: validation::validate_update,
    validate_status_update: validation::validate_status,
    fields: |service| {
        let spec = &service["spec"];
        vec![
            ("spec.clusterIP", spec["clusterIP"].text().to_owned()),
            ("spec.type", spec["type"].text().to_owned()),
        ]
    },
    ..Rules::GENERIC
};

/// Whether connections can come from outside the cluster.
pub fn is_external(spec: &Value) -> bool {
    match spec["type"].text() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => spec["externalIPs"].size() > 0,
        _ => false,
    }
}

fn default_service(service: &mut Value) {
    let spec = object(service, "spec");
    default_zero(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"].text() == "None" {
        unset(spec, "sessionAffinityConfig");
    }
    if spec["sessionAffinity"].text() == "ClientIP" {
        default(
            object(object(spec, "sessionAffinityConfig"), "clientIP"),
            "timeoutSeconds",
            AFFINITY_SECONDS,
        );
    }
    default_zero(spec, "type", "ClusterIP");
    each(spec, "ports", |port| {
        default_zero(port, "protocol", "TCP");
        let number = port["port"].clone();
        default_zero(port, "targetPort", number);
    });
    if is_external(spec) {
        default_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(spec["type"].text(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if spec["type"].text() == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    with(service, "status", |status| {
        with(status, "loadBalancer", |balancer| {
            each(balancer, "ingress", |ingress| {
                if !ingress["ip"].text().is_empty() {
                    default(ingress, "ipMode", "VIP");
                }
            });
        });
    });
}

fn prepare_update(new: &mut Value, old: &Value) {
    default_service(new);
    generic::keep_status(new, old);
    let spec = object(new, "spec");
    take_allocated(spec, &old["spec"]);
    drop_what_the_type_has_not(spec, &old["spec"]);
    join_cluster_ips(spec);
    families(spec);
}

/// What the server chose earlier stays chosen when an update leaves it out.
fn take_allocated(new: &mut Value, old: &Value) {
    let has_ip =
        |spec: &Value| matches!(spec["type"].text(), "ClusterIP" | "NodePort" | "LoadBalancer");
    if has_ip(new) && has_ip(old) {
        if is_zero(&new["clusterIP"]) && is_zero(&new["clusterIPs"]) {
            for field in ["clusterIP", "clusterIPs"] {
                if old[field].is_set() {
                    set(new, field, old[field].clone());
                }
            }
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if is_zero(&new[field]) && old[field].is_set() {
                set(new, field, old[field].clone());
            }
        }
    }
    let has_node_ports = |spec: &Value| matches!(spec["type"].text(), "NodePort" | "LoadBalancer");
    if has_node_ports(new) && has_node_ports(old) {
        take_node_ports(new, old);
        if is_zero(&new["healthCheckNodePort"])
            && old["healthCheckNodePort"].is_set()
            && new["externalTrafficPolicy"].text() == "Local"
        {
            set(new, "healthCheckNodePort", old["healthCheckNodePort"].clone());
        }
    }
}

fn take_node_ports(new: &mut Value, old: &Value) {
    let mut taken: Vec<i64> = new["ports"]
        .items()
        .iter()
        .map(|port| port["nodePort"].int())
        .filter(|port| *port != 0)
        .collect();
    each(new, "ports", |port| {
        if port["nodePort"].int() != 0 {
            return;
        }
        let before = old["ports"]
            .items()
            .iter()
            .find(|old| old["protocol"] == port["protocol"] && old["port"] == port["port"]);
        let number = before.map_or(0, |old| old["nodePort"].int());
        if number != 0 && !taken.contains(&number) {
            taken.push(number);
            set(port, "nodePort", number);
        }
    });
}

/// A change of type takes away, unless changed along with it, what only the old type had.
fn drop_what_the_type_has_not(new: &mut Value, old: &Value) {
    let (type_, old_type) = (new["type"].text().to_owned(), old["type"].text());
    let needs = |type_: &str, types: &[&str]| types.contains(&type_);
    let ip_types = ["ClusterIP", "NodePort", "LoadBalancer"];
    if needs(old_type, &ip_types)
        && !needs(&type_, &ip_types)
        && generic::same(&new["clusterIP"], &old["clusterIP"])
    {
        for field in
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
        {
            unset(new, field);
        }
    }
    let port_types = ["NodePort", "LoadBalancer"];
    if needs(old_type, &port_types) && !needs(&type_, &port_types) {
        let olds: Vec<i64> =
            old["ports"].items().iter().map(|port| port["nodePort"].int()).collect();
        each(new, "ports", |port| {
            if olds.contains(&port["nodePort"].int()) {
                unset(port, "nodePort");
            }
        });
        if !is_external(new) && new["externalTrafficPolicy"] == old["externalTrafficPolicy"] {
            unset(new, "externalTrafficPolicy");
        }
    }
    if old_type == "LoadBalancer" && type_ != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
            if new[field] == old[field] {
                unset(new, field);
            }
        }
    }
    if old_type == "ExternalName"
        && type_ != "ExternalName"
        && new["externalName"] == old["externalName"]
    {
        unset(new, "externalName");
    }
}

/// The first address stands by itself as well.
fn join_cluster_ips(spec: &mut Value) {
    let one = spec["clusterIP"].text().to_owned();
    if one.is_empty() {
        if let Some(first) = spec["clusterIPs"].items().first().cloned() {
            set(spec, "clusterIP", first);
        }
    } else if spec["clusterIPs"].size() == 0 {
        set(spec, "clusterIPs", json!([one]));
    }
}

/// This cluster has one family of addresses.
fn families(spec: &mut Value) {
    if spec["type"].text() == "ExternalName" {
        return;
    }
    if spec["clusterIP"] == "None"
        && spec["selector"].size() == 0
        && spec["ipFamilyPolicy"].text() != "SingleStack"
    {
        // Who has no address and picks its own endpoints may have some of either family.
        default_zero(spec, "ipFamilyPolicy", "RequireDualStack");
        default_zero(spec, "ipFamilies", json!(["IPv4"]));
        if let [one] = spec["ipFamilies"].items() {
            let other = if one == "IPv4" { "IPv6" } else { "IPv4" };
            set(spec, "ipFamilies", json!([one, other]));
        }
    }
    default_zero(spec, "ipFamilies", json!(["IPv4"]));
    default_zero(spec, "ipFamilyPolicy", "SingleStack");
}
