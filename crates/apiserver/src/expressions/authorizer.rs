//! `authorizer`: asks whether somebody may do something, by the server's own authorizer.

use std::sync::Arc;

use coracle_api::selector::{FieldSelector, FieldTerm};
use coracle_cel::{EvaluationError, Foreign, ForeignValue, Value};

use crate::authz::{Attributes, Authorizer, Decision, Target};
use crate::identity::User;

/// An authorizer and on whose behalf it is asked.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) user: Arc<User>,
}

/// What an expression is about to ask.
struct Question {
    asked: Asked,
    about: About,
}

#[derive(Debug, Clone)]
enum About {
    Anything,
    Path(String),
    Group(String),
    Resource(Resource),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// By which fields objects are selected; nothing where that cannot be read.
    pub(crate) fields: Vec<FieldTerm>,
}

/// What was decided.
#[derive(Debug)]
struct Decided(Decision);

/// `authorizer`
pub(crate) fn authorizer(asked: Asked) -> Value {
    Foreign::value(Question { asked, about: About::Anything })
}

/// `authorizer.requestResource`
pub(crate) fn resource(asked: Asked, resource: Resource) -> Value {
    Foreign::value(Question { asked, about: About::Resource(resource) })
}

impl std::fmt::Debug for Question {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Question").field("about", &self.about).finish_non_exhaustive()
    }
}

fn failed(message: impl Into<std::borrow::Cow<'static, str>>) -> EvaluationError {
    EvaluationError::Failed(message.into())
}

fn texts(arguments: &[Value]) -> Result<Vec<&str>, EvaluationError> {
    arguments
        .iter()
        .map(|argument| match argument {
            Value::String(text) => Ok(text.as_str()),
            _ => Err(failed("no such overload")),
        })
        .collect()
}

impl ForeignValue for Question {
    fn type_name(&self) -> &'static str {
        match self.about {
            About::Anything => "kubernetes.authorization.Authorizer",
            About::Path(_) => "kubernetes.authorization.PathCheck",
            About::Group(_) => "kubernetes.authorization.GroupCheck",
            About::Resource(_) => "kubernetes.authorization.ResourceCheck",
        }
    }

    fn call(&self, method: &str, arguments: &[Value]) -> Result<Value, EvaluationError> {
        let texts = texts(arguments)?;
        let ask = |about| Ok(Foreign::value(Self { asked: self.asked.clone(), about }));
        match (&self.about, method, &*texts) {
            (About::Anything, "path", [""]) => Err(failed("path must not be empty")),
            (About::Anything, "path", [path]) => ask(About::Path((*path).to_owned())),
            (About::Anything, "group", [group]) => ask(About::Group((*group).to_owned())),
            (About::Anything, "serviceAccount", [namespace, name]) => {
                let user = Arc::new(User::service_account(namespace, name, ""));
                let asked = Asked { user, ..self.asked.clone() };
                Ok(Foreign::value(Self { asked, about: About::Anything }))
            }
            (About::Group(_), "resource", [""]) => Err(failed("resource must not be empty")),
            (About::Group(group), "resource", [resource]) => ask(About::Resource(Resource {
                group: group.clone(),
                resource: (*resource).to_owned(),
                ..Resource::default()
            })),
            (About::Resource(resource), "check", [verb]) => {
                let Resource { group, resource, subresource, namespace, name, fields } = resource;
                Ok(self.decide(
                    verb,
                    Target::Resource { group, resource, subresource, namespace, name },
                    fields,
                ))
            }
            (About::Path(path), "check", [verb]) => {
                Ok(self.decide(&verb.to_lowercase(), Target::Path(path), &[]))
            }
            (About::Resource(resource), part, [text]) => {
                let (mut resource, text) = (resource.clone(), (*text).to_owned());
                match part {
                    "subresource" => resource.subresource = text,
                    "namespace" => resource.namespace = text,
                    "name" => resource.name = text,
                    "fieldSelector" => {
                        let selector = FieldSelector::parse(&text).unwrap_or_default();
                        resource.fields = selector.terms().to_vec();
                    }
                    // Nobody who decides knows labels: it is as if there were none.
                    "labelSelector" => (),
                    _ => return Err(failed("no such overload")),
                }
                ask(About::Resource(resource))
            }
            _ => Err(failed("no such overload")),
        }
    }
}

impl Question {
    fn decide(&self, verb: &str, target: Target<'_>, fields: &[FieldTerm]) -> Value {
        let attributes = Attributes { user: &self.asked.user, verb, target, fields };
        Foreign::value(Decided(self.asked.authorizer.authorize(&attributes)))
    }
}

impl ForeignValue for Decided {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }

    fn call(&self, method: &str, _: &[Value]) -> Result<Value, EvaluationError> {
        match method {
            "allowed" => Ok(Value::Bool(self.0.is_allowed())),
            "errored" => Ok(Value::Bool(false)),
            "error" => Ok(Value::from("")),
            "reason" => Ok(Value::from(match &self.0 {
                Decision::Allow(reason) => reason.as_ref(),
                Decision::NoOpinion(reason) => reason.as_str(),
            })),
            _ => Err(failed("no such overload")),
        }
    }
}
