//! Services, their endpoints, and what leads to them.

use serde_json::Value;

use super::Columns;
use super::cells::{AGE, NAME, age, first_few, join, labels, name, or, selector, text};
use crate::rules::json::Read;

/// As many as fit a cell.
const FEW: usize = 3;

pub static SERVICE: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "type determines how the Service is exposed."),
        text(
            "Cluster-IP",
            "clusterIP is the IP address of the service and is usually assigned randomly.",
        ),
        text(
            "External-IP",
            "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
        ),
        text("Port(s)", "The list of ports that are exposed by this service."),
        AGE,
        text(
            "Selector",
            "Route service traffic to pods with label keys and values matching this selector.",
        )
        .wide(),
    ],
    cells: |service, now| {
        let spec = &service["spec"];
        vec![
            name(service),
            spec["type"].text().into(),
            or(spec["clusterIPs"].items().first().map_or("", Read::text), "<none>"),
            external_ip(service).into(),
            or(&service_ports(spec), "<none>"),
            age(service, now),
            labels(&spec["selector"]),
        ]
    },
};

pub static ENDPOINTS: Columns = Columns {
    definitions: &[
        NAME,
        text("Endpoints", "The set of all endpoints is the union of all subsets."),
        AGE,
    ],
    cells: |endpoints, now| {
        let mut addresses = Vec::new();
        for subset in endpoints["subsets"].items() {
            if subset["ports"].size() == 0 {
                addresses.extend(
                    subset["addresses"]
                        .items()
                        .iter()
                        .map(|address| address["ip"].text().to_owned()),
                );
            }
            for port in subset["ports"].items() {
                let with_port =
                    |address: &Value| host_and_port(address["ip"].text(), port["port"].int());
                addresses.extend(subset["addresses"].items().iter().map(with_port));
            }
        }
        let shown = if endpoints["subsets"].size() == 0 {
            "<none>".to_owned()
        } else {
            first_few(&addresses, FEW)
        };
        vec![name(endpoints), shown.into(), age(endpoints, now)]
    },
};

pub static ENDPOINT_SLICE: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "AddressType",
            "addressType specifies the type of address carried by this EndpointSlice.",
        ),
        text(
            "Ports",
            "ports specifies the list of network ports exposed by each endpoint in this slice.",
        ),
        text("Endpoints", "endpoints is a list of unique endpoints in this slice."),
        AGE,
    ],
    cells: |slice, now| {
        let ports: Vec<String> = slice["ports"].items().iter().map(slice_port).collect();
        let addresses =
            slice["endpoints"].items().iter().flat_map(|endpoint| endpoint["addresses"].items());
        let addresses: Vec<String> = addresses.map(|address| address.text().to_owned()).collect();
        vec![
            name(slice),
            slice["addressType"].text().into(),
            or(&first_few(&ports, FEW), "<unset>"),
            or(&first_few(&addresses, FEW), "<unset>"),
            age(slice, now),
        ]
    },
};

pub static INGRESS: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Class",
            "The name of the IngressClass resource that should be used for additional configuration",
        ),
        text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
        text("Address", "Address is a list containing ingress points for the load-balancer"),
        text("Ports", "Ports of TLS configurations that open"),
        AGE,
    ],
    cells: |ingress, now| {
        let spec = &ingress["spec"];
        vec![
            name(ingress),
            or(spec["ingressClassName"].text(), "<none>"),
            hosts(spec["rules"].items()).into(),
            balancer(ingress).into(),
            if spec["tls"].size() > 0 { "80, 443" } else { "80" }.into(),
            age(ingress, now),
        ]
    },
};

pub static INGRESS_CLASS: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "Controller that is responsible for handling this class"),
        text("Parameters", "A reference to a resource with additional parameters"),
        AGE,
    ],
    cells: |class, now| {
        let parameters = &class["spec"]["parameters"];
        let shown = match (parameters.is_set(), parameters["apiGroup"].text()) {
            (false, _) => "<none>".to_owned(),
            (true, "") => format!("{}/{}", parameters["kind"].text(), parameters["name"].text()),
            (true, group) => {
                format!("{}.{group}/{}", parameters["kind"].text(), parameters["name"].text())
            }
        };
        vec![name(class), class["spec"]["controller"].text().into(), shown.into(), age(class, now)]
    },
};

pub static NETWORK_POLICY: Columns = Columns {
    definitions: &[
        NAME,
        text("Pod-Selector", "Selects the pods to which this NetworkPolicy object applies."),
        AGE,
    ],
    cells: |policy, now| {
        vec![name(policy), selector(&policy["spec"]["podSelector"]), age(policy, now)]
    },
};

pub static SERVICE_CIDR: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "CIDRs",
            "CIDRs defines the IP blocks in CIDR notation from which to assign service cluster IPs.",
        ),
        AGE,
    ],
    cells: |object, now| {
        let ranges = join(object["spec"]["cidrs"].items().iter().map(Read::text));
        vec![name(object), ranges.into(), age(object, now)]
    },
};

pub static IP_ADDRESS: Columns = Columns {
    definitions: &[
        NAME,
        text("ParentRef", "ParentRef references the resource that an IPAddress is attached to."),
        AGE,
    ],
    cells: |object, now| {
        let parent = &object["spec"]["parentRef"];
        let mut shown = parent["resource"].text().to_lowercase();
        for (separator, field) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
            if !parent[field].text().is_empty() {
                shown = format!("{shown}{separator}{}", parent[field].text());
            }
        }
        vec![name(object), or(&shown, "<none>"), age(object, now)]
    },
};

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let own = join(spec["externalIPs"].items().iter().map(Read::text));
    match spec["type"].text() {
        "ClusterIP" | "NodePort" => or(&own, "<none>").text().to_owned(),
        "LoadBalancer" => {
            let given = [balancer(service), own];
            or(&join(given.iter().map(String::as_str).filter(|ips| !ips.is_empty())), "<pending>")
                .text()
                .to_owned()
        }
        "ExternalName" => spec["externalName"].text().to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses of a load balancer, in alphabetical order.
fn balancer(object: &Value) -> String {
    let entries = object["status"]["loadBalancer"]["ingress"].items().iter();
    let mut addresses: Vec<&str> = entries
        .map(|entry| {
            [entry["ip"].text(), entry["hostname"].text()]
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default()
        })
        .filter(|text| !text.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}

fn service_ports(spec: &Value) -> String {
    let ports = spec["ports"].items().iter().map(|port| {
        let (number, node_port, protocol) =
            (port["port"].int(), port["nodePort"].int(), port["protocol"].text());
        if node_port > 0 {
            format!("{number}:{node_port}/{protocol}")
        } else {
            format!("{number}/{protocol}")
        }
    });
    ports.collect::<Vec<_>>().join(",")
}

fn slice_port(port: &Value) -> String {
    match (port["port"].as_i64(), port["name"].as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    }
}

fn host_and_port(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn hosts(rules: &[Value]) -> String {
    let hosts: Vec<&str> =
        rules.iter().map(|rule| rule["host"].text()).filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() {
        return "*".to_owned();
    }
    let shown = join(hosts.iter().copied().take(FEW));
    if rules.len() > FEW && hosts.len() >= FEW {
        format!("{shown} + {} more...", rules.len() - FEW)
    } else {
        shown
    }
}
