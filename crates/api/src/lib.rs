//! Kubernetes' words as data: kinds, schema, selectors, quantities, names, Status; no I/O.
//!
//! Start reading at [`kinds`], the table that routes, discovery and OpenAPI are made from. What a kind's objects
//! look like is [`schema`]'s; [`decode`] and [`patch`] are driven by it, so that no kind has decoding or merging code
//! of its own.
//!
//! Always true: functions here are pure (time comes in as an argument, except in [`time`] itself), nothing here
//! knows a client or a server, and whatever a user sees is worded as upstream words it.
//!
//! Absent on purpose: defaults and validation of single kinds (the API server's rules), and typed objects (those are
//! `k8s_openapi`'s; the API server works on `serde_json::Value`).

pub mod apply;
pub mod certificates;
pub mod cron;
pub mod decode;
pub mod events;
pub mod host_ports;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod nodes;
pub mod openapi;
pub mod patch;
pub mod pods;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod services;
pub mod status;
pub mod time;
