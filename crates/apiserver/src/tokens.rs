//! ServiceAccount tokens: short-lived, for an audience, bound to what they were made for.
//!
//! JSON Web Tokens signed with ES256. A token is good while its account, and the pod, secret or node that it is bound
//! to, exist with the same uid: deleting one of them revokes it, which is why verification asks the store each time.
//! Claims and checks follow upstream's `pkg/serviceaccount/claims.go`:
//! <https://github.com/kubernetes/kubernetes/blob/master/pkg/serviceaccount/claims.go>.

mod verify;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_api::status::{FieldErrors, GroupResource, Path, Status, go_quote};
use coracle_store::Store;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use rcgen::PublicKeyData as _;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::authn::stored;
use crate::pki::{Pki, PkiError};

pub(crate) use verify::{Refused, Verified};

/// Who signs, and the audience of tokens for the API server itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long a token lives when nobody says; upstream's default.
const DEFAULT_SECONDS: i64 = 3600;
/// Shorter ones would be used up by clock differences and refreshes.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// Signs and verifies ServiceAccount tokens.
pub struct TokenIssuer {
    store: Store,
    /// Parsed once: a thousand pods that start together want a thousand tokens.
    signing: EcdsaKeyPair,
    random: SystemRandom,
    verifying: DecodingKey,
    key_id: String,
    /// The public key as an uncompressed point: a format byte, x, y.
    point: Vec<u8>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
    exp: i64,
    #[serde(default)]
    iat: i64,
    #[serde(default)]
    iss: String,
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Bound,
    #[serde(default)]
    nbf: i64,
    #[serde(default)]
    sub: String,
}

/// One audience or several: both forms are valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Audiences {
    Several(Vec<String>),
    One(String),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::Several(audiences) => audiences,
            Self::One(audience) => std::slice::from_ref(audience),
        }
    }
}

/// What the token is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
    serviceaccount: Named,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

/// The parts of stored objects that tokens depend on.
#[derive(Deserialize)]
struct Facts {
    metadata: Metadata,
    #[serde(default)]
    spec: Option<PodFacts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodFacts {
    service_account_name: Option<String>,
    node_name: Option<String>,
}

impl TokenIssuer {
    /// With the cluster's key.
    pub fn new(pki: &Pki, store: Store) -> Result<Self, PkiError> {
        let unusable = |error: jsonwebtoken::errors::Error| PkiError::TokenKey(error.to_string());
        let key = pki.token_key();
        let random = SystemRandom::new();
        let signing = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &key.serialize_der(),
            &random,
        )
        .map_err(|error| PkiError::TokenKey(error.to_string()))?;
        Ok(Self {
            store,
            signing,
            random,
            verifying: DecodingKey::from_ec_pem(key.public_key_pem().as_bytes())
                .map_err(unusable)?,
            key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(key.subject_public_key_info())),
            point: key.public_key_raw().to_vec(),
        })
    }

    /// Answers `POST …/serviceaccounts/NAME/token`: the TokenRequest with its status.
    pub fn issue(
        &self,
        namespace: &str,
        service_account: &str,
        request: Value,
    ) -> Result<Value, Status> {
        self.issue_at(namespace, service_account, request, Timestamp::now())
    }

    /// The public keys, for whoever verifies tokens without asking us (`/openid/v1/jwks`).
    pub fn jwks(&self) -> Value {
        let coordinates = self.point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        json!({ "keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        }] })
    }

    /// `/.well-known/openid-configuration`; `server_url` like `https://host:6443`.
    pub fn openid_configuration(&self, server_url: &str) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{server_url}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    fn issue_at(
        &self,
        namespace: &str,
        account: &str,
        mut request: Value,
        now: Timestamp,
    ) -> Result<Value, Status> {
        place(&mut request, namespace, account)?;
        if request["spec"]["expirationSeconds"].is_null() {
            request["spec"]["expirationSeconds"] = DEFAULT_SECONDS.into();
        }
        let seconds = validate(&request)?;
        if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
            request["spec"]["audiences"] = json!([ISSUER]);
        }
        let uid = self.uid("serviceaccounts", namespace, account)?;
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: Named { name: account.to_owned(), uid },
            ..Bound::default()
        };
        self.bind(&mut bound, &request["spec"]["boundObjectRef"])?;
        let issued = now.as_second();
        let audiences = request["spec"]["audiences"].as_array().into_iter().flatten();
        let claims = Claims {
            aud: Audiences::Several(
                audiences.filter_map(Value::as_str).map(str::to_owned).collect(),
            ),
            exp: issued + seconds,
            iat: issued,
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: bound,
            nbf: issued,
            sub: format!("{}{namespace}:{account}", crate::identity::SERVICE_ACCOUNT_PREFIX),
        };
        let expires = Timestamp::from_second(claims.exp).map_err(Status::internal)?;
        request["status"] = json!({
            "token": self.sign(&claims)?,
            "expirationTimestamp": coracle_api::time::seconds(expires),
        });
        Ok(request)
    }

    fn sign(&self, claims: &Claims) -> Result<String, Status> {
        let header =
            Header { kid: Some(self.key_id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        // An error could quote what was to be signed: the caller learns only that it failed.
        let failed = || Status::internal("cannot sign the token");
        let header = serde_json::to_vec(&header).map_err(|_| failed())?;
        let claims = serde_json::to_vec(claims).map_err(|_| failed())?;
        let mut token =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signing.sign(&self.random, token.as_bytes()).map_err(|_| failed())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Ties the token to the pod, secret or node that the request names.
    fn bind(&self, bound: &mut Bound, reference: &Value) -> Result<(), Status> {
        if reference.is_null() {
            return Ok(());
        }
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
        let uid = match (api_version, kind) {
            ("v1", "Pod") => self.bind_to_pod(bound, name)?,
            ("v1", "Secret") => {
                let uid = self.uid("secrets", &bound.namespace, name)?;
                bound.secret = Some(Named { name: name.to_owned(), uid: uid.clone() });
                uid
            }
            ("v1", "Node") => {
                let uid = self.uid("nodes", "", name)?;
                bound.node = Some(Named { name: name.to_owned(), uid: uid.clone() });
                uid
            }
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {api_version}, Kind={kind}"
                )));
            }
        };
        let wanted = text("uid");
        if !wanted.is_empty() && wanted != uid {
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(GroupResource { group: "", resource: kind }, name, why));
        }
        Ok(())
    }

    fn bind_to_pod(&self, bound: &mut Bound, name: &str) -> Result<String, Status> {
        let pod = self.facts("pods", &bound.namespace, name)?;
        let spec = pod.spec.unwrap_or_default();
        if spec.service_account_name.as_deref() != Some(&bound.serviceaccount.name) {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                go_quote(&bound.serviceaccount.name)
            )));
        }
        // For the reader of an audit log: on which machine the pod ran.
        bound.node = spec.node_name.filter(|node| !node.is_empty()).map(|node| Named {
            uid: self.uid("nodes", "", &node).unwrap_or_default(),
            name: node,
        });
        bound.pod = Some(Named { name: name.to_owned(), uid: pod.metadata.uid.clone() });
        Ok(pod.metadata.uid)
    }

    fn uid(&self, resource: &str, namespace: &str, name: &str) -> Result<String, Status> {
        Ok(self.facts(resource, namespace, name)?.metadata.uid)
    }

    fn facts(&self, resource: &str, namespace: &str, name: &str) -> Result<Facts, Status> {
        let object = stored(&self.store, resource, namespace, name)
            .ok_or_else(|| Status::not_found(GroupResource { group: "", resource }, name))?;
        serde_json::from_slice(&object.bytes)
            .map_err(|error| Status::internal(format!("{resource} {name}: {error}")))
    }
}

/// Fills in name and namespace from the path; a body that names another account is refused.
fn place(request: &mut Value, namespace: &str, account: &str) -> Result<(), Status> {
    let given = |field: &str| request["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (given_name, given_namespace) = (given("name"), given("namespace"));
    if !given_name.is_empty() && given_name != account {
        return Err(Status::bad_request(format!(
            "must be provided with the same name as the service account: {given_name} and {account}"
        )));
    }
    if !given_namespace.is_empty() && given_namespace != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    request["metadata"]["name"] = account.into();
    request["metadata"]["namespace"] = namespace.into();
    request["metadata"]["creationTimestamp"] = coracle_api::time::now().into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    Ok(())
}

fn validate(request: &Value) -> Result<i64, Status> {
    let path = Path::new("spec").child("expirationSeconds");
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or_default();
    let mut errors = FieldErrors::new();
    if seconds < MIN_SECONDS {
        errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_SECONDS {
        errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if errors.is_empty() {
        return Ok(seconds);
    }
    Err(Status::invalid_kind("authentication.k8s.io", "TokenRequest", "", &errors))
}

#[cfg(test)]
pub(crate) mod tests;
