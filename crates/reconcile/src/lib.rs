//! What every component that watches the API shares.
//!
//! Start at [`Mirror`] (a component's own copy of one kind, kept current by a
//! watch), then [`Queue`] (keys to look at, with retries and back-off), then
//! [`Recorder`] (Events), [`Election`] (of several copies one acts) and [`Tasks`] (who awaits the background work).
//!
//! Always true: a reconcile gets a key, never an event, so what changed and how
//! often it runs does not matter. Retries and back-off live here and nowhere else.
//! Deliberately absent: anything that knows a kind.

mod key;
mod leader;
mod mirror;
mod queue;
mod recorder;
mod tasks;

pub use key::ObjectKey;
pub use leader::Election;
pub use mirror::{Change, Mirror, NotSynced, Selection};
pub use queue::{Next, Queue};
pub use recorder::{Recorder, reference};
pub use tasks::Tasks;
