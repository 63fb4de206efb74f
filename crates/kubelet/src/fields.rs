//! The downward API: what a pod may learn about itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::amounts::{self, Amounts};

/// What the kubelet adds to the pod's own words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    /// The node's address.
    pub(crate) node_ip: IpAddr,
    /// The pod's address, once it has one.
    pub(crate) pod_ip: Option<IpAddr>,
    /// What the node can give: the limit of a container that sets none.
    pub(crate) allocatable: Amounts,
}

/// The text of a `fieldRef`, or an error that names the path.
pub(crate) fn field(pod: &Pod, around: &Surroundings, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("fieldPath \"{path}\" does not support subscript")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let text = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => Some(around.node_ip.to_string()),
        "status.podIP" | "status.podIPs" => around.pod_ip.map(|ip| ip.to_string()),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    };
    Ok(text.unwrap_or_default())
}

/// The text of a `resourceFieldRef`: an amount in units of the divisor, rounded up.
pub(crate) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    around: &Surroundings,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        None => own,
        Some(name) => spec.and_then(|spec| {
            let init = spec.init_containers.iter().flatten();
            init.chain(&spec.containers).find(|container| container.name == name)
        }),
    };
    let container =
        container.ok_or_else(|| format!("container {} not found", named.unwrap_or_default()))?;
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let set = match list {
        "limits" => resources.and_then(|all| all.limits.as_ref()),
        "requests" => resources.and_then(|all| all.requests.as_ref()),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let set = set.and_then(|set| set.get(name));
    // Upstream shows what the node could give to a container without a limit.
    let fallback = match (list, name) {
        ("limits", "cpu") => around.allocatable.cpu_millis,
        ("limits", "memory") => around.allocatable.memory_bytes.saturating_mul(1000),
        _ => 0,
    };
    let amount = set.map_or(Ok(fallback), amounts::millis)?;
    let divisor = selector.divisor.as_ref().map_or(Ok(0), amounts::millis)?;
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Ok(amount.div_ceil(divisor).to_string())
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once("['")?;
    Some((map, key.strip_suffix("']")?))
}

/// `key="value"`, a line each, values quoted as Go quotes them.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", quoted(value));
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() && u32::from(control) < 0x80 => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u-1",
                "labels": { "app": "web", "tier": "front" },
                "annotations": { "note": "a \"quoted\"\nline", "coracle.dev/x": "1" },
            },
            "spec": {
                "nodeName": "node-0", "serviceAccountName": "default",
                "containers": [
                    { "name": "main", "resources": {
                        "requests": { "cpu": "250m", "memory": "64Mi" },
                        "limits": { "memory": "100000k" } } },
                    { "name": "side" },
                ],
            },
        }))
        .unwrap()
    }

    fn around() -> Surroundings {
        Surroundings {
            node_ip: "10.0.0.1".parse().unwrap(),
            pod_ip: Some("127.10.0.7".parse().unwrap()),
            allocatable: Amounts { cpu_millis: 2000, memory_bytes: 4 << 30, pods: 10 },
        }
    }

    #[test]
    fn a_pod_learns_its_fields() {
        let cases = [
            ("metadata.name", "web"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "u-1"),
            ("metadata.labels", "app=\"web\"\ntier=\"front\""),
            ("metadata.annotations", "coracle.dev/x=\"1\"\nnote=\"a \\\"quoted\\\"\\nline\""),
            ("metadata.labels['tier']", "front"),
            ("metadata.annotations['coracle.dev/x']", "1"),
            ("metadata.annotations['absent']", ""),
            ("spec.nodeName", "node-0"),
            ("spec.serviceAccountName", "default"),
            ("status.hostIP", "10.0.0.1"),
            ("status.podIP", "127.10.0.7"),
            ("status.podIPs", "127.10.0.7"),
        ];
        for (path, expected) in cases {
            assert_eq!(field(&pod(), &around(), path).unwrap(), expected, "{path}");
        }
        assert!(field(&pod(), &around(), "spec.containers").is_err());
    }

    #[test]
    fn a_pod_learns_its_resources() {
        let pod = pod();
        let containers = &pod.spec.as_ref().unwrap().containers;
        let cases = [
            (0, "requests.cpu", None, "1"),
            (0, "requests.cpu", Some("1m"), "250"),
            (0, "requests.memory", Some("1Mi"), "64"),
            (0, "limits.memory", None, "100000000"),
            (0, "limits.memory", Some("1Mi"), "96"),
            (0, "limits.cpu", None, "2"),
            (1, "limits.memory", Some("1Gi"), "4"),
            (1, "requests.memory", None, "0"),
        ];
        for (at, name, divisor, expected) in cases {
            let selector: ResourceFieldSelector = serde_json::from_value(match divisor {
                Some(divisor) => json!({ "resource": name, "divisor": divisor }),
                None => json!({ "resource": name }),
            })
            .unwrap();
            let text = resource(&pod, containers.get(at), &around(), &selector).unwrap();
            assert_eq!(text, expected, "{name} / {divisor:?}");
        }
    }
}
