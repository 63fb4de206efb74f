//! What the API is told: the pod's status, and at last that it has ended.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tracing::warn;

use super::{Alarm, Ground, QUICK_STATUS, Teardown, Worker};
use crate::operations::{self, Done};
use crate::plan::Plan;
use crate::record::{Activity, Record};
use crate::snapshot::Snapshot;
use crate::status::{self, Facts};

impl Worker {
    pub(super) fn tell(&mut self, plan: &Plan, now: Timestamp, alarm: &mut Alarm) {
        self.publish_snapshot();
        if self.gone {
            return;
        }
        if let Some(retry_at) = self.status.retry_at.filter(|retry_at| *retry_at > now) {
            return alarm.at(Some(retry_at));
        }
        self.status.retry_at = None;
        if !self.over {
            self.write_status(plan.initialized, now, alarm);
        }
        let deleted = self.pod.metadata.deletion_timestamp.is_some();
        let settled = self.status.writing.is_none();
        let done = self.ended && matches!(self.teardown, Teardown::Done);
        if !(deleted && settled && done) || self.status.deleting || self.status.deleted {
            return;
        }
        self.status.deleting = true;
        let (ctx, pod) = (Arc::clone(&self.ctx), Arc::clone(&self.pod));
        self.begin(async move { Done::Deleted(operations::delete(ctx, pod).await) });
    }

    pub(super) fn write_status(&mut self, initialized: bool, now: Timestamp, alarm: &mut Alarm) {
        if self.status.writing.is_some() {
            return;
        }
        let address = match &self.ground {
            Ground::Ready(ground) if !matches!(self.teardown, Teardown::Done) => {
                Some(ground.address)
            }
            Ground::Ready(_) | Ground::None { .. } | Ground::Preparing { .. } => None,
        };
        let wanted = status::build(&Facts {
            pod: &self.pod,
            records: &self.records,
            address,
            node_ip: self.ctx.node_ip,
            started_at: self.started_at,
            initialized,
            ended: self.ended,
            verdict: self.verdict.as_ref(),
            scheme: &self.ctx.scheme,
            now,
        });
        if self.status.written.as_ref() == Some(&wanted) || self.would_revive(&wanted) {
            return;
        }
        if self.status.written.is_none() && self.only_beginning() {
            let until = self.started_at + QUICK_STATUS;
            if until > now {
                return alarm.at(Some(until));
            }
        }
        if let Some(until) = self.replaced_by().filter(|until| *until > now) {
            return alarm.at(Some(until));
        }
        let known = self.pod.status.clone().unwrap_or_default();
        let Some(patch) = status::patch(&self.uid, &known, &wanted) else {
            self.status.written = Some(wanted);
            return;
        };
        self.status.writing = Some(wanted);
        let (ctx, pod) = (Arc::clone(&self.ctx), Arc::clone(&self.pod));
        self.begin(async move {
            Done::Written(Box::new(operations::write_status(ctx, pod, patch).await))
        });
    }

    /// A pod that succeeded or failed did so for good, whatever is seen of its containers later.
    fn would_revive(&self, wanted: &PodStatus) -> bool {
        let told = [self.pod.status.as_ref(), self.status.written.as_ref()];
        let ended =
            |status: &&PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        told.into_iter().flatten().find(ended).is_some_and(|told| told.phase != wanted.phase)
    }

    /// True while nothing is known but that the pod is being made.
    fn only_beginning(&self) -> bool {
        let quiet = |record: &Record| {
            record.ended.is_none()
                && record.waiting.is_none()
                && matches!(record.activity, Activity::Idle { .. } | Activity::Starting)
        };
        self.verdict.is_none() && !self.ended && self.records.values().all(quiet)
    }

    /// When a container has to be replaced by one of another image, if one is on its way. Until then the pod is told
    /// as it was: that it is not ready for some milliseconds helps nobody, and those who read and write the status
    /// meanwhile would find it changed under their hands.
    fn replaced_by(&self) -> Option<Timestamp> {
        let ends = self.ended || self.verdict.is_some();
        if ends || self.pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let since = self.records.values().filter_map(|record| record.replaced_since).min();
        since.map(|since| since + QUICK_STATUS)
    }

    fn publish_snapshot(&self) {
        let told = self.status.written.is_some() && self.status.writing.is_none();
        let snapshot = Snapshot { told, ..Snapshot::of(&self.pod, &self.records, self.ended) };
        self.snapshot.send_if_modified(|known| {
            let changed = *known != snapshot;
            if changed {
                *known = snapshot;
            }
            changed
        });
    }

    pub(super) fn written(&mut self, result: Result<Pod, kube::Error>, now: Timestamp) {
        let writing = self.status.writing.take();
        match result {
            Ok(pod) => {
                self.status.written = writing;
                self.status.failures = 0;
                self.take_pod(Arc::new(pod));
            }
            // It is gone, or another pod has its name: the watch tells the rest.
            Err(kube::Error::Api(answer)) if answer.code == 404 => self.status.written = writing,
            Err(kube::Error::Api(answer))
                if answer.code == 409 && answer.message.contains("UID") =>
            {
                self.status.written = writing;
            }
            Err(error) => {
                warn!(pod = %self.uid, %error, "status not written");
                self.write_again(now);
            }
        }
    }
}
