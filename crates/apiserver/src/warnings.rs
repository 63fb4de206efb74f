//! What a client should know although its request succeeds.

use parking_lot::Mutex;

/// Warnings of one request, each once: a write that is tried again repeats what it says.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Adds a warning.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock();
        if !all.contains(&text) {
            all.push(text);
        }
    }

    /// Adds several warnings.
    pub fn extend(&self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.add(text);
        }
    }

    /// All of them, in the order in which they were added.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}
