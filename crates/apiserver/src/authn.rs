//! SIGNATURES DRAFT
//! Who is it? Client certificates, bearer tokens, impersonation.

use std::sync::Arc;

use coracle_api::status::Status;
use coracle_store::Store;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;

use crate::authz::Authorizer;
use crate::identity::User;
use crate::pki::Pki;
use crate::tokens::TokenIssuer;

/// What a TLS connection's client certificate says; made once a connection.
#[derive(Debug, Clone)]
pub struct Peer;

/// The credentials are wrong (answer 401 with `Status` unauthorized).
#[derive(Debug, thiserror::Error)]
#[error("unauthorized")]
pub struct Unauthenticated;

/// Judges credentials.
pub struct Authenticator;

impl Authenticator {
    /// Over the CA and the tokens' key.
    pub fn new(_pki: &Pki, _tokens: Arc<TokenIssuer>, _store: Store) -> Result<Self, crate::pki::PkiError> { Ok(Self) }
    /// Once a connection: `tls.get_ref().1.peer_certificates()`. None: it showed none.
    pub fn peer(&self, _certificates: Option<&[CertificateDer<'static>]>) -> Option<Peer> { None }
    /// Once a request. No credentials at all: `User::anonymous()`.
    pub fn authenticate(&self, _peer: Option<&Peer>, _headers: &HeaderMap) -> Result<User, Unauthenticated> { Err(Unauthenticated) }
}

/// Who the user acts as, by the Impersonate-* headers: himself without any; 403 when he may not. Call after `authenticate`, for in-memory clients too.
pub fn impersonate(user: User, _headers: &HeaderMap, _authorizer: &Authorizer) -> Result<User, Status> { Ok(user) }
