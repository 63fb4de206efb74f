//! Stories: what Coracle promises, checked as a user would see it.
