//! The webhooks that are configured at the moment, ready to be matched and called.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use coracle_store::{Object, Range, Revision, Store};
use serde_json::Value;

use crate::admission::matching::Matcher;
use crate::expressions::MatchConditions;
use crate::extension::{Destination, ReviewVersion};
use crate::object::{meta, strings};

/// One entry of a webhook configuration.
pub(super) struct Hook {
    /// The configuration's name.
    pub(super) configuration: String,
    pub(super) name: String,
    /// Or why it can match nothing.
    pub(super) matcher: Result<Matcher, String>,
    pub(super) conditions: MatchConditions,
    /// Or why it cannot be called.
    pub(super) destination: Result<Destination, String>,
    pub(super) timeout: Duration,
    /// `failurePolicy: Ignore`.
    pub(super) ignores_failure: bool,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) is_reinvoked: bool,
    /// Whether it promises to leave no traces of a dry run.
    pub(super) allows_dry_run: bool,
    /// None when it speaks no version of the review that we do.
    pub(super) version: Option<ReviewVersion>,
}

/// All webhooks of one kind of configuration, kept as the store has them.
pub(super) struct Configured {
    range: Range,
    read: ArcSwap<Read>,
}

#[derive(Default)]
struct Read {
    /// What the hooks were read from.
    sources: Vec<(Arc<str>, Revision)>,
    hooks: Arc<Vec<Hook>>,
}

impl Configured {
    /// Follows the configurations of this resource.
    pub(super) fn new(resource: &'static str) -> Self {
        Self { range: Range::all(resource), read: ArcSwap::default() }
    }

    /// The webhooks as they are now, by the name of their configuration and then in its order.
    ///
    /// The store's memory is asked on each write, which costs next to nothing where there are few, so that a configuration holds
    /// from the moment at which its creation is answered.
    pub(super) fn hooks(&self, store: &Store) -> Arc<Vec<Hook>> {
        let listed = store.list(&self.range, None, None, None).map(|listing| listing.objects);
        let objects = listed.unwrap_or_default();
        let read = self.read.load();
        let is_current = read.sources.len() == objects.len()
            && read.sources.iter().zip(&objects).all(|((name, revision), object)| {
                *revision == object.revision && **name == *object.key.name
            });
        if is_current {
            return read.hooks.clone();
        }
        let hooks = Arc::new(objects.iter().flat_map(|object| read_hooks(object)).collect());
        let sources = objects.iter().map(|object| (Arc::from(&*object.key.name), object.revision));
        let read = Read { sources: sources.collect(), hooks: Arc::clone(&hooks) };
        self.read.store(Arc::new(read));
        hooks
    }
}

fn read_hooks(object: &Object) -> Vec<Hook> {
    let configuration: Value = serde_json::from_slice(&object.bytes).unwrap_or_default();
    let webhooks = configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    webhooks.iter().map(|webhook| read_hook(meta(&configuration, "name"), webhook)).collect()
}

fn read_hook(configuration: &str, webhook: &Value) -> Hook {
    const DEFAULT_SECONDS: u64 = 10;
    let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_SECONDS);
    Hook {
        configuration: configuration.to_owned(),
        name: webhook["name"].as_str().unwrap_or_default().to_owned(),
        matcher: Matcher::of_webhook(webhook).map_err(|error| error.to_string()),
        destination: Destination::of_webhook(&webhook["clientConfig"])
            .map_err(|error| error.to_string()),
        conditions: MatchConditions::read(&webhook["matchConditions"], false),
        timeout: Duration::from_secs(seconds.clamp(1, 30)),
        ignores_failure: webhook["failurePolicy"] == "Ignore",
        is_reinvoked: webhook["reinvocationPolicy"] == "IfNeeded",
        allows_dry_run: matches!(webhook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
        version: ReviewVersion::choose(&strings(webhook.get("admissionReviewVersions"))),
    }
}
