//! Which pods each autoscaler counts: two that count the same ones would fight over them.
//!
//! Upstream: `validateAndParseSelector` in `pkg/controller/podautoscaler/horizontal.go`.

use std::collections::HashMap;

use coracle_api::selector::LabelSelector;
use coracle_reconcile::ObjectKey;
use parking_lot::Mutex;

use crate::context::Context;
use crate::pod::Pod;

/// The selectors of all autoscalers that were looked at, by their targets' own word.
#[derive(Default)]
pub(super) struct Selectors(Mutex<HashMap<ObjectKey, LabelSelector>>);

impl Selectors {
    /// Notes which pods the autoscaler counts; or the reason and message of why it should not.
    pub fn check(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        selector: &str,
    ) -> Result<(), (&'static str, String)> {
        let parsed = LabelSelector::parse(selector).map_err(|error| {
            let told = "couldn't convert selector into a corresponding internal selector object";
            ("InvalidSelector", format!("{told}: {error}"))
        })?;
        let mut selectors = self.0.lock();
        // One that was deleted meanwhile must not come back.
        if ctx.mirrors.autoscalers.get(key).is_some() {
            selectors.insert(key.clone(), parsed.clone());
        }
        let mut others: Vec<(&ObjectKey, &LabelSelector)> =
            selectors.iter().filter(|(other, _)| other.namespace == key.namespace).collect();
        if others.len() < 2 {
            return Ok(());
        }
        let pods = ctx.mirrors.pods.in_namespace(&key.namespace);
        let counted: Vec<&Pod> =
            pods.iter().map(AsRef::as_ref).filter(|pod| selects(&parsed, pod)).collect();
        others.retain(|(_, other)| counted.iter().any(|pod| selects(other, pod)));
        if others.len() < 2 {
            return Ok(());
        }
        let mut names: Vec<String> =
            others.iter().map(|(key, _)| format!("{{{} {}}}", key.name, key.namespace)).collect();
        names.sort();
        let names = names.join(" ");
        let told =
            format!("pods by selector {selector} are controlled by multiple HPAs: [{names}]");
        Err(("AmbiguousSelector", told))
    }

    /// The autoscaler is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.matches(|label| labels?.get(label).map(String::as_str))
}
