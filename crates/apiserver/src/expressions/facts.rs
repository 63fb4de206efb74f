//! One write, as expressions see it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use coracle_api::kinds::Kind;
use coracle_cel::{
    Environment, EvaluationError, Meter, Problems, Program, Scope, Type, Value, from_json,
};
use coracle_store::Store;
use serde_json::{Value as Json, json};

use super::authorizer::{self, Asked, Resource};
use super::types;
use crate::admission::face::Carried;
use crate::admission::{AdmissionRequest, Operation};
use crate::authn::stored;
use crate::authz::Authorizer;
use crate::identity::User;
use crate::storage;

/// What expressions may ask the server.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) store: Store,
    pub(crate) authorizer: Arc<Authorizer>,
}

/// What expressions may know of a write. Values are made when they are asked for, once.
pub(crate) struct Facts<'a> {
    host: &'a Host,
    operation: Operation,
    /// In the version that the client speaks.
    requested: &'static Kind,
    /// In the version that the rules name.
    matched: &'static Kind,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    user: &'a User,
    dry_run: bool,
    object: Option<&'a Json>,
    old: Option<&'a Json>,
    values: Values,
}

#[derive(Default)]
struct Values {
    object: OnceLock<Value>,
    old: OnceLock<Value>,
    request: OnceLock<Value>,
    namespace: OnceLock<Value>,
    asked: OnceLock<Asked>,
}

impl<'a> Facts<'a> {
    /// About a request for a kind that rules know as `matched`, whose objects in that version are these.
    pub(crate) fn new(
        host: &'a Host,
        request: &'a AdmissionRequest<'_>,
        matched: &'static Kind,
        object: Option<&'a Json>,
        old: Option<&'a Json>,
    ) -> Self {
        Self {
            host,
            operation: request.operation,
            requested: request.requested,
            matched,
            subresource: request.subresource,
            namespace: if request.kind.namespaced { request.namespace } else { "" },
            name: request.name,
            user: request.user,
            dry_run: request.dry_run,
            object,
            old,
            values: Values::default(),
        }
    }

    /// The facts about another state of the object.
    pub(crate) fn of<'b>(&'b self, object: Option<&'b Json>) -> Facts<'b> {
        Facts { object, values: Values::default(), ..*self }
    }

    fn value(&self, name: &str) -> Option<Value> {
        let values = &self.values;
        let json = |json: Option<&Json>| json.map_or(Value::Null, from_json);
        Some(match name {
            "object" => values.object.get_or_init(|| json(self.object)).clone(),
            "oldObject" => values.old.get_or_init(|| json(self.old)).clone(),
            "request" => values.request.get_or_init(|| from_json(&self.request())).clone(),
            "namespaceObject" => values.namespace.get_or_init(|| self.namespace_object()).clone(),
            "authorizer" => authorizer::authorizer(self.asked()),
            "authorizer.requestResource" => authorizer::resource(
                self.asked(),
                Resource {
                    group: self.requested.group.to_owned(),
                    resource: self.requested.plural.to_owned(),
                    subresource: self.subresource.to_owned(),
                    namespace: self.namespace.to_owned(),
                    name: self.name.to_owned(),
                    fields: Vec::new(),
                },
            ),
            _ => return None,
        })
    }

    fn asked(&self) -> Asked {
        let make = || Asked {
            authorizer: Arc::clone(&self.host.authorizer),
            user: Arc::new(self.user.clone()),
        };
        self.values.asked.get_or_init(make).clone()
    }

    /// `request`: the fields of an `AdmissionRequest` that are not variables themselves.
    fn request(&self) -> Json {
        let kind = |kind: &'static Kind| Carried::by(kind, self.subresource).to_value();
        let resource = |kind: &Kind| json!({ "group": kind.group, "version": kind.version, "resource": kind.plural });
        let options = match self.operation {
            Operation::Create => Some("CreateOptions"),
            Operation::Update => Some("UpdateOptions"),
            Operation::Delete => Some("DeleteOptions"),
            // Connections have their options as object.
            Operation::Connect => None,
        };
        let options = options.map(|kind| {
            let mut options = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
            if self.dry_run {
                options["dryRun"] = json!(["All"]);
            }
            options
        });
        let mut user = json!({ "username": self.user.name, "groups": self.user.groups });
        if !self.user.uid.is_empty() {
            user["uid"] = json!(self.user.uid);
        }
        if !self.user.extra.is_empty() {
            user["extra"] = json!(self.user.extra);
        }
        let mut request = json!({
            "kind": kind(self.matched), "resource": resource(self.matched),
            "requestKind": kind(self.requested), "requestResource": resource(self.requested),
            "operation": self.operation.as_str(), "userInfo": user, "dryRun": self.dry_run, "options": options,
        });
        // As in the JSON of a review, what is empty is left out.
        for (field, text) in [
            ("name", self.name),
            ("namespace", self.namespace),
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
        ] {
            if !text.is_empty() {
                request[field] = json!(text);
            }
        }
        request
    }

    fn namespace_object(&self) -> Value {
        let is_namespace = self.requested.group.is_empty() && self.requested.kind == "Namespace";
        if self.namespace.is_empty() || is_namespace {
            return Value::Null;
        }
        let found = stored(&self.host.store, "namespaces", "", self.namespace);
        let found = found.and_then(|object| storage::decode(&object).ok());
        found.map_or(Value::Null, |mut namespace| {
            if let Some(fields) = namespace["metadata"].as_object_mut() {
                fields.remove("managedFields");
            }
            from_json(&namespace)
        })
    }
}

impl Scope for Facts<'_> {
    fn variable(&self, name: &str, _: &mut Meter) -> Option<Result<Value, EvaluationError>> {
        self.value(name).map(Ok)
    }
}

/// The `variables` of a policy: expressions that others may use, each evaluated at most once.
#[derive(Debug, Default)]
pub(crate) struct Variables(Vec<(String, Result<Program, String>)>);

impl Variables {
    /// Compiles `spec.variables`, each of which may use those before it, and adds them to the environment.
    pub(crate) fn compile(environment: Environment, variables: &Json) -> (Self, Environment) {
        Self::compile_each(environment, variables, |_, _| ())
    }

    /// The same; `tell` hears what does not compile, by its position.
    pub(crate) fn compile_each(
        environment: Environment,
        variables: &Json,
        mut tell: impl FnMut(usize, &Problems),
    ) -> (Self, Environment) {
        let mut environment = environment.with("variables", types::variables(&[]));
        let (mut compiled, mut fields) = (Vec::new(), Vec::new());
        for (index, variable) in variables.as_array().into_iter().flatten().enumerate() {
            let name = variable["name"].as_str().unwrap_or_default().to_owned();
            let program = environment.compile(variable["expression"].as_str().unwrap_or_default());
            if let Err(problems) = &program {
                tell(index, problems);
            }
            let of = program.as_ref().map_or(Type::Dyn, |program| program.result().clone());
            fields.push((name.clone(), of));
            environment = environment.with("variables", types::variables(&fields));
            compiled.push((name, program.map_err(|problems| problems.to_string())));
        }
        (Self(compiled), environment)
    }

    /// What expressions see of the facts with these variables and this parameter.
    pub(crate) fn scope<'a>(
        &'a self,
        facts: &'a Facts<'a>,
        params: Option<&Json>,
    ) -> PolicyScope<'a> {
        let params = params.map_or(Value::Null, from_json);
        PolicyScope { facts, params, variables: self, known: RefCell::default() }
    }
}

/// The facts, a policy's variables and a parameter.
pub(crate) struct PolicyScope<'a> {
    facts: &'a Facts<'a>,
    params: Value,
    variables: &'a Variables,
    known: RefCell<BTreeMap<String, Result<Value, EvaluationError>>>,
}

impl PolicyScope<'_> {
    fn composed(&self, name: &str, meter: &mut Meter) -> Option<Result<Value, EvaluationError>> {
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        let (_, program) = self.variables.0.iter().find(|(variable, _)| variable == name)?;
        let value = match program {
            Ok(program) => program.evaluate(self, meter),
            Err(problem) => Err(EvaluationError::Failed(problem.clone().into())),
        };
        let value = value.map_err(|error| match error {
            EvaluationError::TooExpensive => error,
            EvaluationError::Failed(message) => EvaluationError::Failed(
                format!("composited variable \"{name}\" fails to evaluate: {message}").into(),
            ),
        });
        self.known.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    }
}

impl Scope for PolicyScope<'_> {
    fn variable(&self, name: &str, meter: &mut Meter) -> Option<Result<Value, EvaluationError>> {
        match name.strip_prefix("variables.") {
            Some(variable) => self.composed(variable, meter),
            None if name == "params" => Some(Ok(self.params.clone())),
            None => self.facts.variable(name, meter),
        }
    }
}
