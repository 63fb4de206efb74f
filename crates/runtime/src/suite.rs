//! The promises that every engine keeps, run against each of them.
