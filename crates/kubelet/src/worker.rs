//! A pod's whole life on this node: one task for each pod, one pass at a time.
//!
//! A pass ([`Worker::pass`]) never waits: it looks at what arrived, decides with [`plan`], and begins operations.
//! What takes time runs beside it as an operation and comes back as a [`Done`].

mod adopting;
mod asking;
mod finishing;
mod leaving;
mod looking;
mod telling;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerId, ContainerStatus};
use futures::stream::FuturesUnordered;
use futures::{Future, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::admission::Charge;
use crate::context::{Context, container_reference};
use crate::mailbox::Mailbox;
use crate::operations::{self, Done, Prepared, Problem, Start};
use crate::plan::{Goal, Plan, Role, containers, plan};
use crate::probe::{self, Kind};
use crate::record::{Activity, Record, Unhealthy};
use crate::snapshot::Snapshot;
use crate::sources::{Held, References};
use crate::status::Verdict;
use crate::{logs, tokens};

/// A pod that is Ready within this time gets one status write instead of two or three. What runs is told at once; this
/// only holds back that a pod is about to, or that a container makes way for one of another image. Long enough for a pod
/// among a thousand that start together: there, status writes were a third of all work.
const QUICK_STATUS: Duration = Duration::from_millis(300);
/// The first wait after a failed preparation; it doubles, as upstream's volume manager does it.
const PREPARE_FIRST: Duration = Duration::from_millis(500);
/// The longest wait after a failed preparation.
const PREPARE_LONGEST: Duration = Duration::from_secs(122);
/// The first wait after the API refused a write; it doubles up to half a minute.
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
    failures: u32,
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
            status: Status {
                writing: None,
                written: None,
                retry_at: None,
                failures: 0,
                deleting: false,
                deleted: false,
            },
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
                () = shutdown.cancelled() => return self.leave().await,
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

    // ---- decide

    fn goal(&self) -> Goal {
        let ends = self.gone
            || self.over
            || self.verdict.is_some()
            || self.pod.metadata.deletion_timestamp.is_some();
        if ends { Goal::End } else { Goal::Run }
    }

    fn check_deadline(&mut self, now: Timestamp, alarm: &mut Alarm) {
        let allowed = self.pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        let Some(allowed) = allowed.filter(|_| !self.ended && !self.over && self.verdict.is_none())
        else {
            return;
        };
        let deadline = self.started_at + SignedDuration::from_secs(allowed.max(0));
        if deadline > now {
            alarm.at(Some(deadline));
            return;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.ctx.recorder.normal(self.pod.as_ref(), "DeadlineExceeded", message);
        self.verdict =
            Some(Verdict { reason: "DeadlineExceeded".to_owned(), message: message.to_owned() });
    }

    fn decide(&mut self, goal: Goal, now: Timestamp) -> Plan {
        if goal == Goal::End {
            self.abandon.cancel();
        }
        let seen =
            self.records.iter().map(|(name, record)| (name.clone(), record.seen())).collect();
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
                Some(Unhealthy::Probe { grace: Some(grace), .. }) if goal == Goal::Run => *grace,
                _ => self.grace(),
            };
            let Some((role, _)) = self.container(name) else { continue };
            let message = match unhealthy.filter(|_| goal == Goal::Run) {
                Some(Unhealthy::Probe { probe, .. }) => {
                    format!("Container {name} failed {probe} probe, will be restarted")
                }
                Some(Unhealthy::Changed) => {
                    format!("Container {name} definition changed, will be restarted")
                }
                None => format!("Stopping container {name}"),
            };
            self.ctx.recorder.normal_ref(
                container_reference(&self.pod, role, name),
                "Killing",
                message,
            );
            self.begin_stop(name, grace, Duration::ZERO);
        }
        if goal == Goal::End {
            self.hurry();
        }
    }

    /// A second deletion may allow less time than the first.
    fn hurry(&mut self) {
        let grace = self.grace();
        let slow: Vec<String> = self
            .stops
            .iter()
            .filter(|(_, allowed)| grace < **allowed)
            .map(|(name, _)| name.clone())
            .collect();
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
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        if self.ctx.shutdown.is_cancelled() {
            // The node ends, and does not wait for the slowest of its pods.
            return grace.min(self.ctx.shutdown_grace).min(leaving::GRACE);
        }
        grace
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
        let leftover = self.records.values_mut().map(|record| std::mem::take(&mut record.leftover));
        let ended: Vec<ContainerId> = leftover.flatten().collect();
        self.begin(async move { Done::TornDown(operations::tear_down(ctx, uid, ended).await) });
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
        let abandon = self.abandon.clone();
        self.begin(async move {
            let work = operations::prepare(ctx, pod, held, tokens, address);
            done(abandon.run_until_cancelled(work).await.unwrap_or(Err(Problem::Abandoned)))
        });
    }

    // ---- start

    fn start(&mut self, names: &[String]) {
        let Ground::Ready(ground) = &self.ground else { return };
        let ground = ground.clone();
        for name in names {
            let Some((role, container)) = self.container(name) else { continue };
            let Some(record) = self.records.get_mut(name) else { continue };
            let id = ContainerId::new(fresh_id());
            let former = std::mem::take(&mut record.leftover);
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

    // ---- small things

    fn begin(&mut self, operation: impl Future<Output = Done> + Send + 'static) {
        self.operations.push(Box::pin(operation));
    }

    fn container(&self, name: &str) -> Option<(Role, Container)> {
        let spec = self.pod.spec.as_ref()?;
        containers(spec)
            .find(|(_, container)| container.name == name)
            .map(|(role, container)| (role, container.clone()))
    }

    /// Waits a little longer after each refusal in a row.
    fn write_again(&mut self, now: Timestamp) {
        self.status.retry_at = Some(now + WRITE_AGAIN * (1 << self.status.failures.min(6)));
        self.status.failures += 1;
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
            let wait =
                Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
            // Timers have whole milliseconds; without one more we would wake just before the time, again and again.
            tokio::time::sleep(wait + Duration::from_millis(1)).await;
        }
        None => std::future::pending().await,
    }
}

fn fresh_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
