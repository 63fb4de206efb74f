//! Whom to believe that it is the extension server.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::pki::{self, CertifiedPem};

/// How an extension server is verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// What the host and the cluster trust.
    Usual,
    /// These certificates, as base64 of PEM.
    Bundle(Arc<str>),
    /// Whoever answers: `insecureSkipTLSVerify` of an APIService.
    Anybody,
}

impl Trust {
    /// A `caBundle`; without one, the usual.
    pub(crate) fn of_bundle(bundle: &Value) -> Self {
        match bundle.as_str() {
            Some(bundle) if !bundle.is_empty() => Trust::Bundle(bundle.into()),
            _ => Trust::Usual,
        }
    }
}

/// The roots that are trusted where nothing else is said.
pub(super) struct Roots {
    cluster: Option<CertificateDer<'static>>,
    front_proxy: CertifiedPem,
}

impl Roots {
    pub(super) fn new(cluster_pem: &str, front_proxy: &CertifiedPem) -> Self {
        let cluster = CertificateDer::from_pem_slice(cluster_pem.as_bytes()).ok();
        Self { cluster, front_proxy: front_proxy.clone() }
    }

    /// How to speak TLS under this trust; or what is wrong with it.
    pub(super) fn client_config(
        &self,
        trust: &Trust,
        as_proxy: bool,
    ) -> Result<Arc<ClientConfig>, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match trust {
            Trust::Bundle(bundle) => builder.with_root_certificates(bundled(bundle)?),
            Trust::Usual => builder.with_root_certificates(self.usual()),
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(pki::anybody()),
        };
        let mut config = if as_proxy {
            let (chain, key) = self.front_proxy.parts().map_err(|error| error.to_string())?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        } else {
            builder.with_no_client_auth()
        };
        // One request at a time for each connection, so that every one of them can be upgraded.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn usual(&self) -> RootCertStore {
        static HOST: LazyLock<Vec<CertificateDer<'static>>> =
            LazyLock::new(|| rustls_native_certs::load_native_certs().certs);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(HOST.iter().cloned().chain(self.cluster.clone()));
        roots
    }
}

/// Whether a `caBundle` holds certificates; or what is wrong with it.
pub(crate) fn check_bundle(bundle: &str) -> Result<(), String> {
    bundled(bundle).map(drop)
}

fn bundled(bundle: &str) -> Result<RootCertStore, String> {
    let wrong = "unable to load root certificates: unable to parse bytes as PEM block";
    let pem = BASE64_STANDARD.decode(bundle).map_err(|_| wrong.to_owned())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.map_err(|_| wrong.to_owned())?)
            .map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    if roots.is_empty() { Err(wrong.to_owned()) } else { Ok(roots) }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
