//! Tokens of other issuers: OpenID Connect, by upstream's flags or its `AuthenticationConfiguration` file.
//!
//! A token is verified once ([`Oidc::prepare`], which may ask the issuer for its keys) and then known until it ends. Keys are
//! fetched when a token names one that is not known, and not more often than [`REFETCH`]: whoever makes up names of
//! keys costs the issuer nothing. As upstream's `plugin/pkg/auth/authenticator/token/oidc`.

mod claims;
mod config;
mod keys;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tracing::debug;

use crate::identity::User;
use config::{Anonymous, Configuration, Issuer};
use keys::Keys;

pub use config::{OidcError, OidcFlags};

/// At most this often an issuer is asked for its keys.
const REFETCH: Duration = Duration::from_secs(10);
/// Tokens that are known; beyond that some are verified again.
const MAX_TOKENS: usize = 4096;
/// What tokens may be signed with: asymmetric keys only.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
];

/// The issuers that we trust, and their tokens that we know.
pub struct Oidc {
    issuers: Vec<Trusted>,
    anonymous: Anonymous,
    known: Mutex<HashMap<[u8; 32], (User, Timestamp)>>,
}

struct Trusted {
    issuer: Issuer,
    keys: Keys,
}

impl Oidc {
    /// By the text of an `AuthenticationConfiguration`.
    ///
    /// # Errors
    /// When it cannot be read, or wants what we cannot do.
    pub fn from_yaml(text: &str) -> Result<Arc<Self>, OidcError> {
        Self::new(config::parse(text)?)
    }

    /// By the classic flags.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn from_flags(flags: &OidcFlags) -> Result<Arc<Self>, OidcError> {
        let issuers = vec![config::from_flags(flags)?];
        Self::new(Configuration { issuers, anonymous: Anonymous::default() })
    }

    fn new(configuration: Configuration) -> Result<Arc<Self>, OidcError> {
        let Configuration { issuers, anonymous } = configuration;
        let trusted = issuers.into_iter().map(|issuer| {
            let keys = Keys::new(&issuer)?;
            Ok(Trusted { issuer, keys })
        });
        let issuers = trusted.collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { issuers, anonymous, known: Mutex::default() }))
    }

    /// Verifies a token, if it is of one of our issuers, so that [`Oidc::user`] knows it.
    pub(crate) async fn prepare(&self, token: &str) {
        let now = Timestamp::now();
        if self.user(token, now).is_some() {
            return;
        }
        let Some(claims) = unverified(token) else { return };
        let trusted = self.issuers.iter().find(|trusted| claims["iss"] == trusted.issuer.url);
        let Some(trusted) = trusted else { return };
        match trusted.verify(token, now).await {
            Ok((user, end)) => self.remember(token, user, end, now),
            Err(cause) => debug!(issuer = trusted.issuer.url, cause, "token refused"),
        }
    }

    /// Whether a request for this path may be nobody's.
    pub(super) fn lets_in_anybody(&self, path: &str) -> bool {
        match &self.anonymous {
            Anonymous::Everywhere => true,
            Anonymous::At(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }

    /// Whose token this is, once it was verified and while it lasts.
    pub(super) fn user(&self, token: &str, now: Timestamp) -> Option<User> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self.known.lock();
        let (user, end) = known.get(&digest)?;
        (now < *end).then(|| user.clone())
    }

    fn remember(&self, token: &str, user: User, end: Timestamp, now: Timestamp) {
        let mut known = self.known.lock();
        if known.len() >= MAX_TOKENS {
            known.retain(|_, (_, end)| *end > now);
        }
        if known.len() >= MAX_TOKENS {
            // All last: start over, which costs each of them one verification.
            known.clear();
        }
        known.insert(Sha256::digest(token).into(), (user, end));
    }
}

impl Trusted {
    async fn verify(&self, token: &str, now: Timestamp) -> Result<(User, Timestamp), String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err("unexpected signature algorithm".to_owned());
        }
        let key = self.keys.find(header.kid.as_deref()).await?;
        let mut validation = Validation::new(header.alg);
        // Signature and algorithm are the library's; time, issuer and audience are ours.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims: Map<String, Value> = jsonwebtoken::decode(token, &key, &validation)
            .map_err(|_| "failed to verify signature".to_owned())?
            .claims;
        let end = check_times(&claims, now)?;
        Ok((user_of(&self.issuer, &claims)?, end))
    }
}

/// What a token says, to find out who should be asked about it.
fn unverified(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1).filter(|_| token.matches('.').count() == 2)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn check_times(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, String> {
    let second = |name: &str| {
        let value = claims.get(name)?;
        // Upstream's library takes fractions as well.
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are meant")]
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    };
    let end = second("exp").and_then(|end| Timestamp::from_second(end).ok());
    let end = end.ok_or("the token has no end")?;
    if now >= end {
        return Err("token is expired".to_owned());
    }
    // As upstream's library: five minutes for clocks that differ.
    if second("nbf").is_some_and(|begin| begin > now.as_second() + 300) {
        return Err("current time is before the nbf (not before) time".to_owned());
    }
    Ok(end)
}

/// The user that verified claims make.
fn user_of(issuer: &Issuer, claims: &Map<String, Value>) -> Result<User, String> {
    if claims.get("iss").and_then(Value::as_str) != Some(&issuer.url) {
        return Err("issued by somebody else".to_owned());
    }
    let audiences = strings(claims.get("aud")).unwrap_or_default();
    if !audiences.iter().any(|audience| issuer.audiences.contains(audience)) {
        return Err(format!("expected audience in {:?} got {audiences:?}", issuer.audiences));
    }
    issuer.rules.user(claims)
}

/// A string or a list of them.
fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(several) => {
            several.iter().map(|one| one.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
