//! CEL, the expression language of Kubernetes: in definitions of custom resources, admission policies and match conditions.
//!
//! Start reading at [`Environment`], which compiles text to a [`Program`], and [`Program::evaluate`]. A program's way: `lex`, `parse`
//! (macros included), `check` (types and the table of `signatures`), `evaluate`.
//!
//! What is always true:
//! - No text can exhaust the stack: nesting is bounded where it is parsed. No evaluation can go on: each step is paid for out of a
//!   [`Meter`], by the size of what it touches.
//! - Errors of the compiler say what and where in cel-go's words.
//!
//! The crate `cel` has the values, and `kube-cel` the functions of Kubernetes' libraries. Their parser and interpreter are not
//! used: they know no types, no positions, no costs, and neither optional fields nor objects.

mod ast;
mod budget;
mod check;
mod cost;
mod environment;
mod evaluate;
mod functions;
mod lex;
mod library;
mod macros;
mod operators;
mod parse;
mod problem;
mod signatures;
mod types;
mod value;

pub use budget::Meter;
pub use cost::Extent;
pub use environment::{Environment, Program, Scope};
pub use library::read_time;
pub use parse::is_reserved;
pub use problem::{EvaluationError, Problem, Problems};
pub use types::{ObjectType, Type};
pub use value::{
    Foreign, ForeignValue, Key, Typed, Value, from_json, map, none, optional, some, to_json,
};

#[cfg(test)]
mod tests;
