//! The containers of a pod: regular, init and ephemeral ones.

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{required_one_of, unique};
use crate::rules::json::Read;
use crate::rules::pod::{environment, mounts, probes, resources, spec};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Checks every container of a pod's spec.
pub fn validate_all(spec: &Value, volumes: &[&Value], path: &Path, errors: &mut FieldErrors) {
    let containers = &spec["containers"];
    let at = path.child("containers");
    if containers.size() == 0 {
        errors.required(&at, "");
    }
    let mut names = Vec::new();
    for (index, container) in containers.items().iter().enumerate() {
        let at = at.index(index);
        common(container, volumes, &at, errors);
        unique(&mut names, container["name"].text(), at.child("name"), errors);
        handlers(container, &at, errors);
    }
    host_ports(spec, &at, errors);
    init_containers(spec, volumes, names.clone(), &path.child("initContainers"), errors);
    for container in spec["initContainers"].items() {
        names.push(container["name"].text());
    }
    ephemeral_containers(spec, volumes, names, &path.child("ephemeralContainers"), errors);
}

fn init_containers(
    spec: &Value,
    volumes: &[&Value],
    regular: Vec<&str>,
    path: &Path,
    errors: &mut FieldErrors,
) {
    let mut names = regular;
    for (index, container) in spec["initContainers"].items().iter().enumerate() {
        let at = path.index(index);
        common(container, volumes, &at, errors);
        if !container["name"].text().is_empty() {
            unique(&mut names, container["name"].text(), at.child("name"), errors);
        }
        if container["restartPolicy"] == "Always" {
            handlers(container, &at, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container[field].is_set() {
                errors.forbidden(
                    at.child(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
        if container["resizePolicy"].size() > 0 {
            let detail = "must not be set for init containers";
            errors.invalid(at.child("resizePolicy"), container["resizePolicy"].clone(), detail);
        }
    }
}

fn ephemeral_containers(
    spec: &Value,
    volumes: &[&Value],
    taken: Vec<&str>,
    path: &Path,
    errors: &mut FieldErrors,
) {
    let mut names = taken;
    for (index, container) in spec["ephemeralContainers"].items().iter().enumerate() {
        let at = path.index(index);
        common(container, volumes, &at, errors);
        unique(&mut names, container["name"].text(), at.child("name"), errors);
        let target = container["targetContainerName"].text();
        let targets = || spec["containers"].items().iter().chain(spec["initContainers"].items());
        if !target.is_empty() && !targets().any(|container| container["name"] == target) {
            errors.not_found(at.child("targetContainerName"), target);
        }
        for field in PROBES.iter().chain(&["ports", "lifecycle", "resizePolicy", "restartPolicy"]) {
            if container[*field].is_set() {
                errors.forbidden(at.child(field), "cannot be set for an Ephemeral Container");
            }
        }
        if container["resources"].size() > 0 {
            errors.forbidden(at.child("resources"), "cannot be set for an Ephemeral Container");
        }
        for (index, mount) in container["volumeMounts"].items().iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !mount[field].text().is_empty() {
                    let at = at.child("volumeMounts").index(index).child(field);
                    errors.forbidden(at, "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn common(container: &Value, volumes: &[&Value], path: &Path, errors: &mut FieldErrors) {
    match container["name"].text() {
        "" => errors.required(path.child("name"), ""),
        name => errors.invalid_each(path.child("name"), name, names::dns_label(name)),
    }
    image(container, path, errors);
    let policies = ["File", "FallbackToLogsOnError"];
    required_one_of(
        &container["terminationMessagePolicy"],
        &policies,
        path.child("terminationMessagePolicy"),
        errors,
    );
    ports(&container["ports"], &path.child("ports"), errors);
    environment::variables(&container["env"], &path.child("env"), errors);
    environment::sources(&container["envFrom"], &path.child("envFrom"), errors);
    mounts::validate(container, volumes, path, errors);
    let policies = ["Always", "IfNotPresent", "Never"];
    required_one_of(
        &container["imagePullPolicy"],
        &policies,
        path.child("imagePullPolicy"),
        errors,
    );
    resources::validate(&container["resources"], &path.child("resources"), errors);
    security(&container["securityContext"], &path.child("securityContext"), errors);
}

/// Checks that there is an image, without blanks around it.
pub fn image(container: &Value, path: &Path, errors: &mut FieldErrors) {
    let image = container["image"].text();
    if image.is_empty() {
        errors.required(path.child("image"), "");
    } else if image.trim() != image {
        errors.invalid(path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn ports(ports: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut names = Vec::new();
    for (index, port) in ports.items().iter().enumerate() {
        let at = path.index(index);
        let name = port["name"].text();
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() {
                unique(&mut names, name, at.child("name"), errors);
            } else {
                errors.invalid_each(at.child("name"), name, wrong);
            }
        }
        if port["containerPort"].int() == 0 {
            errors.required(at.child("containerPort"), "");
        }
        for field in ["containerPort", "hostPort"] {
            if port[field].int() != 0 {
                for message in names::port_number(port[field].int()) {
                    errors.invalid(at.child(field), port[field].clone(), message);
                }
            }
        }
        required_one_of(&port["protocol"], &["SCTP", "TCP", "UDP"], at.child("protocol"), errors);
    }
}

/// Two containers cannot have the same port of the host.
fn host_ports(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut taken = Vec::new();
    for (index, container) in spec["containers"].items().iter().enumerate() {
        for (number, port) in container["ports"].items().iter().enumerate() {
            let at = path.index(index).child("ports").index(number);
            let host_port = port["hostPort"].int();
            if spec["hostNetwork"].flag() && host_port != port["containerPort"].int() {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.invalid(at.child("containerPort"), port["containerPort"].clone(), detail);
            }
            if host_port == 0 {
                continue;
            }
            let address =
                format!("{}/{}/{host_port}", port["protocol"].text(), port["hostIP"].text());
            if taken.contains(&address) {
                errors.duplicate(at.child("hostPort"), address);
            } else {
                taken.push(address);
            }
        }
    }
}

fn handlers(container: &Value, path: &Path, errors: &mut FieldErrors) {
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if handler.is_set() {
            probes::handler(handler, &path.child("lifecycle").child(hook), errors);
        }
    }
    for name in PROBES {
        probes::validate(name, &container[name], &path.child(name), errors);
    }
}

fn security(context: &Value, path: &Path, errors: &mut FieldErrors) {
    for field in ["runAsUser", "runAsGroup"] {
        spec::user_id(&context[field], &path.child(field), errors);
    }
    spec::seccomp(&context["seccompProfile"], &path.child("seccompProfile"), errors);
    if context["procMount"].is_set() {
        required_one_of(
            &context["procMount"],
            &["Default", "Unmasked"],
            path.child("procMount"),
            errors,
        );
    }
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"].flag() {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context.clone(), detail);
        }
        if context["capabilities"]["add"]
            .items()
            .iter()
            .any(|capability| capability == "CAP_SYS_ADMIN")
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context.clone(), detail);
        }
    }
}
