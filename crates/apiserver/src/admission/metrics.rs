//! What `/metrics` tells of the cluster's own policies and webhooks, with upstream's names.
//!
//! Names of policies and webhooks are the administrator's, so that the number of time series is as well.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// One validation of a policy that had consequences.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Check {
    pub(super) policy: String,
    pub(super) policy_binding: String,
    /// `no_error`, `compile_error`, `invalid_error`.
    pub(super) error_type: &'static str,
    /// `allow`, `deny`, `warn`, `audit`.
    pub(super) enforcement_action: &'static str,
}

/// One call of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Called {
    pub(super) name: String,
    /// `admit` or `validating`.
    pub(super) r#type: &'static str,
    pub(super) operation: &'static str,
    pub(super) rejected: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejection {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedOpen {
    name: String,
    r#type: &'static str,
}

/// A counter whose name, which is upstream's, does not end with `_total` as those of counters have to here.
type Count = Gauge<u64, AtomicU64>;

/// The counters. A clone counts into the same ones.
#[derive(Clone)]
pub(crate) struct AdmissionMetrics {
    checks: Family<Check, Counter>,
    check_durations: Family<Check, Histogram, fn() -> Histogram>,
    calls: Family<Called, Histogram, fn() -> Histogram>,
    answers: Family<Answered, Counter>,
    rejections: Family<Rejection, Count>,
    failed_open: Family<FailedOpen, Count>,
}

impl Default for AdmissionMetrics {
    fn default() -> Self {
        Self {
            checks: Family::default(),
            check_durations: Family::new_with_constructor(|| {
                Histogram::new([0.000_000_5, 0.001, 0.01, 0.1, 1.0])
            }),
            calls: Family::new_with_constructor(|| {
                Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0])
            }),
            answers: Family::default(),
            rejections: Family::default(),
            failed_open: Family::default(),
        }
    }
}

impl AdmissionMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_validating_admission_policy_check",
            "Validations of policies that were violated or failed, by what was done about it",
            self.checks.clone(),
        );
        registry.register(
            "apiserver_validating_admission_policy_check_duration_seconds",
            "How long these took",
            self.check_durations.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "How long calls of webhooks took",
            self.calls.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_request",
            "Calls of webhooks, by the code of what they answered",
            self.answers.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_rejection_count",
            "Requests refused because of a webhook",
            self.rejections.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_fail_open_count",
            "Calls of webhooks that failed, and were ignored",
            self.failed_open.clone(),
        );
    }

    /// Counts a validation.
    pub(super) fn checked(&self, check: &Check, took: Duration) {
        self.checks.get_or_create(check).inc();
        self.check_durations.get_or_create(check).observe(took.as_secs_f64());
    }

    /// Counts a call that was answered with this code: 200 if the write may pass. `error` says why it may not if the webhook is
    /// not the one who refuses it.
    pub(super) fn called(
        &self,
        called: Called,
        code: u16,
        error: Option<&'static str>,
        took: Duration,
    ) {
        self.calls.get_or_create(&called).observe(took.as_secs_f64());
        let Called { name, r#type, operation, rejected } = called;
        let answered = Answered { name: name.clone(), r#type, operation, code, rejected };
        self.answers.get_or_create(&answered).inc();
        if rejected == "true" {
            let error_type = error.unwrap_or("no_error");
            // Only a webhook's own refusal has a code of the webhook's, and none above 600.
            let rejection_code = if error.is_some() { 0 } else { code.min(600) };
            let rejection = Rejection { name, r#type, operation, error_type, rejection_code };
            self.rejections.get_or_create(&rejection).inc();
        }
    }

    /// Counts a failed call that was ignored.
    pub(super) fn failed_open(&self, name: &str, r#type: &'static str) {
        self.failed_open.get_or_create(&FailedOpen { name: name.to_owned(), r#type }).inc();
    }
}
