//! Has an image on the node before its container starts: pull policies, back-off, bounded parallel pulls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_runtime::{Image, ImageError, PullCredentials, Runtime};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::backoff::Backoff;
use crate::record::Waiting;
use crate::sources::Objects;

/// Pulls at once: the network is shared, and each pull ends with a compilation that wants a core.
const PARALLEL_PULLS: usize = 4;
/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
const SHOW_ERROR: Duration = Duration::from_secs(2);
/// How many failed images are remembered; more than any node has pods that fail at once.
const REMEMBERED: usize = 4096;

/// The node's way to images.
pub(crate) struct Images {
    runtime: Arc<dyn Runtime>,
    pulls: Semaphore,
    // By pod uid and image, as upstream does it.
    failures: Mutex<HashMap<(String, String), Failure>>,
}

struct Failure {
    backoff: Backoff,
    at: Timestamp,
    message: String,
}

/// Something to tell in an Event.
pub(crate) struct Note {
    /// Whether it is a warning.
    pub(crate) warning: bool,
    /// The Event's reason.
    pub(crate) reason: &'static str,
    /// The Event's message.
    pub(crate) message: String,
}

/// Why the image is not there, and when to try again.
#[derive(Debug)]
pub(crate) struct NoImage {
    /// What the container's status says.
    pub(crate) waiting: Waiting,
    /// When to look again.
    pub(crate) retry_at: Timestamp,
}

impl Images {
    /// The images of this engine.
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, pulls: Semaphore::new(PARALLEL_PULLS), failures: Mutex::default() }
    }

    /// Has the container's image in the store, pulled if its policy says so.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        objects: &Objects,
        tell: &(dyn Fn(Note) + Send + Sync),
    ) -> Result<Image, NoImage> {
        let reference = container.image.as_deref().unwrap_or_default();
        let present = match self.runtime.image(reference).await {
            Ok(present) => present,
            Err(error) => return Err(failed_to_inspect(reference, &error, tell)),
        };
        let policy =
            container.image_pull_policy.as_deref().unwrap_or_else(|| default_policy(reference));
        if policy == "Never" && present.is_none() {
            let message =
                format!("Container image \"{reference}\" is not present with pull policy of Never");
            tell(Note { warning: true, reason: "ErrImageNeverPull", message: message.clone() });
            return Err(no_image("ErrImageNeverPull", message, Duration::from_secs(10)));
        }
        // A local image that names no registry has none to be pulled from: what `image import` put there is meant.
        let keep = policy != "Always" || registry(reference).is_none();
        if let Some(image) = present.filter(|_| keep) {
            let message = format!(
                "Container image \"{reference}\" already present on machine and can be accessed by the pod"
            );
            tell(Note { warning: false, reason: "Pulled", message });
            return Ok(image);
        }
        let key = (pod.metadata.uid.clone().unwrap_or_default(), reference.to_owned());
        if let Some(held) = self.held_back(&key, Timestamp::now()) {
            tell(Note {
                warning: false,
                reason: "BackOff",
                message: format!("Back-off pulling image \"{reference}\""),
            });
            return Err(held);
        }
        self.pull(key, reference, &credentials(objects, reference), tell).await
    }

    async fn pull(
        &self,
        key: (String, String),
        reference: &str,
        credentials: &[PullCredentials],
        tell: &(dyn Fn(Note) + Send + Sync),
    ) -> Result<Image, NoImage> {
        tell(Note {
            warning: false,
            reason: "Pulling",
            message: format!("Pulling image \"{reference}\""),
        });
        let asked = Instant::now();
        // Closed never: the semaphore lives as long as we do.
        let _turn = self.pulls.acquire().await;
        let begun = Instant::now();
        let mut outcome = self.runtime.pull_image(reference, credentials.first()).await;
        for other in credentials.iter().skip(1) {
            if outcome.is_ok() {
                break;
            }
            outcome = self.runtime.pull_image(reference, Some(other)).await;
        }
        match outcome {
            Ok(image) => {
                self.failures.lock().remove(&key);
                let message = format!(
                    "Successfully pulled image \"{reference}\" in {} ({} including waiting). Image size: {} bytes.",
                    took(begun),
                    took(asked),
                    image.size_bytes
                );
                tell(Note { warning: false, reason: "Pulled", message });
                Ok(image)
            }
            Err(error) => {
                let cause = described(&error);
                tell(Note {
                    warning: true,
                    reason: "Failed",
                    message: format!("Failed to pull image \"{reference}\": {cause}"),
                });
                let word = match error {
                    ImageError::InvalidName { .. } => "InvalidImageName",
                    ImageError::Pull { .. } | ImageError::Store { .. } => "ErrImagePull",
                };
                tell(Note { warning: true, reason: "Failed", message: format!("Error: {word}") });
                self.remember(key, &cause, Timestamp::now());
                Err(no_image(word, cause, SHOW_ERROR))
            }
        }
    }

    fn held_back(&self, key: &(String, String), now: Timestamp) -> Option<NoImage> {
        let failures = self.failures.lock();
        let failure = failures.get(key)?;
        let until = failure.at + failure.backoff.pause(now);
        if until <= now {
            return None;
        }
        let message = format!("Back-off pulling image \"{}\": {}", key.1, failure.message);
        let waiting = Waiting { reason: "ImagePullBackOff".to_owned(), message };
        Some(NoImage { waiting, retry_at: until })
    }

    fn remember(&self, key: (String, String), message: &str, now: Timestamp) {
        let mut failures = self.failures.lock();
        if failures.len() >= REMEMBERED {
            failures.retain(|_, failure| failure.at + failure.backoff.pause(now) > now);
        }
        let failure = failures.entry(key).or_insert_with(|| Failure {
            backoff: Backoff::default(),
            at: now,
            message: String::new(),
        });
        failure.backoff.lengthen(now);
        failure.at = now;
        message.clone_into(&mut failure.message);
    }

    /// Forgets the failures of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.failures.lock().retain(|(pod, _), _| pod != uid);
    }
}

fn failed_to_inspect(
    reference: &str,
    error: &ImageError,
    tell: &(dyn Fn(Note) + Send + Sync),
) -> NoImage {
    let (word, message) = match error {
        ImageError::InvalidName { .. } => (
            "InvalidImageName",
            format!("Failed to apply default image tag \"{reference}\": {}", described(error)),
        ),
        ImageError::Pull { .. } | ImageError::Store { .. } => (
            "ImageInspectError",
            format!("Failed to inspect image \"{reference}\": {}", described(error)),
        ),
    };
    let reason = if word == "InvalidImageName" { "InspectFailed" } else { "FailedToInspectImage" };
    tell(Note { warning: true, reason, message: message.clone() });
    tell(Note { warning: true, reason: "Failed", message: format!("Error: {word}") });
    no_image(word, message, Duration::from_secs(10))
}

fn no_image(word: &str, message: String, wait: Duration) -> NoImage {
    NoImage {
        waiting: Waiting { reason: word.to_owned(), message },
        retry_at: Timestamp::now() + wait,
    }
}

fn described(error: &ImageError) -> String {
    match error {
        ImageError::InvalidName { .. } | ImageError::Pull { .. } => error.to_string(),
        ImageError::Store { source, .. } => format!("{error}: {source}"),
    }
}

fn took(since: Instant) -> String {
    let elapsed = since.elapsed();
    if elapsed < Duration::from_secs(1) {
        format!("{}ms", elapsed.as_millis())
    } else {
        format!("{:.3}s", elapsed.as_secs_f64())
    }
}

/// Upstream's default: what may move is pulled each time.
fn default_policy(reference: &str) -> &'static str {
    let last = reference.rsplit('/').next().unwrap_or_default();
    let moves =
        !reference.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if moves { "Always" } else { "IfNotPresent" }
}

/// The registry that a reference names, as Docker reads it: a first part with a dot, a port, or `localhost`.
fn registry(reference: &str) -> Option<&str> {
    let (first, _) = reference.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// What the pod's `imagePullSecrets` say for the registry of this image.
fn credentials(objects: &Objects, reference: &str) -> Vec<PullCredentials> {
    let wanted = registry(reference).unwrap_or("index.docker.io");
    objects.secrets.values().flat_map(|secret| of_secret(secret, wanted, reference)).collect()
}

fn of_secret(secret: &Secret, wanted: &str, reference: &str) -> Vec<PullCredentials> {
    let data = secret.data.as_ref();
    let read = |key: &str| {
        data.and_then(|data| data.get(key))
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes.0).ok())
    };
    let hosts = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            read(".dockerconfigjson").map(|config| config["auths"].clone())
        }
        Some("kubernetes.io/dockercfg") => read(".dockercfg"),
        _ => None,
    };
    let Some(Value::Object(hosts)) = hosts else { return Vec::new() };
    hosts
        .iter()
        .filter(|(host, _)| {
            let host = host
                .trim_start_matches("https://")
                .trim_start_matches("http://")
                .trim_end_matches('/');
            let host =
                host.strip_suffix("/v1").or_else(|| host.strip_suffix("/v2")).unwrap_or(host);
            let docker =
                matches!(host, "docker.io" | "registry-1.docker.io") && wanted == "index.docker.io";
            host == wanted || docker || reference.starts_with(&format!("{host}/"))
        })
        .filter_map(|(_, entry)| one_login(entry))
        .collect()
}

fn one_login(entry: &Value) -> Option<PullCredentials> {
    use base64::Engine as _;
    if let (Some(username), Some(password)) =
        (entry["username"].as_str(), entry["password"].as_str())
    {
        return Some(PullCredentials {
            username: username.to_owned(),
            password: password.to_owned(),
        });
    }
    let auth = base64::engine::general_purpose::STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let (username, password) =
        String::from_utf8(auth).ok()?.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned()))?;
    Some(PullCredentials { username, password })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_says_its_policy_and_registry() {
        let cases = [
            ("hello", "Always", None),
            ("hello:latest", "Always", None),
            ("hello:1.0", "IfNotPresent", None),
            ("team/hello:1.0", "IfNotPresent", None),
            ("ghcr.io/team/hello:1", "IfNotPresent", Some("ghcr.io")),
            ("localhost:5000/hello", "Always", Some("localhost:5000")),
            ("localhost/hello@sha256:00", "IfNotPresent", Some("localhost")),
        ];
        for (reference, policy, host) in cases {
            assert_eq!(
                (default_policy(reference), registry(reference)),
                (policy, host),
                "{reference}"
            );
        }
    }

    #[test]
    fn a_pull_secret_opens_its_registry_only() {
        let config = json!({ "auths": {
            "ghcr.io": { "auth": "bWU6c2VjcmV0" },
            "https://index.docker.io/v1/": { "username": "you", "password": "word" },
        } });
        let secret: Secret = serde_json::from_value(json!({
            "type": "kubernetes.io/dockerconfigjson",
        }))
        .unwrap();
        let bytes = k8s_openapi::ByteString(serde_json::to_vec(&config).unwrap());
        let secret =
            Secret { data: Some([(".dockerconfigjson".to_owned(), bytes)].into()), ..secret };
        let objects =
            Objects { secrets: [("s".to_owned(), Arc::new(secret))].into(), ..Objects::default() };
        let users = |reference| {
            credentials(&objects, reference)
                .into_iter()
                .map(|login| login.username)
                .collect::<Vec<_>>()
        };
        assert_eq!(users("ghcr.io/team/hello:1"), ["me"]);
        assert_eq!(users("team/hello:1"), ["you"]);
        assert!(users("quay.io/team/hello:1").is_empty());
    }
}
