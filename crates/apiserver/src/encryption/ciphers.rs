//! The ciphers of upstream's file: `aesgcm`, `aescbc` and `secretbox`, byte for byte as
//! `apiserver/pkg/storage/value/encrypt` writes them.
//!
//! What `aescbc` wrote cannot be told from what somebody changed on disk; it is here for those who come from a cluster that has it.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

const CBC_IV_BYTES: usize = 16;
const BOX_NONCE_BYTES: usize = 24;
const BOX_KEY_BYTES: usize = 32;

/// One key, and how it is used. It is never shown.
pub(super) enum Secret {
    AesGcm(Box<LessSafeKey>),
    AesCbc(CbcKey),
    Box(Box<XSalsa20Poly1305>),
}

/// A key of `aescbc` by its length.
pub(super) enum CbcKey {
    Aes128([u8; 16]),
    Aes192([u8; 24]),
    Aes256([u8; 32]),
}

/// A cipher of the file.
pub(super) struct Cipher {
    /// As the file calls it.
    pub(super) name: &'static str,
    /// How long its keys are, in words.
    pub(super) key_bytes: &'static str,
    make: fn(&[u8]) -> Option<Secret>,
}

/// Those that we have.
pub(super) const CIPHERS: [Cipher; 3] = [
    Cipher { name: "aesgcm", key_bytes: "16 or 32 bytes", make: aes_gcm },
    Cipher { name: "aescbc", key_bytes: "16, 24 or 32 bytes", make: aes_cbc },
    Cipher { name: "secretbox", key_bytes: "32 bytes", make: secret_box },
];

impl Cipher {
    /// What all begins with that the key of this name writes.
    pub(super) fn prefix(&self, key_name: &str) -> String {
        format!("k8s:enc:{}:v1:{key_name}:", self.name)
    }

    /// The key, unless it is too long or too short.
    pub(super) fn secret(&self, bytes: &[u8]) -> Option<Secret> {
        (self.make)(bytes)
    }
}

fn aes_gcm(bytes: &[u8]) -> Option<Secret> {
    let algorithm = match bytes.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        _ => return None,
    };
    let key = UnboundKey::new(algorithm, bytes).ok()?;
    Some(Secret::AesGcm(Box::new(LessSafeKey::new(key))))
}

fn aes_cbc(bytes: &[u8]) -> Option<Secret> {
    let key = match bytes.len() {
        16 => CbcKey::Aes128(bytes.try_into().ok()?),
        24 => CbcKey::Aes192(bytes.try_into().ok()?),
        32 => CbcKey::Aes256(bytes.try_into().ok()?),
        _ => return None,
    };
    Some(Secret::AesCbc(key))
}

fn secret_box(bytes: &[u8]) -> Option<Secret> {
    let key: [u8; BOX_KEY_BYTES] = bytes.try_into().ok()?;
    Some(Secret::Box(Box::new(XSalsa20Poly1305::new(&key.into()))))
}

impl Secret {
    /// Nonce and ciphertext; `None` when the system has no randomness.
    pub(super) fn seal(&self, random: &SystemRandom, place: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::AesGcm(key) => {
                let nonce: [u8; NONCE_LEN] = fresh(random)?;
                let mut sealed = bytes.to_vec();
                let unique = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(unique, Aad::from(place), &mut sealed).ok()?;
                Some([&nonce[..], &sealed].concat())
            }
            Self::AesCbc(key) => {
                let iv: [u8; CBC_IV_BYTES] = fresh(random)?;
                let sealed = match key {
                    CbcKey::Aes128(key) => cbc::Encryptor::<Aes128>::new(key.into(), &iv.into())
                        .encrypt_padded_vec_mut::<Pkcs7>(bytes),
                    CbcKey::Aes192(key) => cbc::Encryptor::<Aes192>::new(key.into(), &iv.into())
                        .encrypt_padded_vec_mut::<Pkcs7>(bytes),
                    CbcKey::Aes256(key) => cbc::Encryptor::<Aes256>::new(key.into(), &iv.into())
                        .encrypt_padded_vec_mut::<Pkcs7>(bytes),
                };
                Some([&iv[..], &sealed].concat())
            }
            Self::Box(key) => {
                let nonce: [u8; BOX_NONCE_BYTES] = fresh(random)?;
                let sealed = key.encrypt(&nonce.into(), bytes).ok()?;
                Some([&nonce[..], &sealed].concat())
            }
        }
    }

    /// What was sealed; `None` if it was not with this key, or was changed.
    pub(super) fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::AesGcm(key) => {
                let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut opened = sealed.to_vec();
                let length = key.open_in_place(nonce, Aad::from(place), &mut opened).ok()?.len();
                opened.truncate(length);
                Some(opened)
            }
            Self::AesCbc(key) => {
                let (iv, sealed) = sealed.split_at_checked(CBC_IV_BYTES)?;
                let iv: [u8; CBC_IV_BYTES] = iv.try_into().ok()?;
                match key {
                    CbcKey::Aes128(key) => cbc::Decryptor::<Aes128>::new(key.into(), &iv.into())
                        .decrypt_padded_vec_mut::<Pkcs7>(sealed),
                    CbcKey::Aes192(key) => cbc::Decryptor::<Aes192>::new(key.into(), &iv.into())
                        .decrypt_padded_vec_mut::<Pkcs7>(sealed),
                    CbcKey::Aes256(key) => cbc::Decryptor::<Aes256>::new(key.into(), &iv.into())
                        .decrypt_padded_vec_mut::<Pkcs7>(sealed),
                }
                .ok()
            }
            Self::Box(key) => {
                let (nonce, sealed) = sealed.split_at_checked(BOX_NONCE_BYTES)?;
                let nonce: [u8; BOX_NONCE_BYTES] = nonce.try_into().ok()?;
                key.decrypt(&nonce.into(), sealed).ok()
            }
        }
    }
}

fn fresh<const BYTES: usize>(random: &SystemRandom) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    random.fill(&mut bytes).ok()?;
    Some(bytes)
}
