//! One reconciler per kind: each a pure plan and a thin reconcile.
