//! What a ValidatingAdmissionPolicy says about a write.

use std::time::{Duration, Instant};

use coracle_api::status::{Reason, Status};
use coracle_cel::{EvaluationError, Meter, Program, Type, Value as Cel};
use serde_json::{Value, json};

use super::configuration::{Binding, Head};
use super::{Denial, Invocation, with_causes};
use crate::admission::AdmissionRequest;
use crate::admission::metrics::{AdmissionMetrics, Check};
use crate::expressions::{
    Facts, Judgement, POLICY_BUDGET, PolicyScope, Variables, compile, environment, failure,
};

/// The longest message that an expression may make; upstream's bound.
const MESSAGE_BYTES: usize = 5 * 1024;

/// The longest note for the audit log; upstream's bound.
const NOTE_BYTES: usize = 10 * 1024;

/// A policy, compiled.
pub(super) struct ValidatingPolicy {
    pub(super) head: Head,
    variables: Variables,
    validations: Vec<Validation>,
    notes: Vec<Note>,
}

struct Validation {
    expression: String,
    program: Result<Program, String>,
    message: String,
    message_program: Option<Program>,
    reason: Reason,
}

/// One of `auditAnnotations`.
struct Note {
    key: String,
    expression: String,
    program: Result<Program, String>,
}

impl ValidatingPolicy {
    pub(super) fn read(policy: &Value) -> Self {
        let (head, spec) = (Head::read(policy), &policy["spec"]);
        let (variables, environment) =
            Variables::compile(environment(head.has_params()), &spec["variables"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let each = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
        let validation = |validation: Value| {
            let expression = text(&validation["expression"]);
            let message_program = validation["messageExpression"].as_str();
            Validation {
                program: compile(&environment, &expression, &[Type::Bool]),
                message_program: message_program
                    .and_then(|text| compile(&environment, text, &[Type::String]).ok()),
                message: text(&validation["message"]).trim().to_owned(),
                reason: match validation["reason"].as_str() {
                    Some("Unauthorized") => Reason::Unauthorized,
                    Some("Forbidden") => Reason::Forbidden,
                    Some("RequestEntityTooLarge") => Reason::RequestEntityTooLarge,
                    _ => Reason::Invalid,
                },
                expression,
            }
        };
        let note = |note: Value| {
            let expression = text(&note["valueExpression"]);
            let program = compile(&environment, &expression, &[Type::String, Type::Null]);
            Note { key: text(&note["key"]), program, expression }
        };
        Self {
            validations: each("validations").into_iter().map(validation).collect(),
            notes: each("auditAnnotations").into_iter().map(note).collect(),
            variables,
            head,
        }
    }

    /// Judges the write, by one binding and with one parameter.
    pub(super) fn validate(
        &self,
        facts: &Facts<'_>,
        request: &AdmissionRequest<'_>,
        invocation: &Invocation<'_, Self>,
        metrics: &AdmissionMetrics,
        denials: &mut Vec<Denial>,
    ) {
        let scope = self.variables.scope(facts, invocation.params.as_ref());
        let judged = Judged { policy: self, binding: invocation.binding, request, metrics };
        match self.head.conditions.judge(&scope) {
            Judgement::Differs => (),
            Judgement::Failed(message) => {
                let outcome = Outcome { index: 0, message, reason: None, error: "invalid_error" };
                judged.failed(outcome, Duration::ZERO, denials);
            }
            Judgement::Matches => judged.judge(&scope, denials),
        }
    }
}

/// One policy by one binding about one write.
struct Judged<'a> {
    policy: &'a ValidatingPolicy,
    binding: &'a Binding,
    request: &'a AdmissionRequest<'a>,
    metrics: &'a AdmissionMetrics,
}

/// What came of a validation that did not pass.
struct Outcome {
    /// Which of the policy's it is.
    index: usize,
    message: String,
    /// None if it could not be evaluated.
    reason: Option<Reason>,
    /// For metrics.
    error: &'static str,
}

impl Judged<'_> {
    fn judge(&self, scope: &PolicyScope<'_>, denials: &mut Vec<Denial>) {
        let mut meter = Meter::new(POLICY_BUDGET);
        for (index, validation) in self.policy.validations.iter().enumerate() {
            let began = Instant::now();
            let (value, error) = match &validation.program {
                Ok(program) => (program.evaluate(scope, &mut meter), "invalid_error"),
                Err(problem) => {
                    (Err(EvaluationError::Failed(problem.clone().into())), "compile_error")
                }
            };
            match value {
                Ok(Cel::Bool(true)) => (),
                Ok(_) => {
                    let message = validation.message(scope, &mut meter);
                    let reason = Some(validation.reason);
                    let outcome = Outcome { index, message, reason, error: "no_error" };
                    self.act(outcome, began.elapsed(), denials);
                }
                Err(cause) => {
                    let message = failure(&validation.expression, &cause);
                    let outcome = Outcome { index, message, reason: None, error };
                    self.failed(outcome, began.elapsed(), denials);
                }
            }
        }
        let mut meter = Meter::new(POLICY_BUDGET);
        for note in &self.policy.notes {
            match note.text(scope, &mut meter) {
                Ok(Some(text)) => {
                    let key = format!("{}/{}", self.policy.head.name, note.key);
                    self.request.note(key, &text);
                }
                Ok(None) => (),
                Err(_) if self.policy.head.ignores_failure => (),
                Err(message) => denials.push(self.denial(message, None)),
            }
        }
    }

    /// What could not be evaluated is refused, unless the policy wants failures ignored.
    fn failed(&self, outcome: Outcome, took: Duration, denials: &mut Vec<Denial>) {
        if self.policy.head.ignores_failure {
            self.count("allow", outcome.error, took);
        } else {
            self.act(outcome, took, denials);
        }
    }

    fn count(&self, enforcement_action: &'static str, error_type: &'static str, took: Duration) {
        let (policy, policy_binding) = (self.policy.head.name.clone(), self.binding.name.clone());
        let check = Check { policy, policy_binding, error_type, enforcement_action };
        self.metrics.checked(&check, took);
    }

    fn denial(&self, message: String, reason: Option<Reason>) -> Denial {
        let policy = self.policy.head.name.clone();
        Denial { policy, binding: Some(self.binding.name.clone()), message, reason }
    }

    /// Does what the binding wants done about a violation.
    fn act(&self, outcome: Outcome, took: Duration, denials: &mut Vec<Denial>) {
        let Outcome { index, message, reason, error } = outcome;
        let (policy, binding) = (&self.policy.head.name, &self.binding.name);
        for action in &self.binding.actions {
            match action.as_str() {
                "Deny" => {
                    denials.push(self.denial(message.clone(), reason));
                    self.count("deny", error, took);
                }
                "Warn" => {
                    self.request.warnings.add(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
                    ));
                    self.count("warn", error, took);
                }
                "Audit" => {
                    self.count("audit", error, took);
                    let failure = json!([{
                        "message": message, "policy": policy, "binding": binding, "expressionIndex": index,
                        "validationActions": self.binding.actions,
                    }]);
                    let key = "validation.policy.admission.k8s.io/validation_failure";
                    self.request.note(key, &failure.to_string());
                }
                _ => (),
            }
        }
    }
}

impl Validation {
    /// What a violation is told as.
    fn message(&self, scope: &PolicyScope<'_>, meter: &mut Meter) -> String {
        if let Some(program) = &self.message_program
            && let Ok(Cel::String(text)) = program.evaluate(scope, meter)
        {
            let text = text.trim();
            if !text.is_empty() && text.len() <= MESSAGE_BYTES && !text.contains('\n') {
                return text.to_owned();
            }
        }
        if self.message.is_empty() {
            format!("failed expression: {}", self.expression.trim())
        } else {
            self.message.clone()
        }
    }
}

impl Note {
    /// What is to be noted, if anything.
    fn text(&self, scope: &PolicyScope<'_>, meter: &mut Meter) -> Result<Option<String>, String> {
        let value = match &self.program {
            Ok(program) => program.evaluate(scope, meter),
            Err(problem) => Err(EvaluationError::Failed(problem.clone().into())),
        };
        match value.map_err(|error| failure(&self.expression, &error))? {
            Cel::String(text) => {
                let text: String = text.trim().chars().take(NOTE_BYTES).collect();
                Ok(Some(text).filter(|text| !text.is_empty()))
            }
            Cel::Null => Ok(None),
            _ => Err(format!(
                "valueExpression '{}' resulted in unsupported return type. Return type must be either string or null.",
                self.expression
            )),
        }
    }
}

/// The answer to whoever was refused.
pub(super) fn refusal(request: &AdmissionRequest<'_>, denial: Denial) -> Status {
    let Denial { policy, binding, message, reason } = denial;
    let by = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{policy}'{by} denied request: {message}");
    let reason = reason.unwrap_or(Reason::Invalid);
    let status = request.forbidden(&message);
    let code = match reason {
        Reason::Unauthorized => 401,
        Reason::Forbidden => 403,
        Reason::RequestEntityTooLarge => 413,
        _ => 422,
    };
    with_causes(Status { reason, code, ..status }, [message])
}
