//! Certificates and requests for them, as far as the API and its controllers look into them.
//!
//! PEM is read as Go's `encoding/pem` does: text around blocks is skipped, and a damaged block is none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;

/// One block of a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemBlock {
    /// `CERTIFICATE`.
    pub label: String,
    /// Whether lines like `Proc-Type: …` stand before the data.
    pub has_headers: bool,
    /// The data.
    pub der: Vec<u8>,
}

/// What a PKCS#10 request asks for. Its signature was checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The user's name in client certificates.
    pub common_name: String,
    /// The user's groups in client certificates.
    pub organizations: Vec<String>,
    /// Alternative names of each kind.
    pub dns_names: Vec<String>,
    /// How many addresses are asked for.
    pub addresses: usize,
    /// How many mail addresses are asked for.
    pub emails: usize,
    /// How many URIs are asked for.
    pub uris: usize,
    /// The subject, encoded.
    pub subject_der: Vec<u8>,
    /// The public key with its algorithm, encoded.
    pub public_key_der: Vec<u8>,
    /// The alternative names' extension, encoded.
    pub alternative_names_der: Option<Vec<u8>>,
}

/// Why bytes are no request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The first PEM block is something else, or there is none.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NoRequest,
    /// The block cannot be read.
    #[error("malformed certificate request: {0}")]
    Malformed(String),
    /// Whoever asks does not hold the key.
    #[error("invalid signature on certificate request")]
    Signature,
}

impl Request {
    /// Reads `spec.request` of a CertificateSigningRequest, once its base64 is taken off.
    ///
    /// # Errors
    /// When it is no request, or not signed with the key that it is about.
    pub fn from_pem(text: &[u8]) -> Result<Self, RequestError> {
        let block = pem_blocks(text).into_iter().next().ok_or(RequestError::NoRequest)?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(RequestError::NoRequest);
        }
        Self::from_der(&block.der)
    }

    /// Reads an encoded request.
    ///
    /// # Errors
    /// As [`Request::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| RequestError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed("trailing data".to_owned()));
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let info = &request.certification_request_info;
        let texts = |names: &mut dyn Iterator<Item = Option<String>>| names.flatten().collect();
        let mut read = Self {
            common_name: info
                .subject
                .iter_common_name()
                .last()
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            organizations: texts(
                &mut info
                    .subject
                    .iter_organization()
                    .map(|name| name.as_str().ok().map(str::to_owned)),
            ),
            subject_der: info.subject.as_raw().to_vec(),
            public_key_der: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &asked.extensions {
                if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME {
                    read.take_names(extension.parsed_extension())?;
                    read.alternative_names_der = Some(extension.value.to_vec());
                }
            }
        }
        Ok(read)
    }

    fn take_names(&mut self, extension: &ParsedExtension<'_>) -> Result<(), RequestError> {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            return Err(RequestError::Malformed("subject alternative names".to_owned()));
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(_) => self.addresses += 1,
                GeneralName::RFC822Name(_) => self.emails += 1,
                GeneralName::URI(_) => self.uris += 1,
                // Go's library reads no others, so they would slip through every check of names.
                other => return Err(RequestError::Malformed(format!("unsupported name {other}"))),
            }
        }
        Ok(())
    }
}

/// Every readable block.
pub fn pem_blocks(text: &[u8]) -> Vec<PemBlock> {
    let text = String::from_utf8_lossy(text);
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
        let has_headers = body.iter().any(|line| line.contains(':'));
        let data: String =
            body.iter().filter(|line| !line.contains(':')).map(|line| line.trim()).collect();
        if let Ok(der) = STANDARD.decode(data) {
            blocks.push(PemBlock { label: label.to_owned(), has_headers, der });
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = "hello\n-----BEGIN A-----\nYWJj\n-----END A-----\n-----BEGIN B-----\nKey: 1\n\nYWJj\n-----END B-----\n-----BEGIN C-----\n!!\n-----END C-----";
        let found: Vec<_> = pem_blocks(text.as_bytes())
            .into_iter()
            .map(|block| (block.label, block.has_headers, block.der))
            .collect();
        assert_eq!(
            found,
            [("A".to_owned(), false, b"abc".to_vec()), ("B".to_owned(), true, b"abc".to_vec())]
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(Request::from_pem(b"x"), Err(RequestError::NoRequest));
        let other = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";
        assert_eq!(Request::from_pem(other.as_bytes()), Err(RequestError::NoRequest));
        let broken = other.replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert!(matches!(Request::from_pem(broken.as_bytes()), Err(RequestError::Malformed(_))));
    }
}
