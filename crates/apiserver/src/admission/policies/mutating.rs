//! What a MutatingAdmissionPolicy makes of a write.

use std::collections::HashSet;
use std::sync::Arc;

use coracle_api::apply::{self, TypeRef};
use coracle_api::kinds::{self, Kind};
use coracle_api::patch::json_patch;
use coracle_api::status::{Reason, Status};
use coracle_cel::{Environment, Meter, ObjectType, Program, Type, Typed, Value as Cel, to_json};
use serde_json::{Value, json};

use super::configuration::Head;
use super::{Denial, Invocation, Shown, with_causes};
use crate::admission::AdmissionRequest;
use crate::admission::face::{self, Carried};
use crate::custom_resources::rules_of;
use crate::expressions::{
    Facts, Host, Judgement, POLICY_BUDGET, Variables, compile, environment, failure,
};
use crate::managed_fields::Shape;
use crate::object::meta;

/// A policy, compiled.
pub(super) struct MutatingPolicy {
    pub(super) head: Head,
    variables: Variables,
    mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`
    is_reinvoked: bool,
}

struct Mutation {
    expression: String,
    format: Format,
    program: Result<Program, String>,
}

/// What the value of a mutation is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Fields to merge into the object.
    ApplyConfiguration,
    /// RFC 6902.
    JsonPatch,
}

impl Format {
    /// Which format one of `mutations` has, and its expression.
    pub(crate) fn of(mutation: &Value) -> Option<(Self, &str)> {
        let (format, field) = match mutation["patchType"].as_str() {
            Some("ApplyConfiguration") => (Self::ApplyConfiguration, "applyConfiguration"),
            Some("JSONPatch") => (Self::JsonPatch, "jsonPatch"),
            _ => return None,
        };
        Some((format, mutation[field]["expression"].as_str().unwrap_or_default()))
    }

    /// The type that the expression has to have.
    pub(crate) fn wanted(self) -> Type {
        match self {
            Self::ApplyConfiguration => Type::Object(Arc::new(Part("Object".to_owned()))),
            Self::JsonPatch => Type::list(Type::Object(Arc::new(Operation))),
        }
    }
}

/// `Object`, `Object.spec`, …: the parts of any object. Which fields there are is known when the value is merged.
struct Part(String);

impl ObjectType for Part {
    fn name(&self) -> String {
        self.0.clone()
    }

    fn field(&self, _: &str) -> Option<Type> {
        Some(Type::Dyn)
    }
}

/// `JSONPatch`: one operation.
struct Operation;

impl ObjectType for Operation {
    fn name(&self) -> String {
        "JSONPatch".to_owned()
    }

    fn field(&self, name: &str) -> Option<Type> {
        match name {
            "op" | "path" | "from" => Some(Type::String),
            "value" => Some(Type::Dyn),
            _ => None,
        }
    }
}

/// What expressions of mutations may use: all that others may, and objects that they make.
pub(crate) fn with_objects(environment: Environment) -> Environment {
    environment.with_types(|name| {
        if name == "JSONPatch" {
            return Some(Arc::new(Operation) as Arc<dyn ObjectType>);
        }
        let is_part = name == "Object" || name.starts_with("Object.");
        is_part.then(|| Arc::new(Part(name.to_owned())) as Arc<dyn ObjectType>)
    })
}

/// Which policies were asked, and which have to be asked again because others changed the object after them.
#[derive(Default)]
pub(crate) struct Rounds {
    is_again: bool,
    /// Asked in this round, and willing to be asked again.
    asked: HashSet<String>,
    again: HashSet<String>,
    /// The object after the last round.
    left: Option<Value>,
}

impl Rounds {
    /// The next round is one for those that have to be asked again; false if there are none.
    pub(crate) fn repeat(&mut self, object: &Value) -> bool {
        self.is_again = true;
        if self.left.as_ref().is_some_and(|left| left != object) {
            self.again.extend(std::mem::take(&mut self.asked));
        }
        !self.again.is_empty()
    }

    pub(super) fn begin(&mut self, object: &Value) {
        if self.left.as_ref().is_some_and(|left| left != object) {
            self.again.extend(std::mem::take(&mut self.asked));
        }
    }

    pub(super) fn end(&mut self, object: &Value) {
        // Nothing is to be compared with when nobody wants to be asked again.
        self.left = (!self.asked.is_empty()).then(|| object.clone());
    }
}

impl MutatingPolicy {
    pub(super) fn read(policy: &Value) -> Self {
        let (head, spec) = (Head::read(policy), &policy["spec"]);
        let (variables, environment) =
            Variables::compile(with_objects(environment(head.has_params())), &spec["variables"]);
        let mutations = spec["mutations"].as_array().into_iter().flatten();
        let mutations = mutations.filter_map(Format::of).map(|(format, expression)| Mutation {
            program: compile(&environment, expression, &[format.wanted()]),
            expression: expression.to_owned(),
            format,
        });
        Self {
            mutations: mutations.collect(),
            variables,
            is_reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            head,
        }
    }
}

impl Invocation<'_, MutatingPolicy> {
    /// Changes the object as the policy wants; whether that made a difference.
    pub(super) async fn mutate(
        &self,
        host: &Host,
        request: &mut AdmissionRequest<'_>,
        rounds: &mut Rounds,
        denials: &mut Vec<Denial>,
    ) -> bool {
        let name =
            |params: &Value| format!("{}/{}", meta(params, "namespace"), meta(params, "name"));
        let params = self.params.as_ref().map(name).unwrap_or_default();
        let id = format!("{} {} {params}", self.policy.head.name, self.binding.name);
        if rounds.is_again && !rounds.again.contains(&id) {
            return false;
        }
        let changed = match self.mutated(host, request).await {
            Ok(Some(new)) if new != *request.object => {
                *request.object = new;
                true
            }
            Ok(_) => false,
            Err(message) => {
                if !self.policy.head.ignores_failure {
                    denials.push(self.denial(message));
                }
                false
            }
        };
        if changed {
            rounds.again.extend(std::mem::take(&mut rounds.asked));
        }
        if self.policy.is_reinvoked {
            rounds.asked.insert(id);
        }
        changed
    }

    fn denial(&self, message: String) -> Denial {
        let (policy, binding) = (self.policy.head.name.clone(), self.binding.name.clone());
        Denial { policy, binding: Some(binding), message, reason: Some(Reason::Invalid) }
    }

    /// The object after all mutations; none if the policy does not want this write.
    async fn mutated(
        &self,
        host: &Host,
        request: &AdmissionRequest<'_>,
    ) -> Result<Option<Value>, String> {
        let shown = Shown::of(request, self.kind).await.map_err(|status| status.message)?;
        let Some(object) = self.mutated_as_shown(host, request, &shown)? else { return Ok(None) };
        let object = face::take_over(request, self.kind, object).await;
        object.map(Some).map_err(|status| status.message)
    }

    /// The same in the version that the policy looks at.
    fn mutated_as_shown(
        &self,
        host: &Host,
        request: &AdmissionRequest<'_>,
        shown: &Shown<'_>,
    ) -> Result<Option<Value>, String> {
        let facts = shown.facts(host, request, self.kind);
        let scope = self.policy.variables.scope(&facts, self.params.as_ref());
        match self.policy.head.conditions.judge(&scope) {
            Judgement::Differs => return Ok(None),
            Judgement::Failed(message) => return Err(message),
            Judgement::Matches => (),
        }
        let Some(mut object) = shown.object.as_deref().cloned() else { return Ok(None) };
        for mutation in &self.policy.mutations {
            let facts = facts.of(Some(&object));
            let new = mutation.apply(self, &facts, request.subresource, &object)?;
            object = typed_again(self.kind, request.subresource, &new)?;
        }
        Ok(Some(object))
    }
}

/// The object as its kind has it, with defaults for what is new.
fn typed_again(kind: &'static Kind, subresource: &str, object: &Value) -> Result<Value, String> {
    let mut typed =
        face::typed(kind, subresource, object).map_err(|error| error.status().message)?;
    if Carried::by(kind, subresource).is(kind) {
        rules_of(kind).default(&mut typed);
    }
    Ok(typed)
}

impl Mutation {
    fn apply(
        &self,
        invocation: &Invocation<'_, MutatingPolicy>,
        facts: &Facts<'_>,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, String> {
        let scope = invocation.policy.variables.scope(facts, invocation.params.as_ref());
        let mut meter = Meter::new(POLICY_BUDGET);
        let program = self.program.as_ref().map_err(Clone::clone)?;
        let value = program
            .evaluate(&scope, &mut meter)
            .map_err(|error| failure(&self.expression, &error))?;
        let json = |value: &Cel, meter: &mut Meter| {
            to_json(value, meter).map_err(|error| failure(&self.expression, &error))
        };
        match self.format {
            Format::ApplyConfiguration => {
                check_names(&value, "Object").map_err(|why| format!("type mismatch: {why}"))?;
                let mut configuration = json(&value, &mut meter)?;
                let carried = Carried::by(invocation.kind, subresource);
                configuration["apiVersion"] =
                    json!(kinds::api_version(carried.group, carried.version));
                configuration["kind"] = json!(carried.kind);
                merged(invocation.kind, carried, object, &configuration)
                    .map_err(|why| format!("error applying patch: {why}"))
            }
            Format::JsonPatch => {
                let patch = json(&value, &mut meter)?.to_string();
                json_patch(object, patch.as_bytes()).map_err(|error| format!("JSON Patch: {error}"))
            }
        }
    }
}

/// The object with the fields of a configuration. No books are kept: nobody owns what a policy adds.
fn merged(
    kind: &'static Kind,
    carried: Carried,
    object: &Value,
    configuration: &Value,
) -> Result<Value, String> {
    let shape = Shape::of(kind);
    let of_part = TypeRef::named(carried.group, carried.version, carried.kind);
    let type_ref = if carried.is(kind) { shape.type_ref() } else { of_part };
    apply::validate(type_ref, configuration)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let atomic = apply::atomics(type_ref, configuration);
    if !atomic.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomic.join(", ")
        ));
    }
    Ok(apply::merge(type_ref, object, configuration))
}

/// Checks that each part stands in the field after which its type is named.
fn check_names(value: &Cel, wanted: &str) -> Result<(), String> {
    match value {
        Cel::List(items) => items.iter().try_for_each(|item| check_names(item, wanted)),
        Cel::Opaque(opaque) => {
            let Some(typed) = opaque.downcast_ref::<Typed>() else { return Ok(()) };
            if typed.type_name != wanted {
                let found = &typed.type_name;
                return Err(format!(
                    "unexpected type name {found:?}, expected {wanted:?}, which matches field name path from root Object type"
                ));
            }
            typed
                .fields
                .iter()
                .try_for_each(|(name, value)| check_names(value, &format!("{wanted}.{name}")))
        }
        _ => Ok(()),
    }
}

/// The answer to whoever was refused.
pub(super) fn refusal(request: &AdmissionRequest<'_>, denials: Vec<Denial>) -> Status {
    let mut status = request.forbidden("admission request denied by policy");
    if let Some(reason) = denials.first().and_then(|denial| denial.reason) {
        status.reason = reason;
    }
    let messages: Vec<String> = denials
        .into_iter()
        .map(|Denial { policy, binding, message, .. }| match binding {
            Some(binding) => {
                format!("policy '{policy}' with binding '{binding}' denied request: {message}")
            }
            None => format!("policy {policy:?} denied request: {message}"),
        })
        .collect();
    status.message = messages.first().cloned().unwrap_or_default();
    with_causes(status, messages)
}
