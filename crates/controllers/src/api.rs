//! What the API's answers mean to a controller, and how it writes times.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Why a reconcile did not finish. It runs again after a while.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished {
    /// The API refused.
    #[error("cannot {attempt}: {cause}")]
    Refused {
        /// What was attempted, on which object.
        attempt: String,
        /// What the API said.
        cause: String,
    },
    /// The API did not answer.
    #[error("not finished within {0:?}")]
    TimedOut(Duration),
    /// A part of the work is left for the next try.
    #[error("{0}")]
    Remaining(String),
}

impl Unfinished {
    /// The deadline passed.
    pub fn timed_out(after: Duration) -> Self {
        Self::TimedOut(after)
    }
}

/// Says what was attempted when the API refuses.
pub(crate) trait Attempting<T> {
    /// `attempt` completes "cannot …".
    fn attempting(self, attempt: impl FnOnce() -> String) -> Result<T, Unfinished>;
}

impl<T> Attempting<T> for kube::Result<T> {
    fn attempting(self, attempt: impl FnOnce() -> String) -> Result<T, Unfinished> {
        self.map_err(|error| Unfinished::Refused { attempt: attempt(), cause: message(&error) })
    }
}

/// What Events and conditions say about an error: the Status' message, as client-go prints it.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The object is not there.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    code(error) == Some(404)
}

/// The object is not, or is no longer, as the write presumed. An object that exists already is not meant.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// An object of that name is there already.
pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// The namespace is going away; nothing new can be made in it, and nobody needs to hear of it.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// HTTP's number for the answer.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// A time as the API keeps it, in whole seconds: finer ones would differ from what is read back.
pub(crate) fn api_time(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
