//! Kubernetes' words as data: kinds, schema, selectors, quantities, names, Status; no I/O.
