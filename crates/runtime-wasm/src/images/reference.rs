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
        let parsed = if text.is_ascii() { text.parse::<Reference>().ok() } else { None };
        match parsed {
            Some(parts) => Ok(Self { full: parts.whole(), parts }),
            None => Err(ImageError::InvalidName { reference: text.to_owned(), cause: fault(text) }),
        }
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

/// In upstream's words.
fn fault(text: &str) -> String {
    let name = text.split(['@', ':']).next().unwrap_or_default();
    if text.is_ascii() && text.to_ascii_lowercase().parse::<Reference>().is_ok() {
        return format!("invalid reference format: repository name ({name}) must be lowercase");
    }
    "invalid reference format".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_in_upstreams_words() {
        let fault = |text| ImageName::parse(text).unwrap_err().to_string();
        assert_eq!(
            fault("Hello:1"),
            r#"couldn't parse image name "Hello:1": invalid reference format: repository name (Hello) must be lowercase"#
        );
        assert_eq!(fault("a b"), r#"couldn't parse image name "a b": invalid reference format"#);
    }

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
