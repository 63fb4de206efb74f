//! SIGNATURES DRAFT
//! ServiceAccount tokens.

use coracle_api::status::Status;
use coracle_store::Store;
use serde_json::Value;

use crate::pki::{Pki, PkiError};

/// Signs and verifies ServiceAccount tokens.
pub struct TokenIssuer;

impl TokenIssuer {
    /// With the cluster's ServiceAccount key.
    pub fn new(_pki: &Pki, _store: Store) -> Result<Self, PkiError> { Ok(Self) }
    /// Answers `POST …/serviceaccounts/NAME/token`: the TokenRequest with its status (201).
    pub fn issue(&self, _namespace: &str, _service_account: &str, _request: Value) -> Result<Value, Status> { Ok(Value::Null) }
    /// `/openid/v1/jwks` (content type application/jwk-set+json).
    pub fn jwks(&self) -> Value { Value::Null }
    /// `/.well-known/openid-configuration`; `server_url` like `https://host:6443`.
    pub fn openid_configuration(&self, _server_url: &str) -> Value { Value::Null }
}
