//! CEL about a write: what match conditions of webhooks and all expressions of admission policies see.
//!
//! [`Facts`] are one write as expressions see it; [`MatchConditions`] say whether a webhook or a policy wants it. The language itself
//! is the crate `coracle-cel`; here are the variables (`object`, `oldObject`, `request`, `namespaceObject`, `params`, `variables`,
//! `authorizer`) and their types. As upstream has them
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/cel/compile.go>).

mod authorizer;
mod conditions;
mod facts;
mod types;

pub(crate) use conditions::{Judgement, MatchConditions, compile, failure};
pub(crate) use facts::{Facts, Host, PolicyScope, Variables};
pub(crate) use types::{environment, environment_of, kind_type, of_structural, user as user_type};

/// What a policy's expressions may cost together; upstream's bound.
pub(crate) const POLICY_BUDGET: u64 = 10_000_000;

/// What match conditions may cost together; upstream's bound.
pub(crate) const CONDITIONS_BUDGET: u64 = 2_500_000;

#[cfg(test)]
mod tests;
