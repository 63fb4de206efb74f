//! Who asks, as a front proxy says in headers: believed from holders of a certificate by a front proxies' authority only.
//!
//! By default that is the authority of our own front proxy, and one name under it; `--requestheader-client-ca-file`
//! adds another one, whose proxies may use other headers. From everybody else such headers are worth nothing, and nobody
//! behind us gets to see them. As upstream's
//! <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/authentication/request/headerrequest/requestheader.go>.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::impersonation::percent_decoded;
use crate::identity::User;
use crate::pki::{FRONT_PROXY, Pki, PkiError};

/// The flags `--requestheader-…` of upstream's kube-apiserver.
#[derive(Debug, Clone, Default)]
pub struct RequestHeaderFlags {
    /// Who signs the certificates of front proxies beside our own authority, PEM.
    pub client_ca_pem: Option<String>,
    /// The names that such certificates may bear; any when empty.
    pub allowed_names: Vec<String>,
    /// Where the user's name is; `X-Remote-User` when empty.
    pub username_headers: Vec<String>,
    /// Where the user's uid is; `X-Remote-Uid` when empty.
    pub uid_headers: Vec<String>,
    /// Where the groups are; `X-Remote-Group` when empty.
    pub group_headers: Vec<String>,
    /// What the headers of extras start with; `X-Remote-Extra-` when empty.
    pub extra_headers_prefix: Vec<String>,
}

/// Which proxies are believed, and where they say who asks.
pub struct RequestHeaders {
    authorities: Vec<Authority>,
    pem: String,
    users: Vec<String>,
    uids: Vec<String>,
    groups: Vec<String>,
    extras: Vec<String>,
}

struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Any when empty.
    names: Vec<String>,
}

/// A connection of a proxy whom we believe.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    not_after: Timestamp,
}

const USER: &str = "X-Remote-User";
const UID: &str = "X-Remote-Uid";
const GROUP: &str = "X-Remote-Group";
const EXTRA: &str = "X-Remote-Extra-";

impl RequestHeaders {
    /// Our own front proxy, and those of the flags.
    ///
    /// # Errors
    /// When there is no certificate in the authority's file.
    pub fn new(pki: &Pki, flags: &RequestHeaderFlags) -> Result<Self, PkiError> {
        let own = pki.front_proxy_ca_pem();
        let names = vec![FRONT_PROXY.to_owned()];
        let mut authorities = vec![Authority { verifier: Pki::verifier_of(own)?, names }];
        let mut pem = own.to_owned();
        if let Some(other) = &flags.client_ca_pem {
            let names = flags.allowed_names.clone();
            authorities.push(Authority { verifier: Pki::verifier_of(other)?, names });
            pem = format!("{}\n{other}", own.trim_end());
        }
        let or = |given: &[String], usual: &str| -> Vec<String> {
            let given = given.iter().map(|name| name.trim().to_owned());
            // Every header begins with nothing.
            let given: Vec<String> = given.filter(|name| !name.is_empty()).collect();
            if given.is_empty() { vec![usual.to_owned()] } else { given }
        };
        Ok(Self {
            authorities,
            pem,
            users: or(&flags.username_headers, USER),
            uids: or(&flags.uid_headers, UID),
            groups: or(&flags.group_headers, GROUP),
            extras: or(&flags.extra_headers_prefix, EXTRA),
        })
    }

    /// The certificates of the authorities, PEM.
    pub(crate) fn authorities_pem(&self) -> &str {
        &self.pem
    }

    /// What `extension-apiserver-authentication` tells extension servers of it, as upstream writes it.
    pub(crate) fn published(&self) -> [(&'static str, String); 6] {
        let list = |items: &[String]| serde_json::json!(items).to_string();
        // Where one authority's proxies may bear any name, others cannot be told apart by theirs.
        let any = self.authorities.iter().any(|authority| authority.names.is_empty());
        let names = self.authorities.iter().flat_map(|authority| authority.names.clone());
        let names: Vec<String> = if any { Vec::new() } else { names.collect() };
        [
            ("requestheader-allowed-names", list(&names)),
            ("requestheader-client-ca-file", self.pem.clone()),
            ("requestheader-extra-headers-prefix", list(&self.extras)),
            ("requestheader-group-headers", list(&self.groups)),
            ("requestheader-uid-headers", list(&self.uids)),
            ("requestheader-username-headers", list(&self.users)),
        ]
    }

    /// Whether these certificates are those of a proxy.
    pub(super) fn proxy(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Option<Proxy> {
        let signed = self.authorities.iter().filter(|authority| {
            authority.verifier.verify_client_cert(own, intermediates, UnixTime::now()).is_ok()
        });
        let mut signed = signed.peekable();
        signed.peek()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(own).ok()?;
        let name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
        let name = name.unwrap_or_default();
        let is_allowed = signed.any(|authority| {
            authority.names.is_empty() || authority.names.iter().any(|allowed| allowed == name)
        });
        let not_after = certificate.validity().not_after.timestamp();
        Timestamp::from_second(not_after)
            .ok()
            .filter(|_| is_allowed)
            .map(|not_after| Proxy { not_after })
    }

    /// Whom the proxy speaks for, if it says so.
    pub(super) fn user(&self, proxy: &Proxy, headers: &HeaderMap, now: Timestamp) -> Option<User> {
        if now > proxy.not_after {
            return None;
        }
        let name = values(headers, &self.users).next()?;
        let groups: Vec<String> = values(headers, &self.groups).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let mut user = User::new(name, &groups);
        user.uid = values(headers, &self.uids).next().unwrap_or_default();
        for (header, value) in headers {
            let key = self.extras.iter().find_map(|prefix| key_after(header, prefix));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                user.extra.entry(percent_decoded(key)).or_default().push(value.to_owned());
            }
        }
        Some(user)
    }

    /// Takes away what proxies say: once a request is authenticated, nobody is to read it again.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        let names = [&self.users, &self.uids, &self.groups].into_iter().flatten();
        let names: Vec<&str> = names.map(String::as_str).chain([USER, UID, GROUP]).collect();
        let prefixes: Vec<&str> = self.extras.iter().map(String::as_str).chain([EXTRA]).collect();
        let is_ours = |header: &HeaderName| {
            names.iter().any(|name| header.as_str().eq_ignore_ascii_case(name))
                || prefixes.iter().any(|prefix| key_after(header, prefix).is_some())
        };
        let found: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }
}

/// What is said in these headers, the first header's first, without what is empty.
fn values(headers: &HeaderMap, names: &[String]) -> impl Iterator<Item = String> {
    let said = names.iter().flat_map(|name| headers.get_all(name.as_str()));
    said.filter_map(|value| value.to_str().ok()).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn key_after<'a>(header: &'a HeaderName, prefix: &str) -> Option<&'a str> {
    let (start, key) = header.as_str().split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(key)
}

#[cfg(test)]
mod tests;
