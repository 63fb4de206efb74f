//! The cluster's own certificate authority: who may serve, who may ask, and the key of ServiceAccount tokens.
//!
//! One directory (0700) holds what must survive a restart: `ca.crt`, `ca.key`, `apiserver.crt`, `apiserver.key` and
//! `sa.key` (0600, replaced atomically). Client certificates are made when they are asked for. What can be derived
//! again (the serving certificate) is; what cannot (the CA, whose certificates are in kubeconfigs) is an error when
//! it is damaged, never silently replaced.

mod files;
mod issue;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use serde_json::json;

use crate::identity::User;
pub(crate) use tls::anybody;

/// The CA outlives any laptop; upstream's kubeadm takes ten years as well.
const CA_DAYS: i64 = 3650;
/// Certificates below the CA live a year, as kubeadm's do.
const LEAF_DAYS: i64 = 365;
/// A serving certificate with less left than this is renewed at start.
const RENEW_DAYS: i64 = 60;
/// The names under which pods and operators reach the API server, whatever else it is called.
const OWN_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// What the API server's certificate is valid for, beside the names that it always has
/// (`localhost`, 127.0.0.1, ::1, `kubernetes.default.svc` and its short forms).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sans {
    /// DNS names.
    pub names: Vec<String>,
    /// Addresses: where it is bound, and the service address of `kubernetes`.
    pub addresses: Vec<IpAddr>,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct CertifiedPem {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8. A secret.
    pub key: String,
}

impl CertifiedPem {
    /// As rustls takes it.
    pub(crate) fn parts(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        tls::parse(self)
    }
}

impl std::fmt::Debug for CertifiedPem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys must not reach a log through `{:?}`.
        formatter.debug_struct("CertifiedPem").finish_non_exhaustive()
    }
}

/// Why the certificates are not there.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The directory or a file in it cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that cannot be made again is damaged.
    #[error(
        "{path} is damaged: {cause}; restore it, or remove the directory to start with a new authority"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A certificate carries at most two groups.
    #[error("a certificate for {user} cannot carry {groups} groups: at most two")]
    TooManyGroups {
        /// For whom.
        user: String,
        /// How many were asked for.
        groups: usize,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate of {subject}")]
    Issue {
        /// For whom.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// A TLS configuration could not be made.
    #[error("cannot set up TLS for {purpose}: {cause}")]
    Tls {
        /// What it was to be for.
        purpose: &'static str,
        /// What the library said.
        cause: String,
    },
    /// The key of ServiceAccount tokens cannot be used.
    #[error("cannot use the key of ServiceAccount tokens: {0}")]
    TokenKey(String),
    /// A kubeconfig could not be written as YAML.
    #[error("cannot write a kubeconfig: {0}")]
    Kubeconfig(String),
}

/// The name under which aggregated servers know us, as `extension-apiserver-authentication` tells them.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// The authority, the API server's serving certificate, and the key that signs ServiceAccount tokens.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    serving: CertifiedPem,
    token_key: KeyPair,
    /// Whom aggregated servers believe when we say who asks: an authority of its own, which signs for us alone.
    front_proxy_issuer: Issuer<'static, KeyPair>,
    front_proxy_ca_pem: String,
    front_proxy: CertifiedPem,
}

impl Pki {
    /// Opens the directory, and makes what is missing; renews the serving certificate when it expires soon or the
    /// names changed.
    pub fn open_or_create(dir: &Path, sans: &Sans) -> Result<Self, PkiError> {
        files::ensure_directory(dir)?;
        let (issuer, ca_pem) = issue::open_authority(dir, "ca")?;
        let token_key = files::key(&dir.join("sa.key"))?;
        let (front_proxy_issuer, front_proxy_ca_pem) =
            issue::open_authority(dir, "front-proxy-ca")?;
        let front_proxy = issue::leaf(&front_proxy_issuer, &issue::Leaf::client(FRONT_PROXY, &[]))?;
        let sans = all_sans(sans);
        let serving = match issue::reusable_serving(dir, &ca_pem, &sans)? {
            Some(serving) => serving,
            None => {
                let serving =
                    issue::leaf(&issuer, &issue::Leaf::server("kube-apiserver", &[], sans))?;
                // The key first: a certificate without its key is made again at the next start.
                files::write(&dir.join("apiserver.key"), &serving.key)?;
                files::write(&dir.join("apiserver.crt"), &serving.certificate)?;
                serving
            }
        };
        Ok(Self {
            issuer,
            ca_pem,
            serving,
            token_key,
            front_proxy_issuer,
            front_proxy_ca_pem,
            front_proxy,
        })
    }

    /// The CA's certificate: what clients trust, and what the ConfigMaps `kube-root-ca.crt` hold.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The certificate of the authority that signs for the front proxy.
    pub(crate) fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy_ca_pem
    }

    /// What we show to aggregated servers.
    pub(crate) const fn front_proxy(&self) -> &CertifiedPem {
        &self.front_proxy
    }

    /// A client certificate: the user's name is its common name, the groups are its organizations.
    pub fn client_certificate(
        &self,
        user: &str,
        groups: &[&str],
    ) -> Result<CertifiedPem, PkiError> {
        issue::leaf(&self.issuer, &issue::Leaf::client(user, groups))
    }

    /// The certificate of a front proxy before this server: whom it speaks for, it says in headers.
    pub fn front_proxy_certificate(&self, name: &str) -> Result<CertifiedPem, PkiError> {
        issue::leaf(&self.front_proxy_issuer, &issue::Leaf::client(name, &[]))
    }

    /// A serving certificate for the kubelet of this node.
    pub fn serving_certificate(
        &self,
        node: &str,
        addresses: &[IpAddr],
    ) -> Result<CertifiedPem, PkiError> {
        let sans = Sans { names: vec![node.to_owned()], addresses: addresses.to_vec() };
        issue::leaf(
            &self.issuer,
            &issue::Leaf::server(&User::node(node).name, &[crate::identity::NODES], sans),
        )
    }

    /// A kubeconfig for this user, with all data inside. A secret: write it with mode 0600.
    pub fn kubeconfig(&self, server_url: &str, user: &User) -> Result<String, PkiError> {
        let groups: Vec<&str> = user
            .groups
            .iter()
            .map(String::as_str)
            .filter(|&group| group != crate::identity::AUTHENTICATED)
            .collect();
        let client = self.client_certificate(&user.name, &groups)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "coracle",
                "cluster": { "server": server_url, "certificate-authority-data": STANDARD.encode(&self.ca_pem) },
            }],
            "users": [{
                "name": user.name,
                "user": {
                    "client-certificate-data": STANDARD.encode(&client.certificate),
                    "client-key-data": STANDARD.encode(&client.key),
                },
            }],
            "contexts": [{ "name": "coracle", "context": { "cluster": "coracle", "user": user.name } }],
            "current-context": "coracle",
        });
        serde_yaml::to_string(&config).map_err(|error| PkiError::Kubeconfig(error.to_string()))
    }

    /// How the API server speaks TLS. It asks for a client certificate but does not judge it: `authn` does, for each
    /// request, so that a wrong or expired one is answered with 401 as upstream does, not with a TLS alert.
    /// Clients choose a certificate by the authorities that we name: ours, and that of front proxies (PEM).
    pub fn server_config(
        &self,
        front_proxies_pem: &str,
    ) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let authorities = format!("{}\n{front_proxies_pem}", self.ca_pem.trim_end());
        tls::server(&self.serving, tls::asking_verifier(&authorities)?)
    }

    /// How the API server speaks to kubelets: it verifies them, and shows its own certificate.
    pub fn kubelet_client_config(&self) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        let user = User::kubelet_client();
        let own = self.client_certificate(&user.name, &[&user.groups[0]])?;
        tls::client(&self.ca_pem, Some(&own))
    }

    /// How the API server speaks to pods behind its proxy: their certificates are their own, and nobody's word for anything.
    pub(crate) fn unverified_client_config() -> Result<Arc<rustls::ClientConfig>, PkiError> {
        tls::unverified_client()
    }

    /// How a client without a certificate of its own speaks to the API server.
    pub fn anonymous_client_config(&self) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        tls::client(&self.ca_pem, None)
    }

    /// How a client with this certificate speaks to the API server.
    pub fn client_config(&self, own: &CertifiedPem) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        tls::client(&self.ca_pem, Some(own))
    }

    /// How a kubelet serves: only to holders of a certificate by our CA.
    pub fn kubelet_server_config(
        &self,
        node: &str,
        addresses: &[IpAddr],
    ) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let own = self.serving_certificate(node, addresses)?;
        tls::server(&own, tls::demanding_verifier(&self.ca_pem)?)
    }

    /// What judges client certificates: signed by our CA, valid now, meant for clients.
    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
        Self::verifier_of(&self.ca_pem)
    }

    /// The same for certificates by these authorities (PEM).
    pub(crate) fn verifier_of(ca_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
        tls::demanding_verifier(ca_pem)
    }

    /// The CA's key, PEM, for whoever signs what CertificateSigningRequests ask for. A secret.
    pub fn ca_key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The key that signs ServiceAccount tokens.
    pub(crate) fn token_key(&self) -> &KeyPair {
        &self.token_key
    }
}

/// How we speak to a server that shows a certificate of this authority (PEM), or of one that the system trusts.
///
/// # Errors
/// When there is no such authority.
pub(crate) fn trusting(ca_pem: Option<&str>) -> Result<Arc<rustls::ClientConfig>, PkiError> {
    match ca_pem {
        Some(pem) => tls::client(pem, None),
        None => tls::client_of_system(),
    }
}

/// How a kubelet serves whose certificate, key and clients' CA (PEM) come from files.
///
/// # Errors
/// When they are no certificates or keys, or do not belong together.
pub fn kubelet_server_config_from(
    certificate: &str,
    key: &str,
    client_ca: &str,
) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    let own = CertifiedPem { certificate: certificate.to_owned(), key: key.to_owned() };
    tls::server(&own, tls::demanding_verifier(client_ca)?)
}

/// The wanted names and addresses with those that are always there, each once and in order.
fn all_sans(sans: &Sans) -> Sans {
    let mut names: Vec<String> =
        OWN_NAMES.iter().map(|&name| name.to_owned()).chain(sans.names.clone()).collect();
    names.sort();
    names.dedup();
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
    let mut addresses: Vec<IpAddr> = loopback
        .into_iter()
        .chain(sans.addresses.iter().copied())
        // Nobody connects to "any address".
        .filter(|address| !address.is_unspecified())
        .collect();
    addresses.sort();
    addresses.dedup();
    Sans { names, addresses }
}

#[cfg(test)]
mod tests;
