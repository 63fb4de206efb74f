//! The harness of the stories: a whole cluster, driven by the real `kubectl` as a user would.
//!
//! Start at [`Cluster`]. It is the binary that users run, in a process of its own,
//! on a data directory of its own, on free ports and its own loopback networks.

mod cluster;
pub mod guests;
mod http;
mod tools;

pub use cluster::{Cluster, Output};
pub use http::{Answer, get};
pub use tools::{binary, examples, helm, kubectls, python, test_guest};
