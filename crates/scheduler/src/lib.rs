//! Binds pods to nodes: filter, score, bind; place() is pure.
