//! Who is it? Client certificates, bearer tokens, impersonation.
//!
//! A certificate is judged once a connection ([`Authenticator::peer`]), a request by [`Authenticator::authenticate`]:
//! what a front proxy says first, then the certificate, then the bearer token, as upstream. Whoever shows nothing is `system:anonymous`, whom RBAC
//! lets see health and version only; whoever shows something wrong is refused with 401.

mod bootstrap;
mod cache;
mod impersonation;
pub mod oidc;
mod request_header;

use std::sync::Arc;

use coracle_api::status::Status;
use coracle_store::{Key, Object, Store};
use http::{HeaderMap, header};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest as _, Sha256};
use tracing::debug;

use crate::identity::User;
use crate::pki::{Pki, PkiError};
use crate::tokens::{ISSUER, Refused, TokenIssuer, Verified};
use cache::TokenCache;

pub use impersonation::impersonate;
use oidc::Oidc;
use request_header::Proxy;
pub use request_header::{RequestHeaderFlags, RequestHeaders};

/// What a TLS connection's client certificate says; made once a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// As a client's own.
    own: Judgement,
    /// As a front proxy's.
    proxy: Option<Proxy>,
}

#[derive(Debug, Clone)]
enum Judgement {
    /// By our CA. It may still expire while the connection lives.
    Known { user: User, not_after: Timestamp },
    /// Not by our CA, not for clients, expired, or unreadable.
    Wrong(String),
}

/// The credentials are wrong; the cause is for the log, the client learns only that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Unauthenticated {
    cause: String,
}

impl From<Unauthenticated> for Status {
    fn from(_: Unauthenticated) -> Self {
        Status::unauthorized()
    }
}

/// Judges credentials.
pub struct Authenticator {
    certificates: Arc<dyn ClientCertVerifier>,
    tokens: Arc<TokenIssuer>,
    store: Store,
    cache: TokenCache,
    audiences: [String; 1],
    oidc: Option<Arc<Oidc>>,
    proxies: RequestHeaders,
}

impl Authenticator {
    /// Over the CA and the key of tokens.
    pub fn new(pki: &Pki, tokens: Arc<TokenIssuer>, store: Store) -> Result<Self, PkiError> {
        Ok(Self {
            certificates: pki.client_verifier()?,
            tokens,
            store,
            cache: TokenCache::default(),
            audiences: [ISSUER.to_owned()],
            oidc: None,
            proxies: RequestHeaders::new(pki, &RequestHeaderFlags::default())?,
        })
    }

    /// The same, and these issuers' tokens are good as well.
    pub fn trusting(self, oidc: Option<Arc<Oidc>>) -> Self {
        Self { oidc, ..self }
    }

    /// The same, and these front proxies are believed.
    pub fn behind(self, proxies: RequestHeaders) -> Self {
        Self { proxies, ..self }
    }

    /// Which front proxies are believed.
    pub(crate) const fn proxies(&self) -> &RequestHeaders {
        &self.proxies
    }

    /// Finds out whose token this is, when others must be asked. Call it before a token is judged.
    pub(crate) async fn prepare(&self, token: &str) {
        if let Some(oidc) = &self.oidc {
            oidc.prepare(token).await;
        }
    }

    /// [`Authenticator::prepare`], for the token of a request.
    pub(crate) async fn prepare_request(&self, headers: &HeaderMap) {
        if self.oidc.is_some()
            && let Some(token) = bearer_token(headers)
        {
            self.prepare(token).await;
        }
    }

    /// What the client's certificates (`peer_certificates()` of the TLS connection) say; None when it showed none.
    pub fn peer(&self, certificates: Option<&[CertificateDer<'static>]>) -> Option<Peer> {
        let (own, intermediates) = certificates?.split_first()?;
        let judgement =
            match self.certificates.verify_client_cert(own, intermediates, UnixTime::now()) {
                Ok(_) => read_certificate(own),
                Err(error) => Judgement::Wrong(format!("client certificate: {error}")),
            };
        Some(Peer { own: judgement, proxy: self.proxies.proxy(own, intermediates) })
    }

    /// Who asks. Without any credentials it is `system:anonymous`.
    pub fn authenticate(
        &self,
        peer: Option<&Peer>,
        headers: &HeaderMap,
    ) -> Result<User, Unauthenticated> {
        self.authenticate_at(peer, headers, Timestamp::now())
    }

    /// Whether a request for this path may be nobody's: everywhere, unless the file about others' tokens says otherwise.
    pub(crate) fn lets_in_anybody(&self, path: &str) -> bool {
        self.oidc.as_ref().is_none_or(|oidc| oidc.lets_in_anybody(path))
    }

    /// Verifies a token for these audiences, for a TokenReview: the user and those audiences that it is for.
    pub(crate) fn review_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), Refused> {
        let wanted = if audiences.is_empty() { &self.audiences[..] } else { audiences };
        let ours: Vec<String> =
            wanted.iter().filter(|wanted| self.audiences.contains(wanted)).cloned().collect();
        if !ours.is_empty()
            && let Some(user) = self.others_user(token, Timestamp::now())
        {
            return Ok((user, ours));
        }
        let verified = self.tokens.verify(token, wanted, Timestamp::now())?;
        Ok((verified.user, verified.audiences))
    }

    fn authenticate_at(
        &self,
        peer: Option<&Peer>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<User, Unauthenticated> {
        let proxy = peer.and_then(|peer| peer.proxy.as_ref());
        if let Some(user) = proxy.and_then(|proxy| self.proxies.user(proxy, headers, now)) {
            return Ok(user);
        }
        let wrong = match peer.map(|peer| &peer.own) {
            Some(Judgement::Known { user, not_after }) if now <= *not_after => {
                // A certificate without a name names nobody.
                if !user.name.is_empty() {
                    return Ok(user.clone());
                }
                None
            }
            Some(Judgement::Known { .. }) => Some("client certificate: expired".to_owned()),
            Some(Judgement::Wrong(cause)) => Some(cause.clone()),
            None => None,
        };
        let refused = match bearer_token(headers) {
            Some(token) => match self.token_user(token, now) {
                Ok(user) => return Ok(user),
                Err(refused) => Some(refused.to_string()),
            },
            None => None,
        };
        let causes: Vec<String> = [wrong, refused].into_iter().flatten().collect();
        if causes.is_empty() {
            return Ok(User::anonymous());
        }
        debug!(?causes, "credentials refused");
        Err(Unauthenticated { cause: causes.join(", ") })
    }

    /// Whose token it is, if it is none of a ServiceAccount.
    fn others_user(&self, token: &str, now: Timestamp) -> Option<User> {
        let known = self.oidc.as_ref().and_then(|oidc| oidc.user(token, now));
        known.or_else(|| bootstrap::user(&self.store, token, now))
    }

    fn token_user(&self, token: &str, now: Timestamp) -> Result<User, Refused> {
        if let Some(user) = self.others_user(token, now) {
            return Ok(user);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self
            .cache
            .recheck(&digest, |verified: &mut Verified| verified.recheck(&self.store, now))
        {
            return known.map(|verified| verified.user);
        }
        let verified = self.tokens.verify(token, &self.audiences, now)?;
        let user = verified.user.clone();
        self.cache.remember(digest, verified, now);
        Ok(user)
    }
}

/// An object in its latest state.
pub(crate) fn stored(
    store: &Store,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Option<Arc<Object>> {
    store.get(&Key::new(resource, namespace, name))
}

/// `Authorization: Bearer TOKEN`; anything else in that header is not for us.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Name, groups and end of a certificate that is already verified.
fn read_certificate(der: &CertificateDer<'_>) -> Judgement {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
        return Judgement::Wrong("client certificate: unreadable".to_owned());
    };
    let Ok(not_after) = Timestamp::from_second(certificate.validity().not_after.timestamp()) else {
        return Judgement::Wrong("client certificate: unreadable end".to_owned());
    };
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
    let groups: Vec<&str> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = User::new(name, &groups);
    let fingerprint: String =
        Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={fingerprint}")],
    );
    Judgement::Known { user, not_after }
}

#[cfg(test)]
pub(crate) mod server_tests;
#[cfg(test)]
pub(crate) mod tests;
