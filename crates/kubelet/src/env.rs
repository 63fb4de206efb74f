//! A container's environment: literal values, references, and the Services of its namespace.
//!
//! The rules of upstream's `makeEnvironmentVariables` (pkg/kubelet/kubelet_pods.go) and pkg/kubelet/envvars.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, Service};

use crate::expansion::expand;
use crate::fields::{self, Surroundings};
use crate::sources::Objects;

/// The environment in order, or why it cannot be made: the message of `CreateContainerConfigError`.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
    objects: &Objects,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let mut env = Environment::default();
    from_sources(&mut env, container, objects)?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value_from, &variable.value) {
            (Some(source), _) => match referenced(pod, container, around, objects, source)? {
                Some(value) => value,
                None => continue,
            },
            (None, value) => expand(value.as_deref().unwrap_or_default(), |name| {
                env.get(name).or_else(|| lookup(services, name)).map(str::to_owned)
            }),
        };
        env.set(variable, value);
    }
    for (name, value) in services {
        env.set_default(name, value);
    }
    Ok(env.variables)
}

/// A command or its arguments with `$(VAR)` replaced.
pub(crate) fn expand_all(texts: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let expanded = |text: &String| expand(text, |name| lookup(env, name).map(str::to_owned));
    texts.into_iter().flatten().map(expanded).collect()
}

/// The variables that name Services: those of the pod's namespace if it wants them, and `kubernetes` always.
pub(crate) fn service_links(pod: &Pod, services: &[&Service]) -> Vec<(String, String)> {
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let of = |service: &&&Service| {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let home = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = home == "default" && name == "kubernetes";
        // A Service named `kubernetes` in the pod's own namespace would hide the API server's.
        (master && namespace != "default") || (home == namespace && (links || master))
    };
    let mut wanted: Vec<&&Service> = services.iter().filter(of).collect();
    wanted.sort_by_key(|service| {
        (service.metadata.namespace.as_deref() != Some("default"), service.metadata.name.clone())
    });
    let mut env = Environment::default();
    for service in wanted {
        for (name, value) in one_service(service) {
            env.put(name, value);
        }
    }
    env.variables
}

fn from_sources(
    env: &mut Environment,
    container: &Container,
    objects: &Objects,
) -> Result<(), String> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let pairs: Vec<(String, String)> = if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional.unwrap_or(false);
            let Some(map) = objects.config_map(&reference.name, optional)? else { continue };
            map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
        } else if let Some(reference) = &source.secret_ref {
            let optional = reference.optional.unwrap_or(false);
            let Some(secret) = objects.secret(&reference.name, optional)? else { continue };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            secret.data.iter().flatten().map(|(key, value)| (key.clone(), text(&value.0))).collect()
        } else {
            continue;
        };
        for (key, value) in pairs {
            env.put(format!("{prefix}{key}"), value);
        }
    }
    Ok(())
}

fn referenced(
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
    objects: &Objects,
    source: &EnvVarSource,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, around, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return fields::resource(pod, Some(container), around, reference).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let map = objects.config_map(&reference.name, optional)?;
        let value = map.and_then(|map| map.data.as_ref()?.get(&reference.key).cloned());
        return match value {
            None if !optional => Err(format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                reference.key, reference.name
            )),
            value => Ok(value),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let secret = objects.secret(&reference.name, optional)?;
        let value = secret.and_then(|secret| secret.data.as_ref()?.get(&reference.key).cloned());
        return match value {
            None if !optional => Err(format!(
                "couldn't find key {} in Secret {namespace}/{}",
                reference.key, reference.name
            )),
            value => Ok(value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())),
        };
    }
    Ok(Some(String::new()))
}

fn one_service(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first().filter(|_| !matches!(ip, "" | "None")) else {
        return Vec::new();
    };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = upper(service.metadata.name.as_deref().unwrap_or_default());
    let mut env = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            env.push((format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string()));
        }
    }
    // The variables of Docker's container links, which upstream still makes.
    for (at, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{}", protocol.to_lowercase(), host_port(ip, port.port));
        if at == 0 {
            env.push((format!("{prefix}_PORT"), url.clone()));
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.push((link.clone(), url));
        env.push((format!("{link}_PROTO"), protocol.to_lowercase()));
        env.push((format!("{link}_PORT"), port.port.to_string()));
        env.push((format!("{link}_ADDR"), ip.to_owned()));
    }
    env
}

fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn lookup<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Variables in the order of their first mention, each name once.
#[derive(Default)]
struct Environment {
    variables: Vec<(String, String)>,
    names: BTreeSet<String>,
}

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        lookup(&self.variables, name)
    }

    fn set(&mut self, variable: &EnvVar, value: String) {
        self.put(variable.name.clone(), value);
    }

    fn put(&mut self, name: String, value: String) {
        if self.names.insert(name.clone()) {
            self.variables.push((name, value));
        } else if let Some((_, known)) = self.variables.iter_mut().find(|(known, _)| *known == name)
        {
            *known = value;
        }
    }

    fn set_default(&mut self, name: &str, value: &str) {
        if !self.names.contains(name) {
            self.put(name.to_owned(), value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::amounts::Amounts;

    fn check(container: Value, services: &[(&str, &str)], expected: Result<&[(&str, &str)], &str>) {
        let mut container = container;
        container["name"] = json!("main");
        let container: Container = serde_json::from_value(container).unwrap();
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" } }))
                .unwrap();
        let map = serde_json::from_value(json!({ "data": { "one": "1", "two": "2" } })).unwrap();
        let secret = serde_json::from_value(json!({ "data": { "key": "c2VjcmV0" } })).unwrap();
        let objects = Objects {
            config_maps: [("map".to_owned(), Arc::new(map))].into(),
            secrets: [("sec".to_owned(), Arc::new(secret))].into(),
        };
        let around = Surroundings {
            node_ip: "10.0.0.1".parse().unwrap(),
            pod_ip: None,
            allocatable: Amounts::default(),
        };
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Vec<_>>()
        };
        let env = environment(&pod, &container, &around, &objects, &owned(services));
        assert_eq!(env, expected.map(owned).map_err(str::to_owned), "{container:?}");
    }

    #[test]
    fn values_refer_to_what_came_before() {
        check(
            json!({ "env": [
                { "name": "A", "value": "a" },
                { "name": "B", "value": "$(A)$(LATER)$(SVC_SERVICE_HOST)" },
                { "name": "LATER", "value": "$$(A)" },
                { "name": "A", "value": "again $(A)" },
            ] }),
            &[("SVC_SERVICE_HOST", "10.1.1.1")],
            Ok(&[
                ("A", "again a"),
                ("B", "a$(LATER)10.1.1.1"),
                ("LATER", "$(A)"),
                ("SVC_SERVICE_HOST", "10.1.1.1"),
            ]),
        );
    }

    #[test]
    fn what_the_pod_says_wins_over_services() {
        check(
            json!({ "env": [{ "name": "SVC_SERVICE_HOST", "value": "mine" }] }),
            &[("SVC_SERVICE_HOST", "10.1.1.1")],
            Ok(&[("SVC_SERVICE_HOST", "mine")]),
        );
    }

    #[test]
    fn whole_objects_come_in_with_a_prefix_and_single_keys_win() {
        check(
            json!({
                "envFrom": [
                    { "prefix": "P_", "configMapRef": { "name": "map" } },
                    { "secretRef": { "name": "sec" } },
                    { "configMapRef": { "name": "none", "optional": true } },
                ],
                "env": [
                    { "name": "P_two", "value": "own" },
                    { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "sec", "key": "key" } } },
                    { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "GONE", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "no", "optional": true } } },
                ],
            }),
            &[],
            Ok(&[
                ("P_one", "1"),
                ("P_two", "own"),
                ("key", "secret"),
                ("KEY", "secret"),
                ("NAME", "p"),
            ]),
        );
    }

    #[test]
    fn what_is_missing_is_named_as_upstream_names_it() {
        let env = |source: Value| json!({ "env": [{ "name": "X", "valueFrom": source }] });
        check(
            env(json!({ "configMapKeyRef": { "name": "none", "key": "k" } })),
            &[],
            Err("configmap \"none\" not found"),
        );
        check(
            env(json!({ "secretKeyRef": { "name": "none", "key": "k" } })),
            &[],
            Err("secret \"none\" not found"),
        );
        check(
            env(json!({ "configMapKeyRef": { "name": "map", "key": "k" } })),
            &[],
            Err("couldn't find key k in ConfigMap ns/map"),
        );
        check(
            env(json!({ "secretKeyRef": { "name": "sec", "key": "k" } })),
            &[],
            Err("couldn't find key k in Secret ns/sec"),
        );
        check(
            json!({ "envFrom": [{ "secretRef": { "name": "none" } }] }),
            &[],
            Err("secret \"none\" not found"),
        );
    }

    #[test]
    fn services_are_named_as_docker_links_named_them() {
        let service = |namespace: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": namespace },
                "spec": { "clusterIP": ip, "ports": [{ "name": "web", "port": 80, "protocol": "TCP" }] },
            }))
            .unwrap()
        };
        let services = [
            service("ns", "my-svc", "10.0.0.5"),
            service("default", "kubernetes", "10.0.0.1"),
            service("ns", "head", "None"),
        ];
        let services: Vec<&Service> = services.iter().collect();
        let pod = |links: bool| -> Pod {
            let spec = json!({ "containers": [], "enableServiceLinks": links });
            serde_json::from_value(json!({ "metadata": { "namespace": "ns" }, "spec": spec }))
                .unwrap()
        };
        let env = service_links(&pod(true), &services);
        let value = |name: &str| lookup(&env, name);
        assert_eq!(value("KUBERNETES_SERVICE_HOST"), Some("10.0.0.1"));
        assert_eq!(value("MY_SVC_SERVICE_PORT"), Some("80"));
        assert_eq!(value("MY_SVC_SERVICE_PORT_WEB"), Some("80"));
        assert_eq!(value("MY_SVC_PORT"), Some("tcp://10.0.0.5:80"));
        assert_eq!(value("MY_SVC_PORT_80_TCP_ADDR"), Some("10.0.0.5"));
        assert_eq!(value("HEAD_SERVICE_HOST"), None, "a headless Service has no address");
        let bare = service_links(&pod(false), &services);
        assert!(bare.iter().all(|(name, _)| name.starts_with("KUBERNETES_")), "{bare:?}");
    }
}
