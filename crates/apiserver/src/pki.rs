//! SIGNATURES DRAFT
//! The cluster's own certificate authority.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::identity::User;

/// What the API server's certificate is valid for, beside the names it always has (localhost, kubernetes.default.svc …).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sans {
    /// DNS names.
    pub names: Vec<String>,
    /// Addresses; include the service IP of `kubernetes`.
    pub addresses: Vec<IpAddr>,
}

/// A certificate chain and its key, PEM.
#[derive(Clone)]
pub struct CertifiedPem { /** chain */ pub certificate: String, /** PKCS#8 */ pub key: String }

/// Why.
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct PkiError;

/// CA, serving certificate, ServiceAccount key.
pub struct Pki;

impl Pki {
    /// Opens DIR, or makes what is missing or expiring.
    pub fn open_or_create(_dir: &Path, _sans: &Sans) -> Result<Self, PkiError> { Err(PkiError) }
    /// The CA certificate, PEM (`kube-root-ca.crt`).
    pub fn ca_pem(&self) -> &str { "" }
    /// One year.
    pub fn client_certificate(&self, _user: &str, _groups: &[&str]) -> Result<CertifiedPem, PkiError> { Err(PkiError) }
    /// For a kubelet.
    pub fn serving_certificate(&self, _name: &str, _addresses: &[IpAddr]) -> Result<CertifiedPem, PkiError> { Err(PkiError) }
    /// Kubeconfig with embedded data.
    pub fn kubeconfig(&self, _server_url: &str, _user: &User) -> Result<String, PkiError> { Err(PkiError) }
    /// For the API server: asks for client certificates, judges them in `authn` (a bad one is 401 as upstream, not a TLS alert). ALPN h2, http/1.1.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, PkiError> { Err(PkiError) }
    /// For connections from the API server to kubelets.
    pub fn kubelet_client_config(&self) -> Result<Arc<rustls::ClientConfig>, PkiError> { Err(PkiError) }
    /// For a kubelet's server: only clients with a certificate by our CA.
    pub fn kubelet_server_config(&self, _node: &str, _addresses: &[IpAddr]) -> Result<Arc<rustls::ServerConfig>, PkiError> { Err(PkiError) }
}
