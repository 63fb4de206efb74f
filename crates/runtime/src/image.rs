//! Images as an engine's store has them.

use serde::{Deserialize, Serialize};

/// One image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The references that name it, `hello:1.0`.
    pub references: Vec<String>,
    /// The digest of its content, `sha256:…`.
    pub digest: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What a registry wants to see of us.
#[derive(Clone, Serialize, Deserialize)]
pub struct PullCredentials {
    /// The user.
    pub username: String,
    /// The password or token.
    pub password: String,
}

// Never print a password, not even by accident.
impl std::fmt::Debug for PullCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference is malformed: `InvalidImageName`.
    #[error("couldn't parse image name {reference:?}: {cause}")]
    InvalidName {
        /// What the pod said.
        reference: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The registry refused, is unknown, or did not answer: `ErrImagePull`.
    #[error("failed to pull image {reference:?}: {cause}")]
    Pull {
        /// What the pod said.
        reference: String,
        /// What the registry or the network said.
        cause: String,
    },
    /// The store on disk failed us.
    #[error("cannot {attempt} the image store")]
    Store {
        /// What was attempted.
        attempt: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
