//! What a pod says about the nodes that it may go to: selectors, tolerations, host ports.

pub(crate) use coracle_api::host_ports::{HostPort, host_ports};
pub(crate) use coracle_api::nodes::{Labels, UNSCHEDULABLE, matches_any, matches_term, tolerates};
