//! Binds pods to nodes: filter, score, bind; `place()` is pure.
//!
//! Start at [`place()`]: which node a pod goes to, or why none takes it. Then `cluster.rs`: what the scheduler knows,
//! and how changes of nodes and pods wake the pods that could now fit. `run.rs` connects both to the API.
//!
//! Always true: what was decided counts at once, before the API knows of it, so that the next pod sees the node as
//! it will be; a pod that fits nowhere is tried again when something changed that could let it fit, never on a timer;
//! deciding does no I/O.
//!
//! `profile.rs` says which rules hold for the pods of one scheduler name, and `config.rs` reads that from upstream's file.
//! `neighbours.rs` counts what the pods that are there mean for one that comes, and `shapes.rs` keeps that current;
//! `owners.rs` knows which pods are one's like; `volumes.rs` what its claims allow; `preempt.rs` decides which pods make
//! room for a more important one.
//!
//! Deliberately absent: extenders, device claims, groups of pods that are placed together.

mod claim;
mod cluster;
mod config;
mod constraints;
mod neighbours;
mod node;
mod nominations;
mod owners;
mod place;
mod pod;
mod preempt;
mod profile;
mod queue;
mod relations;
mod resources;
mod run;
mod score;
mod shapes;
mod terms;
mod volumes;

pub use claim::Claim;
pub use config::{ConfigError, Configuration};
pub use node::Node;
pub use place::{Misfit, Placement, place};
pub use profile::Profile;
pub use relations::Relations;
pub use resources::Resources;
pub use run::{Error, Options, run};
pub use terms::Namespaces;
