//! TokenReview, SelfSubjectReview and the SubjectAccessReview family: questions that are answered and forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::selector::{FieldSelector, FieldTerm};
use coracle_api::status::{FieldErrors, Path, Status};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::authn::Authenticator;
use crate::authz::{Attributes, Authorizer, Decision, Target};
use crate::identity::User;

const AUTHORIZATION: &str = "authorization.k8s.io";

/// Answers reviews.
pub struct Reviews {
    authenticator: Arc<Authenticator>,
    authorizer: Arc<Authorizer>,
}

/// `spec` of all kinds of access review.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AccessSpec {
    user: Option<String>,
    uid: Option<String>,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Vec<String>>>,
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<PathAttributes>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    name: String,
    #[serde(rename = "fieldSelector")]
    field_selector: Option<SelectorAttributes>,
    #[serde(rename = "labelSelector")]
    label_selector: Option<SelectorAttributes>,
}

/// `fieldSelector` or `labelSelector`: as text or in parts.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SelectorAttributes {
    raw_selector: String,
    requirements: Vec<Requirement>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PathAttributes {
    path: String,
    verb: String,
}

impl Reviews {
    /// Over the parts that know the answers.
    pub fn new(authenticator: Arc<Authenticator>, authorizer: Arc<Authorizer>) -> Self {
        Self { authenticator, authorizer }
    }

    /// Whether this kind is a review.
    pub fn answers(kind: &str) -> bool {
        matches!(
            kind,
            "TokenReview"
                | "SelfSubjectReview"
                | "SubjectAccessReview"
                | "LocalSubjectAccessReview"
                | "SelfSubjectAccessReview"
                | "SelfSubjectRulesReview"
        )
    }

    /// Answers one POST: the review with its status. `namespace` is the path's, for LocalSubjectAccessReview.
    pub fn review(
        &self,
        kind: &str,
        namespace: &str,
        user: &User,
        mut review: Value,
    ) -> Result<Value, Status> {
        if review["spec"].is_null() {
            review["spec"] = json!({});
        }
        let status = match kind {
            "TokenReview" => self.token(&review)?,
            "SelfSubjectReview" => json!({ "userInfo": user_info(user) }),
            "SubjectAccessReview" => self.access(kind, &review)?,
            "LocalSubjectAccessReview" => self.local_access(kind, namespace, &review)?,
            "SelfSubjectAccessReview" => self.own_access(kind, user, &review)?,
            "SelfSubjectRulesReview" => self.own_rules(user, &review)?,
            _ => return Err(Status::internal(format!("{kind} is not a review"))),
        };
        if kind == "SelfSubjectReview"
            && let Some(object) = review.as_object_mut()
        {
            object.remove("spec");
        }
        review["status"] = status;
        Ok(review)
    }

    fn token(&self, review: &Value) -> Result<Value, Status> {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> =
            serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
        Ok(match self.authenticator.review_token(token, &audiences) {
            Ok((user, shared)) => {
                json!({ "authenticated": true, "user": user_info(&user), "audiences": shared })
            }
            Err(refused) => json!({ "user": {}, "error": refused.to_string() }),
        })
    }

    fn access(&self, kind: &str, review: &Value) -> Result<Value, Status> {
        let spec = read_spec(review)?;
        let mut errors = attribute_errors(&spec, review);
        let user = asked_for(&spec);
        if user.name.is_empty() && user.groups.is_empty() {
            errors.invalid("spec.user", "", "at least one of user or group must be specified");
        }
        metadata_errors(review, &[], &mut errors);
        refuse(kind, &errors)?;
        Ok(self.decide(&user, &spec))
    }

    fn local_access(&self, kind: &str, namespace: &str, review: &Value) -> Result<Value, Status> {
        let spec = read_spec(review)?;
        let mut errors = attribute_errors(&spec, review);
        let user = asked_for(&spec);
        if user.name.is_empty() && user.groups.is_empty() {
            errors.invalid("spec.user", "", "at least one of user or group must be specified");
        }
        metadata_errors(review, &["namespace"], &mut errors);
        if let Some(attributes) = &spec.resource_attributes
            && attributes.namespace != namespace
        {
            errors.invalid(
                "spec.resourceAttributes.namespace",
                attributes.namespace.as_str(),
                "must match metadata.namespace",
            );
        }
        if spec.non_resource_attributes.is_some() {
            errors.invalid(
                "spec.nonResourceAttributes",
                review["spec"]["nonResourceAttributes"].clone(),
                "disallowed on this kind of request",
            );
        }
        refuse(kind, &errors)?;
        Ok(self.decide(&user, &spec))
    }

    fn own_access(&self, kind: &str, user: &User, review: &Value) -> Result<Value, Status> {
        let spec = read_spec(review)?;
        let mut errors = attribute_errors(&spec, review);
        metadata_errors(review, &[], &mut errors);
        refuse(kind, &errors)?;
        Ok(self.decide(user, &spec))
    }

    fn own_rules(&self, user: &User, review: &Value) -> Result<Value, Status> {
        let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (rules, unresolved) = self.authorizer.rules_for(user, namespace);
        let mut status = json!({
            "resourceRules": rules.iter().filter_map(resource_rule).collect::<Vec<Value>>(),
            "nonResourceRules": rules.iter().filter_map(path_rule).collect::<Vec<Value>>(),
            "incomplete": !unresolved.is_empty(),
        });
        if !unresolved.is_empty() {
            status["evaluationError"] = unresolved.join(", ").into();
        }
        Ok(status)
    }

    fn decide(&self, user: &User, spec: &AccessSpec) -> Value {
        let (verb, target) = match (&spec.resource_attributes, &spec.non_resource_attributes) {
            (Some(asked), _) => (
                asked.verb.as_str(),
                Target::Resource {
                    group: &asked.group,
                    resource: &asked.resource,
                    subresource: &asked.subresource,
                    namespace: &asked.namespace,
                    name: &asked.name,
                },
            ),
            (None, Some(asked)) => (asked.verb.as_str(), Target::Path(&asked.path)),
            // Refused by validation; nothing asked is nothing allowed.
            (None, None) => return json!({ "allowed": false }),
        };
        let asked = spec.resource_attributes.as_ref();
        let (fields, ignored) = asked
            .and_then(|asked| asked.field_selector.as_ref())
            .map(SelectorAttributes::fields)
            .unwrap_or_default();
        let question = Attributes { user, verb, target, fields: &fields };
        let (allowed, reason) = match self.authorizer.authorize(&question) {
            Decision::Allow(reason) => (true, reason.to_string()),
            Decision::NoOpinion(reason) => (false, reason),
        };
        let mut status = json!({ "allowed": allowed });
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        if !allowed && !ignored.is_empty() {
            status["evaluationError"] = ignored.into();
        }
        status
    }
}

fn read_spec(review: &Value) -> Result<AccessSpec, Status> {
    serde_json::from_value(review["spec"].clone())
        .map_err(|error| Status::bad_request(format!("spec: {error}")))
}

/// Exactly one of the two ways to ask must be used.
fn attribute_errors(spec: &AccessSpec, review: &Value) -> FieldErrors {
    let mut errors = FieldErrors::new();
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), Some(_)) => errors.invalid(
            "spec.nonResourceAttributes",
            review["spec"]["nonResourceAttributes"].clone(),
            "cannot be specified in combination with resourceAttributes",
        ),
        (None, None) => errors.invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => (),
    }
    if let Some(asked) = &spec.resource_attributes {
        let place = Path::new("spec.resourceAttributes");
        let selectors =
            [("fieldSelector", &asked.field_selector), ("labelSelector", &asked.label_selector)];
        for (name, selector) in selectors {
            if let Some(selector) = selector {
                selector.check(&place.child(name), &mut errors);
            }
        }
    }
    errors
}

impl SelectorAttributes {
    /// As upstream's `validateFieldSelectorAttributes` and its twin for labels.
    fn check(&self, place: &Path, errors: &mut FieldErrors) {
        match (self.raw_selector.is_empty(), self.requirements.is_empty()) {
            (false, false) => errors.invalid(
                place.child("rawSelector"),
                self.raw_selector.as_str(),
                "may not specified at the same time as requirements",
            ),
            (true, true) => errors.required(
                place.child("requirements"),
                format!("when {place} is specified, requirements or rawSelector is required"),
            ),
            _ => (),
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            let place = place.child("requirements").index(index);
            let values = place.child("values");
            if requirement.key.is_empty() {
                errors.required(place.child("key"), "must be specified");
            }
            match requirement.operator.as_str() {
                "In" | "NotIn" if requirement.values.is_empty() => {
                    errors.required(values, "must be specified when `operator` is 'In' or 'NotIn'")
                }
                "Exists" | "DoesNotExist" if !requirement.values.is_empty() => errors.forbidden(
                    values,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
                "" => errors.required(place.child("operator"), "must be specified"),
                // Newer clients may know operators that we do not: those narrow nothing.
                _ => (),
            }
        }
    }

    /// What it says of fields, and what of it could not be read. What is left out narrows nothing: that is never too much.
    fn fields(&self) -> (Vec<FieldTerm>, String) {
        if !self.raw_selector.is_empty() {
            return match FieldSelector::parse(&self.raw_selector) {
                Ok(selector) => (selector.terms().to_vec(), String::new()),
                Err(error) => {
                    let place = "spec.resourceAttributes.fieldSelector";
                    (Vec::new(), format!("{place} ignored due to parse error: {error}"))
                }
            };
        }
        let term = |requirement: &Requirement| {
            let negated = match requirement.operator.as_str() {
                "In" => false,
                "NotIn" => true,
                _ => return None,
            };
            let [value] = requirement.values.as_slice() else { return None };
            Some(FieldTerm { field: requirement.key.clone(), value: value.clone(), negated })
        };
        (self.requirements.iter().filter_map(term).collect(), String::new())
    }
}

/// A review is nobody's object: it bears no name.
fn metadata_errors(review: &Value, allowed: &[&str], errors: &mut FieldErrors) {
    let metadata = review["metadata"].as_object();
    let given = |(field, value): (&String, &Value)| {
        let ignored = allowed.contains(&field.as_str())
            || field == "managedFields"
            || field == "creationTimestamp";
        !ignored && !value.is_null()
    };
    if metadata.is_some_and(|metadata| metadata.iter().any(given)) {
        errors.invalid(
            "metadata",
            Value::Object(metadata.cloned().unwrap_or_default()),
            "must be empty",
        );
    }
}

fn refuse(kind: &str, errors: &FieldErrors) -> Result<(), Status> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_kind(AUTHORIZATION, kind, "", errors))
    }
}

/// The user that a review names. Nothing is added: the caller says which groups he means.
fn asked_for(spec: &AccessSpec) -> User {
    User {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    }
}

fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    let mut tell = |key: &str, value: Value| {
        info.insert(key.to_owned(), value);
    };
    tell("username", user.name.as_str().into());
    if !user.uid.is_empty() {
        tell("uid", user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        tell("groups", user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        tell("extra", json!(user.extra));
    }
    info.into()
}

fn resource_rule(rule: &PolicyRule) -> Option<Value> {
    let resources = rule.resources.as_ref().filter(|resources| !resources.is_empty())?;
    let mut shown =
        json!({ "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": resources });
    if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
        shown["resourceNames"] = json!(names);
    }
    Some(shown)
}

fn path_rule(rule: &PolicyRule) -> Option<Value> {
    let paths = rule.non_resource_urls.as_ref().filter(|paths| !paths.is_empty())?;
    Some(json!({ "verbs": rule.verbs, "nonResourceURLs": paths }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::tests::{Fixture, fixture};
    use crate::authz::tests::{alice, grant};

    async fn reviews() -> (Fixture, Reviews, Arc<Authorizer>) {
        let fixture = fixture().await;
        let rules = json!([
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] },
            { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["key"], "verbs": ["get"] },
        ]);
        grant(&fixture.store, "shop", "reader", alice(), rules).await;
        let paths = json!([{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }]);
        grant(&fixture.store, "", "scraper", alice(), paths).await;
        let authorizer = Authorizer::new(&fixture.store);
        let authenticator =
            Authenticator::new(&fixture.pki, fixture.tokens.clone(), fixture.store.clone())
                .unwrap();
        let reviews = Reviews::new(Arc::new(authenticator), authorizer.clone());
        (fixture, reviews, authorizer)
    }

    fn user() -> User {
        User::new("alice", &["dev"])
    }

    #[tokio::test]
    async fn everybody_may_learn_who_he_is() {
        let (_fixture, reviews, _) = reviews().await;
        let answer = reviews
            .review("SelfSubjectReview", "", &user(), json!({ "kind": "SelfSubjectReview" }))
            .unwrap();
        assert_eq!(
            answer,
            json!({
                "kind": "SelfSubjectReview",
                "status": { "userInfo": { "username": "alice", "groups": ["dev", "system:authenticated"] } },
            })
        );
    }

    #[tokio::test]
    async fn a_token_review_says_whose_token_it_is() {
        let (fixture, reviews, _) = reviews().await;
        let ask = |spec: Value| {
            reviews
                .review("TokenReview", "", &user(), json!({ "spec": spec }))
                .map(|review| review["status"].clone())
        };
        let token = fixture.token(
            json!({ "audiences": ["vault", "https://kubernetes.default.svc.cluster.local"] }),
        );
        let status = ask(json!({ "token": token })).unwrap();
        assert_eq!(status["authenticated"], true);
        assert_eq!(status["user"]["username"], "system:serviceaccount:shop:bot");
        assert_eq!(status["user"]["uid"], "sa-1");
        assert_eq!(status["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
        assert_eq!(
            ask(json!({ "token": token, "audiences": ["vault"] })).unwrap()["audiences"],
            json!(["vault"])
        );
        let wrong = ask(json!({ "token": token, "audiences": ["bank"] })).unwrap();
        assert!(
            wrong["authenticated"].is_null()
                && wrong["error"].as_str().unwrap().contains("audiences")
        );
        assert_eq!(
            ask(json!({ "token": "garbage" })).unwrap(),
            json!({ "user": {}, "error": "invalid bearer token" })
        );
        let refused = ask(json!({})).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (400, "token is required for TokenReview in authentication")
        );
    }

    #[tokio::test]
    async fn access_reviews_answer_as_the_authorizer_would() {
        let (_fixture, reviews, _) = reviews().await;
        let pods = |namespace: &str| json!({ "namespace": namespace, "verb": "get", "resource": "pods", "name": "web" });
        let own = |attributes: Value| {
            reviews.review("SelfSubjectAccessReview", "", &user(), json!({ "metadata": { "creationTimestamp": null }, "spec": { "resourceAttributes": attributes } })).unwrap()["status"].clone()
        };
        assert_eq!(
            own(pods("shop")),
            json!({ "allowed": true, "reason": "RBAC: allowed by RoleBinding \"reader/shop\" of Role \"reader\" to User \"alice\"" })
        );
        assert_eq!(own(pods("bank")), json!({ "allowed": false }));
        let of = |kind: &str, namespace: &str, spec: Value| {
            reviews.review(kind, namespace, &User::admin(), json!({ "spec": spec }))
        };
        let asked = |user: &str| json!({ "user": user, "resourceAttributes": pods("shop") });
        assert_eq!(
            of("SubjectAccessReview", "", asked("alice")).unwrap()["status"]["allowed"],
            true
        );
        assert_eq!(
            of("SubjectAccessReview", "", asked("bob")).unwrap()["status"]["allowed"],
            false
        );
        assert_eq!(of("SubjectAccessReview", "", json!({ "user": "alice", "nonResourceAttributes": { "path": "/metrics", "verb": "get" } })).unwrap()["status"]["allowed"], true);
        assert_eq!(
            of("LocalSubjectAccessReview", "shop", asked("alice")).unwrap()["status"]["allowed"],
            true
        );
        let refused = of("LocalSubjectAccessReview", "bank", asked("alice")).unwrap_err();
        assert_eq!(
            refused.message,
            r#"LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "shop": must match metadata.namespace"#
        );
    }

    #[tokio::test]
    async fn reviews_that_ask_nothing_or_too_much_are_invalid() {
        let (_fixture, reviews, _) = reviews().await;
        let refusal = |kind: &str, review: Value| {
            let status = reviews.review(kind, "", &user(), review).unwrap_err();
            assert_eq!(status.code, 422);
            status.message
        };
        assert_eq!(
            refusal("SelfSubjectAccessReview", json!({})),
            r#"SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: "null": exactly one of nonResourceAttributes or resourceAttributes must be specified"#
        );
        assert!(
            refusal(
                "SelfSubjectAccessReview",
                json!({ "spec": { "resourceAttributes": {}, "nonResourceAttributes": {} } })
            )
            .contains("cannot be specified in combination")
        );
        assert!(
            refusal("SubjectAccessReview", json!({ "spec": { "resourceAttributes": {} } }))
                .contains("at least one of user or group must be specified")
        );
        assert!(
            refusal(
                "SelfSubjectAccessReview",
                json!({ "metadata": { "name": "x" }, "spec": { "resourceAttributes": {} } })
            )
            .contains("metadata: Invalid value")
        );
    }

    #[tokio::test]
    async fn the_rules_of_a_user_are_listed() {
        let (_fixture, reviews, _) = reviews().await;
        let list = |namespace: &str| {
            reviews.review(
                "SelfSubjectRulesReview",
                "",
                &user(),
                json!({ "spec": { "namespace": namespace } }),
            )
        };
        assert_eq!(
            list("shop").unwrap()["status"],
            json!({
                "resourceRules": [
                    { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] },
                    { "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["key"] },
                ],
                "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": ["/metrics"] }],
                "incomplete": false,
            })
        );
        assert_eq!(list("bank").unwrap()["status"]["resourceRules"], json!([]));
        assert_eq!(list("").unwrap_err().code, 400);
    }
}
