//! What admission notes about a request for the audit log.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The notes of one request, by name: `WEBHOOK/KEY`, `mutation.webhook.admission.k8s.io/round_0_index_0`. As upstream, the first note
/// under a name stays, so a write that is tried again repeats nothing.
#[derive(Debug, Default)]
pub struct Annotations(Mutex<BTreeMap<String, String>>);

/// Notes of one request at most; each comes from a configured webhook or policy.
const NOTES: usize = 256;
/// The longest note: webhooks write them.
const NOTE_CHARS: usize = 10 * 1024;

impl Annotations {
    /// Adds a note, if nothing is known under this name yet.
    pub fn add(&self, name: impl Into<String>, text: &str) {
        let mut notes = self.0.lock();
        if notes.len() < NOTES {
            notes.entry(name.into()).or_insert_with(|| text.chars().take(NOTE_CHARS).collect());
        }
    }

    /// All notes.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().clone()
    }
}
