//! Is this token one of ours, and is what it is bound to still there?

use coracle_api::status::go_quote;
use coracle_store::{Revision, Store};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Validation};

use super::{Bound, Claims, Facts, ISSUER, Named, TokenIssuer};
use crate::authn::stored;
use crate::identity::User;

/// An object that is being deleted keeps its tokens this long, so that its last steps can still be done; as upstream.
const DELETION_LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// A token that holds.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    pub(crate) user: User,
    /// Those of the wanted audiences that it is for.
    pub(crate) audiences: Vec<String>,
    pub(crate) expires: Timestamp,
    references: Vec<Reference>,
}

/// Why a token does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Not ours, or changed on the way.
    #[error("invalid bearer token")]
    Unknown,
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not come.
    #[error("service account token is not valid yet")]
    NotYet,
    /// It was made for somebody else.
    #[error("token audiences {token} is invalid for the target audiences {wanted}")]
    Audience {
        /// For whom.
        token: String,
        /// Who asks.
        wanted: String,
    },
    /// Its account, or what it is bound to, is gone.
    #[error("service account token has been invalidated: {0}")]
    Revoked(String),
}

/// Something that must go on existing, and the state in which we last saw it.
#[derive(Debug, Clone)]
struct Reference {
    resource: &'static str,
    namespace: String,
    name: String,
    uid: String,
    seen: Option<Revision>,
}

impl TokenIssuer {
    /// Verifies a token for any of these audiences.
    pub(crate) fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Verified, Refused> {
        let mut validation = Validation::new(Algorithm::ES256);
        // Signature and algorithm are the library's; time and audience are ours, with our clock and our messages.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims: Claims = jsonwebtoken::decode(token, &self.verifying, &validation)
            .map_err(|_| Refused::Unknown)?
            .claims;
        if claims.iss != ISSUER
            || crate::identity::split_service_account(&claims.sub) != subject(&claims.kubernetes)
        {
            return Err(Refused::Unknown);
        }
        let expires = Timestamp::from_second(claims.exp).map_err(|_| Refused::Unknown)?;
        if now >= expires {
            return Err(Refused::Expired);
        }
        if now.as_second() < claims.nbf {
            return Err(Refused::NotYet);
        }
        let own = claims.aud.as_slice();
        let shared: Vec<String> =
            audiences.iter().filter(|audience| own.contains(audience)).cloned().collect();
        if shared.is_empty() {
            return Err(Refused::Audience { token: quoted(own), wanted: quoted(audiences) });
        }
        let mut verified = Verified {
            user: user(&claims),
            audiences: shared,
            expires,
            references: references(&claims.kubernetes),
        };
        verified.recheck(&self.store, now)?;
        Ok(verified)
    }
}

impl Verified {
    /// Whether it still holds: time, and whatever changed since the last look.
    pub(crate) fn recheck(&mut self, store: &Store, now: Timestamp) -> Result<(), Refused> {
        if now >= self.expires {
            return Err(Refused::Expired);
        }
        self.references.iter_mut().try_for_each(|reference| reference.check(store, now))
    }
}

impl Reference {
    fn check(&mut self, store: &Store, now: Timestamp) -> Result<(), Refused> {
        let revoked = |why: &str| {
            Err(Refused::Revoked(format!("{} {} {why}", self.resource, go_quote(&self.name))))
        };
        let Some(object) = stored(store, self.resource, &self.namespace, &self.name) else {
            return revoked("is gone");
        };
        if self.seen == Some(object.revision) {
            return Ok(());
        }
        let Ok(facts) = serde_json::from_slice::<Facts>(&object.bytes) else {
            return revoked("is unreadable");
        };
        if facts.metadata.uid != self.uid {
            return revoked("is another one now");
        }
        match facts.metadata.deletion_timestamp {
            Some(deleted) if now.duration_since(deleted) > DELETION_LEEWAY => {
                revoked("is being deleted")
            }
            // The leeway ends without a write: look again each time.
            Some(_) => {
                self.seen = None;
                Ok(())
            }
            None => {
                self.seen = Some(object.revision);
                Ok(())
            }
        }
    }
}

fn subject(bound: &Bound) -> Option<(&str, &str)> {
    Some((&bound.namespace, &bound.serviceaccount.name))
}

/// The account, and what else the token is bound to. The node of a pod is for the record only: pods outlive the loss
/// of their node's object, and their tokens with them.
fn references(bound: &Bound) -> Vec<Reference> {
    let reference = |resource, namespace: &str, named: &Named| Reference {
        resource,
        namespace: namespace.to_owned(),
        name: named.name.clone(),
        uid: named.uid.clone(),
        seen: None,
    };
    let mut references =
        vec![reference("serviceaccounts", &bound.namespace, &bound.serviceaccount)];
    references
        .extend(bound.secret.iter().map(|secret| reference("secrets", &bound.namespace, secret)));
    match &bound.pod {
        Some(pod) => references.push(reference("pods", &bound.namespace, pod)),
        None => references.extend(bound.node.iter().map(|node| reference("nodes", "", node))),
    }
    references
}

fn user(claims: &Claims) -> User {
    let bound = &claims.kubernetes;
    let mut user = User::service_account(
        &bound.namespace,
        &bound.serviceaccount.name,
        &bound.serviceaccount.uid,
    );
    let mut tell = |key: &str, value: String| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        }
    };
    if !claims.jti.is_empty() {
        tell("credential-id", format!("JTI={}", claims.jti));
    }
    for (what, named) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(named) = named {
            tell(&format!("{what}-name"), named.name.clone());
            tell(&format!("{what}-uid"), named.uid.clone());
        }
    }
    user
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", words.join(" "))
}
