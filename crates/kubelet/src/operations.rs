//! What a pod's worker has under way: each a future that ends with a [`Done`], none of them touching the worker.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_runtime::{ContainerId, ContainerSpec, Mount, PodIdentity, SandboxSpec, StartError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::amounts;
use crate::context::{Context, container_reference};
use crate::env::{environment, expand_all};
use crate::images::Note;
use crate::plan::Role;
use crate::probe::Kind;
use crate::record::Waiting;
use crate::sources::{Held, Objects};
use crate::volumes::{self, Ingredients};
use crate::{logs, prober, tokens};

/// Upstream looks at a container that could not be created again after this time.
const CREATE_AGAIN: Duration = Duration::from_secs(10);

/// How an operation ended.
pub(crate) enum Done {
    /// The sandbox and the volumes stand, or not.
    Prepared(Result<Prepared, Problem>),
    /// The volumes are current again, or not.
    Refreshed(Result<Prepared, Problem>),
    /// A start ended.
    Started { name: String, id: ContainerId, result: Result<Started, NotStarted> },
    /// A stop ended.
    Stopped { name: String, result: Result<(), String> },
    /// A probe answered.
    Probed {
        name: String,
        id: ContainerId,
        kind: Kind,
        asked_at: Timestamp,
        result: Result<(), String>,
    },
    /// The status was written, or not.
    Written(Box<Result<Pod, kube::Error>>),
    /// The sandbox and the volumes are gone, or not.
    TornDown(Result<(), String>),
    /// The API was told that the pod has ended.
    Deleted(Result<(), kube::Error>),
}

/// What a pod's containers stand on.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// The pod's address.
    pub(crate) address: IpAddr,
    /// Where its volumes are.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    /// Its tokens.
    pub(crate) tokens: tokens::Held,
}

/// Why a pod's ground was not prepared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The pod ended meanwhile.
    Abandoned,
    /// Something is missing or broken: an Event says what.
    Failed {
        /// The Event's reason.
        reason: &'static str,
        /// The Event's message.
        message: String,
    },
}

/// A container that runs.
pub(crate) struct Started {
    /// Which image.
    pub(crate) image_digest: String,
}

/// Why a container does not run.
pub(crate) enum NotStarted {
    /// The pod ended meanwhile.
    Abandoned,
    /// It shows that it waits, and is tried again.
    Waiting(Waiting, Timestamp),
    /// It ran and was stopped again, because its `postStart` hook failed.
    HookFailed,
}

/// Gives the pod its address and its volumes.
pub(crate) async fn prepare(
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    held: Held,
    mut tokens: tokens::Held,
    known_address: Option<IpAddr>,
) -> Result<Prepared, Problem> {
    let address = match known_address {
        Some(address) => address,
        None => ctx.runtime.run_sandbox(&sandbox_spec(&ctx, &pod)).await.map_err(|error| {
            Problem::Failed {
                reason: "FailedCreatePodSandBox",
                message: format!("Failed to create pod sandbox: {}", spelled(&error)),
            }
        })?,
    };
    let mount = |volume: &str, cause: String| Problem::Failed {
        reason: "FailedMount",
        message: format!("MountVolume.SetUp failed for volume \"{volume}\" : {cause}"),
    };
    let objects = held.objects().await.map_err(|error| mount("", error.to_string()))?;
    if let Err(error) = tokens.renew(&ctx.client, &pod, Timestamp::now()).await {
        let projected = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let projected = projected
            .filter(|volume| volume.projected.is_some())
            .map(|volume| volume.name.as_str());
        let cause = format!("failed to fetch token: {}", api_message(&error));
        return Err(mount(projected.into_iter().next().unwrap_or_default(), cause));
    }
    let claims = claims(&ctx, &pod).await.map_err(|(volume, cause)| mount(&volume, cause))?;
    let around = ctx.surroundings(Some(address));
    let made = tokens.tokens();
    let from = Ingredients {
        pod: &pod,
        around: &around,
        objects: &objects,
        tokens: &made,
        claims: &claims,
    };
    let mut wanted = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let what = volumes::wanted(volume, &from).map_err(|cause| mount(&volume.name, cause))?;
        wanted.push((volume.name.clone(), what));
    }
    let directory = ctx.pod_directory(pod.metadata.uid.as_deref().unwrap_or_default());
    if wanted.is_empty() {
        return Ok(Prepared { address, volumes: BTreeMap::new(), tokens });
    }
    let _turn = ctx.volume_turns.acquire().await;
    let written = tokio::task::spawn_blocking(move || {
        let mut paths = BTreeMap::new();
        for (name, what) in wanted {
            let path = directory
                .make(&name, &what, Timestamp::now())
                .map_err(|error| (name.clone(), error.to_string()))?;
            paths.insert(name, path);
        }
        Ok(paths)
    });
    let volumes = written
        .await
        .map_err(|error| mount("", error.to_string()))?
        .map_err(|(name, cause)| mount(&name, cause))?;
    Ok(Prepared { address, volumes, tokens })
}

fn sandbox_spec(ctx: &Context, pod: &Pod) -> SandboxSpec {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    SandboxSpec { pod: identity(pod), hostname: hostname(ctx, pod), host_network }
}

fn hostname(ctx: &Context, pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.host_network).unwrap_or(false) {
        return ctx.node_name.clone();
    }
    let set =
        spec.and_then(|spec| spec.hostname_override.clone().or_else(|| spec.hostname.clone()));
    let name = set.filter(|name| !name.is_empty()).unwrap_or_else(|| pod.name_any());
    // A host's name has at most 63 letters; upstream cuts there too.
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    }
}

/// The paths of the pod's claims: volumes of this node only.
async fn claims(ctx: &Context, pod: &Pod) -> Result<BTreeMap<String, PathBuf>, (String, String)> {
    let mut paths = BTreeMap::new();
    let namespace = pod.namespace().unwrap_or_default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => claim.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", pod.name_any(), volume.name),
            (None, None) => continue,
        };
        let failed = |cause: String| (volume.name.clone(), cause);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &namespace);
        let found = api.get(&claim).await.map_err(|error| failed(api_message(&error)))?;
        if volume.ephemeral.is_some() && !is_made_for(&found, pod) {
            let pod = pod.name_any();
            let cause = format!(
                "PVC {namespace}/{claim} was not created for pod {namespace}/{pod} (pod is not owner)"
            );
            return Err(failed(cause));
        }
        let bound = found.spec.and_then(|spec| spec.volume_name).filter(|name| !name.is_empty());
        let bound = bound.ok_or_else(|| failed(format!("PVC {namespace}/{claim} is not bound")))?;
        let api: Api<PersistentVolume> = Api::all(ctx.client.clone());
        let found = api.get(&bound).await.map_err(|error| failed(api_message(&error)))?;
        let spec = found.spec.unwrap_or_default();
        let path = spec.host_path.map(|host| host.path).or(spec.local.map(|local| local.path));
        let path =
            path.ok_or_else(|| failed(format!("PersistentVolume {bound} is not on this node")))?;
        paths.insert(volume.name.clone(), PathBuf::from(path));
    }
    Ok(paths)
}

/// Whether the claim belongs to this pod alone.
fn is_made_for(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| {
        owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref()
    })
}

/// All that a start needs.
pub(crate) struct Start {
    pub(crate) ctx: Arc<Context>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) role: Role,
    pub(crate) container: Container,
    pub(crate) attempt: u32,
    pub(crate) id: ContainerId,
    pub(crate) former: Vec<ContainerId>,
    pub(crate) ground: Prepared,
    pub(crate) held: Held,
    pub(crate) abandon: CancellationToken,
}

impl Start {
    /// Brings the container to run: image, environment, mounts, start, `postStart`.
    pub(crate) async fn run(self) -> Result<Started, NotStarted> {
        forget(&self.ctx, &self.former).await;
        let (spec, image_digest) = tokio::select! {
            biased;
            () = self.abandon.cancelled() => return Err(NotStarted::Abandoned),
            ready = self.ready_spec() => ready?,
        };
        if let Err(error) = self.ctx.runtime.start_container(spec).await {
            return Err(self.refused(&error));
        }
        self.normal("Created", "Container created".to_owned());
        self.normal("Started", "Container started".to_owned());
        self.drop_old_log().await;
        let hook =
            self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if let Some(hook) = hook
            && let Err(cause) = prober::hook(hook, &self.container, self.ground.address).await
        {
            self.warn("FailedPostStartHook", format!("PostStartHook failed: {cause}"));
            self.normal("Killing", "FailedPostStartHook".to_owned());
            let stopped = self.ctx.runtime.stop_container(&self.id, Duration::from_secs(2)).await;
            if let Err(error) = stopped {
                tracing::warn!(container = %self.id, %error, "container not stopped after its postStart hook failed");
            }
            return Err(NotStarted::HookFailed);
        }
        Ok(Started { image_digest })
    }

    async fn ready_spec(&self) -> Result<(ContainerSpec, String), NotStarted> {
        let objects =
            self.held.objects().await.map_err(|error| self.config_error(error.to_string()))?;
        let image = self.image(&objects).await?;
        let mut spec = self.spec(&objects).map_err(|cause| self.config_error(cause))?;
        self.make_files(&mut spec).await.map_err(|error| {
            let log = spec.log_path.display();
            self.failed("CreateContainerError", format!("cannot make the files of {log}: {error}"))
        })?;
        Ok((spec, image.digest))
    }

    /// Makes the directory of the log, and the file into which the container may write why it ends.
    async fn make_files(&self, spec: &mut ContainerSpec) -> std::io::Result<()> {
        if let Some(directory) = spec.log_path.parent() {
            tokio::fs::create_dir_all(directory).await?;
        }
        let path = self.container.termination_message_path.as_deref().unwrap_or_default();
        // What is mounted there is the container's own; nobody but it reads a message in it.
        let is_hidden = spec.mounts.iter().any(|mount| {
            !mount.container_path.is_empty() && Path::new(path).starts_with(&mount.container_path)
        });
        if path.is_empty() || is_hidden {
            return Ok(());
        }
        let file = logs::message_file(&spec.log_path);
        tokio::fs::write(&file, b"").await?;
        let container_path = path.to_owned();
        spec.mounts.push(Mount { host_path: file, container_path, read_only: false });
        Ok(())
    }

    async fn image(&self, objects: &Objects) -> Result<coracle_runtime::Image, NotStarted> {
        let tell = |note: Note| {
            let about = container_reference(&self.pod, self.role, &self.container.name);
            if note.warning {
                self.ctx.recorder.warning_ref(about, note.reason, note.message);
            } else {
                self.ctx.recorder.normal_ref(about, note.reason, note.message);
            }
        };
        let image = self.ctx.images.ensure(&self.pod, &self.container, objects, &tell).await;
        image.map_err(|missing| NotStarted::Waiting(missing.waiting, missing.retry_at))
    }

    fn spec(&self, objects: &Objects) -> Result<ContainerSpec, String> {
        let (pod, container) = (&self.pod, &self.container);
        let around = self.ctx.surroundings(Some(self.ground.address));
        let services = self.ctx.service_links(pod);
        let mut env = environment(pod, container, &around, objects, &services)?;
        if !env.iter().any(|(name, _)| name == "HOSTNAME") {
            // Every container engine tells a container its host's name this way.
            env.insert(0, ("HOSTNAME".to_owned(), hostname(&self.ctx, pod)));
        }
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let limit = |name: &str| limits.and_then(|limits| limits.get(name));
        let ports = container.ports.iter().flatten();
        let tcp =
            ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        let log =
            self.ctx.log_directory(pod).join(&container.name).join(format!("{}.log", self.attempt));
        Ok(ContainerSpec {
            id: self.id.clone(),
            pod: identity(pod),
            name: container.name.clone(),
            attempt: self.attempt,
            image: container.image.clone().unwrap_or_default(),
            command: expand_all(container.command.as_ref(), &env),
            args: expand_all(container.args.as_ref(), &env),
            mounts: volumes::mounts(pod, container, &self.ground.volumes, &env)?,
            env,
            working_dir: container.working_dir.clone().filter(|directory| !directory.is_empty()),
            tcp_ports: tcp.filter_map(|port| u16::try_from(port.container_port).ok()).collect(),
            memory_limit_bytes: limit("memory")
                .map(amounts::units)
                .transpose()?
                .filter(|bytes| *bytes > 0),
            cpu_limit_millis: limit("cpu")
                .map(amounts::millis)
                .transpose()?
                .filter(|millis| *millis > 0),
            log_path: log,
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        })
    }

    /// Only the attempt before keeps its log: upstream keeps one dead container too.
    async fn drop_old_log(&self) {
        if let Some(old) = self.attempt.checked_sub(2) {
            let directory = self.ctx.log_directory(&self.pod).join(&self.container.name);
            logs::remove_attempt(&directory, old).await;
        }
    }

    fn refused(&self, error: &StartError) -> NotStarted {
        let word = match error {
            StartError::ImageMissing { .. }
            | StartError::ImageInvalid { .. }
            | StartError::MissingImport { .. }
            | StartError::Refused { .. } => "CreateContainerError",
            StartError::Failed { .. } => "RunContainerError",
        };
        self.failed(word, spelled(error))
    }

    fn config_error(&self, cause: String) -> NotStarted {
        self.failed("CreateContainerConfigError", cause)
    }

    fn failed(&self, word: &str, message: String) -> NotStarted {
        self.warn("Failed", format!("Error: {message}"));
        let waiting = Waiting { reason: word.to_owned(), message };
        NotStarted::Waiting(waiting, Timestamp::now() + CREATE_AGAIN)
    }

    fn normal(&self, reason: &str, message: String) {
        self.ctx.recorder.normal_ref(
            container_reference(&self.pod, self.role, &self.container.name),
            reason,
            message,
        );
    }

    fn warn(&self, reason: &str, message: String) {
        self.ctx.recorder.warning_ref(
            container_reference(&self.pod, self.role, &self.container.name),
            reason,
            message,
        );
    }
}

/// Stops a container: `preStop` first, then what is left of the grace period.
pub(crate) async fn stop(
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    role: Role,
    container: Container,
    id: ContainerId,
    address: Option<IpAddr>,
    grace: Duration,
) -> Result<(), String> {
    let begun = Instant::now();
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let (Some(hook), Some(address)) = (hook, address)
        && !grace.is_zero()
    {
        let outcome = tokio::time::timeout(grace, prober::hook(hook, &container, address)).await;
        if let Ok(Err(cause)) = outcome {
            let about = container_reference(&pod, role, &container.name);
            ctx.recorder.warning_ref(
                about,
                "FailedPreStopHook",
                format!("PreStopHook failed: {cause}"),
            );
        }
    }
    // Upstream leaves at least two seconds after the hook.
    let left = grace.saturating_sub(begun.elapsed()).max(grace.min(Duration::from_secs(2)));
    ctx.runtime.stop_container(&id, left).await.map_err(|error| spelled(&error))
}

/// Writes the pod's status.
pub(crate) async fn write_status(
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    patch: Value,
) -> Result<Pod, kube::Error> {
    // Closed never: the semaphore lives as long as the context.
    let _turn = ctx.status_turns.acquire().await;
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &pod.namespace().unwrap_or_default());
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await
}

/// Tells the API that the deleted pod has ended here.
pub(crate) async fn delete(ctx: Arc<Context>, pod: Arc<Pod>) -> Result<(), kube::Error> {
    let _turn = ctx.status_turns.acquire().await;
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &pod.namespace().unwrap_or_default());
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&pod.name_any(), &parameters).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        // Another pod has the name by now: this one is gone.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        answer => answer.map(drop),
    }
}

/// The engine need not remember attempts that have ended: what is to be known of them, the worker knows.
async fn forget(ctx: &Context, ended: &[ContainerId]) {
    for id in ended {
        if let Err(error) = ctx.runtime.remove_container(id).await {
            tracing::warn!(container = %id, %error, "ended container not removed");
        }
    }
}

/// Gives back the pod's address and removes its volumes.
pub(crate) async fn tear_down(
    ctx: Arc<Context>,
    uid: String,
    ended: Vec<ContainerId>,
) -> Result<(), String> {
    ctx.runtime.remove_sandbox(&uid).await.map_err(|error| spelled(&error))?;
    forget(&ctx, &ended).await;
    let directory = ctx.pod_directory(&uid);
    let removed = tokio::task::spawn_blocking(move || directory.remove()).await;
    removed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn spelled(error: &StartError) -> String {
    match error {
        StartError::Failed { source, .. } => format!("{error}: {source}"),
        StartError::ImageMissing { .. }
        | StartError::ImageInvalid { .. }
        | StartError::MissingImport { .. }
        | StartError::Refused { .. } => error.to_string(),
    }
}

/// What the API said, without the client's frame around it.
pub(crate) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
