//! What a worker takes over: from the API what the kubelet before it told, from the engine what runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use coracle_runtime::{ContainerState, ContainerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodStatus};

use super::{Probing, Worker};
use crate::plan::{Role, containers, restarts};
use crate::probe::{self, Kind};
use crate::record::{Activity, Record};

impl Worker {
    /// Takes over what the API and the engine know of the pod's containers.
    pub(super) fn remember(
        &mut self,
        known: &PodStatus,
        found: &[ContainerStatus],
        now: Timestamp,
    ) {
        let pod = Arc::clone(&self.pod);
        let Some(spec) = &pod.spec else { return };
        let statuses: Vec<_> = known
            .container_statuses
            .iter()
            .chain(&known.init_container_statuses)
            .flatten()
            .collect();
        for (_, container) in containers(spec) {
            let status = statuses.iter().find(|status| status.name == container.name);
            let mut record =
                status.map_or_else(Record::new, |status| Record::remembered(status, now));
            let newest = found
                .iter()
                .filter(|found| found.name == container.name)
                .max_by_key(|found| found.attempt);
            if let Some(newest) = newest {
                record.id = Some(newest.id.clone());
                record.attempts = newest.attempt + 1;
                record.image_digest.clone_from(&newest.image_digest);
                let shown_running = status.is_some_and(|status| {
                    status.state.as_ref().is_some_and(|state| state.running.is_some())
                });
                if shown_running {
                    // It is not lost: the engine has it.
                    record.ended = record.ended_before.take();
                }
                if let ContainerState::Exited { started_at, .. } = newest.state
                    && (shown_running || record.ended.is_none())
                {
                    // Its end is taken in below, as if it were told now.
                    record.running(started_at);
                }
                if let ContainerState::Running { started_at } = newest.state {
                    record.running(started_at);
                    record.started = container.startup_probe.is_none();
                    record.ready = record.started && container.readiness_probe.is_none();
                    for kind in [Kind::Startup, Kind::Readiness, Kind::Liveness] {
                        if let Some(probe) = kind.of(container) {
                            let state = probe::State::new(kind, probe, started_at);
                            self.probes.insert(
                                (container.name.clone(), kind),
                                Probing { state, asking: false },
                            );
                        }
                    }
                }
            }
            self.records.insert(container.name.clone(), record);
        }
        for status in found {
            self.take_container(status);
        }
        if found.is_empty() && !self.over {
            self.begin_anew(spec);
        }
    }

    /// With the sandbox its init containers are lost too: they run again before the pod's containers do.
    fn begin_anew(&mut self, spec: &PodSpec) {
        let will_run: BTreeSet<String> = containers(spec)
            .filter(|(role, container)| {
                let exit_code =
                    match self.records.get(&container.name).map(|record| &record.activity) {
                        Some(Activity::Exited { exit_code, .. }) => Some(*exit_code),
                        _ => None,
                    };
                exit_code.is_none_or(|exit_code| restarts(spec, *role, container, exit_code))
            })
            .map(|(_, container)| container.name.clone())
            .collect();
        let mains_run = spec.containers.iter().any(|container| will_run.contains(&container.name));
        for (role, container) in containers(spec) {
            let again = match role {
                Role::Main => will_run.contains(&container.name),
                // A failed init container of a pod that does not restart has failed for good.
                Role::Init => mains_run && !self.failed_for_good(spec, role, container),
                Role::Sidecar => mains_run,
            };
            if let Some(record) = self.records.get_mut(&container.name)
                && again
            {
                record.activity = Activity::Idle { retry_at: None };
            }
        }
    }

    fn failed_for_good(&self, spec: &PodSpec, role: Role, container: &Container) -> bool {
        matches!(
            self.records.get(&container.name).map(|record| &record.activity),
            Some(Activity::Exited { exit_code, .. }) if *exit_code != 0 && !restarts(spec, role, container, *exit_code)
        )
    }
}
