//! (security)
