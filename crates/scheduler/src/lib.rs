//! Binds pods to nodes: filter, score, bind; `place()` is pure.
//!
//! Start at [`place()`]: which node a pod goes to, or why none takes it. Then `cluster.rs`: what the scheduler knows,
//! and how changes of nodes and pods wake the pods that could now fit. `run.rs` connects both to the API.
//!
//! Always true: what was decided counts at once, before the API knows of it, so that the next pod sees the node as
//! it will be; a pod that fits nowhere is tried again when something changed that could let it fit, never on a timer;
//! deciding does no I/O.
//!
//! `relations.rs` counts what the pods that are there mean for one that comes; `volumes.rs` what its claims allow; `preempt.rs` decides which pods make room for a more important one.
//!
//! Deliberately absent, so far: several profiles, spread that nobody asked for.

mod claim;
mod cluster;
mod constraints;
mod node;
mod nominations;
mod place;
mod pod;
mod preempt;
mod queue;
mod relations;
mod resources;
mod run;
mod score;
mod terms;
mod volumes;

pub use claim::Claim;
pub use node::Node;
pub use place::{Misfit, Placement, place};
pub use relations::Relations;
pub use resources::Resources;
pub use run::{Error, Options, run};
pub use terms::Namespaces;
