//! The Pod Security Standards: each check, since which release, and what it says.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>. The messages are upstream's, and so is the order: the
//! checks of the baseline by name, then those of the restricted level.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, ContainerPort, Lifecycle, LifecycleHandler, PodSecurityContext,
    PodSpec, Probe, SELinuxOptions, SeccompProfile, SecurityContext, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::policy::{Level, Standard, Version};

/// What a pod does that its standard forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    reason: &'static str,
    detail: String,
}

/// Which reasons, without the particulars.
pub(super) fn reasons(found: &[Violation]) -> String {
    found.iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ")
}

/// Each reason with who does what.
pub(super) fn details(found: &[Violation]) -> String {
    let each = found.iter().map(|Violation { reason, detail }| match detail.as_str() {
        "" => (*reason).to_owned(),
        detail => format!("{reason} ({detail})"),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// All that the standard forbids about this pod.
pub(super) fn violations(
    standard: Standard,
    metadata: &ObjectMeta,
    spec: &PodSpec,
) -> Vec<Violation> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let pod = Subject::new(metadata, spec);
    let restricted = standard.level == Level::Restricted;
    let checks = CHECKS.iter().filter(|check| {
        let level = match check.level {
            // The stricter twin of the check says it all.
            Applies::Baseline => true,
            Applies::BaselineOnly => !restricted,
            Applies::Restricted => restricted,
        };
        level && Version::Minor(check.since) <= standard.version
    });
    checks.filter_map(|check| (check.find)(&pod, standard.version)).collect()
}

enum Applies {
    Baseline,
    BaselineOnly,
    Restricted,
}

struct Check {
    level: Applies,
    /// The minor release that introduced it.
    since: u32,
    find: fn(&Subject<'_>, Version) -> Option<Violation>,
}

const fn baseline(since: u32, find: fn(&Subject<'_>, Version) -> Option<Violation>) -> Check {
    Check { level: Applies::Baseline, since, find }
}

const fn baseline_only(since: u32, find: fn(&Subject<'_>, Version) -> Option<Violation>) -> Check {
    Check { level: Applies::BaselineOnly, since, find }
}

const fn restricted(since: u32, find: fn(&Subject<'_>, Version) -> Option<Violation>) -> Check {
    Check { level: Applies::Restricted, since, find }
}

static CHECKS: [Check; 18] = [
    baseline(0, app_armor),
    baseline_only(0, non_default_capabilities),
    baseline(0, host_namespaces),
    baseline_only(0, host_path_volumes),
    baseline(0, host_ports),
    baseline(34, probe_hosts),
    baseline(0, privileged),
    baseline(0, proc_mount),
    baseline(0, se_linux),
    baseline_only(0, seccomp),
    baseline(0, sysctls),
    baseline(0, windows_host_process),
    restricted(8, privilege_escalation),
    restricted(22, capabilities),
    restricted(0, volume_types),
    restricted(0, run_as_non_root),
    restricted(23, run_as_user),
    restricted(19, seccomp_required),
];

/// The pod as the checks see it.
struct Subject<'a> {
    metadata: &'a ObjectMeta,
    spec: &'a PodSpec,
    context: Option<&'a PodSecurityContext>,
    containers: Vec<Container<'a>>,
}

/// Any of the three sorts of containers.
struct Container<'a> {
    name: &'a str,
    context: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: Vec<&'a Probe>,
    lifecycle: Option<&'a Lifecycle>,
}

impl<'a> Subject<'a> {
    fn new(metadata: &'a ObjectMeta, spec: &'a PodSpec) -> Self {
        macro_rules! view {
            ($container:expr) => {{
                let one = $container;
                let probes = [&one.liveness_probe, &one.readiness_probe, &one.startup_probe];
                Container {
                    name: &one.name,
                    context: one.security_context.as_ref(),
                    ports: one.ports.as_deref().unwrap_or_default(),
                    probes: probes.into_iter().flatten().collect(),
                    lifecycle: one.lifecycle.as_ref(),
                }
            }};
        }
        let init = spec.init_containers.iter().flatten().map(|one| view!(one));
        let main = spec.containers.iter().map(|one| view!(one));
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| view!(one));
        let containers = init.chain(main).chain(ephemeral).collect();
        Self { metadata, spec, context: spec.security_context.as_ref(), containers }
    }

    /// The names of the containers that are so.
    fn which(&self, is_so: impl Fn(&Container<'_>) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|one| is_so(one)).map(|one| one.name).collect()
    }

    /// The same, by what their security contexts say.
    fn which_say(&self, says: impl Fn(&SecurityContext) -> bool) -> Vec<&'a str> {
        self.which(|one| one.context.is_some_and(&says))
    }

    fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// Root in a user namespace of its own is nobody outside of it.
    fn has_own_users(&self, version: Version) -> bool {
        version >= Version::Minor(35) && self.spec.host_users == Some(false)
    }

    fn annotations(&self) -> impl Iterator<Item = (&'a String, &'a String)> + use<'a> {
        self.metadata.annotations.iter().flatten()
    }
}

fn found(reason: &'static str, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason, detail: detail.into() })
}

fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> =
        names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}

fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`; nothing if it is nobody.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, names) => Some(containers(names)),
        (true, names) => Some(format!("pod and {}", containers(names))),
    }
}

fn app_armor(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut types = BTreeSet::new();
    let mut is_bad = |profile: Option<&AppArmorProfile>| {
        let bad = profile.filter(|it| !matches!(it.type_.as_str(), "RuntimeDefault" | "Localhost"));
        bad.is_some_and(|bad| {
            types.insert(bad.type_.clone());
            true
        })
    };
    let by_pod = is_bad(pod.context.and_then(|context| context.app_armor_profile.as_ref()));
    let mut by_containers = Vec::new();
    for container in &pod.containers {
        if is_bad(container.context.and_then(|context| context.app_armor_profile.as_ref())) {
            by_containers.push(container.name);
        }
    }
    let fields = setters(by_pod, &by_containers)
        .map(|who| format!("{who} must not set AppArmor profile type to {}", quoted(&types)));
    let annotations: Vec<String> = pod
        .annotations()
        .filter(|(name, value)| {
            let allowed =
                value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            name.starts_with(PREFIX) && !allowed
        })
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    let count = annotations.len() + types.len();
    let details: Vec<String> = fields.into_iter().chain(annotations).collect();
    if details.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count);
    found(reason, details.join(", "))
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Who adds capabilities other than these, and which.
fn added_beyond<'a>(pod: &Subject<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<String>) {
    let beyond = |capabilities: Option<&Capabilities>| -> Vec<String> {
        let added = capabilities.and_then(|capabilities| capabilities.add.as_ref());
        let added = added.into_iter().flatten();
        added.filter(|name| !allowed.contains(&name.as_str())).cloned().collect()
    };
    let mut all = BTreeSet::new();
    let mut who = Vec::new();
    for container in &pod.containers {
        let mine = beyond(container.context.and_then(|context| context.capabilities.as_ref()));
        if !mine.is_empty() {
            who.push(container.name);
            all.extend(mine);
        }
    }
    (who, all)
}

fn forbidden_additions(who: &[&str], which: &BTreeSet<String>) -> Option<String> {
    (!who.is_empty()).then(|| {
        let which = quoted(which);
        format!("{} must not include {which} in securityContext.capabilities.add", containers(who))
    })
}

fn non_default_capabilities(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    let (who, which) = added_beyond(pod, &DEFAULT_CAPABILITIES);
    found("non-default capabilities", forbidden_additions(&who, &which)?)
}

fn host_namespaces(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    let shared = [
        (pod.spec.host_ipc, "hostIPC=true"),
        (pod.spec.host_network, "hostNetwork=true"),
        (pod.spec.host_pid, "hostPID=true"),
    ];
    let shared: Vec<&str> =
        shared.iter().filter(|(set, _)| *set == Some(true)).map(|(_, name)| *name).collect();
    if shared.is_empty() { None } else { found("host namespaces", shared.join(", ")) }
}

fn host_path_volumes(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    let volumes = pod.spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    let names: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let noun = plural("volume", "volumes", names.len());
    found("hostPath volumes", format!("{noun} {}", quoted(names)))
}

fn host_ports(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    let of = |container: &Container<'_>| -> Vec<i32> {
        let ports = container.ports.iter().filter_map(|port| port.host_port);
        ports.filter(|&port| port != 0).collect()
    };
    let who = pod.which(|container| !of(container).is_empty());
    let ports: BTreeSet<String> =
        pod.containers.iter().flat_map(of).map(|port| port.to_string()).collect();
    let listed = ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let noun = plural("hostPort", "hostPorts", ports.len());
    uses("hostPort", &who, noun, &listed)
}

fn uses(reason: &'static str, who: &[&str], noun: &str, what: &str) -> Option<Violation> {
    if who.is_empty() {
        return None;
    }
    let verb = plural("uses", "use", who.len());
    found(reason, format!("{} {verb} {noun} {what}", containers(who)))
}

fn probe_hosts(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    fn hooks(lifecycle: Option<&Lifecycle>) -> impl Iterator<Item = &LifecycleHandler> {
        lifecycle.into_iter().flat_map(|it| it.post_start.iter().chain(it.pre_stop.iter()))
    }
    let of = |container: &Container<'_>| -> Vec<String> {
        let probes = container.probes.iter().flat_map(|probe| {
            let http = probe.http_get.as_ref().and_then(|get| get.host.clone());
            [http, probe.tcp_socket.as_ref().and_then(|socket| socket.host.clone())]
        });
        let hooks = hooks(container.lifecycle).flat_map(|hook| {
            let http = hook.http_get.as_ref().and_then(|get| get.host.clone());
            [http, hook.tcp_socket.as_ref().and_then(|socket| socket.host.clone())]
        });
        probes.chain(hooks).flatten().filter(|host| !host.is_empty()).collect()
    };
    let who = pod.which(|container| !of(container).is_empty());
    let hosts: BTreeSet<String> = pod.containers.iter().flat_map(of).collect();
    let noun = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    uses("probe or lifecycle host", &who, noun, &quoted(hosts))
}

fn privileged(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    let who = pod.which_say(|context| context.privileged == Some(true));
    let who = setters(false, &who)?;
    found("privileged", format!("{who} must not set securityContext.privileged=true"))
}

fn proc_mount(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    if pod.has_own_users(version) {
        return None;
    }
    let other =
        |context: &SecurityContext| context.proc_mount.clone().filter(|mount| mount != "Default");
    let who = setters(false, &pod.which_say(|context| other(context).is_some()))?;
    let types: BTreeSet<String> =
        pod.containers.iter().filter_map(|one| one.context.and_then(other)).collect();
    found("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(types)))
}

fn se_linux(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    let is_known = |type_: &str| match type_ {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => version >= Version::Minor(31),
        _ => false,
    };
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let bad_type = |options: &SELinuxOptions| text(&options.type_).filter(|it| !is_known(it));
    let is_bad = |options: &SELinuxOptions| {
        bad_type(options).is_some()
            || text(&options.user).is_some()
            || text(&options.role).is_some()
    };
    let by_pod = pod.context.and_then(|context| context.se_linux_options.as_ref());
    let of = |context: &SecurityContext| context.se_linux_options.as_ref().is_some_and(is_bad);
    let who = setters(by_pod.is_some_and(is_bad), &pod.which_say(of))?;

    let own = pod.containers.iter().filter_map(|one| one.context?.se_linux_options.as_ref());
    let all: Vec<&SELinuxOptions> = by_pod.into_iter().chain(own).collect();
    let types: BTreeSet<String> = all.iter().filter_map(|options| bad_type(options)).collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if all.iter().any(|options| text(&options.user).is_some()) {
        what.push("user may not be set".to_owned());
    }
    if all.iter().any(|options| text(&options.role).is_some()) {
        what.push("role may not be set".to_owned());
    }
    let what = what.join("; ");
    found("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {what}"))
}

fn is_confined(profile: &SeccompProfile) -> bool {
    matches!(profile.type_.as_str(), "RuntimeDefault" | "Localhost")
}

/// Who asks for a profile that confines nothing.
fn unconfined(pod: &Subject<'_>) -> Option<Violation> {
    let by_pod = pod.context.and_then(|context| context.seccomp_profile.as_ref());
    let is_bad = |profile: &SeccompProfile| !is_confined(profile);
    let own = |context: &SecurityContext| context.seccomp_profile.as_ref().is_some_and(is_bad);
    let who = setters(by_pod.is_some_and(is_bad), &pod.which_say(own))?;
    let own = pod.containers.iter().filter_map(|one| one.context?.seccomp_profile.as_ref());
    let bad = by_pod.into_iter().chain(own).filter(|profile| !is_confined(profile));
    let types: BTreeSet<&str> = bad.map(|profile| profile.type_.as_str()).collect();
    let types = quoted(types);
    found(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {types}"),
    )
}

fn seccomp(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    if version >= Version::Minor(19) {
        return unconfined(pod);
    }
    // Before there was a field, annotations said it.
    let mine = |name: &str| {
        name == "seccomp.security.alpha.kubernetes.io/pod"
            || name
                .strip_prefix("container.seccomp.security.alpha.kubernetes.io/")
                .is_some_and(|of| pod.containers.iter().any(|container| container.name == of))
    };
    let is_confined = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let bad: BTreeMap<&String, &String> =
        pod.annotations().filter(|(name, value)| mine(name) && !is_confined(value)).collect();
    if bad.is_empty() {
        return None;
    }
    let listed: Vec<String> =
        bad.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let noun = plural("annotation", "annotations", bad.len());
    found("seccompProfile", format!("forbidden {noun} {}", listed.join(", ")))
}

/// Sysctls that concern nobody but the pod, with the release that first allowed them.
const SAFE_SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    let is_safe = |name: &str| {
        let mut safe = SAFE_SYSCTLS.iter();
        safe.any(|&(known, since)| known == name && Version::Minor(since) <= version)
    };
    let set = pod.context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    let unsafe_ones: Vec<&str> =
        set.map(|sysctl| sysctl.name.as_str()).filter(|name| !is_safe(name)).collect();
    if unsafe_ones.is_empty() {
        return None;
    }
    found("forbidden sysctls", unsafe_ones.join(", "))
}

fn windows_host_process(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    let by_pod = pod.context.and_then(|context| context.windows_options.as_ref());
    let by_pod = by_pod.is_some_and(|options| options.host_process == Some(true));
    let own = pod.which_say(|context| {
        context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true))
    });
    let who = setters(by_pod, &own)?;
    found(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

fn privilege_escalation(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    if version >= Version::Minor(25) && pod.is_windows() {
        return None;
    }
    let who = pod.which(|container| {
        container.context.and_then(|context| context.allow_privilege_escalation) != Some(false)
    });
    let who = setters(false, &who)?;
    found(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

fn capabilities(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    if version >= Version::Minor(25) && pod.is_windows() {
        return None;
    }
    let keeps = pod.which(|container| {
        let capabilities = container.context.and_then(|context| context.capabilities.as_ref());
        let dropped = capabilities.and_then(|capabilities| capabilities.drop.as_ref());
        !dropped.is_some_and(|dropped| dropped.iter().any(|name| name == "ALL"))
    });
    let keeps = setters(false, &keeps)
        .map(|who| format!(r#"{who} must set securityContext.capabilities.drop=["ALL"]"#));
    let (who, which) = added_beyond(pod, &["NET_BIND_SERVICE"]);
    let details: Vec<String> = keeps.into_iter().chain(forbidden_additions(&who, &which)).collect();
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

fn volume_types(pod: &Subject<'_>, _: Version) -> Option<Violation> {
    let restricted: Vec<(&str, &str)> = pod
        .spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| Some((volume.name.as_str(), restricted_type(volume)?)))
        .collect();
    if restricted.is_empty() {
        return None;
    }
    let types: BTreeSet<&str> = restricted.iter().map(|(_, type_)| *type_).collect();
    let count = restricted.len();
    let detail = format!(
        "{} {} {} restricted volume {} {}",
        plural("volume", "volumes", count),
        quoted(restricted.iter().map(|(name, _)| name)),
        plural("uses", "use", count),
        plural("type", "types", types.len()),
        quoted(&types)
    );
    found("restricted volume types", detail)
}

/// The type of a volume that is neither the pod's own nor a claim.
fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    let types = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    Some(types.iter().find(|(is, _)| *is).map_or("unknown", |(_, name)| name))
}

fn run_as_non_root(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if pod.has_own_users(version) {
        return None;
    }
    let by_pod = pod.context.and_then(|context| context.run_as_non_root);
    let root = pod.which_say(|context| context.run_as_non_root == Some(false));
    if let Some(who) = setters(by_pod == Some(false), &root) {
        return found(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if by_pod == Some(true) {
        return None;
    }
    let silent = pod.which(|one| one.context.and_then(|context| context.run_as_non_root).is_none());
    let who = setters(false, &silent)?;
    found(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn run_as_user(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    if pod.has_own_users(version) {
        return None;
    }
    let by_pod = pod.context.and_then(|context| context.run_as_user) == Some(0);
    let who = setters(by_pod, &pod.which_say(|context| context.run_as_user == Some(0)))?;
    found("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp_required(pod: &Subject<'_>, version: Version) -> Option<Violation> {
    if version >= Version::Minor(25) && pod.is_windows() {
        return None;
    }
    if let Some(bad) = unconfined(pod) {
        return Some(bad);
    }
    if pod.context.is_some_and(|context| context.seccomp_profile.is_some()) {
        return None;
    }
    let silent =
        pod.which(|one| one.context.and_then(|context| context.seccomp_profile.as_ref()).is_none());
    let who = setters(false, &silent)?;
    let rule = r#"must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#;
    found("seccompProfile", format!("pod or {who} {rule}"))
}
