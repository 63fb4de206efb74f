//! The only door to the cluster's state: authenticates, authorizes, admits, validates, stores, answers, watches.
//!
//! Start reading at [`ApiServer`], then `router.rs` (every request's way in) and `handlers/` (a file per verb). What is the same for
//! every kind is there; what is a kind's own is in `rules/` and `table/`.
//!
//! What is always true:
//! - There is one generic path for every kind of the table of kinds, and one for every client: those in this process only skip the
//!   socket and the proof of who they are.
//! - A list or a watch sends the bytes that the store holds. Objects are decoded only to be changed, or shown in another form.
//! - Every error becomes a `Status` in one function (`answer::failure`); a handler that panics becomes one too.
//! - Every bound is in `limits.rs`, with its reason.
//!
//! Deliberately absent for now: the streams of exec, attach and port-forward.

pub mod admission;
mod aggregation;
pub mod annotations;
mod answer;
pub mod audit;
pub mod authn;
pub mod authz;
mod bootstrap;
mod call;
mod change;
mod cork;
mod custom_resources;
mod deletion;
mod discovery;
pub mod encryption;
mod expressions;
mod extension;
mod fairness;
mod forwarded;
mod handlers;
mod health;
pub mod identity;
mod kubelet_client;
mod limits;
mod managed_fields;
mod metrics;
mod negotiate;
mod node_address;
mod object;
mod openapi;
mod paths;
pub mod pki;
mod printing;
mod protobuf;
mod query;
mod quota;
pub mod rbac_bootstrap;
mod request_info;
mod resource_metrics;
pub mod reviews;
mod router;
pub mod rules;
mod selection;
mod serve;
mod server;
mod service_addresses;
mod storage;
pub mod table;
pub mod tokens;
mod tunnel;
mod turns;
mod upkeep;
mod views;
pub mod warnings;
mod websocket;
mod yaml;

pub use server::{ApiServer, Config, Extras, StartError};
pub use service_addresses::{Cidr, ParseCidrError};
pub use storage::store_options;
