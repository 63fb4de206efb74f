//! What the garbage collector does about one object. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;

use super::graph::{Life, Node};
use super::{FOREGROUND, ORPHAN};

/// What is known of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there.
    Solid,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// It is not there, for certain.
    Absent,
    /// The API has to be asked.
    Unknown {
        /// An object of its uid is there, but in another namespace.
        elsewhere: bool,
    },
    /// A cluster-scoped object names a namespaced owner, which it cannot have: it is left alone.
    OutOfReach,
}

/// What is known of an object's dependents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dependents {
    /// There are some.
    pub any: bool,
    /// Some of them hold the object back (`blockOwnerDeletion`).
    pub blocking: bool,
    /// Some of them wait for dependents of their own.
    pub waiting: bool,
}

/// How a deletion cascades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Dependents go afterwards.
    Background,
    /// Dependents go before.
    Foreground,
    /// Dependents stay.
    Orphan,
}

impl From<Policy> for PropagationPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Background => Self::Background,
            Policy::Foreground => Self::Foreground,
            Policy::Orphan => Self::Orphan,
        }
    }
}

/// What to do about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// Ask the API about unknown owners, and decide again.
    LookUp,
    /// Tell that an owner cannot be where the object says.
    ReportOutOfReach,
    /// Another owner is there: forget those that are not, or are going.
    DropOwners,
    /// No owner is there: delete the object.
    Delete(Policy),
    /// The same in the foreground, in a circle of dependents that would block itself.
    UnblockAndDelete,
    /// It waited for its dependents, and they are gone.
    FinishForeground,
    /// Make its dependents forget it, and let it go.
    Orphan,
}

/// Decides about an object. `owners` are in the order of its references.
pub(super) fn plan(node: &Node, owners: &[Owner], dependents: Dependents) -> Step {
    match node.life {
        Life::Going => return Step::Nothing,
        Life::Waiting if dependents.blocking => return Step::Nothing,
        Life::Waiting => return Step::FinishForeground,
        Life::Orphaning => return Step::Orphan,
        Life::Living => (),
    }
    if owners.is_empty() {
        return Step::Nothing;
    }
    if owners.contains(&Owner::OutOfReach) {
        return Step::ReportOutOfReach;
    }
    if owners.iter().any(|owner| matches!(owner, Owner::Unknown { .. })) {
        return Step::LookUp;
    }
    if owners.contains(&Owner::Solid) {
        let all = owners.iter().all(|owner| *owner == Owner::Solid);
        return if all { Step::Nothing } else { Step::DropOwners };
    }
    if owners.contains(&Owner::Waiting) && dependents.any {
        return if dependents.waiting {
            Step::UnblockAndDelete
        } else {
            Step::Delete(Policy::Foreground)
        };
    }
    Step::Delete(own_policy(&node.finalizers))
}

/// A user may have said beforehand how the object's deletion shall cascade.
fn own_policy(finalizers: &[String]) -> Policy {
    if finalizers.iter().any(|finalizer| finalizer == ORPHAN) {
        Policy::Orphan
    } else if finalizers.iter().any(|finalizer| finalizer == FOREGROUND) {
        Policy::Foreground
    } else {
        Policy::Background
    }
}

/// Whether a reference means the object that has these coordinates. Versions of a group are the same objects.
pub(super) fn means(reference: &OwnerReference, owner: &Node) -> bool {
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    reference.kind == owner.kind.resource.kind
        && group == owner.kind.resource.group
        && reference.name == owner.key.name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::garbage_collector::graph::tests::node;

    const NONE: Dependents = Dependents { any: false, blocking: false, waiting: false };
    const SOME: Dependents = Dependents { any: true, ..NONE };
    const BLOCKING: Dependents = Dependents { blocking: true, ..SOME };
    const CIRCLE: Dependents = Dependents { waiting: true, ..BLOCKING };
    const UNKNOWN: Owner = Owner::Unknown { elsewhere: false };

    fn check(
        life: Life,
        finalizers: &[&str],
        owners: &[Owner],
        dependents: Dependents,
        expected: Step,
    ) {
        let mut node = node("Pod", "default", "a", &[]);
        node.life = life;
        node.finalizers = finalizers.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            plan(&node, owners, dependents),
            expected,
            "{life:?} {finalizers:?} {owners:?} {dependents:?}"
        );
    }

    #[test]
    fn an_object_goes_with_its_last_owner() {
        use Owner::{Absent, OutOfReach, Solid, Waiting};
        let check = |owners: &[Owner], dependents, expected| {
            check(Life::Living, &[], owners, dependents, expected)
        };
        check(&[], NONE, Step::Nothing);
        check(&[Solid], NONE, Step::Nothing);
        check(&[Solid, Solid], SOME, Step::Nothing);
        check(&[Absent], NONE, Step::Delete(Policy::Background));
        check(&[Absent], SOME, Step::Delete(Policy::Background));
        check(&[Absent, Absent], NONE, Step::Delete(Policy::Background));
        check(&[Solid, Absent], NONE, Step::DropOwners);
        check(&[Solid, Waiting], NONE, Step::DropOwners);
        check(&[UNKNOWN], NONE, Step::LookUp);
        check(&[Solid, UNKNOWN], NONE, Step::LookUp);
        check(&[OutOfReach], NONE, Step::ReportOutOfReach);
        check(&[OutOfReach, Absent], NONE, Step::ReportOutOfReach);
        check(&[Waiting], NONE, Step::Delete(Policy::Background));
        check(&[Waiting], SOME, Step::Delete(Policy::Foreground));
        check(&[Waiting, Absent], BLOCKING, Step::Delete(Policy::Foreground));
        check(&[Waiting], CIRCLE, Step::UnblockAndDelete);
    }

    #[test]
    fn a_going_object_is_helped_by_its_finalizers() {
        check(Life::Going, &[], &[Owner::Absent], NONE, Step::Nothing);
        check(Life::Waiting, &[FOREGROUND], &[], BLOCKING, Step::Nothing);
        check(Life::Waiting, &[FOREGROUND], &[], SOME, Step::FinishForeground);
        check(Life::Waiting, &[FOREGROUND], &[Owner::Absent], NONE, Step::FinishForeground);
        check(Life::Orphaning, &[ORPHAN], &[], BLOCKING, Step::Orphan);
        check(Life::Living, &[ORPHAN], &[Owner::Absent], SOME, Step::Delete(Policy::Orphan));
        check(
            Life::Living,
            &[FOREGROUND],
            &[Owner::Absent],
            SOME,
            Step::Delete(Policy::Foreground),
        );
    }
}
