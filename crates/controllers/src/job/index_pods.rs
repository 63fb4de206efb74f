//! The pods of an indexed Job: how each learns its index, and what it knows of those before it.
//!
//! Upstream: `pkg/controller/job/indexed_job_utils.go`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicy};
use k8s_openapi::api::core::v1::{
    self as api, Container, EnvVar, EnvVarSource, ObjectFieldSelector,
};
use kube::ResourceExt;

use super::backoff::finished_at;
use super::failure_policy::{Match, matched};
use super::indexes::Indexes;
use crate::pod::Pod;

/// Where a pod bears its index: a label and an annotation of the same name.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How many pods of the index have failed before this one, and count against its limit.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many more have failed that the failure policy passes over.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// What the API keeps of a prefix before it adds letters of its own.
const LONGEST_PREFIX: usize = 58;

/// What a pod of an index is told when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub index: u32,
    /// With a limit for each index: what failed in it before.
    pub failures: Option<Failures>,
}

/// What failed in an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub counted: u32,
    pub ignored: u32,
}

impl Failures {
    /// What the pod was told when it was made. What somebody wrote there that is no such number is nothing.
    pub fn before(pod: &Pod) -> Self {
        let number = |name: &str| -> u32 {
            let text = pod.metadata.annotations.as_ref().and_then(|known| known.get(name));
            let parsed = text.and_then(|text| text.parse::<i32>().ok());
            parsed.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
        };
        Self { counted: number(FAILURES), ignored: number(IGNORED) }
    }

    /// What the pod that replaces this one is told.
    pub fn after(pod: &Pod, policy: Option<&PodFailurePolicy>) -> Self {
        let before = Self::before(pod);
        match matched(policy, pod) {
            Match::Ignore => Self { ignored: before.ignored + 1, ..before },
            Match::Count | Match::FailIndex | Match::FailJob(_) => {
                Self { counted: before.counted + 1, ..before }
            }
        }
    }

    /// All of them, which the wait before the next pod goes by.
    pub fn total(self) -> u32 {
        self.counted.saturating_add(self.ignored)
    }
}

/// The index of a pod.
pub(super) fn index_of(pod: &Pod) -> Option<u32> {
    let text = pod.metadata.annotations.as_ref()?.get(INDEX)?;
    text.parse::<i32>().ok().and_then(|index| u32::try_from(index).ok())
}

/// The indexes of pods.
pub(super) fn indexes_of<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Indexes {
    pods.into_iter().filter_map(|pod| index_of(pod)).collect()
}

/// Of pods in the order in which they may go: those without a valid index and all but the last of each index, and then
/// the others.
pub(super) fn repeated(pods: Vec<Arc<Pod>>, completions: u32) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let (mut useless, mut kept) = (Vec::new(), HashMap::<u32, Arc<Pod>>::new());
    let mut order = Vec::new();
    for pod in pods {
        match index_of(&pod).filter(|index| *index < completions) {
            None => useless.push(pod),
            Some(index) => match kept.insert(index, pod) {
                Some(before) => useless.push(before),
                None => order.push(index),
            },
        }
    }
    (useless, order.into_iter().filter_map(|index| kept.remove(&index)).collect())
}

/// Of each index the failed pod that the next one is told of. It has to stay until that one is there.
pub(super) fn last_failed<'a>(
    failed: impl IntoIterator<Item = &'a Arc<Pod>>,
    settled: &Indexes,
) -> BTreeMap<u32, Arc<Pod>> {
    let mut last: BTreeMap<u32, Arc<Pod>> = BTreeMap::new();
    for pod in failed {
        let Some(index) = index_of(pod).filter(|index| !settled.contains(*index)) else { continue };
        let standing = |pod: &Pod| (Failures::before(pod).total(), finished_at(pod));
        let known = last.get(&index).map(|known| standing(known));
        let (count, at) = standing(pod);
        if known.is_none_or(|(known, known_at)| known <= count && known_at <= at) {
            last.insert(index, Arc::clone(pod));
        }
    }
    last
}

/// Makes a pod the one for this place: its name, label, annotation, hostname and variable say so.
pub(super) fn give(pod: &mut api::Pod, job: &Job, place: Place) {
    let (job_name, text) = (job.name_any(), place.index.to_string());
    let ending = format!("-{text}-");
    let kept = job_name.len().min(LONGEST_PREFIX.saturating_sub(ending.len()));
    pod.metadata.generate_name = Some(format!("{}{ending}", &job_name[..kept]));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), text.clone());
    if let Some(failures) = place.failures {
        annotations.insert(FAILURES.to_owned(), failures.counted.to_string());
        if failures.ignored > 0 {
            annotations.insert(IGNORED.to_owned(), failures.ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), text.clone());
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(format!("{job_name}-{text}"));
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        add_variable(container);
    }
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_ENV) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, annotations: &Value) -> Arc<Pod> {
        let pod = json!({ "metadata": { "name": name, "annotations": annotations,
                          "creationTimestamp": "2026-01-01T00:00:00Z" } });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn of_pods_with_one_index_the_last_stays() {
        let at = |name: &str, index: &str| pod(name, &json!({ INDEX: index }));
        let pods = vec![
            at("a", "0"),
            at("b", "1"),
            at("c", "0"),
            at("beyond", "3"),
            at("nonsense", "x"),
            at("negative", "-1"),
            pod("none", &json!({})),
        ];
        let (useless, kept) = repeated(pods, 3);
        assert_eq!(names(&useless), ["a", "beyond", "nonsense", "negative", "none"]);
        assert_eq!(names(&kept), ["c", "b"]);
    }

    #[test]
    fn the_pod_that_saw_most_failures_is_the_one_to_learn_from() {
        let at = |name: &str, failures: &str, ignored: &str| {
            pod(name, &json!({ INDEX: "0", FAILURES: failures, IGNORED: ignored }))
        };
        let pods = [at("a", "1", "x"), at("b", "1", "1"), at("c", "-4", "0")];
        let last = last_failed(&pods, &Indexes::default());
        assert_eq!(last[&0].name_any(), "b");
        assert_eq!(Failures::after(&last[&0], None), Failures { counted: 2, ignored: 1 });
        assert!(last_failed(&pods, &Indexes::parse("0", 1)).is_empty());
    }

    #[test]
    fn the_index_stays_in_the_name_of_a_pod_whose_job_has_a_long_name() {
        let job = |name: String| Job {
            metadata: serde_json::from_value(json!({ "name": name })).unwrap(),
            ..Job::default()
        };
        let check = |name: String, expected: &str| {
            let mut pod = api::Pod::default();
            give(&mut pod, &job(name), Place { index: 12, failures: None });
            assert_eq!(pod.metadata.generate_name.as_deref(), Some(expected));
        };
        check("sum".to_owned(), "sum-12-");
        check("j".repeat(63), &format!("{}-12-", "j".repeat(54)));
    }
}
