//! The only door to the cluster's state: authenticates, authorizes, admits, validates, stores, answers, watches.

pub mod admission;
pub mod authn;
pub mod authz;
pub mod identity;
pub mod pki;
pub mod rbac_bootstrap;
pub mod reviews;
pub mod rules;
pub mod table;
pub mod tokens;
