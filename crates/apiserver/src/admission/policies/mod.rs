//! Admission by expressions: ValidatingAdmissionPolicies and MutatingAdmissionPolicies, with their bindings and parameters.
//!
//! Start reading at [`Policies::validate`] and [`Policies::mutate`]; `configuration.rs` reads policies and bindings, `params.rs` finds
//! parameters, `validating.rs` and `mutating.rs` are what one policy does with one write, `rights.rs` is who may write which policy, and
//! `type_check.rs` what the status of a policy says about its expressions. As upstream
//! (<https://github.com/kubernetes/kubernetes/tree/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/policy>).
//!
//! Always true: policies are read from the store's memory on each write, so that one holds from the moment at which its creation is
//! answered; what policies are about is never judged by policies.

mod configuration;
mod mutating;
mod params;
mod rights;
mod type_check;
mod validating;

use std::borrow::Cow;
use std::sync::Arc;

use coracle_api::kinds::Kind;
use coracle_api::status::{Cause, Reason, Status};
use coracle_store::Store;
use serde_json::Value;

use super::matching::Subject;
use super::metrics::AdmissionMetrics;
use super::{AdmissionRequest, face};
use crate::authz::Authorizer;
use crate::custom_resources::{Registry, Snapshot};
use crate::expressions::{Facts, Host};
use crate::reviews::Reviews;
use configuration::{Binding, Head, Kept};
use mutating::MutatingPolicy;
pub(crate) use mutating::{Format, Rounds, with_objects};
pub(crate) use type_check::keep_status;
use validating::ValidatingPolicy;

/// Judges and changes writes as the policies of the cluster say.
pub(crate) struct Policies {
    host: Host,
    kinds: Arc<Registry>,
    validating: Kept<ValidatingPolicy>,
    validating_bindings: Kept<Binding>,
    mutating: Kept<MutatingPolicy>,
    mutating_bindings: Kept<Binding>,
    metrics: AdmissionMetrics,
}

/// One policy for one write, by one binding and with one parameter.
struct Invocation<'a, P> {
    policy: &'a P,
    binding: &'a Binding,
    /// The version in which the policy sees the write.
    kind: &'static Kind,
    params: Option<Value>,
}

/// Why a policy refuses a write.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: Option<Reason>,
}

impl Denial {
    /// What is wrong with the policy itself, or with one of its bindings.
    fn misconfigured(head: &Head, binding: Option<&Binding>, why: &str) -> Self {
        let what = if binding.is_some() { "binding" } else { "policy" };
        Self {
            policy: head.name.clone(),
            binding: binding.map(|binding| binding.name.clone()),
            message: format!("failed to configure {what}: {why}"),
            reason: None,
        }
    }
}

impl Policies {
    /// Over the policies of this store, those to come included.
    pub(crate) fn new(
        store: Store,
        authorizer: Arc<Authorizer>,
        kinds: Arc<Registry>,
        metrics: AdmissionMetrics,
    ) -> Self {
        Self {
            metrics,
            host: Host { store, authorizer },
            kinds,
            validating: Kept::new("validatingadmissionpolicies", ValidatingPolicy::read),
            validating_bindings: Kept::new("validatingadmissionpolicybindings", Binding::read),
            mutating: Kept::new("mutatingadmissionpolicies", MutatingPolicy::read),
            mutating_bindings: Kept::new("mutatingadmissionpolicybindings", Binding::read),
        }
    }

    /// Asks the validating policies; the first refusal in the order of their names counts.
    pub(crate) async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let policies = self.validating.all(&self.host.store);
        if policies.is_empty() || is_exempt(request.kind) {
            return Ok(());
        }
        let bindings = self.validating_bindings.all(&self.host.store);
        let mut judged = Vec::with_capacity(policies.len());
        for policy in policies.iter() {
            let mut denials = Vec::new();
            let found =
                self.invocations(&**policy, &policy.head, &bindings, request, &mut denials).await;
            judged.push((policy, found, denials));
        }
        // Each version is made once, however many policies look at it.
        let mut shown: Vec<(&'static Kind, Shown<'_>)> = Vec::new();
        for invocation in judged.iter().flat_map(|(_, found, _)| found) {
            if !shown.iter().any(|(kind, _)| *kind == invocation.kind) {
                shown.push((invocation.kind, Shown::of(request, invocation.kind).await?));
            }
        }
        let facts: Vec<_> = shown
            .iter()
            .map(|(kind, shown)| (*kind, shown.facts(&self.host, request, kind)))
            .collect();
        let mut first = None;
        for (policy, found, mut denials) in judged {
            for invocation in &found {
                if let Some((_, facts)) = facts.iter().find(|(kind, _)| *kind == invocation.kind) {
                    policy.validate(facts, request, invocation, &self.metrics, &mut denials);
                }
            }
            // All are asked, because some only warn.
            first = first.or(denials.into_iter().next());
        }
        first.map_or(Ok(()), |denial| Err(validating::refusal(request, denial)))
    }

    /// Lets the mutating policies change the object; whether they did. `rounds` remembers who may have to be asked again.
    pub(crate) async fn mutate(
        &self,
        request: &mut AdmissionRequest<'_>,
        rounds: &mut Rounds,
    ) -> Result<bool, Status> {
        let policies = self.mutating.all(&self.host.store);
        if policies.is_empty() || is_exempt(request.kind) || request.object.is_null() {
            return Ok(false);
        }
        let bindings = self.mutating_bindings.all(&self.host.store);
        let mut denials = Vec::new();
        let mut changed = false;
        rounds.begin(request.object);
        // Which writes they are for is decided before the first of them changes anything.
        let mut wanted = Vec::new();
        for policy in policies.iter() {
            wanted.extend(
                self.invocations(&**policy, &policy.head, &bindings, request, &mut denials).await,
            );
        }
        for invocation in wanted {
            changed |= invocation.mutate(&self.host, request, rounds, &mut denials).await;
        }
        rounds.end(request.object);
        if denials.is_empty() { Ok(changed) } else { Err(mutating::refusal(request, denials)) }
    }

    /// How often, and with which parameters, this policy is for the write.
    async fn invocations<'a, P>(
        &self,
        policy: &'a P,
        head: &Head,
        bindings: &'a [Arc<Binding>],
        request: &AdmissionRequest<'_>,
        denials: &mut Vec<Denial>,
    ) -> Vec<Invocation<'a, P>> {
        let kinds = self.kinds.snapshot();
        let mut misconfigured = |binding: Option<&Binding>, why: &str| {
            if !head.ignores_failure {
                denials.push(Denial::misconfigured(head, binding, why));
            }
        };
        let mut found = Vec::new();
        let subject = Subject::of(request);
        let bindings: Vec<&'a Arc<Binding>> =
            bindings.iter().filter(|binding| binding.policy == head.name).collect();
        if bindings.is_empty() {
            return found;
        }
        let kind = match head.matching_kind(&subject, &kinds, &self.host.store) {
            Ok(Some(kind)) => kind,
            Ok(None) => return found,
            Err(why) => {
                misconfigured(None, &why);
                return found;
            }
        };
        let param_kind = match head.param_kind(&kinds) {
            Ok(kind) => kind,
            Err(why) => {
                misconfigured(None, &why);
                return found;
            }
        };
        for binding in bindings {
            let all = self.params_for(binding, &subject, param_kind, &kinds).await;
            match all {
                Err(why) => misconfigured(Some(binding), &why),
                Ok(all) => found.extend(all.into_iter().map(|params| Invocation {
                    policy,
                    binding,
                    kind,
                    params,
                })),
            }
        }
        found
    }

    /// The parameters with which a binding wants the write judged; none at all when it is not for the write.
    async fn params_for(
        &self,
        binding: &Binding,
        subject: &Subject<'_>,
        param_kind: Option<&'static Kind>,
        kinds: &Snapshot,
    ) -> Result<Vec<Option<Value>>, String> {
        if !binding.matches(subject, kinds, &self.host.store)? {
            return Ok(Vec::new());
        }
        let wanted = binding.param_ref.as_ref();
        params::collect(&self.host.store, param_kind, wanted, subject.namespace).await
    }
}

/// The two states of the write in the version that a policy wants.
struct Shown<'a> {
    object: Option<Cow<'a, Value>>,
    old: Option<Cow<'a, Value>>,
}

impl<'a> Shown<'a> {
    async fn of(request: &'a AdmissionRequest<'_>, kind: &'static Kind) -> Result<Self, Status> {
        let (object, old) = (Some(&*request.object).filter(|it| !it.is_null()), request.old);
        if kind == request.kind && request.subresource != "scale" {
            return Ok(Self { object: object.map(Cow::Borrowed), old: old.map(Cow::Borrowed) });
        }
        let shown = |state: Value| Some(state).filter(|state| !state.is_null()).map(Cow::Owned);
        Ok(Self {
            object: shown(face::show(request, kind, object).await?),
            old: shown(face::show(request, kind, old).await?),
        })
    }

    fn facts<'b>(
        &'b self,
        host: &'b Host,
        request: &'b AdmissionRequest<'_>,
        kind: &'static Kind,
    ) -> Facts<'b> {
        Facts::new(host, request, kind, self.object.as_deref(), self.old.as_deref())
    }
}

/// Whether this is a policy or a binding, which no policy may lock up; or a question that the cluster itself cannot work without,
/// as in upstream's
/// <https://github.com/kubernetes/kubernetes/blob/master/pkg/kubeapiserver/admission/exclusion/resources.go>.
fn is_exempt(kind: &Kind) -> bool {
    match kind.group {
        "admissionregistration.k8s.io" => kind.kind.contains("AdmissionPolicy"),
        "authentication.k8s.io" | "authorization.k8s.io" => Reviews::answers(kind.kind),
        _ => false,
    }
}

/// A refusal with a cause for each of these messages.
fn with_causes(mut status: Status, messages: impl IntoIterator<Item = String>) -> Status {
    let causes = messages.into_iter().map(|message| Cause { message, ..Cause::default() });
    status.details.get_or_insert_default().causes.extend(causes);
    status
}

impl AdmissionRequest<'_> {
    /// Notes something for the audit log.
    fn note(&self, key: impl Into<String>, text: &str) {
        tracing::info!(key = key.into(), text, "noted by a policy");
    }
}
