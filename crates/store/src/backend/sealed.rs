//! A backend whose log holds some objects encrypted: nobody above it, and nobody below it, sees the difference.

use std::sync::Arc;

use bytes::Bytes;

use super::{AppendError, Backend, BackendError, Entry, Loaded};
use crate::object::{Key, Revision};

/// Encrypts what goes to disk.
pub trait Cipher: Send + Sync {
    /// What is written for this object; `None` when it is written as it is.
    ///
    /// # Errors
    /// When it must be encrypted and cannot be.
    fn seal(&self, key: &Key, bytes: &[u8]) -> Result<Option<Vec<u8>>, CipherError>;

    /// The object again; `None` when it was written as it is.
    ///
    /// # Errors
    /// When no key fits, or the bytes are another object's.
    fn open(&self, key: &Key, bytes: &[u8]) -> Result<Option<Vec<u8>>, CipherError>;
}

/// Why an object was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {cause}")]
pub struct CipherError {
    /// Which object.
    pub object: String,
    /// Why not.
    pub cause: String,
}

/// The log below, encrypted.
pub(crate) struct Sealed<B> {
    pub(crate) backend: B,
    pub(crate) cipher: Arc<dyn Cipher>,
}

impl<B: Backend> Sealed<B> {
    fn seal(&self, batch: &[Entry]) -> Result<Vec<Entry>, CipherError> {
        let mut sealed = batch.to_vec();
        for entry in &mut sealed {
            if let Some(bytes) = self.cipher.seal(&entry.key, &entry.bytes)? {
                entry.bytes = Bytes::from(bytes);
            }
        }
        Ok(sealed)
    }
}

impl<B: Backend + Sync> Backend for Sealed<B> {
    async fn load(&mut self) -> Result<Loaded, BackendError> {
        self.backend.load().await
    }

    async fn read(&mut self, after: Revision, limit: usize) -> Result<Vec<Entry>, BackendError> {
        let mut entries = self.backend.read(after, limit).await?;
        for entry in &mut entries {
            let opened = self.cipher.open(&entry.key, &entry.bytes);
            if let Some(bytes) =
                opened.map_err(|error| BackendError::new("decrypt an object", error))?
            {
                entry.bytes = Bytes::from(bytes);
            }
        }
        Ok(entries)
    }

    async fn append(&mut self, batch: &[Entry]) -> Result<(), AppendError> {
        let sealed = self
            .seal(batch)
            .map_err(|error| AppendError::Refused(BackendError::new("encrypt an object", error)))?;
        self.backend.append(&sealed).await
    }

    async fn compact(
        &mut self,
        before: Revision,
        superseded: &[Revision],
    ) -> Result<(), BackendError> {
        self.backend.compact(before, superseded).await
    }

    async fn scrub(&mut self) -> Result<(), BackendError> {
        self.backend.scrub().await
    }

    async fn close(self) -> Result<(), BackendError> {
        self.backend.close().await
    }
}
