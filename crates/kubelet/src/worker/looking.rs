//! What arrived: new states of the pod, of its containers, and of what it refers to.

use std::sync::Arc;

use coracle_runtime::{ContainerState, ContainerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod, PodSpec};
use tracing::debug;

use super::{Ground, MESSAGE_BYTES, Worker};
use crate::backoff::spelled;
use crate::context::container_reference;
use crate::logs;
use crate::mailbox::Mail;
use crate::plan::{Goal, containers, restarts};
use crate::record::{Activity, whole_seconds};

impl Worker {
    pub(super) fn look(&mut self) {
        let Mail { pod, gone, containers, objects_changed } = self.mailbox.take();
        if let Some(pod) = pod {
            self.take_pod(pod);
        }
        self.gone |= gone;
        for status in containers.into_values() {
            self.take_container(&status);
        }
        if objects_changed {
            self.refresh.wanted = true;
            self.refresh.retry_at = None;
            if let Ground::None { retry_at, .. } = &mut self.ground {
                *retry_at = None;
            }
            self.retry_config_errors();
        }
    }

    pub(super) fn take_pod(&mut self, pod: Arc<Pod>) {
        if version(&pod) < version(&self.pod) {
            return;
        }
        let spec_changed = pod.spec != self.pod.spec;
        if spec_changed {
            self.notice_new_images(&pod);
        }
        // What the downward API shows in files may have changed.
        let meta_changed = pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations;
        self.pod = pod;
        if spec_changed && !self.over {
            self.hold_references();
        }
        self.refresh.wanted |= meta_changed;
    }

    /// A container's image is the one thing of a running pod that may change and needs a restart.
    fn notice_new_images(&mut self, new: &Pod) {
        let Some(spec) = &new.spec else { return };
        for (_, container) in containers(spec) {
            let old = self.container(&container.name).and_then(|(_, old)| old.image);
            if let Some(record) = self.records.get_mut(&container.name)
                && old != container.image
            {
                record.changed(Timestamp::now());
            }
        }
    }

    pub(super) fn take_container(&mut self, status: &ContainerStatus) {
        let Some(record) = self.records.get_mut(&status.name) else { return };
        if record.id.as_ref() != Some(&status.id) {
            return;
        }
        match &status.state {
            // A start that is under way ends with its own answer: for a server, once it listens.
            ContainerState::Starting | ContainerState::Running { .. } => (),
            ContainerState::Exited { .. }
                if matches!(record.activity, Activity::Exited { .. } | Activity::Idle { .. }) => {}
            ContainerState::Exited { started_at, finished_at, exit_code, reason, message } => {
                record.image_digest.clone_from(&status.image_digest);
                let terminated = ContainerStateTerminated {
                    container_id: Some(format!("{}://{}", self.ctx.scheme, status.id)),
                    exit_code: *exit_code,
                    reason: Some(reason.as_str().to_owned()),
                    message: None,
                    started_at: Some(whole_seconds(*started_at)),
                    finished_at: Some(whole_seconds(*finished_at)),
                    signal: None,
                };
                let (message, finished_at) = (message.clone(), *finished_at);
                self.container_ended(&status.name, terminated, &message, finished_at);
            }
        }
    }

    fn container_ended(
        &mut self,
        name: &str,
        mut terminated: ContainerStateTerminated,
        message: &str,
        finished_at: Timestamp,
    ) {
        self.probes.retain(|(probed, _), _| probed != name);
        self.stops.remove(name);
        let Some((role, container)) = self.container(name) else { return };
        let Some(attempts) = self.records.get(name).map(|record| record.attempts) else { return };
        let own = self.last_words(&container, attempts, terminated.exit_code, message.is_empty());
        let parts: Vec<&str> =
            [message, own.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
        let text = parts.join(": ");
        terminated.message = Some(cut(&text, MESSAGE_BYTES)).filter(|text| !text.is_empty());
        if !message.is_empty() {
            let about = container_reference(&self.pod, role, name);
            self.ctx.recorder.warning_ref(
                about,
                "Failed",
                format!("Error: {}", cut(message, 1024)),
            );
        }
        let exit_code = terminated.exit_code;
        let again = self.goal() == Goal::Run
            && restarts(
                self.pod.spec.as_ref().unwrap_or(&PodSpec::default()),
                role,
                &container,
                exit_code,
            );
        let full_name = self.full_name();
        let Some(record) = self.records.get_mut(name) else { return };
        record.exited(terminated, finished_at);
        if let Activity::Exited { pause, .. } = &record.activity
            && !pause.is_zero()
            && again
        {
            let message = format!("Back-off restarting failed container {name} in pod {full_name}");
            self.ctx.recorder.warning_ref(
                container_reference(&self.pod, role, name),
                "BackOff",
                message,
            );
            debug!(pod = %self.uid, container = name, pause = spelled(*pause), "back-off before a restart");
        }
    }

    /// What the container wrote about its end; where it wrote nothing and failed, the end of its log if it wants that
    /// (`terminationMessagePolicy: FallbackToLogsOnError`) and the engine has no better explanation.
    fn last_words(
        &self,
        container: &Container,
        attempts: u32,
        exit_code: i32,
        unexplained: bool,
    ) -> String {
        let Some(attempt) = attempts.checked_sub(1) else { return String::new() };
        let directory = self.ctx.log_directory(&self.pod).join(&container.name);
        let log = directory.join(format!("{attempt}.log"));
        let own = logs::take_message(&log, MESSAGE_BYTES);
        let falls_back =
            container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if own.is_empty() && unexplained && falls_back && exit_code != 0 {
            return logs::last_words(&log);
        }
        own
    }

    /// A container that waits for an object that was missing is tried again at once.
    fn retry_config_errors(&mut self) {
        for record in self.records.values_mut() {
            let missing = record
                .waiting
                .as_ref()
                .is_some_and(|why| why.reason == "CreateContainerConfigError");
            if let Activity::Idle { retry_at } = &mut record.activity
                && missing
            {
                *retry_at = retry_at.map(|_| Timestamp::MIN);
            }
        }
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(u64::MAX)
}

/// At most so many bytes, the end of a text being what matters least.
fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
