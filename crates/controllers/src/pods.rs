//! Pods as their controllers see them: their state in a few words, and how they are made and deleted.

use std::future::Future;
use std::time::Duration;

use coracle_reconcile::{Mirror, ObjectKey, Recorder};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{self as api, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, Request};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::api::{
    Attempting, Unfinished, api_time, code, is_already_exists, is_conflict,
    is_namespace_terminating, is_not_found, message,
};
use crate::ownership::{controlled_by, controller_of};
use crate::pod::{Condition, Pod};

/// Requests that one reconcile has under way at once: enough to fill the store's group
/// commits, few enough that one large set does not starve the others.
pub(crate) const CONCURRENT_REQUESTS: usize = 256;

/// How often a pod is asked for before its owner is told that nobody knows whether it is there.
const TRIES: u32 = 12;
/// The wait in between, which doubles, and how long it may get.
const AGAIN: Duration = Duration::from_millis(5);
const LONGEST_AGAIN: Duration = Duration::from_secs(1);

/// The pod counts: it is not over and not going.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_over(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The pod is going, and its containers may still run.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_over(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// The pod has succeeded or failed: none of its containers will run again.
pub(crate) fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The pod's phase; empty before anybody said.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.phase.as_deref().unwrap_or_default()
}

/// Whether the pod serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|ready| ready.status == "True")
}

/// Since when the pod has been ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = ready_condition(pod).filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

fn ready_condition(pod: &Pod) -> Option<&Condition> {
    pod.status.conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// How a pod stands to `minReadySeconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It does not serve.
    NotReady,
    /// It serves, but not yet for long enough; it will have after this time.
    After(Duration),
    /// It has served for long enough.
    Available,
}

/// Whether the pod has been ready for `min_ready`.
pub(crate) fn availability(pod: &Pod, min_ready: Duration, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::NotReady;
    }
    if min_ready.is_zero() {
        return Availability::Available;
    }
    let Some(since) = ready_since(pod) else { return Availability::NotReady };
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match min_ready.checked_sub(ready_for) {
        None | Some(Duration::ZERO) => Availability::Available,
        Some(left) => Availability::After(left),
    }
}

/// A name as the API would have chosen it: upstream's `SimpleNameGenerator`.
fn random_name(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    /// What the API keeps of the prefix.
    const LONGEST_PREFIX: usize = 58;
    let kept = prefix.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let kept = kept.take_while(|end| *end <= LONGEST_PREFIX).last().unwrap_or_default();
    let suffix = (0..5).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]));
    prefix[..kept].chars().chain(suffix).collect()
}

/// The pod that `owner` makes from its template; the API completes its name.
pub(crate) fn from_template<O: Resource<DynamicType = ()>>(
    template: &PodTemplateSpec,
    owner: &O,
) -> api::Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    api::Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.meta().name.as_deref().unwrap_or_default())),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Makes and deletes the pods of one controller, and tells of it as upstream's `RealPodControl` does.
#[derive(Clone)]
pub(crate) struct PodControl {
    pub client: Client,
    pub mirror: Mirror<Pod>,
    pub recorder: Recorder,
}

impl PodControl {
    /// Creates a pod of `owner`. The mirror has it when this answers.
    pub async fn create<O>(&self, owner: &O, pod: &api::Pod) -> kube::Result<()>
    where
        O: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self.post_once(owner, pod).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.recorder.normal(owner, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            // Nothing can be done about it, and it ends when the owner goes too.
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                self.recorder.warning(
                    owner,
                    "FailedCreate",
                    format!("Error creating: {}", message(&error)),
                );
                Err(error)
            }
        }
    }

    /// Creates a pod under a name that we choose: so that one that was asked for, and for which no answer came, is asked
    /// for again, and is not another one then.
    async fn post_once<O: Resource>(&self, owner: &O, pod: &api::Pod) -> kube::Result<Pod> {
        let mut pod = pod.clone();
        let prefix = pod.metadata.generate_name.clone().unwrap_or_default();
        pod.metadata.name = Some(random_name(&prefix));
        let mut may_exist = false;
        let mut attempt = 0;
        loop {
            let error = match self.post(&pod).await {
                Err(error) if is_already_exists(&error) && may_exist => {
                    match self.find(owner, &pod).await {
                        Ok(Some(ours)) => return Ok(ours),
                        Ok(None) => error,
                        Err(unknown) => unknown,
                    }
                }
                Err(error) => error,
                created => return created,
            };
            may_exist |= code(&error).is_none();
            let is_taken = is_already_exists(&error);
            attempt += 1;
            if attempt == TRIES || !(may_exist || is_taken) {
                return Err(error);
            }
            if is_taken {
                // By somebody else's pod.
                may_exist = false;
                pod.metadata.name = Some(random_name(&prefix));
            } else {
                tokio::time::sleep((AGAIN * (1 << attempt)).min(LONGEST_AGAIN)).await;
            }
        }
    }

    /// The pod of this name, if it is the owner's.
    async fn find<O: Resource>(&self, owner: &O, pod: &api::Pod) -> kube::Result<Option<Pod>> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(pod.metadata.name.as_deref().unwrap_or_default()).await?;
        let ours = found.filter(|found| {
            let controller = controller_of(&found.metadata);
            controller.is_some_and(|controller| Some(&controller.uid) == owner.meta().uid.as_ref())
        });
        if let Some(ours) = &ours {
            self.mirror.observe(ours.clone());
        }
        Ok(ours)
    }

    /// Creates a pod without a word: sends all of it, and keeps of the answer what we need.
    pub async fn post(&self, pod: &api::Pod) -> kube::Result<Pod> {
        let url = Pod::url_path(&(), pod.metadata.namespace.as_deref());
        let body = serde_json::to_vec(pod).map_err(kube::Error::SerdeError)?;
        let request = Request::new(url).create(&PostParams::default(), body);
        let created: Pod = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
        self.mirror.observe(created.clone());
        Ok(created)
    }

    /// Deletes a pod of `owner`, gracefully. A pod that is gone already is no error.
    pub async fn delete<O>(&self, owner: &O, pod: &Pod) -> kube::Result<()>
    where
        O: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self.remove(pod).await {
            Ok(true) => {
                let message = format!("Deleted pod: {}", pod.name_any());
                self.recorder.normal(owner, "SuccessfulDelete", message);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                self.recorder.warning(
                    owner,
                    "FailedDelete",
                    format!("Error deleting: {}", message(&error)),
                );
                Err(error)
            }
        }
    }

    /// Gives the pod labels beside those that it has. A pod that is gone is no error.
    pub async fn label(&self, pod: &Pod, labels: &Value) -> Result<(), Unfinished> {
        let key = ObjectKey::of(pod);
        let patch = json!({ "metadata": { "uid": pod.metadata.uid, "labels": labels } });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(labelled) => self.mirror.observe(labelled),
            Err(error) if is_not_found(&error) => (),
            Err(error) => return Err(error).attempting(|| format!("label pod {key}")),
        }
        Ok(())
    }

    /// Says why the pod is about to be deleted, for who asks later what became of it, and its last phase if one is
    /// given. `why` is a reason and a message. A pod that is gone is no error.
    pub async fn disrupt(
        &self,
        pod: &Pod,
        why: (&str, &str),
        phase: Option<&str>,
        now: Timestamp,
    ) -> kube::Result<()> {
        let (reason, message) = why;
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": api_time(now), "observedGeneration": pod.metadata.generation,
        });
        let mut status = json!({ "conditions": [condition] });
        if let Some(phase) = phase {
            status["phase"] = phase.into();
        }
        self.write_status(pod, &status).await
    }

    /// Says that the pod has failed: nobody will hear any more how it ended.
    pub async fn fail(&self, pod: &Pod) -> kube::Result<()> {
        self.write_status(pod, &json!({ "phase": "Failed" })).await
    }

    async fn write_status(&self, pod: &Pod, status: &Value) -> kube::Result<()> {
        let key = ObjectKey::of(pod);
        let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": status });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams::default();
        match api.patch_status(&key.name, &params, &Patch::Strategic(patch)).await {
            Ok(written) => self.mirror.observe(written),
            Err(error) if is_not_found(&error) || is_conflict(&error) => (),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes a pod, gracefully and without a word. `false` if it was gone already.
    pub async fn remove(&self, pod: &Pod) -> kube::Result<bool> {
        let key = ObjectKey::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let this_pod = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        match api.delete(&key.name, &DeleteParams::default().preconditions(this_pod)).await {
            Ok(answer) => match answer.left() {
                Some(going) => self.mirror.observe(going),
                None => self.mirror.observe_gone(pod),
            },
            Err(error) if is_not_found(&error) => {
                self.mirror.observe_gone(pod);
                return Ok(false);
            }
            // Another pod has its name, or somebody else objects: a pod that is only thought to be gone would stay for ever.
            Err(error) if is_conflict(&error) => {
                let there = api.get_opt(&key.name).await?;
                if there.is_some_and(|there| there.metadata.uid == pod.metadata.uid) {
                    return Err(error);
                }
                self.mirror.observe_gone(pod);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Does `count` things in batches of 1, 2, 4, … so that what cannot work fails once and not a thousand times.
///
/// Each batch is done at once, within [`CONCURRENT_REQUESTS`]; the first batch with a failure is the last.
///
/// # Errors
/// The first failure.
pub(crate) async fn slow_start<F, R, E>(count: usize, make: F) -> Result<(), E>
where
    F: Fn(usize) -> R,
    R: Future<Output = Result<(), E>>,
{
    let mut done = 0;
    let mut batch = 1;
    while done < count {
        let size = batch.min(count - done);
        at_once(done..done + size, &make).await?;
        done += size;
        batch *= 2;
    }
    Ok(())
}

/// Does something with each item at once, within [`CONCURRENT_REQUESTS`], and to the end even if some fail.
///
/// # Errors
/// The first failure.
pub(crate) async fn at_once<T, F, R, E>(items: impl IntoIterator<Item = T>, act: F) -> Result<(), E>
where
    F: Fn(T) -> R,
    R: Future<Output = Result<(), E>>,
{
    let outcomes = stream::iter(items.into_iter().map(act)).buffer_unordered(CONCURRENT_REQUESTS);
    outcomes.fold(Ok(()), |first, outcome| async { first.and(outcome) }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn slow_start_doubles_and_stops_at_the_first_batch_that_fails() {
        let made = Mutex::new(Vec::new());
        let outcome = slow_start(1000, |index| {
            made.lock().push(index);
            async move { if index == 4 { Err(index) } else { Ok(()) } }
        })
        .await;
        assert_eq!(outcome, Err(4));
        assert_eq!(made.lock().len(), 1 + 2 + 4);
        assert_eq!(slow_start(1000, |_| async { Ok::<_, ()>(()) }).await, Ok(()));
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |ready: &str, min_ready: u64, age: i64, expected: Availability| {
            let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "status": { "conditions": [
                { "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" }] } }))
            .unwrap();
            let now = since + jiff::SignedDuration::from_secs(age);
            assert_eq!(availability(&pod, Duration::from_secs(min_ready), now), expected);
        };
        check("False", 0, 100, Availability::NotReady);
        check("True", 0, 0, Availability::Available);
        check("True", 10, 4, Availability::After(Duration::from_secs(6)));
        check("True", 10, 10, Availability::Available);
        check("True", 10, 60, Availability::Available);
        // A clock that runs behind the kubelet's.
        check("True", 10, -5, Availability::After(Duration::from_secs(10)));
    }
}
