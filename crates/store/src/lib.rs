//! The revision log: put, list at a revision, watch, compact; the only SQL.
