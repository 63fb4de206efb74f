//! A pod's whole life on this node: one task for each pod, one pass at a time.
//!
//! A pass ([`Worker::pass`]) never waits: it looks at what arrived, decides with [`plan`], and begins operations.
//! What takes time runs beside it as an operation and comes back as a [`Done`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerId, ContainerState, ContainerStatus};
use futures::stream::FuturesUnordered;
use futures::{Future, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod, PodSpec, PodStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::admission::Charge;
use crate::backoff::spelled;
use crate::context::{Context, container_reference};
use crate::mailbox::{Mail, Mailbox};
use crate::operations::{self, Done, NotStarted, Prepared, Problem, Start};
use crate::plan::{Goal, Plan, Role, containers, plan, restarts};
use crate::probe::{self, Kind};
use crate::record::{Activity, Record, Unhealthy, whole_seconds};
use crate::snapshot::Snapshot;
use crate::sources::{Held, References};
use crate::status::{self, Facts, Verdict};
use crate::{logs, prober, tokens};

/// A pod that is Ready within this time gets one status write instead of two.
const FIRST_STATUS: Duration = Duration::from_millis(20);
/// The first wait after a failed preparation; it doubles, as upstream's volume manager does it.
const PREPARE_FIRST: Duration = Duration::from_millis(500);
/// The longest wait after a failed preparation.
const PREPARE_LONGEST: Duration = Duration::from_secs(122);
/// The wait after the API refused a write.
const WRITE_AGAIN: Duration = Duration::from_millis(500);
/// What a pod that was deleted by force gets to end; upstream's least.
const FORCED_GRACE: Duration = Duration::from_secs(2);
/// The wait after the engine failed to stop or remove something.
const STOP_AGAIN: Duration = Duration::from_secs(1);
/// Upstream's limit of a termination message.
const MESSAGE_BYTES: usize = 4096;

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The owner of one pod on this node.
pub(crate) struct Worker {
    ctx: Arc<Context>,
    mailbox: Arc<Mailbox>,
    snapshot: watch::Sender<Snapshot>,
    pod: Arc<Pod>,
    uid: String,
    started_at: Timestamp,
    charge: Option<Charge>,
    gone: bool,
    /// The pod had ended before this kubelet began: only its deletion is left to do.
    over: bool,
    ended: bool,
    verdict: Option<Verdict>,
    records: BTreeMap<String, Record>,
    probes: BTreeMap<(String, Kind), Probing>,
    stops: BTreeMap<String, Duration>,
    held: Held,
    ground: Ground,
    refresh: Refresh,
    abandon: CancellationToken,
    status: Status,
    teardown: Teardown,
    operations: FuturesUnordered<Operation>,
}

struct Probing {
    state: probe::State,
    asking: bool,
}

/// Whether the pod's sandbox and volumes stand.
enum Ground {
    None { retry_at: Option<Timestamp>, wait: Duration },
    Preparing { wait: Duration },
    Ready(Prepared),
}

/// Whether the volumes' files have to be written again.
struct Refresh {
    wanted: bool,
    running: bool,
    retry_at: Option<Timestamp>,
    wait: Duration,
}

struct Status {
    writing: Option<PodStatus>,
    written: Option<PodStatus>,
    retry_at: Option<Timestamp>,
    deleting: bool,
    deleted: bool,
}

enum Teardown {
    Waiting,
    Running,
    Failed { retry_at: Timestamp },
    Done,
}

/// What is there when a worker begins.
pub(crate) struct Beginning {
    /// The pod.
    pub(crate) pod: Arc<Pod>,
    /// What the engine runs of it already.
    pub(crate) found: Vec<ContainerStatus>,
    /// Why the node refuses it.
    pub(crate) refusal: Option<Verdict>,
    /// What the node grants it.
    pub(crate) charge: Option<Charge>,
}

impl Worker {
    /// A worker that takes over a pod.
    pub(crate) fn new(
        ctx: Arc<Context>,
        mailbox: Arc<Mailbox>,
        snapshot: watch::Sender<Snapshot>,
        beginning: Beginning,
    ) -> Self {
        let Beginning { pod, found, refusal, charge } = beginning;
        let now = Timestamp::now();
        let known = pod.status.clone().unwrap_or_default();
        let over = matches!(known.phase.as_deref(), Some("Succeeded" | "Failed"));
        let mut worker = Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            held: Held::default(),
            records: BTreeMap::new(),
            probes: BTreeMap::new(),
            stops: BTreeMap::new(),
            ground: Ground::None { retry_at: None, wait: PREPARE_FIRST },
            refresh: Refresh { wanted: false, running: false, retry_at: None, wait: PREPARE_FIRST },
            abandon: CancellationToken::new(),
            status: Status { writing: None, written: None, retry_at: None, deleting: false, deleted: false },
            teardown: Teardown::Waiting,
            operations: FuturesUnordered::new(),
            started_at: known.start_time.as_ref().map_or(now, |at| at.0),
            charge,
            gone: false,
            ended: false,
            verdict: refusal,
            over,
            ctx,
            mailbox,
            snapshot,
            pod,
        };
        if worker.verdict.is_none() {
            worker.remember(&known, &found, now);
        }
        if !over && worker.verdict.is_none() {
            worker.hold_references();
        }
        worker
    }

    /// Lives until the pod is gone from the API and from this node, or the node stops.
    pub(crate) async fn live(mut self) {
        let shutdown = self.ctx.shutdown.clone();
        loop {
            let wake_at = self.pass(Timestamp::now());
            if self.gone && self.ended && matches!(self.teardown, Teardown::Done) {
                break;
            }
            let mailbox = Arc::clone(&self.mailbox);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = mailbox.arrived() => (),
                Some(done) = self.operations.next() => self.finish(done, Timestamp::now()),
                () = sleep_until(wake_at) => (),
            }
        }
        self.ctx.images.forget(&self.uid);
        let directory = self.ctx.log_directory(&self.pod);
        if let Err(error) = logs::remove_all(&directory).await {
            warn!(pod = %self.uid, %error, "logs not removed");
        }
    }

    /// Look, stop, remove, ensure, start, tell. Answers when to look again although nothing happened.
    fn pass(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut alarm = Alarm::default();
        self.look();
        self.check_deadline(now, &mut alarm);
        let goal = self.goal();
        let plan = self.decide(goal, now);
        alarm.at(plan.wake_at);
        self.stop(&plan.stop, goal);
        self.remove(now, &mut alarm);
        if goal == Goal::Run && !self.ended {
            self.ensure_ground(&plan, now, &mut alarm);
            self.start(&plan.start);
            self.ask_probes(now, &mut alarm);
        }
        self.tell(&plan, now, &mut alarm);
        alarm.0
    }

    // ---- look

    fn look(&mut self) {
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

    fn take_pod(&mut self, pod: Arc<Pod>) {
        if version(&pod) < version(&self.pod) {
            return;
        }
        let spec_changed = pod.spec != self.pod.spec;
        // What the downward API shows in files may have changed.
        let meta_changed =
            pod.metadata.labels != self.pod.metadata.labels || pod.metadata.annotations != self.pod.metadata.annotations;
        self.pod = pod;
        if spec_changed && !self.over {
            self.hold_references();
        }
        self.refresh.wanted |= meta_changed;
    }

    fn take_container(&mut self, status: &ContainerStatus) {
        let Some(record) = self.records.get_mut(&status.name) else { return };
        if record.id.as_ref() != Some(&status.id) {
            return;
        }
        match &status.state {
            // A start that is under way ends with its own answer: for a server, once it listens.
            ContainerState::Starting | ContainerState::Running { .. } => (),
            ContainerState::Exited { .. } if matches!(record.activity, Activity::Exited { .. } | Activity::Idle { .. }) => (),
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
        let text = if message.is_empty() { self.last_words(&container, attempts, terminated.exit_code) } else { message.to_owned() };
        terminated.message = Some(cut(&text, MESSAGE_BYTES)).filter(|text| !text.is_empty());
        if !message.is_empty() {
            let about = container_reference(&self.pod, role, name);
            self.ctx.recorder.warning_ref(about, "Failed", format!("Error: {}", cut(message, 1024)));
        }
        let exit_code = terminated.exit_code;
        let again = self.goal() == Goal::Run
            && restarts(self.pod.spec.as_ref().unwrap_or(&PodSpec::default()), role, &container, exit_code);
        let full_name = self.full_name();
        let Some(record) = self.records.get_mut(name) else { return };
        record.exited(terminated, finished_at);
        if let Activity::Exited { pause, .. } = &record.activity
            && !pause.is_zero()
            && again
        {
            let message = format!("Back-off restarting failed container {name} in pod {full_name}");
            self.ctx.recorder.warning_ref(container_reference(&self.pod, role, name), "BackOff", message);
            debug!(pod = %self.uid, container = name, pause = spelled(*pause), "back-off before a restart");
        }
    }

    /// What `terminationMessagePolicy: FallbackToLogsOnError` shows.
    fn last_words(&self, container: &Container, attempts: u32, exit_code: i32) -> String {
        let wanted = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let Some(attempt) = attempts.checked_sub(1).filter(|_| wanted && exit_code != 0) else {
            return String::new();
        };
        let path = self.ctx.log_directory(&self.pod).join(&container.name).join(format!("{attempt}.log"));
        logs::last_words(&path)
    }

    /// A container that waits for an object that was missing is tried again at once.
    fn retry_config_errors(&mut self) {
        for record in self.records.values_mut() {
            let missing = record.waiting.as_ref().is_some_and(|why| why.reason == "CreateContainerConfigError");
            if let Activity::Idle { retry_at } = &mut record.activity
                && missing
            {
                *retry_at = retry_at.map(|_| Timestamp::MIN);
            }
        }
    }

    // ---- decide

    fn goal(&self) -> Goal {
        let ends = self.gone || self.over || self.verdict.is_some() || self.pod.metadata.deletion_timestamp.is_some();
        if ends { Goal::End } else { Goal::Run }
    }

    fn check_deadline(&mut self, now: Timestamp, alarm: &mut Alarm) {
        let allowed = self.pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        let Some(allowed) = allowed.filter(|_| !self.ended && !self.over && self.verdict.is_none()) else { return };
        let deadline = self.started_at + SignedDuration::from_secs(allowed.max(0));
        if deadline > now {
            alarm.at(Some(deadline));
            return;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.ctx.recorder.normal(self.pod.as_ref(), "DeadlineExceeded", message);
        self.verdict = Some(Verdict { reason: "DeadlineExceeded".to_owned(), message: message.to_owned() });
    }

    fn decide(&mut self, goal: Goal, now: Timestamp) -> Plan {
        if goal == Goal::End {
            self.abandon.cancel();
        }
        let seen = self.records.iter().map(|(name, record)| (name.clone(), record.seen())).collect();
        let plan = plan(self.pod.spec.as_ref().unwrap_or(&PodSpec::default()), goal, &seen, now);
        self.ended |= plan.ended;
        if self.ended {
            // What it was granted is free for others.
            self.charge = None;
        }
        plan
    }

    // ---- stop

    fn stop(&mut self, names: &[String], goal: Goal) {
        for name in names {
            let Some(record) = self.records.get_mut(name) else { continue };
            let Activity::Running { since } = record.activity else { continue };
            record.activity = Activity::Stopping { since };
            let unhealthy = record.unhealthy.clone();
            let grace = match &unhealthy {
                Some(Unhealthy { grace: Some(grace), .. }) if goal == Goal::Run => *grace,
                _ => self.grace(),
            };
            let Some((role, _)) = self.container(name) else { continue };
            let message = match unhealthy.filter(|_| goal == Goal::Run) {
                Some(why) => format!("Container {name} failed {} probe, will be restarted", why.probe),
                None => format!("Stopping container {name}"),
            };
            self.ctx.recorder.normal_ref(container_reference(&self.pod, role, name), "Killing", message);
            self.begin_stop(name, grace, Duration::ZERO);
        }
        if goal == Goal::End {
            self.hurry();
        }
    }

    /// A second deletion may allow less time than the first.
    fn hurry(&mut self) {
        let grace = self.grace();
        let slow: Vec<String> =
            self.stops.iter().filter(|(_, allowed)| grace < **allowed).map(|(name, _)| name.clone()).collect();
        for name in slow {
            self.begin_stop(&name, grace, Duration::ZERO);
        }
    }

    fn begin_stop(&mut self, name: &str, grace: Duration, wait: Duration) {
        let Some((role, container)) = self.container(name) else { return };
        let Some(id) = self.records.get(name).and_then(|record| record.id.clone()) else { return };
        self.stops.insert(name.to_owned(), grace);
        let (ctx, pod, address) = (Arc::clone(&self.ctx), Arc::clone(&self.pod), self.address());
        let name = name.to_owned();
        self.begin(async move {
            tokio::time::sleep(wait).await;
            let result = operations::stop(ctx, pod, role, container, id, address, grace).await;
            Done::Stopped { name, result }
        });
    }

    fn grace(&self) -> Duration {
        if self.gone {
            return FORCED_GRACE;
        }
        let spec = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = self.pod.metadata.deletion_grace_period_seconds.or(spec).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    // ---- remove

    /// Gives back the address and the volumes of a pod that has ended.
    fn remove(&mut self, now: Timestamp, alarm: &mut Alarm) {
        if !self.ended {
            return;
        }
        match self.teardown {
            Teardown::Running | Teardown::Done => return,
            Teardown::Failed { retry_at } if retry_at > now => return alarm.at(Some(retry_at)),
            Teardown::Failed { .. } | Teardown::Waiting => (),
        }
        if matches!(self.ground, Ground::Preparing { .. }) || self.refresh.running {
            // What is being made cannot be removed yet; its end wakes us.
            return;
        }
        self.teardown = Teardown::Running;
        let (ctx, uid) = (Arc::clone(&self.ctx), self.uid.clone());
        self.begin(async move { Done::TornDown(operations::tear_down(ctx, uid).await) });
    }

    // ---- ensure

    fn ensure_ground(&mut self, plan: &Plan, now: Timestamp, alarm: &mut Alarm) {
        let running = |record: &Record| matches!(record.activity, Activity::Running { .. });
        let needed = !plan.start.is_empty() || self.records.values().any(running);
        match &self.ground {
            Ground::None { retry_at, wait } if needed => match retry_at {
                Some(retry_at) if *retry_at > now => alarm.at(Some(*retry_at)),
                _ => {
                    let wait = *wait;
                    self.ground = Ground::Preparing { wait };
                    self.refresh.wanted = false;
                    self.begin_prepare(None, tokens::Held::default(), Done::Prepared);
                }
            },
            Ground::None { .. } | Ground::Preparing { .. } => (),
            Ground::Ready(prepared) => {
                let renew_at = prepared.tokens.renew_at();
                let due = self.refresh.wanted || renew_at.is_some_and(|renew_at| renew_at <= now);
                let held_back = self.refresh.retry_at.filter(|retry_at| *retry_at > now);
                alarm.at(renew_at.filter(|_| !due));
                if !due || self.refresh.running {
                    return;
                }
                if held_back.is_some() {
                    return alarm.at(held_back);
                }
                let (address, tokens) = (prepared.address, prepared.tokens.clone());
                self.refresh.wanted = false;
                self.refresh.running = true;
                self.begin_prepare(Some(address), tokens, Done::Refreshed);
            }
        }
    }

    fn begin_prepare(
        &mut self,
        address: Option<IpAddr>,
        tokens: tokens::Held,
        done: fn(Result<Prepared, Problem>) -> Done,
    ) {
        let (ctx, pod, held) = (Arc::clone(&self.ctx), Arc::clone(&self.pod), self.held.clone());
        self.begin(async move { done(operations::prepare(ctx, pod, held, tokens, address).await) });
    }

    // ---- start

    fn start(&mut self, names: &[String]) {
        let Ground::Ready(ground) = &self.ground else { return };
        let ground = ground.clone();
        for name in names {
            let Some((role, container)) = self.container(name) else { continue };
            let Some(record) = self.records.get_mut(name) else { continue };
            let id = ContainerId::new(fresh_id());
            let former = record.id.replace(id.clone()).filter(|_| record.attempts > 0);
            if matches!(record.activity, Activity::Exited { .. }) {
                record.backoff.lengthen(Timestamp::now());
            }
            record.starting(id.clone());
            let start = Start {
                ctx: Arc::clone(&self.ctx),
                pod: Arc::clone(&self.pod),
                role,
                container,
                attempt: record.attempts - 1,
                id: id.clone(),
                former,
                ground: ground.clone(),
                held: self.held.clone(),
                abandon: self.abandon.clone(),
            };
            let name = name.clone();
            self.begin(async move { Done::Started { name, id, result: start.run().await } });
        }
    }

    // ---- probes

    fn ask_probes(&mut self, now: Timestamp, alarm: &mut Alarm) {
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

    fn take_probe(&mut self, name: &str, id: &ContainerId, kind: Kind, asked_at: Timestamp, result: Result<(), String>) {
        let Some((role, container)) = self.container(name) else { return };
        let (Some(probe), Some(probing)) = (kind.of(&container), self.probes.get_mut(&(name.to_owned(), kind))) else {
            return;
        };
        probing.asking = false;
        let Some(record) = self.records.get_mut(name).filter(|record| record.id.as_ref() == Some(id)) else { return };
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
                let grace = probe.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                let word = if kind == Kind::Startup { "startup" } else { "liveness" };
                record.unhealthy = Some(Unhealthy { probe: word, grace: grace.map(Duration::from_secs) });
            }
            (Kind::Startup, None) | (Kind::Liveness, None | Some(probe::Verdict::Pass)) => (),
        }
        if let Err(cause) = result {
            let about = container_reference(&self.pod, role, name);
            self.ctx.recorder.warning_ref(about, "Unhealthy", format!("{} probe failed: {cause}", kind.word()));
        }
    }

    // ---- tell

    fn tell(&mut self, plan: &Plan, now: Timestamp, alarm: &mut Alarm) {
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

    fn write_status(&mut self, initialized: bool, now: Timestamp, alarm: &mut Alarm) {
        if self.status.writing.is_some() {
            return;
        }
        let address = match &self.ground {
            Ground::Ready(ground) if !matches!(self.teardown, Teardown::Done) => Some(ground.address),
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
        if self.status.written.as_ref() == Some(&wanted) {
            return;
        }
        if self.status.written.is_none() && self.only_beginning() {
            let until = self.started_at + FIRST_STATUS;
            if until > now {
                return alarm.at(Some(until));
            }
        }
        let known = self.pod.status.clone().unwrap_or_default();
        let Some(patch) = status::patch(&self.uid, &known, &wanted) else {
            self.status.written = Some(wanted);
            return;
        };
        self.status.writing = Some(wanted);
        let (ctx, pod) = (Arc::clone(&self.ctx), Arc::clone(&self.pod));
        self.begin(async move { Done::Written(Box::new(operations::write_status(ctx, pod, patch).await)) });
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

    fn publish_snapshot(&self) {
        let snapshot = Snapshot::of(&self.pod, &self.records, self.ended);
        self.snapshot.send_if_modified(|known| {
            let changed = *known != snapshot;
            if changed {
                *known = snapshot;
            }
            changed
        });
    }

    // ---- what operations answer

    fn finish(&mut self, done: Done, now: Timestamp) {
        match done {
            Done::Prepared(result) => self.prepared(result, now),
            Done::Refreshed(result) => self.refreshed(result, now),
            Done::Started { name, id, result } => self.started(&name, &id, result, now),
            Done::Stopped { name, result } => {
                if let Err(cause) = result {
                    warn!(pod = %self.uid, container = name, cause, "container not stopped");
                    let grace = self.stops.get(&name).copied().unwrap_or(FORCED_GRACE);
                    self.begin_stop(&name, grace, STOP_AGAIN);
                }
            }
            Done::Probed { name, id, kind, asked_at, result } => self.take_probe(&name, &id, kind, asked_at, result),
            Done::Written(result) => self.written(*result, now),
            Done::TornDown(Ok(())) => self.teardown = Teardown::Done,
            Done::TornDown(Err(cause)) => {
                warn!(pod = %self.uid, cause, "pod not removed from the node");
                self.teardown = Teardown::Failed { retry_at: now + STOP_AGAIN };
            }
            Done::Deleted(result) => {
                self.status.deleting = false;
                match result {
                    Ok(()) => self.status.deleted = true,
                    Err(error) => {
                        debug!(pod = %self.uid, %error, "deletion not confirmed");
                        self.status.retry_at = Some(now + WRITE_AGAIN);
                    }
                }
            }
        }
    }

    fn prepared(&mut self, result: Result<Prepared, Problem>, now: Timestamp) {
        let wait = match &self.ground {
            Ground::Preparing { wait } => *wait,
            Ground::None { .. } | Ground::Ready(_) => PREPARE_FIRST,
        };
        match result {
            Ok(prepared) => self.ground = Ground::Ready(prepared),
            Err(problem) => {
                self.ctx.recorder.warning(self.pod.as_ref(), problem.reason, problem.message);
                // What was missing may have come while we looked.
                let retry_at = if self.refresh.wanted { now } else { now + wait };
                self.ground = Ground::None { retry_at: Some(retry_at), wait: (wait * 2).min(PREPARE_LONGEST) };
            }
        }
    }

    fn refreshed(&mut self, result: Result<Prepared, Problem>, now: Timestamp) {
        self.refresh.running = false;
        match result {
            Ok(prepared) => {
                self.ground = Ground::Ready(prepared);
                self.refresh.wait = PREPARE_FIRST;
                self.refresh.retry_at = None;
            }
            Err(problem) => {
                // The files stay as they are: a guest goes on with what it has.
                self.ctx.recorder.warning(self.pod.as_ref(), problem.reason, problem.message);
                self.refresh.wanted = true;
                self.refresh.retry_at = Some(now + self.refresh.wait);
                self.refresh.wait = (self.refresh.wait * 2).min(PREPARE_LONGEST);
            }
        }
    }

    fn started(
        &mut self,
        name: &str,
        id: &ContainerId,
        result: Result<operations::Started, NotStarted>,
        now: Timestamp,
    ) {
        let Some((_, container)) = self.container(name) else { return };
        let Some(record) = self.records.get_mut(name).filter(|record| record.id.as_ref() == Some(id)) else { return };
        match result {
            Ok(started) => {
                record.image_digest = started.image_digest;
                if record.activity != Activity::Starting {
                    // It has ended already, and its end was told before its start.
                    return;
                }
                record.running(now);
                record.started = container.startup_probe.is_none();
                record.ready = record.started && container.readiness_probe.is_none();
                for kind in [Kind::Startup, Kind::Readiness, Kind::Liveness] {
                    if let Some(probe) = kind.of(&container) {
                        let state = probe::State::new(kind, probe, now);
                        self.probes.insert((name.to_owned(), kind), Probing { state, asking: false });
                    }
                }
            }
            Err(NotStarted::Abandoned) => {
                record.start_abandoned();
            }
            Err(NotStarted::Waiting(waiting, retry_at)) => record.start_failed(waiting, retry_at),
            Err(NotStarted::HookFailed) => {
                if record.activity == Activity::Starting {
                    // Its end is on its way; until then it counts as stopping.
                    record.activity = Activity::Stopping { since: now };
                }
            }
        }
    }

    fn written(&mut self, result: Result<Pod, kube::Error>, now: Timestamp) {
        let writing = self.status.writing.take();
        match result {
            Ok(pod) => {
                self.status.written = writing;
                self.take_pod(Arc::new(pod));
            }
            // It is gone, or another pod has its name: the watch tells the rest.
            Err(kube::Error::Api(answer)) if answer.code == 404 => self.status.written = writing,
            Err(kube::Error::Api(answer)) if answer.code == 409 && answer.message.contains("UID") => {
                self.status.written = writing;
            }
            Err(error) => {
                warn!(pod = %self.uid, %error, "status not written");
                self.status.retry_at = Some(now + WRITE_AGAIN);
            }
        }
    }

    // ---- small things

    fn begin(&mut self, operation: impl Future<Output = Done> + Send + 'static) {
        self.operations.push(Box::pin(operation));
    }

    fn container(&self, name: &str) -> Option<(Role, Container)> {
        let spec = self.pod.spec.as_ref()?;
        containers(spec).find(|(_, container)| container.name == name).map(|(role, container)| (role, container.clone()))
    }

    fn address(&self) -> Option<IpAddr> {
        match &self.ground {
            Ground::Ready(prepared) => Some(prepared.address),
            Ground::None { .. } | Ground::Preparing { .. } => None,
        }
    }

    fn full_name(&self) -> String {
        let meta = &self.pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}_{}({})", part(&meta.name), part(&meta.namespace), self.uid)
    }

    fn hold_references(&mut self) {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        self.held = self.ctx.sources.hold(namespace, &References::of(&self.pod), &self.mailbox);
    }

    /// Takes over what the API and the engine know of the pod's containers.
    fn remember(&mut self, known: &PodStatus, found: &[ContainerStatus], now: Timestamp) {
        let pod = Arc::clone(&self.pod);
        let Some(spec) = &pod.spec else { return };
        let statuses: Vec<_> =
            known.container_statuses.iter().chain(&known.init_container_statuses).flatten().collect();
        for (_, container) in containers(spec) {
            let status = statuses.iter().find(|status| status.name == container.name);
            let mut record = status.map_or_else(Record::new, |status| Record::remembered(status, now));
            let newest = found.iter().filter(|found| found.name == container.name).max_by_key(|found| found.attempt);
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
                            self.probes.insert((container.name.clone(), kind), Probing { state, asking: false });
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
                let exit_code = match self.records.get(&container.name).map(|record| &record.activity) {
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

/// The earliest of several times.
#[derive(Default)]
struct Alarm(Option<Timestamp>);

impl Alarm {
    fn at(&mut self, time: Option<Timestamp>) {
        self.0 = match (self.0, time) {
            (Some(known), Some(time)) => Some(known.min(time)),
            (known, time) => known.or(time),
        };
    }
}

async fn sleep_until(time: Option<Timestamp>) {
    match time {
        Some(time) => {
            let wait = Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
            // Timers have whole milliseconds; without one more we would wake just before the time, again and again.
            tokio::time::sleep(wait + Duration::from_millis(1)).await;
        }
        None => std::future::pending().await,
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(u64::MAX)
}

fn fresh_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// At most so many bytes, the end of a text being what matters least.
fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
