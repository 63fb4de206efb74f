//! Makes and checks certificates.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{GeneralName, X509Certificate};

use super::{CA_DAYS, CertifiedPem, LEAF_DAYS, PkiError, RENEW_DAYS, Sans, files};

/// The organization attribute once more: the library keeps one value a type, and this is another type to it.
const SECOND_ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// A certificate to be made.
pub(super) struct Leaf<'a> {
    common_name: &'a str,
    organizations: &'a [&'a str],
    usage: ExtendedKeyUsagePurpose,
    sans: Sans,
    not_after: OffsetDateTime,
}

impl<'a> Leaf<'a> {
    pub(super) fn client(user: &'a str, groups: &'a [&'a str]) -> Self {
        Self {
            common_name: user,
            organizations: groups,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            sans: Sans::default(),
            not_after: OffsetDateTime::now_utc() + Duration::days(LEAF_DAYS),
        }
    }

    pub(super) fn server(name: &'a str, organizations: &'a [&'a str], sans: Sans) -> Self {
        Self {
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            sans,
            ..Self::client(name, organizations)
        }
    }

    #[cfg(test)]
    pub(super) fn until(self, not_after: OffsetDateTime) -> Self {
        Self { not_after, ..self }
    }
}

/// Makes a certificate and a fresh key.
pub(super) fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    leaf: &Leaf<'_>,
) -> Result<CertifiedPem, PkiError> {
    let failed = |source| PkiError::Issue { subject: leaf.common_name.to_owned(), source };
    if leaf.organizations.len() > 2 {
        return Err(PkiError::TooManyGroups {
            user: leaf.common_name.to_owned(),
            groups: leaf.organizations.len(),
        });
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let types = [DnType::OrganizationName, DnType::CustomDnType(SECOND_ORGANIZATION.to_vec())];
    for (kind, &organization) in types.into_iter().zip(leaf.organizations) {
        params.distinguished_name.push(kind, organization);
    }
    params.distinguished_name.push(DnType::CommonName, leaf.common_name);
    params.not_before = backdated();
    params.not_after = leaf.not_after;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![leaf.usage.clone()];
    params.use_authority_key_identifier_extension = true;
    for name in &leaf.sans.names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
    }
    params.subject_alt_names.extend(leaf.sans.addresses.iter().copied().map(SanType::IpAddress));
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, issuer).map_err(failed)?;
    Ok(CertifiedPem { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The authority whose files are called so in this directory; a new one when the directory has none.
pub(super) fn open_authority(
    dir: &Path,
    name: &str,
) -> Result<(Issuer<'static, KeyPair>, String), PkiError> {
    let key_path = dir.join(format!("{name}.key"));
    let certificate_path = dir.join(format!("{name}.crt"));
    let damaged = |cause: String| PkiError::Damaged { path: certificate_path.clone(), cause };
    let pem = files::read(&certificate_path)?;
    if pem.is_some() && !key_path.exists() {
        return Err(PkiError::Damaged {
            path: key_path,
            cause: format!("it is missing, but {name}.crt is there"),
        });
    }
    let key = files::key(&key_path)?;
    let Some(pem) = pem else {
        let params = authority(&format!("coracle-{name}"));
        let failed = |source| PkiError::Issue { subject: "the authority".to_owned(), source };
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        files::write(&certificate_path, &pem)?;
        return Ok((Issuer::new(params, key), pem));
    };
    if !belongs_to(&pem, &key) {
        return Err(damaged(format!("it does not belong to {name}.key")));
    }
    let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| damaged(error.to_string()))?;
    Ok((issuer, pem))
}

/// The stored serving certificate, if it is still good for these names.
pub(super) fn reusable_serving(
    dir: &Path,
    ca_pem: &str,
    sans: &Sans,
) -> Result<Option<CertifiedPem>, PkiError> {
    let certificate = files::read(&dir.join("apiserver.crt"))?;
    let key = files::read(&dir.join("apiserver.key"))?;
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Ok(None);
    };
    let matches = KeyPair::from_pem(&key).is_ok_and(|key| belongs_to(&certificate, &key));
    let good = matches && is_current(&certificate, ca_pem, sans, OffsetDateTime::now_utc());
    Ok(good.then_some(CertifiedPem { certificate, key }))
}

/// Whether the certificate is signed by this CA, has enough time left and exactly these names.
fn is_current(certificate: &str, ca_pem: &str, sans: &Sans, now: OffsetDateTime) -> bool {
    let (Ok(der), Ok(ca_der)) = (
        CertificateDer::from_pem_slice(certificate.as_bytes()),
        CertificateDer::from_pem_slice(ca_pem.as_bytes()),
    ) else {
        return false;
    };
    let (Ok((_, parsed)), Ok((_, ca))) =
        (x509_parser::parse_x509_certificate(&der), x509_parser::parse_x509_certificate(&ca_der))
    else {
        return false;
    };
    let left = parsed.validity().not_after.timestamp() - now.unix_timestamp();
    left > Duration::days(RENEW_DAYS).whole_seconds()
        && parsed.verify_signature(Some(ca.public_key())).is_ok()
        && sans_of(&parsed).as_ref() == Some(sans)
}

fn sans_of(certificate: &X509Certificate<'_>) -> Option<Sans> {
    let mut sans = Sans::default();
    for name in &certificate.subject_alternative_name().ok()??.value.general_names {
        match name {
            GeneralName::DNSName(name) => sans.names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => sans.addresses.push(match bytes.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
                _ => return None,
            }),
            _ => return None,
        }
    }
    sans.names.sort();
    sans.addresses.sort();
    Some(sans)
}

/// Whether the certificate's public key is this key's.
fn belongs_to(certificate_pem: &str, key: &KeyPair) -> bool {
    CertificateDer::from_pem_slice(certificate_pem.as_bytes()).is_ok_and(|der| {
        x509_parser::parse_x509_certificate(&der)
            .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
    })
}

fn authority(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.not_before = backdated();
    params.not_after = OffsetDateTime::now_utc() + Duration::days(CA_DAYS);
    params
}

/// Clocks differ between machines: a certificate is valid from a little before it was made.
fn backdated() -> OffsetDateTime {
    OffsetDateTime::now_utc() - Duration::minutes(5)
}
