//! Completion indexes: which are done, as the status writes them, and how a pod learns its own.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    self as api, Container, EnvVar, EnvVarSource, ObjectFieldSelector,
};
use kube::ResourceExt;

use crate::pod::Pod;

/// Where a pod bears its index: a label and an annotation of the same name.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

/// The index of a pod.
pub(super) fn of(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// Reads `1,3-5`. What cannot be read is left out.
pub(super) fn parse(text: &str, completions: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { continue };
        found.extend(
            (first..=last.min(completions.saturating_sub(1))).filter(|it| *it < completions),
        );
    }
    found
}

/// Writes `1,3-5`.
pub(super) fn format(indexes: &BTreeSet<u32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut indexes = indexes.iter().copied().peekable();
    while let Some(first) = indexes.next() {
        let mut last = first;
        while indexes.next_if(|next| *next == last + 1).is_some() {
            last += 1;
        }
        parts.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
    }
    parts.join(",")
}

/// Makes a pod the one for this index: its name, label, annotation, hostname and variable say so.
pub(super) fn give(pod: &mut api::Pod, job: &Job, index: u32) {
    let job_name = job.name_any();
    let text = index.to_string();
    pod.metadata.generate_name = Some(format!("{job_name}-{index}-"));
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), text.clone());
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

    #[test]
    fn indexes_are_written_as_they_are_read() {
        for text in ["", "0", "0-2", "1,3-5,7"] {
            assert_eq!(format(&parse(text, 10)), text);
        }
        assert_eq!(format(&parse("8-12,x,3", 10)), "3,8-9");
    }
}
