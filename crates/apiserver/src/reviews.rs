//! SIGNATURES DRAFT
//! TokenReview, SelfSubjectReview and the SubjectAccessReview family.

use std::sync::Arc;

use coracle_api::status::Status;
use serde_json::Value;

use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::identity::User;

/// Answers reviews.
pub struct Reviews;

impl Reviews {
    /// Over the parts that know the answers.
    pub fn new(_authenticator: Arc<Authenticator>, _authorizer: Arc<Authorizer>) -> Self { Self }
    /// Answers one POST (201): `kind` as in `kinds`, `namespace` of the path for LocalSubjectAccessReview.
    pub fn review(&self, _kind: &str, _namespace: &str, _user: &User, _review: Value) -> Result<Value, Status> { Ok(Value::Null) }
}
