//! Probes: which container is asked when, and what its answers change.

use std::time::Duration;

use coracle_runtime::ContainerId;
use jiff::Timestamp;

use super::{Alarm, Worker};
use crate::context::container_reference;
use crate::operations::Done;
use crate::probe::{self, Kind};
use crate::prober;
use crate::record::{Activity, Unhealthy};

impl Worker {
    pub(super) fn ask_probes(&mut self, now: Timestamp, alarm: &mut Alarm) {
        let Some(address) = self.address() else { return };
        let mut due = Vec::new();
        for ((name, kind), probing) in &mut self.probes {
            let Some(record) = self.records.get(name) else { continue };
            let running = matches!(record.activity, Activity::Running { .. });
            let turn = (*kind == Kind::Startup) != record.started;
            if !running || !turn || probing.asking {
                continue;
            }
            if probing.state.next_at() > now {
                alarm.at(Some(probing.state.next_at()));
                continue;
            }
            probing.asking = true;
            due.extend(record.id.clone().map(|id| (name.clone(), *kind, id)));
        }
        for (name, kind, id) in due {
            let Some((_, container)) = self.container(&name) else { continue };
            self.begin(async move {
                let result = match kind.of(&container) {
                    Some(probe) => prober::probe(probe, &container, address).await,
                    None => Ok(()),
                };
                Done::Probed { name, id, kind, asked_at: now, result }
            });
        }
    }

    pub(super) fn take_probe(
        &mut self,
        name: &str,
        id: &ContainerId,
        kind: Kind,
        asked_at: Timestamp,
        result: Result<(), String>,
    ) {
        let Some((role, container)) = self.container(name) else { return };
        let (Some(probe), Some(probing)) =
            (kind.of(&container), self.probes.get_mut(&(name.to_owned(), kind)))
        else {
            return;
        };
        probing.asking = false;
        let Some(record) =
            self.records.get_mut(name).filter(|record| record.id.as_ref() == Some(id))
        else {
            return;
        };
        let verdict = match &result {
            Ok(()) => probe::Verdict::Pass,
            Err(_) => probe::Verdict::Fail,
        };
        probing.state.record(probe, verdict, asked_at);
        match (kind, probing.state.settled()) {
            (Kind::Readiness, settled) => record.ready = settled == Some(probe::Verdict::Pass),
            (Kind::Startup, Some(probe::Verdict::Pass)) => {
                record.started = true;
                record.ready = container.readiness_probe.is_none();
            }
            (Kind::Startup | Kind::Liveness, Some(probe::Verdict::Fail)) => {
                let grace = probe
                    .termination_grace_period_seconds
                    .and_then(|seconds| u64::try_from(seconds).ok());
                let word = if kind == Kind::Startup { "startup" } else { "liveness" };
                record.unhealthy =
                    Some(Unhealthy::Probe { probe: word, grace: grace.map(Duration::from_secs) });
            }
            (Kind::Startup, None) | (Kind::Liveness, None | Some(probe::Verdict::Pass)) => (),
        }
        if let Err(cause) = result {
            let about = container_reference(&self.pod, role, name);
            self.ctx.recorder.warning_ref(
                about,
                "Unhealthy",
                format!("{} probe failed: {cause}", kind.word()),
            );
        }
    }
}
