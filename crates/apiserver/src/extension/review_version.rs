//! The versions of reviews: webhooks name those that they understand, and we speak two.

/// `v1` or `v1beta1` of an AdmissionReview or a ConversionReview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReviewVersion {
    V1,
    V1beta1,
}

impl ReviewVersion {
    /// The first of the webhook's versions that we speak.
    pub(crate) fn choose(wanted: &[String]) -> Option<Self> {
        wanted.iter().find_map(|version| match version.as_str() {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1beta1),
            _ => None,
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1beta1 => "v1beta1",
        }
    }
}
