//! Makes the certificate that a request asks for.
//!
//! The subject, the key and the alternative names are taken over as they are encoded in the request: what was checked
//! is what is signed. Everything else is ours. Upstream: `pkg/controller/certificates/authority`.

use coracle_api::certificates::{Request, pem_blocks};
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SigningKey as _};
use time::OffsetDateTime;
use x509_parser::extensions::ParsedExtension;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag};

/// Certificates live a year at most: upstream's `--cluster-signing-duration`.
const MAX_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// What a shorter wish is raised to.
const MIN_LIFE: SignedDuration = SignedDuration::from_mins(10);
/// Clocks differ: a certificate is valid from a little before it was made.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Below this the end is not brought forward with the begin.
const SHORT_LIFE: SignedDuration = SignedDuration::from_hours(8);

const OID_BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const OID_KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const OID_EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const OID_ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
const OID_AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const OID_SHA256_RSA: &[u64] = &[1, 2, 840, 113_549, 1, 1, 11];
const OID_ECDSA_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const OID_ECDSA_SHA384: &[u64] = &[1, 2, 840, 10045, 4, 3, 3];
const OID_ED25519: &[u64] = &[1, 3, 101, 112];

/// The names of usages, and their bit or purpose in a certificate.
const KEY_USAGES: [(&str, usize); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
const PURPOSES: [(&str, &[u64]); 2] =
    [("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]), ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2])];

/// The authority that signs. Its key is a secret: it is never shown.
pub struct SigningCa {
    key: KeyPair,
    algorithm: &'static [u64],
    subject: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// Why the authority cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SigningCaError {
    /// Its certificate cannot be read.
    #[error("cannot read the signing certificate: {0}")]
    Certificate(String),
    /// Its key cannot be read or used.
    #[error("cannot use the signing key: {0}")]
    Key(#[from] rcgen::Error),
    /// It signs in a way that we do not know.
    #[error("cannot sign with a key of this kind")]
    Algorithm,
    /// Its time is over.
    #[error("the signer has expired: NotAfter={0}")]
    Expired(Timestamp),
}

impl std::fmt::Debug for SigningCa {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SigningCa").finish_non_exhaustive()
    }
}

impl SigningCa {
    /// From its certificate and key, both PEM.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(certificate: &str, key: &str) -> Result<Self, SigningCaError> {
        let unreadable = |why: String| SigningCaError::Certificate(why);
        let block = pem_blocks(certificate.as_bytes())
            .into_iter()
            .next()
            .ok_or_else(|| unreadable("it is no PEM".to_owned()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&block.der)
            .map_err(|error| unreadable(error.to_string()))?;
        let second = |seconds| {
            Timestamp::from_second(seconds).map_err(|error| unreadable(error.to_string()))
        };
        let key_identifier =
            parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
                _ => None,
            });
        let key = KeyPair::from_pem(key)?;
        let algorithm = rcgen::PublicKeyData::algorithm(&key);
        let algorithm = if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
            OID_ECDSA_SHA256
        } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
            OID_ECDSA_SHA384
        } else if algorithm == &rcgen::PKCS_ED25519 {
            OID_ED25519
        } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
            OID_SHA256_RSA
        } else {
            return Err(SigningCaError::Algorithm);
        };
        Ok(Self {
            key,
            algorithm,
            subject: parsed.subject().as_raw().to_vec(),
            key_identifier,
            not_before: second(parsed.validity().not_before.timestamp())?,
            not_after: second(parsed.validity().not_after.timestamp())?,
        })
    }

    /// Signs, for as long as is wished and allowed. The answer is PEM.
    pub(super) fn sign(
        &self,
        asked: &Request,
        usages: &[String],
        wished_seconds: Option<i32>,
        now: Timestamp,
    ) -> Result<String, SigningCaError> {
        if now >= self.not_after {
            return Err(SigningCaError::Expired(self.not_after));
        }
        let (from, to) = life(wished_seconds, now);
        let (from, to) = (from.max(self.not_before), to.min(self.not_after));
        let body = yasna::construct_der(|writer| self.write_body(writer, asked, usages, from, to));
        let signature = self.key.sign(&body)?;
        let certificate = yasna::construct_der(|writer| {
            writer.write_sequence(|parts| {
                parts.next().write_der(&body);
                self.write_algorithm(parts.next());
                parts.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem("CERTIFICATE", &certificate))
    }

    fn write_body(
        &self,
        writer: DERWriter<'_>,
        asked: &Request,
        usages: &[String],
        from: Timestamp,
        to: Timestamp,
    ) {
        writer.write_sequence(|parts| {
            parts.next().write_tagged(Tag::context(0), |version| version.write_u8(2));
            // Random, so that it cannot be guessed; below 2^127, so that it is positive.
            parts.next().write_bigint_bytes(&(rand::random::<u128>() >> 1).to_be_bytes(), true);
            self.write_algorithm(parts.next());
            parts.next().write_der(&self.subject);
            parts.next().write_sequence(|validity| {
                write_time(validity.next(), from);
                write_time(validity.next(), to);
            });
            parts.next().write_der(&asked.subject_der);
            parts.next().write_der(&asked.public_key_der);
            parts.next().write_tagged(Tag::context(3), |extensions| {
                extensions.write_sequence(|list| self.write_extensions(list, asked, usages));
            });
        });
    }

    fn write_extensions(&self, list: &mut DERWriterSeq<'_>, asked: &Request, usages: &[String]) {
        let has = |name: &str| usages.iter().any(|usage| usage == name);
        let bits: Vec<usize> =
            KEY_USAGES.iter().filter(|(name, _)| has(name)).map(|(_, bit)| *bit).collect();
        if let Some(last) = bits.iter().max() {
            let mut bytes = [0u8; 2];
            bits.iter().for_each(|bit| bytes[bit / 8] |= 0x80 >> (bit % 8));
            let value = yasna::construct_der(|writer| {
                writer.write_bitvec_bytes(&bytes[..=last / 8], last + 1);
            });
            extension(list.next(), OID_KEY_USAGE, true, &value);
        }
        let purposes = PURPOSES.iter().filter(|(name, _)| has(name));
        let purposes: Vec<ObjectIdentifier> =
            purposes.map(|(_, purpose)| ObjectIdentifier::from_slice(purpose)).collect();
        if !purposes.is_empty() {
            let value = yasna::construct_der(|writer| {
                writer.write_sequence(|list| {
                    purposes.iter().for_each(|purpose| list.next().write_oid(purpose));
                });
            });
            extension(list.next(), OID_EXTENDED_KEY_USAGE, false, &value);
        }
        let nobody = yasna::construct_der(|writer| writer.write_sequence(|_| ()));
        extension(list.next(), OID_BASIC_CONSTRAINTS, true, &nobody);
        if let Some(identifier) = &self.key_identifier {
            let value = yasna::construct_der(|writer| {
                writer.write_sequence(|parts| {
                    parts.next().write_tagged_implicit(Tag::context(0), |writer| {
                        writer.write_bytes(identifier);
                    });
                });
            });
            extension(list.next(), OID_AUTHORITY_KEY, false, &value);
        }
        if let Some(names) = &asked.alternative_names_der {
            // Critical where there is no subject to tell whose it is.
            let is_critical = asked.common_name.is_empty() && asked.organizations.is_empty();
            extension(list.next(), OID_ALTERNATIVE_NAMES, is_critical, names);
        }
    }

    fn write_algorithm(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|parts| {
            parts.next().write_oid(&ObjectIdentifier::from_slice(self.algorithm));
            if self.algorithm == OID_SHA256_RSA {
                parts.next().write_null();
            }
        });
    }
}

/// From when to when, for this wish.
fn life(wished_seconds: Option<i32>, now: Timestamp) -> (Timestamp, Timestamp) {
    let wished = wished_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
    let life = wished.map_or(MAX_LIFE, |wished| wished.clamp(MIN_LIFE, MAX_LIFE));
    let at = |offset: SignedDuration| now.checked_add(offset).unwrap_or(Timestamp::MAX);
    let end = if life < SHORT_LIFE { at(life) } else { at(life - BACKDATE) };
    (at(-BACKDATE), end)
}

fn extension(writer: DERWriter<'_>, oid: &[u64], is_critical: bool, value: &[u8]) {
    writer.write_sequence(|parts| {
        parts.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if is_critical {
            parts.next().write_bool(true);
        }
        parts.next().write_bytes(value);
    });
}

/// As RFC 5280 wants it: two digits for the year until 2049.
fn write_time(writer: DERWriter<'_>, at: Timestamp) {
    let at =
        OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    if (1950..2050).contains(&at.year()) {
        writer.write_utctime(&UTCTime::from_datetime(at));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(at));
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
