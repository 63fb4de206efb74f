//! Image names as upstream reads them: `hello` means `docker.io/library/hello:latest`.

use coracle_runtime::ImageError;
use oci_client::Reference;

/// A name in its full form, which is what the store knows images by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    full: String,
    parts: Reference,
}

impl ImageName {
    /// Reads a name as a pod has it.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let parts: Reference = text.parse().map_err(|cause: oci_client::ParseError| {
            ImageError::InvalidName { reference: text.to_owned(), cause: cause.to_string() }
        })?;
        Ok(Self { full: parts.whole(), parts })
    }

    /// The full form.
    pub fn as_str(&self) -> &str {
        &self.full
    }

    pub(crate) fn parts(&self) -> &Reference {
        &self.parts
    }

    /// The name of the same image by its manifest's digest.
    pub(crate) fn with_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.parts.registry(), self.parts.repository())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_their_full_form() {
        for (text, full) in [
            ("hello", "docker.io/library/hello:latest"),
            ("hello.wasm", "docker.io/library/hello.wasm:latest"),
            ("me/hello:1", "docker.io/me/hello:1"),
            ("ghcr.io/me/hello:1", "ghcr.io/me/hello:1"),
            ("localhost:5000/hello", "localhost:5000/hello:latest"),
        ] {
            assert_eq!(ImageName::parse(text).unwrap().as_str(), full);
        }
    }
}
