//! Who wants which field: server-side apply and the bookkeeping behind `metadata.managedFields`, as pure functions.
//!
//! Start reading at [`apply`] (a client says what it wants; everybody else's wishes stay) and [`record_update`] (a client wrote an
//! object; what it changed is its own from now on). Both stand on an algebra of sets of fields, [`FieldSet`], on [`compare`], which
//! says what differs between two objects, and on [`TypeRef`], which says where lists are sets or maps, and where a value counts
//! as a whole.
//!
//! The rules are those of <https://github.com/kubernetes-sigs/structured-merge-diff>; what a set looks like in JSON is what
//! upstream calls `FieldsV1`.
//!
//! Always true: a set names only what somebody wants, so it may be smaller than the object; an empty set is no entry; what the
//! server alone decides (`metadata.uid` and the like) is nobody's.

mod compare;
mod conflict;
mod element;
mod managed;
mod merge;
mod prune;
mod set;
mod types;
mod update;
mod validate;

pub use compare::{Comparison, compare, field_set};
pub use conflict::{Conflict, Conflicts};
pub use managed::{Entry, Managed, Manager, Operation};
pub use merge::merge;
pub use prune::without;
pub use set::FieldSet;
pub use types::TypeRef;
pub use update::{Applied, Apply, apply, record_create, record_update, unchanged_since};
pub use validate::{atomics, validate};

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
