//! What a Service may say (`ValidateService` in `pkg/apis/core/validation/validation.go`).

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use super::is_external;
use crate::rules::checks::{labels, one_of, port_number_or_name, required_one_of};
use crate::rules::generic::same;
use crate::rules::json::{Read, is_zero};
use crate::rules::networking::{NO_CIDR, is_cidr};
use crate::rules::service::addresses;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// A client may be bound to an endpoint for a day.
const AFFINITY_MAX_SECONDS: i64 = 86_400;

/// Checks a Service.
pub fn validate(service: &Value, errors: &mut FieldErrors) {
    annotations(service, errors);
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let headless = spec["clusterIP"] == "None";
    by_type(spec, headless, &path, errors);
    ports(spec, headless, &path.child("ports"), errors);
    labels(&spec["selector"], &path.child("selector"), errors);
    affinity(spec, &path, errors);
    addresses::validate(spec, &path, errors);
    for (index, ip) in spec["externalIPs"].items().iter().enumerate() {
        errors.invalid_each(
            path.child("externalIPs").index(index),
            ip.text(),
            names::ip_address(ip.text()),
        );
    }
    required_one_of(&spec["type"], &TYPES, path.child("type"), errors);
    balancer(spec, &path, errors);
    traffic(spec, &path, errors);
}

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// What was said by annotations before there were fields.
fn annotations(service: &Value, errors: &mut FieldErrors) {
    let (all, path) =
        (&service["metadata"]["annotations"], Path::new("metadata").child("annotations"));
    let (mode, hints) = (&all[TOPOLOGY_MODE], &all[TOPOLOGY_HINTS]);
    if mode.is_set() && hints.is_set() && mode != hints {
        let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.invalid(path.key(TOPOLOGY_MODE), mode.clone(), detail);
    }
    let ranges = &all[SOURCE_RANGES];
    if !ranges.is_set() || service["spec"]["loadBalancerSourceRanges"].size() > 0 {
        return;
    }
    let at = path.key(SOURCE_RANGES);
    if service["spec"]["type"] != "LoadBalancer" {
        errors.forbidden(&at, "may only be used when `type` is 'LoadBalancer'");
    }
    let ranges = ranges.text().trim();
    if ranges.is_empty() {
        return;
    }
    for range in ranges.split(',').map(str::trim).filter(|range| !is_cidr(range)) {
        errors.invalid(&at, range, NO_CIDR);
    }
}

fn by_type(spec: &Value, headless: bool, path: &Path, errors: &mut FieldErrors) {
    let kind = spec["type"].text();
    if spec["ports"].size() == 0 && !headless && kind != "ExternalName" {
        errors.required(path.child("ports"), "");
    }
    let first_ip = path.child("clusterIPs").index(0);
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            errors.invalid(
                first_ip,
                "None",
                format!("may not be set to 'None' for {kind} services"),
            );
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !is_zero(&spec[field]) {
                    errors.forbidden(path.child(field), "may not be set for ExternalName services");
                }
            }
            match spec["externalName"].text().trim_end_matches('.') {
                "" => errors.required(path.child("externalName"), ""),
                name => errors.invalid_each(
                    path.child("externalName"),
                    name,
                    names::dns_subdomain(name),
                ),
            }
        }
        _ => (),
    }
}

fn ports(spec: &Value, headless: bool, path: &Path, errors: &mut FieldErrors) {
    let list = spec["ports"].items();
    let mut port_names: Vec<&str> = Vec::new();
    let (mut numbers, mut node_ports) = (Vec::new(), Vec::new());
    for (index, port) in list.iter().enumerate() {
        let at = path.index(index);
        one_port(port, list.len() > 1, headless, &at, errors);
        let name = port["name"].text();
        if !name.is_empty() {
            crate::rules::checks::unique(&mut port_names, name, at.child("name"), errors);
        }
        let protocol = port["protocol"].text();
        let number = (protocol, port["port"].int());
        if numbers.contains(&number) {
            let shown = serde_json::json!({"port": number.1, "protocol": protocol});
            errors.duplicate(&at, shown);
        }
        numbers.push(number);
        let node_port = (protocol, port["nodePort"].int());
        if node_port.1 == 0 {
            continue;
        }
        if spec["type"] == "ClusterIP" {
            errors.forbidden(at.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        for message in names::port_number(node_port.1) {
            errors.invalid(at.child("nodePort"), node_port.1, message);
        }
        if node_ports.contains(&node_port) {
            errors.duplicate(at.child("nodePort"), node_port.1);
        }
        node_ports.push(node_port);
    }
}

fn one_port(port: &Value, needs_name: bool, headless: bool, at: &Path, errors: &mut FieldErrors) {
    let name = port["name"].text();
    if name.is_empty() && needs_name {
        errors.required(at.child("name"), "");
    } else if !name.is_empty() {
        errors.invalid_each(at.child("name"), name, names::dns_label(name));
    }
    for message in names::port_number(port["port"].int()) {
        errors.invalid(at.child("port"), port["port"].int(), message);
    }
    required_one_of(&port["protocol"], &["SCTP", "TCP", "UDP"], at.child("protocol"), errors);
    // A headless Service has no ports of its own to map, and old clients wrote what they liked.
    if !headless {
        port_number_or_name(&port["targetPort"], &at.child("targetPort"), errors);
    }
    let application = port["appProtocol"].text();
    if !application.is_empty() {
        errors.invalid_each(
            at.child("appProtocol"),
            application,
            names::qualified_name(application),
        );
    }
}

fn affinity(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let affinity = &spec["sessionAffinity"];
    required_one_of(affinity, &["ClientIP", "None"], path.child("sessionAffinity"), errors);
    let config = path.child("sessionAffinityConfig");
    if affinity == "ClientIP" {
        let seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].int();
        if !(1..=AFFINITY_MAX_SECONDS).contains(&seconds) {
            let detail = format!("must be greater than 0 and less than {AFFINITY_MAX_SECONDS}");
            errors.invalid(config.child("clientIP").child("timeoutSeconds"), seconds, detail);
        }
    } else if spec["sessionAffinityConfig"].is_set() {
        errors.forbidden(config, "must not be set when session affinity is None");
    }
}

fn balancer(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let port = &spec["healthCheckNodePort"];
    if port.int() != 0 && needs_health_check(spec) {
        for message in names::port_number(port.int()) {
            errors.invalid(path.child("healthCheckNodePort"), port.clone(), message);
        }
    } else if port.int() != 0 {
        let detail =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(path.child("healthCheckNodePort"), port.clone(), detail);
    }
    if spec["type"] == "LoadBalancer" {
        let class = spec["loadBalancerClass"].text();
        if !class.is_empty() {
            errors.invalid_each(
                path.child("loadBalancerClass"),
                class,
                names::qualified_name(class),
            );
        }
        for (index, range) in spec["loadBalancerSourceRanges"].items().iter().enumerate() {
            if !is_cidr(range.text().trim()) {
                let at = path.child("LoadBalancerSourceRanges").index(index);
                errors.invalid(at, range.clone(), NO_CIDR);
            }
        }
        return;
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec[field].is_set() {
            errors.forbidden(path.child(field), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    if spec["loadBalancerSourceRanges"].size() > 0 {
        errors.forbidden(
            path.child("LoadBalancerSourceRanges"),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
}

fn traffic(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let policies = ["Cluster", "Local"];
    let external = &spec["externalTrafficPolicy"];
    if is_external(spec) {
        required_one_of(external, &policies, path.child("externalTrafficPolicy"), errors);
    } else if !external.text().is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.invalid(path.child("externalTrafficPolicy"), external.clone(), detail);
    }
    one_of(&spec["internalTrafficPolicy"], &policies, path.child("internalTrafficPolicy"), errors);
    let near = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    one_of(&spec["trafficDistribution"], &near, path.child("trafficDistribution"), errors);
}

/// The address by which clients know a Service stays, unless the Service stops having one.
pub fn validate_update(service: &Value, before: &Value, errors: &mut FieldErrors) {
    let (new, old) = (&service["spec"], &before["spec"]);
    addresses::validate_update(new, old, errors);
    balancer_class(new, old, errors);
    if needs_health_check(new)
        && needs_health_check(old)
        && new["healthCheckNodePort"] != old["healthCheckNodePort"]
    {
        errors.forbidden("spec.healthCheckNodePort", "field is immutable");
    }
}

/// Whose balancer a Service has is said at its beginning.
fn balancer_class(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (class, before) = (&new["loadBalancerClass"], &old["loadBalancerClass"]);
    if new["type"] == "LoadBalancer" && old["type"] == "LoadBalancer" && !same(class, before) {
        errors.invalid("spec.loadBalancerClass", class.clone(), "may not change once set");
    }
}

fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Checks what a load balancer says of itself, in a Service's or an Ingress' status.
pub fn balancer_status(status: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, ingress) in status["ingress"].items().iter().enumerate() {
        let at = path.child("ingress").index(index);
        let (ip, host, mode) =
            (ingress["ip"].text(), ingress["hostname"].text(), &ingress["ipMode"]);
        if !ip.is_empty() {
            errors.invalid_each(at.child("ip"), ip, names::ip_address(ip));
        }
        if mode.is_set() && ip.is_empty() {
            errors.forbidden(at.child("ipMode"), "may not be specified when `ip` is not set");
        } else {
            one_of(mode, &["Proxy", "VIP"], at.child("ipMode"), errors);
        }
        if host.is_empty() {
            continue;
        }
        errors.invalid_each(at.child("hostname"), host, names::dns_subdomain(host));
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(at.child("hostname"), host, "must be a DNS name, not an IP address");
        }
    }
}

/// Checks a write of a Service's status.
pub fn validate_status(new: &Value, _old: &Value, errors: &mut FieldErrors) {
    let (status, path) =
        (&new["status"]["loadBalancer"], Path::new("status").child("loadBalancer"));
    if new["spec"]["type"] != "LoadBalancer" && status["ingress"].size() > 0 {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.forbidden(path.child("ingress"), detail);
    } else {
        balancer_status(status, &path, errors);
    }
}
