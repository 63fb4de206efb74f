//! Admission by programs of others: mutating webhooks one after the other, validating ones all at once.
//!
//! Start reading at [`Webhooks::mutate`] and [`Webhooks::validate`]; `review.rs` is what is said over the wire, `configuration.rs` which
//! webhooks there are, `../face.rs` in which form they see a write. As upstream
//! (<https://github.com/kubernetes/kubernetes/tree/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook>).

mod configuration;
mod review;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::patch::json_patch;
use coracle_api::status::{Status, go_quote};
use coracle_store::Store;
use futures::future::join_all;
use serde_json::{Value, json};

use super::face;
use super::matching::{Subject, is_exempt};
use super::metrics::{AdmissionMetrics, Called};
use super::{AdmissionRequest, Operation};
use crate::authz::Authorizer;
use crate::custom_resources::Registry;
use crate::expressions::{Facts, Host, Judgement, Variables};
use crate::extension::Extensions;
use crate::object;
use configuration::{Configured, Hook};
use review::{Question, Role, Verdict};

/// Calls the webhooks that are for a write.
pub(crate) struct Webhooks {
    store: Store,
    /// What conditions may ask.
    host: Host,
    kinds: Arc<Registry>,
    extensions: Extensions,
    mutating: Configured,
    validating: Configured,
    metrics: AdmissionMetrics,
}

/// The two states of a write as one webhook sees them; null where there is none.
struct Face {
    object: Value,
    old: Value,
}

/// What became of calling one webhook.
enum Failure {
    /// It could not be asked, or its answer makes no sense: the failure policy decides.
    Call(String),
    /// It refused.
    Denied(Status),
    /// What it wants cannot be done, or it cannot be asked.
    Refused(Status),
}

impl Failure {
    fn refused(why: impl std::fmt::Display) -> Self {
        Self::Refused(Status::internal(why))
    }
}

/// The mutating webhooks that may have to be called once more, because others changed the object after them.
#[derive(Default)]
pub(crate) struct Calls {
    number: usize,
    /// Called in this round, and willing to be called again: by configuration and name.
    called: HashSet<(String, String)>,
    /// To be called again in the next one.
    again: HashSet<(String, String)>,
    /// The object as the last one left it, if anybody wants to be called again.
    left: Option<Value>,
}

impl Webhooks {
    /// Over what tells which webhooks there are, and a client to call them.
    pub(crate) fn new(
        store: Store,
        authorizer: Arc<Authorizer>,
        kinds: Arc<Registry>,
        extensions: Extensions,
        metrics: AdmissionMetrics,
    ) -> Self {
        Self {
            host: Host { store: store.clone(), authorizer },
            store,
            kinds,
            extensions,
            metrics,
            mutating: Configured::new("mutatingwebhookconfigurations.admissionregistration.k8s.io"),
            validating: Configured::new(
                "validatingwebhookconfigurations.admissionregistration.k8s.io",
            ),
        }
    }

    /// Calls the mutating webhooks in their order; whether they changed the object.
    pub(crate) async fn mutate(
        &self,
        request: &mut AdmissionRequest<'_>,
        calls: &mut Calls,
    ) -> Result<bool, Status> {
        let hooks = self.mutating.hooks(&self.store);
        if hooks.is_empty() || is_exempt(request.kind) {
            return Ok(false);
        }
        let mut changed = false;
        for (index, hook) in hooks.iter().enumerate() {
            let id = || (hook.configuration.clone(), hook.name.clone());
            if calls.number > 0 && !calls.again.contains(&id()) {
                continue;
            }
            let Some(kind) = self.wants(hook, request).await? else { continue };
            let outcome = self.mutate_by(hook, kind, request).await;
            let did = matches!(outcome, Ok(true));
            let place = format!("round_{}_index_{index}", calls.number);
            if did {
                changed = true;
                calls.again.extend(std::mem::take(&mut calls.called));
            }
            if hook.is_reinvoked {
                calls.called.insert(id());
            }
            let note = json!({ "configuration": hook.configuration, "webhook": hook.name, "mutated": did });
            let name = format!("mutation.webhook.admission.k8s.io/{place}");
            request.annotations.add(name, &note.to_string());
            if let Err(failure) = outcome {
                let note = format!("failed-open.mutating.webhook.admission.k8s.io/{place}");
                self.decide(hook, failure, request, (Role::Mutating, &note))?;
            }
        }
        calls.left = (!calls.called.is_empty()).then(|| request.object.clone());
        Ok(changed)
    }

    /// The webhooks that want to be called again after others, be they webhooks, policies or our own plugins; nothing when nobody
    /// changed anything after them.
    pub(crate) async fn mutate_again(
        &self,
        request: &mut AdmissionRequest<'_>,
        mut calls: Calls,
    ) -> Result<(), Status> {
        if calls.left.as_ref().is_some_and(|left| left != request.object) {
            calls.again.extend(std::mem::take(&mut calls.called));
        }
        if calls.again.is_empty() {
            return Ok(());
        }
        calls.number += 1;
        self.mutate(request, &mut calls).await.map(drop)
    }

    /// Calls the validating webhooks, all at once; the first refusal in their order counts.
    pub(crate) async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let hooks = self.validating.hooks(&self.store);
        if hooks.is_empty() || is_exempt(request.kind) {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            if let Some(kind) = self.wants(hook, request).await? {
                wanted.push((index, hook, kind));
            }
        }
        let calls = wanted.iter().map(|(index, hook, kind)| async move {
            let outcome = self.ask(hook, kind, request, Role::Validating).await;
            let note =
                format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
            let role = (Role::Validating, note.as_str());
            outcome.map(drop).or_else(|failure| self.decide(hook, failure, request, role))
        });
        join_all(calls).await.into_iter().collect()
    }

    /// The version in which this webhook wants to see the write, if it does.
    async fn wants(
        &self,
        hook: &Hook,
        request: &AdmissionRequest<'_>,
    ) -> Result<Option<&'static Kind>, Status> {
        let matcher = hook.matcher.as_ref().map_err(Status::internal)?;
        let matched =
            matcher.matches(&Subject::of(request), &self.kinds.snapshot(), &self.store)?;
        let Some(kind) = matched.filter(|_| !hook.conditions.is_empty()) else {
            return Ok(matched);
        };
        let face = Face::of(request, kind).await?;
        let some = |state| Some(state).filter(|state: &&Value| !state.is_null());
        let facts = Facts::new(&self.host, request, kind, some(&face.object), some(&face.old));
        match hook.conditions.judge(&Variables::default().scope(&facts, None)) {
            Judgement::Matches => Ok(Some(kind)),
            Judgement::Differs => Ok(None),
            Judgement::Failed(_) if hook.ignores_failure => Ok(None),
            Judgement::Failed(why) => Err(Status::forbidden(kind, request.name, why)),
        }
    }

    /// Asks one mutating webhook and does what it wants; whether that changed the object.
    async fn mutate_by(
        &self,
        hook: &Hook,
        kind: &'static Kind,
        request: &mut AdmissionRequest<'_>,
    ) -> Result<bool, Failure> {
        let (face, verdict) = self.ask(hook, kind, request, Role::Mutating).await?;
        let Some(patch) = verdict.patch else { return Ok(false) };
        if serde_json::from_slice::<Vec<Value>>(&patch).is_ok_and(|patch| patch.is_empty()) {
            return Ok(false);
        }
        if face.object.is_null() {
            let name = go_quote(&hook.name);
            return Err(Failure::refused(format!(
                "admission webhook {name} attempted to modify the object, which is not supported for this operation"
            )));
        }
        let patched = json_patch(&face.object, &patch).map_err(Failure::refused)?;
        if patched == face.object {
            return Ok(false);
        }
        let before = request.object.clone();
        let typed = face::typed(kind, request.subresource, &patched)
            .map_err(|error| Failure::refused(error.cause()))?;
        *request.object = face::take_over(request, kind, typed).await.map_err(Failure::Refused)?;
        keep_books(request.object, &before);
        Ok(*request.object != before)
    }

    /// Asks one webhook, and counts that.
    async fn ask(
        &self,
        hook: &Hook,
        kind: &'static Kind,
        request: &AdmissionRequest<'_>,
        role: Role,
    ) -> Result<(Face, Verdict), Failure> {
        let began = Instant::now();
        let outcome = self.ask_once(hook, kind, request, role).await;
        let (code, error) = match &outcome {
            Ok(_) => (200, None),
            Err(Failure::Denied(status)) => (status.code, None),
            Err(Failure::Refused(status)) => (status.code, Some("apiserver_internal_error")),
            Err(Failure::Call(_)) => (500, Some("calling_webhook_error")),
        };
        let is_ignored = matches!(outcome, Err(Failure::Call(_))) && hook.ignores_failure;
        let called = Called {
            name: hook.name.clone(),
            r#type: role.as_str(),
            operation: request.operation.as_str(),
            rejected: if code == 200 || is_ignored { "false" } else { "true" },
        };
        self.metrics.called(called, code, error, began.elapsed());
        outcome
    }

    /// Asks one webhook; its answer, if it lets the write pass.
    async fn ask_once(
        &self,
        hook: &Hook,
        kind: &'static Kind,
        request: &AdmissionRequest<'_>,
        role: Role,
    ) -> Result<(Face, Verdict), Failure> {
        if request.dry_run && !hook.allows_dry_run {
            let name = go_quote(&hook.name);
            let why = format!("admission webhook {name} does not support dry run");
            return Err(Failure::Refused(Status::bad_request(why)));
        }
        let destination = hook
            .destination
            .as_ref()
            .map_err(|why| Failure::Call(format!("could not get REST client: {why}")))?;
        let version = hook.version.ok_or_else(|| {
            let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            Failure::Call(format!("could not create admission objects: {why}"))
        })?;
        let face = Face::of(request, kind).await.map_err(Failure::Refused)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = Question {
            uid: &uid,
            kind,
            requested: request.requested,
            subresource: request.subresource,
            name: request.name,
            namespace: request.shown_namespace(),
            operation: request.operation.as_str(),
            user: request.user,
            object: &face.object,
            old: &face.old,
            options: &request.options.to_value(request.operation),
            dry_run: request.dry_run,
        };
        let question = Bytes::from(question.to_value(version).to_string());
        let answer = self
            .extensions
            .ask(destination, question, hook.timeout)
            .await
            .map_err(|error| Failure::Call(format!("failed to call webhook: {error}")))?;
        let verdict = review::read_answer(&answer, &uid, version, role).map_err(Failure::Call)?;
        for (key, text) in &verdict.annotations {
            request.annotations.add(format!("{}/{key}", hook.name), text);
        }
        request.warnings.extend(verdict.warnings.iter().cloned());
        if verdict.allowed {
            Ok((face, verdict))
        } else {
            Err(Failure::Denied(review::denial(&hook.name, &verdict.result)))
        }
    }
}

impl Webhooks {
    /// What a failure means for the write.
    fn decide(
        &self,
        hook: &Hook,
        failure: Failure,
        request: &AdmissionRequest<'_>,
        (role, note): (Role, &str),
    ) -> Result<(), Status> {
        match failure {
            Failure::Denied(status) | Failure::Refused(status) => Err(status),
            Failure::Call(why) if hook.ignores_failure => {
                tracing::warn!(webhook = hook.name, why, "failed calling a webhook, failing open");
                request.annotations.add(note, &hook.name);
                self.metrics.failed_open(&hook.name, role.as_str());
                Ok(())
            }
            Failure::Call(why) => {
                let name = go_quote(&hook.name);
                Err(Status::internal(format!("failed calling webhook {name}: {why}")))
            }
        }
    }
}

impl Face {
    /// The write in this version of its kind.
    async fn of(request: &AdmissionRequest<'_>, kind: &'static Kind) -> Result<Self, Status> {
        Ok(Self {
            object: face::show(request, kind, Some(request.object)).await?,
            old: face::show(request, kind, request.old).await?,
        })
    }
}

/// A webhook may change who manages which field, but only into what can be read.
fn keep_books(object: &mut Value, before: &Value) {
    use coracle_api::apply::Managed;
    let list = |object: &Value| object.pointer("/metadata/managedFields").cloned();
    let (now, then) = (list(object), list(before));
    if now != then && now.as_ref().is_some_and(|now| Managed::read(now).is_none()) {
        object::set_meta(object, "managedFields", then);
    }
}

impl AdmissionRequest<'_> {
    /// The namespace as reviews have it: a Namespace is in itself, once it has a name.
    fn shown_namespace(&self) -> &str {
        let is_namespace = self.kind.group.is_empty() && self.kind.plural == "namespaces";
        if is_namespace && self.operation != Operation::Create { self.name } else { self.namespace }
    }
}
