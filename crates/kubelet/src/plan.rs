//! What to do next with one pod: a pure decision over its spec and what its containers do.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// What one container of the pod does right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not started in this sandbox. After a failed start it waits until then.
    Idle {
        /// When the next attempt is due.
        retry_at: Option<Timestamp>,
    },
    /// Being started.
    Starting,
    /// Runs.
    Running {
        /// True once its startup probe, if it has one, has passed.
        started: bool,
        /// True when a probe says that it must be restarted.
        unhealthy: bool,
    },
    /// Was told to stop.
    Stopping,
    /// Ended.
    Exited {
        /// What it returned.
        exit_code: i32,
        /// When its back-off is over.
        restart_at: Timestamp,
    },
}

/// What the pod is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Run to its own end.
    Run,
    /// End now: deleted, past its deadline, or the node stops.
    End,
}

/// What one pass does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Containers to start, by name.
    pub(crate) start: Vec<String>,
    /// Containers to stop, by name.
    pub(crate) stop: Vec<String>,
    /// When to look again although nothing changed.
    pub(crate) wake_at: Option<Timestamp>,
    /// True when every init container has done its part.
    pub(crate) initialized: bool,
    /// True when nothing runs, and nothing will run again.
    pub(crate) ended: bool,
}

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next begins.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the pod's containers.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// Every container of the pod with its role, init containers first.
pub(crate) fn containers(spec: &PodSpec) -> impl Iterator<Item = (Role, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (if sidecar { Role::Sidecar } else { Role::Init }, container)
    });
    init.chain(spec.containers.iter().map(|container| (Role::Main, container)))
}

/// True when a container that returned `exit_code` is started again.
pub(crate) fn restarts(spec: &PodSpec, role: Role, container: &Container, exit_code: i32) -> bool {
    if role == Role::Sidecar {
        return true;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = rule.exit_codes.as_ref() else { continue };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        if rule.action == "Restart" && listed == (codes.operator == "In") {
            return true;
        }
    }
    let pod = spec.restart_policy.as_deref().unwrap_or("Always");
    match container.restart_policy.as_deref().unwrap_or(pod) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        // An init container that succeeded is done, even in a pod that restarts always.
        _ => role == Role::Main || exit_code != 0,
    }
}

/// Decides the next step of a pod.
pub(crate) fn plan(spec: &PodSpec, goal: Goal, seen: &BTreeMap<String, Seen>, now: Timestamp) -> Plan {
    let mut pass = Pass { spec, seen, now, plan: Plan::default() };
    match goal {
        Goal::Run => pass.run(),
        Goal::End => {
            pass.plan.initialized = pass.mains_begun();
            pass.end();
        }
    }
    pass.plan
}

struct Pass<'a> {
    spec: &'a PodSpec,
    seen: &'a BTreeMap<String, Seen>,
    now: Timestamp,
    plan: Plan,
}

/// Whether the init containers let the pod's containers begin.
enum Init {
    Done,
    Pending,
    Failed,
}

impl Pass<'_> {
    fn run(&mut self) {
        let init = if self.mains_begun() { self.keep_sidecars() } else { self.advance_init() };
        match init {
            Init::Pending => return,
            Init::Failed => {
                self.plan.start.clear();
                self.plan.wake_at = None;
                return self.end();
            }
            Init::Done => self.plan.initialized = true,
        }
        let mut alive = false;
        for container in &self.spec.containers {
            alive |= self.keep(Role::Main, container);
        }
        if !alive {
            // Sidecars live as long as the pod's containers.
            self.plan.start.clear();
            self.plan.stop.clear();
            self.plan.wake_at = None;
            self.end();
        }
    }

    fn mains_begun(&self) -> bool {
        let begun = |container: &Container| !matches!(self.state(container), Seen::Idle { retry_at: None });
        self.spec.containers.iter().any(begun)
    }

    fn advance_init(&mut self) -> Init {
        let spec = self.spec;
        for (role, container) in containers(spec) {
            match role {
                Role::Main => break,
                Role::Sidecar => {
                    self.keep(role, container);
                    if !matches!(self.state(container), Seen::Running { started: true, .. }) {
                        return Init::Pending;
                    }
                }
                Role::Init => match self.state(container) {
                    Seen::Exited { exit_code: 0, .. } => (),
                    Seen::Exited { exit_code, .. } if !restarts(spec, role, container, exit_code) => {
                        return Init::Failed;
                    }
                    Seen::Idle { .. }
                    | Seen::Starting
                    | Seen::Running { .. }
                    | Seen::Stopping
                    | Seen::Exited { .. } => {
                        self.keep(role, container);
                        return Init::Pending;
                    }
                },
            }
        }
        Init::Done
    }

    fn keep_sidecars(&mut self) -> Init {
        let spec = self.spec;
        for (role, container) in containers(spec) {
            if role == Role::Sidecar {
                self.keep(role, container);
            }
        }
        Init::Done
    }

    /// Starts, restarts or stops one container as it needs. False when it has ended for good.
    fn keep(&mut self, role: Role, container: &Container) -> bool {
        match self.state(container) {
            Seen::Idle { retry_at } => self.start_at(container, retry_at),
            Seen::Starting | Seen::Stopping => (),
            Seen::Running { unhealthy: true, .. } => self.plan.stop.push(container.name.clone()),
            Seen::Running { .. } => (),
            Seen::Exited { exit_code, restart_at } => {
                if !restarts(self.spec, role, container, exit_code) {
                    return false;
                }
                self.start_at(container, Some(restart_at));
            }
        }
        true
    }

    fn start_at(&mut self, container: &Container, due: Option<Timestamp>) {
        match due {
            Some(due) if due > self.now => {
                self.plan.wake_at = Some(self.plan.wake_at.map_or(due, |earlier| earlier.min(due)));
            }
            _ => self.plan.start.push(container.name.clone()),
        }
    }

    /// Stops the pod's containers together, then its sidecars one by one, the last first.
    fn end(&mut self) {
        let spec = self.spec;
        let (sidecars, others): (Vec<_>, Vec<_>) =
            containers(spec).partition(|(role, _)| *role == Role::Sidecar);
        let mut waiting = false;
        for (_, container) in others {
            waiting |= self.stop(container);
        }
        for (_, container) in sidecars.into_iter().rev() {
            if waiting {
                break;
            }
            waiting = self.stop(container);
        }
        self.plan.ended = !waiting;
    }

    /// True while the container is not down yet.
    fn stop(&mut self, container: &Container) -> bool {
        match self.state(container) {
            Seen::Idle { .. } | Seen::Exited { .. } => false,
            Seen::Starting | Seen::Stopping => true,
            Seen::Running { .. } => {
                self.plan.stop.push(container.name.clone());
                true
            }
        }
    }

    fn state(&self, container: &Container) -> Seen {
        self.seen.get(&container.name).cloned().unwrap_or(Seen::Idle { retry_at: None })
    }
}
