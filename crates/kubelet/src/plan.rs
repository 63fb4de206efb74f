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
pub(crate) fn plan(
    spec: &PodSpec,
    goal: Goal,
    seen: &BTreeMap<String, Seen>,
    now: Timestamp,
) -> Plan {
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
        let begun =
            |container: &Container| !matches!(self.state(container), Seen::Idle { retry_at: None });
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
                    Seen::Exited { exit_code, .. }
                        if !restarts(spec, role, container, exit_code) =>
                    {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    const IDLE: Seen = Seen::Idle { retry_at: None };
    const RUNS: Seen = Seen::Running { started: true, unhealthy: false };
    const BEGINS: Seen = Seen::Running { started: false, unhealthy: false };
    const SICK: Seen = Seen::Running { started: true, unhealthy: true };

    fn exited(exit_code: i32, restart_at: i64) -> Seen {
        Seen::Exited { exit_code, restart_at: at(restart_at) }
    }

    /// A pod of an init container `i`, a sidecar `s`, and the containers `a` and `b`; what is not `seen` is idle.
    fn check(
        policy: &str,
        goal: Goal,
        seen: &[(&str, Seen)],
        start: &[&str],
        stop: &[&str],
        ended: bool,
    ) -> Plan {
        let spec = json!({
            "restartPolicy": policy,
            "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }, { "name": "b" }],
        });
        check_spec(spec, goal, seen, start, stop, ended)
    }

    fn check_spec(
        spec: Value,
        goal: Goal,
        seen: &[(&str, Seen)],
        start: &[&str],
        stop: &[&str],
        ended: bool,
    ) -> Plan {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let seen = seen.iter().map(|(name, seen)| ((*name).to_owned(), seen.clone())).collect();
        let plan = plan(&spec, goal, &seen, at(0));
        assert_eq!(plan.start, start, "start, with {seen:?}");
        assert_eq!(plan.stop, stop, "stop, with {seen:?}");
        assert_eq!(plan.ended, ended, "ended, with {seen:?}");
        plan
    }

    #[test]
    fn init_containers_come_first_and_in_order() {
        let run = |seen: &[(&str, Seen)], start: &[&str]| {
            check("Always", Goal::Run, seen, start, &[], false)
        };
        assert!(!run(&[], &["i"]).initialized);
        run(&[("i", Seen::Starting)], &[]);
        run(&[("i", RUNS)], &[]);
        run(&[("i", exited(0, 0))], &["s"]);
        assert!(
            !run(&[("i", exited(0, 0)), ("s", BEGINS)], &[]).initialized,
            "its startup probe has not passed"
        );
        assert!(run(&[("i", exited(0, 0)), ("s", RUNS)], &["a", "b"]).initialized);
        run(&[("i", exited(0, 0)), ("s", RUNS), ("a", RUNS)], &["b"]);
        run(&[("i", exited(0, 0)), ("s", exited(1, 0)), ("a", RUNS), ("b", RUNS)], &["s"]);
    }

    #[test]
    fn a_failed_init_container_is_tried_again_or_fails_the_pod() {
        let failed = [("i", exited(1, 0))];
        check("Always", Goal::Run, &failed, &["i"], &[], false);
        check("OnFailure", Goal::Run, &failed, &["i"], &[], false);
        check("Never", Goal::Run, &failed, &[], &[], true);
        let held_back = check("Always", Goal::Run, &[("i", exited(1, 10))], &[], &[], false);
        assert_eq!(held_back.wake_at, Some(at(10)));
    }

    #[test]
    fn an_ended_container_is_restarted_by_its_policy() {
        let begun = |a: Seen, b: Seen| [("i", exited(0, 0)), ("s", RUNS), ("a", a), ("b", b)];
        check("Always", Goal::Run, &begun(exited(0, 0), RUNS), &["a"], &[], false);
        check("OnFailure", Goal::Run, &begun(exited(0, 0), RUNS), &[], &[], false);
        check("OnFailure", Goal::Run, &begun(exited(1, 0), RUNS), &["a"], &[], false);
        check("Never", Goal::Run, &begun(exited(1, 0), RUNS), &[], &[], false);
        let held_back =
            check("Always", Goal::Run, &begun(exited(1, 20), exited(1, 10)), &[], &[], false);
        assert_eq!(held_back.wake_at, Some(at(10)), "the earlier of two");
    }

    #[test]
    fn sidecars_end_after_the_pod_s_containers() {
        let done =
            |s: Seen| [("i", exited(0, 0)), ("s", s), ("a", exited(0, 0)), ("b", exited(0, 0))];
        check("Never", Goal::Run, &done(RUNS), &[], &["s"], false);
        check("Never", Goal::Run, &done(Seen::Stopping), &[], &[], false);
        check("Never", Goal::Run, &done(exited(143, 0)), &[], &[], true);
        check("Never", Goal::Run, &done(Seen::Idle { retry_at: Some(at(5)) }), &[], &[], true);
    }

    #[test]
    fn a_sick_container_is_stopped_and_comes_again() {
        let begun = |a: Seen| [("i", exited(0, 0)), ("s", RUNS), ("a", a), ("b", RUNS)];
        check("Always", Goal::Run, &begun(SICK), &[], &["a"], false);
        check("Always", Goal::Run, &begun(Seen::Stopping), &[], &[], false);
        check("Always", Goal::Run, &begun(exited(137, 0)), &["a"], &[], false);
        check("Never", Goal::Run, &begun(exited(137, 0)), &[], &[], false);
    }

    #[test]
    fn a_pod_that_must_end_stops_everything_and_starts_nothing() {
        let end = |seen: &[(&str, Seen)], stop: &[&str], ended| {
            check("Always", Goal::End, seen, &[], stop, ended)
        };
        end(&[], &[], true);
        end(&[("i", RUNS)], &["i"], false);
        end(&[("i", exited(0, 0)), ("s", RUNS), ("a", RUNS), ("b", Seen::Starting)], &["a"], false);
        end(&[("i", exited(0, 0)), ("s", RUNS), ("a", exited(143, 0)), ("b", IDLE)], &["s"], false);
        end(&[("i", exited(0, 0)), ("s", exited(143, 0)), ("a", exited(143, 0))], &[], true);
    }

    #[test]
    fn sidecars_end_one_by_one_the_last_first() {
        let spec = json!({
            "initContainers": [{ "name": "s1", "restartPolicy": "Always" }, { "name": "s2", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }],
        });
        let seen = [("s1", RUNS), ("s2", RUNS), ("a", RUNS)];
        check_spec(spec.clone(), Goal::End, &seen, &[], &["a"], false);
        let seen = [("s1", RUNS), ("s2", RUNS), ("a", exited(0, 0))];
        check_spec(spec.clone(), Goal::End, &seen, &[], &["s2"], false);
        let seen = [("s1", RUNS), ("s2", exited(0, 0)), ("a", exited(0, 0))];
        check_spec(spec, Goal::End, &seen, &[], &["s1"], false);
    }

    #[test]
    fn a_container_may_have_a_policy_of_its_own() {
        let spec = json!({
            "restartPolicy": "Never",
            "containers": [
                { "name": "a", "restartPolicy": "OnFailure" },
                { "name": "b", "restartPolicyRules": [{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }] },
            ],
        });
        check_spec(
            spec.clone(),
            Goal::Run,
            &[("a", exited(1, 0)), ("b", exited(1, 0))],
            &["a"],
            &[],
            false,
        );
        check_spec(
            spec,
            Goal::Run,
            &[("a", exited(0, 0)), ("b", exited(42, 0))],
            &["b"],
            &[],
            false,
        );
    }
}
