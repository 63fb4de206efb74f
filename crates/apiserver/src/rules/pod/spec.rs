//! What a pod's spec may say (`ValidatePodSpec` in `pkg/apis/core/validation/validation.go`).

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use serde_json::Value;

use crate::rules::checks::{
    labels, number_each, one_of, quantity_not_negative, required_one_of, unique,
};
use crate::rules::json::Read;
use crate::rules::metadata;
use crate::rules::pod::{claims, containers, host, resources, scheduling, volumes};

/// Checks the spec of a pod, or of the template of one.
pub fn validate(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let volumes = volumes::validate(&spec["volumes"], &path.child("volumes"), errors);
    containers::validate_all(spec, &volumes, path, errors);
    required_one_of(
        &spec["restartPolicy"],
        &["Always", "OnFailure", "Never"],
        path.child("restartPolicy"),
        errors,
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    required_one_of(&spec["dnsPolicy"], &dns, path.child("dnsPolicy"), errors);
    labels(&spec["nodeSelector"], &path.child("nodeSelector"), errors);
    security(spec, &path.child("securityContext"), errors);
    scheduling::affinity(&spec["affinity"], &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    scheduling::spread(
        &spec["topologySpreadConstraints"],
        &path.child("topologySpreadConstraints"),
        errors,
    );
    names_of_others(spec, path, errors);
    deadline(&spec["activeDeadlineSeconds"], &path.child("activeDeadlineSeconds"), errors);
    scheduling::tolerations(&spec["tolerations"], &path.child("tolerations"), errors);
    host_aliases(&spec["hostAliases"], &path.child("hostAliases"), errors);
    one_of(
        &spec["preemptionPolicy"],
        &["Never", "PreemptLowerPriority"],
        path.child("preemptionPolicy"),
        errors,
    );
    for (name, quantity) in spec["overhead"].entries() {
        quantity_not_negative(quantity, &path.child("overhead").key(name), errors);
    }
    claims::validate(spec, path, errors);
    host::validate(spec, path, errors);
    resources::resize_policies(spec, path, errors);
    resources::of_pod(spec, &path.child("resources"), errors);
    if spec["os"].is_set() {
        required_one_of(
            &spec["os"]["name"],
            &["linux", "windows"],
            path.child("os").child("name"),
            errors,
        );
    }
}

/// Checks what a new pod may not have yet.
pub fn validate_new(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    if spec["ephemeralContainers"].size() > 0 {
        errors.forbidden(path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !spec["nodeName"].text().is_empty() && spec["schedulingGates"].size() > 0 {
        errors.forbidden(
            path.child("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

fn deadline(seconds: &Value, path: &Path, errors: &mut FieldErrors) {
    if seconds.is_set() {
        number_each(seconds, names::in_range(seconds.int(), 1, i64::from(i32::MAX)), path, errors);
    }
}

/// Checks names that stand for other objects, and the pod's own host name.
fn names_of_others(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let name = spec[field].text();
        if !name.is_empty() {
            errors.invalid_each(path.child(field), name, names::dns_subdomain(name));
        }
    }
    for field in ["hostname", "subdomain"] {
        let name = spec[field].text();
        if !name.is_empty() {
            errors.invalid_each(path.child(field), name, names::dns_label(name));
        }
    }
}

fn security(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    let context = &spec["securityContext"];
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        user_id(&context[field], &path.child(field), errors);
    }
    for (index, group) in context["supplementalGroups"].items().iter().enumerate() {
        user_id(group, &path.child("supplementalGroups").index(index), errors);
    }
    sysctls(context["sysctls"].items(), &path.child("sysctls"), errors);
    let policies = ["Always", "OnRootMismatch"];
    one_of(&context["fsGroupChangePolicy"], &policies, path.child("fsGroupChangePolicy"), errors);
    for (field, supported) in [
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        one_of(&context[field], &supported, path.child(field), errors);
    }
    for (index, sysctl) in context["sysctls"].items().iter().enumerate() {
        let at = path.child("sysctls").index(index).child("name");
        host_sysctl(sysctl["name"].text(), spec, at, errors);
    }
    seccomp(&context["seccompProfile"], &path.child("seccompProfile"), errors);
    if spec["shareProcessNamespace"].flag() && spec["hostPID"].flag() {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(path.child("shareProcessNamespace"), true, detail);
    }
}

/// Checks the names of kernel parameters; whether a node allows them is the node's business.
fn sysctls(sysctls: &[Value], path: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let (name, at) = (sysctl["name"].text(), path.index(index).child("name"));
        if name.is_empty() {
            errors.required(at, "");
        } else if is_sysctl(name) {
            unique(&mut seen, name, at, errors);
        } else {
            let detail =
                format!("must have at most {SYSCTL_BYTES} characters and match regex {SYSCTL}");
            errors.invalid(at, name, detail);
        }
    }
}

/// Parameters of a namespace that the pod shares with its host are the host's.
fn host_sysctl(name: &str, spec: &Value, path: Path, errors: &mut FieldErrors) {
    let plain = name.replace('/', ".");
    let is_of_ipc =
        ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| plain.starts_with(prefix))
            || plain == "kernel.sem";
    if spec["hostNetwork"].flag() && plain.starts_with("net.") {
        errors.invalid(path, name, "may not be specified when 'hostNetwork' is true");
    } else if spec["hostIPC"].flag() && is_of_ipc {
        errors.invalid(path, name, "may not be specified when 'hostIPC' is true");
    }
}

const SYSCTL_BYTES: usize = 253;
/// Upstream's words for [`is_sysctl`].
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Segments of lower-case letters and digits, with dashes and underscores inside, joined by dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= SYSCTL_BYTES
        && name.split(['.', '/']).map(str::as_bytes).all(|segment| {
            segment.first().is_some_and(plain)
                && segment.last().is_some_and(plain)
                && segment.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'_'))
        })
}

/// Checks the number of a user or group, if given.
pub fn user_id(id: &Value, path: &Path, errors: &mut FieldErrors) {
    if id.is_set() {
        number_each(id, names::in_range(id.int(), 0, i64::from(i32::MAX)), path, errors);
    }
}

/// Checks a seccomp profile, if given.
pub fn seccomp(profile: &Value, path: &Path, errors: &mut FieldErrors) {
    if !profile.is_set() {
        return;
    }
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    required_one_of(&profile["type"], &types, path.child("type"), errors);
    let local = profile["localhostProfile"].is_set();
    if profile["type"] == "Localhost" && !local {
        errors
            .required(path.child("localhostProfile"), "must be set when seccomp type is Localhost");
    } else if profile["type"] != "Localhost" && local {
        let detail = "can only be set when seccomp type is Localhost";
        errors.invalid(path.child("localhostProfile"), profile["localhostProfile"].clone(), detail);
    }
}

fn dns_config(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    /// As many as a resolver asks.
    const MAX_NAMESERVERS: usize = 3;
    /// What resolvers take.
    const MAX_SEARCHES: usize = 32;
    const MAX_SEARCH_BYTES: usize = 2048;
    let servers = &spec["dnsConfig"]["nameservers"];
    if spec["dnsPolicy"] == "None" && servers.size() == 0 {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required(path.child("nameservers"), detail);
    }
    if servers.size() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(path.child("nameservers"), servers.clone(), detail);
    }
    for (index, server) in servers.items().iter().enumerate() {
        let at = path.child("nameservers").index(index);
        errors.invalid_each(at, server.text(), names::ip_address(server.text()));
    }
    let searches = &spec["dnsConfig"]["searches"];
    if searches.size() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(path.child("searches"), searches.clone(), detail);
    }
    let length: usize = searches.items().iter().map(|search| search.text().len() + 1).sum();
    if length > MAX_SEARCH_BYTES + 1 {
        let detail = format!(
            "must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list"
        );
        errors.invalid(path.child("searches"), searches.clone(), detail);
    }
    for (index, search) in spec["dnsConfig"]["searches"].items().iter().enumerate() {
        let name = search.text().trim_end_matches('.').replace('_', "a");
        let at = path.child("searches").index(index);
        if !name.is_empty() {
            errors.invalid_each(at, search.text(), names::dns_subdomain(&name));
        }
    }
    for (index, option) in spec["dnsConfig"]["options"].items().iter().enumerate() {
        if option["name"].text().is_empty() {
            errors.required(path.child("options").index(index), "must not be empty");
        }
    }
}

fn gates(spec: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, gate) in spec["readinessGates"].items().iter().enumerate() {
        let name = gate["conditionType"].text();
        let at = path.child("readinessGates").index(index).child("conditionType");
        errors.invalid_each(at, name, names::qualified_name(name));
    }
    let mut seen = Vec::new();
    for (index, gate) in spec["schedulingGates"].items().iter().enumerate() {
        let name = gate["name"].text();
        let at = path.child("schedulingGates").index(index);
        errors.invalid_each(&at, name, names::qualified_name(name));
        unique(&mut seen, name, at, errors);
    }
}

fn host_aliases(aliases: &Value, path: &Path, errors: &mut FieldErrors) {
    for (index, alias) in aliases.items().iter().enumerate() {
        let at = path.index(index);
        errors.invalid_each(
            at.child("ip"),
            alias["ip"].text(),
            names::ip_address(alias["ip"].text()),
        );
        for host in alias["hostnames"].items() {
            errors.invalid_each(
                at.child("hostnames"),
                host.text(),
                names::dns_subdomain(host.text()),
            );
        }
    }
}

/// Checks a template of pods: its labels, annotations and spec.
pub fn validate_template(template: &Value, path: &Path, errors: &mut FieldErrors) {
    labels(&template["metadata"]["labels"], &path.child("labels"), errors);
    let (annotations, at) = (&template["metadata"]["annotations"], path.child("annotations"));
    metadata::annotations(annotations, &at, errors);
    super::annotations::validate(annotations, &template["spec"], &at, errors);
    validate(&template["spec"], &path.child("spec"), errors);
    if template["spec"]["ephemeralContainers"].size() > 0 {
        let at = path.child("spec").child("ephemeralContainers");
        errors.forbidden(at, "ephemeral containers not allowed in pod template");
    }
}
