//! Whom to believe that it is the extension server, and who we are to it.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;

use crate::pki::CertifiedPem;

/// How an extension server is verified, and what we show to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    roots: Trusted,
    /// Whether we show the certificate that lets us speak for others.
    as_proxy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Trusted {
    /// What the host and the cluster trust.
    Usual,
    /// These certificates, as base64 of PEM.
    Bundle(Arc<str>),
    /// Anybody: `insecureSkipTLSVerify`.
    Anybody,
}

impl Trust {
    /// A `caBundle`; without one, the usual.
    pub(crate) fn of_bundle(bundle: &Value) -> Self {
        let roots = match bundle.as_str() {
            Some(bundle) if !bundle.is_empty() => Trusted::Bundle(bundle.into()),
            _ => Trusted::Usual,
        };
        Self { roots, as_proxy: false }
    }

    /// What an `APIService` says; to its server we speak for others.
    pub(crate) fn of_api_service(spec: &Value) -> Self {
        let trust = if spec["insecureSkipTLSVerify"] == true {
            Self { roots: Trusted::Anybody, as_proxy: true }
        } else {
            Self::of_bundle(&spec["caBundle"])
        };
        Self { as_proxy: true, ..trust }
    }
}

/// The roots that are trusted where nothing else is said, and our own certificate.
pub(super) struct Roots {
    cluster: Option<CertificateDer<'static>>,
    own: CertifiedPem,
}

impl Roots {
    pub(super) fn new(cluster_pem: &str, own: CertifiedPem) -> Self {
        Self { cluster: CertificateDer::from_pem_slice(cluster_pem.as_bytes()).ok(), own }
    }

    /// How to speak TLS under this trust; or what is wrong with it.
    pub(super) fn client_config(&self, trust: &Trust) -> Result<Arc<ClientConfig>, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &trust.roots {
            Trusted::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAnybody(provider()))),
            Trusted::Bundle(bundle) => builder.with_root_certificates(bundled(bundle)?),
            Trusted::Usual => builder.with_root_certificates(self.usual()),
        };
        let mut config = if trust.as_proxy {
            let chain = CertificateDer::pem_slice_iter(self.own.certificate.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| error.to_string())?;
            let key = PrivateKeyDer::from_pem_slice(self.own.key.as_bytes())
                .map_err(|error| error.to_string())?;
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

/// Believes everybody; only where an administrator asked for it.
#[derive(Debug)]
struct AcceptAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
